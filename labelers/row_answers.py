"""What is known of one row while it is being labelled, and the columns that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from labelers.answers import Reading
from labelers.teachers import Prices


@dataclass(slots=True)
class RowAnswer:
    """What is known of one row so far; the fields are columns."""

    label: str | None = None
    rationale: str | None = None
    label_probs: list[float] | None = None
    label_source: str | None = None
    off_label_mass: float | None = None
    confidence: float | None = None
    finish_reason: str | None = None
    prompt_key: bytes | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    votes: list[str | None] | None = None
    agreement: float | None = None
    rationales: list[str] | None = None
    error: str | None = None

    def count(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add the tokens of one more exchange."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def take(self, reading: Reading) -> None:
        """Take over what was read of an answer; an unread one is an error."""
        self.label, self.rationale = reading.label, reading.rationale
        if reading.label is None:
            problem = reading.problem or ""
            self.error = problem if problem.startswith("truncated:") else f"unread: {problem}"

    def take_from(self, finish_reason: str | None, key: bytes) -> None:
        """Note which exchange the label comes from, and why that ended."""
        self.finish_reason = finish_reason
        self.prompt_key = key

    def take_likeliest(self, choices: Sequence[str]) -> None:
        """Take the likeliest of the choices by ``label_probs``; its probability is the confidence."""
        assert self.label_probs is not None
        self.confidence = max(self.label_probs)
        self.label = choices[self.label_probs.index(self.confidence)]

    def columns(self, teacher: str, prices: Prices | None) -> dict[str, Any]:
        """The row's label columns by name."""
        cost = prices.cost(self.prompt_tokens, self.completion_tokens) if prices else None
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        key = None if self.prompt_key is None else self.prompt_key.hex()
        return {**columns, "prompt_key": key, "teacher": teacher, "cost_usd": cost}
