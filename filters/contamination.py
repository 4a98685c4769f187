"""Contamination: rows that are in a set which they must not be in, such as the test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from filters.arguments import FilterError, as_set_names, check_number
from filters.meanings import same_meaning
from filters.rows import Floats, Ints, Judgement, Matches, Objects, Reference, Rows, texts
from filters.shingles import ShingleSets, shingle

_LINES = 16  # evidence lines kept per row, the highest scores first
_CELLS = 5_000_000  # pairs counted, or cosines held, at once
_COMMON_SHARE, _COMMON_LEAST, _COMMON_MOST = 0.05, 10, 200


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """Drop rows that share long runs of words with a text of another set, whatever the labels.

    The score is the highest containment in any text of the other sets: the number of different
    runs of `ngram` words that both texts hold, divided by the number that the one with fewer of
    them has (Broder 1997, with the smaller set below; 1 means that one text stands in the other).
    It is exact for every row, and 0 only where no run is shared. A text of fewer than `ngram`
    words is one run: it is found only where the other text has the same normalised words and no
    more. Runs that stand in more than 5 % of a set's different texts (and in more than 10 of
    them, or in more than 200) are taken for a template's and not counted.

    Args:
        against: Names of the sets to compare with, as given to `apply`; empty for all.
        containment: Rows with a score of at least this are dropped; in (0, 1].
        ngram: Words per run; from 1 to 20.
        floor: Matches down to this containment go into the decisions; by default 0.2 below
            `containment`.
    """

    reason: ClassVar[str] = "contamination"
    against: Sequence[str] = ()
    containment: float = 0.5
    ngram: int = 8
    floor: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "against", as_set_names(self.reason, self.against))
        check_number(
            self.reason, "containment", self.containment, low=0, high=1, open_low=True,
            remedy="0.5 is a place to start",
        )  # fmt: skip
        check_number(
            self.reason, "ngram", self.ngram, low=1, high=20, whole=True, remedy="8 serves most"
        )
        _check_floor(self.reason, self.floor, self.containment)

    def judge(self, rows: Rows) -> Judgement:
        """Count shared runs between every row and every text of the other sets."""
        others = _Others.of(rows, self.against, self.reason)
        mine = texts(rows, "input", self.reason)
        if not len(rows) or not len(others.ids):
            none = np.zeros(0, dtype=np.int64)
            return _judge(rows, others, (none, none, np.zeros(0)), self.containment, 1.0)
        sets = shingle([[*mine, *others.texts]], (self.ngram,))
        floor = max(self.containment - 0.2, 0.05) if self.floor is None else self.floor
        scores, pairs = _contain(rows, sets, others.names, self.reason, floor)
        return _judge(rows, others, pairs, self.containment, floor, scores=scores)


@dataclass(frozen=True, kw_only=True)
class SemanticContamination:
    """Drop rows that say the same as a text of another set, in other words.

    The score is the highest cosine to a text of the other sets, 0 where none came near. As with
    `SemanticDuplicate` a pair counts only if nothing in its words speaks against one meaning.
    Needs embeddings of the rows and of the other sets. Labels are not compared.

    Args:
        against: Names of the sets to compare with, as given to `apply`; empty for all.
        threshold: Rows with a score of at least this are dropped; in (0, 1].
        overlap: Least share of the shorter text's distinct words that the other text must hold
            too; in [0, 1].
        floor: Matches down to this cosine go into the decisions; by default 0.05 below the
            threshold.
    """

    reason: ClassVar[str] = "semantic_contamination"
    against: Sequence[str] = ()
    threshold: float = 0.95
    overlap: float = 0.5
    floor: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "against", as_set_names(self.reason, self.against))
        check_number(
            self.reason, "threshold", self.threshold, low=0, high=1, open_low=True,
            remedy="0.95 is a place to start",
        )  # fmt: skip
        check_number(self.reason, "overlap", self.overlap, low=0, high=1, remedy="try 0.5")
        _check_floor(self.reason, self.floor, self.threshold)

    def judge(self, rows: Rows) -> Judgement:
        """Compare all rows with all texts of the other sets, and check the words of near pairs."""
        others = _Others.of(rows, self.against, self.reason)
        mine = texts(rows, "input", self.reason)
        if rows.embeddings is None:
            raise FilterError(
                "semantic_contamination: embeddings is None; it needs one vector per row; "
                "pass embeddings=filters.embed(texts, model) to apply"
            )
        vectors = others.embeddings(rows.embeddings.shape[1], self.reason)
        floor = max(self.threshold - 0.05, 0.01) if self.floor is None else self.floor
        row, other, cosine = _near(rows, vectors, floor, self.reason)
        counts = same_meaning([*mine, *others.texts], row, other + len(rows), self.overlap)
        return _judge(rows, others, (row, other, cosine), self.threshold, floor, counts=counts)


@dataclass(frozen=True)
class _Others:
    """The chosen sets, laid end to end."""

    names: Objects
    ids: Objects
    texts: list[str]
    sets: dict[str, Reference]

    @classmethod
    def of(cls, rows: Rows, against: Sequence[str], wanted_by: str) -> _Others:
        """Take the sets named in `against` from the rows' references."""
        there = ", ".join(map(repr, rows.references)) or "none"
        if not rows.references:
            raise FilterError(
                f"{wanted_by}: there is no set to compare with; pass for example "
                "references={'test': test_rows} to apply"
            )
        for name in against:
            if name not in rows.references:
                raise FilterError(
                    f"{wanted_by}: against names {name!r}; the sets are {there}; pass it in "
                    "references or leave it out of `against`"
                )
        sets = {name: rows.references[name] for name in against or sorted(rows.references)}
        none = np.empty(0, dtype=object)
        names = [np.full(len(one.ids), name, dtype=object) for name, one in sets.items()]
        return cls(
            names=np.concatenate([none, *names]),
            ids=np.concatenate([none, *(one.ids for one in sets.values())]),
            texts=[text for one in sets.values() for text in one.texts],
            sets=sets,
        )

    def embeddings(self, width: int, wanted_by: str) -> NDArray[np.float32]:
        """Return the sets' vectors, shape (m, width)."""
        parts = [np.empty((0, width), dtype=np.float32)]
        for name, one in self.sets.items():
            if one.embeddings is None:
                raise FilterError(
                    f"{wanted_by}: the set {name!r} has no embeddings; pass "
                    f"reference_embeddings={{{name!r}: filters.embed(texts, model)}} to apply"
                )
            if len(one.ids) and one.embeddings.shape[1] != width:
                raise FilterError(
                    f"{wanted_by}: the vectors of {name!r} have {one.embeddings.shape[1]} dimensions "
                    f"and the rows' have {width}; embed both with one model"
                )
            parts.append(one.embeddings.reshape(-1, width))
        return np.concatenate(parts)


def _contain(
    rows: Rows, sets: ShingleSets, names: Objects, reason: str, floor: float
) -> tuple[Floats, tuple[Ints, Ints, Floats]]:
    """Return each row's highest containment, and the pairs (row, other) at or above the floor."""
    count = len(rows)
    first = np.unique(sets.keys[count:], return_index=True)[1]
    matrix = _matrix(sets)
    counted = matrix[:, _uncommon(matrix[count:][first], names[first])].tocsr()
    sizes = np.diff(counted.indptr).astype(np.int64)
    mine, theirs = counted[:count], counted[count:][first]
    held = np.asarray(theirs.sum(axis=0)).ravel()
    costs = np.cumsum(mine @ held) // _CELLS
    # Equal texts match even where every run of theirs is a template's.
    scores, parts = np.zeros(count), [_equal(sets.keys[:count], sets.keys[count:][first])]
    scores[parts[0][0]] = 1.0
    turned = theirs.T.tocsr()
    for block in np.split(np.arange(count), np.flatnonzero(np.diff(costs)) + 1):
        shared = (mine[block] @ turned).tocoo()
        row = block[shared.row]
        score = shared.data / np.minimum(sizes[row], sizes[count:][first][shared.col])
        np.maximum.at(scores, row, score)
        near = score >= floor
        parts.append((row[near], shared.col[near].astype(np.int64), score[near]))
        rows.report(reason, int(block[-1]) + 1, count)
    row, col, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, once = np.unique(row * len(first) + col, return_index=True)
    return scores, (row[once], first[col[once]], score[once])


def _matrix(sets: ShingleSets) -> Any:
    """Return the sparse 0/1 matrix (texts, different runs)."""
    from scipy.sparse import csr_matrix

    codes, distinct = pd.factorize(sets.hashes)
    shape = (len(sets.offsets) - 1, max(len(distinct), 1))
    matrix = csr_matrix((np.ones(len(codes), dtype=np.int32), codes, sets.offsets), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _equal(mine: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> tuple[Ints, Ints, Floats]:
    """Pair rows with the text of the same runs; `theirs` is sorted and holds nothing twice."""
    place = np.minimum(np.searchsorted(theirs, mine), len(theirs) - 1)
    row = np.flatnonzero(theirs[place] == mine)
    return row, place[row].astype(np.int64), np.ones(len(row))


def _uncommon(matrix: Any, names: Objects) -> Ints:
    """Return the columns of runs that are no template's in any of the sets."""
    common = np.zeros(matrix.shape[1], dtype=bool)
    for name in sorted(set(names)):
        members = np.flatnonzero(names == name)
        most = min(max(_COMMON_LEAST, _COMMON_SHARE * len(members)), _COMMON_MOST)
        common |= np.asarray(matrix[members].sum(axis=0)).ravel() > most
    return np.flatnonzero(~common)


def _near(
    rows: Rows, theirs: NDArray[np.float32], floor: float, reason: str
) -> tuple[Ints, Ints, Floats]:
    """Return the pairs (row, other) whose cosine is at least `floor`, found exactly in blocks."""
    mine = rows.embeddings
    none = np.empty(0, dtype=np.int64)
    found: list[tuple[Ints, Ints, Floats]] = [(none, none, np.empty(0))]
    if mine is None or not len(mine) or not len(theirs):
        return found[0]
    height = max(1, _CELLS // len(theirs))
    for start in range(0, len(mine), height):
        block = mine[start : start + height]
        # A block product's last digits depend on its shape: look lower, then measure each pair.
        row, other = np.nonzero(block @ theirs.T >= floor - 1e-5)
        left, right = block[row].astype(np.float64), theirs[other].astype(np.float64)
        cosine = np.clip(np.einsum("ij,ij->i", left, right), -1.0, 1.0)
        near = cosine >= floor
        found.append((row[near] + start, other[near], cosine[near]))
        rows.report(reason, min(start + height, len(mine)), len(mine))
    row, other, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    return row, other, cosine


def _judge(
    rows: Rows,
    others: _Others,
    pairs: tuple[Ints, Ints, Floats],
    threshold: float,
    floor: float,
    *,
    scores: Floats | None = None,
    counts: NDArray[np.bool_] | None = None,
) -> Judgement:
    """Turn pairs into a judgement; pairs that do not count are evidence only."""
    row, other, score = pairs
    counts = np.ones(len(row), dtype=bool) if counts is None else counts
    if scores is None:
        scores = np.zeros(len(rows))
        np.maximum.at(scores, row[counts], score[counts])
    dropped = rows.alive & (scores >= threshold)
    drops = counts & (score >= threshold) & rows.alive[row]
    order = np.lexsort((other, -score, ~drops, row))
    place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    few = order[(place < _LINES) & (score[order] >= floor)]
    return Judgement(
        scores=scores,
        dropped=dropped,
        threshold=threshold,
        matches=Matches(
            row=row[few],
            related=np.full(len(few), -1, dtype=np.int64),
            score=score[few],
            verdict=np.where(drops[few], "drop", "keep").astype(object),
            elsewhere=list(zip(others.names[other[few]], others.ids[other[few]], strict=True)),
        ),
    )


def _check_floor(owner: str, floor: object, threshold: float) -> None:
    if floor is not None:
        check_number(
            owner, "floor", floor, low=0, high=threshold, open_low=True, remedy="leave it out"
        )
