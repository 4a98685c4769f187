"""Runs of ``curate ablate`` that die by kill -9 in the middle of a training step, without repeated imports.

``python ablating_children.py ORDERS``: JSON, a list of orders with ``arguments`` (of ``curate``), ``cells``
(their folder) and ``deaths``, the training steps after which each run kills itself; after these one run goes
to its end. A line of JSON a run is printed: how it ended, and the finished cells with their files' times.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

# Imported once, here, and not again by each run.
import scipy.stats  # noqa: F401
import torch
import transformers.models.t5.modeling_t5  # noqa: F401

import curate.ablation_page  # noqa: F401
import student.baselines
import student.prediction
import student.training  # noqa: F401
from curate.cli import main
from curate.progress import ProgressDisplay


def run(arguments: list[str], death: int | None) -> int:
    """One run in a process of its own; 0, or minus the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = 0

    def strike(self: ProgressDisplay, stage: str, event: Any) -> None:
        nonlocal steps
        steps += stage == "train"
        if death is not None and steps >= death:
            os.kill(os.getpid(), signal.SIGKILL)

    ProgressDisplay.__call__ = strike  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = 1
    try:
        main(arguments, standalone_mode=False)
        code = 0
    finally:
        os._exit(code)


def finished(cells: Path) -> dict[str, int]:
    """Finished cells and when each was."""
    return {path.parent.name: path.stat().st_mtime_ns for path in cells.glob("*/cell.json")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for order in json.loads(sys.argv[1]):
        cells = Path(order["cells"])
        for death in [*order["deaths"], None]:
            ended = run(order["arguments"], death)
            parts = len(list(cells.glob("*.part*")))
            print(
                json.dumps({"ended": ended, "cells": finished(cells), "parts": parts}), flush=True
            )
