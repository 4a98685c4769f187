"""Rows of which it is known which are near-twins."""

from __future__ import annotations

import random

import pandas as pd


def rows_with_twins(count: int, seed: int = 0) -> pd.DataFrame:
    """Return rows of three kinds, shuffled: texts of their own, edited copies, and contrast rows.

    An edited copy has the id of its original and "-copy", a contrast row the id and "-contrast".
    """
    draw = random.Random(seed)
    letters = "bdfgklmnprstaeiou"
    found = []
    for number in range(count):
        words = ["".join(draw.choices(letters, k=6)) for _ in range(draw.randrange(16, 40))]
        words[3] = "good"
        found.append((f"t{number:05d}", " ".join(words), "positive"))
        if number % 4 == 0:
            place = draw.randrange(4, len(words))
            copy = [*words[:place], "changed", *words[place + 1 :]]
            found.append((f"t{number:05d}-copy", " ".join(copy), "positive"))
        if number % 10 == 1:
            contrast = [*words[:3], "bad", *words[4:]]
            found.append((f"t{number:05d}-contrast", " ".join(contrast), "negative"))
    draw.shuffle(found)
    return pd.DataFrame(found, columns=["id", "input", "label"])


def original(name: str) -> str:
    """Return the id of the row that a copy or a contrast row was made from."""
    return name.partition("-")[0]
