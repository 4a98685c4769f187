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

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from label_noise_rows import read_quiz
from training_cells import (
    COMMON,
    ROWS,
    Cell,
    Cells,
    OutOfTimeError,
    differences,
    measured,
    name_of,
    options_of,
    read_cells,
    table,
    train_cell,
)

import filters

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "curation_pays.md"
SETTINGS: dict[str, Any] = {
    "objective": "label",
    "epochs": 4,
    **COMMON,
}
ARMS = ("random", "curated", "gold")


def training_rows(frame: pd.DataFrame, arm: str, seed: int) -> pd.DataFrame:
    """The rows of one cell. "random" and "gold" are the same rows with another label."""
    pool = frame[frame["keep"]] if arm == "curated" else frame
    drawn = pool.sample(ROWS, random_state=seed).reset_index(drop=True)
    return drawn[["id", "input", "choices", "label", "gold"]]


def labels_right(cells: Sequence[Cell]) -> str:
    return f"{np.mean([cell['labels_right'] for cell in cells]):.1%}"


def page(cells: Cells, options: Any) -> str:
    command = "python benchmarks/curation_pays.py --recorded DIR --work WORK --hours 2"
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    pairs = [("curated", "random"), ("gold", "random"), ("gold", "curated")]
    lines = [
        "# Does curation pay?",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
        f"{ROWS:,} rows a cell; 1,221 test rows, choices scored. Intervals: 95 %, test rows and seeds "
        "resampled. Chance is 20 %.",
        "",
        *table(cells, ARMS, options.seeds, more={"labels right": labels_right}),
        "",
        *differences(cells, pairs, options.seeds),
        "",
        *([options.notes.read_text().strip(), ""] if options.notes else []),
        "## How this was measured",
        "",
        f"- student: the built-in flan-t5-small; {settings}",
        *measured(list(cells.values()), options, command),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = options_of((__doc__ or "").splitlines()[0], RESULT).parse_args()
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
    ends = time.monotonic() + options.hours * 3600
    try:
        for arm, seed in order:
            rows = training_rows(frame, arm, seed)
            right = 1.0 if arm == "gold" else float((rows["label"] == rows["gold"]).mean())
            train_cell(
                name_of(arm, seed),
                rows,
                test,
                model=model,
                work=options.work,
                ends=ends,
                facts={"labels_right": right},
                target="gold" if arm == "gold" else "label",
                seed=seed,
                **SETTINGS,
            )
    except OutOfTimeError:
        print("out of time; the same command goes on from here", file=sys.stderr)
    cells = read_cells(options.work, ARMS, options.seeds)
    options.output.write_text(page(cells, options), encoding="utf-8")


if __name__ == "__main__":
    main()
