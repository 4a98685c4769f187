"""``curate ablate`` in several processes, and killed twice with kill -9: the result is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ablation_runs import WORD_COUNTS, labelled_run
from tiny_student import tiny_folder

from curate import ablation_room, ablations
from curate.ablation_cells import Trainer
from curate.exceptions import CurateError

pytestmark = pytest.mark.integration


def runs(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("ablating_children.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(orders)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_twice_it_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe, run = labelled_run(tmp_path, rows=160)
    (tmp_path / "tiny-t5").rmdir()
    tiny_folder(tmp_path / "tiny-t5")
    arguments = [
        "ablate",
        str(recipe),
        "--run",
        str(run),
        "--fractions",
        "50,100",
        "--seeds",
        "0,1",
    ]
    arguments += ["--validation", "0.3", "--set", "student.objective=label"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    # 40, 40, 80 and 80 rows or so are 3, 3, 5 and 5 steps: one run dies in the second cell, one in the third.
    first, second, last, unbroken = runs(
        [
            {"arguments": [*arguments, "--output", str(folder)], "cells": str(folder / "cells"),
             "deaths": deaths}
            for folder, deaths in ((killed, [5, 5]), (whole, []))
        ]
    )  # fmt: skip
    assert first["ended"] == second["ended"] == -signal.SIGKILL
    assert last["ended"] == 0
    assert 0 < len(first["cells"]) < len(second["cells"]) < len(last["cells"]) == 4
    assert first["parts"] == second["parts"] == 1
    assert last["parts"] == 0
    # What was finished was not touched again.
    assert first["cells"].items() <= second["cells"].items() <= last["cells"].items()

    assert unbroken["ended"] == 0
    told = [pd.read_parquet(folder / "cells.parquet") for folder in (killed, whole)]
    scores = [table.drop(columns=["train_seconds", "seconds"]) for table in told]
    pd.testing.assert_frame_equal(*scores)
    reports = [json.loads((folder / "ablation.json").read_text()) for folder in (killed, whole)]
    assert reports[0]["verdict"] == reports[1]["verdict"]
    assert json.loads((killed / "test-reads.json").read_text()) == [4]


def test_side_by_side_gives_the_same_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = labelled_run(tmp_path)
    monkeypatch.setattr(ablation_room, "_free_memory", lambda: 10**12)
    how: dict[str, Any] = {"run": run, "fractions": (0.25, 0.5, 1.0), "seeds": (0, 1)}
    told = []
    for jobs in (1, 2):
        found = ablations.ablate(
            recipe, output=tmp_path / f"jobs-{jobs}", trainer=WORD_COUNTS, jobs=jobs, **how
        )
        told.append(found.table().drop(columns=["train_seconds", "seconds"]))
    pd.testing.assert_frame_equal(*told)
    assert found.notes == []


def _die(*_: Any, **__: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_process_that_dies_is_said_to_want_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = labelled_run(tmp_path)
    monkeypatch.setattr(ablation_room, "_free_memory", lambda: 10**12)
    with pytest.raises(CurateError, match="most likely for want of memory: run again with fewer"):
        ablations.ablate(
            recipe, run=run, output=tmp_path / "out", fractions=(0.5, 1.0), seeds=(0,), jobs=2,
            trainer=Trainer(train=_die, predict=WORD_COUNTS.predict, name="dies"),
        )  # fmt: skip
