"""Probabilities of each row's labels from students that were trained on other rows.

A model that saw a row's label repeats it. So the rows are dealt into folds, and the rows of each fold are
judged by a student that was trained on the others: what it thinks of a label is evidence about it.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.kept_tables import kept_table
from curate.recipe_scores import OutOfFoldSection
from curate.references import files_mark
from curate.run_folder import fingerprint, table_hash
from curate.splits import with_twins

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

#: Raised by one when the code changes what it computes, so that old files are not taken.
_VERSION = 2

OnProgress = Callable[[str, Mapping[str, Any]], None]
Train = Callable[..., Mapping[str, Any]]


def student_probabilities(
    rows: pd.DataFrame,
    recipe: Recipe,
    section: OutOfFoldSection,
    *,
    base: Path,
    store: Path,
    train: Train,
    on_progress: OnProgress,
) -> tuple[list[list[float] | None], dict[str, Any]]:
    """Train a student for each fold on the others, and have it judge the fold.

    The students are those of the recipe, but learn labels alone and for fewer epochs. Rows of one group,
    or with one text, share a fold. Each fold is kept in the store under what it depends on, so that a
    run cut short goes on with the next one, and other filters train nothing anew.

    Args:
        rows: Training rows with labels; those without are passed over.
        recipe: The recipe.
        section: Folds and epochs.
        base: The recipe's folder.
        store: Folder of the store.
        train: :func:`curate.stages.train_student`.
        on_progress: Receives the students' events.

    Returns:
        A list per row, aligned with its choices, or None; and what the run report says.
    """
    known = rows[_usable(rows)].sort_values("id").reset_index(drop=True)
    folds = deal(known, section.folds, recipe.seed)
    changed = _student(recipe, section)
    made = _Folds(known, changed, base, store / "scores", train, on_progress)
    found: dict[str, list[float]] = {}
    count = max(folds, default=-1) + 1
    for fold in range(count if count > 1 else 0):
        held = [each == fold for each in folds]
        found |= made.judge(held)
        on_progress("out of fold", {"done": len(found), "total": len(known)})
    agreed = [
        max(found[row], default=0.0) == found[row][list(choices).index(label)]
        for row, choices, label in zip(known["id"], known["choices"], known["label"], strict=True)
        if row in found
    ]
    return [found.get(row) for row in rows["id"]], {
        "folds": count,
        "epochs": changed.student.epochs,
        "rows": len(found),
        "agree": round(sum(agreed) / len(agreed), 4) if agreed else None,
    }


def deal(rows: pd.DataFrame, folds: int, seed: int) -> list[int]:
    """The fold of each row: rows of one group, and near-twins, share it. Fewer where there are fewer."""
    import pandas as pd

    own = pd.Series([f"row {place}" for place in range(len(rows))], index=rows.index)
    keys = with_twins(rows, rows["group"].where(rows["group"].notna(), own)).tolist()
    distinct = sorted(set(keys))
    random.Random(f"{seed} out of fold").shuffle(distinct)
    place = {key: number % folds for number, key in enumerate(distinct)}
    return [place[key] for key in keys]


def _usable(rows: pd.DataFrame) -> list[bool]:
    errors = rows["error"] if "error" in rows.columns else [None] * len(rows)
    return [
        isinstance(label, str) and choices is not None and label in list(choices) and error is None
        for label, choices, error in zip(
            rows["label"], rows["choices"], _plain(errors), strict=True
        )
    ]


def _plain(values: Any) -> list[Any]:
    return [None if value is None or value != value else value for value in values]


def _student(recipe: Recipe, section: OutOfFoldSection) -> Recipe:
    """The recipe with a student that learns labels alone, for fewer epochs, and from every row.

    The folds' rows hold neither confidences nor rows to validate on, and the student is thrown away
    afterwards: it leaves no checkpoint and is tracked nowhere.
    """
    changes = {
        "epochs": section.epochs or max(1, recipe.student.epochs // 2),
        "objective": "label",
        "target": "label",
        "with_gold": False,
        "curriculum": None,
        "validation_fraction": 0.0,
        "early_stopping": None,
        "checkpoint_every": 0,
        "report_to": [],
    }
    return recipe.model_copy(update={"student": recipe.student.model_copy(update=changes)})


@dataclass(frozen=True)
class _Folds:
    """Rows to train on and to judge, and where what was computed is kept."""

    rows: pd.DataFrame
    recipe: Recipe
    base: Path
    cache: Path
    train: Train
    on_progress: OnProgress

    def judge(self, held: list[bool]) -> dict[str, list[float]]:
        """Probabilities of the rows held out, by id, from a student trained on the others."""
        import pandas as pd

        chosen = pd.Series(held, dtype=bool).to_numpy()
        others, own = self.rows[~chosen], self.rows[chosen]
        learnt = others[["id", "input", "choices", "label", "split", "group"]].assign(
            rationale=None, gold=None, keep=True
        )
        asked = own[["id", "input", "choices"]].reset_index(drop=True)
        name = f"student-{self._mark(learnt, asked)}.parquet"
        table = kept_table(
            self.cache,
            name,
            lambda: asked[["id"]].assign(probs=pd.Series(self._ask(learnt, asked), dtype=object)),
        )
        return {
            row: [float(p) for p in probs]
            for row, probs in zip(table["id"], table["probs"], strict=True)
        }

    def _mark(self, learnt: pd.DataFrame, asked: pd.DataFrame) -> str:
        """Hash of everything that the probabilities depend on."""
        section, task = self.recipe.student, self.recipe.task
        return fingerprint(
            _VERSION,
            table_hash(learnt),
            table_hash(asked),
            section.model_dump(mode="json"),
            files_mark(section.model, "student", self.base),
            self.recipe.seed,
            task.labels,
            task.template,
        )

    def _ask(self, learnt: pd.DataFrame, asked: pd.DataFrame) -> list[list[float]]:
        import student

        with tempfile.TemporaryDirectory(prefix=f"curate-{os.getpid()}-") as folder:
            output = Path(folder) / "student"
            self.train(
                learnt, self.recipe, output=output, base=self.base, on_progress=self.on_progress
            )
            said = student.predict(
                output,
                asked["input"].tolist(),
                choices=[list(each) for each in asked["choices"]],
                precision=self.recipe.student.precision,
                on_progress=lambda event: self.on_progress("predict", event),
            )
        return [list(each) for each in said["label_probs"]]
