"""The result as the report states it: the verdict, each system's scores, which answers are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.reports.files import RunFiles
from curate.reports.texts import as_interval, as_percent, mask_secrets

__all__ = [
    "Answers",
    "Goal",
    "Score",
    "System",
    "Verdict",
    "judge",
    "list_systems",
    "mark_answers",
    "metric_name",
    "recipe_task",
    "shown_metrics",
    "system_name",
]

SYSTEM_NAMES = {
    "teacher": "Teacher",
    "student": "Student",
    "student-gold": "Student on human labels",
    "tfidf": "TF-IDF + logistic regression",
    "majority": "Majority class",
}
SHORT_NAMES = {"student-gold": "Student (human labels)", "tfidf": "TF-IDF"}
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "mcc": "Matthews correlation",
    "exact_match": "Exact match",
    "value": "Equal value",
    "ece": "Calibration error",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "micro_f1": "Micro F1 of sets",
    "set_macro_f1": "Macro F1 of sets",
    "subset_accuracy": "Whole set right",
}
NOT_SHARES = ("brier", "perplexity")  # no percentages: the printed table and run.json have them

# (id, system) -> whether the answer is right
Answers = dict[tuple[str, str], bool]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric's value with the ends of its interval, as shares of one; None where not known."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class System:
    """One system's line in the table of results; ``scores`` by metric."""

    key: str
    name: str
    detail: str
    scores: dict[str, Score]
    rows: int | None
    unread: int


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One goal of the recipe, and in words what came of it."""

    text: str
    met: bool | None
    caution: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``state`` is met, missed, unknown or none (no goal was set)."""

    state: str
    headline: str
    sentence: str
    goals: list[Goal]


def metric_name(metric: str) -> str:
    """The name of a metric as a person writes it."""
    return METRIC_NAMES.get(metric, metric.replace("_", " ").capitalize())


def system_name(system: str, *, short: bool = False) -> str:
    """The name of a system as a person writes it, or a shorter one for a table's head."""
    name = SYSTEM_NAMES.get(system, system)
    return SHORT_NAMES.get(system, name) if short else name


def _score(value: Any) -> Score | None:
    """Read a metric's entry: a number, or an object with its interval; None for anything else."""
    if isinstance(value, dict) and isinstance(value.get("value"), int | float):
        return Score(value=value["value"], low=value.get("low"), high=value.get("high"))
    if isinstance(value, float):
        return Score(value=value, low=None, high=None)
    return None


def list_systems(files: RunFiles) -> list[System]:
    """The systems that were scored, in the order that the report names them."""
    metrics: dict[str, dict[str, Any]] = files.run["metrics"]
    known = [key for key in SYSTEM_NAMES if key in metrics]
    details = {
        "teacher": files.stage("labeled").get("teacher") or "",
        "student": files.stage("student").get("model") or "",
        "student-gold": files.stage("student").get("model") or "",
    }
    systems = []
    for key in [*known, *(key for key in metrics if key not in SYSTEM_NAMES)]:
        found = {name: _score(value) for name, value in metrics[key].items()}
        systems.append(
            System(
                key=key,
                name=system_name(key),
                detail=str(mask_secrets(str(details.get(key, "")))),
                scores={name: score for name, score in found.items() if score},
                rows=metrics[key].get("n"),
                unread=metrics[key].get("unread") or 0,
            )
        )
    return systems


def shown_metrics(files: RunFiles, systems: Sequence[System]) -> list[str]:
    """The goal's metrics, then the recipe's, or all that were scored; the first is the headline."""
    scored = list(dict.fromkeys(name for system in systems for name in system.scores))
    asked = recipe_task(files).get("metrics")
    goals = [goal.get("metric") for goal in files.run["goal"]]
    order = [*goals, *(asked if isinstance(asked, list) else ["accuracy", "macro_f1"])]
    found = [name for name in dict.fromkeys(map(str, order)) if name in scored]
    return [name for name in found or scored if name not in NOT_SHARES]


def recipe_task(files: RunFiles) -> dict[str, Any]:
    """The recipe's task; empty where the recipe has none."""
    task = files.run["recipe"].get("task")
    return task if isinstance(task, dict) else {}


def judge(files: RunFiles) -> Verdict:
    """The verdict on the recipe's goal, with a caution where the interval contains the target."""
    goals = []
    asked_for = recipe_task(files).get("goal")
    entries = files.run["goal"]
    if not entries and isinstance(asked_for, dict):
        # Set, but nothing was there to hold against it: no student.
        entries = [{"metric": metric, "target": target} for metric, target in asked_for.items()]
    for entry in entries:
        value, low, high = entry.get("value"), entry.get("low"), entry.get("high")
        target, met = entry.get("target"), entry.get("met")
        asked = f"{metric_name(str(entry.get('metric')))} of at least {as_percent(target)}"
        if value is None or target is None or met is None:
            goals.append(Goal(text=f"{asked}: not measured.", met=None, caution=""))
            continue
        reached = f"{as_percent(value)} (95\u00a0% interval {as_interval(low, high)})"
        caution = ""
        if met and low is not None and low < target:
            caution = "The interval reaches below the goal: other test rows might miss it."
        if not met and high is not None and high >= target:
            caution = "The interval reaches the goal: other test rows might meet it."
        text = f"{asked}: {'met' if met else 'not met'} with {reached}."
        goals.append(Goal(text=text, met=bool(met), caution=caution))
    sentence = str(files.run.get("verdict") or "")
    if not goals:
        state, headline = "none", "No goal was set"
        sentence = sentence or "Say under task.goal in the recipe what is good enough."
    elif any(goal.met is False for goal in goals):
        state, headline = "missed", "Goal not met"
    elif any(goal.met is None for goal in goals):
        state, headline = "unknown", "Goal not measured"
    else:
        state, headline = "met", "Goal met"
    return Verdict(state=state, headline=headline, sentence=sentence, goals=goals)


def mark_answers(files: RunFiles, systems: Sequence[System]) -> tuple[Answers, list[str]]:
    """Which answers are right, and the systems whose answers cannot be judged here.

    The `correct` column decides where there is one; else an answer is right when it equals gold or
    one of its references. A task may read answers by a rule of its own, so where that disagrees
    with the accuracy in run.json the system is left out rather than shown wrongly.
    """
    marked: dict[str, Answers] = {}
    for row in files.predictions.iter_rows(named=True):
        gold, said = row["gold"], row["prediction"]
        if gold is None or row["system"] is None:
            continue
        references = gold if isinstance(gold, list) else [gold]
        right = said in references if row["correct"] is None else row["correct"]
        marked.setdefault(row["system"], {})[row["id"], row["system"]] = right
    answers: Answers = {}
    unclear = []
    scored = {system.key: system.scores.get("accuracy") for system in systems}
    for key, of_system in marked.items():
        score = scored.get(key)
        share = sum(of_system.values()) / len(of_system)
        known = score.value if score else None
        if known is not None and abs(share - known) > 0.5 / len(of_system) + 1e-6:
            unclear.append(key)
        else:
            answers.update(of_system)
    return answers, unclear
