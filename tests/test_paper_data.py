"""The ready recipes of the paper's four tasks, on a few rows laid out as the Hub lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

import curate
from curate.recipe import Recipe, load_recipe
from curate.sources import load_examples
from curate.tables import SourceError, read_table

RECIPES = Path(__file__).parent.parent / "recipes"
NLI = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])


def hub_table(repository: str, split: str) -> datasets.Dataset:
    """Two rows of a split; texts name the split, so that train and test differ."""
    if repository == "tau/commonsense_qa":
        options = {
            "label": list("ABCDE"),
            "text": ["pantry", "moon", "ocean", "attic", "volcano"],
        }
        return datasets.Dataset.from_dict(
            {
                "id": [f"{split}-0", f"{split}-1"],
                "question": [f"Where is flour kept, {split}?", f"Where do whales live, {split}?"],
                "question_concept": ["flour", "whale"],
                "choices": [options, options],
                "answerKey": ["A", "C"],
            }
        )
    if repository == "ChilleD/SVAMP":
        return datasets.Dataset.from_dict(
            {
                "ID": [f"chal-{split}-1", f"chal-{split}-2"],
                "Body": [
                    f"Mia of {split} has 8 pens and loses 3 . ",
                    f"A {split} box holds 6 eggs .",
                ],
                "Question": [" How many are left ?", "How many eggs do 4 boxes hold ?"],
                "Equation": ["( 8.0 - 3.0 )", "( 6.0 * 4.0 )"],
                "Answer": ["5", "24"],
                "Type": ["Subtraction", "Multiplication"],
            }
        )
    numbers = {
        "premise": [f"Two dogs of {split} run.", f"A man of {split} reads."],
        "hypothesis": ["Animals move.", "The man is asleep."],
        "label": [0, 2],
    }
    features = {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string")}
    if repository == "facebook/anli":
        numbers = {"uid": [f"{split}-a", f"{split}-b"], **numbers, "reason": ["", "He reads."]}
        more = {"uid": datasets.Value("string"), "reason": datasets.Value("string")}
        return datasets.Dataset.from_dict(
            numbers, features=datasets.Features({**features, **more, "label": NLI})
        )
    # A table branch may have lost the names of the classes.
    assert repository == "esnli/esnli"
    return datasets.Dataset.from_dict({**numbers, "explanation_1": ["Dogs are animals.", "No."]})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    """No hub is at hand: what the library would fetch is made here, and what was asked for is kept."""
    asked = []

    def load_dataset(
        repository: str, config: str | None = None, *, split: str, revision: str | None = None
    ) -> Any:
        asked.append((repository, split, revision))
        return hub_table(repository, split)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def examples(recipe: Recipe) -> pd.DataFrame:
    return load_examples(recipe.data, recipe.task.task(), folder=RECIPES, seed=0)


@pytest.mark.parametrize(
    ("name", "first", "golds", "asked"),
    [
        (
            "cqa",
            "Where is flour kept, train?\nAnswer Choices:\n(a) pantry\n(b) moon\n(c) ocean\n(d) attic\n"
            "(e) volcano",
            ["pantry", "ocean"],
            [("tau/commonsense_qa", "train", None), ("tau/commonsense_qa", "validation", None)],
        ),
        (
            "svamp",
            "Mia of train has 8 pens and loses 3 .\nHow many are left ?",
            ["( 8.0 - 3.0 )", "( 6.0 * 4.0 )"],
            [("ChilleD/SVAMP", "train", None), ("ChilleD/SVAMP", "test", None)],
        ),
        (
            "anli",
            "Premise: Two dogs of train_r1 run.\nHypothesis: Animals move.",
            ["entailment", "contradiction"],
            [("facebook/anli", "train_r1", None), ("facebook/anli", "test_r1", None)],
        ),
        (
            "esnli",
            "Premise: Two dogs of train run.\nHypothesis: Animals move.",
            ["entailment", "contradiction"],
            [
                ("esnli/esnli", "train", "refs/convert/parquet"),
                ("esnli/esnli", "test", "refs/convert/parquet"),
            ],
        ),
    ],
)
def test_a_ready_recipe_reads_its_rows_from_the_hub(
    name: str,
    first: str,
    golds: list[str],
    asked: list[Any],
    hub: list[Any],
) -> None:
    found = examples(load_recipe(RECIPES / f"{name}.yaml"))
    assert hub == asked
    assert found["split"].tolist() == ["train", "train", "test", "test"]
    assert found["input"][0] == first
    assert found["gold"].tolist() == golds * 2


@pytest.mark.parametrize("number", [2, 3])
def test_the_other_rounds_of_anli_are_reached_by_their_names(number: int, hub: list[Any]) -> None:
    overrides = [f"data.train=anli-r{number}", f"data.test=anli-r{number}"]
    found = examples(load_recipe(RECIPES / "anli.yaml", overrides=overrides))
    assert [split for _, split, _ in hub] == [f"train_r{number}", f"test_r{number}"]
    assert len(found) == 4


def test_a_split_that_the_paper_does_not_test_on_can_be_named(hub: list[Any]) -> None:
    assert read_table("anli-r3@validation")["relation"].tolist() == ["entailment", "contradiction"]
    assert hub == [("facebook/anli", "dev_r3", None)]
    with pytest.raises(SourceError, match=r"'cqa@dev' has the splits train, test: .* cqa@test"):
        read_table("cqa@dev")


@pytest.mark.parametrize("name", ["cqa", "svamp", "anli", "esnli"])
def test_the_demonstrations_look_like_the_rows(name: str, hub: list[Any]) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    row = examples(recipe)["input"][0]
    words = [line.split(":")[0] for line in row.splitlines()][1:2] if name != "svamp" else []
    assert len(recipe.task.demonstrations) >= 6
    for each in recipe.task.demonstrations:
        assert len(each.input.splitlines()) == len(row.splitlines())
        assert all(f"\n{word}:" in each.input for word in words)
        if name == "cqa":
            listed = "".join(
                f"\n({letter}) {choice}"
                for letter, choice in zip("abcde", each.choices or [], strict=True)
            )
            assert each.input.endswith(f"?\nAnswer Choices:{listed}")


def test_recorded_outputs_take_the_place_of_hub_and_server(tmp_path: Path) -> None:
    rows = {
        "train": [
            ("Where is bread baked?", "A bakery has ovens for it. So the answer is (b) bakery."),
            ("Where do fish live?", "Fish need water. So the answer is (c) lake.\n\nQ: Next?"),
        ],
        "test": [("Where do planes land?", "Planes need a runway. So the answer is (a) airport.")],
    }
    choices = ["airport", "bakery", "lake", "cellar", "tree"]
    for split, pairs in rows.items():
        lines = [
            {
                "question": question,
                "choices": choices,
                "answer": "lake"
                if "fish" in question
                else "bakery"
                if "bread" in question
                else "airport",
                "teacher_output": output,
            }
            for question, output in pairs
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    done = curate.label(
        RECIPES / "cqa.yaml",
        output=tmp_path / "run",
        store=tmp_path / "store",
        overrides=[
            f"data.train={tmp_path / 'train.jsonl'}",
            f"data.test={tmp_path / 'test.jsonl'}",
            "teacher={engine: recorded, column: teacher_output}",
        ],
    )
    labeled = done.table("labeled")
    assert labeled["label"].tolist() == ["bakery", "lake", "airport"]
    assert labeled["rationale"][1] == "Fish need water."
