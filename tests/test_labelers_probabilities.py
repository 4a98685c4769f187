"""Label distributions out of token probabilities, against sums done by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.probabilities import (
    Position,
    ProbabilityError,
    constrained_labels,
    label_mass,
    read_positions,
)
from labelers.prompt_scores import read_prompt_score, scored_labels

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


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, LOGPROBS, min_size=1)), max_size=4))
def test_no_mass_is_made_out_of_nothing(walk: list[tuple[str, dict[str, float]]]) -> None:
    positions = []
    for token, tops in walk:
        total = math.log(sum(math.exp(p) for p in tops.values()))
        positions.append(Position(token, tuple((t, p - total) for t, p in tops.items())))
    found = label_mass(positions, ("very", "very positive", "negative"))
    everything = sum(found.masses) + sum(shared.mass for shared in found.shared)
    assert 0 <= everything <= 1 + 1e-9


# ----------------------------------------------------------------------- scores of whole labels


def entry(text: str, logprob: float, rank: int = 1, **others: float) -> dict[str, Any]:
    """One prompt token as vLLM 0.32 gives it: the prompt's own first, then the likeliest ones."""
    tokens = {"3524": {"logprob": logprob, "rank": rank, "decoded_token": text}}
    for place, (other, value) in enumerate(others.items(), 1):
        tokens[str(place)] = {"logprob": value, "rank": place, "decoded_token": other}
    return tokens


def prompt(*entries: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": 0, "text": "\n", "logprobs": None, "prompt_logprobs": list(entries)}


def echo(*tokens: tuple[str, float | None]) -> dict[str, Any]:
    return {
        "logprobs": {
            "tokens": [text for text, _ in tokens],
            "token_logprobs": [value for _, value in tokens],
            "top_logprobs": [None for _ in tokens],
            "text_offset": [0 for _ in tokens],
        }
    }


def test_the_score_of_a_label_is_its_tokens_sum() -> None:
    choice = prompt(
        None, entry("iment", -0.1), entry(":", -0.2), entry(" book", -1.5), entry(" store", -0.25)
    )
    assert read_prompt_score(choice, ending=" book store") == pytest.approx(-1.75)
    assert read_prompt_score(choice, ending=" store") == pytest.approx(-0.25)


def test_the_prompts_own_token_counts_and_not_the_likeliest() -> None:
    # As recorded: " positive" was second, and the server lists it before the first.
    last = entry(" positive", -1.6423327922821045, 2, negative=-0.3923327624797821)
    choice = prompt(None, entry(":", -0.00035), last)
    assert read_prompt_score(choice, ending=" positive") == -1.6423327922821045


def test_an_echoed_prompt_says_the_same() -> None:
    given = [("Sent", None), ("iment", -0.1), (":", -0.2), (" positive", -1.6)]
    assert read_prompt_score(echo(*given), ending=" positive") == -1.6
    generated = echo(*given, ("\n", -0.3))
    assert read_prompt_score(generated, ending=" positive", generated=1) == -1.6
    with pytest.raises(ProbabilityError, match=r"does not end in ' positive'.*generated after it"):
        read_prompt_score(generated, ending=" positive")


def test_a_token_that_reaches_into_the_ending_counts_whole() -> None:
    choice = echo(("Label", None), (": ", -0.5), ("posi", -1.0), ("tive", -0.25))
    assert read_prompt_score(choice, ending=" positive") == pytest.approx(-1.75)
    assert read_prompt_score(choice, ending="positive") == pytest.approx(-1.25)
    assert read_prompt_score(choice, ending="tive") == pytest.approx(-0.25)


def test_parts_of_characters_count_to_their_character() -> None:
    # As recorded for " 😀é好": the first bytes come as empty text, the last one as the character.
    choice = echo(
        ("Label", None), (":", -0.1), ("", -11.9), (" 😀", -5.4), ("é", -16.7), ("", -12.7), ("好", -1.2)
    )  # fmt: skip
    assert read_prompt_score(choice, ending=" 😀é好") == pytest.approx(-47.9)
    assert read_prompt_score(choice, ending="好") == pytest.approx(-13.9)
    assert read_prompt_score(choice, ending="é好") == pytest.approx(-30.6)


def test_tokens_shown_without_their_leading_space_are_recognised() -> None:
    choice = echo(("Label", None), (":", -0.1), ("book", -1.0), ("store", -0.5))
    assert read_prompt_score(choice, ending=" book store") == pytest.approx(-1.5)
    # A space with a token of its own belongs to the ending, too.
    alone = echo(("Label", None), (":", -0.1), ("", -0.25), ("book", -1.0), ("store", -0.5))
    assert read_prompt_score(alone, ending=" book store") == pytest.approx(-1.75)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "carries no log-probabilities of the prompt"),
        ({"logprobs": {"content": []}}, "carries no log-probabilities of the prompt"),
        (prompt(), "does not end in"),
        (
            prompt(None, entry(":", -0.1), entry(" negative", -0.1)),
            "':? negative', which does not end",
        ),
        (prompt(entry(" positive", 3.0)), "malformed.*3.0 is no log-probability"),
        (prompt({}), "malformed"),
        (prompt({"1": {"logprob": -1.0}}), "malformed"),
        (prompt({"1": None}), "malformed"),
        (echo((" positive", None)), "nothing stands before it"),
        (prompt(None), "does not end in"),
        ({"logprobs": {"tokens": ["a"], "token_logprobs": []}}, "malformed"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "malformed"),
    ],
)
def test_a_score_that_cannot_be_read_is_an_error_of_ours(
    choice: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProbabilityError, match=message):
        read_prompt_score(choice, ending=" positive")


def test_an_ending_needs_text() -> None:
    with pytest.raises(ProbabilityError, match="the ending ' ' has no text"):
        read_prompt_score(echo(("Label", None), (" ", -0.1)), ending=" ")


TOKENS = st.lists(
    st.tuples(st.sampled_from([" very", " good", "ish", "", "é", " ", "n", "\n"]), LOGPROBS),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(TOKENS, st.integers(0, 8))
def test_any_cut_between_tokens_gives_the_sum_of_what_follows(
    tokens: list[tuple[str, float]], cut: int
) -> None:
    tail = tokens[cut:]
    ending = "".join(text for text, _ in tail)
    if not ending.strip():
        return
    # Empty tokens just before the cut are parts of the ending's first character.
    while cut and not tokens[cut - 1][0]:
        cut -= 1
    expected = sum(value for _, value in tokens[cut:])
    found = read_prompt_score(echo(("Label:", None), *tokens), ending=ending)
    assert found == pytest.approx(expected)


def test_scores_become_probabilities_and_the_rest_is_off_label() -> None:
    found = scored_labels([math.log(0.6), math.log(0.2)])
    assert found.label_probs == pytest.approx((0.75, 0.25))
    assert found.off_label_mass == pytest.approx(0.2)
    assert found.label_source == "scoring"


def test_long_labels_are_not_lost_below_the_smallest_number() -> None:
    found = scored_labels([-2000.0, -2000.0 + math.log(3)])
    assert found.label_probs == pytest.approx((0.25, 0.75))
    assert found.off_label_mass == 1.0
    assert scored_labels([-9999.0, -0.5]).label_probs == (0.0, 1.0)


def test_a_label_that_begins_another_counts_without_it() -> None:
    # " very" has 0.5 in all, 0.3 of which goes on to " very good".
    scores = [math.log(0.5), math.log(0.3), math.log(0.4)]
    found = scored_labels(scores, ["very", "very good", "not"])
    assert found.label_probs == pytest.approx((0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9))
    assert found.off_label_mass == pytest.approx(0.1)
    with pytest.raises(ProbabilityError, match=r"add up to 1\.200: one of them begins another"):
        scored_labels(scores)
    # A chain of three takes each step away once.
    chain = scored_labels([math.log(0.8), math.log(0.5), math.log(0.1)], ["a", "a b", "a b c"])
    assert chain.label_probs == pytest.approx((0.3 / 0.8, 0.4 / 0.8, 0.1 / 0.8))
    # "pos" begins "positive" in letters only: the two are different tokens.
    apart = scored_labels([math.log(0.4), math.log(0.3)], ["pos", "positive"])
    assert apart.label_probs == pytest.approx((4 / 7, 3 / 7))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no scores"),
        ([0.5, -1.0], "0.5 is no"),
        ([math.nan], "nan"),
        ([-math.inf] * 2, "every"),
    ],
)
def test_scores_that_are_none_are_refused(scores: list[float], message: str) -> None:
    with pytest.raises(ProbabilityError, match=message):
        scored_labels(scores)


# -------------------------------------------------------------------------- constrained answers

MASKED = -9999.0


def test_a_constrained_answer_gives_shares_among_the_labels() -> None:
    # As recorded from vLLM 0.32 with structured_outputs: pieces of labels are allowed, the rest masked.
    position = Position(
        " negative",
        (
            (" negative", -0.2526), (" positive", -1.5026), (" ", -7.6276), (" pos", -9.5651),
            (" neg", -9.6901), (" n", -9.8158), ("<empty_output>", MASKED), ("!", MASKED),
        ),
    )  # fmt: skip
    found = constrained_labels(
        [position, Position("<|im_end|>", (("<|im_end|>", 0.0),))], SENTIMENT
    )
    assert found.label_source == "constrained"
    assert found.off_label_mass is None
    positive, negative = math.exp(-1.5026), math.exp(-0.2526)
    assert found.label_probs == pytest.approx(
        (positive / (positive + negative), negative / (positive + negative)), abs=1e-3
    )
    assert sum(found.label_probs) == pytest.approx(1)


def test_a_server_that_shows_unconstrained_probabilities_gives_the_same_shares() -> None:
    # Half of the mass is on words that the constraint forbids.
    found = constrained_labels(
        [place("positive", {"positive": 0.3, "negative": 0.2, "the": 0.4})], SENTIMENT
    )
    assert found.label_probs == pytest.approx((0.6, 0.4))
    assert found.off_label_mass is None


def test_pieces_of_a_beginning_that_labels_share_follow_the_answer() -> None:
    # As recorded, rounded: "v" and "ver" spell the same beginning as "very".
    positions = [
        place("very", {"very": 0.68, "v": 0.28, "ver": 0.04}),
        place(" good", {" good": 0.75, " bad": 0.25}),
    ]
    found = constrained_labels(positions, ("very good", "very bad"))
    assert found.label_probs == pytest.approx((0.75, 0.25))


def test_what_the_answer_did_not_go_along_is_not_guessed() -> None:
    labels = ("book store", "book shelf", "mall")
    aside = [place("mall", {"mall": 0.7, "book": 0.3})]
    with pytest.raises(ProbabilityError, match="30% of the probability is on beginnings"):
        constrained_labels(aside, labels)
    little = [place("mall", {"mall": 0.98, "book": 0.02})]
    assert constrained_labels(little, labels).label_probs == (0, 0, 1)
    with pytest.raises(ProbabilityError, match=r"no label.*heeds the constraint"):
        constrained_labels([place("Sure", {"Sure": 0.9, "The": 0.1})], labels)
