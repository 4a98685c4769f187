"""The student's errors as `curate errors` found them: slices, doubtful gold, what was learned nearby."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.reports.files import RunFiles, read_json
from curate.reports.texts import as_number, as_percent, clip

__all__ = ["Doubt", "Near", "StudentErrors", "read_errors", "read_judgements"]

_FILE = "errors.json"
_JUDGED = "judged.json"


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A row where student and teacher agree against the human label."""

    text: str
    gold: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Near:
    """An error, and the training rows most like it: (similarity, label, text) of each."""

    text: str
    gold: str
    said: str
    learned: list[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class StudentErrors:
    """What the page shows of an analysis; ``slices`` and ``next`` are rows of their tables."""

    rows: int
    errors: int
    slices: list[dict[str, Any]]
    beyond_chance: int
    doubts: list[Doubt]
    nearest: list[Near]
    next: list[dict[str, Any]]
    notes: list[str]


def read_errors(files: RunFiles, most: int = 8) -> StudentErrors | None:
    """Read the analysis that lies in the run folder; None where there is none."""
    path = files.path / _FILE
    if not path.exists():
        return None
    told = read_json(path)
    worse = [each for each in told.get("slices", []) if each["excess"] > 0][:most]
    wrong = {row["id"]: row for row in told.get("surest", [])}
    return StudentErrors(
        rows=told["rows"],
        errors=told["errors"],
        slices=[{**each, "value": clip(str(each["value"]), 60)} for each in worse],
        beyond_chance=sum(each["p_holm"] < 0.05 for each in worse),
        doubts=[
            Doubt(
                text=clip(row["input"]),
                gold=clip(row["gold"], 200),
                said=clip(row["prediction"], 200),
            )
            for row in told.get("doubtful_gold", [])[:most]
        ],
        nearest=[
            Near(
                text=clip(wrong[one]["input"]),
                gold=clip(str(wrong[one]["gold"]), 200),
                said=f"{clip(str(wrong[one]['prediction']), 200)}, {as_percent(wrong[one]['confidence'], 0)}",
                learned=[
                    (as_number(each["similarity"]), _label(each), clip(each["input"], 300))
                    for each in near
                ],
            )
            for one, near in told.get("nearest", {}).items()
            if one in wrong
        ][:most],
        next=told.get("next", []),
        notes=[str(note) for note in told.get("notes", [])],
    )


def read_judgements(files: RunFiles) -> str | None:
    """What a person's blind comparison of student and teacher came to; None where there is none."""
    path = files.path / _JUDGED
    return str(read_json(path)["said"]) if path.exists() else None


def _label(near: dict[str, Any]) -> str:
    label = clip(str(near["label"]), 100)
    return label if near["kept"] else f"{label} (dropped)"
