"""A random split never parts near-twins where the recipe asks for it."""

from __future__ import annotations

import pandas as pd
import pytest

from curate.recipe import DataSection
from curate.splits import split_rows, with_twins

DATA = DataSection(train="rows.csv", test_fraction=0.5)


def rows(count: int = 40, *, groups: bool = False) -> pd.DataFrame:
    """Pairs of near-twins: each text, and the same with its last word changed."""
    texts = []
    for n in range(count):
        text = f"Item {n} of shelf {n * 7} has stood in this shop for all of {n + 3} weeks and is still"
        texts += [f"{text} new.", f"{text} fine."]
    frame = pd.DataFrame({"id": [f"r{n:03d}" for n in range(len(texts))], "input": texts})
    frame["split"] = pd.Series([None] * len(texts), dtype=object)
    # A group joins the second of a pair with the first of the next one, for the first four pairs.
    linked = [f"g{(n + 1) // 2}" if groups and n < 8 else None for n in range(len(texts))]
    frame["group"] = pd.Series(linked, dtype=object)
    return frame


def parted(frame: pd.DataFrame, **options: bool) -> int:
    sides = split_rows(frame, DATA, 0, **options)
    assert {"train", "test"} == set(sides)
    return sum(one != other for one, other in zip(sides[::2], sides[1::2], strict=True))


def test_near_twins_stay_on_one_side() -> None:
    assert parted(rows()) > 10
    assert parted(rows(), keep_twins_together=True) == 0


def test_groups_and_twins_hold_together_along_chains() -> None:
    frame = rows(groups=True)
    assert parted(frame, keep_twins_together=True) == 0
    sides = split_rows(frame, DATA, 0, keep_twins_together=True)
    assert len(set(sides[:8])) == 1, "pair, group, pair, group, ... is one unit"


def test_a_row_keeps_its_side_when_rows_are_added_or_moved() -> None:
    frame = rows()
    sides = split_rows(frame, DATA, 0, keep_twins_together=True)
    fewer = split_rows(frame[:60], DATA, 0, keep_twins_together=True)
    assert fewer == sides[:60]
    backwards = split_rows(frame[::-1].reset_index(drop=True), DATA, 0, keep_twins_together=True)
    assert backwards[::-1] == sides


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_the_data_gives_is_left_as_it_is(split: str) -> None:
    frame = rows(2).assign(split=[split, "train", "test", "train"])
    assert split_rows(frame, DATA, 0, keep_twins_together=True) == [split, "train", "test", "train"]


def test_one_row_is_a_unit_of_its_own() -> None:
    assert with_twins(rows()[:1], pd.Series(["a"])).tolist() == ["a"]
