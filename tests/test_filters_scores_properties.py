"""What holds of rules and scores for any rows: nothing lost, order is no matter, drops reproduce."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import filters

WORDS = ["the", "zoom", "is", "and", "good", "bad", "poor", "lovely", "2", "+", "= 4", "😀", "جيد"]
texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
CHOICES = [["good", "bad"], ["good", "bad", "poor"], ["bad", "lovely", "good"], None]
rows = st.fixed_dictionaries(
    {
        "input": texts,
        "rationale": st.none() | texts,
        "label": st.sampled_from(["good", "good", "bad", "4", None]),
        "choices": st.sampled_from(CHOICES),
        "confidence": st.none() | st.sampled_from([0.3, 0.6, 0.9]),
        "agreement": st.none() | st.sampled_from([0.4, 1.0]),
        "finish_reason": st.sampled_from([None, "stop", "length"]),
        "judge": st.none() | st.sampled_from([0.2, 0.8]),
        "perplexity": st.none() | st.sampled_from([3.0, 5000.0]),
    }
)
ALL: list[Any] = [
    *(filters.TooShort(minimum=2), filters.TooLong(maximum=7), filters.Language()),
    *(filters.Refusal(), filters.Truncated(), filters.Residue(), filters.Echo(run=2)),
    *(
        filters.Repetition(),
        filters.PersonalData(),
        filters.UnknownLabel(labels=["good", "bad", "4"]),
    ),
    *(filters.Confidence(minimum=0.4), filters.Agreement(on_missing="drop")),
    *(filters.OtherChoice(), filters.Restatement(), filters.Copied(demonstrations=["the zoom is"])),
    *(filters.Arithmetic(), filters.Judge(on_missing="drop"), filters.Perplexity()),
    *(filters.LabelNoise(), filters.Unsupported(), filters.Ensemble(share=0.3)),
]
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def made(found: list[dict[str, Any]]) -> pd.DataFrame:
    columns = "input rationale label choices confidence agreement finish_reason judge perplexity"
    frame = pd.DataFrame(found, columns=columns.split()).astype({"choices": object})
    return frame.assign(id=[f"r{number}" for number in range(len(frame))])


@QUICK
@given(st.lists(rows, max_size=25), st.permutations(ALL))
def test_rows_stay_and_every_drop_reproduces(
    found: list[dict[str, Any]], chosen: list[Any]
) -> None:
    # An ensemble combines what stands before it, so something has to.
    chosen = sorted(chosen, key=lambda each: each.reason == "ensemble")
    frame = made(found)
    result = filters.apply(frame, chosen)
    pd.testing.assert_frame_equal(result.frame[frame.columns], frame)
    assert (result.frame["keep"] == result.frame["reason"].isna()).all()
    for each in chosen:
        gone = (result.frame["reason"] == each.reason).to_numpy()
        lines = result.decisions[result.decisions["filter"] == each.reason]
        assert set(lines["id"]) == set(result.frame["id"][gone])
        score = result.frame[f"score_{each.reason}"].to_numpy(dtype=float)
        for line in lines.to_dict("records"):
            missing = np.isnan(line["score"]) and getattr(each, "on_missing", "") == "drop"
            low, high = line["score"] < line["threshold"], line["score"] > line["threshold"]
            assert missing or (low if each.drops == "below" else high)
        if len(lines):
            threshold = lines["threshold"].iloc[0]
            left = score[result.frame["keep"].to_numpy()]
            assert not (left < threshold if each.drops == "below" else left > threshold).any()


@QUICK
@given(st.lists(rows, max_size=25), st.randoms(use_true_random=False))
def test_neither_order_nor_a_second_time_changes_anything(
    found: list[dict[str, Any]], random: Any
) -> None:
    frame = made(found)
    once = filters.apply(frame, ALL)
    twice = filters.apply(once.frame, ALL)
    pd.testing.assert_frame_equal(once.frame, twice.frame)
    order = list(range(len(frame)))
    random.shuffle(order)
    mixed = filters.apply(frame.iloc[order].reset_index(drop=True), ALL).frame
    back = mixed.set_index("id").loc[frame["id"]].reset_index()[once.frame.columns]
    pd.testing.assert_frame_equal(once.frame, back)
