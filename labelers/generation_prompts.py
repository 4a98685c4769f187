"""Asks a teacher for one new input, and takes the input out of what it wrote.

A base model is shown rows of the kind wanted, each under its label, and continues with another; a chat
model is told so. What all inputs share, the fixed text around the template's one variable ("Review: "),
is neither asked for nor left to the teacher: it is put around what it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelers.prompts import Api, Request
from labelers.tasks import Task

_PLACEHOLDER = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_BULLET = re.compile(r"^(?:[-*•]|\(?\d{1,2}[.)])\s+")
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "`": "`"}


@dataclass(frozen=True)
class Seed:
    """A row that is shown to the teacher: its id, its input without the frame, and its label."""

    id: str
    text: str
    label: str | None


@dataclass(frozen=True)
class Frame:
    """The fixed text before and after what the teacher writes; both may be empty."""

    opening: str = ""
    closing: str = ""

    @classmethod
    def of(cls, task: Task, inputs: Sequence[str]) -> Frame:
        """The frame that the task's template puts around its one variable, if all inputs have it."""
        around = _PLACEHOLDER.split(task.template)
        if len(around) != 2 or "{%" in task.template or "{#" in task.template:
            return cls()
        # Jinja drops one line break at the end, with which a block of YAML ends.
        frame = cls(around[0], around[1].removesuffix("\n"))
        fits = all(
            text.startswith(frame.opening)
            and text.endswith(frame.closing)
            and len(text) > len(frame.opening) + len(frame.closing)
            for text in inputs
        )
        return frame if fits else cls()

    def within(self, text: str) -> str:
        """An input without the frame; as it is where it has none."""
        if not (text.startswith(self.opening) and text.endswith(self.closing)):
            return text
        return text[len(self.opening) : len(text) - len(self.closing)]

    def around(self, text: str) -> str:
        """The input that a text becomes."""
        return f"{self.opening}{text}{self.closing}"


def build_generation_request(
    task: Task,
    shown: Sequence[Seed],
    *,
    label: str | None,
    attributes: Mapping[str, str],
    frame: Frame,
    api: Api,
    model: str,
    max_tokens: int,
    temperature: float,
) -> Request:
    """Build the request for one new input.

    Args:
        task: What the inputs are for; its instruction and the name of its answer are shown.
        shown: Rows to be like, in the order in which they are shown.
        label: The label that the new input should deserve; None for free text.
        attributes: What else it should be, by name, such as ``{"tone": "angry"}``.
        frame: From :meth:`Frame.of`.
        api: ``chat`` or ``completions``.
        model: Name under which the server knows the model.
        max_tokens: Most tokens the teacher may write.
        temperature: Sampling temperature.
    """
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    row = shown[0].text
    if api == "chat":
        body["messages"] = _messages(task, shown, label, attributes)
        return Request("chat/completions", body, row)
    cue = frame.opening.strip() or "Text:"
    blocks = [task.instruction]
    blocks += [f"{_head(task, seed.label, {})}{cue} {seed.text}" for seed in shown]
    blocks.append(f"{_head(task, label, attributes)}{cue}")
    body["prompt"] = "\n\n".join(blocks)
    body["stop"] = [_end(task, shown)]
    return Request("completions", body, row)


def _head(task: Task, label: str | None, attributes: Mapping[str, str]) -> str:
    lines = [] if label is None else [f"{task.answer_name}: {label}"]
    lines += [f"{name.capitalize()}: {value}" for name, value in attributes.items()]
    return "".join(f"{line}\n" for line in lines)


def _end(task: Task, shown: Sequence[Seed]) -> str:
    """Where a base model would go on to the next example: as soon as no text of that kind goes on."""
    if any("\n\n" in seed.text for seed in shown):
        return f"\n\n{task.answer_name}:"
    return "\n\n" if any("\n" in seed.text for seed in shown) else "\n"


def _messages(
    task: Task, shown: Sequence[Seed], label: str | None, attributes: Mapping[str, str]
) -> list[dict[str, str]]:
    wish = [] if label is None else [f"{task.answer_name}: {label}"]
    wish += [f"{name}: {value}" for name, value in attributes.items()]
    examples = []
    for number, seed in enumerate(shown, 1):
        known = "" if seed.label is None else f" ({task.answer_name}: {seed.label})"
        examples.append(f"Example {number}{known}:\n{seed.text}")
    system = (
        "You write realistic inputs for a dataset, each in the style of the examples and about something "
        f"else. The dataset's task: {task.instruction}\n"
        "Answer with one new text and nothing else: no title, no quotation marks, no label, no comment."
    )
    asked = f"Write one new text. {'; '.join(wish)}." if wish else "Write one new text."
    content = "\n\n".join([*examples, asked])
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def read_generated(text: str, task: Task, frame: Frame, shown: Sequence[Seed]) -> str:
    """The new text in what the teacher wrote, without the frame; empty if there is none.

    It ends where the next example would begin; quotation marks around all of it, a bullet, and the frame's
    opening repeated are taken off.
    """
    text = text.strip()
    opening = frame.opening.strip()
    for _ in range(2):  # a bullet before the opening, or after it
        text = _BULLET.sub("", text)
        if opening and text.casefold().startswith(opening.casefold()):
            text = text[len(opening) :].lstrip()
    end = _end(task, shown)
    cues = [end, f"\n{task.answer_name}:", *([f"\n{opening}"] if opening else []), "\n\nExample "]
    text = text[: min((at for cue in cues if (at := text.find(cue)) >= 0), default=len(text))]
    text = text.strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    closing = frame.closing.strip()
    return text.removesuffix(closing).rstrip() if closing else text


def echoes(text: str, task: Task) -> bool:
    """Whether a text repeats the prompt's own words: its instruction, or a line that names a label."""
    folded = text.casefold()
    return (
        task.instruction.casefold().rstrip(".") in folded
        or re.search(rf"(?:^|\W){re.escape(task.answer_name.casefold())}:", folded) is not None
    )
