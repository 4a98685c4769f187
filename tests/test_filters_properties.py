"""What holds for any rows: nothing lost, nothing changed, order is no matter, reasons add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import filters

WORDS = ["the", "zoom", "strap", "battery", "is", "was", "not", "good", "bad", "2", "😀", "جيد"]

texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
rows = st.fixed_dictionaries(
    {
        "input": texts,
        "label": st.sampled_from(["good", "bad", None]),
        "confidence": st.none() | st.sampled_from([0.3, 0.6, 0.9]) | st.just(float("nan")),
        "rationale": st.none() | st.just("Because it is."),
        "error": st.sampled_from([None, None, None, "refused"]),
        "vector": st.tuples(*[st.integers(-2, 2)] * 3),
        "cluster": st.integers(0, 2),
    }
)
DUPLICATES = [
    filters.ExactDuplicate(),
    filters.NearDuplicate(threshold=0.6),
    filters.SemanticDuplicate(threshold=0.9, overlap=0.2),
]
ALL = [*DUPLICATES, filters.Confidence(on_missing="drop"), filters.Rebalance()]
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def split(found: list[dict[str, Any]]) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    columns = ["input", "label", "confidence", "rationale", "error"]
    frame = pd.DataFrame(found, columns=[*columns, "vector", "cluster"])
    frame.insert(0, "id", [f"r{number:03d}" for number in range(len(frame))])
    vectors = np.array(frame["vector"].tolist(), dtype=np.float32).reshape(-1, 3)
    return frame[["id", *columns]], vectors, frame["cluster"].to_numpy(dtype=np.int64)


@QUICK
@given(st.lists(rows, max_size=25))
def test_no_row_is_changed_moved_or_lost(found: list[dict[str, Any]]) -> None:
    frame, vectors, clusters = split(found)
    before = frame.copy(deep=True)
    result = filters.apply(frame, ALL, embeddings=vectors, clusters=clusters)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(result.frame[list(before.columns)], before)
    assert result.counts["kept"] + sum(result.counts["dropped"].values()) == len(frame)


@QUICK
@given(st.lists(rows, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(found: list[dict[str, Any]], draw: Any) -> None:
    frame, vectors, clusters = split(found)
    order = list(range(len(frame)))
    draw.shuffle(order)
    straight = filters.apply(frame, ALL, embeddings=vectors, clusters=clusters)
    shuffled = filters.apply(
        frame.iloc[order], ALL, embeddings=vectors[order], clusters=clusters[order]
    )
    pd.testing.assert_frame_equal(straight.frame, shuffled.frame.sort_index())
    pd.testing.assert_frame_equal(straight.decisions, shuffled.decisions)
    assert straight.warnings == shuffled.warnings


@QUICK
@given(st.lists(rows, max_size=25))
def test_a_second_pass_over_what_is_left_drops_nothing(found: list[dict[str, Any]]) -> None:
    frame, vectors, _ = split(found)
    once = filters.apply(frame, DUPLICATES, embeddings=vectors)
    keep = once.frame["keep"].to_numpy()
    again = filters.apply(frame[keep], DUPLICATES, embeddings=vectors[keep])
    assert again.counts["dropped"] == {}


@QUICK
@given(st.lists(rows, max_size=25))
def test_reason_score_and_threshold_reproduce_every_decision(found: list[dict[str, Any]]) -> None:
    frame, vectors, clusters = split(found)
    result = filters.apply(frame, ALL, embeddings=vectors, clusters=clusters)
    rows = result.frame
    assert (rows["keep"] == rows["reason"].isna()).all()
    scores = {name: rows[f"score_{name}"] for name in filters.FILTERS}
    unlabelled = rows["label"].isna() | rows["error"].notna()
    verdicts = {
        "unlabelled": unlabelled,
        "exact_duplicate": scores["exact_duplicate"] >= 1,
        "near_duplicate": scores["near_duplicate"] >= 0.6,
        "semantic_duplicate": scores["semantic_duplicate"] >= 0.9,
        "confidence": ~(scores["confidence"] >= 0.6),
        "rebalance": scores["rebalance"] > 1,
    }
    left = pd.Series(True, index=rows.index)
    for reason, says_drop in verdicts.items():
        assert ((rows["reason"] == reason) == (left & says_drop)).all(), reason
        left &= ~says_drop
    drops = result.decisions[result.decisions["verdict"] == "drop"]
    assert set(zip(drops["id"], drops["filter"], strict=True)) == {
        (row.id, row.reason) for row in rows[~rows["keep"]].itertuples()
    }


@QUICK
@given(st.lists(rows, max_size=25))
def test_every_twin_stays_and_agrees_and_no_conflict_is_dropped(
    found: list[dict[str, Any]],
) -> None:
    frame, vectors, _ = split(found)
    for each in DUPLICATES:
        result = filters.apply(frame, [each], embeddings=vectors)
        rows = result.frame.set_index("id")
        for line in result.decisions.dropna(subset=["related_id"]).itertuples():
            one, other = rows.loc[line.id], rows.loc[line.related_id]
            if line.verdict == "drop":
                assert not one["keep"]
                assert other["keep"]
                assert one["label"] == other["label"]
            elif line.verdict == "conflict":
                assert one["keep"]
                assert other["keep"]
                assert one["label"] != other["label"]
                assert line.score >= line.threshold
