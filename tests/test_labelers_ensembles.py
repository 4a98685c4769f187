"""Ensembles and cascades: several teachers, one label a row, and what it cost."""

from __future__ import annotations

from typing import Any

import datasets
import pytest

from labelers.cascades import Accuracy, merge_cascade, needs_dear, report_cascade
from labelers.columns import RowsError
from labelers.ensembles import merge
from labelers.rows import LABEL_COLUMNS
from labelers.votes import VoteError

SENTIMENT = ["positive", "negative"]
TEXTS = ["Review: Works well.", "Review: It broke.", "Review: It is a lamp."]


def answer(p: float | None, **more: Any) -> dict[str, Any]:
    """One row's label columns: positive with ``p``, or no label at all."""
    row: dict[str, Any] = dict.fromkeys(LABEL_COLUMNS)
    row |= {"prompt_tokens": 20, "completion_tokens": 5, "cost_usd": 0.001, "finish_reason": "stop"}
    if p is None:
        row["error"] = "server: all 6 attempts failed"
    else:
        row |= {
            "label": SENTIMENT[p < 0.5],
            "label_probs": [p, 1 - p],
            "label_source": "logprobs",
            "off_label_mass": 0.1,
            "confidence": max(p, 1 - p),
        }
    return row | more


def teacher(name: str, *answers: dict[str, Any], texts: list[str] | None = None) -> Any:
    texts = texts or TEXTS[: len(answers)]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "input": datasets.Value("string"),
            "choices": datasets.List(datasets.Value("string")),
            "stars": datasets.Value("int8"),
        }
    )
    lists = {"label_probs": "float64", "votes": "string", "rationales": "string"}
    for column in LABEL_COLUMNS:
        features[column] = (
            datasets.List(datasets.Value(lists[column]))
            if column in lists
            else datasets.Value(
                "int64" if "tokens" in column else
                "float64" if column in ("off_label_mass", "confidence", "cost_usd", "agreement")
                else "string"
            )
        )  # fmt: skip
    rows = [
        {"id": f"r{i}", "input": text, "choices": SENTIMENT, "stars": i} | said | {"teacher": name}
        for i, (text, said) in enumerate(zip(texts, answers, strict=True))
    ]
    return datasets.Dataset.from_list(rows, features=features)


# ---------------------------------------------------------------------------------- ensembles


def test_two_teachers_become_one_soft_label_with_its_agreement() -> None:
    small = teacher("small", answer(0.9), answer(0.4), answer(0.6))
    large = teacher("large", answer(0.7), answer(0.1), answer(0.2))
    merged = merge([small, large])
    assert merged["label"][:] == ["positive", "negative", "negative"]
    assert merged["label_probs"][0] == pytest.approx([0.8, 0.2])
    assert merged["label_probs"][2] == pytest.approx([0.4, 0.6])
    assert merged["confidence"][:] == pytest.approx([0.8, 0.75, 0.6])
    assert merged["agreement"][:] == [1.0, 1.0, 0.5]
    assert merged["votes"][2] == ["positive", "negative"]
    assert set(merged["label_source"]) == {"ensemble"}
    assert set(merged["teacher"]) == {"small+large"}
    assert merged["error"][:] == [None] * 3
    assert (merged["prompt_tokens"][0], merged["completion_tokens"][0]) == (40, 10)
    assert merged["cost_usd"][0] == pytest.approx(0.002)
    assert merged["off_label_mass"][0] == pytest.approx(0.1)


def test_the_result_has_the_first_copys_rows_and_the_label_columns() -> None:
    small, large = teacher("small", answer(0.9)), teacher("large", answer(0.7))
    merged = merge([small, large.remove_columns("stars")])
    assert set(merged.column_names) == {"id", "input", "choices", "stars", *LABEL_COLUMNS}
    assert merged.features["stars"] == datasets.Value("int8")
    assert merged.features["votes"] == datasets.List(datasets.Value("string"))
    assert merge([small.to_pandas(), large.to_pandas()])["label"][:] == ["positive"]


def test_copies_from_before_there_were_votes_can_be_merged() -> None:
    old = ["votes", "agreement", "rationales"]
    copies = [teacher(n, answer(0.9)).remove_columns(old) for n in ("small", "large")]
    merged = merge(copies)
    assert merged["votes"][:] == [["positive", "positive"]]
    assert merged["agreement"][:] == [1.0]


def test_weights_and_names() -> None:
    small, large = teacher("t", answer(0.9)), teacher("t", answer(0.2))
    merged = merge([small, large], weights=[1, 3], names=["small", "large"])
    assert merged["label"][:] == ["negative"]
    assert merged["label_probs"][0] == pytest.approx([0.375, 0.625])
    assert merged["agreement"][:] == [0.75]
    assert merged["teacher"][:] == ["small+large"]


def test_the_rationale_is_the_most_confident_agreeing_teachers() -> None:
    copies = [
        teacher("a", answer(0.6, rationale="It is praised.", prompt_key="aa")),
        teacher("b", answer(0.9, rationale=None, prompt_key="bb")),
        teacher("c", answer(0.7, rationale="It works.", prompt_key="cc")),
        teacher("d", answer(0.1, rationale="It is sarcasm.", prompt_key="dd")),
    ]
    merged = merge(copies)
    assert merged["label"][:] == ["positive"]
    # b is surest, but gave none; d is surest of all and says something else.
    assert merged["rationale"][:] == ["It works."]
    assert merged["prompt_key"][:] == ["bb"]
    assert merged["rationales"][:] == [["It works.", "It is praised."]]
    assert merged["agreement"][:] == [0.75]


def test_a_teacher_that_failed_has_no_vote_and_is_no_error() -> None:
    small = teacher("small", answer(0.9), answer(None, cost_usd=None))
    large = teacher("large", answer(None), answer(None, error="unread: the answer is empty"))
    merged = merge([small, large])
    assert merged["label"][:] == ["positive", None]
    assert merged["label_probs"][0] == pytest.approx([0.9, 0.1])
    assert merged["agreement"][:] == [0.5, 0.0]
    assert merged["votes"][:] == [["positive", None], [None, None]]
    assert merged["error"][0] is None
    assert merged["error"][1] == (
        "unlabelled: no teacher labelled the row; small: server: all 6 attempts failed; "
        "large: unread: the answer is empty"
    )
    assert merged["cost_usd"][:] == pytest.approx([0.002, 0.001])


def test_a_majority_needs_no_probabilities_and_a_tie_is_told() -> None:
    bare = {"label_probs": None, "confidence": None}
    copies = [teacher(n, answer(p, **bare)) for n, p in (("a", 0.9), ("b", 0.8), ("c", 0.1))]
    merged = merge(copies, how="majority")
    assert merged["label"][:] == ["positive"]
    assert merged["label_probs"][0] == pytest.approx([2 / 3, 1 / 3])
    even = merge([copies[0], copies[2]], how="majority")
    assert even["label"][:] == [None]
    assert even["error"][:] == ["tie: 2 votes are even between 'positive' and 'negative'"]
    with pytest.raises(VoteError, match=r"'positive' has no probabilities.*how='majority'"):
        merge(copies)


def test_free_text_is_merged_by_what_most_teachers_say() -> None:
    free = {"label_probs": None, "off_label_mass": None, "choices": None}
    copies = [
        teacher(
            "a", answer(0.9, **free) | {"label": "42", "confidence": None, "rationale": "6 x 7."}
        ),
        teacher("b", answer(0.9, **free) | {"label": "41", "confidence": None}),
        teacher("c", answer(0.9, **free) | {"label": "42.0", "confidence": None}),
    ]
    merged = merge(copies)
    assert merged["label"][:] == ["42"]
    assert merged["agreement"][:] == pytest.approx([2 / 3])
    assert merged["confidence"][:] == pytest.approx([2 / 3])
    assert merged["label_probs"][:] == [None]
    assert merged["rationale"][:] == ["6 x 7."]


def test_a_label_set_serves_where_rows_have_no_choices() -> None:
    copies = [teacher(n, answer(0.8)).remove_columns("choices") for n in ("a", "b")]
    assert merge(copies, labels=SENTIMENT)["label"][:] == ["positive"]
    with pytest.raises(RowsError, match=r"row 0 of copy 1 .*labels="):
        merge(copies)


def test_copies_of_other_rows_are_refused() -> None:
    small = teacher("small", answer(0.9), answer(0.2))
    with pytest.raises(RowsError, match="1 labelled copies were given: at least 2"):
        merge([small])
    with pytest.raises(RowsError, match="copy 2 has 1 rows and copy 1 has 2"):
        merge([small, teacher("large", answer(0.9))])
    with pytest.raises(RowsError, match="row 0 of copy 2 has the id 'r1', and 'r0' in copy 1"):
        merge([small, small.select([1, 0])])
    other = teacher("large", answer(0.9), answer(0.2), texts=[TEXTS[0], "Review: It burnt."])
    with pytest.raises(RowsError, match=r"row 1 of copy 2 has the input 'Review: It burnt\.'"):
        merge([small, other])
    turned = small.remove_columns("choices").add_column("choices", [SENTIMENT[::-1]] * 2)
    with pytest.raises(RowsError, match="row 0 of copy 2 has the choices"):
        merge([small, turned])
    with pytest.raises(RowsError, match="do not both have the column 'choices'"):
        merge([small, small.remove_columns("choices")], labels=SENTIMENT)
    with pytest.raises(RowsError, match=r"copy 2 has no column 'label'.*label it first"):
        merge([small, small.remove_columns("label")])
    with pytest.raises(RowsError, match="2 copies came with 1 names"):
        merge([small, small], names=["a"])
    with pytest.raises(VoteError, match="2 votes came with 3 weights"):
        merge([small, small], weights=[1, 2, 3])


# ----------------------------------------------------------------------------------- cascades


def test_the_dear_teacher_is_needed_where_the_cheap_one_is_unsure_or_failed() -> None:
    cheap = teacher("cheap", answer(0.9), answer(0.45), answer(None))
    assert needs_dear(cheap, 0.8) == [1, 2]
    assert needs_dear(cheap, 0.95) == [0, 1, 2]
    assert needs_dear(cheap, 0.0) == [2]
    # Exactly at the threshold is sure enough, and an unknown confidence is not.
    assert needs_dear(teacher("cheap", answer(0.75), answer(0.9, confidence=None)), 0.75) == [1]
    with pytest.raises(RowsError, match="threshold is 80"):
        needs_dear(cheap, 80)
    with pytest.raises(RowsError, match="no column 'confidence'"):
        needs_dear(cheap.remove_columns("confidence"), 0.8)


def test_a_cascade_takes_the_dear_answers_and_adds_up_both_costs() -> None:
    cheap = teacher("cheap", answer(0.9), answer(0.45), answer(0.55))
    dear = teacher(
        "dear",
        answer(0.95, cost_usd=0.1, rationale="A fine lamp."),
        answer(None, cost_usd=0.1),
    ).remove_columns(["id", "input"])
    result = merge_cascade(cheap, dear, [1, 2])
    assert result["label"][:] == ["positive", "positive", "positive"]
    assert result["teacher"][:] == ["cheap", "dear", "cheap"]
    assert result["rationale"][1] == "A fine lamp."
    # The dear teacher failed on the last row: the cheap label stands, and both are paid.
    assert result["confidence"][:] == pytest.approx([0.9, 0.95, 0.55])
    assert result["error"][:] == [None] * 3
    assert result["cost_usd"][:] == pytest.approx([0.001, 0.101, 0.101])
    assert result["prompt_tokens"][:] == [20, 40, 40]
    assert result.column_names == cheap.column_names


def test_what_a_cascade_saved_and_kept() -> None:
    texts = [f"Review: lamp {i}" for i in range(5)]
    cheap = teacher(
        "cheap", answer(0.9), answer(0.95), answer(0.6), answer(0.55), answer(None), texts=texts
    )
    asked = needs_dear(cheap, 0.8)
    assert asked == [2, 3, 4]
    dear = teacher(
        "dear",
        answer(0.1, cost_usd=0.05),
        answer(0.1, cost_usd=0.05),
        answer(None, cost_usd=0.02),
        texts=texts[2:],
    ).remove_columns("id")
    gold = ["positive", "negative", "negative", None, "negative"]
    found = report_cascade(cheap, dear, asked, gold)
    assert (found.rows, found.asked) == (5, 3)
    # Cheap: right on row 0 only, of four with gold. Cascade: rows 0 and 2.
    assert found.cheap == Accuracy(right=1, rows=4)
    assert found.cascade == Accuracy(right=2, rows=4)
    assert found.cheap_on_asked == Accuracy(right=0, rows=2)
    assert found.dear_on_asked == Accuracy(right=1, rows=2)
    assert found.cascade.value == 0.5
    # 5 x 0.001 and 0.12; all dear: 0.04 a row.
    assert found.spent_usd == pytest.approx(0.125)
    assert found.all_dear_usd == pytest.approx(0.2)
    assert found.saved_usd == pytest.approx(0.075)
    assert (found.tokens, found.tokens_all_dear) == (200, 125)


def test_a_cascade_that_asked_nothing_or_knows_no_price_says_so() -> None:
    cheap = teacher("cheap", answer(0.9), answer(0.9))
    nothing = report_cascade(cheap, cheap.select([]), [], ["positive", None])
    assert (nothing.asked, nothing.all_dear_usd, nothing.saved_usd) == (0, None, None)
    assert nothing.spent_usd == pytest.approx(0.002)
    assert nothing.dear_on_asked.value is None
    free = teacher("cheap", answer(0.9, cost_usd=None), answer(0.2, cost_usd=None))
    unknown = report_cascade(free, free.select([1]), [1], [None, None])
    assert (unknown.spent_usd, unknown.all_dear_usd, unknown.saved_usd) == (None, None, None)
    # A local cheap teacher has no price; the dear one's is known.
    dear = teacher("dear", answer(0.1, cost_usd=0.3), texts=TEXTS[1:2]).remove_columns("id")
    half = report_cascade(free, dear, [1], [None] * 2)
    assert (half.spent_usd, half.saved_usd) == pytest.approx((0.3, 0.3))
    # Without the dear one's price, what was spent is not known either.
    unpriced = dear.remove_columns("cost_usd").add_column("cost_usd", [None])
    assert report_cascade(cheap, unpriced, [1], [None] * 2).spent_usd is None


def test_a_cascade_can_cost_more_than_it_saves() -> None:
    cheap = teacher("cheap", answer(0.6, cost_usd=0.02), answer(0.6, cost_usd=0.02))
    dear = teacher("dear", answer(0.9, cost_usd=0.02), answer(0.9, cost_usd=0.02))
    assert report_cascade(cheap, dear, [0, 1], [None] * 2).saved_usd == pytest.approx(-0.04)


def test_dear_rows_that_are_not_those_asked_are_refused() -> None:
    cheap = teacher("cheap", answer(0.9), answer(0.45), answer(0.55))
    dear = cheap.select([1, 2])
    for work in (merge_cascade, lambda *a: report_cascade(*a, [None] * 3)):
        with pytest.raises(RowsError, match="1 places came with 2 rows"):
            work(cheap, dear, [1])
        with pytest.raises(RowsError, match="not different rows of 0 to 2"):
            work(cheap, dear, [1, 3])
        with pytest.raises(RowsError, match="not different rows of 0 to 2"):
            work(cheap, dear, [1, 1])
        with pytest.raises(RowsError, match="row 2 has the id 'r2', and 'r1' in the dear"):
            work(cheap, dear, [2, 1])
    with pytest.raises(RowsError, match="3 rows came with 2 gold labels"):
        report_cascade(cheap, dear, [1, 2], [None] * 2)


def test_rows_that_the_dear_teacher_was_never_asked_do_not_make_it_cheap() -> None:
    """A budget that was spent after the first of three rows: one row's cost, times all rows."""
    texts = [f"Review: lamp {i}" for i in range(4)]
    cheap = teacher("cheap", answer(0.9), answer(0.6), answer(0.6), answer(0.6), texts=texts)
    unasked = {"prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0.0}
    dear = teacher(
        "dear", answer(0.1, cost_usd=0.05), answer(None, **unasked), answer(None, **unasked),
        texts=texts[1:],
    ).remove_columns("id")  # fmt: skip
    found = report_cascade(cheap, dear, [1, 2, 3], [None] * 4)
    assert found.all_dear_usd == pytest.approx(0.2)
    assert found.tokens_all_dear == pytest.approx(100)
    nobody = teacher("dear", *[answer(None, **unasked)] * 3, texts=texts[1:]).remove_columns("id")
    found = report_cascade(cheap, nobody, [1, 2, 3], [None] * 4)
    assert (found.all_dear_usd, found.saved_usd, found.tokens_all_dear) == (None, None, None)
