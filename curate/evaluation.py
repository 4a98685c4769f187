"""Majority, TF-IDF, teacher and student on the same test rows, and the students' model cards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.gold import references_of
from curate.recipe import Recipe
from curate.scoring import SYSTEMS, choices_of
from curate.stages import OnProgress, no_progress, rationales_to_read

if TYPE_CHECKING:
    import pandas as pd

#: Rows of the test set on which a student's speed is taken.
_TIMED_ROWS = 64
_COLUMNS = ("prediction", "confidence", "label_probs", "error")
_LOSSES = ("gold_loss", "gold_tokens")


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
    labels = [references_of(each)[0] for each in kept[column]]
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
            rationales=rationales_to_read(test, recipe),
            precision=recipe.student.precision,
            on_progress=lambda event: on_progress("predict", event),
        )
        if "perplexity" in recipe.task.metrics:
            losses = _gold_losses(test, folder, rationales_to_read(test, recipe))
            answers[name]["gold_loss"], answers[name]["gold_tokens"] = zip(*losses, strict=True)
    tables = []
    for system in SYSTEMS:
        if system in answers:
            table = test[["id", "input", "choices", "gold", "group"]].copy()
            table["system"] = system
            for name in (*_COLUMNS, *(_LOSSES if "perplexity" in recipe.task.metrics else ())):
                values = answers[system]
                table[name] = list(values[name]) if name in values.columns else None
            tables.append(table)
    return pd.concat(tables, ignore_index=True), notes


def _gold_losses(
    rows: pd.DataFrame, folder: Path, rationales: list[str | None] | None
) -> list[tuple[float, int]]:
    """Loss and tokens of each row's gold; of several references, of the likeliest per token."""
    import student

    golds = [references_of(gold) for gold in rows["gold"]]
    places = [i for i, references in enumerate(golds) for _ in references]
    losses = student.reference_losses(
        folder,
        [rows["input"].iloc[i] for i in places],
        [reference for references in golds for reference in references],
        rationales=None if rationales is None else [rationales[i] for i in places],
    )
    found: list[list[tuple[float, int]]] = [[] for _ in golds]
    for i, loss in zip(places, losses, strict=True):
        found[i].append(loss)
    return [min(each, key=lambda loss: loss[0] / loss[1]) for each in found]


def weigh_abstention(labeled: pd.DataFrame, folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What leaving out unsure answers buys, on validation rows; None without any, or for free text.

    Returns:
        ``rows``, ``reference`` (``gold``, or ``label`` where people labelled none of them) and
        ``table``, as :func:`student.coverage_table` gives it.
    """
    import student

    rows = labeled[labeled["split"] == "validation"]
    reference = "gold" if rows["gold"].notna().any() else "label"
    rows = rows[rows[reference].notna()].reset_index(drop=True)
    choices = choices_of(rows)
    if not len(rows) or choices is None:
        return None
    found = student.predict(
        folder,
        rows["input"].tolist(),
        choices=choices,
        rationales=rationales_to_read(rows, recipe),
        precision=recipe.student.precision,
    )
    pairs = zip(found["prediction"], rows[reference], strict=True)
    right = [said in references_of(gold) for said, gold in pairs]
    table = student.coverage_table(found["confidence"].tolist(), right)
    return {"rows": len(rows), "reference": reference, "table": table}


def time_student(labeled: pd.DataFrame, folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What predicting takes here: see :func:`student.measure`."""
    import student

    rows = labeled[labeled["split"] == "test"].head(_TIMED_ROWS)
    return student.measure(
        folder,
        rows["input"].tolist(),
        choices=choices_of(rows),
        rationales=rationales_to_read(rows, recipe),
        single_rows=20,
        precision=recipe.student.precision,
    )


def write_cards(
    folder: Path,
    metrics: dict[str, Any],
    recipe: Recipe,
    *,
    stages: Mapping[str, Any],
    by_people: bool,
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
                teacher="none, it learned from people" if gold else stages["labeled"]["teacher"],
                metrics=metrics[name] if by_people else None,
                costs=[] if gold else _labeling_costs(stages["labeled"]),
                speed=stages["predictions"].get("speed") if name == "student" else None,
            )


def _labeling_costs(stage: Mapping[str, Any]) -> list[str]:
    tokens = [stage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    usd = stage.get("cost_usd")
    price = "no price is known" if usd is None else f"{usd:.2f} US dollars"
    return [
        f"Labeling: {stage.get('labelled', 0):,} rows, {tokens[0]:,} prompt and {tokens[1]:,} completion "
        f"tokens; {price}"
    ]
