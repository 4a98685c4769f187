"""Answers held to a list: how each kind of server is told, and whether it listens.

A server that does not know a field leaves it out without a word. What it then answers looks like an
answer and is not held to anything, so :func:`probe` asks before the first row is paid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, get_args

import orjson

from labelers.prompts import Api
from labelers.tasks import TaskError
from labelers.teachers import RetryableError, RowError, Teacher, TeacherError

Dialect = Literal["vllm", "json_schema", "llama.cpp"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

_FIELDS: dict[Dialect, str] = {
    "vllm": "structured_outputs",
    "json_schema": "response_format",
    "llama.cpp": "grammar",
}
_QUESTION = "What is the capital of France?"
#: No model says these of its own accord, and both begin unlike any answer to the question.
_ODD = ("zyx-1729-kumquat", "vkj-4104-oboe")
#: Enough for either of them, letter by letter, inside JSON with much white space.
_PROBE_TOKENS = 96
_ATTEMPTS = 4


def structured_choice(
    choices: Sequence[str], dialect: Dialect, *, opening: str = ""
) -> dict[str, Any]:
    """Fields of a request's body that hold the answer to one of ``choices``.

    Args:
        choices: What may be answered.
        dialect: ``vllm`` (``structured_outputs``, since vLLM 0.11), ``json_schema``
            (``response_format``, as OpenAI's API has it: the answer is ``{"label": "..."}``), or
            ``llama.cpp`` (a GBNF ``grammar``).
        opening: What each answer begins with, such as the space that a completion wants after
            ``Label:``. JSON needs none and leaves it out.

    Raises:
        TaskError: If there are no choices, one is empty or one is listed twice, or the dialect is
            unknown.
    """
    if not choices or not all(choices) or len(set(choices)) < len(choices):
        raise TaskError(
            f"the answer is to be one of {list(choices)}: at least one is needed, none empty and "
            "each once"
        )
    if dialect == "vllm":
        return {"structured_outputs": {"choice": [opening + choice for choice in choices]}}
    if dialect == "llama.cpp":
        literals = " | ".join(_literal(opening + choice) for choice in choices)
        return {"grammar": f"root ::= {literals}"}
    if dialect == "json_schema":
        schema = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(choices)}},
            "required": ["label"],
            "additionalProperties": False,
        }
        described = {"name": "label", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    raise TaskError(f"the dialect is {dialect!r}: choose {', '.join(map(repr, DIALECTS))}")


def _literal(text: str) -> str:
    """A string of llama.cpp's grammar notation (GBNF)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\x{ord(c):02X}" for c in escaped) + '"'


def constrained_text(text: str, dialect: Dialect) -> str | None:
    """What a constrained answer says, without its JSON; None where it is not of that form."""
    if dialect != "json_schema":
        return text
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    label = said.get("label") if isinstance(said, dict) else None
    return label if isinstance(label, str) else None


async def probe(
    teacher: Teacher,
    dialects: Sequence[Dialect] | None = None,
    *,
    max_tokens: int = _PROBE_TOKENS,
    pause: float = 1.0,
) -> Dialect:
    """Find out how a started teacher is held to a list of answers.

    It is asked a plain question to which only two odd words are allowed. One that answers with neither
    has left the constraint out, as vLLM does with its former ``guided_choice``.

    Args:
        teacher: A started teacher.
        dialects: What to try, in this order. By default what the teacher's own ``dialect`` attribute
            names, or else all.
        max_tokens: Most tokens of the answer; a teacher that thinks first needs more.
        pause: Seconds before a second attempt where the first failed; doubled for each further one.

    Returns:
        The first dialect that was obeyed.

    Raises:
        TeacherError: If none was.
    """
    if dialects is None:
        own: Dialect | None = getattr(teacher, "dialect", None)
        dialects = DIALECTS if own is None else (own,)
    found = []
    for dialect in dialects:
        problem = await _try(teacher, dialect, max_tokens, pause)
        if problem is None:
            return dialect
        found.append(f"{_FIELDS[dialect]} ({dialect}): {problem}")
    untried = [dialect for dialect in DIALECTS if dialect not in dialects]
    further = f"try {' or '.join(map(repr, untried))}, " if untried else ""
    raise TeacherError(
        f"{teacher.name} does not hold its answers to a list of labels. {'; '.join(found)}. Each row would "
        f"be answered freely: {further}update the server (vLLM knows structured_outputs since 0.11), "
        "or take probabilities from logprobs, which needs no constraint"
    )


async def _try(teacher: Teacher, dialect: Dialect, max_tokens: int, pause: float) -> str | None:
    """What is wrong with this dialect here, or None."""
    path, body = _question(teacher.api, teacher.model, max_tokens)
    body |= structured_choice(_ODD, dialect)
    try:
        answer = orjson.loads(await _send(teacher, path, orjson.dumps(body), pause))
        choice = answer["choices"][0]
        text = str(
            (choice["message"]["content"] if teacher.api == "chat" else choice["text"]) or ""
        )
    except RowError as error:
        return f"refused ({error})"
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        return f"the answer is malformed ({error})"
    said = constrained_text(text, dialect)
    if said is not None and said.strip() in _ODD:
        return None
    if choice.get("finish_reason") == "length":
        return f"no answer within {max_tokens} tokens, which began with {text[:60]!r}"
    return f"ignored, asked for {_ODD[0]!r} or {_ODD[1]!r} it said {text[:60]!r}"


def _question(api: Api, model: str, max_tokens: int) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0.0}
    if api == "chat":
        return "chat/completions", {**body, "messages": [{"role": "user", "content": _QUESTION}]}
    return "completions", {**body, "prompt": f"Question: {_QUESTION}\nAnswer:"}


async def _send(teacher: Teacher, path: str, body: bytes, pause: float) -> bytes:
    failures = 0
    while True:
        try:
            return await teacher.send(path, body)
        except RetryableError as error:
            failures += 1
            if failures == _ATTEMPTS:
                raise TeacherError(
                    f"{teacher.name} could not be asked whether it holds its answers to a list: "
                    f"{error} ({failures} attempts)"
                ) from error
            wait = pause * 2.0 ** (failures - 1)
            await asyncio.sleep(wait if error.retry_after is None else error.retry_after)
