"""The rows of the report whose label is probably wrong, with what the models say instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from curate.reports.files import RunFiles, read_texts
from curate.reports.texts import NOTHING, as_percent, clip

__all__ = ["Fate", "Suspect", "Suspects", "list_suspects"]


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A row whose label is suspected; where no person labelled it, what is right is not known."""

    rank: int
    title: str
    text: str
    label: str
    label_right: bool | None
    opinion: str
    opinion_right: bool | None
    gold: str


@dataclass(frozen=True, kw_only=True)
class Fate:
    """Suspects with one fate: ``count`` in all, of them ``shown`` the worst.

    ``known`` of them have a human label, which is not the teacher's on ``wrong`` of these.
    """

    title: str
    count: int
    known: int
    wrong: int
    shown: list[Suspect]


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Suspected labels, the worst first, those that are still trained on apart from the others.

    ``state`` is "filter" (the filter label_noise ran), "report" (it did not, and nothing was
    dropped for it), or "none" (no opinion was formed).
    """

    state: str
    judged: int
    total: int
    fates: list[Fate]
    note: str


def list_suspects(files: RunFiles, most: int = 12) -> Suspects:
    """The suspected labels of the train rows: at most ``most`` kept ones and as many others."""
    told = files.stage("curated").get("suspects") or {}
    state = {"label_noise": "filter", "report": "report"}.get(str(told.get("by")), "none")
    found = files.curated.filter(pl.col("suspect_rank").is_not_null()).sort("suspect_rank")
    if found.height and state == "none":
        state = "filter"
    found = found.join(_gold(files), on="id", how="left", maintain_order="left")
    kept = pl.col("keep").fill_null(value=False)
    split = {"Still in the training set": found.filter(kept), "Dropped": found.filter(~kept)}
    texts = read_texts(files, [one for table in split.values() for one in table["id"].head(most)])
    return Suspects(
        state=state,
        judged=told.get("judged") or 0,
        total=found.height,
        fates=[_fate_of(title, table, most, texts) for title, table in split.items()],
        note=str(told.get("note") or ""),
    )


def _fate_of(title: str, table: pl.DataFrame, most: int, texts: dict[str, str]) -> Fate:
    held = table.filter(pl.col("gold").is_not_null() & pl.col("label").is_not_null())
    return Fate(
        title=title,
        count=table.height,
        known=held.height,
        wrong=sum(not _agrees(row, "label") for row in held.iter_rows(named=True)),
        shown=_shown(table.head(most).rows(named=True), texts),
    )


def _gold(files: RunFiles) -> pl.DataFrame:
    """The human labels of the rows, one line for each id."""
    return files.labeled.select("id", "gold").unique("id", keep="first")


def _agrees(row: dict[str, Any], whose: str) -> bool | None:
    """Whether a label is the human one, or one of several; None where there is none."""
    if row["gold"] is None:
        return None
    gold = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
    return row[whose] in [str(one) for one in gold]


def _shown(rows: Sequence[dict[str, Any]], texts: dict[str, str]) -> list[Suspect]:
    return [
        Suspect(
            rank=row["suspect_rank"],
            title=f"suspect {row['suspect_rank']} · {row['id']} · {_fate(row)}",
            text=clip(texts.get(row["id"]) or row["input"]),
            label=_with_share(row["label"], row["suspect_label_probability"]),
            label_right=_agrees(row, "label"),
            opinion=_with_share(row["suspect_opinion"], row["suspect_opinion_probability"]),
            opinion_right=_agrees(row, "suspect_opinion"),
            gold="" if row["gold"] is None else clip(_references(row["gold"]), 200),
        )
        for row in rows
    ]


def _references(gold: Any) -> str:
    return " / ".join(map(str, gold)) if isinstance(gold, list) else str(gold)


def _fate(row: dict[str, Any]) -> str:
    """Whether the row stayed, and how sure the teacher was of its label."""
    fate = "kept" if row["keep"] else f"dropped ({row['reason'] or 'no reason given'})"
    sure = row["confidence"]
    known = sure is not None and 0 <= sure <= 1
    return f"{fate} · teacher {as_percent(sure, 0)} sure" if known else fate


def _with_share(label: str | None, probability: float | None) -> str:
    if label is None:
        return NOTHING
    if probability is None:
        return clip(label, 200)
    return f"{clip(label, 200)}, {as_percent(probability)}"
