"""The stages of a run in their order, each done only if what it depends on has changed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import labelers
from curate.dependencies import answers_depend_on, filters_depend_on
from curate.evaluation import predict_test_rows, time_student, weigh_abstention
from curate.filter_checks import check_filters
from curate.generation import add_generated, add_pool, load_pool, share_kept
from curate.labeling import label_rows
from curate.model_scores import unsettled
from curate.recipe import Recipe
from curate.references import check_models, check_students, files_mark, white_box_teacher
from curate.row_writing import write_rows
from curate.run_folder import RunFolder, fingerprint, table_hash
from curate.sources import load_examples
from curate.stages import (
    OnProgress,
    check_student,
    clear_student,
    filter_rows,
    needs_gold_student,
    train_student,
)

#: Raised by one when a stage's code changes what it writes, so that old files are not reused.
_VERSION = 3
#: In order; each is a method of :class:`Pipeline`.
STAGES = ("examples", "generated", "labeled", "curated", "student", "predictions")


class Pipeline:
    """One call of a verb: recipe, folders and progress, and the stages in order.

    ``stages`` holds what each finished stage reports, by name.
    """

    def __init__(
        self,
        recipe: Recipe,
        base: Path,
        run: RunFolder,
        store: Path,
        tables: Mapping[str, Any],
        on_progress: OnProgress,
    ) -> None:
        self.recipe = recipe
        self.base = base
        self.run = run
        self.store = store
        self.tables = tables
        self.tell = on_progress
        self.stages: dict[str, dict[str, Any]] = {}
        self.trains = False

    def stage(
        self,
        name: str,
        output: str,
        depends: Any,
        work: Callable[[], Mapping[str, Any]],
        *,
        settled: Callable[[Mapping[str, Any]], bool] = lambda info: True,
    ) -> None:
        """Run a stage unless its output is there and nothing that it depends on has changed.

        A former result that is not ``settled`` is made again all the same.
        """
        mark = fingerprint(_VERSION, name, depends)
        info = self.run.done(name, mark, output)
        if info is not None and settled(info):
            self.stages[name] = info | {"reused": True}
        else:
            if self.trains and name != "predictions":
                # Before anything is paid for; a run that reuses all its stages need not wait for torch.
                check_students([self.recipe], self.base, lambda event: self.tell("assets", event))
                self.trains = False
            self.tell(name, {"state": "begun"})
            # What concluded a former run does not hold for files that are about to change.
            self.run.remove("run.json")
            self.run.remove("report.html")
            started = time.perf_counter()
            info = dict(work())
            info["seconds"] = round(time.perf_counter() - started, 2)
            self.run.record(name, mark, info)
            self.stages[name] = info | {"reused": False}
        self.tell(name, {"state": "finished", **self.stages[name]})

    def go(self, until: str) -> None:
        """Run the stages in order, ``until`` being the last."""
        check_models(self.recipe, self.base)
        self.trains = until in ("student", "predictions")
        for name in STAGES[: STAGES.index(until) + 1]:
            getattr(self, name)()

    def examples(self) -> None:
        """Read the data; refuse what a later stage could not do with it."""
        recipe = self.recipe
        # Reading is cheap and the data may have changed under the same name: it is always read.
        started = time.perf_counter()
        frame = load_examples(
            recipe.data,
            recipe.task.task(),
            folder=self.base,
            seed=recipe.seed,
            keep_columns=tuple(recipe.teacher.columns()),
            separator=recipe.task.separator,
            **self.tables,
        )
        notes = []
        if recipe.data.pool is not None:
            pool = load_pool(recipe.data.pool, recipe.data, recipe.task.task(), folder=self.base)
            frame, added = add_pool(frame, pool)
            notes.append(
                f"{added['added']} of {added['rows']} pool rows were added to the train rows; left out: "
                f"{added['in_train']} in train already, {added['in_test']} in test, {added['repeated']} twice"
            )
        check_filters(recipe, frame, self.base)
        check_student(recipe, frame)
        self.examples_hash = table_hash(frame)

        def work() -> Mapping[str, Any]:
            self.run.write_table("examples.parquet", frame)
            counts = {str(k): int(v) for k, v in frame["split"].value_counts().items()}
            read = round(time.perf_counter() - started, 2)
            return {"rows": counts, "read_seconds": read, "notes": notes}

        self.stage("examples", "examples.parquet", self.examples_hash, work)

    def generated(self) -> None:
        """Have the teacher write rows, where the recipe asks for some."""
        if self.recipe.generate is None:
            self.run.remove("generated.parquet")
            return
        depends = [
            self.examples_hash,
            self._task(),
            answers_depend_on(self.recipe.generate, self.base),
            answers_depend_on(self.recipe.teacher, self.base),
            self.recipe.seed,
        ]

        def work() -> Mapping[str, Any]:
            rows, info = write_rows(
                self.run.read_table("examples.parquet"),
                self.recipe,
                base=self.base,
                store=self.store,
                on_progress=self.tell,
            )
            self.run.write_table("generated.parquet", rows)
            return info

        # Requests that failed, or that no budget was left for, may be answered now.
        self.stage(
            "generated", "generated.parquet", depends, work,
            settled=lambda info: not info["rejected"].get("error"),
        )  # fmt: skip
        self.examples_hash = fingerprint(
            self.examples_hash, table_hash(self.run.read_table("generated.parquet"))
        )

    def _task(self) -> dict[str, Any]:
        return self.recipe.task.model_dump(mode="json", exclude={"metrics", "goal", "separator"})

    def labeled(self) -> None:
        """Ask the teacher about every row, written ones too."""

        def work() -> Mapping[str, Any]:
            examples = self.run.read_table("examples.parquet")
            if self.recipe.generate is not None:
                examples = add_generated(examples, self.run.read_table("generated.parquet"))
            frame, info = label_rows(
                examples,
                self.recipe,
                base=self.base,
                store=self.store,
                on_progress=self.tell,
            )
            if self.recipe.generate is not None:
                found = labelers.agreement(frame, frame)
                info["generated"] = dataclasses.asdict(found)
                info["notes"].append(
                    f"of {found.rows} rows that the teacher wrote for a label, {found.agreed} were then "
                    "given it"
                )
            self.run.write_table("labeled.parquet", frame)
            return info

        depends = [
            self.examples_hash,
            self._task(),
            answers_depend_on(self.recipe.teacher, self.base),
            *([self.recipe.privacy.model_dump(mode="json")] if self.recipe.privacy else []),
            *(
                [self.recipe.seed, self.recipe.embedder]
                if any(t.demonstrations.choose != "fixed" for t in self.recipe.teacher.asked())
                else []
            ),
        ]
        # Rows that a busy server failed on, or that no budget was left for, may be answered now, be it
        # by one of several teachers or with a rationale; all others are in the store.
        self.stage(
            "labeled", "labeled.parquet", depends, work,
            settled=lambda info: (
                not {"server", "budget"} & info["errors"].keys() and not info.get("unfinished")
            ),
        )  # fmt: skip

    def curated(self) -> None:
        """Run the filters over the labelled rows."""
        labeled = self.run.read_table("labeled.parquet")
        self.labeled_hash = table_hash(labeled)

        def work() -> Mapping[str, Any]:
            frame, decisions, info = filter_rows(
                labeled,
                self.recipe,
                base=self.base,
                cache=self.store / "embeddings",
                on_progress=self.tell,
            )
            if self.recipe.generate is not None:
                written = info["generated"] = share_kept(frame)
                info["warnings"].append(
                    f"Of {written['rows']} rows that the teacher wrote {written['kept']} are kept; they are "
                    f"{written['of_training_set']:.1%} of the training set."
                )
            self.run.write_table("decisions.parquet", decisions)
            self.run.write_table("curated.parquet", frame)
            return info

        depends = [self.labeled_hash, filters_depend_on(self.recipe, self.base)]
        # Rows that a busy judge failed on, or that no budget was left for, may be judged now.
        self.stage(
            "curated", "curated.parquet", depends, work, settled=lambda info: not unsettled(info)
        )

    def student(self) -> None:
        """Train the student, and one on gold labels where the recipe asks for it."""
        curated = self.run.read_table("curated.parquet")
        # Neither changes what is learnt.
        section = self.recipe.student.model_dump(
            mode="json", exclude={"checkpoint_every", "report_to"}
        )
        kept = curated[curated["keep"].astype(bool)]
        task = self.recipe.task
        models = (self.recipe.student.model, white_box_teacher(self.recipe))
        files = [files_mark(model, "student", self.base) for model in models]
        self.student_mark = fingerprint(
            table_hash(kept), section, files, self.recipe.seed, task.labels, task.template
        )

        def work() -> Mapping[str, Any]:
            how: dict[str, Any] = {"base": self.base, "on_progress": self.tell}
            # Of two students the first may be there already, where the second's training was killed.
            first = self.run.done("first student", self.student_mark, "student")
            clear_student(self.run, keep=() if first is None else ("student",))
            if first is None:
                self.run.record("first student", "none", {})
                first = train_student(curated, self.recipe, output=self.run.path / "student", **how)
                self.run.record("first student", self.student_mark, first)
            info = dict(first)
            if needs_gold_student(self.recipe, curated):
                output = self.run.path / "student-gold"
                info["gold"] = train_student(
                    curated, self.recipe, output=output, target="gold", **how
                )
                info["notes"] = [*first["notes"], *info["gold"]["notes"]]
            return info

        self.stage("student", "student", self.student_mark, work)

    def predictions(self) -> None:
        """Have every system answer the test rows."""
        labeled = self.run.read_table("labeled.parquet")
        curated = self.run.read_table("curated.parquet")
        students = {
            name: self.run.path / name
            for name in ("student", "student-gold")
            if (self.run.path / name).exists()
        }

        def work() -> Mapping[str, Any]:
            frame, notes = predict_test_rows(
                labeled, curated, self.recipe, students=students, on_progress=self.tell
            )
            self.run.write_table("predictions.parquet", frame)
            by_people = bool(labeled.loc[labeled["split"] == "test", "gold"].notna().any())
            return {
                "rows": int(frame["id"].nunique()),
                "reference": "gold" if by_people else "teacher",
                "speed": time_student(labeled, self.run.path / "student", self.recipe),
                "abstention": weigh_abstention(labeled, self.run.path / "student", self.recipe),
                "notes": notes,
            }

        depends = [self.student_mark, self.labeled_hash, table_hash(curated)]
        if "perplexity" in self.recipe.task.metrics:
            depends.append("perplexity")
        self.stage("predictions", "predictions.parquet", depends, work)
