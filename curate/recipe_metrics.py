"""The metrics that a recipe may name, and what each of them asks of the task."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from curate.recipe import Recipe

MetricName = Literal[
    "accuracy",
    "macro_f1",
    "mcc",
    "exact_match",
    "value",
    "ece",
    "brier",
    "rouge1",
    "rouge2",
    "rougeL",
    "bleu",
    "chrf",
    "micro_f1",
    "set_macro_f1",
    "subset_accuracy",
    "perplexity",
]
METRIC_NAMES: tuple[str, ...] = get_args(MetricName)

_LESS_IS_BETTER = ("ece", "brier", "perplexity")
_OF_SETS = ("micro_f1", "set_macro_f1", "subset_accuracy")
_LIBRARIES = {
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), "rouge_score"),
    **dict.fromkeys(("bleu", "chrf"), "sacrebleu"),
}


def find_metric_mistakes(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """Metrics that this task, or this installation, could only answer with an error or a blank."""
    task = recipe.task
    for metric in task.goal:
        if metric in _LESS_IS_BETTER:
            yield (
                ("task", "goal", metric),
                f"task.goal.{metric}: a goal is a least value, and {metric} is better the smaller it is: "
                "list it under task.metrics, and set a goal for accuracy",
            )
        elif metric in ("macro_f1", "mcc") and task.labels is None:
            yield (
                ("task", "goal", metric),
                f"task.goal.{metric} needs one label set, task.labels: set a goal for accuracy instead",
            )
    for key, metric in [
        *((("task", "metrics"), m) for m in task.metrics),
        *((("task", "goal", m), m) for m in task.goal),
    ]:
        name = ".".join(key)
        library = _LIBRARIES.get(metric)
        if library is not None and find_spec(library) is None:
            yield (
                key,
                f"{name} names {metric!r}, which needs {library.replace('_', '-')}, and that is not "
                "installed: pip install 'curate-distill[metrics]'",
            )
        if metric in _OF_SETS and task.separator is None:
            yield (
                key,
                f"{name} names {metric!r}, which compares sets of labels: say in task.separator what stands "
                'between two labels of an answer, such as ","',
            )
        if metric == "perplexity" and recipe.student.objective == "rationale_then_label":
            yield (
                key,
                f"{name} names 'perplexity', and student.objective is 'rationale_then_label', where the "
                "answer alone has none: leave it out",
            )
        if metric in ("ece", "brier") and task.labels is None and task.choices is None:
            yield (
                key,
                f"{name} names {metric!r}, which needs the probability of each label, and the task has "
                "neither task.labels nor task.choices: leave it out",
            )
