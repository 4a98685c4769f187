"""Label distributions from the teacher's token probabilities.

Three ways lead to one: the first tokens of a free answer (:func:`label_mass`), the first tokens of
an answer that was constrained to the labels (:func:`constrained_labels`), and the score of each
label's whole text (:mod:`labelers.prompt_scores`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: What may stand before a label in an answer and is no part of it.
OPENING = " \t\r\n\"'`*("
#: A log-probability may exceed 0 by this much through the server's rounding.
ROUNDING = 1e-2
#: A constrained answer whose labels have less mass than this was not constrained.
_LEAST_CONSTRAINED = 1e-3
#: Above this share, mass that several labels share makes a distribution unknown.
_MOST_UNDECIDED = 0.05


class ProbabilityError(ValueError):
    """An answer without the probabilities that were asked for."""


@dataclass(frozen=True)
class Position:
    """One generated token and the alternatives at its place, as (text, log-probability) pairs.

    ``merged`` says that tokens of equal text hide one another: they came as a mapping by text.
    """

    token: str
    alternatives: tuple[tuple[str, float], ...]
    merged: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Shared:
    """Mass on the beginning of an answer that several labels have in common."""

    prefix: str
    labels: tuple[int, ...]
    mass: float


@dataclass(frozen=True)
class LabelMass:
    """What one answer's positions say about each label.

    ``masses`` (one per label) and the masses of ``shared`` add up to at most 1; the rest went to
    other words or lay beyond the alternatives returned. Of that rest, up to ``unreadable`` may belong
    to labels after all: it is on tokens that are a part of a character, which have no text.
    """

    masses: tuple[float, ...]
    shared: tuple[Shared, ...] = ()
    unreadable: float = 0.0


def read_positions(choice: Mapping[str, Any], *, asked: int | None = None) -> list[Position]:
    """Read the positions out of one choice of a response body.

    Both wire formats are understood: ``logprobs.content`` (chat, and llama.cpp everywhere) and
    parallel lists with ``top_logprobs`` mappings (plain completions).

    Args:
        choice: The choice.
        asked: Alternatives asked for per position; a mapping that holds fewer hides some.

    Raises:
        ProbabilityError: If the choice carries no log-probabilities, or malformed ones.
    """
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, Mapping):
        raise ProbabilityError("the answer carries no log-probabilities")
    content = logprobs.get("content")
    tokens, tops = logprobs.get("tokens"), logprobs.get("top_logprobs")
    try:
        if isinstance(content, list):
            return [
                Position(
                    str(entry["token"]),
                    tuple(
                        read_pair(top["token"], top["logprob"])
                        for top in entry.get("top_logprobs") or [entry]
                    ),
                )
                for entry in content
            ]
        if isinstance(tokens, list) and isinstance(tops, list):
            return [
                Position(
                    str(token),
                    tuple(read_pair(*pair) for pair in (top or {}).items()),
                    merged=asked is None or len(top or ()) < asked,
                )
                for token, top in zip(tokens, tops, strict=True)
            ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbabilityError(
            f"the answer's log-probabilities are malformed ({error}): {str(logprobs)[:120]}"
        ) from error
    raise ProbabilityError("the answer's log-probabilities are in no known format")


def read_pair(text: Any, logprob: Any) -> tuple[str, float]:
    """A token's text and its log-probability, as far as they are such.

    Raises:
        ValueError: If the second is above 0 or no number.
        TypeError: If the second is of no type that can be a number.
    """
    value = float(logprob)
    if not value <= ROUNDING:
        raise ValueError(f"{value} is no log-probability")
    return str(text), min(value, 0.0)


def label_mass(
    positions: Sequence[Position], names: Sequence[str], *, given: str = ""
) -> LabelMass:
    """Add up the probability of every way in which the answer may begin with each label.

    Surface variants (case, leading space, quote or bracket) count together. A token that begins
    exactly one label counts for it in full. Where a token begins several labels, the walk goes on
    along the tokens that were generated; an alternative off that path stays in ``shared``, to be
    resolved by a request that has it as its prefix.

    Args:
        positions: The generated positions, the answer's first token first.
        names: How the labels are written in an answer.
        given: Beginning of the answer that was part of the prompt.
    """
    wanted = [name.strip().casefold() for name in names]
    masses = [0.0] * len(names)
    shared: list[Shared] = []
    unreadable = 0.0
    path, path_logprob = given, 0.0
    for number, position in enumerate(positions):
        last = number == len(positions) - 1
        on_path: float | None = None
        for text, logprob in position.alternatives:
            mass = math.exp(path_logprob + logprob)
            if not text and (last or text != position.token):
                # The end of the answer: what stands there is complete, or is no label.
                found = [i for i, name in enumerate(wanted) if name == _bare(path).rstrip()][:1]
            else:
                found = _begun(path + text, wanted)
            if len(found) == 1:
                masses[found[0]] += mass
            elif found and text == position.token and on_path is None and not last:
                on_path = logprob
            elif found:
                shared.append(Shared(path + text, tuple(found), mass))
        if _goes_on_beyond_ascii(path, wanted):
            unreadable += math.exp(path_logprob) * _unreadable(position, on_path)
        if on_path is None:
            break
        path, path_logprob = path + position.token, path_logprob + on_path
    return LabelMass(tuple(masses), tuple(shared), unreadable)


def _goes_on_beyond_ascii(path: str, wanted: Sequence[str]) -> bool:
    """Whether a label's next character after ``path`` may be split over several tokens."""
    bare = _bare(path)
    return any(name.startswith(bare) and not name[len(bare) :][:1].isascii() for name in wanted)


def _unreadable(position: Position, on_path: float | None) -> float:
    """Most probability that parts of characters can have here, but for the path's own."""
    parts = [logprob for text, logprob in position.alternatives if _is_part(text)]
    if not parts:
        return 0.0
    mass = sum(map(math.exp, parts))
    if position.merged:
        # Only what all other alternatives leave limits the mass of those that are hidden.
        mass += 1.0 - sum(math.exp(logprob) for _, logprob in position.alternatives)
    if on_path is not None and _is_part(position.token):
        mass -= math.exp(on_path)
    return max(0.0, mass)


def _is_part(text: str) -> bool:
    """Whether a token is part of a character: servers show it as empty text or as U+FFFD."""
    return not text or "\N{REPLACEMENT CHARACTER}" in text


def _bare(text: str) -> str:
    return text.lstrip(OPENING).casefold()


def _begun(candidate: str, wanted: Sequence[str]) -> list[int]:
    """Indices of the labels that an answer beginning with ``candidate`` may turn out to be."""
    text = _bare(candidate)
    open_ended = [i for i, name in enumerate(wanted) if name.startswith(text) and name != text]
    if any(name == text for name in wanted):
        # Complete, but it may still grow into a longer label ("very" into "very positive").
        return sorted([*open_ended, wanted.index(text)])
    if open_ended:
        return open_ended
    complete = [
        i
        for i, name in enumerate(wanted)
        if name and text.startswith(name) and not text[len(name)].isalnum()
    ]
    return [max(complete, key=lambda i: len(wanted[i]))] if complete else []


@dataclass(frozen=True, kw_only=True)
class LabelDistribution:
    """Label probabilities that did not come from an unconstrained answer's first tokens.

    Attributes:
        label_probs: One per label; they add up to 1.
        label_source: ``scoring`` or ``constrained``, as in the column of that name.
        off_label_mass: Probability of anything but a label; None where it cannot be known.
    """

    label_probs: tuple[float, ...]
    label_source: Literal["scoring", "constrained"]
    off_label_mass: float | None


def constrained_labels(positions: Sequence[Position], names: Sequence[str]) -> LabelDistribution:
    """Label probabilities from the first tokens of an answer that was constrained to the labels.

    Servers differ in what they show there: probabilities over the allowed tokens only (forbidden
    ones come as -9999 and count nothing), or those from before the constraint. Both are added up
    and divided by their sum, and ``off_label_mass`` is None, because it cannot be known. Allowed are
    also tokens that are a piece of a label ("pos", "p"): a piece that only one label begins with
    counts to it, one that several begin with is divided among them as the rest of their mass is.

    Args:
        positions: The generated positions, the answer's first token first.
        names: How the labels are written in an answer.

    Raises:
        ProbabilityError: If no label has noticeable mass, or more than 5 % of the mass is on a
            beginning that several labels share and that the answer did not go along.
    """
    found = label_mass(positions, names)
    masses = list(found.masses)
    undecided = found.unreadable
    for shared in found.shared:
        known = sum(found.masses[i] for i in shared.labels)
        if known <= 0.0:
            undecided += shared.mass
            continue
        for i in shared.labels:
            masses[i] += shared.mass * found.masses[i] / known
    total = sum(masses)
    if total < _LEAST_CONSTRAINED:
        raise ProbabilityError(
            f"the constrained answer gives no label of {list(names)} a noticeable probability: check that "
            "the server heeds the constraint"
        )
    if undecided > _MOST_UNDECIDED * (total + undecided):
        raise ProbabilityError(
            f"{undecided / (total + undecided):.0%} of the probability is on beginnings that several of "
            f"{list(names)} share: score each label, or name them by letter"
        )
    return LabelDistribution(
        label_probs=tuple(mass / total for mass in masses),
        label_source="constrained",
        off_label_mass=None,
    )
