"""The teacher's distribution over each row's choices, ready to be held against the student's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from student.errors import InputError
from student.formatting import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from student.examples import Example
    from student.formatting import Formatting

__all__ = ["SoftTargets", "soft_targets"]


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """Per row: every choice's ids, the teacher's probability of each, and which is the row's label.

    `given` is false for a row without a distribution: it then has its own label as the only choice.
    """

    choices: list[list[list[int]]]
    probs: list[list[float]]
    hard: list[int]
    given: list[bool]


def soft_targets(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, formatting: Formatting
) -> SoftTargets:
    """Tokenise every choice once and line the teacher's probabilities up with them.

    A choice that a row lists twice is one choice with the sum of both probabilities, as in `predict`.
    Raises `InputError` for what is no distribution, for one of another length than the row's choices,
    and where the row's label is not among them.
    """
    choices, probs, hard, given = [], [], [], []
    for example in examples:
        by_choice = _by_choice(example)
        given.append(by_choice is not None)
        by_choice = by_choice or {example.target: 1.0}
        if example.target not in by_choice:
            raise InputError(
                f"the label {example.target!r} of the row {example.input[:60]!r} is not among the "
                f"choices that label_probs belong to, {list(by_choice)}; correct the row"
            )
        choices.append(list(by_choice))
        probs.append(list(by_choice.values()))
        hard.append(choices[-1].index(example.target))
    names = list(dict.fromkeys(name for row in choices for name in row))
    ids = token_ids(names, tokenizer, formatting.max_label_tokens)[0]
    by_name = dict(zip(names, ids, strict=True))
    return SoftTargets(
        choices=[[by_name[name] for name in row] for row in choices],
        probs=probs,
        hard=hard,
        given=given,
    )


def _by_choice(example: Example) -> dict[str, float] | None:
    if example.label_probs is None or example.choices is None:
        return None
    found: dict[str, float] = {}
    for choice, probability in zip(example.choices, _probabilities(example), strict=True):
        found[choice] = found.get(choice, 0.0) + probability
    return found


def _probabilities(example: Example) -> list[float]:
    """Return the row's soft label, made to add up to 1 exactly; it must do so already within 1 %."""
    given, choices = example.label_probs or (), example.choices or ()
    row = f"the row {example.input[:60]!r}"
    if len(given) != len(choices):
        raise InputError(
            f"{row} has {len(given)} label_probs for {len(choices)} choices; give one for each, in the "
            "order of the choices"
        )
    try:
        values = [float(value) for value in given]
    except (TypeError, ValueError):
        values = [math.nan]
    if not (all(value >= 0 for value in values) and 0.99 <= sum(values) <= 1.01):
        raise InputError(
            f"{row} has label_probs {list(given)}; they must be probabilities that add up to 1, or null"
        )
    return [value / sum(values) for value in values]
