"""The second check of semantic duplicates: do two close texts really say the same?

Small embedding models place "The battery lasts all day." and "The battery does not last all day."
close together, closer than many a paraphrase. What they blur is checked on the words: numbers,
negations, opposites made by a prefix or suffix, and whether the texts share words at all. The
negations and the affixes are English; the other checks hold for any language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from filters.rows import Flags, Ints
from filters.shingles import split_words


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# As the normaliser leaves them: apostrophes are gone ("don't" is "dont").
_NEGATIONS = _words(
    """
    no not never none nothing nobody nowhere neither nor cannot cant without hardly barely scarcely
    rarely seldom lack lacks lacked lacking fail fails failed dont doesnt didnt wont wouldnt isnt
    arent wasnt werent hasnt havent hadnt couldnt shouldnt mustnt neednt aint
    """
)
_NUMBER_WORDS = _words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand million billion once twice half double triple first second third
    """
)
_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "mis")


@dataclass(frozen=True)
class _Reading:
    words: frozenset[str]
    numbers: tuple[str, ...]
    negations: int


def same_meaning(texts: Sequence[str], first: Ints, second: Ints, overlap: float) -> Flags:
    """Say of each pair of texts whether nothing in their words speaks against one meaning.

    Args:
        texts: All texts.
        first: Positions of the pairs' first texts, shape (pairs,).
        second: Positions of the second texts, shape (pairs,).
        overlap: Least share of the shorter text's distinct words that the other one holds.
    """
    needed = np.unique(np.concatenate([first, second]))
    words = split_words([texts[position] for position in needed]).to_list()
    readings = {place: _read(found) for place, found in zip(needed.tolist(), words, strict=True)}
    return np.array(
        [
            _compatible(readings[one], readings[other], overlap)
            for one, other in zip(first.tolist(), second.tolist(), strict=True)
        ],
        dtype=bool,
    )


def _read(words: list[str]) -> _Reading:
    numbers = [word for word in words if word in _NUMBER_WORDS or any(c.isdigit() for c in word)]
    negations = sum(word in _NEGATIONS for word in words)
    return _Reading(frozenset(words), tuple(sorted(numbers)), negations)


def _compatible(one: _Reading, other: _Reading, overlap: float) -> bool:
    if one.numbers != other.numbers or one.negations != other.negations:
        return False
    shared = len(one.words & other.words)
    if shared < overlap * min(len(one.words), len(other.words)):
        return False
    return not _opposed(one.words - other.words, other.words - one.words)


def _opposed(left: frozenset[str], right: frozenset[str]) -> bool:
    """Say whether a word faces the same word with a negative prefix, or -ful faces -less."""
    for words, others in ((left, right), (right, left)):
        for word in words:
            if word.startswith(_PREFIXES) and any(
                word.removeprefix(prefix) in others for prefix in _PREFIXES
            ):
                return True
            if word.endswith("less") and word[:-4] + "ful" in others:
                return True
    return False
