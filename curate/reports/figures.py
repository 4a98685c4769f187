"""The report's plots with axes, each with its caption: confidence, calibration, training."""

from __future__ import annotations

from typing import Any

import polars as pl

from curate.reports import charts, curves, results, texts
from curate.reports.files import RunFiles

__all__ = ["describe_histogram", "describe_reliability", "describe_training"]


def describe_histogram(files: RunFiles) -> dict[str, Any]:
    """The teacher's confidence on the train rows, with the minimum that the recipe asks."""
    bins = curves.confidence_bins(files)
    if not bins:
        return {"histogram": "", "histogram_note": ""}
    limits = files.decisions.filter(pl.col("filter") == "confidence")["threshold"].drop_nulls()
    threshold = float(limits.to_list()[0]) if len(limits) else None
    rows_shown = sum(kept + dropped for _, _, kept, dropped in bins)
    probability = curves.are_probabilities([bins[0][0], bins[-1][1]])
    note = texts.counted(rows_shown, "labelled train row")
    if threshold is not None:
        below = files.curated.filter(pl.col("confidence") < threshold).height
        note += f"; below the minimum of {threshold:g}: {below:,}"
    plot = charts.plot_histogram(
        bins,
        title="Histogram of the teacher's confidence",
        description=f"{note}.",
        x_label="confidence" if probability else "mean log-probability of a token",
        y_label="rows",
        threshold=threshold,
    )
    return {"histogram": plot, "histogram_note": f"{note}."}


def describe_reliability(files: RunFiles, answers: results.Answers) -> dict[str, Any]:
    """Share right against confidence for teacher and student, with their calibration errors."""
    found = [curves.reliability_curve(files, answers, key) for key in ("teacher", "student")]
    shown = [curve for curve in found if curve]
    if not shown:
        return {"reliability": "", "reliability_note": "", "curves": []}
    errors = ", ".join(
        f"{curve.name.lower()} {100 * curves.calibration_error(curve):.1f} points"
        for curve in shown
    )
    note = (
        f"Expected calibration error: {errors}. On the dotted diagonal, answers given with 80 % "
        "confidence are right 80 % of the time; below it, the system is too sure. Ten bins, drawn "
        "larger the more test rows they hold; thin lines are 95 % intervals."
    )
    means = [b[0] for curve in shown for b in curve.bins]
    plot = charts.plot_reliability(
        shown,
        low=curves.axis_start(means),
        title="Share of right answers against confidence",
        description=f"Expected calibration error: {errors}.",
    )
    return {"reliability": plot, "reliability_note": note, "curves": shown}


def describe_training(files: RunFiles) -> dict[str, Any]:
    """The losses by step, what was cut to length, and the epochs' validation."""
    history = files.history
    lines, window = curves.training_lines(history)
    nothing = {"losses": "", "loss_lines": [], "losses_note": "", "side_plot": "", "epochs": []}
    if not lines:
        return nothing
    note = "" if window == 1 else f"Each point is the mean of {window} steps. "
    cut = history.get("truncated") or {}
    if said := ", ".join(f"{texts.as_count(n)} {what}" for what, n in cut.items() if n):
        note += f"Cut to the longest length allowed: {said}. "
    best = history.get("best_epoch")
    if best is not None and any(line.style == "validation-loss" for line in lines):
        note += f"The student is that of epoch {best}."
    plot = charts.plot_lines(
        lines,
        title="Training loss by step",
        description=", ".join(f"{line.name} ends at {line.points[-1][1]:.3f}" for line in lines),
        x_label="step",
        y_label="loss (nats per token)",
    )
    epochs = [
        {"epoch": None, "validation_loss": None, "validation_accuracy": None, **epoch}
        for epoch in history.get("epochs") or []
        if epoch.get("validation_loss") is not None or epoch.get("validation_accuracy") is not None
    ]
    return {
        "losses": plot,
        "loss_lines": lines,
        "losses_note": note,
        "epochs": epochs,
        **_describe_side_plot(history),
    }


def _describe_side_plot(history: dict[str, Any]) -> dict[str, Any]:
    """Beside the losses: validation accuracy over three epochs or more, else the learning rate."""
    accuracy = [
        (epoch["epoch"], epoch["validation_accuracy"])
        for epoch in history.get("epochs") or []
        if epoch.get("validation_accuracy") is not None
    ]
    rate = [
        (step["step"], step["learning_rate"])
        for step in history.get("steps") or []
        if step.get("learning_rate") is not None
    ]
    if len(accuracy) >= 3:
        line = charts.Line(
            name="validation accuracy", style="validation-accuracy", points=accuracy, markers=True
        )
        title, label, unit, percent = "Validation accuracy", "share right", "epoch", True
        note = f"Best {texts.as_percent(max(value for _, value in accuracy))}."
    elif len(rate) >= 2:
        line = charts.Line(name="learning rate", style="learning-rate", points=rate)
        title, label, unit, percent = "Learning rate", "learning rate", "step", False
        note = f"Highest {max(value for _, value in rate):.2g}."
    else:
        return {"side_plot": ""}
    plot = charts.plot_lines(
        [line], title=title, description=note, x_label=unit, y_label=label, percent=percent
    )
    return {"side_plot": plot, "side_title": title, "side_note": note}
