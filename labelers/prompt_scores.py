"""Label distributions from the score of each label's whole text, read off the prompt's tokens.

The label is put at the end of the prompt, and the server says how probable each of the prompt's
tokens was. It costs one request per label, and is exact also for labels that begin alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from labelers.probabilities import ROUNDING, LabelDistribution, ProbabilityError, read_pair


def read_prompt_score(choice: Mapping[str, Any], *, ending: str, generated: int = 0) -> float:
    """The log-probability (natural) of the prompt's ``ending``, given what stands before it.

    It scores a label: the prompt is a question followed by the label's text. Two wire formats are
    understood: vLLM's ``prompt_logprobs`` (one mapping per prompt token, in which the prompt's own
    token comes first, whatever its rank) and ``echo`` with ``logprobs`` (parallel lists that begin
    with the prompt).

    The sum runs over the last tokens that spell the ending. A token that begins before the ending
    and reaches into it is included whole: with ``": "`` and ``"good"`` for the ending ``" good"``
    that adds the colon's log-probability, to every label that is cut into tokens in the same way.
    Tokens that are a part of a character come as empty text and count to the character.

    Args:
        choice: One choice of the response body.
        ending: The end of the prompt that is scored, its leading space included.
        generated: With ``echo``: how many tokens at the end were generated and are not the prompt's.

    Raises:
        ProbabilityError: If the choice carries no such log-probabilities, or malformed ones, if its
            last tokens do not spell the ending, or if nothing stands before the ending.
    """
    if not ending.strip():
        raise ProbabilityError(f"the ending {ending!r} has no text: a label's text is needed")
    tokens = _prompt_tokens(choice, generated)
    taken = _spelling(tokens, ending, exact=True) or _spelling(tokens, ending, exact=False)
    if not taken:
        shown = "".join(text or "" for text, _ in tokens[-12:])
        raise ProbabilityError(
            f"the prompt's last tokens spell {shown!r}, which does not end in {ending!r}: send the ending "
            "as the end of the prompt, and say how many tokens were generated after it"
        )
    score = 0.0
    for text, logprob in taken:
        if logprob is None:
            raise ProbabilityError(
                f"the token {text!r} of the ending {ending!r} has no log-probability, because nothing stands "
                "before it: put the question there"
            )
        score += logprob
    return score


def _prompt_tokens(choice: Mapping[str, Any], generated: int) -> list[tuple[str, float | None]]:
    """The prompt's tokens with their log-probabilities; the first has none."""
    entries, logprobs = choice.get("prompt_logprobs"), choice.get("logprobs")
    try:
        if isinstance(entries, list):
            return [
                # The prompt's own token comes first, whatever its rank.
                ("", None) if entry is None else _own(next(iter(entry.values())))
                for entry in entries
            ]
        if isinstance(logprobs, Mapping) and isinstance(logprobs.get("token_logprobs"), list):
            pairs = list(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True))
            return [
                (str(text), None) if value is None else read_pair(text, value)
                for text, value in pairs[: len(pairs) - generated]
            ]
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ProbabilityError(
            f"the prompt's log-probabilities are malformed ({type(error).__name__}: {error}): "
            f"{str(entries or logprobs)[:120]}"
        ) from error
    raise ProbabilityError(
        "the answer carries no log-probabilities of the prompt: ask with `prompt_logprobs: 0` (vLLM) or "
        "`echo: true, logprobs: 1, max_tokens: 0`"
    )


def _own(entry: Mapping[str, Any]) -> tuple[str, float]:
    return read_pair(entry["decoded_token"], entry["logprob"])


def _spelling(
    tokens: Sequence[tuple[str, float | None]], ending: str, *, exact: bool
) -> list[tuple[str, float | None]]:
    """The last tokens that spell the ending; empty where they do not.

    Some tokenizers show a word's token without its leading space: ``exact=False`` leaves white
    space out of the comparison.
    """
    wanted = ending if exact else "".join(ending.split())
    spelled = ""
    taken: list[tuple[str, float | None]] = []
    for token, logprob in reversed(tokens):
        if not taken and not exact and token.isspace() and not ending[-1].isspace():
            return []  # Something stands after the ending.
        if len(spelled) >= len(wanted):
            # Complete but for parts of its first character, or for a space that stands alone.
            space = not exact and ending[0].isspace() and not taken[-1][0][:1].isspace()
            if logprob is None or (token.strip() if space else token):
                break
        spelled = (token if exact else "".join(token.split())) + spelled
        if not (wanted.endswith(spelled) or spelled.endswith(wanted)):
            return []
        taken.append((token, logprob))
    return taken if len(spelled) >= len(wanted) else []


def scored_labels(scores: Sequence[float], names: Sequence[str] | None = None) -> LabelDistribution:
    """Label probabilities from the log-probability of each label's whole text.

    A label's mass is exp(score), and the masses are divided by their sum. They are not normalised
    by length: the score is the probability that the teacher writes just this label, and dividing it
    by the number of tokens would favour labels that are long but predictable once begun.

    Args:
        scores: Log-probability (natural) of each label, as :func:`read_prompt_score` gives it.
        names: The labels. With them, a label that another one begins with ("very" beside "very
            good") counts only with the mass that does not go on to the longer one.

    Raises:
        ProbabilityError: If there are no scores, one is above 0, the labels are so improbable that
            no sum can be formed, or they add up to more than 1.
    """
    if not scores:
        raise ProbabilityError("there are no scores: one for each label is needed")
    for score in scores:
        if not score <= ROUNDING:
            raise ProbabilityError(f"{score!r} is no log-probability: at most 0 is possible")
    highest = max(scores)
    if highest == -math.inf:
        raise ProbabilityError("every label has the probability 0")
    # Relative to the likeliest, so that long labels do not all vanish below the smallest number.
    relative = [math.exp(score - highest) for score in scores]
    if names is not None:
        relative = _without_longer(relative, names)
    total = sum(relative)
    mass = total * math.exp(highest)
    if mass > 1.0 + 5 * ROUNDING:
        raise ProbabilityError(
            f"the labels' probabilities add up to {mass:.3f}: one of them begins another, or they were not "
            "scored after the same text; give their names"
        )
    return LabelDistribution(
        label_probs=tuple(part / total for part in relative),
        label_source="scoring",
        off_label_mass=max(0.0, 1.0 - mass),
    )


def _without_longer(masses: Sequence[float], names: Sequence[str]) -> list[float]:
    """Masses less those of the labels that go on from a label, the longest first."""
    own = list(masses)
    for i, name in sorted(enumerate(names), key=lambda pair: -len(pair[1])):
        longer = [
            k
            for k, other in enumerate(names)
            if other.startswith(name) and other != name and not other[len(name)].isalnum()
        ]
        left = masses[i] - sum(own[k] for k in longer)
        # Below 0 the two do not share their first tokens, and neither contains the other's mass.
        own[i] = left if left >= 0.0 else masses[i]
    return own
