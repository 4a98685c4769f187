"""The one path to a teacher: look in the store, else ask, ask again where that may help, store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from labelers.budget import Budget, Ledger, ledger_path
from labelers.claims import Claims
from labelers.lanes import Lanes, Pass
from labelers.limits import Limits
from labelers.progress import Progress
from labelers.prompts import Request
from labelers.replies import Reply, parse_answer
from labelers.store import Store, StoreError, canonical, exchange_key
from labelers.teachers import (
    Adapting,
    Fleet,
    RetryableError,
    RowError,
    Teacher,
    TeacherError,
)

#: Pauses that one request may meet: a server that only ever asks for pauses is not waited for without end.
_MOST_PAUSES = 60
#: Seconds between two looks at whether another process has its answer, and the longest that is waited.
_LOOK, _LONGEST_LOOKING = 0.05, 900.0
#: Most tokens, prompts and answers together, that a check at the start may take.
START_TOKENS = 2048


@dataclass
class Asker:
    """Asks one teacher through one store, for the length of a run.

    Args:
        teacher: Who is asked; a :class:`labelers.Fleet` has several endpoints.
        store: Where exchanges are kept.
        limits: Attempts, back-off and ceilings.
        budget: The most that may be spent under this run's name, restarts included.
        run: The run's name: in the store's lines, and of the budget's ledger.
        on_pause: Called with the seconds for which an endpoint asks to be left alone.
        on_start: Called once for each endpoint when it has been started, before the first request; what
            it asks is charged to the budget in full, with up to ``START_TOKENS``.
    """

    teacher: Teacher
    store: Store
    limits: Limits
    budget: Budget | None = None
    run: str = ""
    on_pause: Callable[[float], None] | None = None
    on_start: Callable[[Teacher], Awaitable[object]] | None = None
    asked: int = 0
    reused: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: Rows that have not been begun: they are what stopping a hopeless run saves.
    to_come: int = 0
    _identity: bytes = b""
    #: Found out once: to ask a protocol of an object takes as long as to hash a request.
    _adapting: Adapting | None = None
    _started: bool = False
    _ready: bool = False
    _no_start: Exception | None = None
    _to_check: list[Teacher] = field(default_factory=list)
    _claims: Claims | None = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _under_way: dict[bytes, asyncio.Future[Reply]] = field(default_factory=dict)
    _logprobs_seen: bool = False
    _ledger: Ledger | None = None
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._identity = canonical(dict(self.teacher.identity))
        self._adapting = self.teacher if isinstance(self.teacher, Adapting) else None
        if self.budget is not None:
            path = ledger_path(self.store.folder, self.run)
            self._ledger = Ledger(path, self.budget, self.teacher.prices)

    def key(self, request: Request, *, sample: int = 0) -> tuple[bytes, bytes]:
        """The store's key of a request, and its canonical body.

        Raises:
            RowError: If the request cannot be written as JSON.
        """
        body = request.body
        if self._adapting is not None:
            body = self._adapting.adapt(body)
        try:
            written = canonical(body)
        except ValueError as error:
            raise RowError(str(error)) from error
        return exchange_key(self._identity, request.path, written, sample), written

    async def ask(self, request: Request, *, sample: int = 0) -> Reply:
        """Answer a request from the store, or else by the teacher.

        Args:
            request: What is asked.
            sample: Index among deliberate repetitions of one request.

        Raises:
            RowError: If this request can never be answered, or was not in all its attempts, or
                does not fit the budget.
            TeacherError: If the run cannot go on.
        """
        key, body = self.key(request, sample=sample)
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
            reply = await self._ask_as_one(request, body, key, sample)
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

    async def _ask_as_one(self, request: Request, body: bytes, key: bytes, sample: int) -> Reply:
        """Pay, unless another process on this store is paying for the same request or has done so."""
        if not self._ready:
            await self._start()
        claims = self._claims
        assert claims is not None
        waited = 0.0
        while not (claimed := claims.take(key)) and waited < _LONGEST_LOOKING:
            await asyncio.sleep(_LOOK)
            waited += _LOOK
        try:
            if claims.others_may_have_stored():
                self.store.refresh()
            if (stored := self.store.get(key)) is not None:
                self.reused += 1
                return Reply(stored, key)
            return await self._pay(request, body, key, sample)
        finally:
            if claimed:
                claims.release(key)

    async def _start(self) -> None:
        async with self._starting:
            if self._no_start is not None:
                raise self._no_start
            try:
                if not self._started:
                    await self._begin()
                while self._to_check:
                    await self._check(self._to_check[-1])
                    self._to_check.pop()
            except RowError:  # No room in the budget: the next row may ask for less.
                raise
            except Exception as error:
                self._no_start = error
                raise
            self._ready = True

    async def _begin(self) -> None:
        teacher = self.teacher
        await teacher.start()
        self._started = True
        members = teacher.members if isinstance(teacher, Fleet) else (teacher,)
        self._lanes = Lanes(members, self.limits)
        self._to_check = list(members) if self.on_start else []
        try:
            self._claims = Claims(self.store.folder)
        except OSError as error:
            raise StoreError(
                f"the store {self.store.folder} cannot be written: {error.strerror}; name a folder "
                "that can be written to"
            ) from error

    async def _check(self, member: Teacher) -> None:
        assert self.on_start is not None
        ticket = await self._ledger.reserve(b"", START_TOKENS) if self._ledger else None
        try:
            await self.on_start(member)
        finally:
            self._settle(ticket, None)

    async def _pay(self, request: Request, body: bytes, key: bytes, sample: int) -> Reply:
        most = request.most_tokens
        affinity = request.row.encode("utf-8", "replace")
        failures = pauses = 0
        avoid = None
        while True:
            ticket = await self._ledger.reserve(body, most) if self._ledger else None
            try:
                entry = await self._lanes.enter(affinity, len(body) + most, avoid)
            except BaseException:
                self._settle(ticket, (0, 0))
                raise
            try:
                return await self._send(entry, ticket, request, body, key, sample)
            except RetryableError as error:
                self._lanes.failed(entry, overloaded=error.overloaded, pause=error.retry_after)
                # A pause of no time is none: else such a row would be asked on and on.
                if error.retry_after:
                    pauses += 1
                else:
                    failures += 1
                failed = error
            finally:
                self._lanes.leave(entry)
            self._give_up_if_hopeless(failed)
            if failures >= self.limits.attempts or pauses >= _MOST_PAUSES:
                raise RowError(
                    f"{failed} ({failures + pauses} attempts)", kind="server"
                ) from failed
            if self._lanes.exhausted:
                # Nothing is left to be begun: these rows fail now, and not one rest after the other.
                hopeless = RowError(
                    f"{failed} (given up after {self.limits.give_up_after} rounds of failed requests)",
                    kind="server",
                )
                self._lanes.dismiss(hopeless)
                raise hopeless from failed
            self.retries += 1
            avoid = entry.lane
            if not failed.retry_after:
                await asyncio.sleep(self.limits.delay(failures, self._random))
            elif self.on_pause is not None:
                self.on_pause(failed.retry_after)

    async def _send(
        self,
        entry: Pass,
        ticket: str | None,
        request: Request,
        body: bytes,
        key: bytes,
        sample: int,
    ) -> Reply:
        """Send once; store the answer and settle what it cost."""
        teacher = entry.lane.teacher
        # Charged in full unless more is learnt: a request that was sent may have been counted.
        spent: tuple[int, int] | None = None
        refused = True
        try:
            answer = await teacher.send(request.path, body)
            refused = False
            reply = Reply(parse_answer(answer), key)
            if (spent := reply.counted) is not None:
                entry.correct(sum(spent))
            if entry.lane.checking is not None:
                entry.lane.checking.check(reply.body)
            if "logprobs" in request.body:
                self._require_logprobs(reply)
            # Nothing is awaited between the answer's arrival and its being stored: a kill loses
            # nothing.
            self.store.put(
                key, identity=self._identity, path=request.path, request=body, response=answer,
                sample=sample, run=self.run, seconds=time.monotonic() - entry.sent,
            )  # fmt: skip
        except RetryableError as error:
            if not error.charged:
                spent = 0, 0
            raise
        except (RowError, TeacherError):
            if refused:  # Before any work was done; an answer that is found wanting was paid for.
                spent = 0, 0
            raise
        finally:
            self._settle(ticket, spent)
        entry.lane.succeeded()
        self.asked += 1
        prompt_tokens, completion_tokens = reply.tokens
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        return reply

    def _settle(self, ticket: str | None, spent: tuple[int, int] | None) -> None:
        if ticket is None or self._ledger is None:
            return
        if spent is None:
            self._ledger.forfeit(ticket)
        else:
            self._ledger.settle(ticket, *spent)

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

    def _give_up_if_hopeless(self, error: RetryableError) -> None:
        """Stop the run where waiting is no use; the answers received are stored.

        Raises:
            TeacherError: If every endpoint fails, or one asks for too long a pause.
        """
        stored = f"The {self.asked} answers received are stored"
        if self._lanes.exhausted and self.to_come:
            raise TeacherError(
                f"{self.limits.give_up_after} rounds of requests failed in a row and none succeeded, "
                f"the last with: {error}. {stored}: see to the teacher and run the same command again"
            ) from error
        if error.retry_after is not None and error.retry_after > self.limits.longest_pause:
            raise TeacherError(
                f"{self.teacher.name} asks for a pause of {error.retry_after:,.0f} s ({error}), and at "
                f"most {self.limits.longest_pause:,.0f} s are waited. {stored}: run the same command "
                "again later, or raise limits.longest_pause"
            ) from error

    def progress(
        self,
        phase: str,
        done: int,
        total: int,
        failed: int,
        notes: Sequence[str] = (),
        paused: float = 0.0,
    ) -> Progress:
        """A snapshot to be shown."""
        prices = self.teacher.prices
        cost = prices.cost(self.prompt_tokens, self.completion_tokens) if prices else None
        return Progress(
            phase, done, total, self.asked, self.reused, self.retries, failed,
            self.prompt_tokens, self.completion_tokens, cost, tuple(notes), paused,
        )  # fmt: skip

    async def close(self) -> None:
        """Let go of the teacher, if it was needed at all, and of the budget's ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._claims is not None:
            self._claims.close()
            self._claims = None
        self._ready = False
        if self._started:
            await self.teacher.close()
            self._started = False
