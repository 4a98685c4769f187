"""Votes: what several answers to one question come to."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.votes import Vote, VoteError, same_answer, tally

SENTIMENT = ["positive", "negative", "mixed"]


def test_the_most_voted_label_wins_and_shares_are_its_distribution() -> None:
    vote = tally(["negative", "positive", "negative", "negative"], choices=SENTIMENT)
    assert vote == Vote(
        label="negative",
        label_probs=[0.25, 0.75, 0.0],
        confidence=0.75,
        agreement=0.75,
        votes=("negative", "positive", "negative", "negative"),
    )


def test_an_unread_vote_lowers_agreement_and_is_no_evidence_for_any_label() -> None:
    vote = tally(["positive", None, "positive", "negative", None], choices=SENTIMENT)
    assert vote.label == "positive"
    assert vote.label_probs == pytest.approx([2 / 3, 1 / 3, 0])
    assert vote.confidence == pytest.approx(2 / 3)
    assert vote.agreement == pytest.approx(2 / 5)
    assert vote.votes == ("positive", None, "positive", "negative", None)


def test_an_even_split_without_probabilities_is_no_label() -> None:
    vote = tally(["positive", "negative"], choices=SENTIMENT)
    assert vote.label is None
    assert vote.confidence is None
    assert vote.label_probs == [0.5, 0.5, 0.0]
    assert vote.agreement == 0.5
    assert vote.problem == "tie: 2 votes are even between 'positive' and 'negative'"
    # The order in which they came or are listed breaks nothing.
    assert tally(["negative", "positive"], choices=SENTIMENT).label is None


def test_probabilities_break_a_tie_among_those_in_front_only() -> None:
    labels = ["positive", "negative", "negative", "positive", "mixed"]
    probabilities = [
        [0.5, 0.1, 0.4],
        [0.0, 0.6, 0.4],
        [0.0, 0.6, 0.4],
        [0.5, 0.1, 0.4],
        [0.0, 0.0, 1.0],
    ]
    vote = tally(labels, choices=SENTIMENT, probabilities=probabilities)
    # Sums: positive 1.0, negative 1.4, and mixed 2.6 with one vote.
    assert (vote.label, vote.agreement) == ("negative", 0.4)
    assert vote.label_probs == pytest.approx([0.4, 0.4, 0.2])
    assert vote.confidence == pytest.approx(0.4)
    assert vote.problem is None


def test_a_tie_that_the_probabilities_leave_even_stays_one() -> None:
    probabilities = [[0.7, 0.3, 0.0], [0.3, 0.7, 0.0]]
    for how in ("majority", "probability"):
        vote = tally(
            ["positive", "negative"],
            choices=SENTIMENT,
            probabilities=probabilities,
            how=how,  # type: ignore[arg-type]
        )
        assert vote.label is None
        assert vote.problem is not None
        assert vote.problem.startswith("tie: ")


def test_a_vote_by_probability_takes_the_mean_distribution() -> None:
    vote = tally(
        ["positive", "negative", "positive"],
        choices=SENTIMENT,
        probabilities=[[0.5, 0.4, 0.1], [0.0, 1.0, 0.0], [0.5, 0.4, 0.1]],
        how="probability",
    )
    assert vote.label_probs == pytest.approx([1 / 3, 0.6, 0.2 / 3])
    # One sure voter outweighs two unsure ones, and the agreement says that it is alone.
    assert vote.label == "negative"
    assert vote.confidence == pytest.approx(0.6)
    assert vote.agreement == pytest.approx(1 / 3)


def test_weights_count_in_shares_means_and_agreement() -> None:
    weighted = tally(["positive", "negative", None], choices=SENTIMENT, weights=[3, 1, 1])
    assert weighted.label_probs == pytest.approx([0.75, 0.25, 0])
    assert weighted.agreement == pytest.approx(0.6)
    mean = tally(
        ["positive", "negative"],
        choices=SENTIMENT,
        probabilities=[[0.6, 0.4, 0], [0.1, 0.9, 0]],
        weights=[4, 1],
        how="probability",
    )
    assert mean.label_probs == pytest.approx([0.5, 0.5, 0])
    assert mean.label is None
    # 0.1 + 0.2 against 0.3 is a tie, whatever a computer makes of the sum.
    even = tally(["positive", "positive", "negative"], choices=SENTIMENT, weights=[0.1, 0.2, 0.3])
    assert even.label is None


def test_a_vote_by_probability_leaves_out_what_was_not_read() -> None:
    vote = tally(
        ["positive", None],
        choices=SENTIMENT,
        probabilities=[[0.8, 0.1, 0.1], None],
        how="probability",
    )
    assert vote.label_probs == pytest.approx([0.8, 0.1, 0.1])
    assert vote.agreement == 0.5


@pytest.mark.parametrize("choices", [SENTIMENT, None])
def test_nothing_read_is_no_label(choices: list[str] | None) -> None:
    vote = tally([None, None, None], choices=choices)
    assert vote.label is None
    assert vote.label_probs is None
    assert vote.agreement == 0
    assert vote.problem == "unread: none of 3 votes could be read"


def test_free_text_is_counted_by_what_it_says() -> None:
    vote = tally(["The bank.", "a shop", "the  BANK", None])
    assert vote.label == "The bank."
    assert vote.label_probs is None
    assert vote.confidence == vote.agreement == 0.5
    assert tally(["a shop", "the bank"]).problem == (
        "tie: 2 votes are even between 'a shop' and 'the bank'"
    )


def test_numbers_of_one_value_are_one_answer() -> None:
    vote = tally(["1200", "1,200.0", "1200.", "1201"])
    assert (vote.label, vote.agreement) == ("1200", 0.75)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5", ".50"),
        ("-0", "0"),
        ("+3", "3.000"),
        ("(42)", "42"),
        ('"7."', "7"),
        ("Blue whale", "blue  whale!"),
        ("1,000,000", "1000000"),
    ],
)
def test_equal_answers(one: str, other: str) -> None:
    assert same_answer(one) == same_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (".5", "5"),
        ("-3", "3"),
        ("50%", "50"),
        ("1,20", "120"),
        ("1.5", "1 5"),
        ("!", "?"),
        ("100000000000000000000000000000001", "100000000000000000000000000000002"),
        ("10", "1"),
        ("1200", "12"),
    ],
)
def test_different_answers(one: str, other: str) -> None:
    assert same_answer(one) != same_answer(other)


@pytest.mark.parametrize(
    ("labels", "how", "message"),
    [
        ([], {}, "no votes"),
        (["good"], {"choices": SENTIMENT}, "'good' is not among the choices"),
        (["mixed"], {"choices": SENTIMENT, "how": "loudest"}, "how is 'loudest'"),
        (["mixed"], {"choices": SENTIMENT, "how": "probability"}, "needs probabilities"),
        (["mixed"], {"probabilities": [[1.0]]}, "without the choices"),
        (["mixed"], {"choices": SENTIMENT, "probabilities": []}, "1 votes came with 0"),
        (["mixed"], {"choices": SENTIMENT, "probabilities": [[0.5, 0.5]]}, "and 3 choices"),
        (
            ["mixed"],
            {"choices": SENTIMENT, "probabilities": [[math.nan, 0.5, 0.5]]},
            "between 0 and 1",
        ),
        (
            ["mixed", "mixed"],
            {"choices": SENTIMENT, "probabilities": [[0, 0, 1], None], "how": "probability"},
            "has no probabilities.*majority",
        ),
        (["mixed"], {"weights": [1, 2]}, "1 votes came with 2 weights"),
        (["mixed"], {"weights": [0]}, "a weight is 0: a number above 0"),
        (["mixed"], {"weights": [math.inf]}, "a weight is inf"),
    ],
)
def test_votes_that_cannot_be_counted_are_refused(
    labels: list[str], how: dict[str, Any], message: str
) -> None:
    with pytest.raises(VoteError, match=message):
        tally(labels, **how)


VOTES = st.lists(st.sampled_from([*SENTIMENT, None]), min_size=1, max_size=9)


@settings(deadline=None)
@given(VOTES, st.permutations(range(9)))
def test_the_order_of_votes_changes_nothing(votes: list[str | None], order: list[int]) -> None:
    shuffled = [votes[i] for i in order if i < len(votes)]
    one, other = tally(votes, choices=SENTIMENT), tally(shuffled, choices=SENTIMENT)
    assert (one.label, one.label_probs, one.agreement) == (
        other.label,
        other.label_probs,
        other.agreement,
    )
    assert (one.label is None) == (one.problem is not None)
    assert one.label_probs is None or sum(one.label_probs) == pytest.approx(1)
    if one.label is not None:
        assert one.agreement == pytest.approx(votes.count(one.label) / len(votes))
