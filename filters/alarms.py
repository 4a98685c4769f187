"""What a person should look at before training on the rows that are left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

_GIANT_ROWS = 10
_GIANT_SHARE = 0.05


def find_alarms(frame: pd.DataFrame, decisions: pd.DataFrame, reasons: Sequence[str]) -> list[str]:
    """Return one sentence per alarm: wiped-out labels and sources, giant groups, conflicts."""
    labelled = frame[frame["reason"].isna() | (frame["reason"] != "unlabelled")]
    alarms = []
    if len(frame) and not frame["keep"].any():
        alarms.append(f"no row is left of {len(frame)}; see the reasons of the drops")
    for name in ("label", "source"):
        if name in frame.columns:
            alarms += _wiped_out(labelled, name)
    alarms += _giant_groups(decisions, len(labelled))
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


def _wiped_out(labelled: pd.DataFrame, name: str) -> list[str]:
    before = labelled[name].value_counts()
    left = set(labelled.loc[labelled["keep"], name].dropna())
    return [
        f"{name} {value!r} is wiped out: all {count} of its rows were dropped; loosen the filters "
        "or gather more such rows"
        for value, count in sorted(before.items(), key=lambda item: str(item[0]))
        if value not in left
    ]


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
