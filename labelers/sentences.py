"""Where the part of a text that gives the answer ends, and what takes an answer back."""

from __future__ import annotations

import re

#: How far behind "the answer is" an answer is looked for, in characters.
REACH = 2_000

_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)|\n")
#: Words after which an answer is explained or set off against others: these are no rivals of it.
_EXPLAINED = re.compile(
    r"\b(?:because|since|as|not|rather|instead|despite|although|though|where|which|whose|unlike"
    r"|whereas)\b",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"(?:^|[.!?;\n)\u2014])[\s*_]*(?:no|oh|hmm|wait|sorry|actually|correction|scratch that"
    r"|on second thought|let me (?:re|double-)?check)\b",
    re.IGNORECASE,
)


class UnreadError(ValueError):
    """An answer that speaks of labels or values and does not settle on one; the message says how."""


def sentence(text: str) -> str:
    """``text`` up to the end of its first sentence or line."""
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def clause(text: str) -> tuple[str, str, str]:
    """Divide ``text`` after an answer: its clause, what explains it in the sentence, what follows."""
    first = sentence(text)
    end = _EXPLAINED.search(first)
    if end is None:
        return first, "", text[len(first) :]
    return first[: end.start()], first[end.start() :], text[len(first) :]


def correction(text: str) -> str | None:
    """What follows the first word that takes an answer back ("Wait", "No"); None without one."""
    found = _CORRECTION.search(text)
    return text[found.end() :] if found else None
