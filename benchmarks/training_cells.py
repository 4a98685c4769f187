"""Cells of the benchmarks that train one student after another: kept on disk, capped in time, tabled.

A cell is one training with its answers to the test rows: `<work>/<arm>-<seed>.json`. A training that
the cap stops leaves a checkpoint behind, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from machine import processor

import student

RESAMPLES = 1_000
ROWS = 2_435  # a quarter of CommonsenseQA's train rows
#: Settings that all of them share.
COMMON: dict[str, Any] = {
    "batch_size": 16,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "max_input_tokens": 128,
}
Cell = dict[str, Any]
Cells = dict[tuple[str, int], Cell]


class OutOfTimeError(Exception):
    """The wall-clock cap was reached within a training; its checkpoint stays."""


def options_of(description: str, result: Path) -> argparse.ArgumentParser:
    """The options that all of these benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--recorded", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0, help="stop after this, even in a cell")
    parser.add_argument("--notes", type=Path, help="Markdown to put below the tables")
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=result)
    return parser


def name_of(arm: str, seed: int) -> str:
    """What the cell's files are called."""
    return re.sub(r"[^a-z0-9]+", "-", arm.lower()).strip("-") + f"-{seed}"


def train_cell(
    name: str,
    rows: pd.DataFrame,
    test: pd.DataFrame,
    *,
    model: str | Path,
    work: Path,
    ends: float,
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Train, answer the test rows, and keep in `<work>/<name>.json` what came of it.

    Raises `OutOfTimeError` when the monotonic clock passes `ends`. A cell that is there is not trained again.
    """
    file = work / f"{name}.json"
    if file.exists():
        return

    def show(event: Any) -> None:
        if time.monotonic() > ends:
            raise OutOfTimeError
        if event["step"] % 50 == 0:
            line = f"{name}: step {event['step']} of {event['steps']}, loss {event['loss']:.3f}"
            print(line, file=sys.stderr, flush=True)

    if time.monotonic() > ends:
        raise OutOfTimeError
    trained = student.train(rows, model=model, output=work / name, on_progress=show, **options)
    answers = student.predict(trained.output, test["input"].tolist(), choices=choices_of(test))
    right = [bool(a == g) for a, g in zip(answers["prediction"], test["gold"], strict=True)]
    last = trained.history["steps"][-1]
    cell = {
        **(facts or {}),
        "right": right,
        "steps": last["step"],
        "step_seconds": last["seconds"] / last["step"],
        "seconds": round(last["seconds"]),
        "epochs": trained.history["epochs"],
        "precision": trained.precision,
        "threads": torch.get_num_threads(),
    }
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(cell))
    partial.rename(file)
    print(f"{name}: {np.mean(right):.1%} in {cell['seconds']} s", file=sys.stderr, flush=True)


def choices_of(rows: pd.DataFrame) -> list[list[str]]:
    """Every row's choices, each named once."""
    return [list(dict.fromkeys(choices)) for choices in rows["choices"]]


def read_cells(work: Path, arms: Sequence[str], seeds: int) -> Cells:
    """The finished ones."""
    found = {}
    for arm in arms:
        for seed in range(seeds):
            file = work / f"{name_of(arm, seed)}.json"
            if file.exists():
                found[arm, seed] = json.loads(file.read_text())
    return found


def interval(per_row: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval; both test rows and seeds (axis 0) are drawn anew."""
    draw = np.random.default_rng(seed)
    seeds, rows = per_row.shape
    means = [
        per_row[draw.integers(0, seeds, seeds)][:, draw.integers(0, rows, rows)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(per_row.mean()), float(low), float(high)


def accuracy(cells: Sequence[Cell]) -> str:
    """Mean accuracy of the cells with its interval."""
    if not cells:
        return "not run"
    value, low, high = interval(np.array([cell["right"] for cell in cells], dtype=float))
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def seconds_a_step(cells: Sequence[Cell]) -> str:
    return f"{statistics.median(cell['step_seconds'] for cell in cells):.2f}"


def table(
    cells: Cells,
    arms: Sequence[str],
    seeds: int,
    *,
    more: Mapping[str, Callable[[Sequence[Cell]], str]] | None = None,
) -> list[str]:
    """One line an arm: accuracy per seed, mean with interval, and `more` columns of the cells run."""
    more = more or {}
    heads = ["", *(f"seed {seed}" for seed in range(seeds)), "mean", *more]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---|" * (len(heads) - 1)]
    for arm in arms:
        own = [cells.get((arm, seed)) for seed in range(seeds)]
        done = [cell for cell in own if cell]
        shown = [f"{np.mean(cell['right']):.1%}" if cell else "not run" for cell in own]
        extra = [tell(done) if done else "—" for tell in more.values()]
        lines.append("| " + " | ".join([arm, *shown, accuracy(done), *extra]) + " |")
    return lines


def differences(cells: Cells, pairs: Sequence[tuple[str, str]], seeds: int) -> list[str]:
    """One line for each two arms: the first's accuracy less the second's, paired by row and seed."""
    lines = ["Differences on the same test rows, seed by seed:", ""]
    for arm, other in pairs:
        both = [s for s in range(seeds) if (arm, s) in cells and (other, s) in cells]
        if not both:
            lines.append(f"- {arm} − {other}: not run")
            continue
        apart = [
            np.array(cells[arm, s]["right"], dtype=float) - np.array(cells[other, s]["right"])
            for s in both
        ]
        value, low, high = interval(np.array(apart))
        lines.append(
            f"- {arm} − {other}: {100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), "
            f"{len(both)} seed{'s' if len(both) > 1 else ''}"
        )
    return lines


def measured(cells: Sequence[Cell], options: argparse.Namespace, command: str) -> list[str]:
    """The lines on machine, versions, date and command."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    threads = " or ".join(str(n) for n in sorted({cell.get("threads", 2) for cell in cells}))
    lines = []
    if cells:
        took = [cell["seconds"] for cell in cells]
        kinds = ", ".join(sorted({cell["precision"] for cell in cells}))
        lines = [f"- precision: {kinds}; seconds to train a cell: {min(took)} to {max(took)}"]
    return [
        *lines,
        f"- machine: {processor()}, {threads} threads, shared with other work; Python "
        f"{platform.python_version()}, {versions}",
        f"- date: {options.date}",
        f"- command, also for cells not run: `{command}`",
    ]
