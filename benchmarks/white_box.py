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

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from label_noise_rows import read_quiz
from training_cells import (
    COMMON,
    ROWS,
    OutOfTimeError,
    choices_of,
    differences,
    measured,
    name_of,
    options_of,
    read_cells,
    seconds_a_step,
    table,
    train_cell,
)

import student

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "white_box.md"
SETTINGS: dict[str, Any] = {
    "target": "gold",
    "epochs": 4,
    **COMMON,
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
SPEED_ROWS, SPEED_ROUNDS = 160, 5
TEACHER = "teacher, 8 + 8 layers"


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
    """The table of accuracies, the teacher's first, and the differences from labels alone."""
    cells = read_cells(work, [*ARMS, "teacher"], seeds)
    shown = {(f"student, {arm}" if arm in ARMS else TEACHER, s): c for (arm, s), c in cells.items()}
    students = [f"student, {arm}" for arm in ARMS]
    more = {"s per step": seconds_a_step}
    pairs = [(one, students[0]) for one in students[1:]]
    return [
        *table(shown, [TEACHER, *students], seeds, more=more),
        "",
        *differences(shown, pairs, seeds),
    ]


def page(options: Any) -> str:
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
        "test rows and seeds resampled. Chance is 20 %. The teacher is trained once.",
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
        *measured(
            list(read_cells(options.work, [*ARMS, "teacher"], options.seeds).values()),
            options,
            command,
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options_of((__doc__ or "").splitlines()[0], RESULT)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, help="only so many, to try the script")
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    drawn = read_quiz(options.recorded / "cqa_train.jsonl.gz").sample(options.rows, random_state=0)
    rows = drawn.reset_index(drop=True)[["id", "input", "choices", "gold"]]
    test = read_quiz(options.recorded / "cqa_test.jsonl.gz").head(options.test_rows or None)
    options.tested = len(test)
    try:
        run_cells(rows, test, options)
    except OutOfTimeError:
        print("out of time; the same command goes on from here", file=sys.stderr)
    options.output.write_text(page(options), encoding="utf-8")


def run_cells(rows: pd.DataFrame, test: pd.DataFrame, options: Any) -> None:
    """Train the teacher, cut the student out of it, train every arm, and time both models."""
    from curate.assets import resolve

    work = options.work
    how = {**SETTINGS, "work": work, "ends": time.monotonic() + options.hours * 3600}
    model = resolve("flan-t5-small", "student")
    train_cell(name_of("teacher", 0), rows, test, model=model, objective="label", **how)
    teacher, small = work / name_of("teacher", 0), work / "shrunk"
    if not small.exists():
        student.shrink(teacher, encoder_layers=LAYERS, decoder_layers=LAYERS, output=small)
    order = [(arm, seed) for seed in range(options.seeds) for arm in list(ARMS)[:2]]
    order += [(arm, seed) for seed in range(options.seeds) for arm in list(ARMS)[2:]]
    for arm, seed in order:
        more = white_box_options(arm, teacher, work)
        train_cell(name_of(arm, seed), rows, test, model=small, seed=seed, **how, **more)
        if not (work / "speed.json").exists():  # needs a trained student, which knows when to stop
            models = {"teacher": teacher, "student": work / name_of(arm, seed)}
            measure_speed(models, test, work / "speed.json")


if __name__ == "__main__":
    main()
