"""Which endpoint takes the next request, and when: one lane to each endpoint of a teacher."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from zlib import crc32

from labelers.limits import Ceiling, Limits
from labelers.teachers import Checking, Teacher

_FIRST_WINDOW = 32
#: Failed rounds in a row from which on an endpoint rests before it is tried with a single request.
_RESTS_FROM = 3


class Pass:
    """Leave to send one request: the lane it goes along and when it set out."""

    __slots__ = ("lane", "sent", "tokens")

    def __init__(self, lane: Lane, sent: float, tokens: list[float] | None) -> None:
        self.lane = lane
        self.sent = sent
        self.tokens = tokens

    def correct(self, tokens: int) -> None:
        """Count what the request took instead of the most that it could have taken."""
        if self.tokens is not None and self.lane.tokens is not None:
            self.lane.tokens.correct(self.tokens, tokens)


class Lane:
    """One endpoint: its window of requests under way, its ceilings, its pauses."""

    def __init__(self, teacher: Teacher, number: int, limits: Limits) -> None:
        self.teacher = teacher
        self.checking = teacher if isinstance(teacher, Checking) else None
        self.number = number
        self.ceiling = float(max(1, teacher.concurrency))
        self.window = min(self.ceiling, float(getattr(teacher, "first_window", _FIRST_WINDOW)))
        self.in_flight = 0
        self.paused_until = 0.0
        #: Rounds in a row in which requests failed and none succeeded.
        self.failed_rounds = 0
        self._growing_fast = True
        self._shrunk = 0.0
        self._counted = 0.0
        per_minute = limits.requests_per_minute
        self.requests = None if per_minute is None else Ceiling(per_minute)
        per_minute = limits.tokens_per_minute
        self.tokens = None if per_minute is None else Ceiling(per_minute)

    def wait(self, tokens: float, now: float) -> float | None:
        """Seconds until the next request may be sent; None until one that is under way returns."""
        if self.in_flight >= int(self.window):
            return None
        seconds = self.paused_until - now
        if self.requests is not None:
            seconds = max(seconds, self.requests.wait(1, now))
        if self.tokens is not None:
            seconds = max(seconds, self.tokens.wait(tokens, now))
        return max(seconds, 0.0)

    def enter(self, tokens: float, now: float) -> Pass:
        """Take a place; :meth:`wait` must have said 0."""
        self.in_flight += 1
        if self.requests is not None:
            self.requests.admit(1, now)
        return Pass(self, now, None if self.tokens is None else self.tokens.admit(tokens, now))

    def succeeded(self) -> None:
        """Widen the window: doubled by each round at first, then by one."""
        self.failed_rounds = 0
        if self.window < self.ceiling:
            more = 1.0 if self._growing_fast else 1.0 / self.window
            self.window = min(self.ceiling, self.window + more)

    def overloaded(self, sent: float, now: float) -> None:
        """Halve the window, once for all requests that were under way together."""
        self._growing_fast = False
        if sent >= self._shrunk:
            self._shrunk = now
            self.window = max(1.0, self.window / 2)

    def failed(self, sent: float, now: float, limits: Limits, source: random.Random) -> None:
        """Count a failed round, once for all requests that were under way together."""
        if sent < self._counted:
            return
        self._counted = now
        self.failed_rounds += 1
        beyond = self.failed_rounds - _RESTS_FROM + 1
        if beyond > 0:
            longest = min(limits.longest_backoff, limits.backoff * 2.0 ** (beyond - 1))
            self.paused_until = max(self.paused_until, now + source.uniform(longest / 2, longest))
            # What was under way may fail as well; then one request alone finds out.
            self.window = 1.0
            self._growing_fast = True


class Lanes:
    """All endpoints of a teacher. Requests of one row go to one endpoint while it has room.

    Rendezvous hashing (Thaler and Ravishankar, 1998) gives every row an order of endpoints: its
    answers' prefixes stay in one endpoint's cache, and an endpoint that leaves moves only its rows.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.lanes = [Lane(teacher, number, limits) for number, teacher in enumerate(teachers)]
        self._clock = clock
        #: Who waits, in the order of coming; only the first looks for room.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._random = random.Random()

    @property
    def exhausted(self) -> bool:
        """Whether every endpoint has failed so many rounds in a row that the run must stop."""
        return all(lane.failed_rounds >= self.limits.give_up_after for lane in self.lanes)

    async def enter(self, affinity: bytes, tokens: float, avoid: Lane | None = None) -> Pass:
        """Wait for room at an endpoint: the row's own first, ``avoid`` last."""
        # Who comes later does not overtake those who wait, or a retry would starve.
        if not self._waiting and (entry := self._enter(affinity, tokens, avoid)):
            return entry
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            while True:
                if self._waiting[0] is turn:
                    if entry := self._enter(affinity, tokens, avoid):
                        return entry
                    self._schedule(tokens)
                await turn
                place = self._waiting.index(turn)
                turn = self._waiting[place] = asyncio.get_running_loop().create_future()
        finally:
            self._waiting.remove(turn)
            self._wake()

    def _enter(self, affinity: bytes, tokens: float, avoid: Lane | None) -> Pass | None:
        now = self._clock()
        for lane in self._order(affinity, avoid):
            if lane.wait(tokens, now) == 0.0:
                return lane.enter(tokens, now)
        return None

    def _order(self, affinity: bytes, avoid: Lane | None) -> Sequence[Lane]:
        if len(self.lanes) == 1:
            return self.lanes
        return sorted(
            self.lanes,
            key=lambda lane: (
                lane is avoid,
                lane.failed_rounds > 0,
                _mixed(crc32(affinity), lane.number),
            ),
        )

    def leave(self, entry: Pass) -> None:
        """A request has returned: its place is free."""
        entry.lane.in_flight -= 1
        self._wake()

    def failed(self, entry: Pass, *, overloaded: bool, pause: float | None) -> None:
        """Note that a request failed, and how; call it before :meth:`leave`."""
        now = self._clock()
        if overloaded:
            entry.lane.overloaded(entry.sent, now)
        entry.lane.failed(entry.sent, now, self.limits, self._random)
        if pause is not None:
            entry.lane.paused_until = max(entry.lane.paused_until, now + pause)

    def dismiss(self, error: Exception) -> None:
        """Have all who wait fail: there is nothing more to wait for."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(error)
                turn.exception()  # Seen, also where the one who waits is cancelled first.

    def _wake(self) -> None:
        """Have the first in line look for room."""
        if self._waiting and not self._waiting[0].done():
            self._waiting[0].set_result(None)

    def _schedule(self, tokens: float) -> None:
        """Have the first in line look again when a pause or a ceiling's stretch ends."""
        if self._timer is not None:
            self._timer.cancel()  # It may be too late by now: another endpoint's pause is shorter.
            self._timer = None
        now = self._clock()
        waits = [wait for lane in self.lanes if (wait := lane.wait(tokens, now)) is not None]
        if waits:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(min(waits), 1e-3), self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._wake()


def _mixed(row: int, lane: int) -> int:
    """A number that looks random (the finaliser of MurmurHash3).

    CRC alone will not do: it is linear, and of three endpoints the first would get half of the rows.
    """
    mixed = (row ^ (lane + 1) * 0x9E3779B9) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return mixed ^ mixed >> 16
