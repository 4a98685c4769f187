"""Majority, TF-IDF, teacher and student on the same test rows, and the verdict on the goal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.recipe import Recipe
from curate.stages import OnProgress, no_progress

if TYPE_CHECKING:
    import pandas as pd

#: The order in which systems are shown.
SYSTEMS = ("majority", "tfidf", "teacher", "student", "student-gold")


def predict_test_rows(
    labeled: pd.DataFrame,
    curated: pd.DataFrame,
    recipe: Recipe,
    *,
    students: dict[str, Path],
    on_progress: OnProgress = no_progress,
) -> tuple[pd.DataFrame, list[str]]:
    """Every system's answer to every test row.

    The reference is the human label. Where the data has none at all it is the teacher's label, which
    a note says, since agreement with a teacher is not correctness.

    Returns:
        One row per test row and system, and notes.
    """
    import pandas as pd

    import student

    test = labeled[labeled["split"] == "test"].reset_index(drop=True)
    notes = []
    if test["gold"].isna().all():
        test["gold"] = test["label"]
        notes.append(
            "The data has no human labels: systems are compared with the teacher's labels, so that a score "
            "is agreement with the teacher, not correctness."
        )
    unjudged = int(test["gold"].isna().sum())
    if unjudged:
        notes.append(f"{unjudged} test rows without a reference label are left out.")
    test = test[test["gold"].notna()].reset_index(drop=True)
    if not len(test):
        raise CurateError(
            "no test row has a reference label: name the human label's column in data.gold"
        )
    kept = curated[curated["keep"].astype(bool) & (curated["split"] == "train")]
    column = "gold" if recipe.student.target == "gold" else "label"
    kept = kept[kept[column].notna()]
    inputs = test["input"].tolist()
    choices = None if test["choices"].isna().any() else [list(c) for c in test["choices"]]
    answers = {"teacher": test.rename(columns={"label": "prediction"})}
    labels = kept[column].tolist()
    common: dict[str, Any] = {"labels": recipe.task.labels}
    if recipe.task.choices is not None:
        common = {"choices": choices}
    baselines = {
        "majority": student.majority(labels, len(test), **common),
        "tfidf": student.tfidf(kept["input"].tolist(), labels, inputs, **common),
    }
    for name, baseline in baselines.items():
        if baseline.predictions is None:
            notes.append(f"There is no {name} baseline: {baseline.reason}.")
        else:
            probabilities: list[Any] = [*(baseline.label_probs or [None] * len(test))]  # type: ignore[list-item]
            answers[name] = pd.DataFrame(
                {
                    "prediction": baseline.predictions,
                    "label_probs": pd.Series(probabilities, dtype=object),
                    "confidence": [None if p is None else max(p) for p in probabilities],
                }
            )
    for name, folder in students.items():
        answers[name] = student.predict(
            folder,
            inputs,
            choices=choices,
            precision=recipe.student.precision,
            on_progress=lambda event: on_progress("predict", event),
        )
    tables = []
    for system in SYSTEMS:
        if system in answers:
            table = test[["id", "input", "choices", "gold", "group"]].copy()
            table["system"] = system
            for name in ("prediction", "confidence", "label_probs", "error"):
                values = answers[system]
                table[name] = list(values[name]) if name in values.columns else None
            tables.append(table)
    return pd.concat(tables, ignore_index=True), notes


def write_cards(
    folder: Path, metrics: dict[str, Any], recipe: Recipe, *, teacher: str, by_people: bool
) -> None:
    """Write the students' model cards anew, with what became known after training.

    Raises:
        student.CheckpointError: If they cannot be written.
    """
    import student

    for name in ("student", "student-gold"):
        if name in metrics:
            gold = name == "student-gold" or recipe.student.target == "gold"
            student.write_card(
                folder / name,
                name=recipe.name if name == "student" else f"{recipe.name}, on human labels",
                base_model=recipe.student.model,
                task=recipe.task.instruction,
                data=recipe.data.train,
                teacher="none, it learned from people" if gold else teacher,
                metrics=metrics[name] if by_people else None,
            )


def score(predictions: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    """Metrics of each system, with 95 % bootstrap intervals over groups where rows are grouped."""
    import student

    metrics = {}
    for system in SYSTEMS:
        rows = predictions[predictions["system"] == system]
        if len(rows):
            metrics[system] = student.evaluate(
                rows["gold"].tolist(),
                [None if p != p else p for p in rows["prediction"].tolist()],
                labels=recipe.task.labels,
                groups=rows["group"].tolist() if rows["group"].notna().all() else None,
                seed=recipe.seed,
            )
    return metrics


def judge(metrics: dict[str, Any], recipe: Recipe) -> tuple[list[dict[str, Any]], str]:
    """Hold the student against the goal that was set before anything ran.

    Returns:
        One entry per goal, and the verdict in a sentence.
    """
    reached = metrics.get("student")
    goal = []
    for metric, target in recipe.task.goal.items():
        if reached is not None:
            value = reached[metric]
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
