"""Duplicates: exact, near and semantic. All three know what a label is.

Two alike texts with different labels are never duplicates: they are a conflict, both stay, and
the decisions say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filters.arguments import FilterError, as_names, check_flag, check_number
from filters.matches import Units, form_units, judge_units
from filters.meanings import same_meaning
from filters.proposals import (
    Pairs,
    choose_bands,
    no_pairs,
    propose_by_bands,
    propose_by_cosine,
    sign,
)
from filters.rows import Flags, Ints, Judgement, Rows, texts
from filters.shingles import jaccard, normalise, shingle


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
        columns = [normalise(texts(rows, name, self.reason)) for name in self.fields]
        keys = np.empty(len(rows), dtype=object)
        keys[:] = ["\x1f".join(parts) for parts in zip(*columns, strict=True)]
        units = form_units(rows, keys, same_label=self.same_label)
        return judge_units(
            rows, units, lambda subset: _equal(keys[units.rows[subset]], subset), 1.0
        )


def _equal(keys: np.ndarray[tuple[int], np.dtype[np.object_]], subset: Ints) -> Pairs:
    """Pair every unit with the best unit of the same text, which then has another label."""
    import pandas as pd

    codes = pd.factorize(keys)[0]
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
    threshold: float = 0.8
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
        columns = [texts(rows, name, self.reason) for name in self.fields]
        if not len(rows):
            return judge_units(rows, _no_units(), lambda _: no_pairs(), self.threshold)
        sets = shingle(columns, self.shingle)
        units = form_units(rows, sets.keys.astype(np.int64), same_label=self.same_label)
        floor = _floor(self.threshold, self.floor, step=0.1)
        bands, height = choose_bands(self.threshold, floor, self.permutations)
        rows.report(self.reason, 0, len(rows))
        signatures = sign(sets, self.permutations, rows.seed)[units.rows]

        def propose(subset: Ints) -> Pairs:
            worse, better, cut = propose_by_bands(
                signatures[subset], units.labels[subset], bands, height
            )
            worse, better = subset[worse], subset[better]
            score = jaccard(sets, units.rows[worse], units.rows[better], floor)
            near = score >= floor
            return Pairs(worse=worse[near], better=better[near], score=score[near], cut=cut)

        judgement = judge_units(rows, units, propose, self.threshold)
        rows.report(self.reason, len(rows), len(rows))
        return judgement


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
