"""The places of a text where an answer is announced: "the answer is", "Sentiment:", ``\\boxed{``."""

from __future__ import annotations

import re
from functools import lru_cache

_MARKER = (
    r"(?:\b(?:so|thus|hence|therefore)\b[,:]?\s*)?\b(?:the\s+)?(?:final\s+|correct\s+|best\s+|right\s+)?"
    r"(?:(?:answer|label)|(?<=correct )(?:option|choice)|(?<=best )(?:option|choice)"
    r"|(?<=right )(?:option|choice))[*_`]*\s*(?:is\b|:|=)[*_`]*\s*:?\s*"
    r"|\\boxed\s*\{|<answer>\s*|\#\#\#\#\s*(?=[-+$(]*\d)"
)
#: Words before "the answer is" that make of it a condition, and before "answer is" another's answer.
_CONDITION = re.compile(r"\b(?:if|whether|unless)\s+$", re.IGNORECASE)
_ANOTHER = re.compile(
    r"\b(?:wrong|incorrect|possible|another|this|that|your|each|any|no|an)\s+$", re.IGNORECASE
)
#: What is said of an answer that was given before: "The answer is correct."
_COMMENT = re.compile(
    r"\s*(?:very\s+|quite\s+|now\s+|also\s+)?(?:helpful|useful|correct|right|wrong|clear|obvious|simple"
    r"|straightforward|based|found|given|below|above|justified|supported|consistent|complete|final)\b",
    re.IGNORECASE,
)


#: Every marker but the task's own name holds one of these.
_ANCHORS = (
    "answer", "label", "correct option", "correct choice", "best option", "best choice", "right option",
    "right choice", "\\boxed", "####",
)  # fmt: skip
#: Characters before an anchor in which its marker begins ("Therefore, the correct answer"), and behind.
_LEAD, _TAIL = 48, 64


@lru_cache(maxsize=64)
def _marker(answer_name: str) -> re.Pattern[str]:
    # What the answer is called counts at the beginning of a line only: "Sentiment: negative".
    own = (
        rf"|^[ \t*_#-]*{re.escape(answer_name.strip())}[*_`]*\s*:[*_`]*\s*"
        if answer_name.strip()
        else ""
    )
    return re.compile(_MARKER + own, re.IGNORECASE | re.MULTILINE)


def find_markers(body: str, answer_name: str) -> list[re.Match[str]]:
    """The places behind which ``body`` may give its answer.

    Args:
        body: What the teacher wrote.
        answer_name: What the task calls the answer; it counts too.
    """
    pattern = _marker(answer_name)
    return [
        marker
        for marker in _near_anchors(pattern, body, answer_name)
        if not _is_other(body, marker)
    ]


def _near_anchors(pattern: re.Pattern[str], body: str, answer_name: str) -> list[re.Match[str]]:
    """All matches, looked for around words that each must hold: the pattern alone is ten times slower."""
    lowered = body.lower()
    if len(lowered) != len(body):
        # A few letters are longer in lower case, which moves the places behind them.
        return list(pattern.finditer(body))
    found: list[re.Match[str]] = []
    end = 0
    for place in _places(lowered, answer_name.strip().lower()):
        if place < end:
            continue
        marker = pattern.search(body, max(end, place - _LEAD), place + _TAIL)
        if marker is not None and marker.end() == place + _TAIL:
            marker = pattern.match(body, marker.start())
        if marker is not None:
            found.append(marker)
            end = marker.end()
    return found


def _places(lowered: str, name: str) -> list[int]:
    places: set[int] = set()
    for anchor in (*_ANCHORS, *([name] if name else [])):
        place = lowered.find(anchor)
        while place >= 0:
            places.add(place)
            place = lowered.find(anchor, place + 1)
    return sorted(places)


def _is_other(body: str, found: re.Match[str]) -> bool:
    near = max(0, found.start() - 20), found.start()
    if _CONDITION.search(body, *near):
        return True
    return found.group()[:6].lower() in ("answer", "label ") and bool(_ANOTHER.search(body, *near))


def comments(text: str, at: int = 0) -> bool:
    """Whether the text goes on with a word about an answer given before: "(the answer is) correct"."""
    return _COMMENT.match(text, at) is not None


def unwrapped(answer: str, marker: re.Match[str]) -> str:
    """The answer without the bracket or tag that its marker opened; where that closes, it ends."""
    opened = marker.group().strip()
    if opened.endswith("{"):
        depth = 1
        for at, character in enumerate(answer):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return f"{answer[:at]}.\n{answer[at + 1 :]}"
    if opened.lower() == "<answer>" and (inner := re.match(r"(?is)(.*?)</answer>", answer)):
        return f"{inner.group(1).strip()}.\n{answer[inner.end() :]}"
    return answer
