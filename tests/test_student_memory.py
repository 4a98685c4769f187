"""Where memory runs out, a step is cut into smaller parts and stays the same step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_student import review_rows, tiny_folder

import student
import student.training_preparation
from student.objective_choice import choose_objective


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")  # without dropout


def room_for(rows: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the objective run out of memory, after its forward pass, above so many rows."""
    seen: list[int] = []

    def choose(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        objective = choose_objective(*args, **kwargs)

        def cramped(model: Any, batch: Any, denominators: Any) -> Any:
            loss = objective(model, batch, denominators)
            seen.append(len(batch.label_targets))
            if seen[-1] > rows:
                loss.total.backward()  # a gradient was there already when memory ran out
                raise error
            return loss

        return cramped

    monkeypatch.setattr(student.training_preparation, "choose_objective", choose)
    return seen


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_a_smaller_micro_batch_gives_the_same_steps(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    rows = review_rows(repeat=2)
    rows[3]["weight"] = 2.5
    how: dict[str, Any] = {"model": base, "epochs": 2, "batch_size": 8, "precision": "fp32"}
    roomy = student.train(rows, output=tmp_path / "roomy", **how)
    seen = room_for(3, error, monkeypatch)
    cramped = student.train(rows, output=tmp_path / "cramped", **how)
    # Eight rows and four rows are too many; from then on two at a time, without trying again.
    assert seen == [8, 4, *[2] * 16]
    assert (roomy.micro_batch, cramped.micro_batch) == (8, 2)
    assert cramped.history["micro_batch"] == 2
    assert [note[:35] for note in cramped.notes] == ["Out of memory at step 1: from there"] * 2
    assert "2 rows at a time" in cramped.notes[1]
    assert cramped.steps == roomy.steps == 4
    for one, two in zip(roomy.history["steps"], cramped.history["steps"], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
    first, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("roomy", "cramped")
    )
    assert max(float((first[n] - second[n]).abs().max()) for n in first) < 1e-4


def test_one_row_too_many_is_an_error_that_says_what_to_do(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(0, OUT_OF_MEMORY[0], monkeypatch)
    with pytest.raises(
        student.TrainingError, match=r"one row at a time \(CUDA out of memory\).*max_input_tokens"
    ):
        student.train(review_rows(), model=base, output=tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_another_error_is_not_taken_for_memory(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(0, RuntimeError("shapes do not match"), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        student.train(review_rows(), model=base, output=tmp_path / "s")
