"""The whole way from a recipe to a student and its report, and the verbs that stop on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from curate.errors import analyse, write_analysis
from curate.evaluation import write_cards
from curate.exceptions import CurateError
from curate.recipe import Recipe, load_recipe, parse_recipe
from curate.recipe_filters import Texts
from curate.run_facts import run_facts
from curate.run_folder import RunFolder
from curate.scoring import SYSTEMS, compare_systems, judge, score, shown_metrics
from curate.stage_order import Pipeline
from curate.stages import OnProgress, no_progress

if TYPE_CHECKING:
    import datasets
    import pandas as pd

RecipeLike = str | os.PathLike[str] | Mapping[str, Any] | Recipe


@dataclass(frozen=True)
class Run:
    """A run folder and what is known of it.

    Attributes:
        folder: The run folder.
        stages: What each finished stage reports, by name.
        metrics: Metrics by system (accuracy and macro_f1 with ``value``, ``low``, ``high``, …);
            empty where the run stopped before evaluation.
        goal: One entry per goal of the recipe.
        verdict: The verdict on the goal in a sentence.
        shown: The metrics that are asked for: the goal's, then the recipe's.
    """

    folder: Path
    stages: Mapping[str, Any]
    metrics: Mapping[str, Any]
    goal: Sequence[Mapping[str, Any]]
    verdict: str
    shown: Sequence[str] = ("accuracy", "macro_f1")

    @property
    def student(self) -> Path:
        """The student's folder: a normal Hugging Face model folder."""
        return self.folder / "student"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    def table(self, name: str) -> pd.DataFrame:
        """One of ``examples``, ``labeled``, ``curated``, ``decisions``, ``predictions``."""
        return RunFolder(self.folder).read_table(f"{name}.parquet")


class Options(TypedDict, total=False):
    """Options that the verbs share.

    Attributes:
        output: The run folder; by default ``runs/<recipe's name>``.
        store: Folder of the teacher's exchanges and of cached embeddings; by default ``.curate``
            beside the recipe.
        overrides: ``key=value`` pairs, as given to ``--set``.
        train: A pandas or `datasets` object in place of ``data.train``.
        test: The same in place of ``data.test``.
        on_progress: Receives each stage's events.
    """

    output: str | os.PathLike[str] | None
    store: str | os.PathLike[str] | None
    overrides: Sequence[str]
    train: pd.DataFrame | datasets.Dataset | None
    test: pd.DataFrame | datasets.Dataset | None
    on_progress: OnProgress | None


def label(recipe: RecipeLike, **options: Unpack[Options]) -> Run:
    """Read the data and label it; writes ``examples.parquet`` and ``labeled.parquet``.

    Raises:
        ValueError, RuntimeError: With a message that says what to do; see docs/errors.md.
    """
    return _go("labeled", recipe, options)


def filter(recipe: RecipeLike, **options: Unpack[Options]) -> Run:
    """Go on to the curated set: ``curated.parquet`` and ``decisions.parquet``."""
    return _go("curated", recipe, options)


def train(recipe: RecipeLike, **options: Unpack[Options]) -> Run:
    """Go on to the trained student: the folder ``student/``."""
    return _go("student", recipe, options)


def evaluate(recipe: RecipeLike, **options: Unpack[Options]) -> Run:
    """Go on to metrics on the test rows: ``predictions.parquet`` and ``run.json``."""
    return _go("predictions", recipe, options)


def run(recipe: RecipeLike, **options: Unpack[Options]) -> Run:
    """Do everything, from reading the data to ``report.html``.

    Args:
        recipe: A recipe's path, or a recipe as a mapping or :class:`curate.Recipe`. Relative paths
            in it start at its own folder, or at the working folder where it has none.
        **options: See :class:`Options`.

    Returns:
        The run, with its metrics, verdict and files.
    """
    done = evaluate(recipe, **options)
    report(done.folder)
    return done


def report(run: Run | str | os.PathLike[str]) -> Path:
    """Write ``report.html`` of a complete run folder anew and return its path."""
    from curate.reports import write_report

    return write_report(run.folder if isinstance(run, Run) else Path(run))


def _go(until: str, recipe: RecipeLike, options: Options) -> Run:
    base = Path.cwd()
    overrides = options.get("overrides", ())
    if isinstance(recipe, Recipe):
        if overrides:
            raise CurateError(
                "overrides change a recipe's file or mapping, and this one is checked already: give "
                "them to load_recipe"
            )
        checked = recipe
    elif isinstance(recipe, Mapping):
        checked = parse_recipe(recipe, overrides=overrides)
    else:
        checked = load_recipe(recipe, overrides=overrides)
        base = Path(recipe).resolve().parent
    output, store = options.get("output"), options.get("store")
    pipeline = Pipeline(
        checked,
        base,
        RunFolder(output if output is not None else Path("runs") / checked.name),
        Path(store) if store is not None else base / ".curate",
        {name: options.get(name) for name in ("train", "test")},
        options.get("on_progress") or no_progress,
    )
    with pipeline.run.locked():
        pipeline.go(until)
        if until == "predictions":
            return _conclude(pipeline)
    return Run(pipeline.run.path, pipeline.stages, {}, [], "")


def _conclude(pipeline: Pipeline) -> Run:
    """Write run.json, last: a folder that has it is complete."""
    recipe, folder, stages = pipeline.recipe, pipeline.run, pipeline.stages
    predictions = folder.read_table("predictions.parquet")
    metrics = score(predictions, recipe)
    goal, verdict = judge(metrics, recipe)
    by_people = stages["predictions"]["reference"] == "gold"
    if not by_people:
        verdict += (
            " The data has no human labels: this is agreement with the teacher, not correctness."
        )
    write_cards(folder.path, metrics, recipe, stages=stages, by_people=by_people)
    _look_into_errors(pipeline, by_people)
    facts = run_facts(
        recipe,
        stages=stages,
        curated=folder.read_table("curated.parquet"),
        metrics={name: metrics[name] for name in SYSTEMS if name in metrics},
        goal=goal,
        verdict=verdict,
    )
    facts["comparisons"] = compare_systems(predictions, recipe)
    folder.write_text("run.json", json.dumps(facts, indent=1, ensure_ascii=False))
    asked = shown_metrics(recipe)
    return Run(folder.path, stages, metrics, goal, verdict, asked)


def _look_into_errors(pipeline: Pipeline, by_people: bool) -> None:
    """Write what is known of the student's errors, for the report; nothing is encoded but test rows."""
    recipe, folder = pipeline.recipe, pipeline.run
    if not by_people or not (folder.path / "student").exists():
        return
    if pipeline.stages["predictions"]["reused"] and (folder.path / "errors.json").exists():
        return
    curated = folder.read_table("curated.parquet")
    encode = None
    if "cluster" in curated.columns and recipe.embedder is not None:
        cache = pipeline.store / "embeddings"
        encode = Texts(recipe.embedder, pipeline.base, cache, pipeline.tell)
    write_analysis(analyse(folder, recipe, encode, whole=True), folder.path)
