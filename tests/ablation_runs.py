"""A run with a few hundred labelled reviews, and students that take no time, for tests of ablations."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from small_recipe import small_recipe, write_csv

import curate
import student
from curate.ablation_cells import Trainer

_THINGS = ["kettle", "strap", "lamp", "radio", "tent", "mug", "torch", "scarf", "bench", "clock"]
_PRAISE = ["lovely", "sturdy", "bright", "quiet", "soft", "quick", "handy", "neat", "warm", "sharp"]
_BLAME = ["leaky", "dull", "noisy", "loose", "flimsy", "slow", "torn", "rusty", "cold", "cracked"]
_WHERE = [
    "kitchen",
    "garden",
    "office",
    "train",
    "boat",
    "cabin",
    "attic",
    "school",
    "shop",
    "hall",
]


def reviews(rows: int, *, errors: float = 0.1, seed: int = 0) -> list[dict[str, str]]:
    """Reviews, two to a group; the recorded teacher is wrong on a share of them."""
    dice = random.Random(seed)
    made = []
    for number in range(rows):
        sentiment = "positive" if dice.random() < 0.6 else "negative"
        word = dice.choice(_PRAISE if sentiment == "positive" else _BLAME)
        thing, place, other = dice.choice(_THINGS), dice.choice(_WHERE), dice.choice(_WHERE)
        said = sentiment
        if dice.random() < errors:
            said = "negative" if sentiment == "positive" else "positive"
        made.append(
            {
                "id": f"r{number}",
                "text": f"The {word} {thing} number {number} stood in the {place} by the {other}.",
                "sentiment": sentiment,
                "review_id": f"review-{number // 2}",
                "said": f"That word tells. So the answer is {said}.",
                "said2": f"That word tells. So the answer is {sentiment}.",
            }
        )
    return made


def labelled_run(
    folder: Path, rows: int = 300, *, errors: float = 0.1, **changes: Any
) -> tuple[Path, Path]:
    """A recipe in a folder and its run, up to the curated rows; (recipe, run folder)."""
    recipe = small_recipe(**changes)
    recipe["data"]["id"] = "id"
    (folder / "tiny-t5").mkdir(exist_ok=True)
    write_csv(folder / "reviews.csv", reviews(rows, errors=errors))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    curate.filter(path, output=folder / "run")
    return path, folder / "run"


@dataclass
class Trained:
    """What a stand-in was called with: (seed, rows) per training, and ids per prediction."""

    cells: list[tuple[int, int]] = field(default_factory=list)
    asked: list[set[str]] = field(default_factory=list)
    columns: list[set[str]] = field(default_factory=list)


def _learn(rows: pd.DataFrame, recipe: Any, *, output: Path, **_: Any) -> Mapping[str, Any]:
    output.mkdir(parents=True)
    rows[["input", "label"]].to_parquet(output / "rows.parquet")
    return {"epochs": recipe.student.epochs, "steps": recipe.student.epochs * len(rows)}


def _answer(folder: Path, rows: pd.DataFrame, recipe: Any, *_: Any) -> list[str]:
    learnt = pd.read_parquet(folder / "rows.parquet")
    learnt = learnt.sample(frac=0.9, random_state=recipe.seed)
    found = student.tfidf(
        learnt["input"].tolist(),
        learnt["label"].tolist(),
        rows["input"].tolist(),
        labels=recipe.task.labels,
    ).predictions
    assert found is not None
    return found


#: A student that is TF-IDF with logistic regression; it can be sent to another process.
WORD_COUNTS = Trainer(train=_learn, predict=_answer, name="word counts")


def word_counts(trained: Trained) -> Trainer:
    """The same, writing down what it is called with."""

    def train(rows: pd.DataFrame, recipe: Any, **how: Any) -> Mapping[str, Any]:
        info = _learn(rows, recipe, **how)
        trained.cells.append((recipe.seed, len(rows)))
        return info

    def predict(folder: Path, rows: pd.DataFrame, recipe: Any, *_: Any) -> list[str]:
        trained.asked.append(set(rows["id"]))
        trained.columns.append(set(rows.columns))
        return _answer(folder, rows, recipe)

    return Trainer(train=train, predict=predict, name="word counts")


def as_good_as(score: Callable[[int, Any], float]) -> Trainer:
    """A student that is right on a known share of the rows: ``score(rows, recipe)``.

    It knows what the reviews say, and is wrong on rows that the hash of id and seed picks.
    """

    def train(rows: pd.DataFrame, recipe: Any, *, output: Path, **_: Any) -> Mapping[str, Any]:
        output.mkdir(parents=True)
        (output / "rows").write_text(str(len(rows)))
        return {"epochs": recipe.student.epochs, "steps": 100}

    def predict(folder: Path, rows: pd.DataFrame, recipe: Any, *_: Any) -> list[str]:
        wanted = score(int((folder / "rows").read_text()), recipe)
        said = []
        for id_, text in zip(rows["id"], rows["input"], strict=True):
            positive = any(f" {word} " in text for word in _PRAISE)
            mark = hashlib.sha256(f"{id_} {recipe.seed}".encode()).digest()
            right = int.from_bytes(mark[:4]) / 2**32 < wanted
            said.append("positive" if positive == right else "negative")
        return said

    return Trainer(train=train, predict=predict, name="as good as")
