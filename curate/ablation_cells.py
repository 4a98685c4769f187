"""The cells of an ablation: one student each, trained and kept whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.ablation_room import check_disk, count_parameters, folder_bytes
from curate.exceptions import CurateError
from curate.recipe import Recipe
from curate.references import check_students, files_mark, white_box_teacher
from curate.run_folder import RunFolder, fingerprint, table_hash
from curate.stages import OnProgress, no_progress, rationales_to_read, train_student

if TYPE_CHECKING:
    import pandas as pd

#: Raised by one when cells of an older kind must not be used.
_VERSION = 1
#: Columns that are hidden from a student that answers.
_UNSEEN = ("gold", "reference")
#: Columns that no training reads: with other evidence and the same rows a student is the same.
_UNREAD = ("cluster", "reason", "review", "related_id", "prompt_key", "reference")


def _answers(
    folder: Path, rows: pd.DataFrame, recipe: Recipe, on_progress: OnProgress
) -> list[str | None]:
    import student

    choices = None if rows["choices"].isna().any() else [list(c) for c in rows["choices"]]
    found = student.predict(
        folder,
        rows["input"].tolist(),
        choices=choices,
        rationales=rationales_to_read(rows, recipe),
        precision=recipe.student.precision,
        on_progress=lambda event: on_progress("predict", event),
    )
    return [p if isinstance(p, str) else None for p in found["prediction"]]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a cell's student is trained, and how it answers.

    Attributes:
        train: Called as :func:`curate.stages.train_student` is: rows, recipe, ``output`` (the student's
            folder), ``base``, ``on_progress``; returns what is to be known of it.
        predict: Called with the student's folder, rows (``input``, ``choices``), the recipe and
            ``on_progress``; returns an answer per row, None where there is none.
        name: Part of a cell's identity.
    """

    train: Callable[..., Mapping[str, Any]]
    predict: Callable[[Path, pd.DataFrame, Recipe, OnProgress], Sequence[str | None]]
    name: str = "student"


#: The real one: a T5, through the same calls as ``curate train`` and ``curate evaluate``.
STUDENT = Trainer(train=train_student, predict=_answers)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One student to be trained.

    Attributes:
        name: What messages call it.
        facts: Its columns in tables: what tells it from the others.
        rows: What it is trained on.
        validation: The rows that it answers.
        recipe: Its recipe; its seed is the training's.
    """

    name: str
    facts: Mapping[str, Any]
    rows: pd.DataFrame
    validation: pd.DataFrame
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where cells are trained, and how.

    Attributes:
        folder: The ablation's folder; cells lie in ``cells/`` there.
        base: The recipe's folder.
        trainer: How students are trained.
        jobs: How many at once.
        keep: Whether the students' weights are kept.
        tell: Receives events.
    """

    folder: Path
    base: Path
    trainer: Trainer = STUDENT
    jobs: int = 1
    keep: bool = True
    tell: OnProgress = no_progress
    _places: dict[int, Path] = field(default_factory=dict, init=False, repr=False)

    def place(self, cell: Cell) -> Path:
        """The cell's folder, named by all that its result depends on."""
        if id(cell) not in self._places:
            self._places[id(cell)] = self.folder / "cells" / self._mark(cell)
        return self._places[id(cell)]

    def _mark(self, cell: Cell) -> str:
        recipe = cell.recipe
        read = [
            c for c in cell.rows if not str(c).startswith(("score_", "map_")) and c not in _UNREAD
        ]
        return fingerprint(
            _VERSION,
            self.trainer.name,
            table_hash(cell.rows[read]),
            table_hash(cell.validation[["id", "input"]]),
            recipe.student.model_dump(mode="json"),
            files_mark(recipe.student.model, "student", self.base),
            files_mark(white_box_teacher(recipe), "student", self.base),
            recipe.seed,
            recipe.task.labels,
            recipe.task.template,
        )

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """What is known of a finished cell, else None."""
        place = self.place(cell)
        try:
            found: dict[str, Any] = json.loads((place / "cell.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CurateError(
                f"{place / 'cell.json'} cannot be read ({error}): delete the folder {place}, and the cell is "
                "trained again"
            ) from error
        return found


def done(bench: Bench, cell: Cell) -> bool:
    """Whether a cell need not be trained: its answers are there and, if wanted, its weights."""
    if bench.record(cell) is None:
        return False
    place = bench.place(cell)
    return not bench.keep or (place / "student").exists() or (place / "test.parquet").exists()


def run_cells(bench: Bench, cells: Sequence[Cell]) -> dict[str, str]:
    """Train every cell that is not done, and have it answer the validation rows.

    Each is worked on under a temporary name and renamed when it is whole. What stops this at any moment
    leaves the training's last checkpoint there, at most five minutes old, and the next call goes on from
    it. A cell that fails does not keep others from going on.

    Returns:
        What went wrong, by the name of the cell.

    Raises:
        CurateError: If a process dies, or the disk has no room.
        ValueError, RuntimeError: If all cells fail: what the first said.
    """
    (bench.folder / "cells").mkdir(parents=True, exist_ok=True)
    todo, total = [], len(cells)
    count = 0
    for cell in cells:
        if done(bench, cell):
            count += 1
            told = {"state": "finished", "reused": True, "seconds": 0.0}
            bench.tell(f"{count} of {total}: {cell.name}", told)
        else:
            todo.append(cell)
    begun = {_part(bench, cell) for cell in todo}
    for left in (bench.folder / "cells").glob("*.part*"):
        if left not in begun:
            shutil.rmtree(left, ignore_errors=True)
    if bench.trainer is STUDENT and todo:
        recipes = [cell.recipe for cell in todo]
        check_students(recipes, bench.base, lambda event: bench.tell("assets", event))
        models = [cell.recipe.student.model for cell in todo]
        check_disk(bench.folder, models, bench.base, at_once=None if bench.keep else bench.jobs)
    problems: dict[str, str] = {}
    errors: list[Exception] = []
    work = _one_by_one if bench.jobs == 1 or len(todo) < 2 else _side_by_side
    for cell, result in work(bench, todo, total):
        count += 1
        if isinstance(result, Exception):
            problems[cell.name] = str(result)
            errors.append(result)
        bench.tell(
            f"{count} of {total}: {cell.name}",
            {
                "state": "finished",
                "seconds": 0.0 if isinstance(result, Exception) else result,
                "warnings": [str(result)] if isinstance(result, Exception) else [],
            },
        )
    if errors and len(errors) == total:
        raise errors[0]
    return problems


Result = tuple[Cell, float | Exception]


def _one_by_one(bench: Bench, cells: Sequence[Cell], total: int) -> Iterator[Result]:
    for number, cell in enumerate(cells, total - len(cells) + 1):
        bench.tell(f"{number} of {total}: {cell.name}", {"state": "begun"})
        try:
            seconds = work_on(bench, cell)
        except (ValueError, RuntimeError) as error:
            if not _is_ours(error):
                raise
            yield cell, error
        else:
            yield cell, seconds


def _side_by_side(bench: Bench, cells: Sequence[Cell], total: int) -> Iterator[Result]:
    """Each cell in one of ``bench.jobs`` processes, which end with this one."""
    jobs = min(bench.jobs, len(cells))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    quiet = Bench(folder=bench.folder, base=bench.base, trainer=bench.trainer, keep=bench.keep)
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads,)
    )
    try:
        running: dict[Future[float], Cell] = {
            pool.submit(work_on, quiet, cell): cell for cell in cells
        }
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                cell = running.pop(future)
                try:
                    yield cell, future.result()
                except BrokenProcessPool as error:
                    raise CurateError(
                        f"a process that trained a student died, most likely for want of memory: run "
                        f"again with fewer than --jobs {jobs}; finished cells are kept"
                    ) from error
                except (ValueError, RuntimeError) as error:
                    if not _is_ours(error):
                        raise
                    yield cell, error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """Begin a process: a share of the cores, and an end when the one that began it ends."""
    from curate.chatter import quiet_libraries

    os.environ["OMP_NUM_THREADS"] = str(threads)
    quiet_libraries()
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("curate", "student", "filters", "labelers")


def _part(bench: Bench, cell: Cell) -> Path:
    """Where a cell is worked on until it is whole."""
    place = bench.place(cell)
    return place.with_name(f"{place.name}.part")


def work_on(bench: Bench, cell: Cell) -> float:
    """Train one cell, have it answer, and move it to its place; returns the seconds it took.

    A folder that an earlier call was stopped in is gone on with: the training finds its checkpoint there.
    """
    import pandas as pd

    place, part = bench.place(cell), _part(bench, cell)
    part.mkdir(parents=True, exist_ok=True)
    try:
        started = time.perf_counter()
        rows = cell.rows.drop(columns=[c for c in ("reference",) if c in cell.rows])
        info = dict(
            bench.trainer.train(
                rows, cell.recipe, output=part / "student", base=bench.base, on_progress=bench.tell
            )
        )
        trained = time.perf_counter() - started
        seen = cell.validation.drop(columns=[c for c in _UNSEEN if c in cell.validation])
        said = list(bench.trainer.predict(part / "student", seen, cell.recipe, bench.tell))
        seconds = time.perf_counter() - started
        run = RunFolder(part)
        run.write_table(
            "validation.parquet",
            pd.DataFrame(
                {"id": cell.validation["id"], "prediction": pd.Series(said, dtype=object)}
            ),
        )
        record = {
            "name": cell.name,
            "rows": len(cell.rows),
            "parameters": count_parameters(part / "student"),
            "bytes": folder_bytes(part / "student"),
            "train_seconds": round(trained, 2),
            "seconds": round(seconds, 2),
            "trained": info,
        }
        run.write_text("cell.json", json.dumps(record, indent=1, ensure_ascii=False, default=str))
        if not bench.keep:
            shutil.rmtree(part / "student", ignore_errors=True)
        if place.exists():  # it lacked the weights that are wanted now
            shutil.rmtree(place)
        part.rename(place)
    except (ValueError, RuntimeError):
        shutil.rmtree(part, ignore_errors=True)
        raise
    return round(seconds, 2)


def answer_test(bench: Bench, cells: Sequence[Cell], test: pd.DataFrame) -> int:
    """Have every finished cell answer the test rows that it has not answered; returns how many had to.

    Called once, after the last cell: until then no test row is read.
    """
    import pandas as pd

    seen = test.drop(columns=[c for c in _UNSEEN if c in test])
    asked = 0
    for number, cell in enumerate(cells, 1):
        place = bench.place(cell)
        if bench.record(cell) is None:
            continue
        path = place / "test.parquet"
        if path.exists() and set(RunFolder(place).read_table("test.parquet")["id"]) >= set(
            test["id"]
        ):
            continue
        bench.tell(f"test, {number} of {len(cells)}: {cell.name}", {"state": "begun"})
        started = time.perf_counter()
        if not (place / "student").exists():  # its weights went after another set of test rows
            work_on(bench, cell)
        said = list(bench.trainer.predict(place / "student", seen, cell.recipe, bench.tell))
        RunFolder(place).write_table(
            "test.parquet",
            pd.DataFrame({"id": test["id"], "prediction": pd.Series(said, dtype=object)}),
        )
        asked += 1
        bench.tell(
            f"test, {number} of {len(cells)}: {cell.name}",
            {"state": "finished", "seconds": time.perf_counter() - started},
        )
    return asked


def read_answers(bench: Bench, cell: Cell, split: str, ids: Sequence[str]) -> list[str | None]:
    """A finished cell's answers, in the order of the ids."""
    table = RunFolder(bench.place(cell)).read_table(f"{split}.parquet")
    said = dict(zip(table["id"], table["prediction"], strict=True))
    return [said[id_] if isinstance(said[id_], str) else None for id_ in ids]


def forget_students(bench: Bench, cells: Sequence[Cell]) -> None:
    """Remove the cells' weights; their answers stay."""
    for cell in cells:
        shutil.rmtree(bench.place(cell) / "student", ignore_errors=True)
