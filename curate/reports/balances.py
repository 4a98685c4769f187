"""Rows by label and by source, before the filters and after, and what each filter took."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from curate.reports.files import RunFiles

__all__ = ["Balance", "Losses", "Source", "label_balance", "label_losses", "source_balance"]


class Balance(NamedTuple):
    """One label's rows before and after filtering, and what the latter count for in training."""

    label: str
    before: int
    after: int
    effective: float


def label_balance(files: RunFiles, most: int = 30) -> list[Balance]:
    """The labels' rows before and after, most frequent first; beyond ``most``, in one line."""
    before, after = (files.run["balance"].get(when) or {} for when in ("before", "after"))
    # Only there where rows have weights or copies.
    effective = files.run["balance"].get("effective") or after
    rows = [
        Balance(label, before.get(label, 0), after.get(label, 0), effective.get(label, 0))
        for label in {**before, **after}
    ]
    rows.sort(key=lambda row: (-row.before, -row.after, row.label))
    if len(rows) > most:
        rest = rows[most - 1 :]
        name = f"{len(rest):,} rarer labels"
        sums = [sum(counts) for counts in zip(*(row[1:] for row in rest), strict=True)]
        rows = [*rows[: most - 1], Balance(name, *sums)]
    return rows


class Losses(NamedTuple):
    """One label's rows, how many each reason took of them (in the order of the heads), and kept."""

    label: str
    rows: int
    counts: list[int]
    kept: int


def label_losses(files: RunFiles, most: int = 20) -> tuple[list[str], list[Losses]]:
    """The reasons that took labelled rows, and what they took of each of the largest labels."""
    by_label = (files.stage("curated").get("drops") or {}).get("label") or {}
    reasons: dict[str, int] = {}
    for counts in by_label.values():
        for reason, n in counts.items():
            if reason not in ("rows", "kept"):
                reasons[reason] = reasons.get(reason, 0) + n
    order = [str(step.get("stage", "")).removeprefix("after ") for step in files.run["funnel"]]
    heads = sorted(reasons, key=lambda reason: order.index(reason) if reason in order else -1)
    rows = [
        Losses(
            str(label),
            counts.get("rows", 0),
            [counts.get(reason, 0) for reason in heads],
            counts.get("kept", 0),
        )
        for label, counts in by_label.items()
    ]
    return heads, sorted(rows, key=lambda row: (-row.rows, row.label))[:most]


class Source(NamedTuple):
    """One source's train rows, and how many of them are kept."""

    name: str
    rows: int
    kept: int


def source_balance(files: RunFiles, most: int = 20) -> list[Source]:
    """The train rows of each source, the largest first; empty where there is one source only."""
    found = (
        files.curated.drop_nulls("source")
        .group_by("source")
        .agg(pl.len(), pl.col("keep").sum())
        .sort("len", "source", descending=[True, False])
    )
    return [] if found.height < 2 else [Source(*row) for row in found.head(most).iter_rows()]
