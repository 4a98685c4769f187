"""Why a row is kept or dropped, thresholds moved without judging anew, and what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import filters
from filters import (
    Confidence,
    Contamination,
    ExactDuplicate,
    FilterError,
    NearDuplicate,
    Rebalance,
    Select,
    SemanticDuplicate,
)
from filters.explanations import mark_difference

ZOOM = "The zoom on this little camera is far better than I had expected for its price."


def reviews() -> pd.DataFrame:
    return frame(
        [
            "The battery lasts all day.",
            "the battery lasts all day!!",
            ZOOM,
            ZOOM.replace("camera", "player"),
            ZOOM.replace("better", "worse"),
            "It works, I suppose.",
            "The strap broke on day two.",
        ],
        label=["positive"] * 4 + ["negative", "positive", None],
        confidence=[0.97, 0.91, 0.93, 0.88, 0.90, 0.52, None],
    )


CHOSEN = [Contamination(), ExactDuplicate(), NearDuplicate(threshold=0.8), Confidence()]
SETS = {"test": ["It works, I suppose, and the strap is soft."]}


def judged(*changed: Any) -> filters.Result:
    return run(reviews(), *(changed or CHOSEN), references=SETS)


# --------------------------------------------------------------------------------- explanations


def test_a_dropped_row_is_explained_with_its_twin_beside_it() -> None:
    assert str(filters.explain(judged(), "r3")) == (
        "row 'r3', label 'positive': dropped by near_duplicate\n"
        "\n"
        "filter              score    goes if  outcome\n"
        "contamination           0     >= 0.5  passed\n"
        "exact_duplicate         0       >= 1  passed\n"
        "near_duplicate     0.8235     >= 0.8  dropped\n"
        "confidence           0.88      < 0.6  already gone\n"
        "\n"
        "near_duplicate 0.8235 to 'r2': its twin, which stays\n"
        "r3 (positive)                        | r2 (positive)\n"
        "------------------------------------ | ------------------------------------\n"
        "The zoom on this little [player] is  | The zoom on this little [camera] is\n"
        "far better than I had expected for   | far better than I had expected for\n"
        "its price.                           | its price."
    )


def test_a_kept_row_in_conflict_says_so_and_one_without_a_label_too() -> None:
    result = judged()
    conflict = filters.explain(result, "r4")
    assert conflict.keep
    assert [(twin.id, twin.label, twin.verdict) for twin in conflict.twins] == [
        ("r2", "positive", "conflict")
    ]
    assert "like text, other label: both stay" in str(conflict)
    unlabelled = filters.explain(result, "r6")
    assert [step.outcome for step in unlabelled.steps] == ["dropped", *["already gone"] * 4]
    assert str(unlabelled).startswith("row 'r6': dropped by unlabelled")


def test_a_twin_in_the_test_set_is_shown_too() -> None:
    rows = reviews()
    result = run(rows, Contamination(), references={"test": [f"Truly: {ZOOM}"]})
    shown = str(filters.explain(result, "r2"))
    assert "contamination 1 to '0' of the set 'test': it must not be trained on" in shown
    assert "[Truly:] The zoom on this little" in shown


def test_an_id_that_is_not_there_is_an_error_that_names_near_ones() -> None:
    with pytest.raises(
        FilterError, match=r"none of the 7 rows has the id 'r33'; did you mean 'r3'"
    ):
        filters.explain(judged(), "r33")


def test_differences_are_marked_by_word_without_case_and_punctuation() -> None:
    assert mark_difference("It was GOOD, truly.", "it was not good truly") == (
        "It was GOOD, truly.",
        "it was [not] good truly",
    )
    assert mark_difference("", "new words") == ("", "[new words]")


# --------------------------------------------------------------------------- moving thresholds


def test_moving_thresholds_gives_what_judging_anew_gives() -> None:
    result = judged()
    changes = {"near_duplicate.threshold": 0.85, "confidence.minimum": 0.9}
    moved = filters.rethreshold(result, changes)
    anew = judged(
        CHOSEN[0], CHOSEN[1], NearDuplicate(threshold=0.85, floor=0.7), Confidence(minimum=0.9)
    )
    pd.testing.assert_frame_equal(moved.frame, anew.frame)
    pd.testing.assert_frame_equal(moved.decisions, anew.decisions)
    assert moved.funnel == anew.funnel
    assert moved.policy != result.policy
    again = filters.rethreshold(result, {})
    pd.testing.assert_frame_equal(again.frame, result.frame)
    pd.testing.assert_frame_equal(again.decisions, result.decisions)
    assert again.policy == result.policy


def test_a_threshold_moved_down_says_what_may_be_missing() -> None:
    result = judged()
    moved = filters.rethreshold(result, {"near_duplicate.threshold": 0.75})
    assert "moved from 0.8 down to 0.75" in moved.warnings[0]
    with pytest.raises(FilterError, match=r"is 0.5, and matches are recorded down to 0.7 only"):
        filters.rethreshold(result, {"near_duplicate.threshold": 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"semantic_duplicate.threshold": 0.9},
            "'semantic_duplicate', which did not run; those that",
        ),
        ({"near_duplicate.shingle": (3,)}, "of near_duplicate can be: threshold"),
        ({"near_duplicate.threshold": "high"}, "is 'high'; it must be a number"),
        ({"near_duplicate.threshold": 1.5}, "threshold is 1.5; it must be a number above 0"),
        ({"confidence.minimum": 7}, "minimum is 7; it must be a number at most 1"),
        ({"confidence": 7}, "of confidence can be: minimum"),
        ({"confidence.on_missing": "drop"}, "of confidence can be: minimum"),
    ],
)
def test_what_cannot_be_moved(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        filters.rethreshold(judged(), changes)


def test_a_filter_that_would_have_to_look_anew_refuses() -> None:
    rows = reviews()
    vectors = np.eye(7)
    result = run(rows, Confidence(), Select(rows=3, by="k_center"), embeddings=vectors)
    assert filters.rethreshold(result, {"confidence.minimum": 0.55}).counts == result.counts
    with pytest.raises(FilterError, match="other rows reach select than before"):
        filters.rethreshold(result, {"confidence.minimum": 0.9})


def test_a_crowd_of_twins_is_not_decided_from_a_part_of_its_matches() -> None:
    words = [f"w{n}x" for n in range(20)]
    texts = [" ".join([*words[:n], f"new{n}", *words[n + 1 :]]) for n in range(20)]
    result = run(frame(texts), NearDuplicate(threshold=0.6))
    with pytest.raises(
        FilterError, match=r"recorded 16 matches of row 'r.*', and there may be more"
    ):
        filters.rethreshold(result, {"near_duplicate.threshold": 0.9})


WORDS = ["the", "zoom", "strap", "battery", "is", "was", "not", "good", "bad", "2"]
rows_of = st.fixed_dictionaries(
    {
        "input": st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join),
        "label": st.sampled_from(["good", "bad", None]),
        "confidence": st.none() | st.sampled_from([0.3, 0.6, 0.9]),
        "vector": st.tuples(*[st.integers(-2, 2)] * 3),
        "cluster": st.integers(0, 2),
    }
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(rows_of, max_size=14), st.data())
def test_whatever_is_moved_the_outcome_is_that_of_judging_anew(
    found: list[dict[str, Any]], data: Any
) -> None:
    table = pd.DataFrame(found, columns=["input", "label", "confidence", "vector", "cluster"])
    vectors = np.array(table["vector"].tolist(), dtype=np.float32).reshape(-1, 3)
    clusters = table["cluster"].to_numpy(dtype=np.int64)
    rows = table[["input", "label", "confidence"]].assign(
        id=[f"r{n:02d}" for n in range(len(table))]
    )
    sets = {"test": ["the zoom is good", "battery was not bad 2 2"]}
    chosen = [
        Contamination(ngram=2, containment=0.6, floor=0.2),
        Confidence(),
        ExactDuplicate(),
        NearDuplicate(threshold=0.5, floor=0.5),
        SemanticDuplicate(threshold=0.8, floor=0.7, overlap=0.2),
        Rebalance(),
    ]
    result = run(rows, *chosen, embeddings=vectors, clusters=clusters, references=sets)
    changes = {
        "contamination.containment": data.draw(st.sampled_from([0.3, 0.6, 1.0])),
        "confidence.minimum": data.draw(st.sampled_from([0.2, 0.6, 0.8])),
        "near_duplicate.threshold": data.draw(st.sampled_from([0.5, 0.7, 0.9])),
        "semantic_duplicate.threshold": data.draw(st.sampled_from([0.7, 0.8, 0.95])),
        "rebalance.label_ratio": data.draw(st.sampled_from([1.0, 1.5])),
    }
    moved = filters.rethreshold(result, changes)
    anew = []
    for each in chosen:
        own = {k.split(".")[1]: v for k, v in changes.items() if k.split(".")[0] == each.reason}
        anew.append(replace(each, **own))
    again = run(rows, *anew, embeddings=vectors, clusters=clusters, references=sets)
    pd.testing.assert_frame_equal(moved.frame, again.frame)
    pd.testing.assert_frame_equal(moved.decisions, again.decisions)
    assert moved.policy == again.policy


# --------------------------------------------------------------------------------- differences


def test_a_diff_names_rows_sides_and_filters() -> None:
    before = judged()
    after = filters.rethreshold(
        before, {"near_duplicate.threshold": 0.9, "confidence.minimum": 0.95}
    )
    found = filters.diff(before, after)
    assert found.rows[["id", "change", "filter"]].to_numpy().tolist() == [
        ["r2", "dropped", "confidence"],
        ["r4", "dropped", "confidence"],
    ]
    assert (found.before, found.after) == (3, 1)
    assert found.counts == {"dropped": {"confidence": 2}}
    back = filters.diff(after, before)
    assert str(back).splitlines()[:2] == [
        "1 rows kept before, 3 after",
        "restored: 2 rows (confidence)",
    ]
    assert filters.diff(before, before).counts == {}
    fewer = run(reviews().iloc[1:], ExactDuplicate())
    assert filters.diff(before, fewer).rows["change"].tolist()[0] == "gone"


# -------------------------------------------------------------------- policy, drops, related ids


def test_the_policy_is_the_filters_their_arguments_and_their_order() -> None:
    one = [NearDuplicate(threshold=0.7), Confidence()]
    assert filters.policy_hash(one) == filters.policy_hash([NearDuplicate(), Confidence()])
    assert filters.policy_hash(one) != filters.policy_hash(one[::-1])
    assert filters.policy_hash(one) != filters.policy_hash([NearDuplicate(threshold=0.71), one[1]])
    assert filters.policy([Confidence()]) == [
        {"filter": "confidence", "arguments": {"minimum": 0.6, "on_missing": "keep"}}
    ]
    assert judged().policy == filters.policy_hash(CHOSEN)


def test_drops_are_counted_by_label_and_cluster() -> None:
    result = run(reviews(), *CHOSEN[1:], clusters=[0, 0, 1, 1, 1, 2, 2])
    assert result.drops["label"] == {
        "negative": {"rows": 1, "kept": 1},
        "positive": {
            "rows": 5,
            "kept": 2,
            "confidence": 1,
            "exact_duplicate": 1,
            "near_duplicate": 1,
        },
    }
    assert result.drops["cluster"]["2"] == {"rows": 2, "kept": 0, "confidence": 1, "unlabelled": 1}
    twins = dict(zip(result.frame["id"], result.frame["related_id"], strict=True))
    assert (twins["r1"], twins["r3"]) == ("r0", "r2")
    assert pd.isna([twins[one] for one in ("r0", "r2", "r4", "r5", "r6")]).all()


def test_a_result_put_together_from_its_tables_is_the_same() -> None:
    result = judged()
    whole = filters.result_from(
        result.frame, result.decisions, CHOSEN, references=result.references
    )
    assert (whole.counts, whole.funnel, whole.drops) == (result.counts, result.funnel, result.drops)
    assert str(filters.explain(whole, "r3")) == str(filters.explain(result, "r3"))
    assert kept(filters.rethreshold(whole, {"confidence.minimum": 0.5})) == {"r0", "r2", "r4", "r5"}
