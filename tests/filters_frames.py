"""Small frames and embeddings for the tests of filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import filters


def frame(texts: list[Any], **columns: list[Any]) -> pd.DataFrame:
    """Rows with ids r0, r1, ... and further columns."""
    ids = [f"r{number}" for number in range(len(texts))]
    return pd.DataFrame({"id": ids, "input": texts, **columns})


def run(rows: pd.DataFrame, *chosen: Any, **arguments: Any) -> filters.Result:
    """Apply filters."""
    return filters.apply(rows, list(chosen), **arguments)


def kept(result: filters.Result) -> set[str]:
    """Ids of the rows that stay."""
    return set(result.kept["id"])


def lines(result: filters.Result, verdict: str) -> list[tuple[str, str]]:
    """(id, related_id) of the decisions with a verdict."""
    found = result.decisions[result.decisions["verdict"] == verdict]
    return list(zip(found["id"], found["related_id"], strict=True))


def at_cosines(*cosines: float) -> np.ndarray[Any, Any]:
    """One vector, and one at each given cosine to it; the others are orthogonal beyond that."""
    vectors = np.zeros((len(cosines) + 1, len(cosines) + 1))
    vectors[0, 0] = 1
    for number, cosine in enumerate(cosines, start=1):
        vectors[number, 0] = cosine
        vectors[number, number] = np.sqrt(1 - cosine**2)
    return vectors
