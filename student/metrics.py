"""Metrics on answers already read: labels or texts, never raw model output.

A prediction is a label, or None where none could be read; None counts as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from student.errors import InputError

__all__ = [
    "METRICS",
    "NO_ANSWER",
    "accuracy",
    "bootstrap_interval",
    "confusion_matrix",
    "evaluate",
    "exact_match",
    "macro_f1",
    "per_class",
]

NO_ANSWER = "(none)"
"""The confusion matrix's last column: no prediction, or one outside the label set."""

MOST_INFERRED_LABELS = 50
"""With more distinct values than this and no `labels`, the task is taken as free text."""

RESAMPLES = 1000

Gold: TypeAlias = Sequence[str | Sequence[str]]
Predictions: TypeAlias = Sequence[str | None]
Floats: TypeAlias = NDArray[np.float64]


def accuracy(gold: Gold, predictions: Predictions) -> float:
    """Return the share of predictions equal to gold (to one of them, where gold is a list)."""
    return float(np.mean(_right(gold, predictions, _same)))


def exact_match(gold: Gold, predictions: Predictions) -> float:
    """Return the share equal to gold (or one of several) after folding letter case and spaces."""
    return float(np.mean(_right(gold, predictions, _same_folded)))


def macro_f1(gold: Gold, predictions: Predictions, *, labels: Sequence[str] | None = None) -> float:
    """Return the mean F1 over the labels that occur in gold or predictions.

    `labels` fixes the label set; a prediction outside it counts as no answer. Without it the set is
    every value seen. Labels that occur nowhere are left out of the mean, as scikit-learn does.
    """
    counts = _class_counts(gold, predictions, _labels(gold, predictions, labels))
    return float(_macro_f1_of(counts.sum(axis=0)[None])[0])


def per_class(
    gold: Gold, predictions: Predictions, *, labels: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return one dict per label: label, precision, recall, f1 (0 where undefined), support."""
    names = _labels(gold, predictions, labels)
    right, support, predicted = _class_counts(gold, predictions, names).sum(axis=0).reshape(3, -1)
    precision, recall = _ratio(right, predicted), _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    return [
        {
            "label": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    ]


def confusion_matrix(
    gold: Gold, predictions: Predictions, *, labels: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return {"labels", "columns", "matrix"}: rows gold, columns predicted and then "(none)"."""
    names = _labels(gold, predictions, labels)
    rows, columns = _codes(gold, predictions, names)
    matrix = np.zeros((len(names), len(names) + 1), dtype=int)
    np.add.at(matrix, (rows, columns), 1)
    return {"labels": names, "columns": [*names, NO_ANSWER], "matrix": matrix.tolist()}


def bootstrap_interval(
    metric: str,
    gold: Gold,
    predictions: Predictions,
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric in `METRICS` (Efron 1979).

    Examples are drawn with replacement; with `groups` (one value per example, null for an example
    on its own) whole groups are drawn, because sentences of one review are not independent and an
    interval that ignores it is too narrow.
    """
    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is not known; allowed: {', '.join(METRICS)}")
    _check_lengths(gold, predictions)
    if metric == "macro_f1":
        counts = _class_counts(gold, predictions, _labels(gold, predictions, labels))
        return _interval(counts, _macro_f1_of, groups, level, resamples, seed)
    right = _right(gold, predictions, _same if metric == "accuracy" else _same_folded)
    counts = np.stack([right, np.ones(len(gold))], axis=1)
    return _interval(counts, lambda sums: sums[:, 0] / sums[:, 1], groups, level, resamples, seed)


def evaluate(
    gold: Sequence[str | Sequence[str] | None],
    predictions: Predictions,
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all metrics of one system, with 95 % bootstrap intervals.

    {"accuracy": {"value", "low", "high"}, "macro_f1": the same, "exact_match": the same,
    "n": rows with gold, "unread": of these, predictions that are null or outside the label set,
    "per_class": [...], "confusion": {...}}

    Rows whose gold is null are left out. For free text (gold lists, or no `labels` and more than 50
    distinct values) "macro_f1" and "confusion" are null and "per_class" is empty.
    """
    _check_lengths(gold, predictions)
    if groups is not None and len(groups) != len(gold):
        raise InputError(f"{len(groups)} groups for {len(gold)} rows; give one per row")
    rows = [i for i, answer in enumerate(gold) if not _is_null(answer)]
    if not rows:
        raise InputError("no row has gold; a metric needs human labels to compare with")
    known: list[Any] = [gold[i] for i in rows]
    answers = [None if _is_null(predictions[i]) else predictions[i] for i in rows]
    clusters = None if groups is None else [groups[i] for i in rows]
    names = _labels_or_text(known, answers, labels)

    def with_interval(metric: str) -> dict[str, float]:
        value = METRICS[metric](known, answers, labels=names)
        low, high = bootstrap_interval(
            metric, known, answers, labels=names, groups=clusters, seed=seed
        )
        return {"value": value, "low": low, "high": high}

    allowed = None if names is None else set(names)
    unread = sum(a is None or (allowed is not None and a not in allowed) for a in answers)
    return {
        "accuracy": with_interval("accuracy"),
        "macro_f1": None if names is None else with_interval("macro_f1"),
        "exact_match": with_interval("exact_match"),
        "n": len(rows),
        "unread": unread,
        "per_class": [] if names is None else per_class(known, answers, labels=names),
        "confusion": None if names is None else confusion_matrix(known, answers, labels=names),
    }


METRICS: Mapping[str, Callable[..., float]] = {
    "accuracy": lambda gold, predictions, labels=None: accuracy(gold, predictions),
    "macro_f1": macro_f1,
    "exact_match": lambda gold, predictions, labels=None: exact_match(gold, predictions),
}
"""The metrics a recipe may name, each called as `metric(gold, predictions, labels=None)`."""


def _right(
    gold: Gold, predictions: Predictions, same: Callable[[str, str], bool]
) -> NDArray[np.float64]:
    _check_lengths(gold, predictions)
    right = [
        p is not None and any(same(g, p) for g in ([answer] if isinstance(answer, str) else answer))
        for answer, p in zip(gold, predictions, strict=True)
    ]
    return np.asarray(right, dtype=float)


def _same(gold: str, prediction: str) -> bool:
    return gold == prediction


def _same_folded(gold: str, prediction: str) -> bool:
    return " ".join(gold.casefold().split()) == " ".join(prediction.casefold().split())


def _class_counts(gold: Gold, predictions: Predictions, labels: Sequence[str]) -> Floats:
    """Return (rows, 3 * labels): is right, is gold, is predicted, each one-hot over the labels."""
    rows, columns = _codes(gold, predictions, labels)
    width = len(labels)
    one_hot = np.eye(width + 1)
    is_gold, is_predicted = one_hot[rows][:, :width], one_hot[columns][:, :width]
    return np.concatenate([is_gold * is_predicted, is_gold, is_predicted], axis=1)


def _macro_f1_of(sums: Floats) -> Floats:
    """Return one macro F1 per row of summed class counts, over the labels that occur there."""
    right, support, predicted = np.split(sums, 3, axis=1)
    occurs = (support + predicted) > 0
    f1 = _ratio(2 * right, support + predicted)
    found: Floats = f1.sum(axis=1) / occurs.sum(axis=1)
    return found


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Divide, with 0 where there is nothing to divide by."""
    found: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def _interval(
    counts: Floats,
    value: Callable[[Floats], Floats],
    groups: Sequence[object] | None,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    if groups is not None:
        if len(groups) != len(counts):
            raise InputError(f"{len(groups)} groups for {len(counts)} rows; give one per row")
        names = [("row", i) if _is_null(g) else ("group", g) for i, g in enumerate(groups)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        summed = np.zeros((len(numbers), counts.shape[1]))
        np.add.at(summed, [numbers[name] for name in names], counts)
        counts = summed
    random = np.random.default_rng(seed)
    drawn, values = len(counts), []
    at_once = max(1, 4_000_000 // drawn)  # bounds the table of how often each one was drawn
    for start in range(0, resamples, at_once):
        height = min(at_once, resamples - start)
        picks = random.integers(0, drawn, size=(height, drawn))
        picks += np.arange(height)[:, None] * drawn
        times = np.bincount(picks.ravel(), minlength=height * drawn).reshape(height, drawn)
        values.append(value(times @ counts))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return float(low), float(high)


def _codes(
    gold: Gold, predictions: Predictions, labels: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    _check_lengths(gold, predictions)
    numbers = {label: number for number, label in enumerate(labels)}
    for row, answer in enumerate(gold):
        if not isinstance(answer, str) or answer not in numbers:
            raise InputError(f"row {row}: gold {answer!r} is not among the labels {list(labels)}")
    return (
        np.array([numbers[str(answer)] for answer in gold], dtype=np.int64),
        np.array([numbers.get(str(p), len(labels)) for p in predictions], dtype=np.int64),
    )


def _labels(gold: Gold, predictions: Predictions, labels: Sequence[str] | None) -> list[str]:
    if labels is not None:
        return list(labels)
    values = {answer for answer in gold if isinstance(answer, str)}
    return sorted(values | {p for p in predictions if p is not None})


def _labels_or_text(
    gold: Gold, predictions: Predictions, labels: Sequence[str] | None
) -> list[str] | None:
    """Return the label set, or None where this is free text."""
    if labels is None and not all(isinstance(answer, str) for answer in gold):
        return None
    names = _labels(gold, predictions, labels)
    return names if labels is not None or len(names) <= MOST_INFERRED_LABELS else None


def _check_lengths(gold: Sequence[object], predictions: Sequence[object]) -> None:
    if len(gold) != len(predictions):
        raise InputError(f"{len(gold)} gold answers but {len(predictions)} predictions")
    if len(gold) == 0:
        raise InputError("no rows to evaluate")


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)
