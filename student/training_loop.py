"""The loop over epochs and steps: what a training does between its preparation and its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from student.devices import return_freed_memory
from student.errors import TrainingError
from student.gradients import step_gradient
from student.schedules import rate_at
from student.training_state import TrainingState, is_due, write_state
from student.validation import validate

if TYPE_CHECKING:
    from peft import LoraModel

    from student.batches import EncodedExamples
    from student.examples import Example
    from student.objective_choice import Choice
    from student.objectives import Objective
    from student.prediction import Student
    from student.processes import Processes
    from student.trackers import Callback
    from student.white_box_training import ReadyTeacher

__all__ = ["Training", "run_epochs"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a training has prepared, and that stays as it is; `TrainingState` is what changes.

    `options` are the checked arguments of `train` by name (of `student.options.ALLOWED`);
    `objective` is what `choice` came to, `teacher` the white-box teacher, if there is one.
    `parameters` are those that are trained. `batches_of(epoch=n)` gives the steps of epoch n, from 1:
    places in `encoded.order`. `steps` counts those of all epochs. `left_out` counts rows, by reason.
    """

    student: Student
    adapters: LoraModel | None
    examples: Sequence[Example]
    validation: Sequence[Example]
    left_out: Mapping[str, int]
    encoded: EncodedExamples
    choice: Choice
    objective: Objective
    teacher: ReadyTeacher | None
    batches_of: Callable[..., list[list[int]]]
    steps: int
    parameters: Sequence[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    options: Mapping[str, Any]
    precision: str
    place: torch.device
    processes: Processes


def run_epochs(
    training: Training,
    state: TrainingState,
    tell: Callback,
    *,
    checkpoint: Path,
    identity: Mapping[str, Any],
) -> None:
    """Take every step that `state` has not seen, validate after each epoch, write checkpoints.

    Raises `TrainingError` when the loss stops being a number, or memory does not suffice for one row.
    """
    network, options, processes = training.student.network, training.options, training.processes
    totals = {"steps": training.steps, "epochs": options["epochs"]}
    patience = options["early_stopping"]
    started = written = time.perf_counter()
    earlier, rows_seen = state.seconds(), 0

    # Whatever is random in here depends on (seed, epoch, step) alone, and the caller's random state
    # stays as it was: a loop that starts again at some step goes on exactly as this one would.
    with torch.random.fork_rng(devices=[training.place] if training.place.type == "cuda" else []):
        for epoch in range(len(state.epochs) + 1, options["epochs"] + 1):
            if state.is_stale(patience):
                break
            batches = training.batches_of(epoch=epoch)
            for places in batches[len(state.steps) - (epoch - 1) * len(batches) :]:
                step, rows = len(state.steps) + 1, [training.encoded.order[i] for i in places]
                taken = _take_step(training, state, rows, step=step, epoch=epoch)
                rows_seen += len(rows)
                spent = time.perf_counter() - started
                state.steps.append({**taken, "seconds": round(earlier + spent, 3)})
                pace = {"rows_per_second": rows_seen / spent}
                pace["eta_seconds"] = spent / (step - state.resumed_from) * (training.steps - step)
                tell("step_end", {**state.steps[-1], **totals, **pace})
                if processes.first and is_due(step, options["checkpoint_every"], since=written):
                    write_state(checkpoint, state, network, training.optimizer, identity)
                    written = time.perf_counter()
                    tell("checkpoint", {"step": step, "file": str(checkpoint)})

            found = None
            if processes.first:
                found = validate(training.student, training.validation, training.precision)
            state.epochs.append({"epoch": epoch, **processes.told_by_first(found)})
            if patience is not None:
                state.keep_if_best(network)
            tell("epoch_end", {**state.epochs[-1], "step": len(state.steps)})


def _take_step(
    training: Training, state: TrainingState, rows: Sequence[int], *, step: int, epoch: int
) -> dict[str, Any]:
    """Compute the gradient over `rows`, clip it, move the weights; return the step's line in the log."""
    options, choice = training.options, training.choice
    training.student.network.train()
    total, label, rationale, soft = step_gradient(
        training.student,
        training.encoded,
        rows,
        training.objective,
        state,
        precision=training.precision,
        dropout_seed=(options["seed"] * 1_000_003 + step) % 2**63,
        processes=training.processes,
        sample=training.teacher.sample if training.teacher else None,
    )
    norm = torch.nn.utils.clip_grad_norm_(training.parameters, options["max_gradient_norm"])
    rate = rate_at(
        step,
        training.steps,
        options["learning_rate"],
        options["schedule"],
        options["warmup_ratio"],
    )
    if not (math.isfinite(total) and math.isfinite(float(norm))):
        raise TrainingError(_diverged(step, epoch, total, float(norm), rate, training.precision))
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    return_freed_memory(training.place)
    return {
        "step": step,
        "epoch": epoch,
        "loss": total,
        "label_loss": label,
        "rationale_loss": rationale if choice.name == "multitask" else None,
        "soft_loss": soft if choice.is_soft else None,
        "learning_rate": rate,
    }


def _diverged(step: int, epoch: int, loss: float, norm: float, rate: float, precision: str) -> str:
    advice = "a lower learning_rate (it is usual between 1e-4 and 1e-3) or a longer warmup_ratio"
    if precision == "bf16":
        advice += ", or precision='fp32'"
    return (
        f"the loss became {loss} (gradient norm {norm}) at step {step} of epoch {epoch}, with a "
        f"learning rate of {rate:.2g}; nothing was saved. Try {advice}"
    )
