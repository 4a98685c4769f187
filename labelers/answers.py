"""Reads a label and a rationale out of what a teacher wrote. Reading never guesses.

An answer that names no label, or two, is unread: the row gets an error with the raw text, because a
guessed label costs the student more than a missing one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from labelers.answer_rules import Equation, JsonField, Number, Pattern
from labelers.equations import read_equation, read_whole_equation
from labelers.markers import comments, find_markers, unwrapped
from labelers.named_labels import match, match_whole
from labelers.prompts import ANSWER_MARKER, answer_text
from labelers.sentences import REACH, UnreadError
from labelers.tasks import LETTERS, Task
from labelers.values import match_number, read_json, read_number, read_pattern, read_whole_number

#: What a teacher writes when it runs past its answer, into a next example or out of its turn.
OVER_GENERATION = (
    "\n\nQ:", "\nQ:", "\n\nQuestion:", "\n\nReview:", "\n\nInput:", "\n\nHuman:", "\n\nUser:", "\n\n\n",
    "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>",
)  # fmt: skip

_ASKED = f"{ANSWER_MARKER} "
_THINKING = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)

_Read = Callable[[str], str | None]


@dataclass(frozen=True)
class Reading:
    """What was read: ``label`` is None where nothing could be, and ``problem`` then says why.

    ``rationale`` is what stands before the answer; ``reasoning`` what the teacher thought in tags of
    its own (:func:`split_thinking`).
    """

    label: str | None
    rationale: str | None = None
    problem: str | None = None
    reasoning: str | None = None


def read_answer(
    text: str, task: Task, choices: Sequence[str] | None, *, cut_off: bool = False
) -> Reading:
    """Read the label, and the rationale before it, from a teacher's free text.

    What a reasoning teacher thought in tags is set aside, and the text is cut where the teacher ran on
    into another example or to one of ``task.stop``. The answer stands behind "the answer is" (the last
    such place that names one), or is the whole text. It is read by ``task.answer`` where that is set.
    Options are read by their letter first and by their text otherwise: on CommonsenseQA answers of a
    540-billion-parameter teacher the letter is right 2.5 points more often. An answer that names two
    labels ("(a) or (b)", or a letter with another option's text) is unread, unless ``task.on_two`` says
    that the first one counts.

    Args:
        text: The raw output.
        task: The task; it says how an answer is read.
        choices: The labels allowed for this row; None for free text.
        cut_off: Whether the teacher was stopped in the middle; an answer that ends the text may then
            be the beginning of a longer one, and is unread.
    """
    if not text.isascii():
        # Half a surrogate pair, which a server can send in JSON, is no text that could be stored.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    reasoning, said = split_thinking(text) if "<" in text else (None, text)
    try:
        reading = _read(said, task, choices, cut_off)
    except UnreadError as unread:
        reading = Reading(None, problem=f"{unread}, in {_quote(said)}")
    if reasoning is not None and not said:
        reading = Reading(
            None, problem=f"the teacher thought, and gave no answer: {_quote(reasoning)}"
        )
    return reading if reasoning is None else replace(reading, reasoning=reasoning)


def _read(said: str, task: Task, choices: Sequence[str] | None, cut_off: bool) -> Reading:
    body = _cut(said, task)
    if not body.strip():
        return Reading(None, problem="the answer is empty")
    rule, first = task.answer, task.on_two == "first"
    if isinstance(rule, JsonField):
        found = read_json(body, rule)
        return Reading(_label(found.value, task, choices), _tidy(found.rationale or ""))
    if isinstance(rule, Pattern):
        value = read_pattern(body, rule.pattern, cut_off, first=first)
        return Reading(_label(value, task, choices))
    if rule is None and choices is not None and not cut_off:
        announced = _announced(body, task, choices)
        if announced is not None:
            return announced
    markers = find_markers(body, task.answer_name)
    if isinstance(rule, Equation):
        read, read_whole = (
            partial(read, cut_off=cut_off) for read in (read_equation, read_whole_equation)
        )
        return _read_marked(body, markers, read, read_whole) or _no("equation", body)
    if isinstance(rule, Number):
        read, read_whole = (
            partial(read, cut_off=cut_off, first=first) for read in (read_number, read_whole_number)
        )
        reading = _read_marked(body, markers, read, read_whole) or _no("number", body)
        if choices is None or reading.label is None:
            return reading
        label = match_number(reading.label, choices)
        return (
            replace(reading, label=label) if label else _no(f"one label of {list(choices)}", body)
        )
    if choices is None:
        return _read_free(body, markers)
    return _read_label(said, body, markers, task, choices, cut_off)


def _read_label(
    said: str,
    body: str,
    markers: list[re.Match[str]],
    task: Task,
    choices: Sequence[str],
    cut_off: bool,
) -> Reading:
    if not cut_off and (exact := _exact(said, body, markers, task, choices)):
        return exact
    try:
        reading = _read_marked(
            body,
            markers,
            lambda answer: match(answer, task, choices, cut_off),
            lambda whole: match_whole(whole, task, choices, cut_off),
        )
    except UnreadError as unread:
        return _no(f"one label of {list(choices)}", body, f": {unread}")
    return reading or _no(f"one label of {list(choices)}", body)


def _read_marked(
    body: str, markers: list[re.Match[str]], read: _Read, read_whole: _Read
) -> Reading | None:
    """Read behind the last marker that an answer follows, or else the whole body.

    Raises:
        UnreadError: If the last place that speaks of answers settles on none: an earlier one is a guess.
    """
    for marker in reversed(markers):
        said = unwrapped(body[marker.end() : marker.end() + REACH], marker)
        answer = read(said)
        if answer is not None:
            return Reading(answer, _tidy(body[: marker.start()]))
        if not comments(said):
            raise UnreadError(f"nothing that can be read follows {marker.group().strip()!r}")
    answer = read_whole(body)
    return None if answer is None else Reading(answer)


def _label(value: str, task: Task, choices: Sequence[str] | None) -> str:
    """The label that a value found by a rule names; the value itself for free text.

    Raises:
        UnreadError: If it names none.
    """
    if choices is None:
        return value
    if value in choices:
        return value
    try:
        label = match_whole(value, task, choices, False)
    except UnreadError:
        label = None
    if label is None:
        raise UnreadError(f"{value!r} is no label of {list(choices)}")
    return label


def _announced(body: str, task: Task, choices: Sequence[str]) -> Reading | None:
    """The label where the text ends just as it was asked to: "So the answer is (b) pond."

    Most answers do, and this is many times faster than to look for all that may announce an answer.
    """
    at = body.rfind(_ASKED)
    before = body[:at].rstrip()
    if at < 0 or (before and before[-1] not in ".!?"):
        return None
    said = body[at + len(_ASKED) :].strip().removesuffix(".")
    if task.form == "letter":
        place = LETTERS.find(said[1:2]) if said[:1] == "(" and said[2:3] == ")" else -1
        if not 0 <= place < len(choices) or said[3:].strip() not in ("", choices[place].strip()):
            return None
        return Reading(choices[place], _tidy(before))
    named = [choice for choice in choices if choice.strip() == said]
    return Reading(named[0], _tidy(before)) if len(named) == 1 else None


def _exact(
    said: str, body: str, markers: list[re.Match[str]], task: Task, choices: Sequence[str]
) -> Reading | None:
    """The label where the text, or what follows a marker, is a label letter by letter."""
    named = choices[: len(LETTERS)] if task.form == "letter" else choices
    written = {answer_text(task, choice, choices).strip(): choice for choice in named}
    if len(written) < len(set(named)):
        return None
    if (label := written.get(said.strip())) is not None:
        return Reading(label)
    longest = max(map(len, written), default=0) + 20
    for marker in markers:
        if len(body) - marker.end() <= longest:
            tail = body[marker.end() :].strip()
            meant = {written[t] for t in (tail, tail.removesuffix(".")) if t in written}
            if len(meant) == 1:
                return Reading(meant.pop(), _tidy(body[: marker.start()]))
    return None


def split_thinking(text: str) -> tuple[str | None, str]:
    """Split what a reasoning teacher thought from what it then answered.

    Thought stands between ``<think>`` and ``</think>`` (or ``thinking``, ``thought``,
    ``reasoning``). Without an opening tag all before the closing one is thought, because some servers
    strip the opening one. An opening tag alone means that the teacher was stopped while it thought: all
    is thought, and the answer is empty.

    Args:
        text: The raw output.

    Returns:
        The thought, or None where there is none, and the answer. A text without tags comes back
        unchanged.
    """
    thought: list[str] = []
    answer: list[str] = []
    depth = end = 0
    for tag in _THINKING.finditer(text):
        (thought if depth else answer).append(text[end : tag.start()])
        end = tag.end()
        if not tag.group(1):
            depth += 1
        elif depth:
            depth -= 1
        else:
            thought += answer
            answer = []
    if end == 0:
        return None, text
    (thought if depth else answer).append(text[end:])
    if depth:
        thought, answer = [*answer, *thought], []
    return "".join(thought).strip() or None, "".join(answer).strip()


def _cut(text: str, task: Task) -> str:
    """The text up to where it begins another example, be it as this task's template begins."""
    body = text.lstrip()
    lead = task.template.split("{", 1)[0].strip()
    stops = (*OVER_GENERATION, "\n" + lead) if lead.endswith(":") else OVER_GENERATION
    ends = [position for stop in stops if (position := body.find(stop)) > 0]
    ends += [position for stop in task.stop if (position := body.find(stop)) >= 0]
    return body[: min(ends)] if ends else body


def _read_free(body: str, markers: list[re.Match[str]]) -> Reading:
    if not markers:
        return Reading(body.strip())
    spoken = [m for m in markers if not comments(body, m.end())]
    marker = (spoken or markers)[-1]
    answer = unwrapped(body[marker.end() :], marker)
    answer = answer.strip().split("\n")[0].strip().removesuffix(".")
    if not answer:
        return Reading(
            None, problem=f"nothing follows {marker.group().strip()!r} in {_quote(body)}"
        )
    return Reading(answer, _tidy(body[: marker.start()]))


def _tidy(rationale: str) -> str | None:
    text = " ".join(rationale.split()).strip(" ,;:")
    return text or None


def read_rationale(text: str) -> Reading:
    """Read a rationale that was asked for on its own: the first paragraph, on one line."""
    rationale = _tidy(text.strip().split("\n\n")[0])
    if rationale is None:
        return Reading(None, problem="the rationale is empty")
    return Reading(None, rationale)


def _no(what: str, body: str, why: str = "") -> Reading:
    return Reading(None, problem=f"no {what} could be read in {_quote(body)}{why}")


def _quote(text: str, most: int = 400) -> str:
    """The text on one line; of a long one both ends, because the answer stands at the end."""
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= most else f"{shown[:100]} … {shown[100 - most :]}")
