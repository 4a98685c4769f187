"""A training set of a given size, shares for rebalancing, and which rows to label next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, run

from filters import FilterError, Rebalance, Select, next_to_label
from filters.coverage import facilities, farthest_first
from filters.selection import share_out

WAYS = ("prototypes", "k_center", "facility_location", "uncertainty", "random")


def blobs(sizes: list[int], width: int = 8, spread: float = 0.1) -> np.ndarray[Any, Any]:
    """Unit vectors in as many tight groups, one after the other."""
    draw = np.random.default_rng(0)
    parts = [
        np.eye(width)[n] + spread * draw.normal(size=(size, width)) for n, size in enumerate(sizes)
    ]
    vectors = np.concatenate(parts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some(count: int, **columns: Any) -> pd.DataFrame:
    confidence = np.linspace(0.5, 0.99, count).round(3).tolist()
    return frame([f"Sentence {n}." for n in range(count)], confidence=confidence, **columns)


@pytest.mark.parametrize("by", WAYS)
def test_the_budget_is_kept_whatever_the_order_of_the_rows(by: str) -> None:
    rows, vectors = some(60), blobs([30, 20, 10])
    result = run(rows, Select(rows=12, by=by), embeddings=vectors)
    assert result.counts == {"rows": 60, "kept": 12, "dropped": {"select": 48}, "conflicts": 0}
    scores = result.frame["score_select"]
    assert sorted(scores[scores <= 1]) == [n / 12 for n in range(1, 13)]
    assert (result.frame["keep"] == (scores <= 1)).all()
    order = np.random.default_rng(1).permutation(60)
    shuffled = run(rows.iloc[order], Select(rows=12, by=by), embeddings=vectors[order])
    pd.testing.assert_frame_equal(result.frame, shuffled.frame.sort_index())


@pytest.mark.parametrize("by", ["prototypes", "k_center", "facility_location"])
def test_every_group_is_stood_for_and_better_than_at_random(by: str) -> None:
    sizes = [40, 5, 5, 5, 5]
    vectors = blobs(sizes)
    groups = np.repeat(range(5), sizes)
    result = run(some(60), Select(rows=12, by=by), embeddings=vectors, clusters=groups)
    assert set(groups[result.frame["keep"].to_numpy()]) == {0, 1, 2, 3, 4}
    note = result.notes[0]
    assert note.startswith(
        f"select: 12 of 60 rows by {by} cover the rows with a mean highest cosine"
    )
    ours = float(note.split("cosine of ")[1].split(";")[0])
    if by == "facility_location":
        assert ours > float(note.rsplit(" ", 1)[1])


def test_uncertainty_takes_the_smallest_margins_and_those_without_a_number_last() -> None:
    probabilities = [[0.5, 0.5], [0.9, 0.1], None, [0.6, 0.4], [0.55, 0.45]]
    rows = some(5, label_probs=probabilities)
    assert kept(run(rows, Select(rows=2, by="uncertainty"))) == {"r0", "r4"}
    by_confidence = rows.drop(columns=["label_probs"])
    by_confidence["confidence"] = [0.9, float("nan"), 0.4, 0.6, None]
    assert kept(run(by_confidence, Select(rows=2, by="uncertainty"))) == {"r2", "r3"}
    assert kept(run(by_confidence, Select(rows=4, by="uncertainty"))) >= {"r0", "r2", "r3"}
    with pytest.raises(FilterError, match="needs a column 'label_probs' or 'confidence'"):
        run(frame(["One.", "Two."]), Select(rows=1, by="uncertainty"))


def test_a_larger_random_budget_keeps_the_smaller_ones_rows_and_the_seed_matters() -> None:
    rows = some(50)
    small = kept(run(rows, Select(rows=10, by="random")))
    assert small < kept(run(rows, Select(rows=20, by="random")))
    assert small != kept(run(rows, Select(rows=10, by="random"), seed=1))


@pytest.mark.parametrize("by", WAYS)
def test_a_budget_that_is_not_reached_drops_nothing(by: str) -> None:
    result = run(some(3), Select(rows=10, by=by), embeddings=blobs([2, 1]))
    assert len(kept(result)) == 3
    assert result.notes == []
    assert len(run(some(0), Select(by=by), embeddings=np.ones((0, 2))).frame) == 0
    same = run(some(4), Select(rows=2, by=by), embeddings=np.ones((4, 2)))
    assert len(kept(same)) == 2


def test_what_is_missing_is_said() -> None:
    with pytest.raises(FilterError, match="by='k_center' needs one vector per row"):
        run(some(3), Select(rows=1, by="k_center"))
    with pytest.raises(FilterError, match="rows is 0; it must be a whole number at least 1"):
        Select(rows=0)
    with pytest.raises(
        FilterError, match="by is 'best'; it must be one of 'prototypes', 'k_center'"
    ):
        Select(by="best")


def test_farthest_first_is_what_the_plain_algorithm_gives() -> None:
    vectors = blobs([300, 200, 100, 50], width=16, spread=0.4).astype(np.float32)
    chosen = farthest_first(vectors, 40).tolist()
    cosines = vectors @ vectors.T
    expected = chosen[:1]
    while len(expected) < 40:
        nearest = np.round(cosines[:, expected].max(axis=1), 6)
        nearest[expected] = 9
        expected.append(int(np.argmin(nearest)))
    assert chosen == expected


def test_facility_location_is_what_the_plain_greedy_algorithm_gives() -> None:
    vectors = blobs([40, 25, 10], spread=0.3).astype(np.float32)
    groups = np.repeat([0, 1, 2], [40, 25, 10])
    chosen = facilities(vectors, groups, 12, np.arange(75, dtype=np.uint64)).tolist()
    cosines = np.where(
        groups[:, None] == groups, np.maximum(np.round(vectors @ vectors.T, 6), 0), 0
    )
    covered, expected = np.zeros(75), []
    for _ in range(12):
        gains = np.round(np.maximum(cosines - covered, 0).sum(axis=1), 4)
        gains[expected] = -1
        expected.append(int(np.argmax(gains)))
        covered = np.maximum(covered, cosines[expected[-1]])
    assert chosen == expected


def test_a_budget_is_shared_out_in_proportion_within_what_there_is() -> None:
    assert share_out(10, np.array([3.0, 1.0, 1.0]), np.array([9, 9, 9])).tolist() == [6, 2, 2]
    assert share_out(10, np.array([3.0, 1.0, 1.0]), np.array([4, 9, 9])).tolist() == [4, 3, 3]
    assert share_out(99, np.array([1.0, 1.0]), np.array([2, 3])).tolist() == [2, 3]
    assert share_out(1, np.array([0.0, 0.0]), np.array([2, 3])).tolist() == [1, 0]


def test_the_next_rows_to_label_come_from_large_and_doubtful_clusters() -> None:
    vectors, clusters = blobs([40, 40, 20]), np.repeat([0, 1, 2], [40, 40, 20])
    labelled = np.zeros(100, dtype=bool)
    labelled[[0, 1, 2, 3, 40, 41, 42, 43]] = True
    plain = next_to_label(vectors, clusters, labelled, 23)
    assert np.bincount(clusters[plain]).tolist() == [9, 9, 5]
    assert not labelled[plain].any()
    confidence = np.full(100, np.nan)
    confidence[[0, 1, 2, 3]], confidence[[40, 41, 42, 43]] = 0.99, 0.55
    doubtful = np.bincount(
        clusters[next_to_label(vectors, clusters, labelled, 23, confidence=confidence)]
    )
    assert doubtful[1] > 9 > doubtful[0] > 0
    assert len(next_to_label(vectors, clusters, labelled, 1000)) == 92
    assert next_to_label(np.ones((0, 2)), [], np.zeros(0, dtype=bool), 5).tolist() == []
    with pytest.raises(FilterError, match="true or false for each of the 100 rows"):
        next_to_label(vectors, clusters, [1] * 100, 5)


# ------------------------------------------------------------------------------- shares to reach


def tones() -> pd.DataFrame:
    return some(20, tone=["warm"] * 12 + ["cold"] * 6 + ["dry"] * 2)


SHARES = {"tone": {"warm": 2, "cold": 1, "dry": 1}}


def test_cap_leaves_the_largest_set_of_the_wanted_shares() -> None:
    balance = Rebalance(by=["tone"], shares=SHARES, maximum_loss=1.0)
    result = run(tones(), balance)
    assert result.balance["tone"]["after"] == {"cold": 2, "dry": 2, "warm": 4}
    assert kept(result) >= {"r11", "r10", "r9", "r8"}, "the most confident of each"
    dropped = result.frame[~result.frame["keep"]]
    assert (dropped["score_rebalance"] > 1).all()
    half = run(tones(), Rebalance(by=["tone"], shares=SHARES)).balance["tone"]["after"]
    assert sum(half.values()) >= 10
    assert half["warm"] < 12


def test_weights_and_copies_reach_the_wanted_shares() -> None:
    weighted = run(tones(), Rebalance(by=["tone"], shares=SHARES, method="weight"))
    loads = weighted.balance["tone"]["effective"]
    assert loads == pytest.approx({"cold": 5, "dry": 5, "warm": 10}, rel=0.35)
    free = Rebalance(by=["tone"], shares=SHARES, method="weight", maximum_weight=100)
    assert run(tones(), free).balance["tone"]["effective"] == pytest.approx(
        {"cold": 5, "dry": 5, "warm": 10}
    )
    copied = run(tones(), Rebalance(by=["tone"], shares=SHARES, method="oversample"))
    assert copied.balance["tone"]["effective"] == {"cold": 6, "dry": 6, "warm": 12}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"mood": {"a": 1}}, "shares names 'mood', which is not in `by`"),
        ({"tone": {"warm": 1, "cold": 1}}, "shares of 'tone' lacks the value 'dry'"),
        ({"tone": {"warm": 0}}, "shares.tone.warm is 0; it must be a number above 0"),
        ([0.5], "it must be shares by column and value"),
    ],
)
def test_shares_that_cannot_be_worked_with(shares: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        run(tones(), Rebalance(by=["tone"], shares=shares))
