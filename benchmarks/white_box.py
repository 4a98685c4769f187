"""What a seen teacher is worth: a student of half the layers, trained with and without its distributions.

CommonsenseQA with human labels. The built-in flan-t5-small (8 + 8 layers) is fine-tuned and becomes the
teacher. `student.shrink` takes 4 + 4 of its layers, and that student is trained on the same rows, once for
each way: labels alone; forward KL to the teacher's distributions, cached on disk; reverse KL, half of the
sequences being the student's own. All ways start from the same weights, see the same rows in the same
order, and take the same steps. Settings were fixed beforehand; the test rows are read once per cell.

Finished cells are kept in --work; a run that was stopped goes on with the next, and within a training
where it stood. Writes benchmarks/results/white_box.md.

    python benchmarks/white_box.py --recorded DIR --work WORK --hours 2
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from curation_pays import interval
from label_noise_rows import read_quiz

import student

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "white_box.md"
ROWS = 2_435  # a quarter of the train rows
SETTINGS: dict[str, Any] = {
    "target": "gold",
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "max_input_tokens": 128,
}
LAYERS = 4
SOFT: dict[str, Any] = {"objective": "white_box", "soft_weight": 0.5, "temperature": 2.0}
ARMS: dict[str, dict[str, Any]] = {
    "labels alone": {"objective": "label"},
    "forward KL": {**SOFT, "white_box": {"divergence": "forward_kl", "top_k": 64}},
    "reverse KL, half on-policy": {
        **SOFT,
        "white_box": {"divergence": "reverse_kl", "on_policy": 0.5},
    },
}
SPEED_ROWS, SPEED_ROUNDS = 320, 5


def file_of(work: Path, arm: str, seed: int) -> Path:
    return work / f"{arm.replace(' ', '-').replace(',', '')}-{seed}.json"


def train_cell(
    name: str,
    rows: pd.DataFrame,
    test: pd.DataFrame,
    model: str | Path,
    output: Path,
    file: Path,
    **options: Any,
) -> None:
    """Train, answer the test rows, and keep what came of it in `file`."""
    start = time.perf_counter()

    def show(event: Any) -> None:
        if event.get("step", 0) % 50 == 0 and "steps" in event:
            line = f"{name}: step {event['step']} of {event['steps']}, loss {event['loss']:.3f}"
            print(line, file=sys.stderr, flush=True)

    trained = student.train(rows, model=model, output=output, on_progress=show, **options)
    seconds = time.perf_counter() - start
    answers = student.predict(output, test["input"].tolist(), choices=choices_of(test))
    right = [bool(a == g) for a, g in zip(answers["prediction"], test["gold"], strict=True)]
    cell = {
        "right": right,
        "steps": trained.steps,
        "step_seconds": trained.history["steps"][-1]["seconds"] / trained.steps,
        "seconds": round(seconds),
        "precision": trained.precision,
    }
    file.write_text(json.dumps(cell))
    print(f"{name}: {np.mean(right):.1%} in {seconds:.0f} s", file=sys.stderr, flush=True)


def choices_of(rows: pd.DataFrame) -> list[list[str]]:
    return [list(dict.fromkeys(choices)) for choices in rows["choices"]]


def white_box_options(arm: str, teacher: Path, work: Path) -> dict[str, Any]:
    options = dict(ARMS[arm])
    if "white_box" in options:
        options["white_box"] = {"teacher": teacher, **options["white_box"]}
        if "on_policy" not in options["white_box"]:
            options["white_box"]["cache"] = work / "teacher-cache"
    return options


def measure_speed(models: dict[str, Path], test: pd.DataFrame, file: Path) -> None:
    """Rows per second of each model in turn, greedily and by scoring; the median of some rounds."""
    rows = test.head(SPEED_ROWS)
    inputs, choices = rows["input"].tolist(), choices_of(rows)
    loaded = {name: student.load(folder) for name, folder in models.items()}
    pace: dict[str, dict[str, list[float]]] = {
        name: {"generate": [], "score": []} for name in models
    }
    for number in range(SPEED_ROUNDS + 1):  # the first round warms up
        for name, one in loaded.items():
            for method in ("generate", "score"):
                start = time.perf_counter()
                student.predict(one, inputs, choices=choices, method=method, batch_size=16)
                if number:
                    pace[name][method].append(len(rows) / (time.perf_counter() - start))
    found: dict[str, dict[str, Any]] = {
        name: {
            **pace[name],
            "parameters": sum(p.numel() for p in loaded[name].network.parameters()),
            "megabytes": (folder / "model.safetensors").stat().st_size / 1e6,
        }
        for name, folder in models.items()
    }
    file.write_text(json.dumps(found))


def speed_lines(file: Path) -> list[str]:
    if not file.exists():
        return ["Size and speed: not run."]
    found = json.loads(file.read_text())
    lines = [
        "| | layers | parameters | weights on disk | greedy, rows/s | scored, rows/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, layers in (("teacher", "8 + 8"), ("student", f"{LAYERS} + {LAYERS}")):
        one = found[name]
        paces = [
            f"{statistics.median(one[m]):.0f} ({min(one[m]):.0f} to {max(one[m]):.0f})"
            for m in ("generate", "score")
        ]
        lines.append(
            f"| {name} | {layers} | {one['parameters'] / 1e6:.1f} M | {one['megabytes']:.0f} MB | "
            f"{paces[0]} | {paces[1]} |"
        )
    return lines


def accuracy_lines(work: Path, seeds: int) -> list[str]:
    cells = {
        (arm, seed): json.loads(file_of(work, arm, seed).read_text())
        for arm in ARMS
        for seed in range(seeds)
        if file_of(work, arm, seed).exists()
    }
    lines = [
        "| | " + " | ".join(f"seed {seed}" for seed in range(seeds)) + " | mean | s per step |",
        "|---|" + "---|" * (seeds + 2),
    ]
    teacher = work / "teacher.json"
    if teacher.exists():
        cell = json.loads(teacher.read_text())
        lines.append(
            f"| teacher, 8 + 8 | {np.mean(cell['right']):.1%} |"
            + " |" * (seeds - 1)
            + f" {spread(np.array([cell['right']], dtype=float))} | {cell['step_seconds']:.2f} |"
        )
    else:
        lines.append("| teacher, 8 + 8 | not run |" + " |" * (seeds + 1))
    for arm in ARMS:
        own = [cells.get((arm, seed)) for seed in range(seeds)]
        done = [cell for cell in own if cell]
        shown = [f"{np.mean(cell['right']):.1%}" if cell else "not run" for cell in own]
        mean, pace = "not run", "—"
        if done:
            mean = spread(np.array([cell["right"] for cell in done], dtype=float))
            pace = f"{statistics.median(cell['step_seconds'] for cell in done):.2f}"
        lines.append(f"| student, {arm} | " + " | ".join(shown) + f" | {mean} | {pace} |")
    lines += ["", "Differences on the same test rows, seed by seed:", ""]
    first = next(iter(ARMS))
    for arm in list(ARMS)[1:]:
        both = [s for s in range(seeds) if (arm, s) in cells and (first, s) in cells]
        if both:
            pairs = [np.array(cells[arm, s]["right"], dtype=float) for s in both]
            apart = [
                a - np.array(cells[first, s]["right"]) for a, s in zip(pairs, both, strict=True)
            ]
            value, low, high = interval(np.array(apart))
            lines.append(
                f"- {arm} − {first}: {100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), "
                f"{len(both)} seed{'s' if len(both) > 1 else ''}"
            )
        else:
            lines.append(f"- {arm} − {first}: not run")
    return lines


def spread(right: np.ndarray) -> str:
    value, low, high = interval(right)
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def page(options: argparse.Namespace) -> str:
    try:
        names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        processor = names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        processor = platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    title, *paragraphs = (__doc__ or "").split("\n\n")
    command = "python benchmarks/white_box.py --recorded DIR --work WORK --hours 2"
    if options.rows != ROWS:
        command += f" --rows {options.rows}"
    lines = [
        f"# {title.split(':')[0]}",
        "",
        paragraphs[0].replace("\n", " "),
        "",
        f"{options.rows:,} training rows; {options.tested:,} test rows, choices scored. Intervals: 95 %, "
        "test rows and seeds resampled. Chance is 20 %.",
        "",
        *accuracy_lines(options.work, options.seeds),
        "",
        *speed_lines(options.work / "speed.json"),
        "",
        *([options.notes.read_text().strip(), ""] if options.notes else []),
        "## How this was measured",
        "",
        f"- teacher: the built-in flan-t5-small; all trainings: {settings}; with a teacher: soft_weight "
        f"{SOFT['soft_weight']}, temperature {SOFT['temperature']}",
        f"- speed: the same {SPEED_ROWS} test rows, batch 16, both models in turn, median of {SPEED_ROUNDS} "
        "rounds (least to most)",
        f"- machine: {processor}, {torch.get_num_threads()} threads, shared with other work; Python "
        f"{platform.python_version()}, {versions}",
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
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, help="only so many, to try the script")
    parser.add_argument("--notes", type=Path, help="Markdown to put below the tables")
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    from curate.assets import resolve

    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    drawn = read_quiz(options.recorded / "cqa_train.jsonl.gz").sample(options.rows, random_state=0)
    rows = drawn.reset_index(drop=True)[["id", "input", "choices", "gold"]]
    test = read_quiz(options.recorded / "cqa_test.jsonl.gz").head(options.test_rows or None)
    options.tested = len(test)
    started = time.monotonic()
    teacher, small = work / "teacher", work / "shrunk"

    def may_begin(file: Path) -> bool:
        return not file.exists() and time.monotonic() - started < options.hours * 3600

    if may_begin(work / "teacher.json"):
        model = resolve("flan-t5-small", "student")
        how = {**SETTINGS, "objective": "label"}
        train_cell("teacher", rows, test, model, teacher, work / "teacher.json", **how)
    if (work / "teacher.json").exists():
        if not small.exists():
            student.shrink(teacher, encoder_layers=LAYERS, decoder_layers=LAYERS, output=small)
        order = [(arm, seed) for seed in range(options.seeds) for arm in list(ARMS)[:2]]
        order += [(arm, seed) for seed in range(options.seeds) for arm in list(ARMS)[2:]]
        for arm, seed in order:
            file = file_of(work, arm, seed)
            if may_begin(file):
                how = {**SETTINGS, **white_box_options(arm, teacher, work), "seed": seed}
                output = work / file.stem
                train_cell(f"{arm} {seed}", rows, test, small, output, file, **how)
        if may_begin(work / "speed.json"):
            measure_speed({"teacher": teacher, "student": small}, test, work / "speed.json")
    options.output.write_text(page(options), encoding="utf-8")


if __name__ == "__main__":
    main()
