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


def result_table(metrics: Mapping[str, Any]) -> str:
    """Systems with accuracy and macro-F1 (none for free text), each with its 95 % interval."""
    rows = [("system", "accuracy", "95 % interval", "macro-F1", "95 % interval", "test rows")]
    for name, found in metrics.items():
        accuracy, f1 = found["accuracy"], found["macro_f1"]
        rows.append(
            (
                _NAMES.get(name, name), f"{accuracy['value']:.1%}", _interval(accuracy),
                f"{f1['value']:.1%}" if f1 else _NONE, _interval(f1) if f1 else _NONE, f"{found['n']:,}",
            )
        )  # fmt: skip
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


def _interval(metric: Mapping[str, float]) -> str:
    return f"{metric['low']:.1%} to {metric['high']:.1%}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text, its first row being the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
