"""Makes one label of several votes: samples of one teacher, or answers of several."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from labelers.tasks import EDGES, plain

How = Literal["majority", "probability"]

#: A whole answer that is a number: sign, thousands separated by commas or not, decimals.
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+", re.ASCII)
#: Sums that are equal within this much are a tie.
_EQUAL = 1e-9


class VoteError(ValueError):
    """Votes that do not belong together, or cannot be counted in the way asked for."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What several votes come to.

    Attributes:
        label: The label that won; None where none was read or the votes are tied.
        label_probs: Share or mean probability per choice; None for free text or no vote at all.
        confidence: Probability of ``label``; for free text its agreement.
        agreement: Share of all votes, by weight, that say ``label`` (in a tie: one of those in
            front). A vote that could not be read agrees with none.
        votes: The votes as they came, None where one could not be read.
        problem: Why there is no label, as ``class: message``; None where there is one.
    """

    label: str | None
    label_probs: list[float] | None
    confidence: float | None
    agreement: float
    votes: tuple[str | None, ...]
    problem: str | None = None


def tally(
    labels: Sequence[str | None],
    *,
    choices: Sequence[str] | None = None,
    probabilities: Sequence[Sequence[float] | None] | None = None,
    how: How = "majority",
    weights: Sequence[float] | None = None,
) -> Vote:
    """Count votes (self-consistency, Wang et al., 2022).

    ``majority`` takes the label with the most votes and gives shares of the votes that were read as
    ``label_probs``. A tie is broken by the summed probabilities where those are given. Without them,
    or where these are even too, there is no label: an order of the choices is no evidence.
    ``probability`` takes the mean of the distributions, and its largest.

    Free text (no ``choices``) is counted by majority: answers are equal that differ in case, white
    space or punctuation at the edges only, and numbers that have the same value ("1,200.0" and
    "1200"). The label is the first of the answers that won, as it was written.

    Args:
        labels: The votes; None for one that could not be read.
        choices: The labels that were allowed; None for free text.
        probabilities: For each vote its distribution over the choices, or None.
        how: ``majority`` or ``probability``.
        weights: How much each vote counts; by default all count 1.

    Raises:
        VoteError: If there are no votes, one is not among the choices, a distribution does not fit
            the choices, ``probability`` is asked and a vote has none, or weights do not fit.
    """
    weights = _check(labels, choices, probabilities, how, weights)
    votes = tuple(labels)
    said = sum(w for vote, w in zip(votes, weights, strict=True) if vote is not None)
    if not said:
        return Vote(
            label=None,
            label_probs=None,
            confidence=None,
            agreement=0.0,
            votes=votes,
            problem=f"unread: none of {len(votes)} votes could be read",
        )
    everything = sum(weights)
    if choices is None:
        return _free_text(votes, weights, everything)
    counts = [0.0] * len(choices)
    for vote, weight in zip(votes, weights, strict=True):
        if vote is not None:
            counts[choices.index(vote)] += weight
    support = _support(len(choices), votes, probabilities, weights)
    if how == "probability":
        label_probs = [mass / sum(support) for mass in support]
        best = _largest(support)
    else:
        label_probs = [count / said for count in counts]
        best = _largest(counts)
        if len(best) > 1 and any(support):
            # Ranked by evidence, and only among those in front.
            best = [best[i] for i in _largest([support[k] for k in best])]
    agreement = max(counts[k] for k in best) / everything
    if len(best) > 1:
        return Vote(
            label=None,
            label_probs=label_probs,
            confidence=None,
            agreement=agreement,
            votes=votes,
            problem=_tie([choices[k] for k in best], len(votes)),
        )
    return Vote(
        label=choices[best[0]],
        label_probs=label_probs,
        confidence=label_probs[best[0]],
        agreement=agreement,
        votes=votes,
    )


def _check(
    labels: Sequence[str | None],
    choices: Sequence[str] | None,
    probabilities: Sequence[Sequence[float] | None] | None,
    how: How,
    weights: Sequence[float] | None,
) -> Sequence[float]:
    """Refuse what cannot be counted, and give each vote its weight."""
    if how not in get_args(How):
        raise VoteError(f"how is {how!r}: choose {' or '.join(map(repr, get_args(How)))}")
    if not labels:
        raise VoteError("there are no votes: at least one is needed")
    if choices is not None:
        for vote in labels:
            if vote is not None and vote not in choices:
                raise VoteError(f"the vote {vote!r} is not among the choices {list(choices)}")
    weights = check_weights(weights, len(labels))
    if probabilities is None:
        if how == "probability":
            raise VoteError("a vote by probability needs probabilities: use how='majority'")
        return weights
    if choices is None:
        raise VoteError("probabilities came without the choices that they belong to")
    if len(probabilities) != len(labels):
        raise VoteError(f"{len(labels)} votes came with {len(probabilities)} distributions")
    for vote, distribution in zip(labels, probabilities, strict=True):
        if distribution is None:
            if how == "probability" and vote is not None:
                raise VoteError(
                    f"the vote {vote!r} has no probabilities, and a vote by probability needs them of all: "
                    "use how='majority'"
                )
        elif len(distribution) != len(choices) or not all(0.0 <= p <= 1.01 for p in distribution):
            raise VoteError(
                f"the vote {vote!r} has the probabilities {list(distribution)}, and {len(choices)} choices: "
                "one number between 0 and 1 for each is needed"
            )
    return weights


def check_weights(weights: Sequence[float] | None, votes: int) -> list[float]:
    """One weight per vote; all 1 by default.

    Raises:
        VoteError: If there are not as many, or one is not a number above 0.
    """
    if weights is None:
        return [1.0] * votes
    if len(weights) != votes:
        raise VoteError(f"{votes} votes came with {len(weights)} weights: give one for each")
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise VoteError(
                f"a weight is {weight!r}: a number above 0 is needed; leave out the vote"
            )
    return [float(weight) for weight in weights]


def _support(
    size: int,
    votes: Sequence[str | None],
    probabilities: Sequence[Sequence[float] | None] | None,
    weights: Sequence[float],
) -> list[float]:
    """Summed probability of each choice over the votes that were read."""
    support = [0.0] * size
    for vote, distribution, weight in zip(
        votes, probabilities or [None] * len(votes), weights, strict=True
    ):
        if vote is not None and distribution is not None:
            for k, probability in enumerate(distribution):
                support[k] += weight * probability
    return support


def _largest(values: Sequence[float]) -> list[int]:
    """Places of the largest value; more than one where they are equal."""
    highest = max(values)
    return [k for k, value in enumerate(values) if value >= highest * (1 - _EQUAL)]


def _tie(front: Sequence[str], votes: int) -> str:
    return f"tie: {votes} votes are even between {' and '.join(map(repr, front))}"


def _free_text(votes: tuple[str | None, ...], weights: Sequence[float], everything: float) -> Vote:
    written: dict[str, str] = {}
    counts: dict[str, float] = {}
    for vote, weight in zip(votes, weights, strict=True):
        if vote is not None:
            key = same_answer(vote)
            written.setdefault(key, vote)
            counts[key] = counts.get(key, 0.0) + weight
    keys = list(counts)
    best = [keys[k] for k in _largest(list(counts.values()))]
    agreement = counts[best[0]] / everything
    tied = len(best) > 1
    return Vote(
        label=None if tied else written[best[0]],
        label_probs=None,
        confidence=None if tied else agreement,
        agreement=agreement,
        votes=votes,
        problem=_tie([written[key] for key in best], len(votes)) if tied else None,
    )


def same_answer(text: str) -> str:
    """What two free answers are compared by: the value of a number, else the plain text."""
    bare = text.strip().rstrip(".").lstrip("".join(set(EDGES) - {"."})).rstrip(EDGES)
    if _NUMBER.fullmatch(bare):
        # Written out, not rounded: long numbers that differ in their last digit are not equal.
        digits = f"{Decimal(bare.replace(',', '')):f}"
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
        return "0" if digits == "-0" else digits
    return " ".join(plain(text).split()) or text.strip()
