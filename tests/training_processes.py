"""What `accelerate launch` runs in each of several processes: two small trainings."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_student import review_rows

import student

#: Global batches of four and of a single row: there is then a process without any.
TRAININGS: dict[str, dict[str, Any]] = {
    "fours": {"batch_size": 4, "epochs": 2, "checkpoint_every": 2},
    "ones": {"batch_size": 1, "epochs": 1, "objective": "label"},
}


def train(name: str, base: Path, output: Path, **changes: Any) -> student.TrainingResult:
    """Train on reviews of unlike length, some without a rationale, some with a weight."""
    rows = [row | {"split": "train"} for row in review_rows()]
    rows[2]["weight"] = 3.0
    rows[5]["input"] = " ".join([rows[5]["input"]] * 4)
    rows += [row | {"split": "validation"} for row in review_rows()[:4]]
    how: dict[str, Any] = {"model": base, "early_stopping": 2, "precision": "fp32"}
    return student.train(rows, output=output, **(how | TRAININGS[name] | changes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    base, folder = Path(sys.argv[1]), Path(sys.argv[2])
    told: list[str] = []
    for name in TRAININGS:
        result = train(
            name,
            base,
            folder / name,
            report_to=["tensorboard"],
            callbacks=[lambda event, values: told.append(event)],
        )
        assert (
            folder / name / "model.safetensors"
        ).exists()  # for every process, once train returns
    rank = os.environ["RANK"]
    facts = {"told": len(told), "steps": [entry["loss"] for entry in result.history["steps"]]}
    (folder / f"rank-{rank}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()
