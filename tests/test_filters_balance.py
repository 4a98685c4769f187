"""Confidence and balance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, run

from filters import Confidence, FilterError, Rebalance


def test_confidence_below_the_minimum_is_dropped_and_at_the_minimum_kept() -> None:
    rows = frame(["One.", "Two.", "Three."], confidence=[0.59, 0.6, 0.61])
    result = run(rows, Confidence(minimum=0.6))
    assert kept(result) == {"r1", "r2"}
    assert result.frame["score_confidence"].tolist() == [0.59, 0.6, 0.61]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_confidence_is_kept_unless_told_otherwise(missing: object) -> None:
    rows = frame(["One.", "Two."]).assign(confidence=pd.Series([missing, 0.9], dtype=object))
    kind = run(rows, Confidence())
    assert kept(kind) == {"r0", "r1"}
    assert np.isnan(kind.frame["score_confidence"][0])
    strict = run(rows, Confidence(on_missing="drop"))
    assert kept(strict) == {"r1"}
    assert strict.frame["reason"][0] == "confidence"


def test_a_filter_without_any_confidence_to_judge_by_says_so() -> None:
    result = run(frame(["One.", "Two."], confidence=[None, None]), Confidence())
    assert result.counts["kept"] == 2
    assert result.warnings[0].startswith("confidence: no row has a confidence")


def test_log_probabilities_can_be_the_confidence() -> None:
    rows = frame(["One.", "Two."], confidence=[-0.2, -3.0])
    assert kept(run(rows, Confidence(minimum=-1.0))) == {"r0"}


def test_a_confidence_that_is_no_number_is_named() -> None:
    rows = frame(["One.", "Two."], confidence=[0.9, "high"])
    with pytest.raises(FilterError, match="row 'r1': confidence is 'high'"):
        run(rows, Confidence())


def two_labels(large: int, small: int) -> pd.DataFrame:
    count = large + small
    return frame(
        [f"Text number {number}." for number in range(count)],
        label=["positive"] * large + ["negative"] * small,
        confidence=[0.5 + number / 1000 for number in range(count)],
    )


def test_cap_drops_the_least_confident_rows_of_the_larger_label() -> None:
    result = run(two_labels(100, 40), Rebalance(by=["label"]))
    assert result.balance["label"]["before"] == {"negative": 40, "positive": 100}
    assert result.balance["label"]["after"] == {"negative": 40, "positive": 60}
    assert kept(result) == {f"r{number}" for number in range(40, 140)}
    scores = result.frame["score_rebalance"]
    assert ((scores > 1) == ~result.frame["keep"]).all()
    assert scores[99] == pytest.approx(1 / 60), "the most confident positive has the first place"
    lines = result.decisions
    assert set(lines["filter"]) == {"rebalance"}
    assert (lines["score"] > lines["threshold"]).all()


def test_labels_within_the_ratio_are_left_alone() -> None:
    assert run(two_labels(60, 40), Rebalance(by="label")).counts["kept"] == 100
    assert run(two_labels(60, 40), Rebalance(by="label", label_ratio=1)).counts["kept"] == 80


def test_cap_loses_no_more_than_it_may() -> None:
    result = run(two_labels(190, 10), Rebalance(by=["label"]))
    assert result.balance["label"]["after"] == {"negative": 10, "positive": 90}
    result = run(two_labels(190, 10), Rebalance(by=["label"], maximum_loss=0.1))
    assert result.balance["label"]["after"] == {"negative": 10, "positive": 170}
    result = run(two_labels(190, 10), Rebalance(by=["label"], maximum_loss=1))
    assert result.balance["label"]["after"] == {"negative": 10, "positive": 15}


def test_one_rare_label_among_many_does_not_drag_the_others_down() -> None:
    rows = frame(
        [f"Text number {number}." for number in range(131)],
        label=["a"] * 50 + ["b"] * 40 + ["c"] * 40 + ["odd"],
    )
    result = run(rows, Rebalance(by=["label"]))
    assert result.counts["kept"] == 131


def test_clusters_are_capped_by_their_own_ratio() -> None:
    rows = frame([f"Text number {number}." for number in range(70)], label=["yes"] * 70)
    clusters = [0] * 50 + [1] * 10 + [2] * 10
    result = run(rows, Rebalance(), clusters=clusters)
    assert result.balance["cluster"]["after"] == {"0": 30, "1": 10, "2": 10}
    assert run(rows, Rebalance(group_ratio=10), clusters=clusters).counts["kept"] == 70


def test_dropped_rows_do_not_count() -> None:
    rows = two_labels(100, 40)
    rows.loc[:79, "confidence"] = 0.1
    result = run(rows, Confidence(minimum=0.5), Rebalance(by=["label"]))
    assert result.counts["dropped"] == {"confidence": 80, "rebalance": 10}
    assert result.balance["label"]["before"] == {"negative": 40, "positive": 100}
    assert result.balance["label"]["after"] == {"negative": 30, "positive": 20}


def test_weights_lighten_the_larger_label() -> None:
    result = run(two_labels(120, 40), Rebalance(by=["label"], method="weight"))
    rows = result.frame
    assert result.counts["kept"] == 160
    assert rows["weight"].mean() == pytest.approx(1)
    effective = result.balance["label"]["effective"]
    assert effective["positive"] / effective["negative"] == pytest.approx(1.5)
    assert rows["score_rebalance"].equals(rows["weight"].rename("score_rebalance"))


def test_no_row_weighs_more_than_the_maximum_times_another() -> None:
    method = Rebalance(by=["label"], method="weight", maximum_weight=2)
    result = run(two_labels(190, 10), method)
    weights = result.frame["weight"]
    assert weights.max() / weights.min() == pytest.approx(2)
    assert weights.mean() == pytest.approx(1)


def test_weights_keep_the_promise_for_labels_and_clusters_at_once() -> None:
    rows = two_labels(150, 50)
    clusters = [0] * 160 + [1] * 20 + [2] * 20
    method = Rebalance(method="weight", maximum_weight=100)
    result = run(rows, method, clusters=clusters)
    labels, groups = result.balance["label"]["effective"], result.balance["cluster"]["effective"]
    assert labels["positive"] <= 1.501 * labels["negative"]
    assert groups["0"] <= 3.001 * min(groups["1"], groups["2"])


def test_weights_leave_dropped_rows_at_one() -> None:
    rows = two_labels(120, 40)
    rows.loc[0, "label"] = None
    result = run(rows, Rebalance(by=["label"], method="weight"))
    assert result.frame["weight"][0] == 1.0
    assert result.frame.loc[result.frame["keep"], "weight"].mean() == pytest.approx(1)


def test_oversampling_repeats_the_smaller_label_the_most_confident_first() -> None:
    result = run(two_labels(90, 40), Rebalance(by=["label"], method="oversample"))
    assert result.counts["kept"] == 130
    assert result.balance["label"]["effective"] == {"negative": 60, "positive": 90}
    copies = result.frame["copies"].tolist()
    assert copies == [1] * 90 + [1] * 20 + [2] * 20
    few = run(two_labels(190, 10), Rebalance(by=["label"], method="oversample"))
    assert few.balance["label"]["effective"] == {"negative": 40, "positive": 190}


def test_any_column_can_be_balanced_and_nulls_are_a_group() -> None:
    rows = frame([f"Text number {n}." for n in range(60)], site=["a"] * 50 + [None] * 10)
    result = run(rows, Rebalance(by=["site"]))
    assert result.counts["kept"] == 40


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("cluster", "pass clusters=filters.cluster"),
        ("site", "there is no column 'site'"),
        ("choices", "holds values that cannot be grouped"),
    ],
)
def test_columns_that_cannot_be_balanced(by: str, message: str) -> None:
    rows = frame(["One.", "Two."], choices=[["a", "b"], ["a", "b"]])
    with pytest.raises(FilterError, match=message):
        run(rows, Rebalance(by=[by]))


def test_balancing_before_another_filter_sounds_an_alarm() -> None:
    result = run(two_labels(60, 40), Rebalance(by=["label"]), Confidence(minimum=0.1))
    assert result.warnings == [
        "rebalance comes before confidence, which may tip the balance again; put it last"
    ]
