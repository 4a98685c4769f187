"""What a recipe says of the objective reaches the training, and what cannot work is found before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_recipe import small_recipe, write_recipe
from tiny_student import review_rows, tiny_folder

import student
from curate.exceptions import RecipeError
from curate.recipe import Recipe, load_recipe
from curate.stages import rationales_to_read, train_student

ROWS = pd.DataFrame(review_rows()).assign(split="train", keep=True, reason=None)


def recipe_of(folder: Path, **options: Any) -> Recipe:
    common = {"model": "tiny-t5", "epochs": 1, "precision": "fp32"}
    return load_recipe(write_recipe(folder, small_recipe(student=common | options)))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options that a training was called with; it ends there."""
    found: dict[str, Any] = {}

    def train(rows: Any, **options: Any) -> None:
        found.update(options)
        raise KeyboardInterrupt

    (tmp_path / "tiny-t5").mkdir()
    (tmp_path / "large").mkdir()
    monkeypatch.setattr(student, "train", train, raising=False)
    return found


def train(recipe: Recipe, folder: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_student(ROWS, recipe, output=folder / "s", base=folder, **options)


def test_a_white_box_teacher_is_found_beside_the_recipe(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    white_box = {"teacher": "large", "divergence": "jsd", "beta": 0.2, "cached": True}
    recipe = recipe_of(tmp_path, objective="white_box", white_box=white_box, temperature=3)
    train(recipe, tmp_path)
    assert asked["white_box"] == {
        "teacher": str(tmp_path / "large"),
        "cache": tmp_path / ".curate" / "white-box",
        "divergence": "jsd",
        "beta": 0.2,
        "on_policy": 0.0,
        "top_k": 64,
        "train_teacher": False,
    }
    assert (asked["temperature"], asked["objective"]) == (3, "white_box")


def test_the_second_student_learns_peoples_labels_alone(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    recipe = recipe_of(tmp_path, objective="soft_label", soft_weight=0.8, temperature=2)
    train(recipe, tmp_path)
    assert (asked["objective"], asked["soft_weight"], asked["temperature"]) == (
        "soft_label",
        0.8,
        2,
    )
    train(recipe, tmp_path, target="gold")
    assert (asked["objective"], asked["temperature"]) == ("label", None)


def test_prefixes_and_markers_reach_the_training(tmp_path: Path, asked: dict[str, Any]) -> None:
    code = {"label_prefix": "predict: ", "rationale_prefix": "explain: ", "answer_marker": "Thus:"}
    train(recipe_of(tmp_path, **code), tmp_path)
    assert {name: asked[name] for name in code} == code
    assert "white_box" not in asked


def test_rationales_are_read_by_one_objective_only(tmp_path: Path, asked: dict[str, Any]) -> None:
    assert asked == {}
    rows = ROWS.head(4)
    assert rationales_to_read(rows, recipe_of(tmp_path)) is None
    reading = recipe_of(tmp_path).model_copy(
        update={"student": recipe_of(tmp_path).student.model_copy(
            update={"objective": "rationale_as_input"}
        )}
    )  # fmt: skip
    found = rationales_to_read(rows, reading)
    assert found is not None
    assert [text is None for text in found] == [False, False, False, True]
    assert rationales_to_read(rows[["input"]], reading) == [None] * 4


LARGE = {"teacher": "large"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "white_box"}, "student.white_box names no teacher"),
        (
            {"objective": "white_box", "white_box": {**LARGE, "on_policy": 0.5, "cached": True}},
            "student.white_box.on_policy is 0.5, where .* and cached is true",
        ),
        (
            {
                "objective": "white_box",
                "white_box": {**LARGE, "train_teacher": True, "cached": True},
            },
            "cached and train_teacher are both true",
        ),
        ({"white_box": {**LARGE, "beta": 1.0}}, "student.white_box.beta is 1.0"),
        ({"white_box": {**LARGE, "layers": 2}}, "unknown key 'student.white_box.layers'"),
        ({"temperature": 0}, "student.temperature is 0"),
    ],
)
def test_what_cannot_work_is_found_before_the_teacher_is_asked(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(tmp_path, **options)


@pytest.mark.slow
def test_a_smaller_student_is_distilled_from_its_teacher_by_a_recipe(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "tiny-t5")
    student.train(ROWS, model=tmp_path / "tiny-t5", output=tmp_path / "large", objective="label")
    student.shrink(
        tmp_path / "large", encoder_layers=1, decoder_layers=1, output=tmp_path / "small"
    )
    recipe = recipe_of(
        tmp_path, model="small", objective="white_box", white_box={**LARGE, "cached": True}
    )
    seen: list[str] = []
    info = train_student(
        ROWS, recipe, output=tmp_path / "s", base=tmp_path, on_progress=lambda s, _: seen.append(s)
    )
    assert info["objective"] == "white_box"
    assert "white_box" in seen
    assert list((tmp_path / ".curate" / "white-box").rglob("*.safetensors"))
