"""A process whose children train and are killed: by themselves, without a warning, at set moments."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tiny_student import review_rows

import student
import student.training
import student.training_state


def options(base: Path) -> dict[str, Any]:
    """Three epochs of six steps, with dropout, two micro-batches a step and early stopping."""
    rows = [row | {"split": "train"} for row in review_rows(repeat=3)]
    rows += [row | {"split": "validation"} for row in review_rows()]
    return {
        "data": rows,
        "model": base,
        "epochs": 3,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "early_stopping": 3,
        "precision": "fp32",
        "checkpoint_every": 4,
    }


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_step(output: Path, base: Path) -> None:
    """Killed after step 11: three steps after the second checkpoint, in the second epoch."""

    def on_progress(now: Mapping[str, Any]) -> None:
        if now["step"] == 11:
            _die()

    student.train(**options(base), output=output, on_progress=on_progress)


def die_in_writing(output: Path, base: Path) -> None:
    """Killed while the third checkpoint is half written."""
    save, written = student.training_state.save_file, []

    def save_half(tensors: dict[str, torch.Tensor], file: Path) -> None:
        save(tensors, file)
        written.append(file)
        if len(written) == 3:
            os.truncate(file, file.stat().st_size // 2)
            _die()

    student.training_state.save_file = save_half
    student.train(**options(base), output=output)


def die_in_saving(output: Path, base: Path) -> None:
    """Killed when all is learnt and the student is about to be written."""
    student.training.save_checkpoint = lambda *args, **kwargs: _die()
    student.train(**options(base), output=output)


MOMENTS = {"step": die_in_step, "writing": die_in_writing, "saving": die_in_saving}

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, base = Path(sys.argv[1]), Path(sys.argv[2])
    for name, die in MOMENTS.items():
        child = os.fork()
        if child == 0:
            die(folder / name, base)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"the child for {name!r} ended by itself, with status {status}")
