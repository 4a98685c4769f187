"""Duplicates: exact, near and semantic. All three know what a label is.

Two alike texts with different labels are never duplicates: they are a conflict, both stay, and
the decisions say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from filters.arguments import FilterError, as_names, check_flag, check_number
from filters.matches import Units, form_units, judge_units
from filters.meanings import same_meaning
from filters.proposals import (
    Pairs,
    are_few,
    choose_bands,
    count_shingles,
    no_pairs,
    propose_all,
    propose_by_bands,
    propose_by_cosine,
    sign,
)
from filters.rows import Flags, Ints, Judgement, Rows, column, texts
from filters.shingles import ShingleSets, hash_texts, jaccard, normalise, shingle
from filters.words import as_series, mix

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class ExactDuplicate:
    """Drop rows whose normalised text equals that of a kept row with the same label.

    The score is 1 for a row with such a twin, else 0; the threshold is 1.

    Args:
        fields: Text columns that must all be equal.
        same_label: Only rows with the same label are duplicates. False for free text, where two
            good answers seldom read the same.
    """

    reason: ClassVar[str] = "exact_duplicate"
    fields: Sequence[str] = ("input",)
    same_label: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", as_names(self.reason, "fields", self.fields))
        check_flag(self.reason, "same_label", self.same_label)

    def judge(self, rows: Rows) -> Judgement:
        """Group equal texts; the row most worth keeping of each group and label stays."""
        keys = equal_texts([text_series(rows, name, self.reason) for name in self.fields])
        return judge_equal(rows, keys, same_label=self.same_label)


def judge_equal(rows: Rows, keys: Ints, *, same_label: bool) -> Judgement:
    """Judge rows of which it is known which are equal: those with the same key."""
    units = form_units(rows, keys, same_label=same_label)
    return judge_units(rows, units, lambda subset: _equal(keys[units.rows[subset]], subset), 1.0)


def equal_texts(fields: Sequence[pl.Series]) -> Ints:
    """Return a number per row, equal where the normalised texts of all fields are equal."""
    import pandas as pd

    keys = np.zeros(len(fields[0]), dtype=np.uint64)
    for texts_of_field in fields:
        keys = mix(keys + hash_texts(texts_of_field))
    codes = pd.factorize(keys)[0].astype(np.int64)
    # Equal numbers might be chance: among the rows that share one, the texts themselves decide.
    shared = np.flatnonzero(np.bincount(codes, minlength=1)[codes] > 1)
    for texts_of_field in fields:
        spelled = pd.factorize(np.array(normalise(texts_of_field.gather(shared)), dtype=object))[0]
        codes[shared] = pd.factorize(codes[shared] * (len(shared) + 1) + spelled)[0] + len(codes)
    return codes


def _equal(codes: Ints, subset: Ints) -> Pairs:
    """Pair every unit with the best unit of the same text, which then has another label."""
    import pandas as pd

    codes = pd.factorize(codes)[0]
    first = np.unique(codes, return_index=True)[1][codes]
    worse = np.flatnonzero(first != np.arange(len(codes)))
    if not len(worse):
        return no_pairs()
    return Pairs(worse=subset[worse], better=subset[first[worse]], score=np.ones(len(worse)))


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """Drop rows whose words overlap with those of a kept row with the same label.

    The score is the exact Jaccard similarity |A and B| / |A or B| of the two sets of shingles
    (words and pairs of neighbouring words), 0 where no kept row came near. MinHash signatures
    (Broder 1997) only propose the pairs. A changed word in the middle of a text of 16 words
    leaves .82, at its end .88; in 8 words it leaves .67.

    Args:
        threshold: Rows with a score of at least this are dropped; in (0, 1].
        fields: Text columns to compare; shingles of different columns never mix.
        shingle: How many words a shingle has. (1, 2) is kind to short texts; (3,) is stricter.
        same_label: Only rows with the same label are duplicates. False for free text.
        floor: Matches down to this similarity go into the decisions, so that the threshold can be
            moved later; by default 0.1 below the threshold.
        permutations: Length of the signatures; more finds more of the pairs near the floor.
    """

    reason: ClassVar[str] = "near_duplicate"
    threshold: float = 0.7
    fields: Sequence[str] = ("input",)
    shingle: Sequence[int] = (1, 2)
    same_label: bool = True
    floor: float | None = None
    permutations: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", as_names(self.reason, "fields", self.fields))
        object.__setattr__(self, "shingle", _shingle_lengths(self.reason, self.shingle))
        check_flag(self.reason, "same_label", self.same_label)
        _check_threshold(self.reason, self.threshold, self.floor, remedy="0.8 is a place to start")
        check_number(
            self.reason,
            "permutations",
            self.permutations,
            low=16,
            high=1_024,
            whole=True,
            remedy="128 serves most",
        )

    def judge(self, rows: Rows) -> Judgement:
        """Propose pairs by MinHash, measure them exactly, keep the best of each star."""
        columns = [text_series(rows, name, self.reason) for name in self.fields]
        if not len(rows):
            return judge_units(rows, _no_units(), lambda _: no_pairs(), self.threshold)
        sets = shingle(
            columns, self.shingle, lambda done: rows.report(self.reason, done // 2, len(rows))
        )
        return self.judge_sets(rows, sets)

    @property
    def lowest(self) -> float:
        """The floor: matches below it are not written down."""
        return _floor(self.threshold, self.floor, step=0.1)

    def judge_sets(self, rows: Rows, sets: ShingleSets, folder: Path | None = None) -> Judgement:
        """Judge rows whose shingles are known; with a folder, signatures are kept there as files."""
        units = form_units(rows, sets.keys.astype(np.int64), same_label=self.same_label)
        guess = self._guess(rows, sets, units, folder)

        def propose(subset: Ints) -> Pairs:
            worse, better, cut = guess(subset)
            score = jaccard(sets, units.rows[worse], units.rows[better], self.lowest)
            near = score >= self.lowest
            return Pairs(worse=worse[near], better=better[near], score=score[near], cut=cut)

        judgement = judge_units(rows, units, propose, self.threshold)
        rows.report(self.reason, len(rows), len(rows))
        return judgement

    def _guess(
        self, rows: Rows, sets: ShingleSets, units: Units, folder: Path | None
    ) -> Callable[[Ints], tuple[Ints, Ints, bool]]:
        """Return what proposes pairs: of a few texts all pairs, of many those of MinHash."""
        if are_few(sets, units.rows):
            return lambda subset: (*propose_all(subset), False)
        bands = choose_bands(self.threshold, self.lowest, self.permutations, len(units.rows))
        signatures = sign(sets, units.rows, count_shingles(sets), bands, rows.seed, folder)
        crowds: list[Ints] | None = None

        def guess(subset: Ints) -> tuple[Ints, Ints, bool]:
            nonlocal crowds
            worse, better, crowds = propose_by_bands(
                signatures, units.labels, self.lowest, subset, crowds
            )
            return worse, better, any(map(len, crowds))

        return guess


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicate:
    """Drop rows that say the same as a kept row with the same label, in other words.

    The score is the cosine of the two embeddings, 0 where no kept row came near. An embedding
    alone never deletes: a pair counts only if it also passes a second check. Both texts must have
    the same numbers and as many negations, no word may face its own opposite by a prefix or
    suffix ("reliable", "unreliable"), and the texts must share words (see `overlap`).

    Args:
        threshold: Rows with a score of at least this are dropped; in (0, 1].
        overlap: Least share of the shorter text's distinct words that the other text must hold
            too; in [0, 1].
        same_label: Only rows with the same label are duplicates. False for free text.
        floor: Matches down to this cosine go into the decisions; by default 0.05 below the
            threshold.
    """

    reason: ClassVar[str] = "semantic_duplicate"
    threshold: float = 0.95
    overlap: float = 0.5
    same_label: bool = True
    floor: float | None = None

    def __post_init__(self) -> None:
        check_flag(self.reason, "same_label", self.same_label)
        _check_threshold(self.reason, self.threshold, self.floor, remedy="0.95 is a place to start")
        check_number(self.reason, "overlap", self.overlap, low=0, high=1, remedy="try 0.5")

    def judge(self, rows: Rows) -> Judgement:
        """Propose pairs by cosine, check the words, keep the best of each star."""
        import pandas as pd

        inputs = texts(rows, "input", self.reason)
        if rows.embeddings is None:
            raise FilterError(
                "semantic_duplicate: embeddings is None; it needs one vector per row; "
                "pass embeddings=filters.embed(texts, model) to apply"
            )
        vectors = rows.embeddings
        packed = np.ascontiguousarray(vectors).view(f"V{4 * max(vectors.shape[1], 1)}").ravel()
        keys = np.empty(len(rows), dtype=object)
        keys[:] = list(zip(inputs, packed.tolist(), strict=True))
        units = form_units(rows, pd.factorize(keys)[0], same_label=self.same_label)
        floor = _floor(self.threshold, self.floor, step=0.05)

        def propose(subset: Ints) -> Pairs:
            rows.report(self.reason, len(rows) - len(subset), len(rows))
            pairs = propose_by_cosine(vectors[units.rows[subset]], units.labels[subset], floor)
            worse, better = subset[pairs.worse], subset[pairs.better]
            return Pairs(worse=worse, better=better, score=pairs.score, cut=pairs.cut)

        def check(first: Ints, second: Ints) -> Flags:
            return same_meaning(inputs, first, second, self.overlap)

        judgement = judge_units(rows, units, propose, self.threshold, check)
        rows.report(self.reason, len(rows), len(rows))
        return judgement


def text_series(rows: Rows, name: str, wanted_by: str) -> pl.Series:
    """Return a text column as `texts` does, without making Python strings where that can be."""
    import pandas as pd
    import polars as pl

    values = column(rows.frame, name, wanted_by)
    held = values.array
    if isinstance(values.dtype, pd.StringDtype) and values.dtype.storage == "pyarrow":
        series = pl.Series("text", held.__arrow_array__(), dtype=pl.String)
        if not series.null_count():
            return series
        if name != "input":
            return series.fill_null("")
    return as_series(texts(rows, name, wanted_by))


def _no_units() -> Units:
    none = np.empty(0, dtype=np.int64)
    return Units(rows=none, unit=none, labels=none, alive=np.empty(0, dtype=bool))


def _floor(threshold: float, floor: float | None, *, step: float) -> float:
    return max(threshold - step, 0.01) if floor is None else floor


def _check_threshold(owner: str, threshold: object, floor: object, *, remedy: str) -> None:
    check_number(owner, "threshold", threshold, low=0, high=1, open_low=True, remedy=remedy)
    if floor is not None:
        high = float(threshold)  # type: ignore[arg-type]  # checked in the line above
        check_number(owner, "floor", floor, low=0, high=high, open_low=True, remedy="leave it out")


def _shingle_lengths(owner: str, value: object) -> tuple[int, ...]:
    lengths = (value,) if isinstance(value, int) else value
    if isinstance(lengths, Sequence) and not isinstance(lengths, str) and lengths:
        for length in lengths:
            check_number(
                owner, "shingle", length, low=1, high=20, whole=True, remedy="write [1, 2]"
            )
        return tuple(sorted(set(lengths)))
    raise FilterError(
        f"{owner}: shingle is {value!r}; it must be a list of whole numbers, the words per "
        "shingle; write [1, 2]"
    )
