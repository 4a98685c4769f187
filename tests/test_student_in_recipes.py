"""What a recipe says of training reaches the training, and a killed run goes on with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_recipe import small_recipe, write_recipe
from tiny_student import tiny_folder

import curate
import student
from curate.exceptions import CurateError, RecipeError
from curate.recipe import load_recipe


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are split among threads, so that the last bit depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny-t5", dropout_rate=0.1)


@pytest.fixture
def at(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny-t5").symlink_to(tiny_t5)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_of(folder: Path, **options: Any) -> Path:
    common = {"model": "tiny-t5", "epochs": 2, "precision": "fp32", "checkpoint_every": 2}
    return write_recipe(folder, small_recipe(student=common | {"batch_size": 8} | options))


def same_weights(one: Path, two: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    return all(torch.equal(first[name], second[name]) for name in first)


def stop_at(*, begun: int, step: int) -> Any:
    """Raise at a step of the n-th student that is begun."""
    students = 0

    def on_progress(stage: str, event: Mapping[str, Any]) -> None:
        nonlocal students
        if stage == "train":
            students += event["step"] == 1
            if (students, event["step"]) == (begun, step):
                raise KeyboardInterrupt

    return on_progress


CHILD = """
import os, signal, sys, torch, curate
torch.set_num_threads(1)
def die(stage, event):
    if stage == "train" and event["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
curate.train(sys.argv[1], output="run", on_progress=die)
"""


@pytest.mark.integration
def test_a_run_killed_while_training_goes_on_from_the_checkpoint(at: Path) -> None:
    recipe = recipe_of(at)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    child = subprocess.run([sys.executable, "-c", CHILD, str(recipe)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert not (at / "run" / "student").exists()
    assert (at / "run" / ".student.checkpoint").is_file()
    done = curate.train(recipe, output="run")
    assert done.stages["curated"]["reused"] is True
    assert done.stages["student"]["resumed_from"] == 4
    whole = curate.train(recipe, output="whole")
    assert whole.stages["student"]["resumed_from"] == 0
    assert whole.stages["student"]["steps"] == done.stages["student"]["steps"] > 5
    assert same_weights(done.student, whole.student)
    assert not list((at / "run").glob(".student*"))


def test_of_two_students_the_finished_one_is_not_trained_again(at: Path) -> None:
    recipe = recipe_of(at, with_gold=True)
    with pytest.raises(KeyboardInterrupt):
        curate.train(recipe, output="run", on_progress=stop_at(begun=2, step=5))
    first = (at / "run" / "student" / "history.json").read_bytes()
    done = curate.train(recipe, output="run")
    assert (at / "run" / "student" / "history.json").read_bytes() == first
    assert done.stages["student"]["resumed_from"] == 0
    assert done.stages["student"]["gold"]["resumed_from"] == 4
    # Changed labels, changed students: nothing of the former is taken over.
    other = recipe_of(at, with_gold=True, learning_rate=1e-3)
    changed = curate.train(other, output="run")
    assert changed.stages["student"]["gold"]["resumed_from"] == 0
    assert json.loads((at / "run" / "student" / "history.json").read_bytes())["options"][
        "learning_rate"
    ] == pytest.approx(1e-3)


def test_a_checkpoint_of_another_recipe_is_said_and_not_used(at: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        curate.train(recipe_of(at), output="run", on_progress=stop_at(begun=1, step=3))
    done = curate.train(recipe_of(at, learning_rate=1e-3), output="run")
    assert done.stages["student"]["resumed_from"] == 0
    assert "learning_rate was 0.0005 and is 0.001" in done.stages["student"]["notes"][-1]


def test_every_option_reaches_the_training(at: Path) -> None:
    options = {
        "schedule": "cosine",
        "warmup_ratio": 0.2,
        "weight_decay": 0.01,
        "max_gradient_norm": 0.5,
        "max_label_tokens": 9,
        "max_rationale_tokens": 10,
        "validation_fraction": 0.25,
        "early_stopping": 1,
        "lora": {"rank": 2},
        "epochs": 1,
    }
    pytest.importorskip("peft", reason="the lora extra is not installed")
    done = curate.train(recipe_of(at, **options), output="run")
    history = json.loads((done.student / "history.json").read_text())
    whole = {"lora": {"rank": 2, "alpha": None, "dropout": 0.0}}
    assert {key: history["options"][key] for key in options} == options | whole
    assert history["validation_rows"] > 5


def test_a_cut_text_is_a_warning_of_the_run(at: Path) -> None:
    done = curate.run(recipe_of(at, max_input_tokens=12, epochs=1), output="run")
    cut = done.stages["student"]["truncated"]["inputs"]
    assert cut > 20
    said = f"The inputs of {cut} of {done.stages['student']['rows']} rows that"
    facts = json.loads((at / "run" / "run.json").read_text())
    assert any(said in note for note in facts["notes"])
    assert said in unescape((at / "run" / "report.html").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": 1}, "early_stopping is 1, and there are no rows to validate on"),
        ({"load_in_4bit": True}, "load_in_4bit=True needs lora"),
    ],
)
def test_what_training_needs_is_asked_for_before_the_teacher_is(
    at: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((CurateError, student.InputError), match=message):
        curate.run(recipe_of(at, **options), output="run")
    assert not (at / "run" / "labeled.parquet").exists()


def test_a_missing_tracker_is_named_before_the_teacher_is_asked(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(student.InputError, match="pip install wandb"):
        curate.run(recipe_of(at, report_to=["wandb"]), output="run")
    assert not (at / "run" / "labeled.parquet").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "exponential"}, "student.schedule is 'exponential': must be 'linear'"),
        ({"lora": {"rang": 8}}, "unknown key 'student.lora.rang' .* did you mean 'rank'"),
        ({"lora": {"rank": 0}}, "student.lora.rank is 0"),
        ({"report_to": ["mlflow"]}, "student.report_to.0 is 'mlflow': must be 'tensorboard'"),
        ({"curriculum": "length"}, "student.curriculum is 'length': must be 'confidence'"),
        ({"checkpoint_every": -1}, "student.checkpoint_every is -1"),
    ],
)
def test_options_are_checked_with_the_recipe(
    at: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_of(at, **options))
