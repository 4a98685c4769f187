"""Which label of a closed set an answer names, by its letter or by its text; never by a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence

from labelers.sentences import REACH, UnreadError, clause, correction, sentence
from labelers.tasks import EDGES, LETTERS, Task, plain

# ASCII, or the long s and the Kelvin sign would count as letters of options.
_LETTER = re.compile(
    r"^[\s\"'`*_]*(?:\\text\w*\{\s*)?(?:(?:option|choice)\s+)?"
    r"(?:[(\[]\s*([a-z])\s*[)\]]"
    r"|([a-z])[\"'`*_}]*[ \t]*"
    r"(?:[):\]}]|[-\u2013\u2014][ \t]|\.(?!\w)|(?=\n|</)|$|(?=,?[ \t]+(?:because|since)\b)))",
    re.IGNORECASE | re.ASCII,
)
#: A letter named further on: in brackets, before a bracket, or alone behind "or" and its like.
_OTHER_LETTER = re.compile(
    r"[(\[]\s*([a-z])\s*[)\]]|(?<![\w'’.])([a-z])[)\]]"
    r"|(?:^|\bor\b|\band\b|[/,&])[\s*_\"'`]*(?:option\s+|choice\s+)?([a-z])"
    r"(?=[\s*_\"'`]*(?:[.:,;!?/&]|$|\n|\bor\b|\band\b))",
    re.ASCII,
)
_ARTICLE = re.compile(r"(?:the|an?)\s+")
_EITHER = re.compile(r"^[\s\"'`*_]*(?:either|between|both)\b", re.IGNORECASE)
_BESIDE = re.compile(r"^[\s*_\"'`).,]*(?:or\b|and\b|[/,&])")
_OR = re.compile(r"(?:\bor|\bor else|\bor either)[\s*_\"'`]+(?:the\s+|an?\s+)?(?=\S)")
_SET_OFF = re.compile(r"not|rather|instead|despite|unlike")


def match(answer: str, task: Task, choices: Sequence[str], cut_off: bool) -> str | None:
    """The label that ``answer`` begins with, by letter first where the task uses letters.

    Returns:
        The label, or None where the answer's first sentence speaks of no label at all.

    Raises:
        UnreadError: If it speaks of labels and settles on none.
    """
    place, rest = _begun(answer, task, choices, cut_off)
    if place is None:
        named = _named(sentence(answer).casefold(), task, choices)
        if named or _letter(answer, task):
            raise UnreadError(
                "it names two labels" if len(named) > 1 else "it does not begin with a label"
            )
        return None
    near, explained, further = clause(rest)
    own = {place} | _twins(place, choices)
    taken_back = correction(further)
    if taken_back is not None and _named(taken_back, task, choices) - own:
        raise UnreadError("it takes its answer back")
    beside = _named(near, task, choices) | _put_beside(explained, task, choices)
    if beside - own and task.on_two != "first":
        raise UnreadError("it names two labels")
    return choices[place]


def _put_beside(explained: str, task: Task, choices: Sequence[str]) -> set[int]:
    """Beyond "because" a label is no rival, unless "or" puts it beside the answer after all."""
    if _SET_OFF.match(explained):
        return set()
    begun = (
        _begun(explained[at.end() :], task, choices, False)[0] for at in _OR.finditer(explained)
    )
    return {place for place in begun if place is not None}


def match_whole(body: str, task: Task, choices: Sequence[str], cut_off: bool) -> str | None:
    """The label where the whole first line is that label: its letter, its text or both.

    Raises:
        UnreadError: As for :func:`match`.
    """
    first = body.strip().split("\n")[0]
    if len(first) > REACH:
        return None
    label = match(body.strip()[: 2 * REACH] if cut_off else first, task, choices, cut_off)
    if label is None:
        return None
    if task.on_two == "first":
        place, rest = _begun(first, task, choices, False)
        if place is not None and _BESIDE.match(rest):
            return label
    found = _letter(first, task)
    said = plain(first[found.end() :]) if found else plain(first)
    return label if said in ("", plain(label)) else None


def _letter(answer: str, task: Task) -> re.Match[str] | None:
    return _LETTER.match(answer) if task.form == "letter" else None


def _begun(
    answer: str, task: Task, choices: Sequence[str], cut_off: bool
) -> tuple[int | None, str]:
    """The place of the choice that ``answer`` begins with, and what follows, in lower case."""
    if task.on_two == "first":
        answer = _EITHER.sub("", answer)
    found = _letter(answer, task)
    if found:
        place = LETTERS.index((found.group(1) or found.group(2)).lower())
        ends = not answer[found.end() :].strip() and answer[found.end() - 1].isalnum()
        if place >= len(choices) or (cut_off and ends):
            return None, ""
        rest, own = answer[found.end() :].casefold(), plain(choices[place])
        if _begins(rest.lstrip(EDGES), own):
            rest = rest.lstrip(EDGES)[len(own) :]
        return place, rest
    text = answer.lstrip(EDGES).casefold()
    begun = [i for i, choice in enumerate(choices) if _begins(text, plain(choice))]
    if not begun and (article := _ARTICLE.match(text)):
        text = text[article.end() :]
        begun = [i for i, choice in enumerate(choices) if _begins(text, plain(choice))]
    if not begun:
        return None, ""
    # The longest label, so that "very positive" is not read as "very".
    place = max(begun, key=lambda i: len(plain(choices[i])))
    rest = text[len(plain(choices[place])) :]
    # Options that differ only in case or in punctuation at their edges cannot be told apart.
    alike = len({choices[i] for i in _twins(place, choices)}) > 1
    return (None, "") if alike or (cut_off and not rest.strip()) else (place, rest)


def _twins(place: int, choices: Sequence[str]) -> set[int]:
    """Other places of the same text: options are listed twice in real data."""
    return {i for i, choice in enumerate(choices) if plain(choice) == plain(choices[place])}


def _named(text: str, task: Task, choices: Sequence[str]) -> set[int]:
    """Places of all choices that ``text`` (in lower case) names, by letter or text."""
    named = set()
    if task.form == "letter":
        for groups in _OTHER_LETTER.findall(text):
            named.add(LETTERS.index(next(filter(None, groups))))
    # Longest first, and each blanked out: "river bank" does not name the option "bank".
    for place in sorted(range(len(choices)), key=lambda i: -len(plain(choices[i]))):
        wanted = plain(choices[place])
        start = _find(text, wanted)
        while start >= 0:
            named |= _twins(place, choices)
            text = f"{text[:start]}\0{text[start + len(wanted) :]}"
            start = _find(text, wanted, start)
    return named


def _begins(text: str, wanted: str, at: int = 0) -> bool:
    """Whether the words ``wanted`` stand ``at`` that place: "1" does not begin "1.5" or "12"."""
    if not wanted or not text.startswith(wanted, at):
        return False
    end = at + len(wanted)
    next_one, next_two = text[end : end + 1], text[end + 1 : end + 2]
    if next_one.isalnum() or next_one in ("+", "#"):
        return False
    if next_one in ("-", "'", "’") and next_two.isalnum():
        return False
    parts = ".,/:" if wanted[-1].isdigit() else "."
    return not (next_one and next_one in parts and next_two.isdigit())


def _find(text: str, wanted: str, start: int = 0) -> int:
    """Where the words ``wanted`` stand in ``text`` from ``start`` on; -1 if nowhere."""
    if not wanted:
        return -1
    at = text.find(wanted, start)
    while at >= 0:
        if not (at and text[at - 1].isalnum()) and _begins(text, wanted, at):
            return at
        at = text.find(wanted, at + 1)
    return -1
