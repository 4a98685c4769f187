"""Curves in TensorBoard and Weights & Biases, and functions of the user's own."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_student import review_rows, tiny_folder

import student


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


def train(base: Path, output: Path, **changes: Any) -> student.TrainingResult:
    """Four steps in two epochs, validated."""
    rows = [row | {"split": "train"} for row in review_rows()]
    rows += [row | {"split": "validation"} for row in review_rows()]
    how: dict[str, Any] = {"epochs": 2, "batch_size": 4, "checkpoint_every": 2}
    return student.train(rows, model=base, output=output, **(how | changes))


def test_a_callback_is_told_of_everything_in_order(base: Path, tmp_path: Path) -> None:
    told: list[tuple[str, Mapping[str, Any]]] = []
    result = train(base, tmp_path / "s", callbacks=[lambda *event: told.append(event)])
    epoch = ["step_end", "step_end", "checkpoint", "epoch_end"]
    assert [event for event, _ in told] == ["train_begin", *epoch, *epoch, "train_end"]
    assert told[0][1]["options"]["batch_size"] == 4
    assert told[0][1]["steps"] == 4
    steps = [values for event, values in told if event == "step_end"]
    assert [values["loss"] for values in steps] == [e["loss"] for e in result.history["steps"]]
    assert told[4][1]["validation_loss"] == result.history["epochs"][0]["validation_loss"]
    assert told[3][1]["step"] == 2
    assert told[-1][1]["output"] == str(tmp_path / "s")


def test_what_a_callback_raises_ends_the_training_and_keeps_its_checkpoint(
    base: Path, tmp_path: Path
) -> None:
    def enough(event: str, values: Mapping[str, Any]) -> None:
        if event == "epoch_end":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "s", callbacks=[enough])
    assert train(base, tmp_path / "s").resumed_from == 2


def test_tensorboard_draws_every_step_once_over_a_stop_too(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def stop(now: Mapping[str, Any]) -> None:
        if now["step"] == 3:
            raise KeyboardInterrupt

    how: dict[str, Any] = {"report_to": ["tensorboard"]}
    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "s", on_progress=stop, **how)
    result = train(base, tmp_path / "s", **how)
    assert result.resumed_from == 2
    events = EventAccumulator(str(tmp_path / "s-tensorboard")).Reload()
    drawn = {event.step: event.value for event in events.Scalars("train/loss")}
    logged = {entry["step"]: entry["loss"] for entry in result.history["steps"]}
    assert drawn == pytest.approx(logged, rel=1e-6)
    assert {event.step for event in events.Scalars("eval/loss")} == {2, 4}
    assert {"train/label_loss", "train/rationale_loss", "train/learning_rate", "eval/accuracy"} <= {
        *events.Tags()["scalars"]
    }
    assert "learning_rate: 0.0005" in str(events.Tensors("options/text_summary")[-1])


class RecordedRun:
    """Stands in for a run of Weights & Biases."""

    def __init__(self, **how: Any) -> None:
        self.how = how
        self.logged: list[dict[str, Any]] = []
        self.finished = False

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


def test_weights_and_biases_goes_on_in_the_same_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[RecordedRun] = []

    def init(**how: Any) -> RecordedRun:
        runs.append(RecordedRun(**how))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))

    def stop(now: Mapping[str, Any]) -> None:
        if now["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "s", report_to=["wandb"], on_progress=stop)
    train(base, tmp_path / "s", report_to=["wandb"])
    assert runs[0].how["id"] == runs[1].how["id"]
    assert (runs[1].how["name"], runs[1].how["resume"]) == ("s", "allow")
    assert runs[1].how["config"]["epochs"] == 2
    assert [v["step"] for v in runs[1].logged if "train/loss" in v] == [3, 4]
    assert [v["step"] for v in runs[1].logged if "eval/accuracy" in v] == [2, 4]
    assert [run.finished for run in runs] == [False, True]
    train(base, tmp_path / "s", report_to=["wandb"])
    assert runs[2].how["id"] != runs[1].how["id"]  # a training of its own


@pytest.mark.parametrize(
    ("report_to", "message"),
    [
        (
            "mlflow",
            "report_to='mlflow'; it must be a list of: tensorboard, wandb, one of them alone",
        ),
        (["mlflow"], r"report_to=\['mlflow'\]; it must be a list of: tensorboard, wandb"),
        (["wandb"], "report_to 'wandb' needs wandb: pip install wandb"),
        (["tensorboard"], r"pip install 'curate-distill\[tensorboard\]'"),
    ],
)
def test_a_tracker_that_is_not_there_is_said_before_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report_to: Any, message: str
) -> None:
    for name in ("wandb", "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(student.InputError, match=message):
        train(base, tmp_path / "s", report_to=report_to)
    assert list(tmp_path.iterdir()) == []
