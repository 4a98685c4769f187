"""The rows that all variants answer, and what each variant's teacher says of them."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
import labelers
from curate.exceptions import CurateError
from curate.gold import nearest_gold
from curate.labeling import label_rows
from curate.recipe import Recipe
from curate.recipe_teachers import AskedSection, CascadeSection, EnsembleSection
from curate.recipe_trials import LEAST_ROWS
from curate.splits import _share, normalised
from curate.stages import OnProgress
from curate.teacher_scores import Judged, judge
from curate.teacher_variants import Variant, fit_rows

if TYPE_CHECKING:
    import pandas as pd

#: What keeps one variant from being judged, and not the others.
_FAILURES = (
    CurateError, filters.EmbeddingError, labelers.CalibrationError, labelers.PrivacyError,
    labelers.RowsError, labelers.TaskError, labelers.TeacherError, labelers.VoteError,
)  # fmt: skip
_FOLDS = 5
#: Train rows that demonstrations may be written for, for each that is wanted.
_POOL = 4


def draw_rows(
    examples: pd.DataFrame, most: int, shown: set[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Train rows with gold to judge on, the other train rows with gold, and notes.

    They are drawn by hash of the id, as ``data.limit`` draws: more rows keep the fewer, and whatever the
    limit, labeling has the same ones.

    Args:
        examples: All rows; those that are not train rows are left alone.
        most: How many at most.
        shown: Inputs of demonstrations; rows with them are not judged on, for the answer is in the prompt.

    Raises:
        CurateError: If there is no gold, or less than 20 rows have it.
    """
    known = examples[(examples["split"] == "train") & examples["gold"].notna()]
    if known.empty:
        raise CurateError(
            "no train row has gold, and test rows are not used to choose a teacher by: label 50 to 200 train "
            "rows by hand and name their column in data.gold"
        )
    is_shown = known["input"].map(normalised).isin(shown)
    usable = known[~is_shown]
    if len(usable) < LEAST_ROWS:
        raise CurateError(
            f"{len(usable)} train rows have gold and are no demonstrations: at least {LEAST_ROWS} are needed "
            "to tell one variant from another, and 100 tell more; label more by hand"
        )
    order = sorted(usable.index, key=lambda i: _share(str(usable["id"][i]), 1))
    # In the order of the data, in which labeling has them.
    chosen = usable.loc[sorted(order[:most])]
    notes = []
    if len(chosen) < most:
        notes.append(f"{len(chosen)} train rows have gold; {most} were asked for")
    if is_shown.any():
        notes.append(
            f"{int(is_shown.sum())} train rows were left out, because a demonstration shows their answer"
        )
    return chosen.reset_index(drop=True), usable.loc[order[most:]].reset_index(drop=True), notes


class Trial:
    """The rows that all variants answer, and what each made of them."""

    def __init__(
        self,
        *,
        base: Recipe,
        rows: pd.DataFrame,
        others: pd.DataFrame,
        folder: Path,
        store: Path,
        tell: OnProgress,
    ) -> None:
        self.base = base
        self.rows = rows
        self.others = others
        self.folder = folder
        self.store = store
        self.tell = tell
        self.judged: dict[str, Judged] = {}
        self.labelled: dict[str, pd.DataFrame] = {}
        self.problems: dict[str, str] = {}

    def run(self, variant: Variant) -> None:
        """Label the rows as a variant has it and judge them; what hinders it is noted."""
        stage = f"variant {variant.name}"
        self.tell(stage, {"state": "begun"})
        started = time.perf_counter()
        notes: list[str] = []
        try:
            if variant.recipe is None:
                raise CurateError(variant.problem)
            frame, info = self._label(variant.recipe)
            seconds = time.perf_counter() - started
            if unasked := info["errors"].get("budget"):
                raise CurateError(
                    f"the budget is spent, and {unasked} of {len(frame)} rows were not asked: raise "
                    "teacher.budget and run the same command again; nothing is paid twice"
                )
            self.judged[variant.name] = judge(variant.name, frame, variant.recipe, info, seconds)
            self.labelled[variant.name] = frame
            notes = info["notes"]
        except _FAILURES as error:
            self.problems[variant.name] = str(error)
            notes = [f"not judged: {error}"]
        seconds = round(time.perf_counter() - started, 2)
        self.tell(stage, {"state": "finished", "seconds": seconds, "notes": notes})

    def _label(self, recipe: Recipe) -> tuple[pd.DataFrame, dict[str, Any]]:
        import pandas as pd

        rows = fit_rows(self.rows, recipe, self.base)
        fitted = fitted_calibration(recipe)
        if wanted := max((t.demonstrations.written for t in recipe.teacher.asked()), default=0):
            # They are written for train rows: those that are judged on must not be among them.
            if self.others.empty:
                raise CurateError(
                    "teacher.demonstrations.written needs train rows with gold beside those that are judged "
                    "on, and there are none: judge on fewer (--rows)"
                )
            pool = fit_rows(self.others.head(wanted * _POOL), recipe, self.base)
            rows = pd.concat([rows.assign(split="validation"), pool], ignore_index=True)
        labelled, info = label_rows(
            rows, for_labels(recipe), base=self.folder, store=self.store, on_progress=self.tell
        )
        labelled = labelled.head(len(self.rows))
        if fitted is not None:
            labelled = _out_of_fold(labelled, recipe, fitted)
        return labelled, info


def fitted_calibration(recipe: Recipe) -> Any:
    """The calibration that would be fitted on the gold that a variant is judged by, if any.

    Raises:
        CurateError: If it is inside of an ensemble or a cascade, where it cannot be kept apart.
    """
    methods = [t.calibration for t in recipe.teacher.asked()]
    fitted = next((m for m in methods if m in ("temperature", "isotonic")), None)
    if fitted and not isinstance(recipe.teacher, AskedSection):
        raise CurateError(
            f"calibration {fitted!r} within engine {recipe.teacher.engine!r} is fitted on the rows that it "
            "would be judged on: try its teachers each alone, or with calibration batch"
        )
    return fitted


def for_labels(recipe: Recipe) -> Recipe:
    """The recipe without what the labels do not need: rationales, and calibrations fitted on gold."""

    def bare(section: Any) -> Any:
        if isinstance(section, EnsembleSection):
            members = [
                member.model_copy(update={"teacher": bare(member.teacher)})
                for member in section.members
            ]
            return section.model_copy(update={"members": members})
        if isinstance(section, CascadeSection):
            return section.model_copy(
                update={"cheap": bare(section.cheap), "dear": bare(section.dear)}
            )
        if not isinstance(section, AskedSection):
            return section
        kept = section.calibration if section.calibration in ("batch", "contextual") else None
        return section.model_copy(update={"rationales": 0, "calibration": kept})

    return recipe.model_copy(update={"teacher": bare(recipe.teacher)})


def _out_of_fold(labelled: pd.DataFrame, recipe: Recipe, method: Any) -> pd.DataFrame:
    """Each row calibrated by a rule that was fitted without it and its group."""
    import pandas as pd

    own = [
        ("row", i) if g is None or g != g else ("group", g) for i, g in enumerate(labelled["group"])
    ]
    members = sorted(set(own), key=str)
    random.Random(recipe.seed).shuffle(members)
    fold_of = {member: number % _FOLDS for number, member in enumerate(members)}
    folds = [fold_of[member] for member in own]
    changed: dict[str, list[Any]] = {
        name: list(labelled[name]) for name in ("label", "label_probs", "confidence")
    }
    pairs = zip(labelled["gold"], labelled["label"], strict=True)
    golds = [nearest_gold(gold, said) for gold, said in pairs]
    for fold in sorted(set(folds)):
        calibrated, _ = labelers.calibrate(
            labelled, golds, method=method, labels=recipe.task.labels,
            fit_on=[each != fold for each in folds], seed=recipe.seed,
        )  # fmt: skip
        frame = calibrated.to_pandas()
        for name, values in changed.items():
            for i, each in enumerate(folds):
                if each == fold:
                    values[i] = frame[name][i]
    columns = {name: pd.Series(values, dtype=object) for name, values in changed.items()}
    return labelled.reset_index(drop=True).assign(**columns)
