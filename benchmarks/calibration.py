"""What calibration is worth: movie snippets labelled by a 135-million-parameter teacher.

The teacher's label probabilities on snippets that twenty people rated each, before and after every
calibration of `labelers`, each fitted on other rows than it is judged on. Writes
benchmarks/results/calibration.md. The teacher's answers stay in the store, so that a second run asks
nothing.

    python benchmarks/calibration.py --store .curate --threads 2
"""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from machine import processor

import labelers
from curate.assets import load_data, resolve
from labelers.calibrated_rows import calibrate
from labelers.calibrations import (
    CONTENT_FREE_INPUTS,
    BatchCalibration,
    ContextualCalibration,
    IsotonicCalibration,
    TemperatureCalibration,
    brier,
    calibration_error,
)

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "calibration.md"
LABELS = ("positive", "negative")
SEED = 0
RESAMPLES = 2000


@dataclass(frozen=True)
class Figures:
    """A quantity over the judged rows, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def read_task() -> labelers.Task:
    """The demo's prompt, its first sentence about movies; the demonstrations stay products'."""
    task = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text(encoding="utf-8"))["task"]
    return labelers.Task(
        instruction=task["instruction"].replace("Product", "Movie"),
        template=task["template"],
        labels=tuple(task["labels"]),
        answer_name=task["answer_name"],
        demonstrations=tuple(labelers.Demonstration(**one) for one in task["demonstrations"]),
    )


def read_rows(per_part: int) -> pd.DataFrame:
    """As many rows to fit on (split train) as to judge by (split test); no review is in both."""
    rows = load_data("vader-movies-clear")
    drawn = random.Random(SEED)
    parts = []
    for split in ("train", "test"):
        places = rows.index[rows["split"] == split].tolist()
        parts.append(rows.loc[sorted(drawn.sample(places, per_part))])
    both = pd.concat(parts, ignore_index=True)
    fitted, judged = (set(both.loc[both["split"] == s, "review_id"]) for s in ("train", "test"))
    assert not fitted & judged
    return both


def distributions(
    rows: pd.DataFrame, task: labelers.Task, teacher: labelers.LlamaCpp, store: Path
) -> Any:
    """The rows labelled by the teacher, without any calibration."""
    return labelers.label(
        rows, task, teacher, rationales=False, calibration=None, store=store, on_progress=show
    )


def show(progress: labelers.Progress) -> None:
    if progress.done % 50 == 0:
        print(f"{progress.done} of {progress.total} rows", file=sys.stderr, flush=True)


def interval(values: Sequence[float], value: float) -> Figures:
    low, high = np.percentile(values, [2.5, 97.5])
    return Figures(value, float(low), float(high))


def judge(probabilities: Sequence[Sequence[float]], gold: Sequence[int]) -> list[Figures]:
    """Accuracy, calibration error and Brier score, with intervals over the same resamples."""

    def three(places: Sequence[int]) -> tuple[float, float, float]:
        p = [list(probabilities[i]) for i in places]
        g = [gold[i] for i in places]
        correct = [row.index(max(row)) == right for row, right in zip(p, g, strict=True)]
        sure = [min(1.0, max(row)) for row in p]
        return float(np.mean(correct)), calibration_error(sure, correct), brier(p, g)

    drawn = random.Random(SEED)
    rows = range(len(gold))
    samples = [three(drawn.choices(rows, k=len(gold))) for _ in range(RESAMPLES)]
    whole = three(rows)
    return [interval([s[k] for s in samples], whole[k]) for k in range(3)]


def compare(
    raw: list[list[float]], gold: list[int], fit: list[int], held: list[int], empty: np.ndarray
) -> dict[str, tuple[list[Figures], str]]:
    """Each method's figures over the rows held out, and what it was fitted to."""
    p, q = [raw[i] for i in fit], [raw[i] for i in held]
    g, h = [gold[i] for i in fit], [gold[i] for i in held]
    batch = BatchCalibration.fit(np.array(p))
    contextual = ContextualCalibration.fit(empty)
    temperature = TemperatureCalibration.fit(p, g)
    after_batch = TemperatureCalibration.fit(batch.apply(np.array(p)).tolist(), g)
    isotonic = IsotonicCalibration.fit(p, g)
    tried = {
        "raw": (q, "nothing"),
        "batch": (batch.apply(np.array(q)).tolist(), f"mean distribution {_list(batch.prior)}"),
        "contextual": (
            contextual.apply(np.array(q)).tolist(),
            f"{len(CONTENT_FREE_INPUTS)} inputs without content: {_list(contextual.prior)}",
        ),
        "temperature": (temperature.apply(q), f"T = {temperature.temperature:.2f}"),
        "isotonic": (isotonic.apply(q), f"{len(isotonic.curves[0][0])} corners a label"),
        "batch + temperature": (
            after_batch.apply(batch.apply(np.array(q)).tolist()),
            f"as batch, then T = {after_batch.temperature:.2f}",
        ),
    }
    return {name: (judge(found, h), how) for name, (found, how) in tried.items()}


def _list(values: np.ndarray) -> str:
    return ", ".join(f"{label} {value:.2f}" for label, value in zip(LABELS, values, strict=True))


def write(
    table: dict[str, tuple[list[Figures], str]],
    facts: dict[str, object],
    notes: Sequence[str],
    path: Path,
) -> None:
    lines = [
        "# Calibration of a small teacher's label probabilities",
        "",
        f"| method | fitted to | {' | '.join(('accuracy', 'calibration error', 'Brier score'))} |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {how} | {' | '.join(map(str, found))} |"
            for name, (found, how) in table.items()
        ),
        "",
        "In brackets: 95 % intervals, from 2,000 resamples of the judged rows. The calibration error has 15 "
        "bins, and is above 0 by chance also for a perfect teacher.",
        "",
        *(f"- {note}" for note in notes),
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500, help="rows to fit on, and to judge by")
    parser.add_argument("--store", type=Path, default=Path(".curate"))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    task = read_task()
    rows = read_rows(options.rows)
    teacher = labelers.LlamaCpp(
        model_path=resolve("smollm2-135m", "teacher"), threads=options.threads
    )
    labelled = distributions(rows, task, teacher, options.store)
    nothing = pd.DataFrame({"text": list(CONTENT_FREE_INPUTS)})
    empty = np.array(distributions(nothing, task, teacher, options.store)["label_probs"][:])
    read = [i for i, found in enumerate(labelled["label_probs"][:]) if found is not None]
    raw = [labelled["label_probs"][i] for i in read]
    gold = [LABELS.index(rows["sentiment"].iloc[i]) for i in read]
    splits = [rows["split"].iloc[i] for i in read]
    fit = [k for k, split in enumerate(splits) if split == "train"]
    held = [k for k, split in enumerate(splits) if split == "test"]
    table = compare(raw, gold, fit, held, empty)
    notes = []
    for method in ("temperature", "isotonic"):
        _, report = calibrate(
            labelled, rows["sentiment"].tolist(), method=method, labels=list(LABELS)
        )
        notes.append(f"`labelers.calibrate`: {report}")
    failed = len(rows) - len(read)
    share = np.mean([gold[k] == 0 for k in held])
    facts = {
        "rows": f"movie snippets of the built-in `vader-movies-clear`, {len(fit)} fitted on (split train) "
        f"and {len(held)} judged (split test), no review in both; {failed} without a label left out",
        "positive among the judged": f"{share:.1%}",
        "prompt": "that of `recipes/demo.yaml`, about movies; its eight demonstrations are product reviews",
        "teacher": "SmolLM2-135M-Instruct, Q4_1, run by llama.cpp",
        "machine": f"{processor()}, {options.threads or 'all'} threads, {platform.system()}",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{n} {metadata.version(n)}" for n in ("xllamacpp", "scikit-learn", "scipy")),
        "date": options.date,
        "command": f"`python benchmarks/calibration.py --rows {options.rows}"
        + (f" --threads {options.threads}`" if options.threads else "`"),
    }
    write(table, facts, notes, options.output)
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
