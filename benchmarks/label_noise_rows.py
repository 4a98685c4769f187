"""The rows that `label_noise.py` measures on: recorded answers, a small model's opinion, snippets."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import filters
import student
from curate.assets import load_data
from labelers import Task, label_recorded
from labelers.answer_rules import Equation
from labelers.equations import same_value

QUIZ = Task(
    instruction="Answer.",
    template="{{ question }}\nAnswer Choices:\n{{ choices | letters }}",
    choices="choices",
    on_two="first",
)
SUMS = Task(instruction="Solve it.", template="{{ input }}", answer=Equation())


class CachedEncoder:
    """An embedder that keeps what it has encoded in a folder."""

    def __init__(self, model: str, cache: Path) -> None:
        self.name = f"cached {Path(model).name}"
        self._model, self._cache = model, cache

    def __call__(self, texts: list[str]) -> np.ndarray:
        return filters.embed(texts, self._model, cache=self._cache)


def read_recorded(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_quiz(path: Path) -> pd.DataFrame:
    """CommonsenseQA with the teacher's labels, each read by its letter, the first where there are two."""
    rows = read_recorded(path)
    asked = pd.DataFrame(
        [{name: row[name] for name in ("id", "question", "choices")} for row in rows]
    )
    found = label_recorded(asked, QUIZ, [row["teacher_output"] for row in rows]).to_pandas()
    return found.assign(gold=[row["answer"] for row in rows])


def read_equations(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """SVAMP with the teacher's equations, and which of them have the right value."""
    rows = read_recorded(path)
    asked = pd.DataFrame([{"id": row["id"], "input": row["input"]} for row in rows])
    found = label_recorded(asked, SUMS, [row["teacher_output"] for row in rows]).to_pandas()
    pairs = zip(found["label"], (row["equation"] for row in rows), strict=True)
    right = np.array([isinstance(a, str) and same_value(a, b) for a, b in pairs])
    return found, right


def snippets(name: str, most: int | None) -> pd.DataFrame:
    """Rated snippets with the human label as `label` and the review as `group`."""
    rows = load_data(name)
    rows = rows[rows["sentiment"].notna()].reset_index(drop=True)
    if most is not None:  # the file lists one label after the other
        rows = rows.sample(most, random_state=0).reset_index(drop=True)
    return pd.DataFrame(
        {
            "id": rows["id"],
            "input": rows["text"],
            "label": rows["sentiment"],
            "group": rows["review_id"],
        }
    )


def student_opinion(rows: pd.DataFrame, model: str, kept: Path) -> list[list[float]]:
    """A T5's probability of every choice, from three prompts; see the page for the formula."""
    known: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}
    todo = rows[~rows["id"].isin(known)]
    if len(todo):
        loaded = student.load(model)
        choices = [list(dict.fromkeys(one)) for one in todo["choices"]]
        listed = [
            "\nOptions:\n" + "\n".join(f"- {c}" for c in one) + "\nAnswer:" for one in choices
        ]
        prompts = {
            0.5: [question + each for question, each in zip(todo["question"], listed, strict=True)],
            1.0: [f"Answer the question: {question}" for question in todo["question"]],
            -0.5: ["Answer the question: What is it?"] * len(todo),
        }
        total = [np.zeros(len(one)) for one in choices]
        for power, asked in prompts.items():
            print(f"asking {len(asked)} prompts", file=sys.stderr, flush=True)
            found = student.predict(loaded, asked, choices=choices)["label_probs"]
            for place, each in enumerate(found):
                total[place] += power * np.log(np.maximum(each, 1e-12))
        for place, identifier in enumerate(todo["id"]):
            weights = dict(
                zip(choices[place], np.exp(total[place] - total[place].max()), strict=True)
            )
            # A choice that is listed twice has its probability once.
            spread = [weights.pop(one, 0.0) for one in todo["choices"].iloc[place]]
            known[identifier] = [float(value / sum(spread)) for value in spread]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known))
    return [known[identifier] for identifier in rows["id"]]
