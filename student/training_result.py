"""What a training came to: its log, and the numbers a caller asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from student.examples import blank_rows_notes

if TYPE_CHECKING:
    from student.training_loop import Training
    from student.training_state import TrainingState

__all__ = ["TrainingResult", "history_of", "result_of"]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What `train` did. `history` is what history.json holds; `seconds` is wall time.

    `rows` counts training examples with their copies; `loss` is the mean over the last epoch's
    steps; `best_epoch` is the epoch whose weights were kept; `left_out` and `truncated` count rows
    not trained on and rows cut at a token limit. `micro_batch` is how many rows went through the
    network at a time, fewer than `batch_size` where memory ran out; `resumed_from` is the step that
    a checkpoint was taken up after, else 0; `notes` are sentences about both, and about blank rows,
    for a person.
    """

    output: Path
    rows: int
    steps: int
    epochs: int
    best_epoch: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    truncated: Mapping[str, int]
    left_out: Mapping[str, int]
    precision: str
    device: str
    seconds: float
    micro_batch: int
    resumed_from: int
    notes: Sequence[str]
    history: Mapping[str, Any]


def history_of(training: Training, state: TrainingState, *, seconds: float) -> dict[str, Any]:
    """Return what history.json holds; `seconds` are those of all processes that took part in turn."""
    return {
        "steps": state.steps,
        "epochs": state.epochs,
        "best_epoch": state.best_epoch or len(state.epochs),
        "truncated": training.encoded.truncated,
        "left_out": training.left_out,
        "rows": len(training.encoded.order),
        "validation_rows": len(training.validation),
        "options": training.options,
        "precision": training.precision,
        "device": str(training.place),
        "processes": training.processes.count,
        "micro_batch": state.micro_batch,
        "resumed_from": state.resumed_from,
        "notes": [
            *blank_rows_notes(training.left_out, training.student.settings["target"]),
            *state.notes,
        ],
        "seconds": round(seconds, 2),
    }


def result_of(output: Path, history: Mapping[str, Any]) -> TrainingResult:
    """Return the result of a training whose history.json holds `history`."""
    steps, epochs = history["steps"], history["epochs"]
    last = [entry["loss"] for entry in steps if entry["epoch"] == len(epochs)]
    kept = epochs[history["best_epoch"] - 1]
    return TrainingResult(
        output=output,
        rows=history["rows"],
        steps=len(steps),
        epochs=len(epochs),
        best_epoch=history["best_epoch"],
        loss=sum(last) / len(last),
        validation_loss=kept["validation_loss"],
        validation_accuracy=kept["validation_accuracy"],
        truncated=history["truncated"],
        left_out=history["left_out"],
        precision=history["precision"],
        device=history["device"],
        seconds=history["seconds"],
        micro_batch=history["micro_batch"],
        resumed_from=history["resumed_from"],
        notes=history["notes"],
        history=history,
    )
