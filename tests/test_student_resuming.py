"""Checkpoints: a killed training goes on to the very weights it would have had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_student import review_rows, tiny_folder
from training_child import MOMENTS, options

import student
from student.training_state import state_file


class StopError(Exception):
    """Ends a training from inside."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny", dropout_rate=0.1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are split among threads, so that the last bit depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stop_at(step: int) -> Any:
    def on_progress(now: Mapping[str, Any]) -> None:
        if now["step"] == step:
            raise StopError

    return on_progress


def same_weights(one: Path, two: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.integration
def test_killed_at_any_moment_a_training_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path
) -> None:
    tests = Path(__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tests}:{tests.parent}"}
    subprocess.run(
        [sys.executable, tests / "training_child.py", tmp_path, base], check=True, env=environment
    )
    whole = student.train(**options(base), output=tmp_path / "whole")
    assert whole.resumed_from == 0
    assert whole.steps == 18
    resumed_from = {}
    for moment in MOMENTS:
        output = tmp_path / moment
        assert not output.exists()
        assert state_file(output).exists()
        result = student.train(**options(base), output=output)
        resumed_from[moment] = result.resumed_from
        assert same_weights(output, tmp_path / "whole")
        losses = [entry["loss"] for entry in result.history["steps"]]
        assert losses == [entry["loss"] for entry in whole.history["steps"]]
        assert result.history["epochs"] == whole.history["epochs"]
    assert resumed_from == {"step": 8, "writing": 8, "saving": 16}
    # Nothing is left beside the students: no checkpoint, no half of one.
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*MOMENTS, "whole"])


def stopped(base: Path, output: Path, **changes: Any) -> Path:
    """Train up to step 5 and stop; the last checkpoint is of step 4."""
    with pytest.raises(StopError):
        student.train(**(options(base) | changes), output=output, on_progress=stop_at(5))
    return output


def test_the_best_epoch_outlives_a_stop(base: Path, tmp_path: Path) -> None:
    """The weights that validate best may be long past when the training is taken up again."""
    rows = [row | {"split": "train"} for row in review_rows()]
    # The validation labels are turned round: the better it learns, the worse they fit.
    for row in review_rows():
        other = "negative" if row["label"] == "positive" else "positive"
        rows.append(row | {"split": "validation", "label": other})
    changes: dict[str, Any] = {
        "data": rows,
        "batch_size": 8,
        "gradient_accumulation": 1,
        "epochs": 16,
        "learning_rate": 2e-2,
        "schedule": "constant",
        "early_stopping": 16,
        "checkpoint_every": 7,
    }
    changed = options(base) | changes
    with pytest.raises(StopError):
        student.train(**changed, output=tmp_path / "s", on_progress=stop_at(15))
    result = student.train(**changed, output=tmp_path / "s")
    whole = student.train(**changed, output=tmp_path / "whole")
    assert result.resumed_from == 14
    assert result.best_epoch == whole.best_epoch < 14
    assert same_weights(tmp_path / "s", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"learning_rate": 1e-3}, "learning_rate was 0.0005 and is 0.001"),
        ({"seed": 7}, "seed was 0 and is 7"),
        ({"label_prefix": "review: "}, "label_prefix was '[label] ' and is 'review: '"),
        ({"data": review_rows(repeat=4)}, "the rows changed"),
    ],
)
def test_another_training_is_not_taken_for_the_same(
    base: Path, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    output = stopped(base, tmp_path / "s")
    changed = options(base) | {"epochs": 1, "early_stopping": None} | changes
    with pytest.raises(student.InputError) as refused:
        student.train(**changed, output=output, resume=True)
    assert why in str(refused.value)
    assert "begin anew with resume=False" in str(refused.value)
    result = student.train(**changed, output=output)
    assert result.resumed_from == 0
    assert why in result.notes[0]
    assert result.notes[0].startswith("Training began anew: the checkpoint ")
    assert json.loads((output / "history.json").read_text())["notes"] == list(result.notes)


def test_other_weights_under_the_same_name_are_another_training(base: Path, tmp_path: Path) -> None:
    output = stopped(base, tmp_path / "s")
    other = tiny_folder(tmp_path / "other" / base.name, seed=3, dropout_rate=0.1)
    result = student.train(**(options(base) | {"model": other}), output=output)
    assert "the model's weights changed" in result.notes[0]


def test_a_checkpoint_may_be_taken_up_with_another_pace_of_checkpoints(
    base: Path, tmp_path: Path
) -> None:
    output = stopped(base, tmp_path / "s")
    result = student.train(**(options(base) | {"checkpoint_every": 0}), output=output, resume=True)
    assert result.resumed_from == 4
    assert result.notes == []


def test_a_damaged_checkpoint_is_said_and_not_used(base: Path, tmp_path: Path) -> None:
    output = stopped(base, tmp_path / "s")
    state_file(output).write_bytes(b"not a checkpoint")
    with pytest.raises(student.InputError, match=r"it cannot be read .* resume=False"):
        student.train(**options(base), output=output, resume=True)
    result = student.train(**options(base), output=output)
    assert (result.resumed_from, result.steps) == (0, 18)
    assert "it cannot be read" in result.notes[0]


def test_resume_false_begins_anew_and_zero_writes_none(base: Path, tmp_path: Path) -> None:
    output = stopped(base, tmp_path / "s")
    assert student.train(**options(base), output=output, resume=False).resumed_from == 0
    none = options(base) | {"checkpoint_every": 0}
    with pytest.raises(StopError):
        student.train(**none, output=tmp_path / "t", on_progress=stop_at(5))
    assert not state_file(tmp_path / "t").exists()


def test_by_default_five_minutes_pass_between_checkpoints(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = iter(range(10_000))  # a clock that a minute passes at every look
    monkeypatch.setattr("time.perf_counter", lambda: 60.0 * next(minutes))
    events: list[tuple[str, int]] = []
    student.train(
        **(options(base) | {"checkpoint_every": None}),
        output=tmp_path / "s",
        callbacks=[lambda event, values: events.append((event, values.get("step", 0)))],
    )
    steps = [step for event, step in events if event == "checkpoint"]
    # Two looks a step: the third step after the start, and then after each checkpoint, is due.
    assert len(steps) > 3
    assert {b - a for a, b in pairwise(steps)} <= {2, 3}


def test_a_disk_full_of_checkpoints_is_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("student.training_state.save_file", no_space)
    with pytest.raises(
        student.CheckpointError, match=r"checkpoint .*No space left.*checkpoint_every=0"
    ):
        student.train(**options(base), output=tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
