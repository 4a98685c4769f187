"""What a teacher is: anything that takes the body of an OpenAI-style request and answers it.

The protocol is small on purpose. A teacher sends one request once; asking again, limits, the store
and the reading of answers are the labeling loop's. An engine in this process and a server on the
network look the same from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from labelers.prompts import Api


class TeacherError(RuntimeError):
    """The run cannot go on with this teacher: unreachable, refused, or set up wrongly."""


class RetryableError(RuntimeError):
    """This attempt failed and the next may not: overload, a cut connection, an invalid body.

    ``retry_after`` is the pause in seconds that the server asked for, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RowError(ValueError):
    """The server refuses this row and always will: a bad request, or a text too long for it.

    ``kind`` is the class of the error as it is written in the ``error`` column.
    """

    def __init__(self, message: str, *, kind: str = "bad_request") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars per million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost in US dollars of that many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@runtime_checkable
class Teacher(Protocol):
    """What the labeling loop needs of a teacher.

    Attributes:
        name: Shown in the ``teacher`` column.
        model: The model's name inside the request body.
        identity: Names the weights behind the answers; part of the store's key. Two teachers with
            one identity share stored answers, so it must change when the weights do.
        api: ``chat`` or ``completions``: how prompts are written for it.
        concurrency: Requests that may be under way at once.
        prefill: Whether the beginning of an answer can be given, so that probabilities can be read
            further along it.
        top_logprobs: Most alternatives per position that it returns; 0 where it returns none.
        prices: Prices of its tokens, or None where they are free or unknown.
    """

    # Read-only, so that a plain attribute, a property and a frozen field all serve.
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def api(self) -> Api: ...  # noqa: D102
    @property
    def concurrency(self) -> int: ...  # noqa: D102
    @property
    def prefill(self) -> bool: ...  # noqa: D102
    @property
    def top_logprobs(self) -> int: ...  # noqa: D102
    @property
    def prices(self) -> Prices | None: ...  # noqa: D102
    @property
    def identity(self) -> Mapping[str, str]: ...  # noqa: D102

    async def start(self) -> None:
        """Load the model, or check the server, its key and its model's name.

        Called before the first request of a run that needs one, and never when the store already
        holds every answer.

        Raises:
            TeacherError: If no request could succeed.
        """
        ...

    async def send(self, path: str, body: bytes) -> bytes:
        """Send one request once and return the JSON body of the answer.

        Raises:
            RetryableError: If the same request may succeed later.
            RowError: If this request can never succeed.
            TeacherError: If no request can.
        """
        ...

    async def close(self) -> None:
        """Let go of connections or memory; ``start`` may be called again."""
        ...
