"""What the throughput benchmark asks: rows and a prompt of CommonsenseQA's size, made up by seed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from throughput_server import MODEL

from labelers import Demonstration, Task
from labelers.prompts import build_request
from labelers.store import canonical

MAX_TOKENS = 256
_PEOPLE = ("a baker", "the nurse", "my cousin", "an old sailor", "the new pupil", "a tired driver")
_ACTIONS = (
    "wanted to put away",
    "was looking for",
    "had to return",
    "hoped to find",
    "needed to clean",
)
_THINGS = ("a heavy coat", "two wooden spoons", "the spare key", "a box of nails", "an old map")
_TIMES = ("before the guests came", "after a long day", "early in the morning", "while it rained")
_PLACES = (
    "cupboard", "train station", "garden shed", "library", "kitchen drawer", "harbour", "hallway",
    "school yard", "attic", "hardware store", "post office", "back seat", "hotel lobby", "cellar",
)  # fmt: skip
_SHOWN = (
    (
        "Where would you keep milk so that it stays fresh for a few days?",
        ("bread box", "refrigerator", "bookshelf", "window sill", "mailbox"),
        "refrigerator",
        "Milk goes sour when it is warm, so it has to stay somewhere cold. Of the places listed only "
        "one is made to keep food cold.",
    ),
    (
        "What is a person most likely to use to cross a wide river with a car?",
        ("ferry", "bicycle", "ladder", "tunnel vision", "swimming pool"),
        "ferry",
        "The car has to come along, so it must be something that carries a car over water. A bicycle or a "
        "ladder cannot do that.",
    ),
    (
        "The children were told to be quiet because somebody was doing what in the next room?",
        ("dancing", "cooking", "sleeping", "painting", "laughing"),
        "sleeping",
        "People ask for quiet when noise would disturb. Noise wakes those who sleep, while cooking or "
        "painting go on in spite of it.",
    ),
    (
        "Where do you wait if your flight home leaves in two hours?",
        ("bus stop", "runway", "cockpit", "departure lounge", "car park"),
        "departure lounge",
        "Passengers wait inside the airport, near the gates, and may not go onto the runway. The room "
        "that is made for waiting there fits best.",
    ),
    (
        "What would a gardener do first if the leaves of a plant hang down and the soil is dry?",
        ("prune it", "sell it", "paint it", "dig it up", "water it"),
        "water it",
        "Dry soil and hanging leaves say that the plant lacks water. The remedy is to give it some, "
        "before anything else is tried.",
    ),
    (
        "Which of these would you expect to find in a lawyer's office but not in a bakery?",
        ("oven", "contracts", "flour", "chairs", "customers"),
        "contracts",
        "Chairs and customers are in both, and an oven and flour belong to the bakery. Papers that "
        "people sign are what a lawyer works on.",
    ),
    (
        "If a person puts on gloves and a scarf before leaving, what is the weather probably like?",
        ("humid", "mild", "sunny and hot", "freezing", "unknown"),
        "freezing",
        "Gloves and a scarf keep hands and neck warm. People need that only when it is very cold outside, "
        "so the other kinds of weather do not fit.",
    ),
)


def make_task() -> Task:
    """Seven worked examples with chains of thought, the options of each row by letter."""
    template = "Q: {{ question }}\nAnswer choices:\n{{ choices | letters }}"
    bare = Task(instruction="Answer.", template=template, choices="choices")
    return Task(
        instruction="Answer the multiple-choice question about everyday life.",
        template=template,
        choices="choices",
        demonstrations=tuple(
            Demonstration(
                input=bare.render({"question": question, "choices": list(choices)}),
                label=label,
                rationale=rationale,
                choices=choices,
            )
            for question, choices, label, rationale in _SHOWN
        ),
    )


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with ``question`` (some 15 words, no two alike) and five ``choices``."""
    drawn = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        question = (
            f"{drawn.choice(_PEOPLE)} {drawn.choice(_ACTIONS)} {drawn.choice(_THINGS)} "
            f"{drawn.choice(_TIMES)}: where is it most likely, in house number {number + 1}?"
        )
        rows.append({"question": question.capitalize(), "choices": drawn.sample(_PLACES, 5)})
    return rows


def write(folder: Path, count: int, requests: int) -> int:
    """Write the rows, and the requests of the first of them; the mean size of a request in bytes."""
    task, rows = make_task(), make_rows(count)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    size = 0
    with open(folder / "requests.jsonl", "wb") as ready:
        for row in rows[:requests]:
            request = build_request(
                task, task.render(row), kind="cot", api="chat", model=MODEL,
                choices=tuple(row["choices"]), max_tokens=MAX_TOKENS,
            )  # fmt: skip
            size += ready.write(canonical(request.body) + b"\n") - 1
    return size // requests
