"""Filters on what the teacher, or whoever was asked about it, said of its own answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filters.arguments import FilterError, check_choice, check_number
from filters.limits import ABOVE, BELOW
from filters.rows import Flags, Floats, Judgement, Rows, column, drop_lines, missing

_KEEP_OR_DROP = ("keep", "drop")
_WANTED = {
    "confidence": "a confidence",
    "margin": "label_probs",
    "entropy": "label_probs",
    "agreement": "an agreement",
}


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
    drops = BELOW
    minimum: float = 0.6
    on_missing: str = "keep"

    def __post_init__(self) -> None:
        check_number(
            "confidence", "minimum", self.minimum, high=1.0, remedy="0.6 is a place to start"
        )
        check_choice("confidence", "on_missing", self.on_missing, _KEEP_OR_DROP)

    def judge(self, rows: Rows) -> Judgement:
        """Compare every row's confidence with the minimum."""
        scores = confidences(rows, self.reason)
        return _judge(rows, scores, scores < self.minimum, self.minimum, self)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Drop rows whose two most probable labels are close; the score is the difference.

    Read from `label_probs`, scaled to sum to 1.

    Args:
        minimum: Rows with a smaller difference are dropped; in [0, 1].
        on_missing: What becomes of a row without probabilities: "keep" or "drop". Its score is
            NaN.
    """

    reason: ClassVar[str] = "margin"
    drops = BELOW
    minimum: float = 0.2
    on_missing: str = "keep"

    def __post_init__(self) -> None:
        check_number(self.reason, "minimum", self.minimum, low=0, high=1, remedy="try 0.2")
        check_choice(self.reason, "on_missing", self.on_missing, _KEEP_OR_DROP)

    def judge(self, rows: Rows) -> Judgement:
        """Compare every row's two highest probabilities."""
        scores = np.full(len(rows), np.nan)
        for place, found in enumerate(distributions(rows, "label_probs", self.reason)):
            if found is not None and len(found) > 1:
                second, first = np.sort(found)[-2:]
                scores[place] = first - second
        return _judge(rows, scores, scores < self.minimum, self.minimum, self)


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Drop rows whose label probabilities are spread out.

    The score is the entropy of `label_probs`, scaled to sum to 1, over its greatest value, the
    logarithm of the number of choices: 0 for a teacher that is sure, 1 for one that has no idea
    (Shannon 1948).

    Args:
        maximum: Rows with a higher score are dropped; in [0, 1].
        on_missing: What becomes of a row without probabilities: "keep" or "drop". Its score is
            NaN.
    """

    reason: ClassVar[str] = "entropy"
    drops = ABOVE
    maximum: float = 0.8
    on_missing: str = "keep"

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, high=1, remedy="try 0.8")
        check_choice(self.reason, "on_missing", self.on_missing, _KEEP_OR_DROP)

    def judge(self, rows: Rows) -> Judgement:
        """Take the entropy of every row's probabilities."""
        scores = np.full(len(rows), np.nan)
        for place, found in enumerate(distributions(rows, "label_probs", self.reason)):
            if found is not None and len(found) > 1:
                positive = found[found > 0]
                spread = -float((positive * np.log(positive)).sum()) / np.log(len(found))
                scores[place] = min(max(spread, 0.0), 1.0)
        return _judge(rows, scores, scores > self.maximum, self.maximum, self)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Drop rows on which the teacher's samples, or several teachers, disagree.

    The score is the `agreement` column: the share of the votes that the label won.

    Args:
        minimum: Rows with `agreement < minimum` are dropped; in [0, 1].
        on_missing: What becomes of a row whose agreement is null: "keep" or "drop". Its score is
            NaN.
    """

    reason: ClassVar[str] = "agreement"
    drops = BELOW
    minimum: float = 0.5
    on_missing: str = "keep"

    def __post_init__(self) -> None:
        check_number(self.reason, "minimum", self.minimum, low=0, high=1, remedy="try 0.5")
        check_choice(self.reason, "on_missing", self.on_missing, _KEEP_OR_DROP)

    def judge(self, rows: Rows) -> Judgement:
        """Compare every row's agreement with the minimum."""
        scores = numbers(rows, "agreement", self.reason)
        return _judge(rows, scores, scores < self.minimum, self.minimum, self)


def _judge(
    rows: Rows,
    scores: Floats,
    outside: Flags,
    threshold: float,
    owner: Confidence | Margin | Entropy | Agreement,
) -> Judgement:
    """Drop the rows outside the threshold, and those without a score if the filter says so."""
    null = np.isnan(scores)
    dropped = rows.alive & (outside | null if owner.on_missing == "drop" else outside)
    warnings: tuple[str, ...] = ()
    if owner.on_missing == "keep" and rows.alive.any() and null[rows.alive].all():
        warnings = (
            f"{owner.reason}: no row has {_WANTED[owner.reason]}, so none was dropped; "
            "remove the filter or ask the teacher for one",
        )
    return Judgement(
        scores=scores,
        dropped=dropped,
        threshold=float(threshold),
        matches=drop_lines(np.flatnonzero(dropped), scores),
        warnings=warnings,
        drops=owner.drops,
    )


def confidences(rows: Rows, wanted_by: str) -> Floats:
    """Return the `confidence` column as floats, NaN where missing, shape (n,).

    Raises:
        FilterError: The column is absent, or a row holds something that is not a number.
    """
    return numbers(rows, "confidence", wanted_by)


def numbers(rows: Rows, name: str, wanted_by: str) -> Floats:
    """Return a column as floats, NaN where missing, shape (n,).

    Raises:
        FilterError: The column is absent, or a row holds something that is not a number.
    """
    values = column(rows.frame, name, wanted_by)
    found = np.full(len(rows), np.nan)
    null = missing(values)
    for position, value in enumerate(values.tolist()):
        if null[position]:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FilterError(
                f"row {rows.ids[position]!r}: {name} is {value!r}; it must be a number or "
                "null; convert the column to numbers first"
            )
        found[position] = value
    return found


def distributions(rows: Rows, name: str, wanted_by: str) -> list[Floats | None]:
    """Return a column of probabilities, each row's scaled to sum to 1, None where there are none.

    Raises:
        FilterError: The column is absent, or a row holds something else than probabilities.
    """
    values = column(rows.frame, name, wanted_by)
    null = missing(values)
    found: list[Floats | None] = []
    for position, value in enumerate(values.tolist()):
        found.append(None if null[position] else _distribution(rows.ids[position], name, value))
    return found


def _distribution(row: str, name: str, value: object) -> Floats | None:
    listed = value.tolist() if isinstance(value, np.ndarray) else value
    try:
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise TypeError
        array = np.asarray(listed, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array([-1.0])
    if not len(array):
        return None
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any() or not array.sum():
        raise FilterError(
            f"row {row!r}: {name} is {value!r}; it must be a list of probabilities, one for each "
            "choice and not all 0, or null; leave out what cannot be had"
        )
    return np.asarray(array / array.sum(), dtype=np.float64)
