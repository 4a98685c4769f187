"""Every built-in filter, one by one: odd rows, and a limit that is moved without judging anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, run

import filters
from filters import FilterError

NEEDED: dict[str, dict[str, Any]] = {
    "unknown_label": {"labels": ["good", "bad"]},
    "copied": {"demonstrations": ["It praises the zoom of the camera."]},
    "label_noise": {"minimum": 0.3},
    "unsupported": {"minimum": 0.3},
}
NAMES = list(filters.FILTERS)


def made(name: str) -> list[Any]:
    """A filter of this name, behind one with a score where it combines scores."""
    before = [filters.TooShort()] if name == "ensemble" else []
    return [*before, filters.FILTERS[name](**NEEDED.get(name, {}))]


def labelled(texts: list[Any], **columns: list[Any]) -> pd.DataFrame:
    """Rows with all that filters read."""
    size = len(texts)
    given: dict[str, list[Any]] = {
        "label": ["good", "bad"] * size,
        "rationale": ["It is good because the zoom is.", None] * size,
        "confidence": [0.9, 0.4] * size,
        "label_probs": [[0.9, 0.1], [0.6, 0.4]] * size,
        "choices": [["good", "bad"]] * size,
        "agreement": [1.0, 0.4] * size,
        "judge": [0.9, 0.2] * size,
        "perplexity": [12.0, 4000.0] * size,
        "finish_reason": ["stop", "length"] * size,
    }
    return frame(texts, **{name: values[:size] for name, values in (given | columns).items()})


def judge(rows: pd.DataFrame, name: str) -> filters.Result:
    """Apply one filter, with vectors, clusters and another set."""
    draws = np.random.default_rng(0)
    vectors = draws.normal(size=(len(rows), 6)).astype(np.float32)
    return run(
        rows,
        *made(name),
        embeddings=vectors,
        clusters=np.arange(len(rows)) % 3 if name in ("rebalance", "select") else None,
        references={"test": ["The zoom of this camera is far better than I had hoped for."]},
        reference_embeddings={"test": np.ones((1, 6))},
    )


TEXTS = ["The zoom is lovely.", "The strap broke at once.", "It works, I suppose."]
ODD: dict[str, pd.DataFrame] = {
    "an empty set": labelled([]),
    "one row": labelled(TEXTS[:1]),
    "all rows equal": labelled(["The zoom is lovely."] * 12),
    "one class": labelled(TEXTS * 4, label=["good"] * 12),
    "nothing labelled": labelled(TEXTS, label=[None] * 3),
    "a row of a megabyte": labelled([*TEXTS, "zoom " * 200_000, "x" * 1_000_000]),
    "emoji, right-to-left and white space": labelled(
        ["😀" * 9, "الكاميرا رائعة جدا", "שלום עולם 👩", "\u202eabc\u202c", "", "\n\t", "\u00a0"]
    ),
    "no confidence, no rationale, own choices": labelled(
        TEXTS,
        confidence=[np.nan] * 3,
        label_probs=[None] * 3,
        rationale=[None] * 3,
        label=["a", "b", "c"],
        choices=[["a", "d"], ["b"], ["c", "a"]],
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_odd_rows_come_back_whole_with_a_verdict_each(name: str) -> None:
    for what, rows in ODD.items():
        before = rows.copy(deep=True)
        result = judge(rows, name)
        pd.testing.assert_frame_equal(rows, before)
        pd.testing.assert_frame_equal(
            result.frame[rows.columns.tolist()], before, check_dtype=False
        )
        found = result.frame
        assert (found["keep"] == found["reason"].isna()).all(), what
        assert len(found[f"score_{name}"]) == len(rows), what
        gone = result.decisions.query("filter == @name and verdict == 'drop'")["id"]
        assert set(found.loc[found["reason"] == name, "id"]) == set(gone), what


@pytest.mark.parametrize("name", NAMES)
def test_a_row_whose_text_is_none_is_named(name: str) -> None:
    for text in (None, 7):
        with pytest.raises(FilterError, match="row 'r1'"):
            judge(labelled([TEXTS[0], text, TEXTS[1]]), name)


@pytest.mark.parametrize("rows", [0, 1, 3, 7])
def test_more_clusters_than_rows_are_as_many_as_there_are_rows(rows: int) -> None:
    found = filters.cluster(np.eye(max(rows, 1), 4)[:rows], 50)
    assert len(found.labels) == rows
    assert len(set(found.labels)) == len(found.centroids) == min(rows, 5 if rows > 4 else rows)


# --------------------------------------------------------------------------- moving a limit

LIMITED = [name for name, kind in filters.FILTERS.items() if hasattr(kind, "drops")]


def varied() -> pd.DataFrame:
    """Forty rows on which every score varies."""
    draws = np.random.default_rng(1)
    words = ["zoom", "lens", "strap", "box", "screen", "sound", "dial", "cord"]
    texts, whys = [], []
    for n in range(40):
        mood = ["lovely", "fine"] if n % 2 else ["awful", "dull"]
        body = [str(one) for one in draws.choice(words + mood, size=3 + n % 9)]
        texts.append(" ".join([*body, mood[n % 4 // 2], f"n{n}"]))
        why = [
            *body[: n % 6],
            "so",
            "it",
            "is",
            ["good", "bad"][(n + n % 7 // 5) % 2],
            *words[: n % 4],
        ]
        whys.append(" ".join([*why, *(["2 + 2 = 5"] if n % 5 == 0 else [])]) + "." * (n % 8 > 0))
    texts[3], texts[8] = (
        "Der Gurt ist am zweiten Tag gerissen und niemand hat geantwortet.",
        "не работает",
    )
    whys[4], whys[12] = "the zoom is " * 8, "It praises the zoom of the camera."
    whys[20] = "the zoom is good and the dial is good and the zoom is good and the cord is dull"
    refusal = "As an AI, I cannot."
    high = [round(float(one), 3) for one in draws.uniform(0.5, 1, 40)]
    return labelled(
        [
            f"{each} {refusal} {{{{x}}}} a@b.org" if n % 10 == 9 else each
            for n, each in enumerate(texts)
        ],
        label=["good" if n % 2 else "bad" for n in range(38)] + ["Good", "other"],
        rationale=[
            f"{refusal} [INST] {each}" if n % 11 == 10 else each for n, each in enumerate(whys)
        ],
        confidence=high,
        label_probs=[[one, 1 - one] for one in high],
        agreement=high,
        judge=high,
        perplexity=[one * 1000 for one in high],
        choices=[["good", "bad"]] * 40,
    )


COUNTED = ("too_short", "too_long", "refusal", "residue", "personal_data", "arithmetic")


@pytest.mark.parametrize("name", LIMITED)
def test_a_moved_limit_gives_what_judging_anew_gives(name: str) -> None:
    rows = varied()
    if name == "arithmetic":
        rows = rows.assign(label=["4", "5"] * 20, choices=None)
    *before, one = made(name)
    result = run(rows, *before, one)
    scores = result.frame[f"score_{name}"].dropna()
    assert scores.nunique() > 1, "every filter has something to say of these rows"
    argument = "minimum" if one.drops == "below" else "maximum"
    value: float = float(scores.quantile(0.7))
    if name in COUNTED:
        value = max(int(value), int(name.startswith("too")))
    elif name in ("truncated", "unknown_label", "other_choice"):
        value = min(value, 0.99)
    moved = filters.rethreshold(result, {f"{name}.{argument}": value})
    again = run(rows, *before, replace(one, **{argument: value}))
    pd.testing.assert_frame_equal(moved.frame, again.frame)
    pd.testing.assert_frame_equal(moved.decisions, again.decisions)
    assert (moved.policy, moved.funnel) == (again.policy, again.funnel)


@pytest.mark.parametrize("name", ["label_noise", "unsupported", "ensemble"])
def test_a_share_takes_the_place_of_a_minimum_and_back(name: str) -> None:
    rows = varied()
    *before, one = made(name)
    by_minimum, by_share = replace(one, minimum=0.4), replace(one, minimum=None, share=0.3)
    limited, shared = run(rows, *before, by_minimum), run(rows, *before, by_share)
    there = filters.rethreshold(limited, {f"{name}.share": 0.3})
    back = filters.rethreshold(shared, {f"{name}.minimum": 0.4})
    for moved, anew in ((there, shared), (back, limited)):
        pd.testing.assert_frame_equal(moved.frame, anew.frame)
        assert moved.policy == anew.policy
    assert there.counts["kept"] < len(rows)


def test_a_filter_of_ones_own_that_judges_by_a_limit_can_be_moved_too() -> None:
    from dataclasses import dataclass

    from filters.limits import drop_below

    @dataclass(frozen=True, kw_only=True)
    class Sure:
        minimum: float = 0.6
        reason = "sure"
        drops = "below"

        def judge(self, rows: filters.Rows) -> filters.Judgement:
            return drop_below(rows, rows.frame["confidence"].to_numpy(float), self.minimum)

    moved = filters.rethreshold(run(varied(), Sure()), {"sure.minimum": 0.8})
    assert moved.counts == run(varied(), Sure(minimum=0.8)).counts


def test_of_many_labels_that_are_wiped_out_five_are_named_and_the_rest_counted() -> None:
    labels = [f"answer {n // 2:03d}" for n in range(400)] + ["yes"] * 4
    rows = frame(
        [f"Text {n}." for n in range(404)], label=labels, confidence=[0.1] * 400 + [0.9] * 4
    )
    result = run(rows, filters.Confidence(minimum=0.5))
    said = [one for one in result.warnings if "wiped out" in one]
    assert len(said) == 6
    assert said[0].startswith("label 'answer 000' is wiped out: all 2 of its rows")
    assert said[-1].startswith(
        "195 more of the 201 values of label are wiped out, which had 390 rows"
    )
