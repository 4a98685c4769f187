"""What holds for any rows: nothing lost, nothing changed, order is no matter, reasons add up."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from near_twins import rows_with_twins

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
LEAKS = [
    filters.Contamination(ngram=2),
    filters.SemanticContamination(threshold=0.99, overlap=0.2),
]
ALL = [
    *LEAKS,
    *DUPLICATES,
    filters.Confidence(on_missing="drop"),
    filters.Rebalance(),
    filters.Select(rows=3, by="k_center"),
]
OTHERS: dict[str, Any] = {
    "references": {"test": ["the zoom is good", "battery was not bad 2", ""]},
    "reference_embeddings": {"test": [[1, 0, 0], [1, 2, 0], [0, 0, 0]]},
}
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
    result = filters.apply(frame, ALL, embeddings=vectors, clusters=clusters, **OTHERS)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(result.frame[list(before.columns)], before)
    assert result.counts["kept"] + sum(result.counts["dropped"].values()) == len(frame)


@QUICK
@given(st.lists(rows, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(found: list[dict[str, Any]], draw: Any) -> None:
    frame, vectors, clusters = split(found)
    order = list(range(len(frame)))
    draw.shuffle(order)
    straight = filters.apply(frame, ALL, embeddings=vectors, clusters=clusters, **OTHERS)
    shuffled = filters.apply(
        frame.iloc[order], ALL, embeddings=vectors[order], clusters=clusters[order], **OTHERS
    )
    pd.testing.assert_frame_equal(straight.frame, shuffled.frame.sort_index())
    pd.testing.assert_frame_equal(straight.decisions, shuffled.decisions)
    assert straight.warnings == shuffled.warnings
    assert straight.notes == shuffled.notes
    assert straight.policy == shuffled.policy


@QUICK
@given(st.lists(rows, max_size=25))
def test_a_second_pass_over_what_is_left_drops_nothing(found: list[dict[str, Any]]) -> None:
    frame, vectors, _ = split(found)
    chosen = [*LEAKS, *DUPLICATES, filters.Confidence(on_missing="drop"), ALL[-1]]
    once = filters.apply(frame, chosen, embeddings=vectors, **OTHERS)
    keep = once.frame["keep"].to_numpy()
    again = filters.apply(frame[keep], chosen, embeddings=vectors[keep], **OTHERS)
    assert again.counts["dropped"] == {}


@QUICK
@given(st.lists(rows, max_size=25))
def test_reason_score_and_threshold_reproduce_every_decision(found: list[dict[str, Any]]) -> None:
    frame, vectors, clusters = split(found)
    result = filters.apply(frame, ALL, embeddings=vectors, clusters=clusters, **OTHERS)
    rows = result.frame
    assert (rows["keep"] == rows["reason"].isna()).all()
    scores = {each.reason: rows[f"score_{each.reason}"] for each in ALL}
    unlabelled = rows["label"].isna() | rows["error"].notna()
    verdicts = {
        "unlabelled": unlabelled,
        "contamination": scores["contamination"] >= 0.5,
        "semantic_contamination": scores["semantic_contamination"] >= 0.99,
        "exact_duplicate": scores["exact_duplicate"] >= 1,
        "near_duplicate": scores["near_duplicate"] >= 0.6,
        "semantic_duplicate": scores["semantic_duplicate"] >= 0.9,
        "confidence": ~(scores["confidence"] >= 0.6),
        "rebalance": scores["rebalance"] > 1,
        "select": scores["select"] > 1,
    }
    left = pd.Series(True, index=rows.index)
    for reason, says_drop in verdicts.items():
        assert ((rows["reason"] == reason) == (left & says_drop)).all(), reason
        left &= ~says_drop
    drops = result.decisions[result.decisions["verdict"] == "drop"]
    assert set(zip(drops["id"], drops["filter"], strict=True)) == {
        (row.id, row.reason) for row in rows[~rows["keep"]].itertuples()
    }
    twins = ("contamination", "semantic_contamination", *(each.reason for each in DUPLICATES))
    assert (rows["related_id"].notna() == rows["reason"].isin(twins)).all()


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


@pytest.mark.parametrize("each", [filters.NearDuplicate(), filters.NearDuplicate(threshold=0.9)])
def test_what_holds_for_few_rows_holds_where_signatures_propose_the_pairs(
    each: filters.NearDuplicate,
) -> None:
    frame = rows_with_twins(3_000).assign(confidence=np.arange(4_050) % 7 / 7)
    chosen = [filters.ExactDuplicate(), each]
    straight = filters.apply(frame, chosen)
    shuffled = filters.apply(frame.sample(frac=1, random_state=1), chosen)
    pd.testing.assert_frame_equal(straight.frame, shuffled.frame.sort_index())
    pd.testing.assert_frame_equal(straight.decisions, shuffled.decisions)
    assert filters.apply(straight.kept[frame.columns], chosen).counts["dropped"] == {}
    scores = straight.frame["score_near_duplicate"]
    assert ((scores >= each.threshold) == (straight.frame["reason"] == "near_duplicate")).all()
    drops = straight.decisions[straight.decisions["verdict"] == "drop"].set_index("id")
    best = drops["score"].groupby(level=0).max()
    own = straight.frame.set_index("id").loc[best.index, "score_near_duplicate"]
    np.testing.assert_allclose(best, own)
    words = frame.set_index("id")["input"].str.split()
    for name, line in drops[:100].iterrows():
        one, other = (
            {(a,) for a in words[key]} | set(itertools.pairwise(words[key]))
            for key in (name, line["related_id"])
        )
        assert line["score"] == pytest.approx(len(one & other) / len(one | other))
