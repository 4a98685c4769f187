"""Metrics on answers already read: labels or texts, never raw model output.

A prediction is a label, or None where none could be read; None counts as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from student.comparisons import RESAMPLES, difference, interval, mcnemar
from student.errors import InputError
from student.metric_table import (
    METRICS,
    Metric,
    check_known,
    class_statistics,
    equal_answers,
    equal_but_for_case,
    lacks,
    statistics_of,
)
from student.row_statistics import (
    Answers,
    Gold,
    Predictions,
    agreement,
    check_lengths,
    class_counts,
    codes,
    correlation,
    is_null,
    ratio,
)

__all__ = [
    "METRICS",
    "NO_ANSWER",
    "Metric",
    "accuracy",
    "bootstrap_interval",
    "compare",
    "confusion_matrix",
    "evaluate",
    "exact_match",
    "macro_f1",
    "matthews",
    "per_class",
    "value_accuracy",
]

NO_ANSWER = "(none)"
"""The confusion matrix's last column: no prediction, or one outside the label set."""

MOST_INFERRED_LABELS = 50
"""With more distinct values than this and no `labels`, the task is taken as free text."""

ALWAYS = ("accuracy", "macro_f1", "exact_match")


def accuracy(gold: Gold, predictions: Predictions) -> float:
    """Return the share of predictions equal to gold (to one of them, where gold is a list)."""
    return equal_answers(Answers(gold=gold, predictions=predictions)).all_rows()


def exact_match(gold: Gold, predictions: Predictions) -> float:
    """Return the share equal to gold (or one of several) after folding letter case and spaces."""
    return equal_but_for_case(Answers(gold=gold, predictions=predictions)).all_rows()


def value_accuracy(
    gold: Gold, predictions: Predictions, *, same: Callable[[str, str], bool]
) -> float:
    """Return the share of predictions with the value of gold, `same(gold, prediction)` deciding.

    For arithmetic: "( 84 / 2 )" is as good as "42". This package reads no answers; `labelers` has an
    equality with a parser and limits, `labelers.same_value`.
    """
    return agreement(Answers(gold=gold, predictions=predictions), same).all_rows()


def macro_f1(gold: Gold, predictions: Predictions, *, labels: Sequence[str] | None = None) -> float:
    """Return the mean F1 over the labels that occur in gold or predictions.

    `labels` fixes the label set; a prediction outside it counts as no answer. Without it the set is
    every value seen. Labels that occur nowhere are left out of the mean, as scikit-learn does.
    """
    names = _labels(gold, predictions, labels)
    return class_statistics(Answers(gold=gold, predictions=predictions, labels=names)).all_rows()


def matthews(gold: Gold, predictions: Predictions, *, labels: Sequence[str] | None = None) -> float:
    """Return Matthews' correlation, from -1 to 1, for two classes or more (Gorodkin 2004)."""
    names = _labels(gold, predictions, labels)
    return correlation(Answers(gold=gold, predictions=predictions, labels=names)).all_rows()


def per_class(
    gold: Gold, predictions: Predictions, *, labels: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return one dict per label: label, precision, recall, f1 (0 where undefined), support."""
    names = _labels(gold, predictions, labels)
    right, support, predicted = class_counts(gold, predictions, names).sum(axis=0).reshape(3, -1)
    precision, recall = ratio(right, predicted), ratio(right, support)
    f1 = ratio(2 * right, support + predicted)
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
    rows, columns = codes(gold, predictions, names)
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
    **given: Any,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric in `METRICS` (Efron 1979).

    Rows are drawn with replacement; with `groups` (one value per row, null for a row on its own)
    whole groups are drawn, because sentences of one review are not independent and an interval that
    ignores it is too narrow. `given` is what else the metric needs, as for `evaluate`.
    """
    found = statistics_of(metric, _prepared(gold, predictions, labels, given))
    return interval(found, groups=groups, level=level, resamples=resamples, seed=seed)


def evaluate(
    gold: Sequence[str | Sequence[str] | None],
    predictions: Predictions,
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
    metrics: Sequence[str] = ALWAYS,
    label_probs: Sequence[Sequence[float] | None] | None = None,
    choices: Sequence[Sequence[str]] | None = None,
    same: Callable[[str, str], bool] | None = None,
    separator: str | None = None,
    reference_losses: Sequence[tuple[float, int]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all metrics of one system, with 95 % bootstrap intervals.

    {"accuracy": {"value", "low", "high"}, "macro_f1": the same, "exact_match": the same, and so on
    for each of `metrics` (see `METRICS`),
    "n": rows with gold, "unread": of these, predictions that are null or outside the label set,
    "per_class": [...], "confusion": {...}}

    Rows whose gold is null are left out. Of a list of references in gold the best one counts; with
    `labels` a row is counted under the one that was answered, else under the first. For free text (no
    `labels`, and gold lists or more than 50 distinct values) "macro_f1" and "confusion" are null and
    "per_class" is empty. A metric is null too where what it needs is not given: `label_probs`
    (aligned with `choices`, or with `labels`) for "ece" and "brier", `same(gold, prediction)` for
    "value", `reference_losses` (see `student.reference_losses`) for "perplexity". `separator` parts
    an answer that is a set of labels; for such metrics a list in gold is one set.

    Raises `InputError` for an unknown metric, for lengths that differ, and where no row has gold.
    """
    check_lengths(gold, predictions)
    for metric in metrics:
        check_known(metric)
    if groups is not None and len(groups) != len(gold):
        raise InputError(f"{len(groups)} groups for {len(gold)} rows; give one per row")
    rows = [i for i, answer in enumerate(gold) if not is_null(answer)]
    if not rows:
        raise InputError("no row has gold; a metric needs human labels to compare with")

    def kept(values: Sequence[Any] | None) -> Any:
        return None if values is None else [values[i] for i in rows]

    answers = _prepared(
        kept(gold),
        kept(predictions),
        labels,
        {
            "label_probs": kept(label_probs),
            "choices": kept(choices),
            "same": same,
            "separator": separator,
            "reference_losses": kept(reference_losses),
        },
    )
    clusters, names = kept(groups), answers.labels
    found: dict[str, Any] = {}
    for metric in dict.fromkeys((*ALWAYS, *metrics)):
        if not lacks(metric, answers):
            statistics = statistics_of(metric, answers)
            low, high = interval(statistics, groups=clusters, seed=seed)
            found[metric] = {"value": statistics.all_rows(), "low": low, "high": high}
        else:
            found[metric] = None
    known, said = answers.gold, answers.predictions
    allowed = None if names is None else set(names)
    return found | {
        "n": len(rows),
        "unread": sum(a is None or (allowed is not None and a not in allowed) for a in said),
        "per_class": [] if names is None else per_class(known, said, labels=names),
        "confusion": None if names is None else confusion_matrix(known, said, labels=names),
    }


def compare(
    metric: str,
    gold: Gold,
    first: Predictions,
    second: Predictions,
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    first_given: Mapping[str, Any] | None = None,
    second_given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Hold two systems against each other on the same rows.

    Returns {"metric", "first", "second", "difference", "low", "high", "p", "n", "mcnemar"}: both
    values, `first - second` with its paired bootstrap interval and p (see `comparisons.difference`),
    and McNemar's exact test on which answers equal gold. `first_given` and `second_given` hold what
    the metric needs besides, as for `evaluate` (`label_probs`, `same`, …).
    """
    check_lengths(gold, first)
    check_lengths(gold, second)
    if any(is_null(answer) for answer in gold):
        raise InputError("some rows have no gold; leave them out of gold and of both systems")
    names = labels if labels is not None else _labels_or_text(gold, [*first, *second], None)
    one = _prepared(gold, first, names, first_given or {})
    two = _prepared(gold, second, names, second_given or {})
    statistics = statistics_of(metric, one), statistics_of(metric, two)
    found = difference(*statistics, groups=groups, level=level, resamples=resamples, seed=seed)
    right = [(equal_answers(answers).rows[:, 0] > 0).tolist() for answers in (one, two)]
    return {
        "metric": metric,
        "first": statistics[0].all_rows(),
        "second": statistics[1].all_rows(),
        **found,
        "n": len(gold),
        "mcnemar": mcnemar(*right),
    }


def _prepared(
    gold: Gold,
    predictions: Predictions,
    labels: Sequence[str] | None,
    given: Mapping[str, Any],
) -> Answers:
    check_lengths(gold, predictions)
    said = [None if is_null(p) else p for p in predictions]
    names = _labels_or_text(gold, said, labels)
    return Answers(gold=gold, predictions=said, labels=names, **given)


def _labels(gold: Gold, predictions: Predictions, labels: Sequence[str] | None) -> list[str]:
    if labels is not None:
        return list(labels)
    values = {answer for answer in gold if isinstance(answer, str)}
    return sorted(values | {str(p) for p in predictions if not is_null(p)})


def _labels_or_text(
    gold: Gold, predictions: Predictions, labels: Sequence[str] | None
) -> list[str] | None:
    """Return the label set, or None where this is free text."""
    if labels is None and not all(isinstance(answer, str) for answer in gold):
        return None
    names = _labels(gold, predictions, labels)
    return names if labels is not None or len(names) <= MOST_INFERRED_LABELS else None
