"""The stages of a run, each from the files of the one before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
import labelers
from curate.exceptions import CurateError
from curate.recipe import LlamaCppSection, OpenAISection, Recipe, RecordedSection
from curate.recipe_checks import needs_embeddings
from curate.references import resolve_model
from curate.run_folder import RunFolder
from curate.splits import normalised
from curate.tables import read_log

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


def build_teacher(recipe: Recipe, base: Path, on_progress: OnProgress) -> labelers.Teacher:
    """The recipe's teacher, ready to be asked."""
    section = recipe.teacher
    if isinstance(section, LlamaCppSection):
        return labelers.LlamaCpp(
            model_path=resolve_model(section.model, "teacher", base, _fetching(on_progress)),
            name=section.model,
            api=section.api,
            slots=section.slots,
            context=section.context,
            threads=section.threads,
        )
    if isinstance(section, OpenAISection):
        prices = section.prices
        return labelers.OpenAICompatible(
            model=section.model,
            base_url=section.base_url or "",
            api_key_env=section.api_key_env,
            api=section.api,
            concurrency=section.concurrency,
            revision=section.revision,
            top_logprobs=section.top_logprobs,
            prices=labelers.Prices(prices.prompt, prices.completion) if prices else None,
        )
    raise CurateError(f"the teacher {section.name!r} is recorded: there is no one to ask")


def label_rows(
    examples: pd.DataFrame,
    recipe: Recipe,
    *,
    base: Path,
    store: Path,
    on_progress: OnProgress = no_progress,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Label all rows; gold is taken away before and put back after.

    Returns:
        The rows with the label columns, and what the run report says of the stage.
    """
    section = recipe.teacher
    task = recipe.task.task()
    blind = examples.drop(columns=["gold"])
    last: list[labelers.Progress] = []
    totals: Counter[str] = Counter()

    def tell(progress: labelers.Progress) -> None:
        last[:] = [progress]
        on_progress("label", vars(progress))

    if isinstance(section, RecordedSection):
        outputs = _recorded_outputs(examples, section, base)
        labelled = labelers.label_recorded(
            blind, task, outputs, teacher=section.name, on_progress=tell
        )
    else:
        limits = labelers.Limits(attempts=getattr(section, "attempts", 6))
        labelled = labelers.label(
            blind,
            task,
            build_teacher(recipe, base, on_progress),
            mode=section.mode,
            rationales=section.rationales,
            calibration=section.calibration,
            store=store,
            limits=limits,
            max_tokens=section.max_tokens,
            max_rationale_tokens=section.max_rationale_tokens,
            on_progress=tell,
        )
    frame = labelled.to_pandas()
    frame.insert(list(examples.columns).index("gold"), "gold", examples["gold"].to_numpy())
    errors = frame["error"].dropna()
    totals.update(error.split(":", 1)[0] for error in errors)
    if len(errors) == len(frame):
        raise CurateError(
            f"no row of {len(frame)} was labelled; the first error is: {errors.iloc[0]}. See to the task's "
            "instruction and labels, or to the teacher"
        )
    progress = last[-1] if last else None
    return frame, {
        "rows": len(frame),
        "labelled": int(frame["label"].notna().sum()),
        "rationales": int(frame["rationale"].notna().sum()),
        "errors": dict(totals),
        "asked": progress.asked if progress else 0,
        "from_store": progress.reused if progress else 0,
        "prompt_tokens": progress.prompt_tokens if progress else 0,
        "completion_tokens": progress.completion_tokens if progress else 0,
        "cost_usd": progress.cost_usd if progress else None,
        "teacher": str(frame["teacher"].iloc[0]),
        "notes": list(progress.notes) if progress else [],
    }


def _recorded_outputs(examples: pd.DataFrame, section: RecordedSection, base: Path) -> list[Any]:
    if section.column is not None:
        if section.column not in examples.columns:
            raise CurateError(
                f"teacher.column names {section.column!r}, which the data lacks; it has "
                f"{', '.join(examples.columns)}"
            )
        return list(examples[section.column])
    assert section.log is not None
    by_id, by_prompt = read_log(base / section.log)
    by_text = {normalised(prompt): response for prompt, response in by_prompt.items()}
    return [
        by_id.get(i, by_text.get(normalised(text)))
        for i, text in zip(examples["id"], examples["input"], strict=True)
    ]


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
    chosen = recipe.built_filters()
    embeddings, warnings = _embed(rows["input"].tolist(), chosen, recipe, base, cache, on_progress)
    clusters = None if embeddings is None else filters.cluster(embeddings, seed=recipe.seed)
    result = filters.apply(
        rows.drop(columns=["gold"]),
        chosen,
        embeddings=embeddings,
        clusters=None if clusters is None else clusters.labels,
        seed=recipe.seed,
        on_progress=lambda event: on_progress("filter", event),
    )
    frame = pd.DataFrame(result.frame).reset_index(drop=True)
    frame.insert(list(labeled.columns).index("gold"), "gold", rows["gold"].to_numpy())
    info: dict[str, Any] = {
        "kept": result.counts["kept"],
        "dropped": result.counts["dropped"],
        "conflicts": result.counts["conflicts"],
        "funnel": [{"stage": "train rows read", "rows": len(frame)}, *result.funnel[1:]],
        "warnings": [*result.warnings, *warnings],
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


def _embed(
    texts: list[str],
    chosen: list[Any],
    recipe: Recipe,
    base: Path,
    cache: Path,
    on_progress: OnProgress,
) -> tuple[Any, list[str]]:
    """Embeddings of the texts, or None, and why there are none where only the map needed them."""
    from curate.assets import AssetError

    needed = any(needs_embeddings(each) for each in chosen)
    if recipe.embedder is None or not (needed or len(texts) <= _MAP_ROWS):
        return None, []
    try:
        model = resolve_model(recipe.embedder, "embedder", base, _fetching(on_progress))
        tell = lambda event: on_progress("embed", event)  # noqa: E731
        return filters.embed(texts, model, cache=cache, on_progress=tell), []
    except (AssetError, filters.EmbeddingError) as error:
        if needed:
            raise
        return None, [f"There is no map of clusters, which no filter needed: {error}"]


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
