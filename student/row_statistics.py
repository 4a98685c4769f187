"""Metrics taken apart: numbers of each row, and a function of their sum.

Every metric here is `value(sum over rows of rows[i])`. So one matrix product gives the metric of a
thousand resamples, whole groups can be drawn instead of rows, and two systems can be compared on the
same draws, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from student.errors import InputError

__all__ = ["Answers", "Floats", "Gold", "Predictions", "Statistics", "is_null"]

Gold: TypeAlias = Sequence[str | Sequence[str]]
Predictions: TypeAlias = Sequence[str | None]
Floats: TypeAlias = NDArray[np.float64]

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a system answered, and what it is held against; one entry per row throughout.

    `labels` is the closed label set, None for free text. `label_probs[i]` is aligned with
    `choices[i]` (with `labels` where `choices` is None), or null. `same` says whether a gold and a
    predicted text have the same value. `separator` parts a text into a set of labels.
    `reference_losses[i]` is (-log p of gold under the student in nats, its tokens).
    """

    gold: Gold
    predictions: Predictions
    labels: Sequence[str] | None = None
    label_probs: Sequence[Sequence[float] | None] | None = None
    choices: Sequence[Sequence[str]] | None = None
    same: Callable[[str, str], bool] | None = None
    separator: str | None = None
    reference_losses: Sequence[tuple[float, int]] | None = None


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """`rows`: (rows, k); `value` maps summed statistics, (resamples, k), to (resamples,)."""

    rows: Floats
    value: Callable[[Floats], Floats]

    def all_rows(self) -> float:
        """Return the metric of all rows together."""
        return float(self.value(self.rows.sum(axis=0)[None])[0])


def mean_of(scores: Floats) -> Statistics:
    """Return the statistics of a plain mean; a row that is NaN is left out of it."""
    counted = ~np.isnan(scores)
    rows = np.stack([np.where(counted, scores, 0.0), counted.astype(float)], axis=1)
    return Statistics(rows=rows, value=lambda sums: ratio(sums[:, 0], sums[:, 1]))


def agreement(answers: Answers, same: Callable[[str, str], bool]) -> Statistics:
    """Return whether each prediction is the same as gold, or as one of several."""
    check_lengths(answers.gold, answers.predictions)
    right = [
        not is_null(p) and any(same(reference, str(p)) for reference in references(gold))
        for gold, p in zip(answers.gold, answers.predictions, strict=True)
    ]
    return mean_of(np.asarray(right, dtype=float))


def class_counts(gold: Gold, predictions: Predictions, labels: Sequence[str]) -> Floats:
    """Return (rows, 3 * labels): is right, is gold, is predicted, each one-hot over the labels."""
    rows, columns = codes(gold, predictions, labels)
    width = len(labels)
    one_hot = np.eye(width + 1)
    is_gold, is_predicted = one_hot[rows][:, :width], one_hot[columns][:, :width]
    return np.concatenate([is_gold * is_predicted, is_gold, is_predicted], axis=1)


def macro_f1_of(sums: Floats) -> Floats:
    """Return one macro F1 per row of summed class counts, over the labels that occur there."""
    right, support, predicted = np.split(sums, 3, axis=1)
    occurs = (support + predicted) > 0
    f1 = ratio(2 * right, support + predicted)
    return ratio(f1.sum(axis=1), occurs.sum(axis=1).astype(float))


def correlation(answers: Answers) -> Statistics:
    """Matthews' correlation for any number of classes (R_K of Gorodkin 2004).

    (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2))

    with s rows, c of them right, t_k gold and p_k predictions of class k, "no answer" being a class
    of its own; 0 where one side has a single class.
    """
    labels = list(answers.labels or ())
    rows, columns = codes(answers.gold, answers.predictions, labels)
    one_hot = np.eye(len(labels) + 1)
    right = (rows == columns).astype(float)[:, None]
    width = 1 + len(labels)

    def value(sums: Floats) -> Floats:
        c, true, predicted = sums[:, 0], sums[:, 1 : 1 + width], sums[:, 1 + width :]
        s = true.sum(axis=1)
        spread = (s**2 - (true**2).sum(axis=1)) * (s**2 - (predicted**2).sum(axis=1))
        return ratio(c * s - (true * predicted).sum(axis=1), np.sqrt(spread))

    table = np.concatenate([right, one_hot[rows], one_hot[columns]], axis=1)
    return Statistics(rows=table, value=value)


def calibration_error(answers: Answers) -> Statistics:
    """Expected calibration error over ten bins of the probability of what was predicted.

    sum_b n_b / n |accuracy_b - confidence_b| (Guo et al. 2017). Rows without probabilities, or
    without an answer, are left out.
    """
    check_lengths(answers.gold, answers.predictions)
    rows = np.zeros((len(answers.gold), 3 * BINS))
    for i, (gold, said) in enumerate(zip(answers.gold, answers.predictions, strict=True)):
        known = _probabilities(answers, i)
        if known and said is not None and said in known:
            sure = known[said]
            place = min(int(sure * BINS), BINS - 1)
            rows[i, [place, BINS + place, 2 * BINS + place]] = (
                1,
                sure,
                float(said in references(gold)),
            )

    def value(sums: Floats) -> Floats:
        count, sure, right = np.split(sums, 3, axis=1)
        return ratio(np.abs(right - sure).sum(axis=1), count.sum(axis=1))

    return Statistics(rows=rows, value=value)


def squared_error(answers: Answers) -> Statistics:
    """Brier score: the mean of sum_k (p_k - [choice_k is gold])^2, from 0 to 2 (Brier 1950).

    Of several gold labels the likeliest one counts.
    """
    scores = np.full(len(answers.gold), np.nan)
    for i, gold in enumerate(answers.gold):
        known = _probabilities(answers, i)
        if known:
            right = max(references(gold), key=lambda each: known.get(each, -1.0))
            scores[i] = sum((p - float(choice == right)) ** 2 for choice, p in known.items())
            scores[i] += float(right not in known)
    return mean_of(scores)


def reference_perplexity(answers: Answers) -> Statistics:
    """exp of the mean -log p over the gold answers' tokens, closing token included."""
    losses = np.asarray(answers.reference_losses, dtype=float).reshape(len(answers.gold), 2)
    return Statistics(rows=losses, value=lambda sums: np.exp(ratio(sums[:, 0], sums[:, 1])))


def _probabilities(answers: Answers, row: int) -> dict[str, float]:
    given = None if answers.label_probs is None else answers.label_probs[row]
    if given is None or is_null(given):
        return {}
    choices = answers.labels if answers.choices is None else answers.choices[row]
    found = [float(p) for p in given]
    if choices is None or len(choices) != len(found):
        raise InputError(
            f"row {row}: {len(found)} probabilities for {len(choices or ())} choices; label_probs "
            "must be aligned with choices"
        )
    if not all(0 <= p <= 1.000001 for p in found):
        raise InputError(f"row {row}: label_probs are {found}; give probabilities from 0 to 1")
    return dict(zip(choices, (min(p, 1.0) for p in found), strict=True))


def codes(
    gold: Gold, predictions: Predictions, labels: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return gold and predictions as places in `labels`; no answer comes after the last.

    Of several gold labels the one that was predicted counts, else the first.
    """
    check_lengths(gold, predictions)
    numbers = {label: number for number, label in enumerate(labels)}
    right = []
    for row, (answer, said) in enumerate(zip(gold, predictions, strict=True)):
        several = list(references(answer)) if isinstance(answer, Iterable) else [answer]
        if not several or not all(isinstance(each, str) and each in numbers for each in several):
            raise InputError(f"row {row}: gold {answer!r} is not among the labels {list(labels)}")
        right.append(numbers[str(said if said in several else several[0])])
    return (
        np.array(right, dtype=np.int64),
        np.array([numbers.get(str(p), len(labels)) for p in predictions], dtype=np.int64),
    )


def references(gold: str | Sequence[str]) -> Sequence[str]:
    """Return the gold answers of a row, one or several, as a list."""
    return [gold] if isinstance(gold, str) else gold


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with 0 where there is nothing to divide by."""
    found: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def check_lengths(gold: Sequence[object], predictions: Sequence[object]) -> None:
    """Raise `InputError` unless there are as many predictions as gold answers, at least one."""
    if len(gold) != len(predictions):
        raise InputError(f"{len(gold)} gold answers but {len(predictions)} predictions")
    if len(gold) == 0:
        raise InputError("no rows to evaluate")


def is_null(value: object) -> bool:
    """Say whether a cell is empty: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)
