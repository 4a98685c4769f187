"""Does step-by-step beat the label alone? CommonsenseQA with the recorded outputs of a teacher.

The built-in flan-t5-small on a quarter of the train rows, with human labels ("gold") or those of a
540-billion-parameter teacher ("teacher"): the label alone, or label and the teacher's rationale as two
tasks (Hsieh et al. 2023). A seed fixes the draw of the rows, the validation rows carved from them, and the
training; all arms of a seed have the same rows. Training ends early by the validation rows' loss. Settings
were fixed beforehand; the test rows are read once per cell.

A further table holds what was tried on one seed to see where rationales could help more.

Finished cells are kept in --work; a run that was stopped goes on where it stood. Writes
benchmarks/results/step_by_step.md.

    python benchmarks/step_by_step.py --recorded DIR --work WORK --hours 2
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from label_noise_rows import read_quiz
from training_cells import (
    COMMON,
    ROWS,
    Cell,
    OutOfTimeError,
    differences,
    measured,
    name_of,
    options_of,
    read_cells,
    seconds_a_step,
    table,
    train_cell,
)

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "step_by_step.md"
SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "early_stopping": 2,
    "validation_fraction": 0.1,
    **COMMON,
}
STEPS = {"objective": "multitask", "alpha": 0.5}
ARMS: dict[str, dict[str, Any]] = {
    "label alone, gold": {"objective": "label", "target": "gold"},
    "step by step, gold": {**STEPS, "target": "gold"},
    "label alone, teacher": {"objective": "label", "target": "label"},
    "step by step, teacher": {**STEPS, "target": "label"},
}
#: One change each from "step by step, teacher", on the first seed. `rationales="right"` leaves out the
#: rationales of rows whose label is wrong: what better rationales would bring, not something a user could do.
TRIES: dict[str, dict[str, Any]] = {
    "shared encoder": {"shared_encoder": True},
    "alpha 0.8": {"alpha": 0.8},
    "rationales of right labels only": {"rationales": "right"},
}
BASE = "step by step, teacher"


def train(arm: str, seed: int, frame: pd.DataFrame, test: pd.DataFrame, **how: Any) -> None:
    """Train one cell, if it is not there."""
    rows = frame.sample(how.pop("rows"), random_state=seed).reset_index(drop=True)
    options = {**SETTINGS, **(ARMS[arm] if arm in ARMS else {**ARMS[BASE], **TRIES[arm]})}
    if options.pop("rationales", "all") == "right":
        rows["rationale"] = rows["rationale"].where(rows["label"] == rows["gold"])
    columns = ["id", "input", "choices", "label", "gold", "rationale"]
    agreement = float((rows["label"] == rows["gold"]).mean())
    train_cell(
        name_of(arm, seed),
        rows[columns],
        test,
        facts={"labels_right": agreement if options["target"] == "label" else 1.0},
        seed=seed,
        **how,
        **options,
    )


def best_epoch(cells: Sequence[Cell]) -> str:
    """Which epoch's weights were kept, a number for each seed."""
    kept = []
    for cell in cells:
        losses = [epoch["validation_loss"] for epoch in cell["epochs"]]
        kept.append(str(1 + losses.index(min(losses))))
    return ", ".join(kept)


def curves(cells: dict[tuple[str, int], Cell]) -> list[str]:
    """Accuracy on the validation rows after each epoch, first seed: who learns faster."""
    lines = ["| validation rows, seed 0 | " + " | ".join(f"epoch {n}" for n in range(1, 5)) + " |"]
    lines.append("|---|---|---|---|---|")
    for arm in [*ARMS, *TRIES]:
        if (arm, 0) in cells:
            found = [f"{e['validation_accuracy']:.1%}" for e in cells[arm, 0]["epochs"]]
            lines.append("| " + " | ".join([arm, *found, *["—"] * (4 - len(found))]) + " |")
    return lines


def page(cells: dict[tuple[str, int], Cell], options: Any) -> str:
    command = "python benchmarks/step_by_step.py --recorded DIR --work WORK --hours 2"
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    title, *paragraphs = (__doc__ or "").split("\n\n")
    more = {"epoch kept": best_epoch, "s per step": seconds_a_step}
    pairs = [
        ("step by step, gold", "label alone, gold"),
        ("step by step, teacher", "label alone, teacher"),
        ("label alone, gold", "label alone, teacher"),
        ("step by step, gold", "step by step, teacher"),
    ]
    tried = {key: cell for key, cell in cells.items() if key[1] == 0}
    lines = [
        f"# {title.split(' CommonsenseQA')[0]}",
        "",
        paragraphs[0].replace("\n", " "),
        "",
        f"{options.rows:,} rows a cell, a tenth of them for validation; {options.tested:,} test rows, "
        "choices scored. Intervals: 95 %, test rows and seeds resampled. Chance is 20 %.",
        "",
        *table(cells, list(ARMS), options.seeds, more=more),
        "",
        *differences(cells, pairs, options.seeds),
        "",
        "Tried on one seed, each one change from step by step with the teacher's labels:",
        "",
        *table(tried, list(TRIES), 1, more=more),
        "",
        *differences(tried, [(arm, BASE) for arm in TRIES], 1),
        "",
        *curves(cells),
        "",
        *([options.notes.read_text().strip(), ""] if options.notes else []),
        "## How this was measured",
        "",
        f"- student: the built-in flan-t5-small; {settings}; alpha 0.5 where nothing else is said",
        *measured(list(cells.values()), options, command),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options_of((__doc__ or "").splitlines()[0], RESULT)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, help="only so many, to try the script")
    parser.add_argument("--only", nargs="+", help="only these arms, for several processes at once")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    from curate.assets import resolve

    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    frame = read_quiz(options.recorded / "cqa_train.jsonl.gz")
    frame = frame[frame["label"].notna()].reset_index(drop=True)
    test = read_quiz(options.recorded / "cqa_test.jsonl.gz").head(options.test_rows or None)
    options.tested = len(test)
    order = [(arm, 0) for arm in ARMS] + [(next(iter(TRIES)), 0)]
    order += [(arm, seed) for seed in range(1, options.seeds) for arm in ARMS]
    order += [(arm, 0) for arm in list(TRIES)[1:]]
    how = {
        "model": resolve("flan-t5-small", "student"),
        "work": options.work,
        "ends": time.monotonic() + options.hours * 3600,
        "rows": options.rows,
    }
    try:
        for arm, seed in order:
            if not options.only or arm in options.only:
                train(arm, seed, frame, test, **how)
    except OutOfTimeError:
        print("out of time; the same command goes on from here", file=sys.stderr)
    cells = read_cells(options.work, [*ARMS, *TRIES], options.seeds)
    options.output.write_text(page(cells, options), encoding="utf-8")


if __name__ == "__main__":
    main()
