"""When a student should rather not answer: what a confidence threshold buys and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from student.errors import InputError

__all__ = ["choose_threshold", "coverage_table"]

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LEAST_ROWS = 20
"""A threshold above which fewer rows are answered is not chosen: their accuracy is mostly luck."""


def coverage_table(
    confidences: Sequence[float],
    right: Sequence[bool],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, Any]]:
    """Return, for each threshold, how many rows are still answered and how many of those rightly.

    Each is {"threshold", "rows", "coverage", "accuracy"}: rows with confidence of at least the
    threshold, their share of all rows, and their accuracy (null where none is left). A row whose
    confidence is null is never answered.
    """
    sure, correct = _arrays(confidences, right)
    return [_at(float(threshold), sure, correct) for threshold in thresholds]


def choose_threshold(
    confidences: Sequence[float],
    right: Sequence[bool],
    *,
    accuracy: float,
    least_rows: int = LEAST_ROWS,
) -> dict[str, Any] | None:
    """Return the lowest threshold at which answered rows reach `accuracy`, as in `coverage_table`.

    Choose it on validation rows: on test rows the accuracy it promises would be one picked for being
    high. At least `least_rows` rows must be answered. None where no threshold reaches it.
    """
    if not 0 < accuracy <= 1:
        raise InputError(f"accuracy={accuracy}; it must be above 0 and at most 1")
    sure, correct = _arrays(confidences, right)
    order = np.argsort(-sure, kind="stable")
    order = order[~np.isnan(sure[order])]
    shares = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    best = None
    for place, row in enumerate(order):
        last_of_equals = place + 1 == len(order) or sure[order[place + 1]] < sure[row]
        if last_of_equals and place + 1 >= least_rows and shares[place] >= accuracy:
            best = float(sure[row])
    return None if best is None else _at(best, sure, correct)


def _at(threshold: float, sure: Any, correct: Any) -> dict[str, Any]:
    answered = sure >= threshold  # NaN is never
    rows = int(answered.sum())
    return {
        "threshold": threshold,
        "rows": rows,
        "coverage": rows / len(sure),
        "accuracy": float(correct[answered].mean()) if rows else None,
    }


def _arrays(confidences: Sequence[float], right: Sequence[bool]) -> tuple[Any, Any]:
    if len(confidences) != len(right) or len(right) == 0:
        raise InputError(
            f"{len(confidences)} confidences and {len(right)} answers; give one of each per row"
        )
    sure = np.array([np.nan if c is None else c for c in confidences], dtype=float)
    return sure, np.asarray(right, dtype=float)
