"""Filters tried on planted changes: what is planted, what is caught, what a suggestion is worth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame
from small_recipe import review_rows

from filters import (
    Confidence,
    Contamination,
    ExactDuplicate,
    FilterError,
    NearDuplicate,
    Rebalance,
    SemanticDuplicate,
    self_test,
)
from filters.planting import KINDS, plant


def reviews(count: int = 40) -> pd.DataFrame:
    found = [row for row in review_rows() if "spring" not in row["text"]]
    texts = [
        f"{row['text']} Item {n} of shelf {n * 7}, since {n + 3} weeks."
        for n, row in enumerate(found)
    ]
    labels = [row["sentiment"] for row in found]
    return frame(texts, label=labels, confidence=[0.7 + n / 100 for n in range(len(texts))])[:count]


LABELS = ["negative", "positive"]


def planted(kind: str, text: str, **columns: Any) -> dict[str, Any] | None:
    rows = frame([text, "Some other words stand here instead."], label=["positive"] * 2, **columns)
    found = plant(rows, kind, LABELS, random.Random(0)).set_index("origin")
    return found.loc["r0"].to_dict() if "r0" in found.index else None


def test_what_is_planted() -> None:
    text = "The lamp is very good, and it is not too big for my small desk."
    words = text.split()
    assert planted("contrast", text) == {
        "id": "contrast\0r0",
        "input": text.replace("good", "bad"),
        "label": "negative",
    }
    edit = planted("edit", text)
    assert edit is not None
    changed = [a != b for a, b in zip(edit["input"].split(), words, strict=True)]
    assert 1 <= sum(changed) <= 2
    assert edit["label"] == "positive"
    cut = planted("truncated", text)
    assert cut is not None
    assert text.startswith(cut["input"])
    assert 0.6 <= len(cut["input"].split()) / len(words) < 1
    reworded = planted("reworded", text)
    assert reworded is not None
    assert reworded["input"] != text
    flip = planted("label_flip", text)
    assert flip is not None
    assert (flip["input"], flip["label"]) == (text, "negative")
    assert planted("contrast", "Two blue lamps stood there.") is None, "nothing to turn round"
    assert planted("contrast", "It was fun.", choices=[["positive"]] * 2) is None, "no other label"


def test_the_table_says_what_is_caught_and_what_is_lost() -> None:
    chosen = [
        ExactDuplicate(),
        NearDuplicate(threshold=0.8),
        Confidence(minimum=0.8),
        Rebalance(),
        Contamination(),
    ]
    found = self_test(reviews(), chosen, sample=30)
    table = found.table.set_index(["filter", "threshold", "kind"])
    near = table.loc["near_duplicate"]
    edits = near.xs("edits", level="kind")["share"]
    assert edits.iloc[0] == 1.0
    assert edits.is_monotonic_decreasing
    assert near.xs("contrast", level="kind")["share"].max() == 0, "the label is the guard"
    assert set(near.index.get_level_values("kind")) == set(KINDS) - {"label_flip"}
    assert (table.loc["exact_duplicate"]["share"] == 0).all()
    confidence = table.loc["confidence"]
    assert confidence.loc[(0.8, "label_flip"), "own"] == pytest.approx(11 / 30)
    assert confidence.xs("label_flip", level="kind")["own"].is_monotonic_increasing
    leaks = table.loc["contamination"]
    assert leaks.loc[(0.5, "truncated"), "share"] > 0.9
    assert leaks["own"].max() == 0
    assert found.notes == ("rebalance was not tested: it balances groups",)
    blind = self_test(reviews(), [NearDuplicate(same_label=False)], sample=30).table
    lost = blind[(blind["kind"] == "contrast") & (blind["threshold"] == 0.4)]
    assert lost["share"].item() > 0.8


def test_a_suggestion_holds_on_a_sample_it_was_not_chosen_on() -> None:
    found = self_test(reviews(), [NearDuplicate(threshold=0.8)], sample=15, recall=0.9)
    (suggestion,) = found.suggestions
    assert suggestion.value is not None
    assert suggestion.value < suggestion.now == 0.8
    assert min(suggestion.caught[kind] for kind in ("edit", "edits", "truncated")) >= 0.9
    assert suggestion.lost == {"contrast": 0.0}
    assert f"near_duplicate.threshold: {suggestion.value:g} (now 0.8) holds 90% on a fresh" in str(
        found
    )
    strict = self_test(reviews(), [Contamination()], sample=15, recall=1.0, catch=["edit", "edits"])
    assert strict.suggestions[0].value is None
    assert "no threshold tried catches 100% of edit, edits" in str(strict)


def test_the_printed_table_marks_the_threshold_now_and_what_must_stay() -> None:
    text = str(self_test(reviews(), [NearDuplicate(threshold=0.7)], sample=10))
    assert text.startswith(
        "10 of your rows, with changes planted: share dropped\n\nnear_duplicate\n"
    )
    assert sum(line.startswith("> ") for line in text.splitlines()) == 1
    assert "contrast*" in text
    assert "* must stay; > the threshold now" in text


def test_rows_in_another_order_give_the_same_and_another_seed_another() -> None:
    rows = reviews()
    one = self_test(rows, [NearDuplicate(threshold=0.8)], sample=12)
    two = self_test(rows.iloc[::-1], [NearDuplicate(threshold=0.8)], sample=12)
    pd.testing.assert_frame_equal(one.table, two.table)
    other = self_test(rows, [NearDuplicate(threshold=0.8)], sample=12, seed=5)
    assert not one.table.equals(other.table)


def test_semantic_filters_are_tried_where_texts_can_be_encoded() -> None:
    def encode(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(n_features=256).transform(texts).toarray()

    found = self_test(reviews(), [SemanticDuplicate()], encode=encode, sample=10)
    assert set(found.table["threshold"]) >= {0.75, 0.95, 0.98}
    without = self_test(reviews(), [SemanticDuplicate()], sample=10)
    assert without.notes[0].startswith(
        "semantic_duplicate was not tested: semantic_duplicate: embed"
    )
    assert len(without.table) == 0


def test_what_cannot_be_worked_with() -> None:
    with pytest.raises(
        FilterError, match=r"of 2 rows 1 are labelled, different .* at least 2 are needed"
    ):
        self_test(
            frame(["The same five words here."] * 2, label=["a", "b"]),
            [NearDuplicate(threshold=0.8)],
        )
    with pytest.raises(FilterError, match="catch names 'contrast'; allowed are edit, edits"):
        self_test(reviews(), [NearDuplicate(threshold=0.8)], catch=["contrast"])
    with pytest.raises(FilterError, match="recall is 0; it must be a number above 0"):
        self_test(reviews(), [NearDuplicate(threshold=0.8)], recall=0)
    with pytest.raises(FilterError, match="there is no column 'input'"):
        self_test(pd.DataFrame({"id": ["a"]}), [NearDuplicate(threshold=0.8)])
