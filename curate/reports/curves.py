"""The report's curves and counts: confidence, calibration, training, and what each stage took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from curate.error_slices import wilson
from curate.reports.charts import Line, ReliabilityCurve
from curate.reports.files import RunFiles
from curate.reports.results import Answers, system_name
from curate.reports.texts import as_count

__all__ = [
    "ClassScores",
    "Confusion",
    "Stage",
    "are_probabilities",
    "axis_start",
    "calibration_error",
    "class_table",
    "confidence_bins",
    "confusion",
    "list_stages",
    "reliability_curve",
    "training_lines",
]

STAGE_NAMES = {
    "examples": "Read examples",
    "labeled": "Ask the teacher",
    "curated": "Filter and balance",
    "student": "Train the student",
    "predictions": "Predict and score",
}
_Z = 1.959964  # the normal distribution's 97.5 % point: two-sided 95 % intervals


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage's line in the table of costs; None where the stage has no such number."""

    name: str
    seconds: float | None
    reused: bool
    detail: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None


def confidence_bins(files: RunFiles, bins: int = 20) -> list[tuple[float, float, int, int]]:
    """Counts of (from, to, kept, dropped) train rows by the teacher's confidence.

    The bins cover 0..1, or 0.5..1 where no confidence is lower; where some value is no
    probability (a free text's mean token log-probability), the values' own range. Empty where no
    confidence is known.
    """
    table = files.curated.filter(pl.col("confidence").is_finite())
    if table.is_empty():
        return []
    values = table["confidence"].to_list()
    keeps = table["keep"].fill_null(True).to_list()
    start, end = axis_start(values), 1.0
    if not are_probabilities(values):
        start, end = min(values), max(max(values), min(values) + 1e-6)
    width = (end - start) / bins
    counts = [[0, 0] for _ in range(bins)]
    for value, keep in zip(values, keeps, strict=True):
        place = min(max(int((value - start) / width), 0), bins - 1)
        counts[place][0 if keep else 1] += 1
    return [
        (start + i * width, start + (i + 1) * width, kept, dropped)
        for i, (kept, dropped) in enumerate(counts)
    ]


def axis_start(values: Sequence[float]) -> float:
    """Where an axis of confidences starts: 0.5 where no value is lower (two labels), else 0."""
    return 0.5 if values and min(values) >= 0.5 else 0.0


def are_probabilities(values: Sequence[float]) -> bool:
    """Whether every value lies in 0..1."""
    return all(0 <= value <= 1 for value in values)


def reliability_curve(
    files: RunFiles, answers: Answers, system: str, bins: int = 10
) -> ReliabilityCurve | None:
    """The reliability curve of one system on the test rows with gold, over equal-width bins of 0..1.

    None where the system has no confidence, or one that is no probability.
    """
    table = files.predictions.filter(
        (pl.col("system") == system) & pl.col("confidence").is_finite()
    )
    if not are_probabilities(table["confidence"].to_list()):
        return None
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for row in table.iter_rows(named=True):
        answer = answers.get((row["id"], system))
        if answer is not None:
            place = min(max(int(row["confidence"] * bins), 0), bins - 1)
            found[place].append((row["confidence"], answer))
    points = []
    for members in found:
        if members:
            right, rows = sum(r for _, r in members), len(members)
            mean = sum(c for c, _ in members) / rows
            points.append((mean, right / rows, *wilson(right, rows), rows))
    if not points:
        return None
    return ReliabilityCurve(name=system_name(system), style=f"s-{system}", bins=points)


def calibration_error(curve: ReliabilityCurve) -> float:
    """Expected calibration error: the rows' mean of |share right - mean confidence| by bin.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    rows = sum(b[4] for b in curve.bins)
    return sum(b[4] * abs(b[1] - b[0]) for b in curve.bins) / rows


def training_lines(history: Mapping[str, Any]) -> tuple[list[Line], int]:
    """The loss curves by step, and over how many steps each point is a mean (1: as they are).

    A label-only student has one loss; the label and rationale parts appear where they differ.
    """
    steps = [step for step in history.get("steps") or [] if isinstance(step, dict)]
    window = max(1, round(len(steps) / 60))
    lines = []
    parts = [("loss", "loss", "loss")]
    if any(step.get("rationale_loss") is not None for step in steps):
        parts += [("label_loss", "label loss", "label-loss")]
        parts += [("rationale_loss", "rationale loss", "rationale-loss")]
    for key, name, style in parts:
        points = [(step["step"], step[key]) for step in steps if _is_number(step.get(key))]
        if points:
            lines.append(Line(name=name, style=style, points=_smooth(points, window)))
    last = steps[-1]["step"] if steps else 0
    epochs = history.get("epochs") or []
    losses = [
        (last * (i + 1) / len(epochs), epoch["validation_loss"])
        for i, epoch in enumerate(epochs)
        if _is_number(epoch.get("validation_loss"))
    ]
    if losses and lines:
        style = "validation-loss"
        lines.append(Line(name="validation loss", style=style, points=losses, markers=True))
    return lines, window


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _smooth(points: list[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Means over ``window`` points in a row, placed at their middle."""
    groups = [points[i : i + window] for i in range(0, len(points), window)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def list_stages(files: RunFiles) -> list[Stage]:
    """The stages that run.json names, in the order they run."""
    stages = files.run["stages"]
    known = [name for name in STAGE_NAMES if name in stages]
    return [
        Stage(
            name=STAGE_NAMES.get(name, name),
            seconds=entry.get("seconds"),
            reused=bool(entry.get("reused")),
            detail=_stage_detail(name, entry),
            prompt_tokens=entry.get("prompt_tokens"),
            completion_tokens=entry.get("completion_tokens"),
            cost=entry.get("cost_usd"),
        )
        for name in [*known, *(name for name in stages if name not in STAGE_NAMES)]
        if (entry := files.stage(name))
    ]


def _stage_detail(name: str, entry: Mapping[str, Any]) -> str:
    if name == "examples":
        rows = entry.get("rows") or {}
        return ", ".join(f"{as_count(n)} {split}" for split, n in rows.items())
    if name == "labeled":
        parts = [f"{as_count(entry.get('labelled'))} of {as_count(entry.get('rows'))} rows"]
        if entry.get("asked") is not None:
            parts.append(f"{as_count(entry['asked'])} requests")
        if entry.get("from_store"):
            parts.append(f"{as_count(entry['from_store'])} answers from the store")
        return ", ".join(parts)
    if name == "curated":
        dropped = sum((entry.get("dropped") or {}).values())
        return f"{as_count(entry.get('kept'))} kept, {as_count(dropped)} dropped"
    if name == "student":
        parts = [f"{as_count(entry.get('rows'))} rows", f"{as_count(entry.get('steps'))} steps"]
        return ", ".join([*parts, *([str(entry["objective"])] if entry.get("objective") else [])])
    return ""


class ClassScores(NamedTuple):
    """One label's test rows and, for each system, its precision, recall and F1 (None: absent)."""

    label: str
    support: int
    scores: list[dict[str, float] | None]


def class_table(files: RunFiles, systems: Sequence[str], most: int = 40) -> list[ClassScores]:
    """Scores by label for ``systems``, the labels with most test rows first, at most ``most``."""
    by_system = [
        {entry["label"]: entry for entry in files.run["metrics"][key].get("per_class") or []}
        for key in systems
    ]
    labels = dict.fromkeys(label for entries in by_system for label in entries)
    rows = [
        ClassScores(
            str(label),
            max(e[label].get("support") or 0 for e in by_system if label in e),
            [entries.get(label) for entries in by_system],
        )
        for label in labels
    ]
    return sorted(rows, key=lambda row: -row.support)[:most]


class Confusion(NamedTuple):
    """A confusion matrix; each cell is (count, shade 0..9 by its share of the row, right or not).

    With many labels ``rows`` is empty and ``worst`` lists (gold, answer, count), worst first.
    """

    name: str
    columns: list[str]
    rows: list[tuple[str, list[tuple[int, int, bool]]]]
    worst: list[tuple[str, str, int]]


def confusion(files: RunFiles, system: str, most: int = 12) -> Confusion | None:
    """The confusion matrix of ``system``, without a column for unread answers if it is empty."""
    found = files.run["metrics"][system].get("confusion")
    if not found or not found.get("matrix"):
        return None
    labels, columns, matrix = found["labels"], list(found["columns"]), found["matrix"]
    filled = [
        i for i, name in enumerate(columns) if name in labels or any(line[i] for line in matrix)
    ]
    names = [str(columns[i]) for i in filled]
    if len(labels) > most:
        pairs = [
            (str(label), str(columns[i]), line[i])
            for label, line in zip(labels, matrix, strict=True)
            for i in filled
            if columns[i] != label and line[i]
        ]
        return Confusion(
            system_name(system, short=True), names, [], sorted(pairs, key=lambda p: -p[2])[:15]
        )
    rows = []
    for label, line in zip(labels, matrix, strict=True):
        total = sum(line) or 1
        cells = [
            (line[i], min(int(10 * line[i] / total), 9), str(columns[i]) == str(label))
            for i in filled
        ]
        rows.append((str(label), cells))
    return Confusion(system_name(system, short=True), names, rows, [])
