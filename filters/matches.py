"""From similar pairs to verdicts: one row of a group stays, and every removal names its twin.

Rows that cannot be told apart (same key, same label) form a unit. Units are visited from the one
most worth keeping; a unit goes only when it matches, directly, a unit that stays. Chains are never
followed: of A like B like C, where A is not like C, only B goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from filters.proposals import Pairs, no_pairs
from filters.rows import Flags, Ints, Judgement, Matches, Objects, Rows

Propose = Callable[[Ints], Pairs]
Check = Callable[[Ints, Ints], Flags]

_LINES = 16  # evidence lines kept per row, the weightiest first
_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class Units:
    """Groups of rows that are the same to a filter, the one most worth keeping first.

    `rows` is each unit's best row, `unit` the unit of every row, `labels` a code per unit (-1
    where the label is missing or not compared), `alive` whether its best row is alive.
    """

    rows: Ints
    unit: Ints
    labels: Ints
    alive: Flags


def form_units(rows: Rows, keys: Objects | Ints, *, same_label: bool) -> Units:
    """Group the rows by key and label; `keys` has one hashable value per row."""
    import pandas as pd

    labels = label_codes(rows, same_label=same_label)
    codes = pd.factorize(np.asarray(keys))[0].astype(np.int64)
    together = codes * (labels.max(initial=-1) + 2) + labels + 1
    unit_in_order, _ = pd.factorize(together[rows.order])
    unit = np.empty(len(rows), dtype=np.int64)
    unit[rows.order] = unit_in_order
    best = rows.order[np.unique(unit_in_order, return_index=True)[1]]
    return Units(rows=best, unit=unit, labels=labels[best], alive=rows.alive[best])


def label_codes(rows: Rows, *, same_label: bool) -> Ints:
    """Return a number per row, equal where the labels are equal, -1 where they say nothing."""
    import pandas as pd

    if rows.labels is None or not same_label:
        return np.full(len(rows), -1, dtype=np.int64)
    codes, distinct = pd.factorize(rows.labels)
    same = pd.factorize(np.array([str(label).strip() for label in distinct], dtype=object))[0]
    # A null has the code -1, and so the last entry.
    return np.append(same, -1)[codes].astype(np.int64)


def judge_units(
    rows: Rows, units: Units, propose: Propose, threshold: float, check: Check | None = None
) -> Judgement:
    """Decide which units stay and write down the evidence.

    Args:
        rows: The rows.
        units: Their units.
        propose: Given unit numbers in ascending order, returns the similar pairs among them, each
            once and sorted by `worse`.
        threshold: Pairs at or above it, with labels that do not differ, are duplicates.
        check: Given two arrays of row positions, says which pairs may count at all, be it as a
            duplicate or as a conflict.
    """
    pairs, stays = no_pairs(), units.alive
    subset = np.arange(len(units.rows))
    for _ in range(_ROUNDS):
        fresh = propose(subset)
        pairs = _merge(pairs, fresh, len(units.rows))
        counts = np.ones(len(pairs.worse), dtype=bool)
        if check is not None:
            counts = check(units.rows[pairs.worse], units.rows[pairs.better])
        alike = counts & _agree(units, pairs.worse, pairs.better)
        stays = _visit(units, pairs, alike & (pairs.score >= threshold))
        before, subset = subset, np.flatnonzero(stays)
        # Where a crowd hid pairs, look again among those that stay, until nothing more goes.
        if not fresh.cut or np.array_equal(before, subset):
            break
    return _write(rows, units, pairs, counts, stays, threshold)


def _merge(known: Pairs, fresh: Pairs, count: int) -> Pairs:
    if not len(known.worse):
        return fresh
    worse = np.concatenate([known.worse, fresh.worse])
    better = np.concatenate([known.better, fresh.better])
    _, first = np.unique(worse * count + better, return_index=True)
    score = np.concatenate([known.score, fresh.score])[first]
    return Pairs(worse=worse[first], better=better[first], score=score)


def _agree(units: Units, first: Ints, second: Ints) -> Flags:
    one, other = units.labels[first], units.labels[second]
    agree: Flags = (one == other) | (one < 0) | (other < 0)
    return agree


def _visit(units: Units, pairs: Pairs, hits: Flags) -> Flags:
    """Return which units stay; pairs come sorted by `worse`, so `better` is always decided."""
    stays = units.alive.tolist()
    for worse, better in zip(pairs.worse[hits].tolist(), pairs.better[hits].tolist(), strict=True):
        if stays[better]:
            stays[worse] = False
    return np.array(stays, dtype=bool)


def _write(
    rows: Rows, units: Units, pairs: Pairs, counts: Flags, stays: Flags, threshold: float
) -> Judgement:
    """Turn the decision on units into a judgement on rows.

    A row that is not its unit's best (a double) has that row's lines and one to that row.
    """
    scores = np.zeros(len(units.rows))
    agree = _agree(units, pairs.worse, pairs.better)
    staying = counts & agree & stays[pairs.better]
    np.maximum.at(scores, pairs.worse[staying], pairs.score[staying])
    double = np.arange(len(rows)) != units.rows[units.unit]
    row_scores = np.where(double & stays[units.unit], 1.0, scores[units.unit])
    dropped: Flags = rows.alive & (row_scores >= threshold)

    verdict = np.full(len(pairs.worse), "keep", dtype=object)
    high = counts & (pairs.score >= threshold)
    verdict[high & staying] = "drop"
    verdict[high & ~agree & stays[pairs.worse] & stays[pairs.better]] = "conflict"

    few = _few_lines(pairs, verdict)
    member, line = _members(units, pairs.worse[few])
    theirs = verdict[few][line]
    # A dead row cannot be dropped again, and of a conflict only the rows that stay are part.
    idle = ((theirs == "drop") & ~rows.alive[member]) | ((theirs == "conflict") & double[member])
    theirs[idle] = "keep"
    doubles = np.flatnonzero(double)
    own = dropped[doubles] & stays[units.unit[doubles]]
    matches = Matches(
        row=np.concatenate([member, doubles]),
        related=np.concatenate(
            [units.rows[pairs.better[few]][line], units.rows[units.unit[doubles]]]
        ),
        score=np.concatenate([pairs.score[few][line], np.ones(len(doubles))]),
        verdict=np.concatenate([theirs, np.where(own, "drop", "keep")]),
    )
    return Judgement(scores=row_scores, dropped=dropped, threshold=threshold, matches=matches)


def _members(units: Units, wanted: Ints) -> tuple[Ints, Ints]:
    """Return all rows of the units in `wanted`, and for each the position in `wanted`."""
    by_unit = np.argsort(units.unit, kind="stable")
    sizes = np.bincount(units.unit, minlength=len(units.rows))
    starts = np.cumsum(sizes) - sizes
    line = np.repeat(np.arange(len(wanted)), sizes[wanted])
    first = np.repeat(np.cumsum(sizes[wanted]) - sizes[wanted], sizes[wanted])
    return by_unit[starts[wanted[line]] + np.arange(len(line)) - first], line


def _few_lines(pairs: Pairs, verdict: Objects) -> Ints:
    """Return the positions of at most `_LINES` pairs per unit: verdicts first, then high scores."""
    weight = np.where(verdict == "drop", 0, np.where(verdict == "conflict", 1, 2))
    order = np.lexsort((pairs.better, -pairs.score, weight, pairs.worse))
    worse = pairs.worse[order]
    place = np.arange(len(order)) - np.searchsorted(worse, worse)
    few: Ints = order[place < _LINES]
    return few
