"""What the run did not have to pay a teacher for, as far as its files know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.reports.files import RunFiles
from curate.reports.texts import as_count, counted

__all__ = ["Saving", "list_savings"]


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Requests, tokens and US dollars that were not spent, None where that is not known.

    Below 0 more was spent. ``how`` says what was counted and against what.
    """

    name: str
    how: str
    requests: float | None
    tokens: float | None
    cost: float | None


def list_savings(files: RunFiles) -> list[Saving]:
    """What duplicates found before labeling, the store and a cascade saved.

    They are held against different things and do not add up.
    """
    stage = files.stage("labeled")
    if not stage:
        return []
    found = (_deduped(files, stage), _from_store(files, stage), _cascade(stage))
    return [one for one in found if one is not None]


def _spent(files: RunFiles) -> tuple[float, float | None]:
    """Tokens and cost of all answers in labeled.parquet, whenever they were asked."""
    table = files.labeled
    tokens = table.select(pl.col("prompt_tokens").sum() + pl.col("completion_tokens").sum()).item()
    costs = table["cost_usd"].drop_nulls()
    return float(tokens or 0), float(costs.sum()) if len(costs) else None


def _deduped(files: RunFiles, stage: dict[str, Any]) -> Saving | None:
    gone, rows = files.stage("curated").get("deduped"), stage.get("rows")
    if not gone or not rows:
        return None
    tokens, cost = _spent(files)
    requests = (stage.get("asked") or 0) + (stage.get("from_store") or 0)
    return Saving(
        name="Duplicates dropped before labeling",
        how=f"curate dedupe left {counted(gone, 'row')} out of the file that was read, says the "
        "evidence beside it. Estimated: each such row at the mean of the rows of this run.",
        requests=gone * requests / rows if requests else None,
        tokens=gone * tokens / rows if tokens else None,
        cost=None if cost is None else gone * cost / rows,
    )


def _from_store(files: RunFiles, stage: dict[str, Any]) -> Saving | None:
    tokens, cost = _spent(files)
    asked, stored = stage.get("asked") or 0, stage.get("from_store") or 0
    if stage.get("reused") and asked + stored:
        return Saving(
            name="Labels reused",
            how="Nothing that labels depend on has changed since an earlier run, so no teacher was "
            "asked in this one. Counted: all answers in labeled.parquet.",
            requests=asked + stored,
            tokens=tokens or None,
            cost=cost,
        )
    if not stored:
        return None
    paid = (stage.get("prompt_tokens") or 0) + (stage.get("completion_tokens") or 0)
    return Saving(
        name="Answers from the store",
        how=f"{as_count(stored)} of {as_count(asked + stored)} requests had been answered in an "
        "earlier run. Counted: the answers in labeled.parquet, less what this run asked.",
        requests=stored,
        tokens=max(tokens - paid, 0.0) or None,
        cost=None if cost is None else max(cost - (stage.get("cost_usd") or 0.0), 0.0),
    )


def _cascade(stage: dict[str, Any]) -> Saving | None:
    report = stage.get("cascade")
    if not isinstance(report, dict) or report.get("rows") is None or report.get("asked") is None:
        return None
    spared = report["rows"] - report["asked"]
    whole, used = report.get("tokens_all_dear"), report.get("tokens")
    return Saving(
        name="Cascade",
        how=f"The dear teacher was asked about {as_count(report['asked'])} of "
        f"{counted(report['rows'], 'row')}. Estimated against asking it about all of them, at its "
        "mean over those; the cheap teacher's tokens and cost are taken off.",
        requests=spared,
        tokens=None if whole is None or used is None else whole - used,
        cost=report.get("saved_usd"),
    )
