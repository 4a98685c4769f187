"""Filters on what the teacher said of its own answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filters.arguments import FilterError, check_choice, check_number
from filters.rows import Floats, Judgement, Rows, column, drop_lines, missing


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Drop rows whose `confidence` is below a minimum; the score is the confidence itself.

    Args:
        minimum: Rows with `confidence < minimum` are dropped. A finite number, at most 1; below 0
            for confidences that are mean token log-probabilities (free text).
        on_missing: What becomes of a row whose confidence is null or NaN: "keep" or "drop". Its
            score is NaN.
    """

    reason: ClassVar[str] = "confidence"
    minimum: float = 0.6
    on_missing: str = "keep"

    def __post_init__(self) -> None:
        check_number(
            "confidence", "minimum", self.minimum, high=1.0, remedy="0.6 is a place to start"
        )
        check_choice("confidence", "on_missing", self.on_missing, ("keep", "drop"))

    def judge(self, rows: Rows) -> Judgement:
        """Compare every row's confidence with the minimum."""
        scores = confidences(rows, self.reason)
        null = np.isnan(scores)
        low = null if self.on_missing == "drop" else np.zeros(len(rows), dtype=bool)
        dropped = rows.alive & (low | (scores < self.minimum))
        warnings: tuple[str, ...] = ()
        if self.on_missing == "keep" and rows.alive.any() and null[rows.alive].all():
            warnings = (
                "confidence: no row has a confidence, so none was dropped; "
                "remove the filter or ask the teacher for one",
            )
        return Judgement(
            scores=scores,
            dropped=dropped,
            threshold=float(self.minimum),
            matches=drop_lines(np.flatnonzero(dropped), scores),
            warnings=warnings,
        )


def confidences(rows: Rows, wanted_by: str) -> Floats:
    """Return the `confidence` column as floats, NaN where missing, shape (n,).

    Raises:
        FilterError: The column is absent, or a row holds something that is not a number.
    """
    values = column(rows.frame, "confidence", wanted_by)
    found = np.full(len(rows), np.nan)
    null = missing(values)
    for position, value in enumerate(values.tolist()):
        if null[position]:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FilterError(
                f"row {rows.ids[position]!r}: confidence is {value!r}; it must be a number or "
                "null; convert the column to numbers first"
            )
        found[position] = value
    return found
