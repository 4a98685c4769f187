"""Which worked examples a teacher's rows are shown, as the recipe has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
import labelers
from curate.exceptions import CurateError
from curate.gold import first_gold
from curate.recipe import Recipe
from curate.recipe_teachers import AskedSection
from curate.references import resolve_model

if TYPE_CHECKING:
    import pandas as pd


def choose_demonstrations(
    examples: pd.DataFrame,
    section: AskedSection,
    task: labelers.Task,
    teacher: labelers.Teacher,
    recipe: Recipe,
    *,
    base: Path,
    store: Path,
    limits: labelers.Limits,
    on_progress: Callable[[str, Mapping[str, Any]], None],
) -> tuple[labelers.Task, labelers.Demonstrations | None, str]:
    """The task with all its demonstrations, and what chooses among them for each row.

    Where the recipe wants some written, the teacher writes rationales for train rows with gold; only
    those that lead it to the right label are kept.

    Returns:
        The task; the rule that chooses per row, None where all rows are shown the same; and a note.

    Raises:
        CurateError: If demonstrations are to be written and no train row has gold, or there are fewer
            than are to be shown.
    """
    wanted = section.demonstrations
    note = ""
    if wanted.written:
        task, note = _with_written(
            examples, section, task, teacher, recipe, store=store, limits=limits
        )
    if wanted.choose == "fixed":
        return task, None, note
    pool = task.demonstrations
    if len(pool) < wanted.shots:
        raise CurateError(
            f"teacher.demonstrations.shots is {wanted.shots}, and there are {len(pool)} demonstrations: give "
            "more, have some written (teacher.demonstrations.written), or show fewer"
        )
    if wanted.choose == "random":
        rule: labelers.Demonstrations = labelers.RandomDemonstrations(
            pool=pool, shots=wanted.shots, seed=recipe.seed
        )
        return task, rule, note
    assert recipe.embedder is not None
    model = resolve_model(
        recipe.embedder, "embedder", base, lambda event: on_progress("assets", event)
    )

    def encode(texts: Sequence[str]) -> Any:
        return filters.embed(
            list(texts),
            model,
            cache=store / "embeddings",
            on_progress=lambda event: on_progress("embed", event),
        )

    rule = labelers.SimilarDemonstrations(pool=pool, encode=encode, shots=wanted.shots)
    return task, rule, note


def _with_written(
    examples: pd.DataFrame,
    section: AskedSection,
    task: labelers.Task,
    teacher: labelers.Teacher,
    recipe: Recipe,
    *,
    store: Path,
    limits: labelers.Limits,
) -> tuple[labelers.Task, str]:
    rows = examples[(examples["split"] == "train") & examples["gold"].notna()]
    if rows.empty:
        raise CurateError(
            "teacher.demonstrations.written needs train rows with gold, and there are none: name data.gold, "
            "or write demonstrations by hand"
        )
    budget = section.budget
    written = labelers.write_demonstrations(
        rows[["id", "input", "choices"]].assign(gold=rows["gold"].map(first_gold)),
        task,
        teacher,
        wanted=section.demonstrations.written,
        redact=recipe.privacy.redaction().redact if recipe.privacy else None,
        store=store,
        limits=limits,
        budget=labelers.Budget(**budget.model_dump()) if budget else None,
        run=recipe.name,
        max_tokens=section.max_tokens,
        seed=recipe.seed,
    )
    changed = dataclasses.replace(
        task, demonstrations=(*task.demonstrations, *written.demonstrations)
    )
    failures = ", ".join(f"{n} {reason}" for reason, n in written.failures.items())
    return changed, (
        f"{len(written.demonstrations)} demonstrations were written by the teacher for train rows, with the "
        f"right answer shown to it; {written.tried} were tried, and those kept after which it answers right"
        + (f" (not kept: {failures})" if failures else "")
    )
