"""Several processes train the student that one process would have trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_student import review_rows, tiny_folder
from training_processes import TRAININGS, train

import student
from student.processes import Processes, join_processes


@pytest.mark.integration
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the accelerate extra is not installed")
    base = tiny_folder(tmp_path / "base")  # without dropout, which draws anew in each process
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    tests = Path(__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tests}:{tests.parent}"}
    # What `accelerate launch` starts for GPUs, and itself does not start for CPUs.
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    launch += [str(tests / "training_processes.py"), str(base), str(two)]
    subprocess.run(launch, check=True, env=environment, timeout=120)
    for name in TRAININGS:
        alone = train(name, base, one / name)
        history = json.loads((two / name / "history.json").read_text())
        assert history["processes"] == 2
        assert len(history["steps"]) == alone.steps > 3
        for together, single in zip(history["steps"], alone.history["steps"], strict=True):
            assert together["loss"] == pytest.approx(single["loss"], abs=1e-5)
            assert together["learning_rate"] == single["learning_rate"]
        epochs = zip(history["epochs"], alone.history["epochs"], strict=True)
        for left, right in epochs:
            assert left["validation_loss"] == pytest.approx(right["validation_loss"], abs=1e-4)
        weights = [load_file(folder / name / "model.safetensors") for folder in (one, two)]
        assert max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]) < 1e-4
    # The second process wrote nothing and told nobody.
    first, second = (json.loads((two / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first["told"] > 10
    assert second["told"] == 0
    assert first["steps"] == second["steps"]
    names = {path.name for path in two.iterdir()}
    trackers = {f"{name}-tensorboard" for name in TRAININGS}
    assert names == {*TRAININGS, *trackers, "rank-0.json", "rank-1.json"}
    assert all(len(list((two / name).iterdir())) == 1 for name in trackers)


def test_rows_are_dealt_out_once_each() -> None:
    rows = list(range(10))
    shares = [Processes(count=3, rank=rank).share(rows) for rank in range(3)]
    assert sorted(row for share in shares for row in share) == rows
    assert max(map(len, shares)) - min(map(len, shares)) == 1


def test_a_process_by_itself_shares_with_nobody() -> None:
    alone = join_processes()
    assert (alone.count, alone.rank, alone.first, alone.device) == (1, 0, True, None)
    weight = torch.nn.Parameter(torch.zeros(2))
    alone.add_gradients([weight])
    assert weight.grad is None
    assert alone.add(1.5, 2.0) == (1.5, 2.0)
    assert alone.told_by_first({"epoch": 1}) == {"epoch": 1}
    alone.check_alike("the step", 3)


@pytest.fixture
def _one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setitem(sys.modules, "accelerate", None)


@pytest.mark.usefixtures("_one_of_two")
def test_several_processes_without_accelerate_are_refused(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base")
    with pytest.raises(student.InputError, match=r"one of 2 processes .*curate-distill\[accel"):
        student.train(review_rows(), model=base, output=tmp_path / "s")
    assert not (tmp_path / "s").exists()
