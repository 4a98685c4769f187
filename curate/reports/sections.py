"""What each section of the report shows, as the template names it."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from markupsafe import Markup

from curate.reports import (
    balances,
    charts,
    curves,
    figures,
    findings,
    maps,
    results,
    rows,
    savings,
    student_errors,
    texts,
)
from curate.reports import suspects as suspected
from curate.reports.files import RunFiles

__all__ = ["SECTIONS", "describe", "kept_bar"]

SECTIONS = [
    ("result", "Result"),
    ("funnel", "Text to training set"),
    ("dropped", "Dropped rows"),
    ("review", "Rows to review"),
    ("balance", "Label balance"),
    ("confidence", "Confidence"),
    ("clusters", "Map and clusters"),
    ("training", "Training"),
    ("systems", "Systems compared"),
    ("disagreements", "Disagreements"),
    ("errors", "The student's errors"),
    ("cost", "Cost and time"),
    ("versions", "Versions and recipe"),
]
_FREE_TEXT = 30  # so many distinct answers, and no label set: they are texts
_LONGEST_RECIPE = 40_000  # characters: a recipe may hold whole demonstrations


def describe(files: RunFiles) -> dict[str, Any]:
    """All that the template shows, by the names it uses."""
    systems = results.list_systems(files)
    metrics = results.shown_metrics(files, systems)
    answers, unclear = results.mark_answers(files, systems)
    clusters = maps.list_clusters(files)
    drawn = maps.draw_map(files, clusters)
    conflicts, conflict_count = rows.list_conflicts(files)
    return {
        **_describe_run(files),
        "verdict": results.judge(files),
        "findings": findings.list_findings(files, systems, metrics, answers),
        **_describe_scores(files, systems, metrics),
        **_describe_funnel(files),
        "dropped": rows.list_dropped(files),
        "conflicts": conflicts,
        "conflict_count": conflict_count,
        "suspects": suspected.list_suspects(files),
        "reviewed": _say_reviewed(files),
        "review_command": f"curate review {shlex.quote(_folder(files))}",
        "warnings": [str(w) for w in files.stage("curated").get("warnings") or []],
        **_describe_balance(files),
        **figures.describe_histogram(files),
        **figures.describe_reliability(files, answers),
        "clusters": clusters,
        "map": drawn,
        "map_data": drawn.data if drawn else None,
        **figures.describe_training(files),
        **_describe_classes(files),
        "disagreements": rows.list_disagreements(files, answers),
        "agreement": rows.count_agreement(answers),
        "unclear": ", ".join(results.system_name(key) for key in unclear),
        "no_disagreement": _no_disagreement(files),
        "student_errors": student_errors.read_errors(files),
        "judged": student_errors.read_judgements(files),
        **_describe_stages(files),
    }


def _describe_run(files: RunFiles) -> dict[str, Any]:
    run = files.run
    created = str(run.get("created") or "")
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(created)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
        created = f"{moment:%d %B %Y, %H:%M} UTC".lstrip("0")
    parts = [created]
    for role, model in (
        ("teacher", files.stage("labeled").get("teacher")),
        ("student", files.stage("student").get("model")),
    ):
        if model:
            parts.append(f"{role} {texts.mask_secrets(str(model))}")
    recipe = yaml.safe_dump(
        texts.mask_secrets(run["recipe"]), sort_keys=False, allow_unicode=True, width=100
    )
    return {
        "name": str(run.get("name") or files.path.name),
        "instruction": texts.clip(str(results.recipe_task(files).get("instruction") or "")),
        "reference": "human label" if files.has_human_labels() else "teacher's label",
        "summary": " · ".join(part for part in parts if part),
        "curate_version": run.get("curate_version") or "",
        "facts": [
            (key, str(value))
            for key, value in (
                ("created", run.get("created")),
                ("seed", run.get("seed")),
                ("recipe (SHA-256)", run.get("recipe_sha256")),
                ("filters (SHA-256)", files.stage("curated").get("policy")),
                ("curate-distill", run.get("curate_version")),
            )
            if value is not None
        ],
        "versions": [(key, str(value)) for key, value in run["versions"].items()],
        "machine": [(key, str(value)) for key, value in run["machine"].items()],
        "recipe": texts.clip(recipe, _LONGEST_RECIPE),
    }


def _describe_scores(
    files: RunFiles, systems: Sequence[results.System], metrics: Sequence[str]
) -> dict[str, Any]:
    """The table of results: each system's headline metric on a scale that all share."""
    if not metrics:
        return {"systems": [], "metrics": [], "target": None, "scores_note": "", "intervals": {}}
    scores = {system.key: score for system in systems if (score := system.scores.get(metrics[0]))}
    target = next((g["target"] for g in files.run["goal"] if g.get("metric") == metrics[0]), None)
    ends = [
        value
        for score in scores.values()
        for value in (score.value, score.low, score.high)
        if value is not None
    ]
    ends += [] if target is None else [target]
    low, high = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    scale = (low, max(high, low + 0.05))
    intervals = {
        key: charts.interval(
            score.value,
            score.value if score.low is None else score.low,
            score.value if score.high is None else score.high,
            scale=scale,
            style="",
            target=target,
        )
        for key, score in scores.items()
        if score.value is not None
    }
    sizes = {system.rows for system in systems if system.rows}
    rows_said = f"{texts.as_count(max(sizes))} test rows" if len(sizes) == 1 else "the test rows"
    against = (
        "human labels"
        if files.has_human_labels()
        else "the teacher's own labels, for want of human ones: this is agreement, not correctness,"
    )
    return {
        "systems": systems,
        "metrics": list(metrics),
        "target": target,
        "intervals": {system.key: intervals.get(system.key, "") for system in systems},
        "interval_axis": charts.interval_axis(scale),
        "scores_note": f"Measured against {against} on {rows_said}. TF-IDF + logistic "
        "regression learns from the same labels as the student; the majority class always "
        "gives the most frequent one.",
    }


def _describe_funnel(files: RunFiles) -> dict[str, Any]:
    steps = [s for s in files.run["funnel"] if isinstance(s, dict) and s.get("rows") is not None]
    most = max((step["rows"] for step in steps), default=0) or 1
    funnel, before = [], None
    for step in steps:
        n = step["rows"]
        change = "" if before is None or before == n else f"{n - before:+,}".replace("-", "−")
        bar = charts.share_bar((n / most, "kept"))
        name = str(step.get("stage"))
        reviewed = _say_reviewed(files) if name == "after review" else ""
        note = f"a person's decisions: {reviewed}" if reviewed else ""
        funnel.append({"name": name, "rows": n, "change": change, "bar": bar, "note": note})
        before = n
    share = steps[-1]["rows"] / steps[0]["rows"] if steps and steps[0]["rows"] else None
    return {"funnel": funnel, "kept_share": share, "savings": savings.list_savings(files)}


def _say_reviewed(files: RunFiles) -> str:
    """What a person had decided before this run, in words; empty where there is nothing."""
    counts = files.stage("curated").get("reviewed") or {}
    words = {"drop": "left out", "accept": "accepted", "relabel": "relabelled"}
    said = [f"{texts.as_count(counts[key])} {word}" for key, word in words.items() if key in counts]
    return ", ".join(said)


def _folder(files: RunFiles) -> str:
    """The run folder as a reader may type it; an absolute path would tell where it was made."""
    return files.path.name if files.path.is_absolute() else files.path.as_posix()


def _describe_balance(files: RunFiles) -> dict[str, Any]:
    labels = results.recipe_task(files).get("labels")
    balance = balances.label_balance(files)
    if not labels and len(balance) >= _FREE_TEXT:
        balance = []
    before, after = sum(row.before for row in balance), sum(row.after for row in balance)
    heads, losses = balances.label_losses(files) if balance else ([], [])
    shown = []
    for row in balance:
        shares = (row.before / (before or 1), row.after / (after or 1))
        bars = Markup("").join(
            charts.share_bar((share, style))
            for share, style in zip(shares, ("before", "kept"), strict=True)
        )
        shown.append(
            {**row._asdict(), "before_share": shares[0], "after_share": shares[1], "bars": bars}
        )
    return {
        "balance": shown,
        "balance_totals": (before, after),
        "weighted": bool(files.run["balance"].get("effective")),
        "sources": balances.source_balance(files),
        "loss_heads": heads,
        "label_losses": losses,
        "loss_labels": len((files.stage("curated").get("drops") or {}).get("label") or {}),
    }


def _describe_classes(files: RunFiles) -> dict[str, Any]:
    metrics = files.run["metrics"]
    compared = [
        key
        for key in results.SYSTEM_NAMES
        if key != "majority" and metrics.get(key, {}).get("per_class")
    ]
    labels = {entry["label"] for key in compared for entry in metrics[key]["per_class"]}
    found = [curves.confusion(files, key) for key in compared]
    return {
        "classes": curves.class_table(files, compared),
        "class_total": len(labels),
        "compared": compared,
        "confusions": [matrix for matrix in found if matrix],
    }


def _no_disagreement(files: RunFiles) -> str:
    systems = set(files.predictions["system"])
    if "student" not in systems:
        return "No student answered the test rows."
    if files.predictions["gold"].null_count() == files.predictions.height:
        return "The test rows have no human labels to compare with."
    return "None: teacher and student are right on every test row."


def _describe_stages(files: RunFiles) -> dict[str, Any]:
    stages = curves.list_stages(files)
    longest = max((stage.seconds or 0.0 for stage in stages), default=0.0) or 1.0
    bars = [
        charts.share_bar(((stage.seconds or 0.0) / longest, "reused" if stage.reused else "time"))
        for stage in stages
    ]
    costs = [stage.cost for stage in stages if stage.cost is not None]
    paid = sum(s.cost for s in stages if s.cost is not None and not s.reused)
    note = (
        f"Paid to the teacher's provider in this run: {texts.as_money(paid)}."
        if costs
        else "No cost is known: the teacher ran here, or no price is set for it."
    )
    if any(stage.reused for stage in stages):
        note += (
            " A reused stage was taken from an earlier run, its inputs being unchanged; time, tokens "
            "and cost are what it took then."
        )
    return {
        "stages": list(zip(stages, bars, strict=True)),
        "any_reused": any(stage.reused for stage in stages),
        "total_seconds": sum(s.seconds or 0.0 for s in stages if not s.reused),
        "cost_note": note,
    }


def kept_bar(kept: int, rows: int) -> Markup:
    """The share of rows that stay, such as those of a cluster."""
    return charts.share_bar((kept / (rows or 1), "kept"), ((rows - kept) / (rows or 1), "lost"))
