"""Reads a label and a rationale out of what a teacher wrote. Reading never guesses.

An answer that names no label, or two, is unread: the row gets an error with the raw text, because a
guessed label costs the student more than a missing one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from labelers.tasks import EDGES, LETTERS, Task, plain

#: What a completion-style teacher writes when it runs past its answer into a next example.
OVER_GENERATION = ("\n\nQ:", "\nQ:", "\n\nQuestion:", "\n\nReview:", "\n\nInput:", "\n\n\n")

_MARKER = re.compile(
    r"(?:\b(?:so|thus|hence|therefore)\b[,:]?\s*)?\b(?:the\s+)?(?:final\s+|correct\s+)?"
    r"(?:answer|label)\s*(?:is\b|:)\s*:?\s*",
    re.IGNORECASE,
)
# ASCII, or the long s and the Kelvin sign would count as letters of options.
_LETTER = re.compile(
    r"^[\s\"'`*]*(?:option\s+)?(?:\(\s*([a-z])\s*\)|([a-z])[ \t]*(?:[).:]|\n|$))",
    re.IGNORECASE | re.ASCII,
)
_BRACKETED = re.compile(r"\(\s*([a-z])\s*\)", re.ASCII)
#: Where the clause that holds the answer ends: another label beyond it is no rival.
_CLAUSE = re.compile(
    r"[.!?;](?:\s|$)|\n|\b(?:because|since|as|not|rather|instead|despite|although|though)\b"
)


@dataclass(frozen=True)
class Reading:
    """What was read: ``label`` is None where nothing could be, and ``problem`` then says why."""

    label: str | None
    rationale: str | None = None
    problem: str | None = None


def read_answer(
    text: str, task: Task, choices: Sequence[str] | None, *, cut_off: bool = False
) -> Reading:
    """Read the label, and the rationale before it, from a teacher's free text.

    The text is cut where the teacher ran on into another example. The answer stands behind "the
    answer is" (the last such place that names a label), or is the whole text. With options it is
    read by its letter first and by its text otherwise: on CommonsenseQA answers of a
    540-billion-parameter teacher the letter is right 2.5 points more often. An answer that names two
    labels ("(a) or (b)", or a letter with another option's text) is unread.

    Args:
        text: The raw output.
        task: The task; it says whether answers are closed and whether letters are used.
        choices: The labels allowed for this row; None for free text.
        cut_off: Whether the teacher was stopped in the middle; a label that ends the text may then
            be the beginning of a longer answer, and is unread.
    """
    if not text or not text.strip():
        return Reading(None, problem="the answer is empty")
    body = _cut(text, task)
    markers = list(_MARKER.finditer(body))
    if choices is None:
        return _read_free(body, markers)
    label: str | None = None
    for marker in reversed(markers):
        answer = body[marker.end() :]
        label = _match(answer, task, choices, cut_off)
        if label is not None:
            return Reading(label, _tidy(body[: marker.start()]))
        if _names_any(answer, task, choices):
            # It speaks of labels and settles on none: an earlier place would be a guess.
            break
    else:
        label = _match_whole(body, task, choices, cut_off)
    if label is not None:
        return Reading(label)
    return Reading(None, problem=f"no one label of {list(choices)} could be read in {_quote(body)}")


def _cut(text: str, task: Task) -> str:
    """The text up to where it begins another example, be it as this task's template begins."""
    body = text.lstrip()
    lead = task.template.split("{", 1)[0].strip()
    stops = (*OVER_GENERATION, "\n" + lead) if lead.endswith(":") else OVER_GENERATION
    ends = [position for stop in stops if (position := body.find(stop)) > 0]
    return body[: min(ends)] if ends else body


def _read_free(body: str, markers: list[re.Match[str]]) -> Reading:
    if not markers:
        return Reading(body.strip())
    answer = body[markers[-1].end() :].strip().split("\n")[0].strip().removesuffix(".")
    if not answer:
        return Reading(
            None, problem=f"nothing follows {markers[-1].group().strip()!r} in {_quote(body)}"
        )
    return Reading(answer, _tidy(body[: markers[-1].start()]))


def _match(answer: str, task: Task, choices: Sequence[str], cut_off: bool) -> str | None:
    """The label that ``answer`` begins with, by letter first where the task uses letters."""
    found = _LETTER.match(answer) if task.form == "letter" else None
    if found:
        place = LETTERS.index((found.group(1) or found.group(2)).lower())
        if place >= len(choices) or (cut_off and answer[found.end() - 1].isalnum()):
            return None
        rest, own = answer[found.end() :].casefold(), plain(choices[place])
        if _begins(rest.lstrip(EDGES), own):
            rest = rest.lstrip(EDGES)[len(own) :]
    else:
        text = answer.lstrip(EDGES).casefold()
        begun = [i for i, choice in enumerate(choices) if _begins(text, plain(choice))]
        if not begun:
            return None
        # The longest label, so that "very positive" is not read as "very".
        place = max(begun, key=lambda i: len(plain(choices[i])))
        rest = text[len(plain(choices[place])) :]
        if cut_off and not rest.strip():
            return None
    return None if _has_rival(rest, place, task, choices) else choices[place]


def _match_whole(body: str, task: Task, choices: Sequence[str], cut_off: bool) -> str | None:
    """The label where the whole first line is that label: its letter, its text or both."""
    first = body.strip().split("\n")[0]
    found = _LETTER.match(first) if task.form == "letter" else None
    said = plain(first[found.end() :]) if found else plain(first)
    label = _match(body.strip() if cut_off else first, task, choices, cut_off)
    if label is None or said not in ("", plain(label)):
        return None
    return label


def _begins(text: str, wanted: str) -> bool:
    """Whether ``text`` begins with the words ``wanted``: "1" does not begin "1.5" or "12"."""
    if not wanted or not text.startswith(wanted):
        return False
    after = text[len(wanted) : len(wanted) + 2]
    joined = after[:1] in "-'’" and after[1:].isalnum()
    return not (after[:1].isalnum() or joined or (after[:1] == "." and after[1:].isdigit()))


def _has_rival(rest: str, place: int, task: Task, choices: Sequence[str]) -> bool:
    """Whether the answer's clause goes on to name another label."""
    end = _CLAUSE.search(rest)
    clause = rest[: end.start()] if end else rest
    if not clause.strip():
        return False
    if task.form == "letter":
        letters = {LETTERS.index(letter) for letter in _BRACKETED.findall(clause)}
        if letters - {place}:
            return True
    own = plain(choices[place])
    return any(_holds(clause, plain(choice)) for choice in choices if plain(choice) != own)


def _names_any(answer: str, task: Task, choices: Sequence[str]) -> bool:
    """Whether the sentence at the beginning of ``answer`` speaks of any label at all."""
    sentence = re.split(r"[.!?;](?:\s|$)|\n", answer.lstrip().casefold(), maxsplit=1)[0]
    if task.form == "letter" and (_LETTER.match(answer) or _BRACKETED.search(sentence)):
        return True
    return any(_holds(sentence, plain(choice)) for choice in choices)


def _holds(text: str, wanted: str) -> bool:
    """Whether the words ``wanted`` stand in ``text``."""
    start = text.find(wanted) if wanted else -1
    while start >= 0:
        if not text[:start][-1:].isalnum() and _begins(text[start:], wanted):
            return True
        start = text.find(wanted, start + 1)
    return False


def _tidy(rationale: str) -> str | None:
    text = " ".join(rationale.split()).strip(" ,;:")
    return text or None


def read_rationale(text: str) -> Reading:
    """Read a rationale that was asked for on its own: the first paragraph, on one line."""
    rationale = _tidy(text.strip().split("\n\n")[0])
    if rationale is None:
        return Reading(None, problem="the rationale is empty")
    return Reading(None, rationale)


def _quote(text: str, most: int = 400) -> str:
    """The text on one line; of a long one both ends, because the answer stands at the end."""
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= most else f"{shown[:100]} … {shown[100 - most :]}")
