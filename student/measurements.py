"""What a student takes: time for one row and for many, memory, disk; and perplexity of references."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from student.errors import InputError
from student.formatting import token_ids
from student.loading import Student, find_folder, load
from student.networks import parts
from student.prediction import network_of, predict, source_ids

__all__ = ["measure", "perplexity", "reference_losses"]


def measure(
    model: str | Path | Student,
    inputs: Sequence[str],
    *,
    choices: Sequence[Sequence[str]] | Sequence[str] | None = None,
    rationales: Sequence[str | None] | None = None,
    method: str = "auto",
    single_rows: int = 50,
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
) -> dict[str, Any]:
    """Return what predicting `inputs` takes here and now.

    {"format", "rows", "batch_size", "threads",
    "latency_p50_ms", "latency_p95_ms": of one row alone, over at most `single_rows` of them,
    "rows_per_second": of all rows in batches,
    "peak_memory_mb": of this whole process while predicting (on CUDA: of torch's allocations),
    "size_on_disk_mb": of the folder, or null for a student given in memory,
    "parameters": of a `transformers` student, else null}

    Each way is warmed up by one batch first. Times depend on the machine and on what else it does.
    Raises `InputError` where there are no inputs.
    """
    if len(inputs) == 0:
        raise InputError("no inputs to measure with; give at least one text")
    loaded = model if isinstance(model, Student) else load(model, device=device)
    how: dict[str, Any] = {"method": method, "batch_size": batch_size, "precision": precision}
    if rationales is None and loaded.formatting.rationale_in == "input":
        rationales = [None] * len(inputs)  # timed on the texts alone
    own = choices is not None and not all(isinstance(each, str) for each in choices)

    def run(first: int, last: int) -> float:
        started = time.perf_counter()
        rows = slice(first, last)
        predict(
            loaded,
            inputs[rows],
            choices=choices[rows] if own and choices is not None else choices,
            rationales=None if rationales is None else rationales[rows],
            **how,
        )
        return time.perf_counter() - started

    run(0, batch_size)
    singles = [run(i, i + 1) * 1000 for i in range(min(single_rows, len(inputs)))]
    _forget_peak(loaded)
    seconds = run(0, len(inputs))
    p50, p95 = np.quantile(singles, [0.5, 0.95])
    network: Any = loaded.network
    return {
        "format": loaded.format,
        "rows": len(inputs),
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "latency_p50_ms": float(p50),
        "latency_p95_ms": float(p95),
        "rows_per_second": len(inputs) / seconds,
        "peak_memory_mb": _peak(loaded),
        "size_on_disk_mb": None if isinstance(model, Student) else size_on_disk(model),
        "parameters": sum(p.numel() for p in network.parameters())
        if loaded.format == "transformers"
        else None,
    }


def perplexity(
    model: str | Path | Student, inputs: Sequence[str], references: Sequence[str], **how: Any
) -> float:
    """Return exp of the mean -log p of the references' tokens, closing token included.

    `how` is `rationales`, `batch_size`, `precision` and `device` as in `reference_losses`.
    """
    losses = reference_losses(model, inputs, references, **how)
    if not losses:
        raise InputError("no rows to compute a perplexity of")
    return float(np.exp(sum(loss for loss, _ in losses) / sum(tokens for _, tokens in losses)))


def reference_losses(
    model: str | Path | Student,
    inputs: Sequence[str],
    references: Sequence[str],
    *,
    rationales: Sequence[str | None] | None = None,
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
) -> list[tuple[float, int]]:
    """Return, row by row, (-log p of the reference given the input in nats, its tokens).

    A reference longer than the student's limit for labels is cut there, as in training. `rationales`
    are as in `predict`. Raises `InputError` where there is not one reference per input, and for a
    student that writes a rationale before its answer.
    """
    if len(inputs) != len(references):
        raise InputError(f"{len(inputs)} inputs and {len(references)} references; give one each")
    student = model if isinstance(model, Student) else load(model, device=device)
    network, formatting = network_of(student, precision), student.formatting
    if formatting.rationale_in == "target":
        raise InputError(
            "this student writes a rationale before its answer, so that the answer alone has no "
            "perplexity; take a student of another objective"
        )
    sources = source_ids(student, inputs, rationales)
    targets, _ = token_ids(list(references), student.tokenizer, formatting.max_label_tokens)
    losses = [(0.0, 0)] * len(sources)
    for rows in parts(sorted(range(len(sources)), key=lambda i: len(sources[i])), batch_size):
        found = network.score(
            [sources[i] for i in rows], [[targets[i]] for i in rows], batch_size=batch_size
        )
        for row, (score,) in zip(rows, found, strict=True):
            losses[row] = (-score, len(targets[row]))
    return losses


def size_on_disk(model: str | Path) -> float | None:
    """Return the megabytes of a folder's files; None for a plain Hub model."""
    folder = find_folder(model)
    if folder is None:
        return None
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def _forget_peak(student: Student) -> None:
    """Have the system count the peak anew, where it can: else the peak is the process's own."""
    if _on_cuda(student):
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak(student: Student) -> float:
    if _on_cuda(student):
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e3
    except (OSError, StopIteration):
        pass
    try:
        resource: Any = importlib.import_module("resource")  # not on Windows
    except ImportError:
        return float("nan")
    most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def _on_cuda(student: Student) -> bool:
    return student.format == "transformers" and student.network.device.type == "cuda"
