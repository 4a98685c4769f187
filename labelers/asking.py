"""The one path to a teacher: look in the store, else ask, ask again where that may help, store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from labelers.limits import Limits
from labelers.prompts import Request
from labelers.store import Store, canonical, exchange_key
from labelers.teachers import RetryableError, RowError, Teacher, TeacherError

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a labeling run is.

    Attributes:
        phase: ``label`` or ``rationale``.
        done: Rows finished in this phase, failed ones included.
        total: Rows of this phase.
        asked: Requests answered by the teacher in this run.
        reused: Requests answered by the store.
        retries: Attempts that failed and were made again.
        failed: Rows that ended with an error.
        prompt_tokens: Tokens read by the teacher in this run (reused answers not counted).
        completion_tokens: Tokens written by it in this run.
        cost_usd: Cost of this run so far; None where the teacher has no prices.
        notes: What the user should know about how the labels were made.
    """

    phase: str
    done: int
    total: int
    asked: int
    reused: int
    retries: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    notes: tuple[str, ...] = ()


OnProgress = Callable[[Progress], None]


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

    @property
    def text(self) -> str:
        """What the teacher wrote."""
        choice = self.choice
        written = choice["message"].get("content") if "message" in choice else choice.get("text")
        return written or ""

    @property
    def has_logprobs(self) -> bool:
        """Whether token probabilities came with it."""
        return isinstance(self.choice.get("logprobs"), dict)

    @property
    def finish_reason(self) -> str | None:
        """Why it stopped: ``stop``, ``length``, …"""
        reason = self.choice.get("finish_reason")
        return None if reason is None else str(reason)

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens as the server counts them; 0 where it does not say."""
        usage = self.body.get("usage")
        if not isinstance(usage, dict):
            return 0, 0
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return _count(prompt), _count(completion)


def _count(value: object) -> int:
    return max(value, 0) if isinstance(value, int) else 0


@dataclass
class Asker:
    """Asks one teacher through one store, for the length of a run."""

    teacher: Teacher
    store: Store
    limits: Limits
    asked: int = 0
    reused: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _identity: bytes = b""
    _started: bool = False
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _under_way: dict[bytes, asyncio.Future[Reply]] = field(default_factory=dict)
    _failures_in_a_row: int = 0
    _logprobs_seen: bool = False
    _paused_until: float = 0.0
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._identity = canonical(dict(self.teacher.identity))

    async def ask(self, request: Request, *, sample: int = 0) -> Reply:
        """Answer a request from the store, or else by the teacher.

        Raises:
            RowError: If this request can never be answered, or was not in all its attempts.
            TeacherError: If the run cannot go on.
        """
        try:
            body = canonical(request.body)
        except ValueError as error:
            raise RowError(str(error)) from error
        key = exchange_key(self._identity, request.path, body, sample)
        stored = self.store.get(key)
        if stored is not None:
            self.reused += 1
            reply = Reply(stored, key)
            self._logprobs_seen |= reply.has_logprobs
            return reply
        twin = self._under_way.get(key)
        if twin is not None:
            # An equal request is being paid for already: wait for its answer.
            reply = await asyncio.shield(twin)
            self.reused += 1
            return reply
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        try:
            reply = await self._pay(request, body, key)
        except BaseException as error:
            if isinstance(error, Exception):
                future.set_exception(error)
                future.exception()  # Marks it as seen where nobody waits for the twin.
            else:
                future.cancel()
            raise
        finally:
            del self._under_way[key]
        future.set_result(reply)
        return reply

    async def _pay(self, request: Request, body: bytes, key: bytes) -> Reply:
        if not self._started:
            async with self._starting:
                if not self._started:
                    await self.teacher.start()
                    self._started = True
        failures = 0
        while True:
            pause = self._paused_until - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            try:
                answer = await self.teacher.send(request.path, body)
                reply = Reply(_parse(answer), key)
                break
            except RetryableError as error:
                failures += 1
                await self._after_failure(failures, error)
        if "logprobs" in request.body:
            self._require_logprobs(reply)
        # Nothing is awaited between the answer's arrival and its being stored: a kill loses nothing.
        self.store.put(
            key, identity=self._identity, path=request.path, request=body, response=answer
        )
        self._failures_in_a_row = 0
        self.asked += 1
        prompt_tokens, completion_tokens = reply.tokens
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        return reply

    def _require_logprobs(self, reply: Reply) -> None:
        """Refuse an answer without the probabilities asked for; stored, it would be stale for good."""
        if reply.has_logprobs:
            self._logprobs_seen = True
            return
        problem = f"the answer carries no log-probabilities (finish reason: {reply.finish_reason})"
        if self._logprobs_seen or reply.finish_reason == "content_filter":
            raise RowError(problem, kind="no_logprobs")
        raise TeacherError(
            f"{self.teacher.name} was asked for token probabilities, but {problem}: use mode `cot`, "
            "or a server that returns logprobs"
        )

    async def _after_failure(self, failures: int, error: RetryableError) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.limits.give_up_after:
            raise TeacherError(
                f"{self._failures_in_a_row} requests in a row failed, the last with: {error}. The "
                f"{self.asked} answers received are stored: see to the teacher and run the same "
                "command again"
            ) from error
        if failures >= self.limits.attempts:
            raise RowError(f"{error} ({failures} attempts)", kind="server") from error
        self.retries += 1
        if error.retry_after is not None:
            # The server's wish holds for all its requests, not for this one alone.
            self._paused_until = max(self._paused_until, time.monotonic() + error.retry_after)
            return
        await asyncio.sleep(self.limits.delay(failures, self._random))

    def progress(
        self, phase: str, done: int, total: int, failed: int, notes: Sequence[str] = ()
    ) -> Progress:
        """A snapshot to be shown."""
        prices = self.teacher.prices
        cost = prices.cost(self.prompt_tokens, self.completion_tokens) if prices else None
        return Progress(
            phase, done, total, self.asked, self.reused, self.retries, failed,
            self.prompt_tokens, self.completion_tokens, cost, tuple(notes),
        )  # fmt: skip

    async def close(self) -> None:
        """Let go of the teacher, if it was needed at all."""
        if self._started:
            await self.teacher.close()
            self._started = False


def _parse(answer: bytes) -> dict[str, Any]:
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


async def each(
    items: Sequence[T], work: Callable[[T], Awaitable[None]], *, concurrency: int
) -> None:
    """Run ``work`` over ``items`` with that many under way; the first exception ends it all."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(max(1, min(concurrency, len(items))))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also from within a notebook's running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    loop = asyncio.new_event_loop()

    def work() -> T:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(coroutine)

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result()
    except KeyboardInterrupt:
        # It is the thread that waits which is interrupted; the one that works must be told.
        with suppress(RuntimeError):  # its loop may just have ended
            loop.call_soon_threadsafe(_cancel_all, loop)
        raise
    finally:
        pool.shutdown()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
