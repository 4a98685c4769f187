"""``curate ablate``: how a student's score grows with labels, and what one change at a time is worth."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.ablation_cells import (
    STUDENT,
    Bench,
    Cell,
    Trainer,
    answer_test,
    forget_students,
    run_cells,
)
from curate.ablation_checks import (
    FRACTIONS,
    check_early_stopping,
    check_options,
    refuse_beside_vary,
    refuse_without_vary,
)
from curate.ablation_results import conclude
from curate.ablation_room import jobs_that_fit
from curate.ablation_rows import Ground, lay_ground, nested_subsets, strata
from curate.ablation_source import RecipeLike, Source, open_source
from curate.references import check_models
from curate.run_folder import RunFolder
from curate.stages import OnProgress, no_progress
from curate.teacher_variants import override

if TYPE_CHECKING:
    import pandas as pd

#: Seeds that are tried where none are named: the recipe's and those after it.
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What :func:`ablate` found.

    Attributes:
        folder: Holds ``ablation.json`` and ``ablation.html``, or ``experiments.json``, and the tables.
        facts: All that was found, as plain JSON values; docs/ablations.md explains it.
        verdict: The answer in a few sentences.
        notes: What else is to be known.
        problems: What went wrong, by the name of the cell or experiment.
    """

    folder: Path
    facts: Mapping[str, Any]
    verdict: str
    notes: Sequence[str]
    problems: Mapping[str, str]

    @property
    def page(self) -> Path | None:
        """The page with table and figure; None where one change at a time was tried."""
        path = self.folder / "ablation.html"
        return path if "points" in self.facts else None

    def table(self) -> pd.DataFrame:
        """One row per cell, or per experiment."""
        name = "cells" if "points" in self.facts else "experiments"
        return RunFolder(self.folder).read_table(f"{name}.parquet")


def ablate(
    recipe: RecipeLike,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] | None = None,
    objectives: Sequence[str] = (),
    students: Sequence[str] = (),
    same: str = "epochs",
    vary: Sequence[str] = (),
    grid: bool = False,
    yes: bool = False,
    log_to: Sequence[str] = (),
    validation: float = 0.2,
    jobs: int = 1,
    keep_students: bool = False,
    overrides: Sequence[str] = (),
    run: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    on_progress: OnProgress | None = None,
    trainer: Trainer = STUDENT,
) -> Ablation:
    """Train students on growing parts of a run's training set, or with one setting changed at a time.

    The rows are those of the run folder: nothing is asked or filtered again. Without ``vary``, students are
    trained for each fraction, seed, objective and model, judged on validation rows that none of them is
    trained on, and at the end once on test. With ``vary``, each value is one experiment against the recipe
    as it is, on all rows; test is not read. What was finished is kept: the same call goes on.

    Args:
        recipe: A recipe's path, or a recipe as a mapping or :class:`curate.Recipe`.
        fractions: Parts of the training rows, above 0 and at most 1.
        seeds: Seeds of the subset and of the training; by default three from the recipe's on.
        objectives: Values of ``student.objective``; by default the recipe's.
        students: Values of ``student.model``; by default the recipe's.
        same: ``epochs`` for all sizes, or ``steps``: then a part of the rows is seen more often.
        vary: ``KEY=V1,V2`` texts.
        grid: With ``vary``, try all combinations.
        yes: Let experiments ask the teacher.
        log_to: ``wandb`` or ``mlflow``, to log experiments there, too.
        validation: Part of the train rows to judge by, where the data has no validation rows.
        jobs: How many students are trained side by side, each in a process of its own.
        keep_students: Keep all weights; else they go once test is read.
        overrides: ``key=value`` pairs, set throughout.
        run: The run's folder; by default ``runs/<name>``.
        output: Where results and finished cells go; by default ``ablation`` in the run's folder.
        store: Folder of the teacher's exchanges; by default ``.curate`` beside the recipe.
        on_progress: Receives events.
        trainer: How students are trained, for students of another kind.

    Raises:
        CurateError: If the run has no curated rows, an option cannot be, or every cell fails.
        RecipeError: If the recipe, or a varied key or value, is not good; before anything runs.
    """
    check_options(fractions, seeds, same, validation, jobs)
    source = open_source(recipe, overrides=overrides, run=run, store=store)
    check_early_stopping(source.recipe.student)
    chosen = (
        tuple(seeds) if seeds is not None else tuple(source.recipe.seed + i for i in range(SEEDS))
    )
    folder = RunFolder(output if output is not None else source.run.path / "ablation")
    ground = lay_ground(source.curated, source.recipe, share=validation)
    bench = Bench(
        folder=folder.path, base=source.base, trainer=trainer, jobs=jobs,
        tell=on_progress or no_progress,
    )  # fmt: skip
    if vary:
        from curate.experiments import run_experiments

        refuse_beside_vary(fractions, objectives, students, same)
        found = run_experiments(
            source,
            ground,
            dataclasses.replace(bench, keep=keep_students),
            folder,
            vary=vary,
            grid=grid,
            yes=yes,
            log_to=log_to,
            seeds=chosen,
        )
        return Ablation(folder=folder.path, **found)
    refuse_without_vary(grid=grid, yes=yes, log_to=log_to)
    cells, notes = _plan(
        source, ground, fractions=fractions, seeds=chosen, objectives=objectives, students=students,
        same=same,
    )  # fmt: skip
    return _train_and_test(source, ground, bench, folder, cells, notes, keep_students=keep_students)


def _train_and_test(
    source: Source,
    ground: Ground,
    bench: Bench,
    folder: RunFolder,
    cells: Sequence[Cell],
    notes: Sequence[str],
    *,
    keep_students: bool,
) -> Ablation:
    """Train every cell that is not finished, read test once, and write what was found."""
    with folder.locked():
        bench, told = _with_room(bench, cells)
        problems = run_cells(bench, cells)
        done = [cell for cell in cells if bench.record(cell) is not None]
        test = source.test_rows()
        asked = answer_test(bench, done, test) if len(test) else 0
        if not keep_students:
            forget_students(bench, done)
        notes = [*source.notes, *notes, *told, *_test_notes(folder, asked, test)]
        facts = conclude(source, ground, bench, folder, done, test, notes, problems)
    return Ablation(
        folder=folder.path,
        facts=facts,
        verdict=facts["verdict"],
        notes=facts["notes"],
        problems=problems,
    )


def _with_room(bench: Bench, cells: Sequence[Cell]) -> tuple[Bench, list[str]]:
    """The bench with as many jobs as there is room for."""
    jobs, note = jobs_that_fit(bench.jobs, [c.recipe.student.model for c in cells], bench.base)
    return dataclasses.replace(bench, jobs=jobs), [note] if note else []


def _test_notes(folder: RunFolder, asked: int, test: pd.DataFrame) -> list[str]:
    """How often test has been read in this folder: more than once is more than a look at the end."""
    if not len(test):
        return ["The run has no test row with a reference: there are no test scores."]
    path = folder.path / "test-reads.json"
    reads: list[int] = json.loads(path.read_text("utf-8")) if path.exists() else []
    if asked:
        reads.append(asked)
        folder.write_text("test-reads.json", json.dumps(reads))
    if len(reads) > 1:
        return [
            f"Test was read {len(reads)} times in this folder, for {sum(reads)} students: choose nothing by "
            "it"
        ]
    return []


def _plan(
    source: Source,
    ground: Ground,
    *,
    fractions: Sequence[float],
    seeds: Sequence[int],
    objectives: Sequence[str],
    students: Sequence[str],
    same: str,
) -> tuple[list[Cell], list[str]]:
    """All cells, the smallest first; every recipe is checked before the first is trained."""
    by, name = strata(ground.training, source.recipe)
    subsets = {seed: nested_subsets(ground.training, fractions, by, seed=seed) for seed in seeds}
    section = source.recipe.student
    cells = []
    for fraction in sorted(fractions):
        epochs = section.epochs if same == "epochs" else max(1, round(section.epochs / fraction))
        for model in dict.fromkeys(students or [section.model]):
            for objective in dict.fromkeys(objectives or [section.objective]):
                for seed in seeds:
                    changes = {
                        "student.model": model, "student.objective": objective,
                        "student.epochs": epochs, "seed": seed,
                    }  # fmt: skip
                    recipe = source.changed(*(override(k, v) for k, v in changes.items()))
                    check_models(recipe, source.base)
                    facts = {
                        "objective": objective, "model": model, "fraction": fraction, "seed": seed,
                    }  # fmt: skip
                    cells.append(
                        Cell(
                            name=f"{model}, {objective}, {fraction:.0%}, seed {seed}",
                            facts=facts,
                            rows=subsets[seed][fraction],
                            validation=ground.validation,
                            recipe=recipe,
                        )
                    )
    notes = [] if name else ["Subsets are drawn at random: there are neither labels nor clusters"]
    if len(seeds) == 1:
        notes.append(
            "One seed: the intervals are over rows alone and leave out what another seed would change"
        )
    return cells, notes
