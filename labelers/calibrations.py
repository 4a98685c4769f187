"""Makes label probabilities mean what they say, with gold labels or without.

Batch and contextual calibration take away a teacher's lean and need no gold label. Temperature and
isotonic calibration are fitted to gold labels. Two figures tell whether it helped: the expected
calibration error and the Brier score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Inputs that say nothing: what a teacher answers to them is its lean (Zhao et al., 2021).
CONTENT_FREE_INPUTS = ("N/A", "[MASK]", "")

#: Added to a probability before it is divided by or its logarithm is taken.
_FLOOR = 1e-9
#: A distribution that adds up to 1 within this much counts as one.
_ROUNDING = 1e-2
#: Temperatures are looked for between these two.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


class CalibrationError(ValueError):
    """Probabilities, gold labels or settings that nothing can be calibrated with."""


@dataclass(frozen=True)
class BatchCalibration:
    """Batch calibration (Zhou et al., 2024): divide by the mean distribution over a batch.

    A teacher that leans to one label whatever it reads shows it in the mean; dividing by it takes
    the lean away. No gold label is used. A batch in which one label really is more frequent loses
    some of that, too: fit it where the labels are about equally frequent, or not at all.

    Attributes:
        prior: Mean label distribution of the batch, shape (labels,).
    """

    prior: Floats

    @classmethod
    def fit(cls, probabilities: Floats) -> BatchCalibration:
        """Fit on a batch of label distributions, shape (rows, labels), each row summing to 1."""
        return cls(probabilities.mean(axis=0))

    def apply(self, probabilities: Floats) -> Floats:
        """Calibrated distributions, same shape: p / prior, normalised by row."""
        return _divide(probabilities, self.prior)


@dataclass(frozen=True)
class ContextualCalibration:
    """Contextual calibration (Zhao et al., 2021): divide by what the teacher says to nothing.

    The teacher is asked the task about inputs without content (:data:`CONTENT_FREE_INPUTS`). An
    unbiased one would give every label the same probability; dividing by what it does give takes
    the prompt's lean away. No gold label and no row of the data is used.

    Attributes:
        prior: Mean label distribution over the inputs without content, shape (labels,).
    """

    prior: Floats

    @classmethod
    def fit(cls, probabilities: Floats) -> ContextualCalibration:
        """Fit on the distributions of inputs without content, shape (inputs, labels)."""
        return cls(probabilities.mean(axis=0))

    def apply(self, probabilities: Floats) -> Floats:
        """Calibrated distributions, shape (rows, labels): p / prior, normalised by row."""
        return _divide(probabilities, self.prior)


def _divide(probabilities: Floats, prior: Floats) -> Floats:
    scaled = (probabilities + _FLOOR) / (prior + _FLOOR)
    calibrated: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return calibrated


@dataclass(frozen=True)
class TemperatureCalibration:
    """Temperature scaling (Guo et al., 2017): softmax(log p / T), one T for all rows.

    A temperature above 1 makes a teacher less sure, one below 1 surer. The order of the labels
    stays, so that no label and no accuracy changes. Rows may have different numbers of choices.

    Attributes:
        temperature: T, the one with the least negative log-likelihood of the gold labels.
    """

    temperature: float

    @classmethod
    def fit(
        cls, probabilities: Sequence[Sequence[float]], gold: Sequence[int]
    ) -> TemperatureCalibration:
        """Fit the temperature, between 0.05 and 20.

        Args:
            probabilities: A label distribution per row.
            gold: Place of the right label in each row's distribution.

        Raises:
            CalibrationError: If there are no rows, a row is no distribution or its gold label is
                not in it.
        """
        from scipy.optimize import minimize_scalar

        check_distributions(probabilities, gold)
        width = max(map(len, probabilities))
        # Rows with fewer choices are filled up with choices of probability 0.
        logs = np.full((len(gold), width), -np.inf)
        for i, row in enumerate(probabilities):
            logs[i, : len(row)] = np.log(np.asarray(row, dtype=np.float64) + _FLOOR)
        right = logs[np.arange(len(gold)), np.asarray(gold)]

        def loss(log_temperature: float) -> float:
            scale = math.exp(-log_temperature)
            total = np.logaddexp.reduce(logs * scale, axis=1)
            return float(np.mean(total - right * scale))

        found = minimize_scalar(
            loss,
            bounds=(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return cls(math.exp(float(found.x)))

    def apply(self, probabilities: Sequence[Sequence[float]]) -> list[list[float]]:
        """Calibrated distributions, of the same lengths.

        Raises:
            CalibrationError: If a row is no distribution.
        """
        check_distributions(probabilities)
        calibrated = []
        for row in probabilities:
            logs = np.log(np.asarray(row, dtype=np.float64) + _FLOOR) / self.temperature
            scaled = np.exp(logs - logs.max())
            calibrated.append((scaled / scaled.sum()).tolist())
        return calibrated


@dataclass(frozen=True)
class IsotonicCalibration:
    """Isotonic calibration (Zadrozny and Elkan, 2002), one label against the rest, renormalised.

    For each label a rising step function maps the probability that the teacher gave it to how often
    it then was the right one. It can mend any shape of over- and underconfidence and needs more
    gold labels than a temperature. Labels can change, and probabilities of exactly 0 or 1 can occur.

    Attributes:
        curves: For each label the corners of its function, as (given, found) probabilities; between
            them it is a straight line. A pooled fit has one curve for all labels.
    """

    curves: tuple[tuple[Floats, Floats], ...] = field(repr=False)

    @classmethod
    def fit(
        cls,
        probabilities: Sequence[Sequence[float]],
        gold: Sequence[int],
        *,
        pooled: bool = False,
    ) -> IsotonicCalibration:
        """Fit the curves.

        Args:
            probabilities: A label distribution per row.
            gold: Place of the right label in each row's distribution.
            pooled: Fit one curve to all pairs of a row and a choice. It serves where the choices
                differ from row to row, as in multiple choice, and rows may then differ in length.

        Raises:
            CalibrationError: If there are no rows, a row is no distribution, its gold label is not
                in it, or rows differ in length and ``pooled`` is False.
        """
        check_distributions(probabilities, gold)
        lengths = sorted(set(map(len, probabilities)))
        if pooled:
            given = np.concatenate([np.asarray(row, dtype=np.float64) for row in probabilities])
            right = np.concatenate(
                [np.arange(len(row)) == g for row, g in zip(probabilities, gold, strict=True)]
            )
            return cls((_rising(given, right),))
        if len(lengths) > 1:
            raise CalibrationError(
                f"rows have {lengths[0]} to {lengths[-1]} choices, and one curve per label needs the same "
                "labels everywhere: use pooled=True"
            )
        table = np.asarray(probabilities, dtype=np.float64)
        places = np.asarray(gold)
        return cls(tuple(_rising(table[:, k], places == k) for k in range(table.shape[1])))

    def apply(self, probabilities: Sequence[Sequence[float]]) -> list[list[float]]:
        """Calibrated distributions, of the same lengths; a row of zeros becomes an even one.

        Raises:
            CalibrationError: If a row is no distribution, or has not as many labels as were fitted.
        """
        check_distributions(probabilities)
        calibrated = []
        for i, row in enumerate(probabilities):
            curves = self.curves * len(row) if len(self.curves) == 1 else self.curves
            if len(curves) != len(row):
                raise CalibrationError(
                    f"row {i} has {len(row)} labels, and the calibration was fitted to {len(curves)}: fit it "
                    "with pooled=True where choices differ"
                )
            mapped = np.array(
                [float(np.interp(p, *curve)) for p, curve in zip(row, curves, strict=True)]
            )
            total = mapped.sum()
            even = np.full(len(row), 1 / len(row))
            calibrated.append((mapped / total if total > 0 else even).tolist())
        return calibrated


def _rising(given: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    fitted.fit(given, right.astype(np.float64))
    return fitted.X_thresholds_, fitted.y_thresholds_


def calibration_error(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 15
) -> float:
    """Expected calibration error (Naeini et al., 2015; Guo et al., 2017), between 0 and 1.

    The confidences are sorted into bins of equal width, ``(0, 1/bins]`` and so on (0 itself counts
    to the first); the error is the sum over bins of the bin's share of rows times the distance
    between its accuracy and its mean confidence. With few rows it is more than 0 by chance, also
    for a perfect teacher.

    Args:
        confidences: Probability given to each row's label.
        correct: Whether that label is right.
        bins: Number of bins.

    Raises:
        CalibrationError: If there are no rows, the lengths differ, a confidence is not between 0
            and 1, or ``bins`` is less than 1.
    """
    _check_lengths(len(confidences), len(correct))
    if bins < 1:
        raise CalibrationError(f"bins is {bins}: at least 1 is needed; 15 is usual")
    for i, confidence in enumerate(confidences):
        if not 0.0 <= confidence <= 1.0:
            raise CalibrationError(
                f"row {i} has the confidence {confidence!r}: between 0 and 1 is needed"
            )
    sure = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    places = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    # A bin's share times the distance of its means is the distance of its sums over all rows.
    gaps = np.bincount(places, weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def brier(probabilities: Sequence[Sequence[float]], gold: Sequence[int]) -> float:
    """Brier score (Brier, 1950), between 0 and 2; less is better.

    The squared distance between a row's distribution and the one with 1 for the right label, summed
    over labels, as the mean over rows. A teacher that always says 50:50 scores 0.5.

    Args:
        probabilities: A label distribution per row.
        gold: Place of the right label in each row's distribution.

    Raises:
        CalibrationError: If there are no rows, a row is no distribution or its gold label is not in
            it.
    """
    check_distributions(probabilities, gold)
    total = 0.0
    for row, place in zip(probabilities, gold, strict=True):
        total += sum((p - (k == place)) ** 2 for k, p in enumerate(row))
    return float(total / len(gold))


def check_distributions(
    probabilities: Sequence[Sequence[float]], gold: Sequence[int] | None = None, *, first: int = 0
) -> None:
    """Refuse what is no list of label distributions, or gold labels that are not among them.

    Args:
        probabilities: A label distribution per row.
        gold: Place of the right label in each.
        first: Number of the first row in messages.

    Raises:
        CalibrationError: With the row, what it holds and what is needed.
    """
    if gold is not None:
        _check_lengths(len(probabilities), len(gold))
    for i, row in enumerate(probabilities):
        within = all(0.0 <= p <= 1.0 + _ROUNDING for p in row)
        if not within or not abs(sum(row) - 1.0) <= _ROUNDING:
            raise CalibrationError(
                f"row {first + i} has the probabilities {list(row)}: numbers between 0 and 1 that add up to "
                "1 are needed"
            )
        if gold is not None and not 0 <= gold[i] < len(row):
            raise CalibrationError(
                f"row {first + i} has the gold label number {gold[i]}, and {len(row)} labels: 0 to "
                f"{len(row) - 1} are allowed"
            )


def _check_lengths(rows: int, gold: int) -> None:
    if rows != gold:
        raise CalibrationError(f"{rows} rows came with {gold} gold labels: give one for each row")
    if not rows:
        raise CalibrationError("there are no rows: at least one is needed")
