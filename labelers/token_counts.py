"""How many tokens a prompt has, by a tokenizer where there is one, else by its length."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelers.tasks import TaskError

#: One number per text.
CountText = Callable[[str], int]

#: English prose has about four bytes to a token; UTF-8 makes other scripts count for more.
_BYTES_A_TOKEN = 4
#: What a chat template writes around each message.
_TOKENS_A_MESSAGE = 4
#: Instructions and demonstrations are the same in every prompt: they are counted once.
_REMEMBERED = 4096


@dataclass
class TokenCounter:
    """Counts the prompt tokens of request bodies.

    Args:
        tokenizer: A function from text to number of tokens, the path of a ``tokenizer.json``, or None
            to estimate.

    Raises:
        TaskError: If the path holds no tokenizer.
    """

    tokenizer: CountText | str | os.PathLike[str] | None = None
    name: str = ""
    _count: CountText = field(init=False, repr=False)
    _known: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer is None:
            self._count = _estimate
            self.name = f"estimated at {_BYTES_A_TOKEN} bytes of UTF-8 a token"
        elif callable(self.tokenizer):
            self._count = self.tokenizer
            named = getattr(self.tokenizer, "__name__", type(self.tokenizer).__name__)
            self.name = f"tokenizer {named}"
        else:
            self._count = _load(Path(self.tokenizer))
            self.name = f"tokenizer {os.fspath(self.tokenizer)}"

    def __call__(self, body: Mapping[str, Any]) -> int:
        """Prompt tokens of one request body."""
        messages = body.get("messages")
        if isinstance(messages, list):
            *shared, last = [str(message["content"]) for message in messages]
            return (
                sum(self._once(text) for text in shared)
                + self._count(last)
                + _TOKENS_A_MESSAGE * len(messages)
            )
        # Cut where no token reaches across, so that what all prompts share is counted once.
        head, gap, tail = str(body.get("prompt", "")).rpartition("\n\n")
        return (self._once(head + gap) if gap else 0) + self._count(tail)

    def _once(self, text: str) -> int:
        if text not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = self._count(text)
        return self._known[text]


def _estimate(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


def _load(path: Path) -> CountText:
    if not path.is_file():
        raise TaskError(
            f"the tokenizer {path} is no file: name a tokenizer.json, or leave it out to estimate"
        )
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
    except ImportError as error:
        raise TaskError(
            f"to count with {path}, run `pip install tokenizers`, or leave it out to estimate"
        ) from error
    except Exception as error:  # tokenizers raises bare Exceptions
        raise TaskError(f"{path} is no tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
