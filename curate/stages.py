"""The stages of a run, each from the files of the one before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
from curate.exceptions import CurateError
from curate.recipe import Recipe
from curate.recipe_checks import needs_embeddings
from curate.references import resolve_model
from curate.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

#: Receives the stage's name and an event: ``done``, ``total`` and whatever else the stage tells.
OnProgress = Callable[[str, Mapping[str, Any]], None]

#: Up to this many training rows a map is drawn even if no filter needs embeddings.
_MAP_ROWS = 5000


def no_progress(stage: str, event: Mapping[str, Any]) -> None:
    """Tell nobody."""


def _fetching(on_progress: OnProgress) -> Callable[[Mapping[str, Any]], None]:
    return lambda event: on_progress("assets", event)


def filter_rows(
    labeled: pd.DataFrame,
    recipe: Recipe,
    *,
    base: Path,
    cache: Path,
    on_progress: OnProgress = no_progress,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Judge the training rows; test rows are left out and gold is hidden.

    Returns:
        The training rows with verdicts, the edge table, and what the run report says of the stage.
    """
    import pandas as pd

    rows = labeled[labeled["split"] == "train"].reset_index(drop=True)
    said: list[str] = []
    if recipe.data.review is not None:
        rows, said = filters.apply_review(rows, filters.read_review(base / recipe.data.review))
    chosen = recipe.built_filters()
    references = reference_sets(labeled)
    embedder = _Embedder(recipe, base, cache, on_progress)
    embeddings, warnings = embedder.rows(rows["input"].tolist(), chosen)
    clusters = None if embeddings is None else filters.cluster(embeddings, seed=recipe.seed)
    result = filters.apply(
        rows.drop(columns=["gold"]),
        chosen,
        embeddings=embeddings,
        clusters=None if clusters is None else clusters.labels,
        references=references,
        reference_embeddings=embedder.references(references, chosen),
        seed=recipe.seed,
        on_progress=lambda event: on_progress("filter", event),
    )
    frame = pd.DataFrame(result.frame).reset_index(drop=True)
    frame.insert(list(labeled.columns).index("gold"), "gold", rows["gold"].to_numpy())
    info: dict[str, Any] = {
        "kept": result.counts["kept"],
        "dropped": result.counts["dropped"],
        "conflicts": result.counts["conflicts"],
        "drops": result.drops,
        "policy": result.policy,
        "funnel": [{"stage": "train rows read", "rows": len(frame)}, *result.funnel[1:]],
        "warnings": [*said, *result.warnings, *warnings],
        "notes": list(result.notes),
        "clusters": [],
    }
    if embeddings is not None and clusters is not None:
        layout = filters.layout(embeddings, seed=recipe.seed)
        frame["map_x"], frame["map_y"] = layout[:, 0], layout[:, 1]
        words = filters.cluster_words(rows["input"].tolist(), clusters.labels)
        for cluster, members in frame.groupby("cluster"):
            number = int(str(cluster))
            info["clusters"].append(
                {
                    "cluster": number,
                    "size": len(members),
                    "kept": int(members["keep"].sum()),
                    "words": list(words[number]),
                }
            )
    others = labeled[labeled["split"] == "validation"]
    if len(others):
        held = others.assign(keep=others["label"].notna(), weight=1.0, copies=1)
        frame = pd.concat([frame, held], ignore_index=True)
    return frame, result.decisions, info


def reference_sets(labeled: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The sets that training rows are held against, by name: id and input of other splits, no gold."""
    return {
        split: labeled.loc[labeled["split"] == split, ["id", "input"]].reset_index(drop=True)
        for split in ("test", "validation")
        if (labeled["split"] == split).any()
    }


@dataclass(frozen=True)
class _Embedder:
    """The recipe's embedder, fetched when it is first needed."""

    recipe: Recipe
    base: Path
    cache: Path
    on_progress: OnProgress

    def embed(self, texts: list[str]) -> Any:
        assert self.recipe.embedder is not None
        model = resolve_model(
            self.recipe.embedder, "embedder", self.base, _fetching(self.on_progress)
        )
        tell = lambda event: self.on_progress("embed", event)  # noqa: E731
        return filters.embed(texts, model, cache=self.cache, on_progress=tell)

    def rows(self, texts: list[str], chosen: list[Any]) -> tuple[Any, list[str]]:
        """Embeddings of the texts, or None, and why there are none where only the map needed them."""
        from curate.assets import AssetError

        needed = any(needs_embeddings(each) for each in chosen)
        if self.recipe.embedder is None or not (needed or len(texts) <= _MAP_ROWS):
            return None, []
        try:
            return self.embed(texts), []
        except (AssetError, filters.EmbeddingError) as error:
            if needed:
                raise
            return None, [f"There is no map of clusters, which no filter needed: {error}"]

    def references(
        self, references: Mapping[str, pd.DataFrame], chosen: list[Any]
    ) -> dict[str, Any] | None:
        """Embeddings of the sets that rows are held against by meaning; None where none is."""
        if not any(isinstance(each, filters.SemanticContamination) for each in chosen):
            return None
        return {name: self.embed(frame["input"].tolist()) for name, frame in references.items()}


def check_filter_columns(recipe: Recipe, columns: Collection[str]) -> None:
    """See that the columns which filters name will be there, before the teacher is asked.

    Args:
        recipe: The recipe.
        columns: Columns of the examples.

    Raises:
        CurateError: Naming the filter and the column.
    """
    later = {"label", "rationale", "confidence", "label_source", "teacher", "cluster"}
    there = {*columns, *later} - {"gold"}
    for i, chosen in enumerate(recipe.built_filters()):
        for name in (*getattr(chosen, "fields", ()), *getattr(chosen, "by", ())):
            if name not in there:
                why = "filters never see" if name == "gold" else "the data lacks"
                raise CurateError(
                    f"filters.{i} ({chosen.reason}) names the column {name!r}, which {why}; there will be "
                    f"{', '.join(sorted(there))}"
                )


def train_student(
    curated: pd.DataFrame,
    recipe: Recipe,
    *,
    output: Path,
    base: Path,
    target: str | None = None,
    on_progress: OnProgress = no_progress,
) -> dict[str, Any]:
    """Train a student on the kept rows and save it as ``output``.

    Args:
        curated: Rows from :func:`filter_rows`.
        recipe: The recipe.
        output: Folder of the student.
        base: The recipe's folder.
        target: ``label`` or ``gold``, in place of the recipe's.
        on_progress: Receives the stage's events.

    Returns:
        What the run report says of the stage.
    """
    import student

    section = recipe.student
    target = target or section.target
    rows = curated[curated["keep"].astype(bool)]
    if not (rows["split"] == "train").any():
        counts = curated["reason"].value_counts()
        dropped = ", ".join(f"{reason} dropped {count}" for reason, count in counts.items())
        raise CurateError(
            f"no training row is left of {int(counts.sum())}: {dropped}. Loosen the filters or see to "
            "the teacher's labels"
        )
    if target != "gold":
        rows = rows.drop(columns=["gold"])
    result = student.train(
        rows,
        model=resolve_model(section.model, "student", base, _fetching(on_progress)),
        output=output,
        objective=section.objective,
        target=target,
        labels=recipe.task.labels,
        template=recipe.task.template,
        alpha=section.alpha,
        epochs=section.epochs,
        batch_size=section.batch_size,
        gradient_accumulation=section.gradient_accumulation,
        learning_rate=section.learning_rate,
        max_input_tokens=section.max_input_tokens,
        precision=section.precision,
        seed=recipe.seed,
        on_progress=lambda event: on_progress("train", event),
    )
    return {
        "rows": result.rows,
        "steps": result.steps,
        "epochs": result.epochs,
        "model": section.model,
        "objective": section.objective,
        "target": target,
        "precision": result.precision,
        "truncated": dict(result.truncated),
    }


def needs_gold_student(recipe: Recipe, curated: pd.DataFrame) -> bool:
    """Whether a second student, on gold labels of the same rows, is asked for and possible."""
    return recipe.student.with_gold and bool(curated.loc[curated["keep"], "gold"].notna().any())


def clear_student(run: RunFolder) -> None:
    """Remove a former run's students, so that none stands beside labels it was not trained on."""
    for name in ("student", "student-gold", "predictions.parquet", "report.html"):
        run.remove(name)
