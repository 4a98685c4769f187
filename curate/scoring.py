"""Scores of the systems that answered the test rows, their differences, and the verdict on the goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.recipe import Recipe
from curate.tables import is_null

if TYPE_CHECKING:
    import pandas as pd

#: The order in which systems are shown.
SYSTEMS = ("majority", "tfidf", "teacher", "student", "student-gold")


def shown_metrics(recipe: Recipe) -> list[str]:
    """The goal's metrics, then the recipe's; the first is the headline."""
    return list(dict.fromkeys([*recipe.task.goal, *recipe.task.metrics]))


def score(predictions: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    """Metrics of each system, with 95 % bootstrap intervals over groups where rows are grouped."""
    import student

    metrics = {}
    for system in SYSTEMS:
        rows = predictions[predictions["system"] == system]
        if len(rows):
            metrics[system] = student.evaluate(
                rows["gold"].tolist(),
                said(rows),
                labels=recipe.task.labels,
                groups=groups_of(rows),
                metrics=shown_metrics(recipe),
                seed=recipe.seed,
                **given(rows, recipe),
            )
    return metrics


def compare_systems(
    predictions: pd.DataFrame, recipe: Recipe, *, others: Sequence[str] = SYSTEMS
) -> list[dict[str, Any]]:
    """The student against every other system on the same rows, in the goal's metric or the first one.

    Returns:
        One entry per system, as :func:`student.compare` gives it, with the name of the ``system``.
    """
    import student

    metric = shown_metrics(recipe)[0]
    ours = predictions[predictions["system"] == "student"]
    found = []
    for system in others:
        rows = predictions[predictions["system"] == system]
        if system == "student" or not len(rows) or not len(ours):
            continue
        try:
            compared = compare_answers(metric, ours, rows, recipe)
        except student.InputError:  # this system has no probabilities, or there are no classes
            continue
        found.append({"system": system, **compared})
    return found


def compare_answers(
    metric: str, first: pd.DataFrame, second: pd.DataFrame, recipe: Recipe
) -> dict[str, Any]:
    """What :func:`student.compare` says of two systems' answers to the same rows, in one order."""
    import student

    return student.compare(
        metric,
        first["gold"].tolist(),
        said(first),
        said(second),
        labels=recipe.task.labels,
        groups=groups_of(first),
        seed=recipe.seed,
        first_given=given(first, recipe),
        second_given=given(second, recipe),
    )


def given(rows: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    """What some metrics need beside answers, as far as it is there."""
    import labelers

    losses = None
    if "gold_loss" in rows.columns and rows["gold_loss"].notna().all():
        losses = list(zip(rows["gold_loss"], rows["gold_tokens"], strict=True))
    return {
        "label_probs": [None if is_null(p) else list(p) for p in rows["label_probs"]],
        "choices": choices_of(rows),
        "same": labelers.same_value,
        "separator": recipe.task.separator,
        "reference_losses": losses,
    }


def said(rows: pd.DataFrame) -> list[str | None]:
    """The predictions; None where there is none."""
    return [None if p != p else p for p in rows["prediction"].tolist()]


def choices_of(rows: pd.DataFrame) -> list[list[str]] | None:
    """Each row's choices, or None where a row has none."""
    return None if rows["choices"].isna().any() else [list(each) for each in rows["choices"]]


def groups_of(rows: pd.DataFrame) -> list[Any] | None:
    """Each row's group, or None where rows are not grouped."""
    return rows["group"].tolist() if rows["group"].notna().any() else None


def judge(metrics: dict[str, Any], recipe: Recipe) -> tuple[list[dict[str, Any]], str]:
    """Hold the student against the goal that was set before anything ran.

    Returns:
        One entry per goal, and the verdict in a sentence.
    """
    reached = metrics.get("student")
    goal = []
    for metric, target in recipe.task.goal.items():
        value = None if reached is None else reached[metric]
        if value is not None:
            goal.append(
                {"metric": metric, "target": target, **value, "met": value["value"] >= target}
            )
    verdict = (
        _verdict(goal)
        if goal
        else "No goal was set in the recipe (task.goal), so there is no verdict."
    )
    rival = metrics.get("tfidf")
    if rival and reached and rival["accuracy"]["value"] >= reached["accuracy"]["value"]:
        verdict += (
            " TF-IDF with logistic regression on the same labels does as well or better: the student "
            "is not worth its size here."
        )
    return goal, verdict


def _verdict(goal: list[dict[str, Any]]) -> str:
    parts = []
    for entry in goal:
        sure = (
            "; the whole interval is above it"
            if entry["low"] >= entry["target"]
            else "; the whole interval is below it"
            if entry["high"] < entry["target"]
            else "; the interval straddles it"
        )
        parts.append(
            f"{entry['metric']} {entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f}) "
            f"{'reaches' if entry['met'] else 'misses'} {entry['target']:g}{sure}"
        )
    met = all(entry["met"] for entry in goal)
    return f"The goal is {'met' if met else 'not met'}: " + "; ".join(parts) + "."
