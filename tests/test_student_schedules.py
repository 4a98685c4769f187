"""Learning rates by hand, and rows from easy to hard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_student import review_rows, tiny_folder

import student
from student.batches import bucketed_batches
from student.curriculum import epoch_batches
from student.schedules import rate_at


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]),
        ("cosine", [0.5, 1.0, *((1 + math.cos(math.pi * i / 7)) / 2 for i in range(1, 7))]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_rates_of_eight_steps_two_of_them_warm_up(schedule: str, expected: list[float]) -> None:
    rates = [rate_at(step, 8, 2e-3, schedule, 0.25) for step in range(1, 9)]
    assert rates == pytest.approx([2e-3 * share for share in expected], abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_without_warm_up_the_first_step_is_below_the_peak_and_none_is_zero(schedule: str) -> None:
    rates = [rate_at(step, 5, 1e-3, schedule, 0.0) for step in range(1, 6)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < rates[0] < 1e-3


def test_a_training_follows_its_schedule(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "tiny")
    result = student.train(
        review_rows(), model=base, output=tmp_path / "s", schedule="cosine", batch_size=2, epochs=2
    )
    rates = [entry["learning_rate"] for entry in result.history["steps"]]
    assert rates == [rate_at(step, 8, 5e-4, "cosine", 0.1) for step in range(1, 9)]


def test_the_first_epoch_goes_from_easy_to_hard_and_the_others_do_not() -> None:
    lengths = [10 + (7 * i) % 23 for i in range(1000)]
    confidences: list[float | None] = [((37 * i) % 1000) / 1000 for i in range(1000)]
    confidences[5] = None
    how: dict[str, Any] = {"confidences": confidences, "seed": 3}
    first = epoch_batches(lengths, 8, epoch=1, **how)
    sure = [confidences[place] or 0.0 for batch in first for place in batch]
    tenths = [sure[100 * i : 100 * (i + 1)] for i in range(10)]
    means = [sum(tenth) / 100 for tenth in tenths]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.9
    assert means[-1] < 0.1
    assert 5 in {place for batch in first[-13:] for place in batch}  # who has none comes last
    # As many steps as without, of the same size, every row once, and of similar length in a batch.
    plain = bucketed_batches(lengths, 8, seed=3, epoch=1)
    assert len(first) == len(plain)
    assert {len(batch) for batch in first} <= {7, 8}
    assert sorted(place for batch in first for place in batch) == list(range(1000))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in first)
    assert padded < 1.15 * sum(lengths)
    assert epoch_batches(lengths, 8, epoch=2, **how) == bucketed_batches(
        lengths, 8, seed=3, epoch=2
    )
    assert epoch_batches(lengths, 8, epoch=1, **how) == first
    assert epoch_batches(lengths, 8, epoch=1, confidences=confidences, seed=4) != first


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (9, 4), (80, 8), (83, 8), (5000, 8)])
def test_a_curriculum_never_changes_the_number_of_steps(rows: int, batch_size: int) -> None:
    lengths = [i % 9 for i in range(rows)]
    sure = [0.5] * rows
    easy = epoch_batches(lengths, batch_size, confidences=sure, seed=0, epoch=1)
    assert len(easy) == len(bucketed_batches(lengths, batch_size, seed=0, epoch=1))
    assert max(map(len, easy)) <= batch_size
    assert sorted(place for batch in easy for place in batch) == list(range(rows))


def test_a_curriculum_needs_confidences(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "tiny")
    how: dict[str, Any] = {"model": base, "output": tmp_path / "s", "epochs": 1}
    with pytest.raises(student.InputError, match="needs a column confidence"):
        student.train(review_rows(), curriculum="confidence", **how)
    with pytest.raises(student.InputError, match="curriculum='length'; it must be null or conf"):
        student.train(review_rows(), curriculum="length", **how)
    rows = [row | {"confidence": 0.9} for row in review_rows()]
    rows[0]["confidence"] = None
    assert student.train(rows, curriculum="confidence", **how).steps == 1
