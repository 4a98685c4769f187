"""Sixty review sentences that a teacher has labelled already, and a recipe over them, for tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

_PRAISE = {
    "kettle": [
        "The kettle boils two cups in under a minute.",
        "I love how quietly this kettle hums in the morning.",
        "Its handle stays cool even when the water is boiling.",
    ],
    "strap": [
        "This strap is soft and has not slipped once on my runs.",
        "The buckle closes with a firm and pleasing click.",
        "Best watch strap I have owned, and the leather smells lovely.",
    ],
    "lamp": [
        "The lamp throws a warm light over the whole desk.",
        "Changing the bulb took me ten seconds and no tools.",
        "A sturdy lamp that survived a fall from the shelf.",
    ],
    "radio": [
        "This little radio picks up every station in the valley.",
        "The sound fills our kitchen without a trace of hiss.",
        "One charge of the radio lasted the whole camping trip.",
    ],
    "tent": [
        "The tent stood firm through a night of heavy rain.",
        "My daughter pitched this tent alone on her first try.",
        "It packs down smaller than a loaf of bread.",
    ],
}
_COMPLAINTS = {
    "kettle": [
        "The kettle leaked all over the counter on day one.",
        "Rust spots appeared inside after only a week.",
        "The lid of the kettle snapped off in my hand.",
    ],
    "strap": [
        "The strap broke on day two while I was on the bus.",
        "My wrist itches whenever I wear this cheap rubber.",
        "The clasp opens by itself and I nearly lost my watch.",
    ],
    "lamp": [
        "The lamp flickers so badly that it gives me headaches.",
        "Its base wobbles and the cord is far too short.",
        "The switch was dead when I took it out of the box.",
    ],
    "radio": [
        "This radio crackles on every station and drops the signal.",
        "The battery of the radio is empty before breakfast ends.",
        "Support never answered my three letters about the dial.",
    ],
    "tent": [
        "The tent pole splintered the first time we bent it.",
        "Water came through every seam during a light drizzle.",
        "Half of the pegs were missing and the bag was torn.",
    ],
}
#: On these the recorded teacher is wrong.
TEACHER_ERRORS = ("Changing the bulb took me ten seconds and no tools.",)


def review_rows() -> list[dict[str, str]]:
    """Sixty rows: thirty sentences, each also with an afterword, two rows to a review."""
    rows = []
    for sentiment, topics in (("positive", _PRAISE), ("negative", _COMPLAINTS)):
        for topic, sentences in topics.items():
            for number, sentence in enumerate(sentences):
                for ending in ("", " I bought it in spring."):
                    rows.append(
                        {
                            "text": sentence + ending,
                            "sentiment": sentiment,
                            "review_id": f"{topic}-{sentiment}-{number}",
                            "said": _said(sentence, sentiment),
                        }
                    )
    return rows


def _said(sentence: str, sentiment: str) -> str:
    if sentence in TEACHER_ERRORS:
        sentiment = "negative" if sentiment == "positive" else "positive"
    why = "That is a strength" if sentiment == "positive" else "That is a fault"
    return f"{why} of the product. So the answer is {sentiment}."


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def small_recipe(**changes: Any) -> dict[str, Any]:
    """A recipe over ``reviews.csv`` and the folder ``tiny-t5``; sections are merged one level deep."""
    recipe: dict[str, Any] = {
        "name": "small",
        "task": {
            "instruction": "Decide whether a product review is positive or negative.",
            "template": "Review: {{ text }}",
            "labels": ["positive", "negative"],
            "goal": {"accuracy": 0.6},
        },
        "data": {"train": "reviews.csv", "gold": "sentiment", "group": "review_id"},
        "teacher": {"engine": "recorded", "column": "said"},
        "filters": ["exact_duplicate", {"near_duplicate": {"threshold": 0.95}}],
        "embedder": None,
        "student": {"model": "tiny-t5", "epochs": 1, "precision": "fp32"},
        "seed": 0,
    }
    for key, change in changes.items():
        merged = isinstance(change, dict) and isinstance(recipe.get(key), dict)
        recipe[key] = {**recipe[key], **change} if merged else change
    return recipe


def write_recipe(folder: Path, recipe: Mapping[str, Any], *, rows: Any = None) -> Path:
    """Write ``recipe.yaml`` and ``reviews.csv`` into a folder and return the recipe's path."""
    write_csv(folder / "reviews.csv", review_rows() if rows is None else rows)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    return path


def embed_by_words(texts: Sequence[str], model: object = None, **_: object) -> NDArray[np.float32]:
    """A stand-in for an embedder: which of the products' words a text holds, and its length."""
    words = [*_PRAISE, "water", "station", "wrist", "cord"]
    vectors = [[float(w in t.lower()) for w in words] + [len(t) / 1000, 0.1] for t in texts]
    array = np.array(vectors, dtype=np.float32)
    lengths: NDArray[np.float32] = np.linalg.norm(array, axis=1, keepdims=True)
    return array / lengths
