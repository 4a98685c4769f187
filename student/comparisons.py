"""Intervals and differences: the bootstrap over rows or groups, two systems on the same draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from student.errors import InputError
from student.row_statistics import Floats, Statistics, is_null

__all__ = ["difference", "interval", "mcnemar"]

RESAMPLES = 1000


def interval(
    statistics: Statistics,
    *,
    groups: Sequence[object] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron 1979) of a metric.

    With `groups` (one value per row, null for a row on its own) whole groups are drawn, because
    sentences of one review are not independent and an interval that ignores it is too narrow.
    """
    table = _by_group(statistics.rows, groups)
    values = [statistics.value(times @ table) for times in _draws(len(table), resamples, seed)]
    return _ends(np.concatenate(values), level)


def difference(
    first: Statistics,
    second: Statistics,
    *,
    groups: Sequence[object] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Return {"difference", "low", "high", "p"} of `first - second` by the paired bootstrap.

    Both are computed on the same draws of the same rows (Koehn 2004), so that what is hard for both
    cancels out. The interval is the percentile one; p is two-sided and belongs to it (Efron and
    Tibshirani 1993, chapter 15): twice the share of draws on the far side of zero, at least
    1 / (resamples + 1).
    """
    if len(first.rows) != len(second.rows):
        raise InputError(
            f"{len(first.rows)} rows of one system and {len(second.rows)} of the other; a paired "
            "comparison needs both on the same rows"
        )
    one, two = _by_group(first.rows, groups), _by_group(second.rows, groups)
    found = [
        first.value(times @ one) - second.value(times @ two)
        for times in _draws(len(one), resamples, seed)
    ]
    drawn = np.concatenate(found)
    low, high = _ends(drawn, level)
    least = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return {
        "difference": first.all_rows() - second.all_rows(),
        "low": low,
        "high": high,
        "p": min(1.0, 2 * (least + 1) / (resamples + 1)),
    }


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """Return {"first_only", "second_only", "p"}: McNemar's exact test (McNemar 1947) of two systems.

    `first[i]` says whether the first system is right on row i. Only rows on which one of them is
    right count: under the null each is as likely to be the one, so p is a two-sided sign test.
    Rows are taken as independent; where they are grouped use `difference`.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} answers of one system and {len(second)} of the other")
    pairs = [(bool(a), bool(b)) for a, b in zip(first, second, strict=True)]
    ahead, behind = pairs.count((True, False)), pairs.count((False, True))
    rows = ahead + behind
    tail = sum(math.comb(rows, k) for k in range(min(ahead, behind) + 1))
    p = min(1.0, 2 * tail / 2**rows)
    return {"first_only": ahead, "second_only": behind, "p": p}


def _draws(drawn: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield tables (resamples at once, rows): how often each row, or group, was drawn."""
    random = np.random.default_rng(seed)
    at_once = max(1, 4_000_000 // drawn)  # bounds the table's size
    for start in range(0, resamples, at_once):
        height = min(at_once, resamples - start)
        picks = random.integers(0, drawn, size=(height, drawn))
        picks += np.arange(height)[:, None] * drawn
        times = np.bincount(picks.ravel(), minlength=height * drawn)
        yield times.reshape(height, drawn).astype(float)


def _by_group(rows: Floats, groups: Sequence[object] | None) -> Floats:
    if groups is None:
        return rows
    if len(groups) != len(rows):
        raise InputError(f"{len(groups)} groups for {len(rows)} rows; give one per row")
    names = [("row", i) if is_null(g) else ("group", g) for i, g in enumerate(groups)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    summed = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(summed, [numbers[name] for name in names], rows)
    return summed


def _ends(values: Floats, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise InputError(f"level={level}; it must be between 0 and 1, such as 0.95")
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
