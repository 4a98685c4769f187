"""Label distributions out of token probabilities, against sums done by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers import BatchCalibration
from labelers.probabilities import (
    Position,
    ProbabilityError,
    label_mass,
    read_positions,
)

SENTIMENT = ("positive", "negative")


def place(token: str, alternatives: dict[str, float]) -> Position:
    return Position(token, tuple((text, math.log(p)) for text, p in alternatives.items()))


def test_surface_variants_of_a_label_count_together_and_other_words_do_not() -> None:
    tops = {" positive": 0.4, "Positive": 0.2, '"positive': 0.1, " NEG": 0.15, " mixed": 0.05}
    found = label_mass([place(" positive", tops)], SENTIMENT)
    assert found.masses == pytest.approx((0.7, 0.15))
    assert found.shared == ()
    # What is left went to " mixed" (0.05) and beyond the alternatives shown (0.1).
    assert 1 - sum(found.masses) == pytest.approx(0.15)


def test_a_first_token_that_begins_one_label_alone_counts_for_it_in_full() -> None:
    found = label_mass([place("pos", {"pos": 0.8, "n": 0.15, "posting": 0.05})], SENTIMENT)
    assert found.masses == pytest.approx((0.8, 0.15))


def test_labels_that_share_a_first_token_are_told_apart_further_on() -> None:
    labels = ("book store", "book shelf", "mall")
    first = {"book": 0.7, "mall": 0.2, "the": 0.1}
    second = {" store": 0.75, " shelf": 0.2, " club": 0.05}
    found = label_mass([place("book", first), place(" store", second)], labels)
    assert found.masses == pytest.approx((0.7 * 0.75, 0.7 * 0.2, 0.2))
    assert found.shared == ()


def test_a_shared_beginning_off_the_path_is_kept_to_be_asked_about() -> None:
    labels = ("book store", "book shelf", "mall")
    found = label_mass([place("mall", {"mall": 0.6, "Book": 0.3, "book": 0.1})], labels)
    assert found.masses == pytest.approx((0, 0, 0.6))
    assert [(s.prefix, s.labels) for s in found.shared] == [("Book", (0, 1)), ("book", (0, 1))]
    assert [s.mass for s in found.shared] == pytest.approx([0.3, 0.1])


def test_a_request_that_began_inside_the_label_counts_from_there() -> None:
    labels = ("book store", "book shelf", "mall")
    found = label_mass([place(" shelf", {" shelf": 0.9, " store": 0.1})], labels, given=" book")
    assert found.masses == pytest.approx((0.1, 0.9, 0))


def test_a_label_that_begins_another_waits_for_what_follows() -> None:
    labels = ("very", "very positive", "negative")
    positions = [
        place("very", {"very": 0.9, "negative": 0.1}),
        place(".", {".": 0.6, " positive": 0.3, "thing": 0.1}),
    ]
    assert label_mass(positions, labels).masses == pytest.approx((0.54, 0.27, 0.1))
    alone = label_mass(positions[:1], labels)
    assert alone.masses == pytest.approx((0, 0, 0.1))
    assert alone.shared[0].labels == (0, 1)


def test_a_token_without_text_ends_the_answer() -> None:
    labels = ("very", "very positive", "negative")
    ended = label_mass([place("", {"": 0.7, " positive": 0.3})], labels, given=" very")
    assert ended.masses == pytest.approx((0.7, 0.3, 0))
    # Before any label it is as good as another word.
    assert label_mass([place("", {"": 0.7, "very": 0.3})], ("very", "little")).masses == (
        pytest.approx((0.3, 0))
    )
    assert label_mass([place("", {"": 1.0})], ("very", "little")).shared == ()


def test_letters_are_read_with_and_without_their_bracket() -> None:
    tops = {"b": 0.5, "(b": 0.2, "B)": 0.1, "a": 0.1, "an": 0.1}
    assert label_mass([place("b", tops)], ("a", "b", "c")).masses == pytest.approx((0.1, 0.8, 0))


def test_an_opening_bracket_alone_is_walked_through() -> None:
    positions = [place("(", {"(": 0.8, "a": 0.2}), place("b", {"b": 0.75, "a": 0.25})]
    assert label_mass(positions, ("a", "b")).masses == pytest.approx((0.4, 0.6))


def test_both_wire_formats_say_the_same() -> None:
    chat = {
        "logprobs": {
            "content": [
                {
                    "token": " pos",
                    "logprob": -0.2,
                    "top_logprobs": [
                        {"token": " pos", "logprob": -0.2},
                        {"token": " neg", "logprob": -1.8},
                    ],
                }
            ]
        }
    }
    completion = {
        "logprobs": {
            "tokens": [" pos"],
            "token_logprobs": [-0.2],
            "top_logprobs": [{" pos": -0.2, " neg": -1.8}],
            "text_offset": [0],
        }
    }
    assert read_positions(chat) == read_positions(completion)
    assert read_positions(chat) == [Position(" pos", ((" pos", -0.2), (" neg", -1.8)))]


def test_an_answer_of_no_tokens_has_no_positions() -> None:
    assert read_positions({"logprobs": {"content": []}}) == []
    assert label_mass([], SENTIMENT).masses == (0, 0)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        [],
        {},
        {"content": None},
        {"content": [{"logprob": -1.0}]},
        {"content": [{"token": "a", "logprob": None}]},
        {"content": [{"token": "a", "logprob": "much"}]},
        {"content": [{"token": "a", "logprob": 900.0}]},
        {"content": ["a"]},
        {"tokens": ["a", "b"], "top_logprobs": [{"a": -1.0}]},
        {"tokens": ["a"], "top_logprobs": [[-1.0]]},
        {"tokens": ["a"], "top_logprobs": [{"a": None}]},
    ],
)
def test_probabilities_absent_or_malformed_are_an_error_of_ours(logprobs: Any) -> None:
    with pytest.raises(ProbabilityError):
        read_positions({"logprobs": logprobs})
    with pytest.raises(ProbabilityError):
        read_positions({})


LOGPROBS = st.floats(-30, 0)
TEXTS = st.sampled_from(
    ["", " ", "very", " very", "v", "(", "neg", "negative", " positive", "\n", "x"]
)


@given(st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, LOGPROBS, min_size=1)), max_size=4))
def test_no_mass_is_made_out_of_nothing(walk: list[tuple[str, dict[str, float]]]) -> None:
    positions = []
    for token, tops in walk:
        total = math.log(sum(math.exp(p) for p in tops.values()))
        positions.append(Position(token, tuple((t, p - total) for t, p in tops.items())))
    found = label_mass(positions, ("very", "very positive", "negative"))
    everything = sum(found.masses) + sum(shared.mass for shared in found.shared)
    assert 0 <= everything <= 1 + 1e-9


def test_batch_calibration_takes_a_lean_away() -> None:
    # Mean (0.7, 0.3): a row at the mean says nothing, so it comes out even.
    batch = np.array([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]])
    rule = BatchCalibration.fit(batch)
    assert rule.prior == pytest.approx([0.7, 0.3])
    calibrated = rule.apply(batch)
    # By hand, row 0: 0.9/0.7 = 1.2857 and 0.1/0.3 = 0.3333; 1.2857 / 1.6190 = 0.79412.
    assert calibrated[0] == pytest.approx([0.7941176, 0.2058824])
    assert calibrated[1] == pytest.approx([0.5, 0.5])
    # Row 2: 0.7143 and 1.6667; 0.7143 / 2.3810 = 0.3.
    assert calibrated[2] == pytest.approx([0.3, 0.7])


def test_a_label_never_seen_in_the_batch_does_not_divide_by_zero() -> None:
    calibrated = BatchCalibration.fit(np.array([[1.0, 0.0], [1.0, 0.0]])).apply(
        np.array([[1.0, 0.0], [0.4, 0.6]])
    )
    assert np.isfinite(calibrated).all()
    assert calibrated.sum(axis=1) == pytest.approx([1, 1])
