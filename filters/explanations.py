"""Say why a row is where it is."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from filters.arguments import FilterError
from filters.results import REVIEW, UNLABELLED, Result

_SIDES = {"below": "<", "above": ">", "rebalance": ">", "select": ">"}
_WIDTH = 36  # characters of each of two columns
_TWINS = 5


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one filter made of a row.

    `outcome` is "dropped", "passed" or, where another filter had dropped the row before, "already
    gone"; `threshold` is None where the filter has none, or where that is not recorded. `drops`
    says which side of it goes: "<", ">" or ">=".
    """

    filter: str
    score: float | None
    threshold: float | None
    outcome: str
    drops: str = ">="


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A row, or a text of another set, that a filter compared this row with."""

    id: str
    set: str | None
    text: str | None
    label: str | None
    filter: str
    score: float
    threshold: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a row is kept or not; `str` of it is a text of at most 80 columns.

    Attributes:
        id: The row.
        keep: Whether it is trained on.
        reason: What dropped it, or None.
        label: Its label, or None.
        review: A person's verdict, or None.
        text: Its `input`.
        steps: What each filter made of it, in their order.
        twins: What it was compared with, those that decided first.
        weight: Its weight in the loss.
        copies: How often it is repeated.
    """

    id: str
    keep: bool
    reason: str | None
    label: str | None
    review: str | None
    text: str | None
    steps: tuple[Step, ...]
    twins: tuple[Twin, ...]
    weight: float = 1.0
    copies: int = 1

    def __str__(self) -> str:
        blocks = [_headline(self), _steps(self.steps)]
        blocks += [_side_by_side(self, twin) for twin in self.twins[:_TWINS]]
        if len(self.twins) > _TWINS:
            blocks.append(f"and {len(self.twins) - _TWINS} more in the decisions")
        if not self.twins and self.text is not None:
            blocks.append(textwrap.fill(self.text, 2 * _WIDTH + 4))
        return "\n\n".join(block for block in blocks if block)


def explain(result: Result, id: str) -> Explanation:
    """Say why a row is kept or dropped, with every filter's score and the texts of its twins.

    Args:
        result: What `apply` gave, or `result_from` made of a run's files.
        id: The row's id.

    Raises:
        FilterError: No row has this id. The message names near ones.
    """
    found = np.flatnonzero((result.frame["id"] == id).to_numpy())
    if not len(found):
        known = [str(one) for one in result.frame["id"]]
        near = difflib.get_close_matches(str(id), known, n=3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise FilterError(f"explain: none of the {len(known)} rows has the id {id!r}{hint}")
    row = {str(name): value for name, value in result.frame.iloc[int(found[0])].items()}
    lines = result.decisions[result.decisions["id"] == id]
    weight, copies = row.get("weight", 1.0), row.get("copies", 1)
    return Explanation(
        id=id,
        keep=bool(row["keep"]),
        reason=as_text(row.get("reason")),
        label=as_text(row.get("label")),
        review=as_text(row.get("review")),
        text=as_text(row.get("input")),
        steps=tuple(_judged(result, row)),
        twins=tuple(_compared(result, lines, as_text(row.get("reason")))),
        weight=1.0 if pd.isna(weight) else float(weight),
        copies=1 if pd.isna(copies) else int(copies),
    )


def _judged(result: Result, row: Mapping[str, Any]) -> list[Step]:
    thresholds = result.decisions.groupby("filter")["threshold"].first().to_dict()
    steps = []
    reason, gone = as_text(row.get("reason")), False
    for name in (UNLABELLED, REVIEW):
        if reason == name:
            steps.append(Step(filter=name, score=None, threshold=None, outcome="dropped"))
            gone = True
    for each in result.filters:
        outcome = "already gone" if gone else "dropped" if reason == each.reason else "passed"
        gone = gone or outcome == "dropped"
        threshold = thresholds.get(each.reason, math.nan)
        if pd.isna(threshold):
            threshold = _threshold_of(each)
        steps.append(
            Step(
                filter=each.reason,
                score=_number(row.get(f"score_{each.reason}")),
                threshold=_number(threshold),
                outcome=outcome,
                drops=_SIDES.get(getattr(each, "drops", each.reason), ">="),
            )
        )
    return steps


def _threshold_of(each: Any) -> float:
    """Return the threshold of a filter that wrote no line, as far as its arguments tell it."""
    for name in ("threshold", "minimum", "maximum", "containment"):
        value = getattr(each, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return math.nan


def _compared(result: Result, lines: pd.DataFrame, reason: str | None) -> list[Twin]:
    rows = result.frame.set_index("id")
    twins = []
    for line in lines[lines["related_id"].notna()].to_dict("records"):
        twin, name = str(line["related_id"]), as_text(line.get("related_set"))
        text: str | None = None
        label: str | None = None
        if name is None and twin in rows.index:
            text = as_text(rows["input"].get(twin)) if "input" in rows.columns else None
            label = as_text(rows["label"].get(twin)) if "label" in rows.columns else None
        elif name is not None and name in result.references:
            other = result.references[name]
            place = np.flatnonzero(other.ids == twin)
            text = other.texts[int(place[0])] if len(place) else None
        twins.append(
            Twin(
                id=twin, set=name, text=text, label=label, filter=str(line["filter"]),
                score=float(line["score"]), threshold=float(line["threshold"]),
                verdict=str(line["verdict"]),
            )
        )  # fmt: skip
    weight = {"drop": 0, "conflict": 1}
    twins.sort(
        key=lambda twin: (twin.filter != reason, weight.get(twin.verdict, 2), -twin.score, twin.id)
    )
    return twins


def as_text(value: Any) -> str | None:
    """Return a cell as text, None for a null."""
    return None if value is None or (not isinstance(value, str) and pd.isna(value)) else str(value)


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _headline(one: Explanation) -> str:
    fate = "kept" if one.keep else f"dropped by {one.reason}"
    label = "" if one.label is None else f", label {one.label!r}"
    said = "" if one.review is None else f"; a person's verdict: {one.review}"
    load = "" if one.weight == 1 else f"; weight {one.weight:.3g}"
    load += "" if one.copies == 1 else f"; {one.copies} copies"
    return f"row {one.id!r}{label}: {fate}{said}{load}"


def _steps(steps: tuple[Step, ...]) -> str:
    width = max([len("filter"), *(len(step.filter) for step in steps)])
    lines = [f"{'filter':<{width}}  {'score':>8}  {'goes if':>9}  outcome"]
    for step in steps:
        score = "-" if step.score is None else f"{step.score:.4g}"
        threshold = "-" if step.threshold is None else f"{step.drops} {step.threshold:.4g}"
        lines.append(f"{step.filter:<{width}}  {score:>8}  {threshold:>9}  {step.outcome}")
    return "\n".join(lines) if steps else ""


_SAID = {
    "drop": "its twin, which stays",
    "conflict": "like text, other label: both stay",
    "keep": "seen, but it changes nothing",
}


def _side_by_side(one: Explanation, twin: Twin) -> str:
    place = "" if twin.set is None else f" of the set {twin.set!r}"
    head = f"{twin.filter} {twin.score:.4g} to {twin.id!r}{place}: "
    if twin.verdict == "drop" and twin.set is not None:
        head += "it must not be trained on"
    else:
        head += _SAID.get(twin.verdict, twin.verdict)
    if one.text is None or twin.text is None:
        return head
    left, right = mark_difference(one.text, twin.text)
    columns = [_column(one.id, one.label, left), _column(twin.id, twin.label, right)]
    height = max(map(len, columns))
    mine, theirs = (column + [""] * (height - len(column)) for column in columns)
    lines = [f"{a:<{_WIDTH}} | {b}".rstrip() for a, b in zip(mine, theirs, strict=True)]
    return "\n".join([head, *lines])


def _column(id: str, label: str | None, text: str) -> list[str]:
    head = id if label is None else f"{id} ({label})"
    wrapped = textwrap.wrap(text, _WIDTH) or [""]
    return [textwrap.shorten(head, _WIDTH, placeholder="…"), "-" * _WIDTH, *wrapped]


def mark_difference(one: str, other: str) -> tuple[str, str]:
    """Return both texts with the words that the other lacks in [square brackets].

    Words are what white space parts, compared without case and punctuation as filters do; runs of
    different words share a pair of brackets.
    """
    left, right = one.split(), other.split()
    marked: tuple[list[str], list[str]] = ([], [])
    bare = ([_bare(word) for word in left], [_bare(word) for word in right])
    matcher = difflib.SequenceMatcher(None, *bare, autojunk=False)
    for kind, start, stop, begin, end in matcher.get_opcodes():
        for side, words in zip(marked, (left[start:stop], right[begin:end]), strict=True):
            if words:
                run = " ".join(words)
                side.append(run if kind == "equal" else f"[{run}]")
    return " ".join(marked[0]), " ".join(marked[1])


def _bare(word: str) -> str:
    return "".join(one for one in word.casefold() if one.isalnum()) or word
