"""A made-up, seeded run folder, shaped as the pipeline writes it, for tests of what reads one."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

Row = dict[str, Any]

LABELS = ["positive", "negative"]

# topic -> (cluster words, praise, complaint); every sentence is a snippet a buyer could write.
TOPICS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "battery": (
        ["battery", "charge", "hours"],
        [
            "the battery lasts a whole weekend of hiking",
            "one charge carried me through two long flights",
            "it still holds ninety percent after a day of calls",
        ],
        [
            "the battery is empty before lunch",
            "it needs a new charge after three hours of music",
            "the cell swelled up within a month",
        ],
    ),
    "camera": (
        ["photos", "lens", "focus"],
        [
            "the photos are sharp right to the corners",
            "the lens finds focus even in a dim restaurant",
            "colours in the pictures look just like the garden did",
        ],
        [
            "every second photo comes out blurred",
            "the lens hunts for focus and misses the moment",
            "pictures taken indoors are grainy and green",
        ],
    ),
    "strap": (
        ["strap", "buckle", "bag"],
        [
            "the strap sits softly on the shoulder",
            "the buckle has not slipped once in a year",
            "the seams of the bag survived a rainy festival",
        ],
        [
            "the strap broke on day two",
            "the buckle snapped while I was on the stairs",
            "a seam of the bag split with only two books in it",
        ],
    ),
    "sound": (
        ["sound", "bass", "headphones"],
        [
            "the sound is warm and the bass never booms",
            "voices in the headphones are clear on the noisiest train",
            "I hear instruments in old records that I never noticed",
        ],
        [
            "the sound is thin and hisses in quiet passages",
            "the left side of the headphones went silent after a week",
            "the bass rattles at half volume",
        ],
    ),
    "screen": (
        ["screen", "display", "pixels"],
        [
            "the screen is easy to read in bright sun",
            "the display wakes up the moment I lift it",
            "text on the screen looks printed",
        ],
        [
            "the screen flickers whenever it is cold",
            "a row of dead pixels runs across the display",
            "the screen scratched in my pocket on the first day",
        ],
    ),
    "delivery": (
        ["parcel", "shipping", "box"],
        [
            "the parcel came a day early and well packed",
            "shipping to the island took only three days",
            "the seller replaced a dented box without a question",
        ],
        [
            "the parcel arrived open and half empty",
            "shipping took six weeks and nobody answered",
            "the box held the wrong model and a stranger's receipt",
        ],
    ),
}
OPENINGS = [
    "",
    "After a month of daily use ",
    "Bought it for my sister and ",
    "To my surprise ",
    "As the third one I have owned ",
    "For the price I paid ",
]
ENDINGS = [
    ".",
    ", and I use it every day.",
    ", which the manual never mentions.",
    ". My neighbour says the same.",
    ", just as other buyers said.",
    ". The colour is nothing special.",
]
FIRST = {"positive": "praises", "negative": "complains about"}


def _snippet(rng: random.Random, topic: str, label: str) -> str:
    _, praise, complaint = TOPICS[topic]
    core = rng.choice(praise if label == "positive" else complaint)
    text = rng.choice(OPENINGS) + core + rng.choice(ENDINGS)
    return text[0].upper() + text[1:]


def _answer(rng: random.Random, gold: str, skill: float) -> tuple[str, float]:
    """An answer right with probability ``skill``, and a confidence that is somewhat too high."""
    right = rng.random() < skill
    label = gold if right else LABELS[1 - LABELS.index(gold)]
    low, high = (0.62, 0.995) if right else (0.5, 0.93)
    return label, round(low + (high - low) * rng.random() ** 0.6, 4)


def _examples(rng: random.Random, train: int, test: int) -> list[Row]:
    rows: list[Row] = []
    topics = list(TOPICS)
    for number in range(train + test):
        topic = topics[min(int(rng.random() ** 1.4 * len(topics)), len(topics) - 1)]
        gold = "positive" if rng.random() < 0.62 else "negative"
        text = _snippet(rng, topic, gold)
        split = "train" if number < train else "test"
        previous = [row for row in rows[-40:] if row["split"] == split]
        if split == "train" and previous and rng.random() < 0.1:
            twin = rng.choice(previous)
            gold, topic = twin["gold"], twin["topic"]
            edits = [twin["input"], twin["input"].replace(" the ", " this ", 1) + " Really."]
            text = rng.choice(edits)
        rows.append(
            {
                "id": f"{'r' if split == 'train' else 't'}{number:04d}",
                "input": text,
                "choices": LABELS,
                "gold": gold,
                "split": split,
                "group": f"review-{number // 2}",
                "source": "reviews.csv",
                "topic": topic,
            }
        )
    return rows


def _label(rng: random.Random, rows: list[Row], rationales: bool, probabilities: bool) -> None:
    for row in rows:
        label, confidence = _answer(rng, row["gold"], 0.88)
        failed = rng.random() < 0.012
        other = round(1 - confidence, 4)
        pair = [confidence, other] if label == LABELS[0] else [other, confidence]
        about = TOPICS[row["topic"]][0][0]
        row.update(
            label=None if failed else label,
            rationale=f"The writer {FIRST[label]} the {about}."
            if rationales and not failed
            else None,
            label_probs=pair if probabilities and not failed else None,
            label_source=None if failed else "logprobs",
            off_label_mass=None if failed else 0.02,
            confidence=None if failed else confidence,
            finish_reason="stop",
            teacher="smollm2-135m",
            prompt_key=f"key-{row['id']}",
            prompt_tokens=180,
            completion_tokens=24,
            cost_usd=None,
            error="TeacherTimeout: no answer within 60 s" if failed else None,
        )


def _edge(row: Row, name: str, score: float | None, threshold: float | None, **more: Any) -> Row:
    twin = more.get("twin")
    return {
        "id": row["id"],
        "filter": name,
        "score": score,
        "threshold": threshold,
        "related_id": twin["id"] if twin else None,
        "verdict": more.get("verdict", "drop"),
    }


def _overlap(one: str, other: str) -> float:
    left, right = set(one.lower().split()), set(other.lower().split())
    return len(left & right) / len(left | right)


def _filter(rng: random.Random, train: list[Row]) -> tuple[list[Row], dict[str, int]]:
    """Apply toy filters in order; return the edge table and the rows left after each."""
    edges: list[Row] = []
    for row in train:
        row.update(keep=True, reason=None, weight=1.0, copies=1, review=None)
        row["score_near_duplicate"] = 0.0

    def drop(row: Row, reason: str) -> None:
        row["keep"], row["reason"] = False, reason

    seen: list[Row] = []
    left: dict[str, int] = {}
    for row in train:
        if row["label"] is None:
            drop(row, "unlabelled")
    for row in (r for r in train if r["keep"]):
        twin = next((s for s in seen if s["input"] == row["input"]), None)
        if twin and twin["label"] == row["label"]:
            drop(row, "exact_duplicate")
            edges.append(_edge(row, "exact_duplicate", 1.0, 1.0, twin=twin))
        elif twin:
            edges.append(_edge(row, "exact_duplicate", 1.0, 1.0, twin=twin, verdict="conflict"))
            seen.append(row)
        else:
            seen.append(row)
    left["exact_duplicate"] = sum(row["keep"] for row in train)
    kept: list[Row] = []
    for row in seen:
        twin = max(kept, key=lambda k: _overlap(k["input"], row["input"]), default=None)
        score = _overlap(twin["input"], row["input"]) if twin else 0.0
        row["score_near_duplicate"] = score
        if twin and score >= 0.8 and twin["label"] == row["label"] and score < 1:
            drop(row, "near_duplicate")
            edges.append(_edge(row, "near_duplicate", score, 0.8, twin=twin))
        else:
            if twin and 0.8 <= score < 1:
                edges.append(
                    _edge(row, "near_duplicate", score, 0.8, twin=twin, verdict="conflict")
                )
            kept.append(row)
    left["near_duplicate"] = sum(row["keep"] for row in train)
    for row in (r for r in train if r["keep"]):
        verdict = "drop" if row["confidence"] < 0.6 else "keep"
        edges.append(_edge(row, "confidence", row["confidence"], 0.6, verdict=verdict))
        if verdict == "drop":
            drop(row, "confidence")
    left["confidence"] = sum(row["keep"] for row in train)
    counts = Counter(row["label"] for row in train if row["keep"])
    for row in (r for r in train if r["keep"]):
        if counts[row["label"]] > 1.15 * min(counts.values()) and rng.random() < 0.5:
            counts[row["label"]] -= 1
            drop(row, "rebalance")
            edges.append(_edge(row, "rebalance", None, None))
    left["rebalance"] = sum(row["keep"] for row in train)
    return edges, left


def _place(rng: random.Random, train: list[Row]) -> list[Row]:
    """Give each row a cluster and a place on the map; return the clusters for run.json."""
    topics = list(TOPICS)
    for row in train:
        number = topics.index(row["topic"])
        angle = 2 * math.pi * number / len(topics)
        side = 0.9 if row["gold"] == "positive" else -0.9
        row["cluster"] = number
        row["map_x"] = 6 * math.cos(angle) + side + rng.gauss(0, 0.9)
        row["map_y"] = 4 * math.sin(angle) + side + rng.gauss(0, 0.8)
    clusters = []
    for number, topic in enumerate(topics):
        members = [row for row in train if row["cluster"] == number]
        kept = sum(row["keep"] for row in members)
        words = TOPICS[topic][0]
        clusters.append({"cluster": number, "size": len(members), "words": words, "kept": kept})
    return clusters


def _predict(rng: random.Random, test: list[Row], skills: dict[str, float]) -> list[Row]:
    rows = []
    for system, skill in skills.items():
        for example in test:
            answer: str | None
            confidence: float | None
            if system == "majority":
                answer, confidence = "positive", None
            elif system == "teacher":
                answer, confidence = example["label"], example["confidence"]
            else:
                answer, confidence = _answer(rng, example["gold"], skill)
            rows.append(
                {
                    "id": example["id"],
                    "input": example["input"],
                    "choices": LABELS,
                    "gold": example["gold"],
                    "group": example["group"],
                    "system": system,
                    "prediction": answer,
                    "confidence": confidence,
                    "label_probs": None,
                    "error": None if answer else "TeacherTimeout: no answer within 60 s",
                }
            )
    return rows


def _interval(value: float, n: int) -> dict[str, float]:
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-9) / n)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def _score(rows: list[Row]) -> Row:
    n = len(rows)
    columns = [*LABELS, "(none)"]
    matrix = [
        [
            sum(r["gold"] == gold and (r["prediction"] or "(none)") == column for r in rows)
            for column in columns
        ]
        for gold in LABELS
    ]
    per_class = []
    for i, label in enumerate(LABELS):
        support, predicted = sum(matrix[i]), sum(line[i] for line in matrix)
        recall = matrix[i][i] / support if support else 0.0
        precision = matrix[i][i] / predicted if predicted else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        scores = {"precision": precision, "recall": recall, "f1": f1}
        per_class.append({"label": label, **scores, "support": support})
    return {
        "accuracy": _interval(sum(matrix[i][i] for i in range(len(LABELS))) / n, n),
        "macro_f1": _interval(sum(c["f1"] for c in per_class) / len(per_class), n),
        "n": n,
        "unread": sum(r["prediction"] is None for r in rows),
        "per_class": per_class,
        "confusion": {"labels": LABELS, "columns": columns, "matrix": matrix},
    }


def _history(rng: random.Random, rows: int, rationales: bool) -> Row:
    per_epoch = max(rows // 8, 1)
    steps = []
    for step in range(1, 2 * per_epoch + 1):
        label = 0.28 + 1.3 * math.exp(-step / 18) + rng.gauss(0, 0.05)
        rationale = 1.1 + 2.4 * math.exp(-step / 30) + rng.gauss(0, 0.12) if rationales else None
        steps.append(
            {
                "step": step,
                "epoch": (step - 1) // per_epoch + 1,
                "loss": label if rationale is None else (label + rationale) / 2,
                "label_loss": label,
                "rationale_loss": rationale,
                "learning_rate": 5e-4 * min(1, step / 10) * (1 - step / (2 * per_epoch + 1)),
                "seconds": 0.9 * step,
            }
        )
    epochs = [
        {"epoch": 1, "validation_loss": 0.52, "validation_accuracy": 0.81},
        {"epoch": 2, "validation_loss": 0.41, "validation_accuracy": 0.865},
    ]
    return {
        "steps": steps,
        "epochs": epochs,
        "truncated": {"inputs": 2, "labels": 0, "rationales": 1},
        "rows": rows,
        "seconds": 190.0,
    }


def _recipe() -> Row:
    return {
        "name": "product-reviews",
        "task": {
            "instruction": "Decide whether a product review snippet is positive or negative.",
            "template": "Review: {{ text }}",
            "labels": LABELS,
            "metrics": ["accuracy", "macro_f1"],
            "goal": {"accuracy": 0.85},
        },
        "data": {"train": "reviews.csv", "test": "held_out.jsonl", "gold": "sentiment"},
        "teacher": {"engine": "llama.cpp", "model": "smollm2-135m", "mode": "score"},
        "filters": [
            "exact_duplicate",
            {"near_duplicate": {"threshold": 0.8}},
            {"confidence": {"minimum": 0.6}},
            {"rebalance": {"by": ["label", "cluster"]}},
        ],
        "student": {"model": "flan-t5-small", "objective": "multitask", "alpha": 0.5, "epochs": 2},
        "seed": 0,
    }


def _stages(rows: list[Row], train: list[Row], edges: list[Row], clusters: list[Row]) -> Row:
    labelled = sum(row["label"] is not None for row in rows)
    dropped = Counter(row["reason"] for row in train if not row["keep"])
    kept = sum(row["keep"] for row in train)
    counts = {"train": len(train), "test": len(rows) - len(train)}
    return {
        "examples": {"seconds": 0.4, "reused": True, "rows": counts},
        "labeled": {
            "seconds": 262.5,
            "reused": False,
            "rows": len(rows),
            "labelled": labelled,
            "errors": {"TeacherTimeout": len(rows) - labelled},
            "asked": 2 * len(rows) - 40,
            "from_store": 40,
            "prompt_tokens": 180 * len(rows),
            "completion_tokens": 24 * len(rows),
            "cost_usd": None,
            "teacher": "smollm2-135m",
        },
        "curated": {
            "seconds": 14.2,
            "reused": False,
            "kept": kept,
            "dropped": dict(dropped),
            "conflicts": sum(edge["verdict"] == "conflict" for edge in edges),
            "clusters": clusters,
        },
        "student": {
            "seconds": 190.0,
            "reused": False,
            "rows": kept,
            "steps": 2 * max(kept // 8, 1),
            "epochs": 2,
            "model": "flan-t5-small",
            "objective": "multitask",
        },
        "predictions": {"seconds": 31.0, "reused": False},
    }


def _write(run: Path, name: str, rows: list[Row]) -> None:
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(run / f"{name}.parquet")


def change_run(run: Path, change: Callable[[Row], object]) -> None:
    """Apply ``change`` to the parsed run.json and write it back."""
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(content)
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")


def make_run(
    run: Path,
    *,
    train: int = 320,
    test: int = 160,
    skills: dict[str, float] | None = None,
    rationales: bool = True,
    probabilities: bool = True,
    seed: int = 0,
) -> Path:
    """Write a run folder at ``run``; ``skills`` are each system's chance of a right answer."""
    rng = random.Random(seed)
    skills = skills or {"majority": 0, "tfidf": 0.8, "teacher": 0.88, "student": 0.87}
    run.mkdir(parents=True)
    rows = _examples(rng, train, test)
    given = ("id", "input", "choices", "gold", "split", "group", "source")
    _write(run, "examples", [{key: row[key] for key in given} for row in rows])
    _label(rng, rows, rationales, probabilities)
    _write(run, "labeled", rows)
    train_rows = [row for row in rows if row["split"] == "train"]
    edges, left = _filter(rng, train_rows)
    clusters = _place(rng, train_rows)
    _write(run, "curated", train_rows)
    _write(run, "decisions", edges)
    predictions = _predict(rng, [row for row in rows if row["split"] == "test"], skills)
    _write(run, "predictions", predictions)
    kept = [row for row in train_rows if row["keep"]]
    if "student" in skills:
        (run / "student").mkdir()
        history = json.dumps(_history(rng, len(kept), rationales))
        (run / "student" / "history.json").write_text(history, encoding="utf-8")
    labelled = [row for row in train_rows if row["label"] is not None]
    metrics = {
        system: _score([row for row in predictions if row["system"] == system]) for system in skills
    }
    accuracy = metrics["student"]["accuracy"] if "student" in metrics else None
    met = accuracy is not None and accuracy["value"] >= 0.85
    funnel = [
        {"stage": "train rows read", "rows": len(train_rows)},
        {"stage": "labelled", "rows": len(labelled)},
        *({"stage": f"after {name}", "rows": n} for name, n in left.items()),
        {"stage": "training set", "rows": len(kept)},
    ]
    empty = {"value": None, "low": None, "high": None}
    said = f"The goal is {'met' if met else 'not met'}."
    content = {
        "name": "product-reviews",
        "created": "2026-11-20T09:30:00+00:00",
        "curate_version": "0.1.0",
        "seed": seed,
        "recipe": _recipe(),
        "recipe_sha256": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "stages": _stages(rows, train_rows, edges, clusters),
        "funnel": funnel,
        "balance": {
            "before": dict(Counter(row["label"] for row in labelled)),
            "after": dict(Counter(row["label"] for row in kept)),
        },
        "metrics": metrics,
        "goal": [{"metric": "accuracy", "target": 0.85, "met": met, **(accuracy or empty)}],
        "verdict": said,
        "notes": [],
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
        "machine": {"processor": "x86_64", "cores": 2, "platform": "Linux"},
    }
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return run
