"""Options and rows as people write them: numpy's numbers, one tracker's name, blank texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_student import review_rows, tiny_folder

import student
from student.options import ALLOWED, check_options
from student.trackers import check_trackers


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


def train(base: Path, output: Path, rows: Any = None, **changes: Any) -> student.TrainingResult:
    how: dict[str, Any] = {"epochs": 1, "batch_size": 8, "precision": "fp32", "objective": "label"}
    data = review_rows() if rows is None else rows
    return student.train(data, model=base, output=output, **(how | changes))


def test_numpys_numbers_are_numbers(base: Path, tmp_path: Path) -> None:
    options = {
        "epochs": np.int64(1),
        "batch_size": np.int32(8),
        "max_input_tokens": np.int64(64),
        "learning_rate": np.float32(0.0625),
        "seed": np.uint8(3),
        "early_stopping": np.int64(1),
        "validation_fraction": np.float64(0.25),
    }
    rows = [row | {"input": f"{row['group']}: {row['input']}"} for row in review_rows(repeat=4)]
    train(base, tmp_path / "s", rows=rows, **options)
    written = json.loads((tmp_path / "s" / "history.json").read_text())
    assert {name: written["options"][name] for name in options} == options
    assert written["micro_batch"] == 8
    settings = json.loads((tmp_path / "s" / "student.json").read_text())
    assert settings["max_input_tokens"] == 64


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float64(1), "1", None, 0, np.int64(0)])
def test_what_is_no_whole_number_is_refused(value: object, base: Path, tmp_path: Path) -> None:
    with pytest.raises(student.InputError, match=r"epochs=.*; it must be a whole number, at least"):
        train(base, tmp_path / "s", epochs=value)


def test_true_is_no_rate() -> None:
    usual = dict.fromkeys(ALLOWED)
    usual |= {"objective": "label", "schedule": "linear", "alpha": True}
    with pytest.raises(student.InputError, match="alpha=True; it must be between 0 and 1"):
        check_options(usual)


@pytest.mark.parametrize("model", [3, None, ["tiny"], b"tiny"])
def test_a_model_that_is_no_name_is_refused(model: Any, tmp_path: Path) -> None:
    for call in (
        lambda: train(model, tmp_path / "s"),
        lambda: student.load(model),
        lambda: student.export(model, tmp_path / "s", inputs=["It hums."]),
    ):
        with pytest.raises(student.InputError, match=r"model=.*; it must be a folder with config"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", ["none", None, [], (), ["none"]])
def test_no_tracker_is_nothing(names: Any, base: Path, tmp_path: Path) -> None:
    assert check_trackers(names) == ()
    train(base, tmp_path / "s", report_to=names)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_one_tracker_may_be_a_text(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    train(base, tmp_path / "s", report_to="tensorboard")
    assert list((tmp_path / "s-tensorboard").glob("events.*"))


@pytest.mark.parametrize("names", ["tensor", "all", ["tensorboard", "mlflow"], 3, [["wandb"]]])
def test_other_trackers_are_refused(names: Any) -> None:
    with pytest.raises(
        student.InputError, match=r"report_to=.*; it must be a list of: tensorboard"
    ):
        check_trackers(names)


def test_blank_texts_are_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    rows = review_rows()
    rows[0]["input"], rows[1]["input"] = "", " \n"
    rows[2]["label"] = "\t"
    rows[3] |= {"label": None, "input": ""}
    result = train(base, tmp_path / "s", rows=rows)
    assert result.rows == 4
    assert result.left_out == {"no label": 1, "blank input": 2, "blank label": 1}
    assert list(result.notes) == [
        "2 rows have an empty or blank input and were not trained on: fill the column, or remove the rows",
        "1 row has an empty or blank label and was not trained on: fill the column, or remove the row",
    ]
    card = (tmp_path / "s" / "README.md").read_text(encoding="utf-8")
    assert "Rows given but not trained on: 1 no label, 2 blank input, 1 blank label" in card


def test_a_blank_first_reference_is_blank(base: Path, tmp_path: Path) -> None:
    rows = [row | {"gold": ["", "lamp"], "choices": None} for row in review_rows()]
    rows[0]["gold"] = ["a lamp", ""]
    result = train(base, tmp_path / "s", rows=rows, target="gold")
    assert result.left_out == {"blank label": 7}
    assert "7 rows have an empty or blank gold" in result.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input": " "},
            r"no training row is left of 8 \(8 blank input\); fill in the blank texts, loosen",
        ),
        (
            {"label": ""},
            "all 8 rows have an empty 'label' column; label them first, or train on the other column",
        ),
    ],
)
def test_nothing_but_blank_texts(
    base: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(student.InputError, match=message):
        train(base, tmp_path / "s", rows=[row | change for row in review_rows()])
