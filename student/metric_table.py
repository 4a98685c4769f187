"""The table of metrics that may be named: what each takes from a row, needs, and is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from student.errors import InputError
from student.row_statistics import (
    Answers,
    Statistics,
    agreement,
    calibration_error,
    class_counts,
    correlation,
    is_null,
    macro_f1_of,
    reference_perplexity,
    squared_error,
)
from student.set_metrics import (
    micro_f1_statistics,
    set_macro_f1_statistics,
    subset_statistics,
)
from student.text_metrics import ROUGE_KINDS, bleu, chrf, rouge

__all__ = [
    "METRICS",
    "Metric",
    "check_known",
    "class_statistics",
    "equal_answers",
    "equal_but_for_case",
    "lacks",
    "statistics_of",
]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that `evaluate` and a recipe may name.

    `statistics` takes it apart row by row. `needs` is what it cannot do without: `labels` (a closed
    set), `label_probs`, `same` (a callable) or `reference_losses`; where that is missing the metric is
    null. `is_share`: from 0 to 1, so that it may be shown in per cent.
    """

    title: str
    statistics: Callable[[Answers], Statistics]
    needs: str | None = None
    less_is_better: bool = False
    is_share: bool = True


def equal_answers(answers: Answers) -> Statistics:
    """Count the predictions equal to gold (to one of them, where gold is a list)."""
    return agreement(answers, lambda gold, said: gold == said)


def equal_but_for_case(answers: Answers) -> Statistics:
    """Count the predictions equal to gold after folding letter case and spaces."""
    return agreement(answers, lambda gold, said: _plain(gold) == _plain(said))


def _by_value(answers: Answers) -> Statistics:
    assert answers.same is not None
    return agreement(answers, answers.same)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def class_statistics(answers: Answers) -> Statistics:
    """Count per class what macro-F1 is made of; `answers.labels` are the classes."""
    counts = class_counts(answers.gold, answers.predictions, answers.labels or ())
    return Statistics(rows=counts, value=macro_f1_of)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(title="accuracy", statistics=equal_answers),
    "macro_f1": Metric(title="macro-F1", statistics=class_statistics, needs="labels"),
    "mcc": Metric(title="MCC", statistics=correlation, needs="labels", is_share=False),
    "exact_match": Metric(title="exact match", statistics=equal_but_for_case),
    "value": Metric(title="equal value", statistics=_by_value, needs="same"),
    "ece": Metric(
        title="ECE", statistics=calibration_error, needs="label_probs", less_is_better=True
    ),
    "brier": Metric(
        title="Brier score",
        statistics=squared_error,
        needs="label_probs",
        less_is_better=True,
        is_share=False,
    ),
    **{
        kind: Metric(title=f"ROUGE-{kind[5:]}", statistics=functools.partial(rouge, kind=kind))
        for kind in ROUGE_KINDS
    },
    "bleu": Metric(title="BLEU", statistics=bleu),
    "chrf": Metric(title="chrF", statistics=chrf),
    "micro_f1": Metric(title="micro-F1 (sets)", statistics=micro_f1_statistics),
    "set_macro_f1": Metric(title="macro-F1 (sets)", statistics=set_macro_f1_statistics),
    "subset_accuracy": Metric(title="whole set right", statistics=subset_statistics),
    "perplexity": Metric(
        title="perplexity of gold",
        statistics=reference_perplexity,
        needs="reference_losses",
        less_is_better=True,
        is_share=False,
    ),
}
"""The metrics that `evaluate`, `compare` and a recipe's `task.metrics` may name."""


def check_known(metric: str) -> None:
    """Raise `InputError` for a name that is not in `METRICS`."""
    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is not known; allowed: {', '.join(METRICS)}")


def lacks(metric: str, answers: Answers) -> str | None:
    """Return what the metric needs and is not there, or None."""
    needs = METRICS[metric].needs
    given = None if needs is None else getattr(answers, needs)
    if needs is None or (given is not None and needs != "label_probs"):
        return None
    return needs if given is None or all(is_null(p) for p in given) else None


def statistics_of(metric: str, answers: Answers) -> Statistics:
    """Take a metric apart row by row; raise `InputError` where it is not known or lacks something."""
    check_known(metric)
    lacking = lacks(metric, answers)
    if lacking:
        raise InputError(f"metric {metric!r} needs {lacking}, which is not given")
    return METRICS[metric].statistics(answers)
