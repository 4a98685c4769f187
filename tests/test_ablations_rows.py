"""Which rows are judged by and which are trained on: carved once, nested, stratified, groups whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_recipe import small_recipe

from curate.ablation_rows import lay_ground, nested_subsets, strata
from curate.exceptions import CurateError
from curate.recipe import Recipe, parse_recipe

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(small_recipe(**changes))


def rows(number: int, *, group: int | None = None, rare: float = 0.1) -> pd.DataFrame:
    """Train rows as the filters leave them; so many rows of each group, or none."""
    random = np.random.default_rng(0)
    labels = np.where(random.random(number) < rare, "negative", "positive")
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(number)],
            "input": [
                f"Sentence {i} is about item {i * 7} in box {i * 13}." for i in range(number)
            ],
            "group": pd.Series(
                [None if group is None else f"g{i // group}" for i in range(number)], dtype=object
            ),
            "label": labels,
            "gold": labels,
            "split": "train",
            "source": "reviews.csv",
            "keep": True,
        }
    )


@pytest.mark.parametrize("group", [None, 4])
def test_each_subset_holds_the_smaller_one_and_whole_groups(group: int | None) -> None:
    frame = rows(400, group=group)
    subsets = nested_subsets(frame, FRACTIONS, frame["label"].tolist(), seed=3)
    before: set[str] = set()
    for fraction, subset in subsets.items():
        assert abs(len(subset) - fraction * 400) <= (group or 1)
        assert before < set(subset["id"])
        before = set(subset["id"])
        if group is not None:
            assert set(subset["group"].value_counts()) == {group}
    assert len(before) == 400


def test_each_subset_has_the_labels_in_their_proportions() -> None:
    frame = rows(400)
    share = (frame["label"] == "negative").mean()
    for fraction, subset in nested_subsets(frame, FRACTIONS, list(frame["label"]), seed=1).items():
        found = int((subset["label"] == "negative").sum())
        assert abs(found - share * fraction * 400) <= 1


def test_another_seed_draws_other_rows_and_the_same_seed_the_same() -> None:
    frame = rows(200)
    drawn = [
        set(nested_subsets(frame, [0.25], list(frame["label"]), seed=seed)[0.25]["id"])
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_fractions_that_give_the_same_rows_are_refused() -> None:
    frame = rows(12, group=6)
    with pytest.raises(
        CurateError, match=r"fractions 0\.1 and 0\.2 of 12 training rows in 2 units"
    ):
        nested_subsets(frame, [0.1, 0.2, 1.0], [""] * 12, seed=0)


def test_free_text_is_stratified_by_cluster_and_else_by_nothing() -> None:
    frame = rows(6).assign(cluster=[0, 0, 0, 1, 1, 2])
    free = recipe(task={"labels": None, "goal": {}}, data={"gold": "sentiment"})
    assert strata(frame, recipe())[1] == "label"
    assert strata(frame, free) == (["0", "0", "0", "1", "1", "2"], "cluster")
    assert strata(frame.drop(columns="cluster"), free) == ([""] * 6, "")


def test_validation_is_carved_by_whole_groups_and_kept_out_of_training() -> None:
    frame = rows(300, group=3)
    frame.loc[::7, "keep"] = False
    frame.loc[::5, "gold"] = None
    ground = lay_ground(frame, recipe(), share=0.2)
    assert ground.reference == "gold"
    assert ground.validation["reference"].notna().all()
    assert 0.15 * 300 < len(ground.held) < 0.25 * 300
    assert not set(ground.training["id"]) & ground.held
    assert not set(ground.training["group"]) & set(ground.validation["group"])
    assert ground.training["keep"].all()
    # Rows that a filter dropped are met in the world, too.
    assert not ground.validation["keep"].all()


def test_a_near_copy_of_a_validation_row_is_not_trained_on() -> None:
    frame = rows(200)
    # Row i and row i + 100 differ by one word at the end.
    for i in range(100):
        text = f"The {i} green lamps of house {i * 3} were lit when boat {i * 11} came in at"
        frame.loc[i, "input"], frame.loc[i + 100, "input"] = f"{text} dawn", f"{text} dusk"
    ground = lay_ground(frame, recipe(), share=0.3)
    held = {int(id_[1:]) % 100 for id_ in ground.validation["id"]}
    trained = {int(id_[1:]) % 100 for id_ in ground.training["id"]}
    assert held
    assert not held & trained


def test_validation_rows_of_the_data_are_used_and_rows_that_the_teacher_wrote_are_not() -> None:
    frame = rows(200)
    frame.loc[:39, "split"] = "validation"
    ground = lay_ground(frame, recipe(), share=0.2)
    assert list(ground.validation["id"]) == [f"r{i}" for i in range(40)]
    assert len(ground.training) == 160

    written = rows(200)
    written.loc[100:, "source"] = "generated"
    ground = lay_ground(written, recipe(), share=0.4)
    assert set(ground.validation["source"]) == {"reviews.csv"}
    assert Counter(ground.training["source"])["generated"] == 100


def test_without_human_labels_the_teacher_is_the_reference() -> None:
    frame = rows(150).assign(gold=None)
    ground = lay_ground(frame, recipe(), share=0.2)
    assert ground.reference == "label"
    assert list(ground.validation["reference"]) == list(ground.validation["label"])


def test_too_few_rows_to_judge_by_are_refused_with_the_remedy() -> None:
    with pytest.raises(CurateError, match=r"10 of 50 train rows.*at least 20.*raise --validation"):
        lay_ground(rows(50), recipe(), share=0.2)
