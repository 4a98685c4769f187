"""The tables that a run prints: systems against metrics, in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

_NONE = "–"
_NAMES = {
    "majority": "majority class",
    "tfidf": "TF-IDF + logistic regression",
    "teacher": "teacher",
    "student": "student",
    "student-gold": "student on gold labels",
}


def result_table(
    metrics: Mapping[str, Any], shown: Sequence[str] = ("accuracy", "macro_f1")
) -> str:
    """Systems with the metrics that are asked for, each with its 95 % interval.

    A metric that a system has not (macro-F1 of free text, calibration without probabilities) is a dash.
    """
    import student

    titles = [student.METRICS[metric].title for metric in shown]
    rows = [
        ["system", *(cell for title in titles for cell in (title, "95 % interval")), "test rows"]
    ]
    for name, found in metrics.items():
        row = [_NAMES.get(name, name)]
        for metric in shown:
            value = found.get(metric)
            form = ".1%" if student.METRICS[metric].is_share else ".3f"
            row += _cells(value, form) if value else [_NONE, _NONE]
        rows.append([*row, f"{found['n']:,}"])
    return aligned(rows)


def median_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Each system's accuracy over several runs: median and range."""
    rows = [("system", "median accuracy", "range", "runs")]
    for name in runs[0]:
        values = [run[name]["accuracy"]["value"] for run in runs if name in run]
        rows.append(
            (
                _NAMES.get(name, name), f"{median(values):.1%}",
                f"{min(values):.1%} to {max(values):.1%}", str(len(values)),
            )
        )  # fmt: skip
    return aligned(rows)


def _cells(metric: Mapping[str, float], form: str) -> list[str]:
    value, low, high = (format(metric[name], form) for name in ("value", "low", "high"))
    return [value, f"{low} to {high}"]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text, its first row being the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
