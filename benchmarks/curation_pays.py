"""Does curation pay? The same student on as many rows: drawn at random, or from what a filter keeps.

CommonsenseQA as a 540-billion-parameter teacher labelled it. Each cell trains the same student with the
same settings on the same number of rows: drawn from all labelled rows ("random"), from those that
`filters.LabelNoise(minimum=0.5)` keeps, labels no better than chance being dropped ("curated"), or the
random rows with the human label instead ("gold": what perfect labels would bring). A seed fixes the draw
and the training. Settings were fixed beforehand; the test rows are read once per cell.

Finished cells are kept in --work; a run that was stopped goes on with the next. Writes
benchmarks/results/curation_pays.md.

    python benchmarks/curation_pays.py --recorded DIR --work WORK --hours 2
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from label_noise_rows import read_quiz

import filters
import student

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "curation_pays.md"
ROWS = 2_435  # a quarter of the train rows
SETTINGS: dict[str, Any] = {
    "objective": "label",
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "max_input_tokens": 128,
}
ARMS = ("random", "curated", "gold")
RESAMPLES = 1_000


def training_rows(frame: pd.DataFrame, arm: str, seed: int) -> pd.DataFrame:
    """The rows of one cell. "random" and "gold" are the same rows with another label."""
    pool = frame[frame["keep"]] if arm == "curated" else frame
    drawn = pool.sample(ROWS, random_state=seed).reset_index(drop=True)
    return drawn[["id", "input", "choices", "label", "gold"]]


def run_cell(
    frame: pd.DataFrame, test: pd.DataFrame, arm: str, seed: int, model: str, work: Path
) -> None:
    rows = training_rows(frame, arm, seed)
    start = time.perf_counter()

    def show(event: Any) -> None:
        if event["step"] % 50 == 0:
            line = (
                f"{arm} {seed}: step {event['step']} of {event['steps']}, loss {event['loss']:.3f}"
            )
            print(line, file=sys.stderr, flush=True)

    trained = student.train(
        rows,
        model=model,
        output=work / f"{arm}-{seed}",
        target="gold" if arm == "gold" else "label",
        seed=seed,
        on_progress=show,
        **SETTINGS,
    )
    trained_in = time.perf_counter() - start
    answers = student.predict(
        trained.output, test["input"].tolist(), choices=[list(c) for c in test["choices"]]
    )
    right = [bool(a == g) for a, g in zip(answers["prediction"], test["gold"], strict=True)]
    cell = {
        "arm": arm,
        "seed": seed,
        "labels_right": float((rows["label"] == rows["gold"]).mean()) if arm != "gold" else 1.0,
        "precision": trained.precision,
        "seconds": round(trained_in),
        "right": right,
    }
    (work / f"{arm}-{seed}.json").write_text(json.dumps(cell))
    print(f"{arm} {seed}: {np.mean(right):.1%} in {trained_in:.0f} s", file=sys.stderr, flush=True)


def read_cells(work: Path, seeds: int) -> dict[tuple[str, int], dict[str, Any]]:
    found = {}
    for seed in range(seeds):
        for arm in ARMS:
            file = work / f"{arm}-{seed}.json"
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


def tables(cells: dict[tuple[str, int], dict[str, Any]], seeds: int) -> list[str]:
    lines = [
        "| rows | labels right | " + " | ".join(f"seed {s}" for s in range(seeds)) + " | mean |",
        "|---|---|" + "---|" * (seeds + 1),
    ]
    for arm in ARMS:
        own = [cells.get((arm, seed)) for seed in range(seeds)]
        done = [cell for cell in own if cell]
        shown = [f"{np.mean(cell['right']):.1%}" if cell else "not run" for cell in own]
        mean, quality = "not run", "—"
        if done:
            value, low, high = interval(np.array([cell["right"] for cell in done], dtype=float))
            mean = f"{value:.1%} ({low:.1%} to {high:.1%})"
            quality = f"{np.mean([cell['labels_right'] for cell in done]):.1%}"
        lines.append(f"| {arm} | {quality} | " + " | ".join(shown) + f" | {mean} |")
    lines += ["", "Differences on the same test rows, seed by seed:", ""]
    for arm, other in (("curated", "random"), ("gold", "random"), ("gold", "curated")):
        pairs = [
            (cells[arm, s]["right"], cells[other, s]["right"])
            for s in range(seeds)
            if (arm, s) in cells and (other, s) in cells
        ]
        if pairs:
            value, low, high = interval(
                np.array([np.array(a, dtype=float) - np.array(b) for a, b in pairs])
            )
            lines.append(
                f"- {arm} − {other}: {100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), "
                f"{len(pairs)} seed{'s' if len(pairs) > 1 else ''}"
            )
    return lines


def page(cells: dict[tuple[str, int], dict[str, Any]], options: argparse.Namespace) -> str:
    try:
        names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        processor = names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        processor = platform.processor() or platform.machine()
    versions = ", ".join(f"{n} {metadata.version(n)}" for n in ("torch", "transformers"))
    command = "python benchmarks/curation_pays.py --recorded DIR --work WORK --hours 2"
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    lines = [
        "# Does curation pay?",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
        f"{ROWS:,} rows a cell; 1,221 test rows, choices scored. Intervals: 95 %, test rows and seeds "
        "resampled. Chance is 20 %.",
        "",
        *tables(cells, options.seeds),
        "",
        *([options.notes.read_text().strip(), ""] if options.notes else []),
        "## How this was measured",
        "",
        f"- student: the built-in flan-t5-small; {settings}",
        f"- precision: {', '.join(sorted({c['precision'] for c in cells.values()}))}; seconds to train a "
        f"cell: {min(c['seconds'] for c in cells.values())} to {max(c['seconds'] for c in cells.values())}",
        f"- machine: {processor}, 2 threads, shared with other work; Python {platform.python_version()}, "
        f"{versions}",
        f"- date: {options.date}",
        f"- command, also for cells not run: `{command}`",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recorded", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0, help="no cell is begun after this")
    parser.add_argument("--notes", type=Path, help="Markdown to put below the tables")
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    from curate.assets import resolve

    model = resolve("flan-t5-small", "student")
    options.work.mkdir(parents=True, exist_ok=True)
    frame = read_quiz(options.recorded / "cqa_train.jsonl.gz")
    frame = frame[frame["label"].notna()].reset_index(drop=True)
    judged = filters.apply(frame.drop(columns=["gold"]), [filters.LabelNoise(minimum=0.5)]).frame
    frame["keep"] = judged["keep"].to_numpy()
    test = read_quiz(options.recorded / "cqa_test.jsonl.gz")
    order = [(arm, seed) for seed in range(options.seeds) for arm in ARMS[:2]]
    order += [("gold", seed) for seed in range(options.seeds)]
    started = time.monotonic()
    for arm, seed in order:
        if (options.work / f"{arm}-{seed}.json").exists():
            continue
        if time.monotonic() - started > options.hours * 3600:
            break
        run_cell(frame, test, arm, seed, model, options.work)
    cells = read_cells(options.work, options.seeds)
    options.output.write_text(page(cells, options), encoding="utf-8")


if __name__ == "__main__":
    main()
