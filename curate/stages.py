"""The stages of a run, each from the files of the one before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
from curate.exceptions import CurateError
from curate.filter_checks import reference_sets, with_numbers
from curate.filter_findings import needs_embeddings
from curate.model_scores import add_scores
from curate.recipe import Recipe
from curate.recipe_filters import Texts, filters_of, judges_by_vectors, one_label_set, ready
from curate.references import resolve_model, white_box_teacher
from curate.run_facts import count_reviewed, rows_deduped
from curate.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    import student

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

    from curate.suspects import add_suspects, listening

    rows = labeled[labeled["split"] == "train"].reset_index(drop=True)
    said: list[str] = []
    if recipe.data.review is not None:
        path = base / recipe.data.review
        edited = edited_without_verdict(path, rows)
        rows, said = filters.apply_review(rows, filters.read_review(path))
        if edited:
            said = [*said, f"{edited} lines of {recipe.data.review} have another label than their row and no "
                    "verdict: they changed nothing; write relabel in the column review"]  # fmt: skip
    where: dict[str, Any] = {"base": base, "on_progress": on_progress}
    rows, scored = add_scores(rows, recipe, store=cache.parent, train=train_student, **where)
    named = filters_of(recipe)
    chosen = listening(ready(named, cache=cache, **where))
    references = reference_sets(labeled, recipe, base)
    embedder = _Embedder(recipe, base, cache, on_progress)
    embeddings, warnings = embedder.rows(rows, chosen)
    clusters = None if embeddings is None else filters.cluster(embeddings, seed=recipe.seed)
    result = filters.apply(
        with_numbers(rows.drop(columns=["gold"]), chosen),
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
        # Of the filters as the recipe names them: as they ran they hold paths of this machine.
        "policy": filters.policy_hash(named),
        "scores": scored,
        "funnel": [{"stage": "train rows read", "rows": len(frame)}, *result.funnel[1:]],
        "warnings": [*said, *result.warnings, *warnings],
        "notes": list(result.notes),
        "suspects": add_suspects(frame, chosen, embeddings=embeddings, seed=recipe.seed),
        "reviewed": count_reviewed(frame),
        "deduped": rows_deduped(base / recipe.data.train),
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


@dataclass(frozen=True)
class _Embedder:
    """The recipe's embedder, fetched when it is first needed."""

    recipe: Recipe
    base: Path
    cache: Path
    on_progress: OnProgress

    def embed(self, texts: list[str]) -> Any:
        assert self.recipe.embedder is not None
        return Texts(self.recipe.embedder, self.base, self.cache, self.on_progress)(texts)

    def rows(self, rows: pd.DataFrame, chosen: list[Any]) -> tuple[Any, list[str]]:
        """Embeddings of the inputs, or None, and what a person should know where there are none."""
        from curate.assets import AssetError

        learning = [each.reason for each in chosen if judges_by_vectors(each)]
        learning = learning if one_label_set(rows) else []
        needed = bool(learning) or any(needs_embeddings(each) for each in chosen)
        if self.recipe.embedder is None:
            return None, [
                f"{reason}: the recipe has no embedder, so labels were judged by the words of the inputs; "
                "name one, such as `embedder: all-minilm-l6-v2`, for a surer opinion"
                for reason in learning
            ]
        if not (needed or len(rows) <= _MAP_ROWS):
            return None, []
        try:
            return self.embed(rows["input"].tolist()), []
        except (AssetError, filters.EmbeddingError) as error:
            if needed:
                raise
            return None, [f"There is no map of clusters, which no filter needed: {error}"]

    def references(
        self, references: Mapping[str, pd.DataFrame], chosen: list[Any]
    ) -> dict[str, Any] | None:
        """Embeddings of the sets that rows are held against by meaning; None where none is."""
        judging = [each for each in chosen if isinstance(each, filters.SemanticContamination)]
        if not judging:
            return None
        wanted = {name for each in judging for name in each.against or references}
        return {
            name: self.embed(frame["input"].tolist())
            for name, frame in references.items()
            if name in wanted
        }


def edited_without_verdict(path: Path, rows: pd.DataFrame) -> int:
    """How many lines of a review give a row another label and no verdict."""
    from filters.reviews import unmarked_labels

    own = dict(zip(rows["id"].astype(str), rows["label"], strict=True))
    found = unmarked_labels(path)
    return sum(
        row in own and own[row] is not None and own[row] != label for row, label in found.items()
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
            "the teacher's labels, and run the same command again: what was labelled is kept"
        )
    if target != "gold":
        rows = rows.drop(columns=["gold"])

    def teacher_asked(name: str, event: Mapping[str, Any]) -> None:
        if name == "teacher_asked":
            on_progress("white_box", event)

    result = student.train(
        rows,
        model=resolve_model(section.model, "student", base, _fetching(on_progress)),
        output=output,
        target=target,
        labels=recipe.task.labels,
        template=recipe.task.template,
        seed=recipe.seed,
        on_progress=lambda event: on_progress("train", event),
        callbacks=[teacher_asked],
        **_options(recipe, target, base, on_progress),
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
        "micro_batch": result.micro_batch,
        "resumed_from": result.resumed_from,
        "notes": [*_cut_rows(result, output.name), *_resumed(result, output.name), *result.notes],
    }


def _options(recipe: Recipe, target: str, base: Path, on_progress: OnProgress) -> dict[str, Any]:
    """The options of the training, but for those that another objective than the recipe's has."""
    section = recipe.student
    options = section.model_dump(exclude={"model", "target", "with_gold", "white_box"})
    if section.objective == "soft_label" and target != section.target:
        # A second student, which shows what people's labels bring, learns nothing of the teacher's.
        options["objective"] = "label"
    if options["objective"] not in ("soft_label", "white_box"):
        options["temperature"] = None
    options["shared_encoder"] = section.shared_encoder and section.objective == "multitask"
    teacher = white_box_teacher(recipe)
    if teacher is not None and section.white_box is not None:
        options["white_box"] = section.white_box.model_dump(exclude={"cached"}) | {
            "teacher": resolve_model(teacher, "student", base, _fetching(on_progress)),
            "cache": base / ".curate" / "white-box" if section.white_box.cached else None,
        }
    return options


def rationales_to_read(rows: pd.DataFrame, recipe: Recipe) -> list[str | None] | None:
    """The rationales of rows to be answered, for a student that reads them; else None."""
    if recipe.student.objective != "rationale_as_input":
        return None
    if "rationale" not in rows.columns:
        return [None] * len(rows)
    return [text if isinstance(text, str) else None for text in rows["rationale"]]


def check_student(recipe: Recipe, examples: pd.DataFrame) -> None:
    """See that the student can be trained as the recipe says, before the teacher is asked.

    Args:
        recipe: The recipe.
        examples: The examples.

    Raises:
        CurateError: If there will be no rows to validate on, or no gold label to learn.
        student.InputError: If a library is missing.
    """
    section = recipe.student
    if section.target == "gold" and examples.loc[examples["split"] == "train", "gold"].isna().all():
        raise CurateError(
            "student.target is 'gold', and no train row has a gold label: name its column in data.gold, or "
            "learn the teacher's labels with --set student.target=label"
        )
    validated = section.validation_fraction > 0 or (examples["split"] == "validation").any()
    if section.early_stopping is not None and not validated:
        raise CurateError(
            f"student.early_stopping is {section.early_stopping}, and there are no rows to validate on: set "
            "student.validation_fraction, for example to 0.1, or mark rows in a column split"
        )
    if section.lora or section.load_in_4bit or section.report_to:  # else torch need not load yet
        from student.adapters import check_lora
        from student.devices import resolve_device
        from student.trackers import check_trackers

        lora = section.lora.model_dump() if section.lora else None
        check_lora(lora, section.load_in_4bit, resolve_device("auto"))
        check_trackers(section.report_to)


def _resumed(result: student.TrainingResult, name: str) -> list[str]:
    if not result.resumed_from:
        return []
    return [f"The training of {name!r} went on from a checkpoint, after step {result.resumed_from}"]


def _cut_rows(result: student.TrainingResult, name: str) -> list[str]:
    """A sentence for every limit that training rows were longer than."""
    return [
        f"The {what} of {count} of {result.rows} rows that {name!r} was trained on were longer than "
        f"student.max_{what.removesuffix('s')}_tokens and were cut: a higher limit keeps them whole"
        for what, count in result.truncated.items()
        if count
    ]


def needs_gold_student(recipe: Recipe, curated: pd.DataFrame) -> bool:
    """Whether a second student, on gold labels of the same rows, is asked for and possible."""
    return recipe.student.with_gold and bool(curated.loc[curated["keep"], "gold"].notna().any())


def clear_student(run: RunFolder, *, keep: Collection[str] = ()) -> None:
    """Remove a former run's students, so that none stands beside labels it was not trained on.

    The checkpoint of a training that was killed stays: `student.train` goes on from it if it is of the
    same training, and says so if it is not.
    """
    for name in {
        "student",
        "student-gold",
        "predictions.parquet",
        "report.html",
        "errors.json",
        "errors.parquet",
        "judged.json",
    }.difference(keep):
        run.remove(name)
