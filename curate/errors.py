"""Error analysis: where, on what and why a student is wrong, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.error_neighbours import (
    clusters_of,
    label_next,
    nearest_training_rows,
    word_vectors,
)
from curate.error_rows import (
    KINDS,
    doubtful_gold,
    judged_rows,
    list_confusions,
    slice_columns,
)
from curate.error_slices import Slice, worst_slices
from curate.exceptions import CurateError
from curate.filter_command import find_run
from curate.recipe import Recipe
from curate.recipe_filters import Texts
from curate.results import aligned
from curate.run_folder import RunFolder
from curate.stages import OnProgress, no_progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ErrorAnalysis", "analyse", "analyse_errors", "write_analysis"]

#: Errors whose nearest training rows are looked up, the surest errors first.
_LOOKED_UP = 200


@dataclass(frozen=True, kw_only=True)
class ErrorAnalysis:
    """What is known of a student's errors on the test rows.

    Attributes:
        system: Whose errors.
        rows: The judged test rows; see :func:`curate.error_rows.judged_rows`.
        kinds: How many rows both, one or none of student and teacher got right.
        slices: Slices of at least ten rows, most excess errors first.
        confusions: Gold against answer, with examples.
        doubtful_gold: Rows where student and teacher agree against gold.
        nearest: By an error's id, the training rows most like it.
        next: Clusters that deserve more labels; empty without embeddings.
        notes: What could not be looked at, and why.
    """

    system: str
    rows: pd.DataFrame
    kinds: dict[str, int]
    slices: list[Slice]
    confusions: list[dict[str, Any]]
    doubtful_gold: list[dict[str, Any]]
    nearest: dict[str, list[dict[str, Any]]]
    next: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """All but the rows themselves, as plain JSON values."""
        return {
            "system": self.system,
            "rows": len(self.rows),
            "errors": int((~self.rows["right"]).sum()),
            "kinds": self.kinds,
            "slices": [each.facts() for each in self.slices],
            "confusions": self.confusions,
            "doubtful_gold": self.doubtful_gold,
            "surest": self._surest(),
            "nearest": self.nearest,
            "next": self.next,
            "notes": self.notes,
        }

    def _surest(self) -> list[dict[str, Any]]:
        """The errors whose nearest training rows are known."""
        chosen = self.rows.set_index("id", drop=False).loc[[*self.nearest]]
        columns = ["id", "input", "gold", "prediction", "confidence"]
        found: list[dict[str, Any]] = chosen[columns].to_dict("records")  # type: ignore[assignment]
        return found

    def __str__(self) -> str:
        """The analysis in plain text."""
        return "\n\n".join(block for block in _blocks(self) if block)


def analyse_errors(
    run: Path,
    *,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    store: Path | None = None,
    system: str = "student",
    by: Sequence[str] = (),
    on_progress: OnProgress = no_progress,
) -> ErrorAnalysis:
    """Look into a student's errors on the test rows of a complete run.

    Clusters and nearest training rows come from the recipe's embedder (cached in the store); where it
    cannot be had, the nearest rows are found by words and there are no clusters, which a note says.

    Args:
        run: A recipe that has been run, or the folder of a complete run.
        overrides: As for :func:`curate.run`.
        output: The recipe's run folder, if not ``runs/<name>``.
        store: Folder of cached embeddings; by default ``.curate`` beside the recipe.
        system: ``student``, ``student-gold``, or a baseline's name.
        by: Columns to slice by, whatever their number of values up to fifty.
        on_progress: Receives the events of ``embed``.

    Raises:
        CurateError: If the run is not complete, or a name is not known.
    """
    folder, recipe, base = find_run(run, overrides, output)
    cache = (store if store is not None else base / ".curate") / "embeddings"
    encode = None if recipe.embedder is None else Texts(recipe.embedder, base, cache, on_progress)
    return analyse(folder, recipe, encode, system=system, by=by)


def analyse(
    folder: RunFolder,
    recipe: Recipe,
    encode: Texts | None,
    *,
    system: str = "student",
    by: Sequence[str] = (),
    whole: bool = False,
) -> ErrorAnalysis:
    """The same for a run folder and its recipe at hand; ``encode`` makes the embeddings, if there are any."""
    rows = judged_rows(folder, recipe, system, whole=whole)
    if not len(rows):
        raise CurateError(
            f"{folder.path} has no test row with a gold label, so no error can be told"
        )
    slice_columns(rows, by)  # a wrong name is found before anything is encoded
    curated = folder.read_table("curated.parquet")
    training = curated[curated["split"] == "train"].reset_index(drop=True)
    vectors, theirs, notes = _vectors(rows, training, encode)
    clustered = not notes and "cluster" in training.columns and len(training) > 0
    if clustered:
        rows["cluster"] = clusters_of(vectors, training, theirs)
    wrong = rows[~rows["right"]].sort_values("confidence", ascending=False, kind="stable")
    wrong = wrong.head(_LOOKED_UP)
    nearest = {}
    if len(training) and len(wrong):
        nearest = nearest_training_rows(wrong, training, vectors[wrong.index.to_numpy()], theirs)
    counts = rows["kind"].value_counts()
    return ErrorAnalysis(
        system=system,
        rows=rows,
        kinds={kind: int(counts.get(kind, 0)) for kind in KINDS.values()},
        slices=worst_slices(rows, slice_columns(rows, by)),
        confusions=list_confusions(rows),
        doubtful_gold=doubtful_gold(rows),
        nearest=nearest,
        next=label_next(rows, training) if clustered else [],
        notes=notes,
    )


def _vectors(
    rows: pd.DataFrame, training: pd.DataFrame, encode: Texts | None
) -> tuple[Any, Any, list[str]]:
    import filters
    from curate.assets import AssetError

    texts = rows["input"].tolist(), training["input"].tolist()
    reason = "the recipe has no embedder"
    if encode is not None:
        try:
            return encode(texts[0]), encode(texts[1]), []
        except (AssetError, filters.EmbeddingError) as error:
            reason = str(error)
    said = f"There are no clusters, and the nearest training rows are by words: {reason}."
    return *word_vectors(*texts), [said]


def write_analysis(found: ErrorAnalysis, folder: Path) -> list[Path]:
    """Write ``errors.json`` and ``errors.parquet`` (the judged rows) into a folder and return their paths."""
    run = RunFolder(folder)
    text = json.dumps(found.facts(), indent=1, ensure_ascii=False, default=_plain)
    return [run.write_text("errors.json", text), run.write_table("errors.parquet", found.rows)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


# ------------------------------------------------------------------------------------------ as text


def _blocks(found: ErrorAnalysis) -> list[str]:
    rows, errors = len(found.rows), int((~found.rows["right"]).sum())
    head = f"{found.system}: {errors} of {rows} test rows are wrong ({errors / rows:.1%})"
    kinds = aligned(
        [
            ("who", "rows", "share"),
            *((k, f"{n:,}", f"{n / rows:.1%}") for k, n in found.kinds.items()),
        ]
    )
    blocks = [f"{head}\n\n{kinds}"]
    worse = [each for each in found.slices if each.excess > 0][:10]
    if worse:
        lines = [
            ("slice", "rows", "wrong", "95 % interval", "elsewhere", "teacher wrong", "p (Holm)")
        ]
        lines += [
            (
                f"{each.by} = {_short(each.value, 30)}", f"{each.rows:,}", f"{each.error_rate:.1%}",
                f"{each.low:.1%} to {each.high:.1%}", f"{each.elsewhere:.1%}",
                f"{each.teacher_error_rate:.1%}", f"{each.p_holm:.3f}",
            )
            for each in worse
        ]  # fmt: skip
        sure = sum(each.p_holm < 0.05 for each in worse)
        said = f"{sure} of them beyond chance" if sure else "none of them beyond chance"
        blocks.append(f"Worst slices, {said}:\n{aligned(lines)}")
    if found.confusions:
        pairs = [("gold", "answer", "rows", "the surest")]
        for each in found.confusions[:8]:
            text = _short(each["examples"][0]["input"], 70)
            pairs.append(
                (_short(each["gold"], 24), _short(each["answer"], 24), f"{each['rows']}", text)
            )
        blocks.append(f"Confusions:\n{aligned(pairs)}")
    if found.doubtful_gold:
        doubts = [("id", "gold", "both say", "input")]
        doubts += [
            (_short(each["id"], 20), _short(each["gold"], 20), _short(each["prediction"], 20),
             _short(each["input"], 70))
            for each in found.doubtful_gold[:8]
        ]  # fmt: skip
        blocks.append(
            f"Gold may be wrong, student and teacher agree against it:\n{aligned(doubts)}"
        )
    blocks += [_nearest(found), _next(found), *found.notes]
    return blocks


def _nearest(found: ErrorAnalysis) -> str:
    by_id = found.rows.set_index("id")
    lines = ["The surest errors, and what was learned nearest to them:"]
    for identifier, near in [*found.nearest.items()][:5]:
        row = by_id.loc[identifier]
        lines.append(f"  {_short(row['input'], 90)}")
        lines.append(
            f"    gold {row['gold']}, answered {row['prediction']} ({row['confidence']:.2f})"
        )
        lines += [
            f"    {each['similarity']:.2f} {each['label']}{'' if each['kept'] else ' (dropped)'}: "
            f"{_short(each['input'], 80)}"
            for each in near
        ]
    return "\n".join(lines) if found.nearest else ""


def _next(found: ErrorAnalysis) -> str:
    if not found.next:
        return ""
    lines = [("cluster", "test rows", "wrong", "kept training rows", "share of a label budget")]
    lines += [
        (str(each["cluster"]), f"{each['rows']}", f"{each['errors']}", f"{each['kept']}",
         f"{each['share']:.1%}")
        for each in found.next
    ]  # fmt: skip
    return f"What to label next (`curate next` picks the rows):\n{aligned(lines)}"


def _short(text: Any, width: int) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"
