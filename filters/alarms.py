"""What a person should look at before training on the rows that are left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from filters.results import Result

_GIANT_ROWS = 10
_GIANT_SHARE = 0.05
_NAMED = 5  # values that are wiped out and named one by one; the others are counted
_READ = ("input", "label", "confidence", "rationale")


def find_alarms(frame: pd.DataFrame, decisions: pd.DataFrame, reasons: Sequence[str]) -> list[str]:
    """Return one sentence per alarm: wiped-out labels and sources, giant groups, conflicts."""
    labelled = frame["reason"].isna() | (frame["reason"] != "unlabelled")
    alarms = []
    if len(frame) and not frame["keep"].any():
        alarms.append(f"no row is left of {len(frame)}; see the reasons of the drops")
    for name in ("label", "source"):
        if name in frame.columns:
            alarms += _wiped_out(frame.loc[labelled, name], frame.loc[labelled, "keep"])
    alarms += _giant_groups(decisions, int(labelled.sum()))
    if conflicts := count_conflicts(decisions):
        alarms.append(
            f"{conflicts} {'pair' if conflicts == 1 else 'pairs'} of like texts with different "
            "labels stayed; read them (verdict 'conflict'): a genuine contrast is worth having, "
            "otherwise one of the two labels is wrong"
        )
    if "rebalance" in reasons[:-1]:
        after = ", ".join(reasons[list(reasons).index("rebalance") + 1 :])
        alarms.append(
            f"rebalance comes before {after}, which may tip the balance again; put it last"
        )
    return alarms


def count_conflicts(decisions: pd.DataFrame) -> int:
    """Return how many different pairs of rows are in conflict."""
    pairs = decisions.loc[decisions["verdict"] == "conflict", ["id", "related_id"]]
    return len({frozenset(pair) for pair in pairs.itertuples(index=False, name=None)})


def conflicts(result: Result) -> pd.DataFrame:
    """List the pairs of like texts with different labels side by side, for a person to read.

    Written to a file and filled in, the table is a review: `filters.read_review` takes the lines
    that have a `verdict` ("accept", "drop" or "relabel", with the right `label`), and each pair can
    be judged from either side, since it stands there twice.

    Returns:
        Two lines per pair, one after the other, the most alike pairs first: `pair` (a number from
        1), `id`, `input`, `label`, `confidence`, `rationale` (as far as they are there),
        `related_id`, `score`, `filter`, and `verdict`, empty.
    """
    lines = result.decisions[result.decisions["verdict"] == "conflict"]
    lines = lines.sort_values(["score", "id", "related_id"], ascending=[False, True, True])
    seen = [frozenset(pair) for pair in zip(lines["id"], lines["related_id"], strict=True)]
    lines = lines[~pd.Series(seen, index=lines.index, dtype=object).duplicated()]
    named = [name for name in _READ if name in result.frame.columns]
    rows = result.frame.set_index("id")[named]
    sides = []
    for mine, other in (("id", "related_id"), ("related_id", "id")):
        side = rows.loc[lines[mine]].reset_index(names="id")
        side.insert(0, "pair", np.arange(1, len(lines) + 1))
        side["related_id"] = lines[other].to_numpy()
        side[["score", "filter"]] = lines[["score", "filter"]].to_numpy()
        side["verdict"] = ""
        sides.append(side)
    table = pd.concat(sides).sort_values("pair", kind="stable", ignore_index=True)
    return table.astype({"score": float})


def _wiped_out(values: pd.Series, keep: pd.Series) -> list[str]:
    """Name the values of which no row is left, those with most rows first, and count the rest.

    Where choices differ from row to row, most labels are those of a row or two: thousands of
    sentences about them would hide the others.
    """
    before, name = values.value_counts(), values.name
    left = set(values[keep].dropna().unique())
    gone = [(value, int(count)) for value, count in before.items() if value not in left]
    gone.sort(key=lambda item: (-item[1], str(item[0])))
    alarms = [
        f"{name} {value!r} is wiped out: all {count} of its rows were dropped; loosen the filters "
        "or gather more such rows"
        for value, count in gone[:_NAMED]
    ]
    if others := gone[_NAMED:]:
        rows = sum(count for _, count in others)
        alarms.append(
            f"{len(others)} more of the {len(before)} values of {name} are wiped out, which had "
            f"{rows} {'row' if rows == 1 else 'rows'}; the column `reason` says by what"
        )
    return alarms


def _giant_groups(decisions: pd.DataFrame, rows: int) -> list[str]:
    drops = decisions[(decisions["verdict"] == "drop") & decisions["related_id"].notna()]
    once = drops.drop_duplicates(["filter", "id"])
    sizes = once.groupby(["filter", "related_id"], sort=True).size()
    least = max(_GIANT_ROWS, int(np.ceil(_GIANT_SHARE * rows)))
    giant = sizes[sizes >= least].reset_index(name="rows")
    return [
        f"{line['filter']}: {line['rows']} rows were dropped as duplicates of "
        f"{line['related_id']!r}; if that is too many, the texts share a template: compare "
        "another field or raise the threshold"
        for line in giant.to_dict("records")
    ]
