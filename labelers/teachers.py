"""What a teacher is: anything that takes the body of an OpenAI-style request and answers it.

The protocol is small on purpose. A teacher sends one request once; asking again, limits, the store
and the reading of answers are the labeling loop's. An engine in this process and a server on the
network look the same from there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from labelers.prompts import Api

#: How a server takes a constraint on its answers.
Dialect = Literal["vllm", "json_schema", "llama.cpp"]


class TeacherError(RuntimeError):
    """The run cannot go on with this teacher: unreachable, refused, or set up wrongly."""


class RetryableError(RuntimeError):
    """This attempt failed and the next may not: overload, a cut connection, an invalid body.

    Attributes:
        retry_after: The pause in seconds that the server asked for, if it did.
        overloaded: Whether the server has more to do than it can: fewer requests are then sent at once.
        charged: Whether the server may have counted tokens all the same, as where the connection was
            cut in the middle of an answer.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        overloaded: bool = False,
        charged: bool = True,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.overloaded = overloaded
        self.charged = charged


class RowError(ValueError):
    """The server refuses this row and always will: a bad request, or a text too long for it.

    ``kind`` is the class of the error as it is written in the ``error`` column.
    """

    def __init__(self, message: str, *, kind: str = "bad_request") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars per million tokens.

    Raises:
        TeacherError: If one is negative or not a number.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            price = getattr(self, name)
            if not (price >= 0 and math.isfinite(price)):
                raise TeacherError(
                    f"prices.{name} is {price}: it must be US dollars per million tokens, 0 or more"
                )

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


@runtime_checkable
class Adapting(Protocol):
    """A teacher that wants request bodies otherwise than they are built: more fields, other names."""

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as it is to be sent; it is what the store's key is made of."""
        ...


@runtime_checkable
class Checking(Protocol):
    """A teacher that can tell an answer of the wrong model from one of its own."""

    def check(self, answer: Mapping[str, Any]) -> None:
        """Look at a parsed answer.

        Raises:
            RetryableError: If it comes from another model than was asked.
        """
        ...


@runtime_checkable
class Constraining(Protocol):
    """A teacher that can be held to a set of answers.

    Attributes:
        dialect: The fields of a body in which it takes the constraint: ``vllm``, ``json_schema`` or
            ``llama.cpp``; None where it takes none.
    """

    @property
    def dialect(self) -> Dialect | None: ...  # noqa: D102


@dataclass
class Fleet:
    """Several endpoints that serve one model; together they are one teacher.

    Requests of one row go to one endpoint while that has room, so that its prefix cache serves them.
    An endpoint that does not answer at the start, or fails later, is left to the others.

    Args:
        members: Teachers with one identity, model and API.

    Raises:
        TeacherError: If there are none, or they differ in what they serve.
    """

    members: Sequence[Teacher]
    #: What could not be reached at the start.
    missing: list[str] = field(default_factory=list)
    _all: Sequence[Teacher] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise TeacherError("a fleet needs at least one endpoint")
        self._all = tuple(self.members)
        first = self.members[0]
        for member in self.members:
            for what in ("identity", "model", "api", "top_logprobs"):
                if getattr(member, what) != getattr(first, what):
                    raise TeacherError(
                        f"the endpoints of a fleet differ in {what}: {getattr(first, what)!r} and "
                        f"{getattr(member, what)!r}; all must serve the same model"
                    )

    @property
    def name(self) -> str:
        """As its members are called."""
        return self.members[0].name

    @property
    def model(self) -> str:
        """The members' model."""
        return self.members[0].model

    @property
    def api(self) -> Api:
        """The members' API."""
        return self.members[0].api

    @property
    def concurrency(self) -> int:
        """Requests under way at all endpoints together."""
        return sum(member.concurrency for member in self.members)

    @property
    def prefill(self) -> bool:
        """As its members."""
        return self.members[0].prefill

    @property
    def top_logprobs(self) -> int:
        """As its members."""
        return self.members[0].top_logprobs

    @property
    def prices(self) -> Prices | None:
        """As its members."""
        return self.members[0].prices

    @property
    def identity(self) -> Mapping[str, str]:
        """The members' identity: which of them answers makes no difference."""
        return self.members[0].identity

    @property
    def dialect(self) -> Dialect | None:
        """As its members."""
        first = self.members[0]
        return first.dialect if isinstance(first, Constraining) else None

    async def start(self) -> None:
        """Start all members, also those that could not be reached the last time.

        Raises:
            TeacherError: If none can be started.
        """
        results = await asyncio.gather(
            *(member.start() for member in self._all), return_exceptions=True
        )
        started = [
            member
            for member, result in zip(self._all, results, strict=True)
            if not isinstance(result, BaseException)
        ]
        failures = [result for result in results if isinstance(result, BaseException)]
        fatal = [failure for failure in failures if not isinstance(failure, TeacherError)]
        if fatal or not started:
            await asyncio.gather(*(member.close() for member in started))
            raise (fatal or failures)[0]
        self.members, self.missing = started, [str(failure) for failure in failures]

    async def send(self, path: str, body: bytes) -> bytes:
        """Send to the first member; the labeling loop itself chooses among them."""
        return await self.members[0].send(path, body)

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """As its members do."""
        first = self.members[0]
        return first.adapt(body) if isinstance(first, Adapting) else body

    async def close(self) -> None:
        """Close all members."""
        await asyncio.gather(*(member.close() for member in self.members))
