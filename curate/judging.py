"""A teacher as a judge: of each labelled row it is asked whether the label is right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.labeling import OnProgress, label_rows
from curate.recipe import Recipe, TaskSection
from curate.recipe_scores import JudgeSection
from curate.recipe_teachers import AskedSection, ShownSection

if TYPE_CHECKING:
    import pandas as pd

RIGHT, WRONG = "yes", "no"


def judge_rows(
    rows: pd.DataFrame,
    recipe: Recipe,
    section: JudgeSection,
    *,
    base: Path,
    store: Path,
    on_progress: OnProgress,
) -> tuple[list[float | None], dict[str, Any]]:
    """Ask of every labelled row whether its label is right.

    Each question is an exchange like any other: it is looked up in the store before it is asked, counts
    against the budget, and personal data is replaced where the recipe says so. Gold is not shown.

    Returns:
        The probability of "yes" per row (1 or 0 where the judge only says a word), None where there is no
        label or no verdict; and what the run report says.

    Raises:
        CurateError: If no row was judged.
        labelers.TeacherError: If the judge cannot be asked.
    """
    asked = rows[rows["label"].notna()].reset_index(drop=True)
    scores: dict[str, float] = {}
    info: dict[str, Any] = {"rows": len(asked), "judged": 0, "errors": {}}
    if len(asked):
        questions = asked[["id"]].assign(
            input=[question(row, recipe, section.rationales) for row in asked.to_dict("records")],
            gold=None,
            split="train",
        )
        try:
            said, told = label_rows(
                questions,
                _as_judge(recipe, section),
                base=base,
                store=store,
                on_progress=lambda stage, event: on_progress(
                    "judge" if stage == "label" else stage, event
                ),
            )
        except CurateError as error:
            raise CurateError(f"scores.judge: {error}") from error
        for row, label, probs in zip(said["id"], said["label"], said["label_probs"], strict=True):
            if isinstance(label, str):
                scores[row] = float(label == RIGHT) if probs is None else float(probs[0])
        info |= {name: told[name] for name in _TOLD if name in told} | {"judged": len(scores)}
    return [scores.get(row) for row in rows["id"]], info


_TOLD = (
    "errors", "asked", "from_store", "prompt_tokens", "completion_tokens", "cost_usd", "teacher",
    "unfinished",
)  # fmt: skip


def question(row: Mapping[Any, Any], recipe: Recipe, rationales: bool) -> str:
    """What the judge is shown of a row: the task, the input, what could be answered, what was, and why."""
    choices, why = row.get("choices"), row.get("rationale")
    parts = [f"Task: {recipe.task.instruction}", f"Input: {row['input']}"]
    if choices is not None and len(choices):
        parts.append(f"Possible answers: {', '.join(choices)}")
    parts.append(f"Answer given: {row['label']}")
    if rationales and isinstance(why, str) and why.strip():
        parts.append(f"Reason given: {why}")
    return "\n\n".join(parts)


def _as_judge(recipe: Recipe, section: JudgeSection) -> Recipe:
    """The recipe of which judging is the labeling.

    A distribution divided by its mean, or a rationale, would be no use here: unless the recipe says
    otherwise of the judge itself, neither is asked for. A judge with a budget of its own has a ledger
    of its own; the recipe's teacher spends its one budget on both.
    """
    teacher: AskedSection = section.teacher or next(iter(recipe.teacher.asked()))
    chosen = teacher.model_fields_set if section.teacher is not None else set()
    changes: dict[str, Any] = {"demonstrations": ShownSection()}
    if "calibration" not in chosen:
        changes["calibration"] = None
    if "rationales" not in chosen:
        changes["rationales"] = 0
    task = TaskSection(
        instruction=section.instruction,
        template="{{ input }}",
        labels=[RIGHT, WRONG],
        answer_name="Verdict",
    )
    return recipe.model_copy(
        update={
            "name": recipe.name if section.teacher is None else f"{recipe.name}-judge",
            "task": task,
            "teacher": teacher.model_copy(update=changes),
        }
    )
