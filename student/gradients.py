"""The gradient of one optimizer step: exact, in as many parts as the memory asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from student.batches import Batch, EncodedExamples, collate
from student.devices import autocast
from student.errors import TrainingError
from student.objectives import Denominators, Objective
from student.prediction import Student
from student.processes import Processes
from student.training_state import TrainingState

__all__ = ["Sampler", "step_gradient"]

Sampler = Callable[[PreTrainedModel, Batch], Batch]
"""Gives some rows of a batch the targets that the student itself has just written."""


def step_gradient(
    student: Student,
    encoded: EncodedExamples,
    rows: Sequence[int],
    objective: Objective,
    state: TrainingState,
    *,
    precision: str,
    dropout_seed: int,
    processes: Processes,
    sample: Sampler | None = None,
) -> tuple[float, float, float, float]:
    """Add the gradient of one step over `rows`; return the loss, its label, rationale and soft parts.

    `state.micro_batch` rows go through the network at a time. Where memory runs out, that number is
    halved, for good, and the step begins again: the denominators are the whole step's, so that the
    gradient is the same (dropout draws anew). Of several processes each takes a share of the rows.

    Raises `TrainingError` when a single row is too much.
    """
    while True:
        try:
            torch.manual_seed(dropout_seed + (processes.rank << 40))
            losses = _add_parts(
                student, encoded, rows, objective, state.micro_batch, precision, processes, sample
            )
            break
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            message = str(error).split(". ")[0]
        # Outside the handler, so that the traceback no longer holds the step's tensors.
        student.network.zero_grad(set_to_none=True)
        if student.network.device.type == "cuda":
            torch.cuda.empty_cache()
        step = len(state.steps) + 1
        if state.micro_batch == 1:
            raise TrainingError(
                f"out of memory at step {step} with one row at a time ({message}), rows of up to "
                f"{max(len(encoded.label_inputs[row]) for row in rows)} tokens. Lower "
                "max_input_tokens or max_rationale_tokens, take a smaller model, or train adapters "
                "with lora={'rank': 8}"
            )
        state.micro_batch = (state.micro_batch + 1) // 2
        state.notes.append(
            f"Out of memory at step {step}: from there {state.micro_batch} rows at a time, their "
            "gradients added up, which is the same step."
        )
    processes.add_gradients(p for p in student.network.parameters() if p.requires_grad)
    total, label, rationale, soft = processes.add(*losses)
    return total, label, rationale, soft


def _add_parts(
    student: Student,
    encoded: EncodedExamples,
    rows: Sequence[int],
    objective: Objective,
    micro_batch: int,
    precision: str,
    processes: Processes,
    sample: Sampler | None,
) -> tuple[float, float, float, float]:
    network, pad = student.network, int(student.tokenizer.pad_token_id)
    # Of the whole step, whoever computes it: so the parts' gradients add up to one large batch's.
    whole = collate(encoded, rows, pad_token_id=pad)
    denominators = Denominators.of(whole)
    mine = processes.share(rows)
    taken = [mine[start : start + micro_batch] for start in range(0, len(mine), micro_batch)]
    parts: Iterable[Batch] = (
        whole if part == rows else collate(encoded, part, pad_token_id=pad) for part in taken
    )
    if sample is not None:
        with autocast(precision, network.device):
            parts = [sample(network, part.to(network.device)) for part in parts]
        # How long the student's own answers are is known only now.
        (sampled,) = processes.add(Denominators.of(*parts).sampled)
        denominators = replace(denominators, sampled=sampled)
    losses = [(0.0, 0.0, 0.0, 0.0)]
    for part in parts:
        with autocast(precision, network.device):
            loss = objective(network, part.to(network.device), denominators)
        loss.total.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.parts())
    total, label, rationale, soft = (sum(values) for values in zip(*losses, strict=True))
    return total, label, rationale, soft


def _out_of_memory(error: BaseException) -> bool:
    """Say whether an error is about memory; torch has no exception of its own for the CPU's."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error)
