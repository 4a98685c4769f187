"""The stage in which a teacher writes new rows for the training set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
import labelers
from curate.generation import generate_rows
from curate.labeling import OnProgress, label_rows
from curate.recipe import Recipe
from curate.references import resolve_model
from curate.teachers import build_teacher

if TYPE_CHECKING:
    import pandas as pd


def write_rows(
    examples: pd.DataFrame, recipe: Recipe, *, base: Path, store: Path, on_progress: OnProgress
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Have the recipe's teacher, or the one of its section ``generate``, write rows.

    It is shown train rows with their gold where there is any. Otherwise the rows are labelled first;
    those answers are in the store when the labeling stage asks for them.

    Returns:
        The new rows, and what the run report says of the stage.

    Raises:
        curate.CurateError: If there is nothing to show.
        labelers.TeacherError: If the teacher cannot be asked.
    """
    section = recipe.generate
    assert section is not None
    first = None
    if not examples.loc[examples["split"] == "train", "gold"].notna().any():
        train = examples[examples["split"] == "train"].reset_index(drop=True)
        first, _ = label_rows(train, recipe, base=base, store=store, on_progress=on_progress)
    clusters = None
    if section.per_cluster:
        assert recipe.embedder is not None
        clusters = _clusters(examples, recipe, base=base, store=store, on_progress=on_progress)
    writer = section.teacher or next(iter(recipe.teacher.asked()))
    teacher = build_teacher(
        writer, base=base, store=store, on_asset=lambda event: on_progress("assets", event)
    )
    budget = writer.budget
    rows, info = generate_rows(
        examples,
        recipe.task.task(),
        teacher,
        labels=section.labels,
        labelled=first,
        clusters=clusters,
        attributes=section.attributes,
        shots=section.shots,
        temperature=section.temperature,
        max_tokens=section.max_tokens,
        near_duplicate=section.near_duplicate,
        max_requests=section.max_requests,
        redact=recipe.privacy.redaction().redact if recipe.privacy else None,
        store=store,
        limits=labelers.Limits(**writer.limits.model_dump()),
        budget=labelers.Budget(**budget.model_dump()) if budget else None,
        run=recipe.name,
        seed=recipe.seed,
        on_progress=lambda progress: on_progress("generate", dict(vars(progress))),
    )
    return rows, info


def _clusters(
    examples: pd.DataFrame, recipe: Recipe, *, base: Path, store: Path, on_progress: OnProgress
) -> dict[str, int]:
    """The cluster of each train row, by id."""
    assert recipe.embedder is not None
    train = examples[examples["split"] == "train"]
    model = resolve_model(
        recipe.embedder, "embedder", base, lambda event: on_progress("assets", event)
    )
    embeddings = filters.embed(
        train["input"].tolist(),
        model,
        cache=store / "embeddings",
        on_progress=lambda event: on_progress("embed", event),
    )
    clusters = filters.cluster(embeddings, seed=recipe.seed)
    return dict(zip(train["id"], map(int, clusters.labels), strict=True))
