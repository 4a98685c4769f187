"""The test rows of a run, with who was right on which, and what each row can be sliced by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.gold import shown_gold
from curate.recipe import Recipe
from curate.run_folder import RunFolder
from curate.teacher_scores import are_right

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "KINDS",
    "SLICED_VALUES",
    "doubtful_gold",
    "judged_rows",
    "list_confusions",
    "slice_columns",
]

#: Who is wrong on a row: the key is (student right, teacher right).
KINDS = {
    (True, True): "both right",
    (False, True): "only the student wrong",
    (True, False): "only the teacher wrong",
    (False, False): "both wrong",
}
#: A column with more distinct values than this is no set of slices; a number's becomes quarters.
SLICED_VALUES = 50
_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


def judged_rows(
    run: RunFolder, recipe: Recipe, system: str = "student", *, whole: bool = False
) -> pd.DataFrame:
    """The run's test rows that have a gold label, one line each, in their order.

    Columns: ``id``, ``input``, ``choices``, ``gold`` (one text: several references with a stroke between
    them), ``group``, ``prediction`` and ``confidence`` (the system's), ``teacher`` and
    ``teacher_confidence``, ``right``, ``teacher_right``, ``kind`` (see `KINDS`), ``characters``, and the
    data's own columns. ``whole`` says that the folder is known to be of one piece, though its run.json is
    still to be written.

    Raises:
        CurateError: If the run has no predictions of that system.
    """
    if not whole and not (run.path / "run.json").exists():
        raise CurateError(
            f"{run.path} has no run.json: its rows have changed since the student answered, or it never did; "
            "run `curate evaluate` or `curate run` on the recipe"
        )
    answers = run.read_table("predictions.parquet")
    systems = list(dict.fromkeys(answers["system"]))
    if system not in systems or system == "teacher":
        others = ", ".join(name for name in systems if name != "teacher")
        raise CurateError(
            f"--system {system!r} has no predictions in {run.path}; there are: {others}"
        )
    rows = answers[answers["system"] == system].drop(columns=["system", "label_probs", "error"])
    rows = rows.reset_index(drop=True)
    said = answers[answers["system"] == "teacher"].set_index("id")
    rows["teacher"] = said["prediction"].reindex(rows["id"]).to_numpy()
    rows["teacher_confidence"] = said["confidence"].reindex(rows["id"]).to_numpy()
    gold = rows["gold"].tolist()
    rows["right"] = are_right(_texts(rows["prediction"].tolist()), gold, recipe)
    rows["teacher_right"] = are_right(_texts(rows["teacher"].tolist()), gold, recipe)
    rows["gold"] = [shown_gold(each) for each in gold]
    pairs = zip(rows["right"].tolist(), rows["teacher_right"].tolist(), strict=True)
    rows["kind"] = [KINDS[pair] for pair in pairs]
    rows["characters"] = rows["input"].str.len()
    own = run.read_table("examples.parquet").set_index("id")
    recorded = set(recipe.teacher.columns())  # outputs that were recorded say nothing of the row
    for name in own.columns:
        if name not in rows.columns and name != "split" and name not in recorded:
            rows[name] = own[name].reindex(rows["id"]).to_numpy()
    return rows


def _texts(values: Sequence[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in values]


def slice_columns(rows: pd.DataFrame, by: Sequence[str] = ()) -> dict[str, pd.Series]:
    """What rows are sliced by: name -> each row's value as text, null where it has none.

    Always the gold label (where it repeats), the answer, the length in quarters and the cluster if there
    is one; then every column of the data with 2 to 50 distinct values that repeat, and numbers with more in
    quarters.

    Args:
        rows: From :func:`judged_rows`, with ``cluster`` where there are embeddings.
        by: Columns that must be among them.

    Raises:
        CurateError: For a column that is not there, or whose values do not repeat.
    """
    fixed = {"gold": "gold", "prediction": "answer", "cluster": "cluster", "characters": "length"}
    skipped = {"id", "input", "choices", "group", "kind", "right", "teacher_right", "teacher"}
    skipped |= {"confidence", "teacher_confidence", "text"} - {*by}
    found: dict[str, pd.Series] = {}
    for name in [*fixed, *(n for n in rows.columns if n not in fixed and n not in skipped)]:
        if name in rows.columns:
            values = _values(rows[name])
            if values is not None:
                found[fixed.get(name, name)] = values
    for name in by:
        if name not in rows.columns:
            raise CurateError(
                f"--by {name!r} is no column of the test rows; there are: {', '.join(rows.columns)}"
            )
        if fixed.get(name, name) not in found:
            raise CurateError(
                f"--by {name!r} has {rows[name].nunique()} distinct values in {len(rows)} rows: a slice "
                f"needs values that repeat, at most {SLICED_VALUES} of them"
            )
    return found


def _values(column: pd.Series) -> pd.Series | None:
    import pandas as pd

    try:
        distinct = column.nunique()
    except TypeError:  # lists and other values that cannot be compared
        return None
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numbers and column.name != "cluster" and distinct > 12:
        ranks = column.rank(method="average", pct=True)
        quarters = (ranks * 4).sub(1e-9).floordiv(1)
        return quarters.map(lambda q: None if q != q else _QUARTERS[int(q)])
    if not 2 <= distinct <= SLICED_VALUES or distinct > len(column) / 2:
        return None
    return column.map(lambda v: None if v is None or v != v else str(v))


def list_confusions(rows: pd.DataFrame, examples: int = 3) -> list[dict[str, Any]]:
    """Pairs of gold and answer that differ, the most frequent first, with some of their rows.

    Where gold labels hardly repeat (per-row choices, free text) there is nothing to count, and the list is
    empty.
    """
    wrong = rows[~rows["right"]]
    if rows["gold"].nunique() > max(SLICED_VALUES, len(rows) / 4):
        return []
    found = []
    pairs = wrong.assign(prediction=wrong["prediction"].fillna("(none)"))
    for (gold, answer), part in pairs.groupby(["gold", "prediction"], sort=True):
        # The surest errors say most about what the student has learned wrongly.
        surest = part.sort_values("confidence", ascending=False, kind="stable").head(examples)
        shown = surest[["id", "input", "confidence"]].to_dict("records")
        found.append({"gold": gold, "answer": answer, "rows": len(part), "examples": shown})
    return sorted(found, key=lambda each: -each["rows"])


def doubtful_gold(rows: pd.DataFrame, most: int = 20) -> list[dict[str, Any]]:
    """Rows where student and teacher agree against gold, the surest first: gold may be wrong there.

    The order is by the lower of the two confidences' ranks, so that neither's scale matters.
    """
    both = rows[~rows["right"] & ~rows["teacher_right"] & (rows["prediction"] == rows["teacher"])]
    if not len(both):
        return []
    ranks = rows[["confidence", "teacher_confidence"]].rank(pct=True).fillna(0.5)
    order = ranks.loc[both.index].min(axis=1).sort_values(ascending=False, kind="stable")
    columns = ["id", "input", "gold", "prediction", "confidence", "teacher_confidence"]
    shown: list[Mapping[str, Any]] = both.loc[order.index, columns].head(most).to_dict("records")  # type: ignore[assignment]
    return [dict(each) for each in shown]
