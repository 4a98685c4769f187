"""Several processes that train one student together, started by `accelerate launch`.

Every process takes its share of a step's rows and divides by the whole step's tokens, so that the
sum of their gradients is the gradient a single process would have computed. One all-reduce a step
adds them; the weights then take the same step everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch

from student.errors import InputError

__all__ = ["Processes", "join_processes"]

PATIENCE = timedelta(hours=3)
"""How long the others wait while the first one validates or writes."""

BUCKET = 2**26
"""Numbers added up in one all-reduce (256 MiB in fp32): few calls, and little memory beside."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How many processes train together, which one this is, and the device it was given.

    With a `count` of 1, everything here returns what it was given at once.
    """

    count: int = 1
    rank: int = 0
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """Return this process's part of the rows; lengths are alike in every part."""
        return rows[self.rank :: self.count]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.count == 1:
            return
        bucket: list[torch.Tensor] = []
        size = 0
        for parameter in parameters:
            if parameter.grad is None:  # this process's share had no rows
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            size += parameter.numel()
            if size >= BUCKET:
                self._add(bucket)
                bucket, size = [], 0
        if bucket:
            self._add(bucket)

    def add(self, *values: float) -> tuple[float, ...]:
        """Return the sum of each value over the processes."""
        if self.count == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return tuple(summed.tolist())

    def told_by_first(self, value: Any) -> Any:
        """Return what the first process gave, to all of them."""
        if self.count == 1:
            return value
        told = [value]
        torch.distributed.broadcast_object_list(told)
        return told[0]

    def check_alike(self, what: str, value: int) -> None:
        """Raise `InputError` unless all processes have the same value of `what`."""
        if self.told_by_first(value) != value:
            raise InputError(
                f"process {self.rank} has another value of {what} ({value}) than the first process: "
                "all processes must see the same output folder and the same data"
            )

    def wait(self) -> None:
        """Wait for the others."""
        if self.count > 1:
            torch.distributed.barrier()

    def _add(self, gradients: Sequence[torch.Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()


def join_processes() -> Processes:
    """Meet the processes that `accelerate launch` (or torchrun) started along with this one.

    Raises `InputError` when this is one of several processes and accelerate is missing.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if not (count.isdigit() and int(count) > 1 and "LOCAL_RANK" in os.environ):
        return Processes()
    try:
        accelerate: Any = import_module("accelerate")
    except ImportError as error:
        raise InputError(
            f"this is one of {count} processes (WORLD_SIZE={count}), which takes accelerate: "
            "pip install 'curate-distill[accelerate]', or unset WORLD_SIZE to train in one process"
        ) from error
    on_cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU") == "true"
    joined = accelerate.PartialState(cpu=on_cpu, timeout=PATIENCE)
    return Processes(count=joined.num_processes, rank=joined.process_index, device=joined.device)
