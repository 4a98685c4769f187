"""What a teacher's answer holds: text, thought, tokens and why it ended."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from labelers.answers import split_thinking
from labelers.teachers import RetryableError


@dataclass
class Reply:
    """A response body, parsed, and where it lies in the store."""

    body: dict[str, Any]
    key: bytes

    @property
    def choice(self) -> dict[str, Any]:
        """The first choice."""
        choice: dict[str, Any] = self.body["choices"][0]
        return choice

    @cached_property
    def _parts(self) -> tuple[str | None, str]:
        choice = self.choice
        message = choice.get("message")
        if not isinstance(message, dict):
            return split_thinking(choice.get("text") or "")
        thought, text = split_thinking(message.get("content") or "")
        for name in ("reasoning", "reasoning_content"):
            if isinstance(message.get(name), str) and message[name].strip():
                return message[name], text
        return thought, text

    @property
    def text(self) -> str:
        """What the teacher wrote as its answer, without what it thought before."""
        return self._parts[1]

    @property
    def reasoning(self) -> str | None:
        """What a reasoning teacher thought before it answered: a field of its own, or ``<think>``."""
        return self._parts[0]

    @property
    def has_logprobs(self) -> bool:
        """Whether token probabilities came with it."""
        return isinstance(self.choice.get("logprobs"), dict)

    @property
    def finish_reason(self) -> str | None:
        """Why it stopped: ``stop``, ``length``, …"""
        reason = self.choice.get("finish_reason")
        # One text for all rows, not one for each.
        return None if reason is None else sys.intern(str(reason))

    @property
    def usage(self) -> dict[str, Any] | None:
        """The server's own count, if it gives one."""
        usage = self.body.get("usage")
        counted = isinstance(usage, dict) and isinstance(usage.get("prompt_tokens"), int)
        return usage if counted else None

    @property
    def counted(self) -> tuple[int, int] | None:
        """Prompt and completion tokens, if the server says both of them."""
        usage = self.usage or {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        known = [
            count
            for count in counts
            if isinstance(count, int) and not isinstance(count, bool) and count >= 0
        ]
        return (known[0], known[1]) if len(known) == 2 else None

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens as the server counts them; 0 where it does not say."""
        usage = self.usage
        if usage is None:
            return 0, 0
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return _count(prompt), _count(completion)


def _count(value: object) -> int:
    return max(value, 0) if isinstance(value, int) else 0


def parse_answer(answer: bytes) -> dict[str, Any]:
    """A response body, parsed, with at least one choice that holds text or null.

    Raises:
        RetryableError: If it is anything else.
    """
    try:
        body = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise RetryableError(f"the answer is not JSON: {answer[:80]!r}") from error
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RetryableError(f"the answer holds no choices: {answer[:80]!r}")
    choice = choices[0]
    message = choice.get("message")
    holder, name = (message, "content") if isinstance(message, dict) else (choice, "text")
    if name not in holder or not isinstance(holder[name], str | None):
        raise RetryableError(f"the answer's choice holds no text: {answer[:80]!r}")
    parsed: dict[str, Any] = body
    return parsed
