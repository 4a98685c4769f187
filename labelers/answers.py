"""Reads a label and a rationale out of what a teacher wrote. Reading never guesses.

An answer that names no label, or two, is unread: the row gets an error with the raw text, because a
guessed label costs the student more than a missing one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from labelers.tasks import LETTERS, Task

#: What a completion-style teacher writes when it runs past its answer into a next example.
OVER_GENERATION = ("\n\nQ:", "\nQ:", "\n\nQuestion:", "\n\nReview:", "\n\nInput:", "\n\n\n")

_MARKER = re.compile(
    r"(?:\b(?:so|thus|hence|therefore)\b[,:]?\s*)?\b(?:the\s+)?(?:final\s+|correct\s+)?"
    r"(?:answer|label)\s*(?:is\b|:)\s*:?\s*",
    re.IGNORECASE,
)
_LETTER = re.compile(
    r"^[\s\"'`*]*(?:option\s+)?(?:\(\s*([a-z])\s*\)|([a-z])\s*(?:[).:]|$))", re.IGNORECASE
)
_EDGES = " \t\r\n\"'`*_.,;:!()[]"


@dataclass(frozen=True)
class Reading:
    """What was read: ``label`` is None where nothing could be, and ``problem`` then says why."""

    label: str | None
    rationale: str | None = None
    problem: str | None = None


def read_answer(text: str, task: Task, choices: Sequence[str] | None) -> Reading:
    """Read the label, and the rationale before it, from a teacher's free text.

    The text is cut where the teacher ran on into another example. The answer stands behind "the
    answer is" (the last such place in what remains), or is the whole text. With options it is read
    by its letter first and by its text otherwise: on CommonsenseQA answers of a 540-billion-parameter
    teacher the letter is right 2.5 points more often.

    Args:
        text: The raw output.
        task: The task; it says whether answers are closed and whether letters are used.
        choices: The labels allowed for this row; None for free text.
    """
    if not text or not text.strip():
        return Reading(None, problem="the answer is empty")
    body = _cut(text)
    markers = list(_MARKER.finditer(body))
    if choices is None:
        return _read_free(body, markers)
    for marker in reversed(markers):
        label = _match(body[marker.end() :], task, choices)
        if label is not None:
            return Reading(label, _tidy(body[: marker.start()]))
    label = _match_whole(body, task, choices)
    if label is not None:
        return Reading(label)
    return Reading(None, problem=f"no label of {list(choices)} could be read in {_quote(body)}")


def _cut(text: str) -> str:
    body = text.lstrip()
    ends = [position for stop in OVER_GENERATION if (position := body.find(stop)) > 0]
    return body[: min(ends)] if ends else body


def _read_free(body: str, markers: list[re.Match[str]]) -> Reading:
    if not markers:
        return Reading(body.strip())
    answer = body[markers[-1].end() :].strip().split("\n")[0].strip()
    if not answer:
        return Reading(
            None, problem=f"nothing follows {markers[-1].group().strip()!r} in {_quote(body)}"
        )
    return Reading(answer.removesuffix("."), _tidy(body[: markers[-1].start()]))


def _match(answer: str, task: Task, choices: Sequence[str]) -> str | None:
    """The label that ``answer`` begins with, by letter first where the task uses letters."""
    if task.form == "letter":
        found = _LETTER.match(answer)
        if found:
            place = LETTERS.index((found.group(1) or found.group(2)).lower())
            return choices[place] if place < len(choices) else None
    plain = answer.strip(_EDGES).casefold()
    # The longest label first, so that "very positive" is not read as "very".
    for choice in sorted(choices, key=len, reverse=True):
        wanted = choice.strip(_EDGES).casefold()
        if (
            wanted
            and plain.startswith(wanted)
            and not plain[len(wanted) : len(wanted) + 1].isalnum()
        ):
            return choice
    return None


def _match_whole(body: str, task: Task, choices: Sequence[str]) -> str | None:
    """The label where the whole text is that label, or its first line is."""
    first = body.strip().split("\n")[0]
    if task.form == "letter":
        found = _LETTER.match(first)
        if found:
            return _match(first, task, choices)
    plain = first.strip(_EDGES).casefold()
    matches = [choice for choice in choices if choice.strip(_EDGES).casefold() == plain]
    return matches[0] if matches else None


def _tidy(rationale: str) -> str | None:
    text = " ".join(rationale.split()).strip(" ,;:")
    return text or None


def read_rationale(text: str) -> Reading:
    """Read a rationale that was asked for on its own: the first paragraph, on one line."""
    rationale = _tidy(text.strip().split("\n\n")[0])
    if rationale is None:
        return Reading(None, problem="the rationale is empty")
    return Reading(None, rationale)


def _quote(text: str, most: int = 120) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= most else shown[: most - 1] + "…")
