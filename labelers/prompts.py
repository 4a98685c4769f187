"""Turns a task and a row into the body of one request, for chat and for plain completion.

Three things are asked. ``score`` asks for the label alone, so that its probability can be read off
the answer's first tokens. ``rationale`` shows a label and asks why it is right. ``cot`` asks for the
rationale and then the label (few-shot chain of thought, Wei et al., 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from labelers.answer_rules import Equation, JsonField, Number, Pattern
from labelers.tasks import LETTERS, Demonstration, Task, TaskError

Api = Literal["chat", "completions"]
Kind = Literal["score", "rationale", "cot"]
#: What is asked, and what is answered.
Turn = tuple[str, str]

#: How a chain of thought announces its answer; the reading rule looks for the same words.
ANSWER_MARKER = "So the answer is"

#: How an answer looks that is read by a rule.
_FORMS: dict[type, str] = {
    Number: "a number in digits",
    Equation: "an arithmetic expression, such as (3 + 4) * 2",
}
_PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions"}


@dataclass(frozen=True)
class Request:
    """One request to a teacher: the path below the API's root and the JSON body.

    ``row`` is the text that the request is about: requests about one row go to one endpoint.
    """

    path: str
    body: dict[str, Any]
    row: str = ""

    @property
    def most_tokens(self) -> int:
        """Most tokens that the answer may have."""
        most: int = self.body.get("max_tokens", 0)
        return most


def answer_text(task: Task, label: str, choices: Sequence[str] | None) -> str:
    """How the teacher is expected to write ``label``: its text, or ``(b) text`` by letter."""
    if task.form == "letter" and choices is not None and label in choices:
        return f"({LETTERS[list(choices).index(label)]}) {label}"
    return label


def build_request(
    task: Task,
    text: str,
    *,
    kind: Kind,
    api: Api,
    model: str,
    choices: Sequence[str] | None = None,
    label: str | None = None,
    prefix: str = "",
    max_tokens: int,
    temperature: float = 0.0,
    top_logprobs: int = 20,
    demonstrations: Sequence[Demonstration] | None = None,
    turns: Sequence[Turn] | None = None,
    structured: Mapping[str, Any] | None = None,
    score_prompt: bool = False,
    token_logprobs: bool = False,
) -> Request:
    """Build the request for one row.

    Args:
        task: The task; its demonstrations are included.
        text: The row's rendered input.
        kind: ``score``, ``rationale`` or ``cot``.
        api: ``chat`` (messages) or ``completions`` (one text to be continued).
        model: Name under which the server knows the model.
        choices: The row's options: the task's labels or the row's own.
        label: For ``rationale``: the label to be explained.
        prefix: For a completion: the beginning of the answer that is already given.
        max_tokens: Most tokens the teacher may generate.
        temperature: Sampling temperature; 0 is greedy.
        top_logprobs: For ``score``: alternatives to be returned per position; 0 to ask for none.
        demonstrations: Worked examples for this row, in place of the task's.
        turns: What :func:`demonstration_turns` made of the demonstrations, where that is known already.
        structured: Fields of the body that constrain the answer.
        score_prompt: For ``score`` by completion: whether the prompt's own tokens are to be scored,
            its last part being ``prefix``.
        token_logprobs: Whether the probability of each generated token is to be returned.

    Raises:
        TaskError: If ``cot`` is asked and a demonstration has no rationale.
    """
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    shown = demonstration_turns(task, kind, demonstrations) if turns is None else turns
    question = _question(task, text, answer_text(task, label, choices) if label else None, kind)
    if api == "chat":
        messages = [{"role": "system", "content": _system(task, choices, kind)}]
        for asked, answered in shown:
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answered})
        messages.append({"role": "user", "content": question})
        body["messages"] = messages
        if kind == "score" and top_logprobs:
            body["logprobs"] = True
            body["top_logprobs"] = top_logprobs
    else:
        cue = _cue(task, kind)
        blocks = [task.instruction]
        blocks += [f"{asked}\n{cue} {answered}" for asked, answered in shown]
        blocks.append(f"{question}\n{cue}{' (' if _opens_bracket(task, kind) else ''}{prefix}")
        body["prompt"] = "\n\n".join(blocks)
        if score_prompt:
            body["prompt_logprobs"] = 1
        elif kind == "score" and top_logprobs:
            body["logprobs"] = top_logprobs
        else:
            # A base model goes on to invent the next example; the blank line is where it would.
            body["stop"] = ["\n\n"] if kind == "cot" else ["\n"]
    if token_logprobs:
        body.update({"logprobs": True, "top_logprobs": 1} if api == "chat" else {"logprobs": 1})
    if task.stop:
        body["stop"] = list(dict.fromkeys([*body.get("stop", ()), *task.stop]))[:4]
    if structured:
        body.update(structured)
    return Request(_PATHS[api], body, text)


def demonstration_turns(
    task: Task, kind: Kind, demonstrations: Sequence[Demonstration] | None = None
) -> list[Turn]:
    """Question and answer of each worked example, as this kind of request shows them.

    Raises:
        TaskError: If ``cot`` is asked and a demonstration has no rationale.
    """
    # A demonstration without a rationale has nothing to show where a rationale is asked for.
    return [
        _turn(task, demonstration, kind)
        for demonstration in (task.demonstrations if demonstrations is None else demonstrations)
        if kind != "rationale" or demonstration.rationale
    ]


def _cue(task: Task, kind: Kind) -> str:
    """The words after which a completion goes on."""
    return {"score": f"{task.answer_name}:", "rationale": "Why:", "cot": "Answer:"}[kind]


def _opens_bracket(task: Task, kind: Kind) -> bool:
    return kind == "score" and task.form == "letter"


def _turn(task: Task, demonstration: Demonstration, kind: Kind) -> Turn:
    choices = demonstration.choices or task.labels
    answer = answer_text(task, demonstration.label, choices)
    if kind == "score":
        return demonstration.input, answer
    rationale = demonstration.rationale
    if kind == "rationale":
        return _question(task, demonstration.input, answer, kind), rationale or ""
    if rationale is None:
        raise TaskError(
            f"the demonstration {demonstration.input[:60]!r} has no rationale, and mode `cot` shows "
            "one in each: add it, or use mode `score`"
        )
    if isinstance(task.answer, JsonField):
        return demonstration.input, _as_json(task.answer, answer, rationale)
    return demonstration.input, f"{rationale} {ANSWER_MARKER} {answer}."


def demonstrated(task: Task, demonstration: Demonstration) -> str:
    """A demonstration's answer as a chain of thought shows it."""
    return _turn(task, demonstration, "cot")[1]


def _as_json(rule: JsonField, answer: str, rationale: str) -> str:
    """The answer in the JSON that the rule reads, with the rationale in it or before it."""
    found: dict[str, Any] = {}
    places = [(rule.field, answer)]
    if rule.rationale is not None:
        places.insert(0, (rule.rationale, rationale))
    for path, value in places:
        *parents, last = path.split(".")
        inner = found
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = value
    written = orjson.dumps(found).decode()
    return written if rule.rationale is not None else f"{rationale} {written}"


def _question(task: Task, text: str, label: str | None, kind: Kind) -> str:
    return f"{text}\n{task.answer_name}: {label}" if kind == "rationale" else text


def _system(task: Task, choices: Sequence[str] | None, kind: Kind) -> str:
    if kind == "rationale":
        how = "You are shown the right label. Say in one short sentence why it is right."
    elif isinstance(task.answer, JsonField):
        thought = "" if kind == "score" else "Think step by step. "
        how = f"{thought}End with a JSON object that holds the answer in {task.answer.field!r}."
    elif isinstance(task.answer, Pattern):
        how = "" if kind == "score" else "Think step by step in a few sentences, then answer."
    elif choices is None:
        form = _FORMS.get(type(task.answer), "...")
        how = (
            f"Answer with nothing but {'the answer' if form == '...' else form}."
            if kind == "score"
            else f'Think step by step in a few sentences, then end with "{ANSWER_MARKER}" and {form}.'
            if form != "..."
            else f'Think step by step in a few sentences, then end with "{ANSWER_MARKER} ...".'
        )
    else:
        if task.form == "letter":
            allowed = "the letter of one option, in brackets"
        else:
            allowed = "one of these labels: " + ", ".join(choices)
        how = (
            f"Answer with nothing but {allowed}."
            if kind == "score"
            else f'Think step by step in a few sentences, then end with "{ANSWER_MARKER}" and {allowed}.'
        )
    return f"{task.instruction}\n{how}" if how else task.instruction
