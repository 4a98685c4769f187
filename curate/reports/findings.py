"""What a reader of the report has to know about the result, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.reports.files import RunFiles
from curate.reports.results import Answers, System, metric_name
from curate.reports.texts import as_count, as_percent, as_points, counted

__all__ = ["Finding", "list_findings", "paired_difference"]

_Z = 1.959964  # the normal distribution's 97.5 % point: two-sided 95 % intervals


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One plain sentence about the result; ``tone`` is good, bad or plain."""

    tone: str
    text: str


def paired_difference(
    answers: Answers, one: str, other: str, groups: Mapping[str, str]
) -> tuple[float, float, float] | None:
    """Accuracy of ``one`` minus ``other`` on the rows both answered, with its 95 % interval.

    With x = 1 where only ``one`` is right, -1 where only ``other`` is, else 0, the difference d is
    the mean of x over n rows and its standard error is sqrt(sum over groups of (sum of x - d)^2) /
    n: the cluster-robust variance (Liang and Zeger 1986), since rows of one group (one review) are
    not independent. Rows in no group stand for themselves; with none grouped this is the Wald
    interval for paired proportions (Agresti, Categorical Data Analysis, on matched pairs).
    """
    ahead = {
        row: answers[row, one] - answers[row, other]
        for row, system in answers
        if system == one and (row, other) in answers
    }
    if not ahead:
        return None
    difference = sum(ahead.values()) / len(ahead)
    sums: dict[tuple[str, str], float] = {}
    for row, x in ahead.items():
        key = ("group", groups[row]) if row in groups else ("row", row)
        sums[key] = sums.get(key, 0.0) + x - difference
    half = _Z * math.sqrt(sum(s * s for s in sums.values())) / len(ahead)
    return difference, difference - half, difference + half


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """How far one system is ahead, and whether the test rows can tell the two apart."""

    difference: float
    doubt: str
    clear: bool


def _compare(
    files: RunFiles,
    answers: Answers,
    systems: Mapping[str, System],
    metric: str,
    one: str,
    other: str,
) -> _Comparison | None:
    if one not in systems or other not in systems:
        return None
    left, right = systems[one].scores.get(metric), systems[other].scores.get(metric)
    if not left or not right or left.value is None or right.value is None:
        return None
    difference = left.value - right.value
    if metric != "accuracy":
        return _Comparison(difference=difference, doubt="", clear=True)
    grouped = files.predictions.select("id", "group").drop_nulls().iter_rows()
    paired = paired_difference(answers, one, other, dict(grouped))
    if paired is None:
        return _Comparison(difference=difference, doubt="", clear=True)
    _, low, high = paired
    clear = not low <= 0 <= high
    doubt = f" (95\u00a0% interval of the difference {as_points(low)} to {as_points(high)}"
    doubt += ")" if clear else "; these test rows do not tell the two apart)"
    return _Comparison(difference=difference, doubt=doubt, clear=clear)


def _ahead(difference: float) -> str:
    """``2.1 points ahead of``, ``level with`` or ``0.4 points behind``."""
    size = as_points(abs(difference)).lstrip("+")
    if size == "0.0":
        return "level with"
    return f"{size} points {'ahead of' if difference > 0 else 'behind'}"


def list_findings(
    files: RunFiles, systems: Sequence[System], metrics: Sequence[str], answers: Answers
) -> list[Finding]:
    """What a reader has to know about the result, the unwelcome included."""
    if not metrics:
        return []
    by_key, metric = {system.key: system for system in systems}, metrics[0]
    name = metric_name(metric)[:1].lower() + metric_name(metric)[1:]
    findings = []
    if found := _compare(files, answers, by_key, metric, "student", "tfidf"):
        said = [as_percent(by_key[key].scores[metric].value) for key in ("tfidf", "student")]
        tone = "good" if found.clear else "plain"
        text = f"In {name} the student is {_ahead(found.difference)} TF-IDF + logistic regression"
        text += f" trained on the same labels{found.doubt}."
        if found.difference < 0:
            tone = "bad"
            text = f"TF-IDF wins over the student: {said[0]} {name} against {said[1]}{found.doubt}."
            text += " It learned from the same labels and is the simpler system."
        elif found.difference == 0:
            tone, text = "bad", f"TF-IDF is as good as the student: both reach {said[0]} {name}."
        findings.append(Finding(tone=tone, text=text))
    for other in metrics[1:]:
        found = _compare(files, answers, by_key, other, "student", "tfidf")
        if found and found.difference < 0:
            ahead = _ahead(-found.difference)
            text = f"In {metric_name(other)}, TF-IDF wins: it is {ahead} the student{found.doubt}."
            findings.append(Finding(tone="bad", text=text))
    if found := _compare(files, answers, by_key, metric, "student", "teacher"):
        text = f"In {name} the student is {_ahead(found.difference)} its teacher{found.doubt}."
        findings.append(Finding(tone="plain", text=text))
    found = _compare(files, answers, by_key, metric, "student", "majority")
    if found and (found.difference <= 0 or not found.clear):
        text = f"The student is hardly or no better than the most frequent label{found.doubt}."
        findings.append(Finding(tone="bad", text=text))
    if found := _compare(files, answers, by_key, metric, "student-gold", "student"):
        ahead = _ahead(found.difference)
        text = f"A student trained on human labels is {ahead} this one in {name}{found.doubt}."
        findings.append(Finding(tone="plain", text=text))
    return findings + _list_gaps(files, systems)


def _list_gaps(files: RunFiles, systems: Sequence[System]) -> list[Finding]:
    """The run's own notes, rows without a label, and answers that could not be read."""
    findings = [Finding(tone="plain", text=note) for note in files.run["notes"]]
    errors = files.stage("labeled").get("errors") or {}
    if total := sum(errors.values()):
        kinds = ", ".join(f"{as_count(n)} {kind}" for kind, n in errors.items())
        text = f"{counted(total, 'row')} got no label from the teacher ({kinds})."
        findings.append(Finding(tone="plain", text=text))
    for system in systems:
        if system.unread:
            text = (
                f"{system.name}: no readable answer on {as_count(system.unread)} of "
                f"{as_count(system.rows)} test rows; they count as wrong."
            )
            findings.append(Finding(tone="plain", text=text))
    return findings
