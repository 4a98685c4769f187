"""Ceilings, windows, pauses and rests, by a clock that the tests set."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_teacher import ScriptedTeacher, run

from labelers import Limits, RetryableError, TeacherError
from labelers.lanes import Lane, Lanes, Pass
from labelers.limits import Ceiling


class Clock:
    """Time that passes only when nothing else is left to do: for the lanes and for the event loop."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that skips the time until the next timer instead of waiting for it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def time(self) -> float:
        return self.clock.now

    def _run_once(self) -> None:
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self.clock.now = max(self.clock.now, min(timers))
        super()._run_once()  # type: ignore[misc]


def simulate(work: Callable[[Clock], Awaitable[Any]]) -> Any:
    clock = Clock()
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        return runner.run(work(clock))  # type: ignore[arg-type]


def teacher(concurrency: int = 64) -> ScriptedTeacher:
    return ScriptedTeacher(lambda _: {}, concurrency=concurrency)


# --- ceilings


def busiest(admitted: list[tuple[float, float]], seconds: float = 60.0) -> float:
    """The most that was admitted within any stretch of that length, its end not included."""
    return max(
        (sum(a for moment, a in admitted if begin <= moment < begin + seconds - 1e-6))
        for begin, _ in admitted
    )


@given(
    most=st.integers(10, 500),
    wants=st.lists(st.tuples(st.floats(0, 90), st.integers(1, 10)), min_size=1, max_size=60),
)
def test_no_minute_holds_more_than_the_ceiling(most: int, wants: list[tuple[float, int]]) -> None:
    ceiling, now, admitted = Ceiling(most), 0.0, []
    for pause, amount in wants:
        now += pause
        while (wait := ceiling.wait(amount, now)) > 0:
            now += wait
        ceiling.admit(amount, now)
        admitted.append((now, float(amount)))
    assert busiest(admitted) <= most


def test_a_ceiling_makes_nobody_wait_longer_than_needed() -> None:
    ceiling = Ceiling(3)
    for moment in (0.0, 1.0, 2.0):
        assert ceiling.wait(1, moment) == 0.0
        ceiling.admit(1, moment)
    assert ceiling.wait(1, 2.0) == 58.0
    assert ceiling.wait(2, 2.0) == 59.0
    assert ceiling.wait(1, 60.0) == 0.0
    # More than fits at all is let through alone: it could never be asked otherwise.
    assert ceiling.wait(9, 2.0) == 60.0
    assert ceiling.wait(9, 62.0) == 0.0


def test_a_corrected_entry_makes_room_and_a_past_one_does_not() -> None:
    ceiling = Ceiling(100)
    first = ceiling.admit(90, 0.0)
    second = ceiling.admit(10, 30.0)
    assert ceiling.wait(50, 31.0) > 0
    ceiling.correct(first, 20)
    assert ceiling.wait(50, 31.0) == 0.0
    assert ceiling.wait(100, 60.0) > 0  # the first has left the minute
    ceiling.correct(first, 0)  # its answer was slow: it must not be taken off twice
    assert ceiling.wait(91, 60.0) > 0
    ceiling.correct(second, 5)
    assert ceiling.wait(95, 60.0) == 0.0


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ({"requests_per_minute": 30}, "requests"),
        ({"tokens_per_minute": 3000}, "tokens"),
        ({"requests_per_minute": 50, "tokens_per_minute": 3000}, "both"),
    ],
)
def test_a_run_keeps_below_its_ceilings_and_close_to_them(
    limits: dict[str, int], what: str
) -> None:
    sent: list[tuple[float, float]] = []

    async def run(clock: Clock) -> None:
        lanes = Lanes([teacher()], Limits(**limits), clock=clock)
        dice = random.Random(4)

        async def one() -> None:
            most = dice.randint(50, 200)
            entry = await lanes.enter(b"row", most)
            took = dice.randint(20, most)
            sent.append((clock.now, took))
            await asyncio.sleep(dice.uniform(0.1, 5.0))
            entry.correct(took)
            entry.lane.succeeded()
            lanes.leave(entry)

        await asyncio.gather(*(one() for _ in range(300)))

    simulate(run)
    assert len(sent) == 300
    minutes = (sent[-1][0] - sent[0][0]) / 60
    requests = busiest([(moment, 1.0) for moment, _ in sent])
    tokens = busiest(sent)
    assert requests <= limits.get("requests_per_minute", 300)
    assert tokens <= limits.get("tokens_per_minute", 10**9)
    # And what is allowed is used: no run takes twice as long as its ceilings make it.
    needed = max(
        300 / limits.get("requests_per_minute", 10**9),
        sum(took for _, took in sent) / limits.get("tokens_per_minute", 10**9),
    )
    assert needed - 1.01 <= minutes <= needed * 1.6, what


# --- the window


class Simulation:
    """Many rows through one lane to a server that refuses more than ``most`` at once."""

    def __init__(self, most: int, concurrency: int, requests: int) -> None:
        self.refused = 0
        self.under_way: list[int] = []
        clock = Clock()
        lane = Lane(teacher(concurrency), 0, Limits())
        limits, dice, order = Limits(), random.Random(1), count()
        returning: list[tuple[float, int, Pass, bool]] = []
        left = requests
        while left or returning:
            while left and lane.wait(1, clock.now) == 0.0:
                left -= 1
                good = lane.in_flight < most
                entry = lane.enter(1, clock.now)
                self.under_way.append(lane.in_flight)
                # An answer takes its time, a refusal comes at once.
                moment = clock.now + (dice.uniform(0.8, 1.2) if good else 0.01)
                heappush(returning, (moment, next(order), entry, good))
            if not returning:
                clock.now += max(lane.wait(1, clock.now) or 0.0, 1e-3)
                continue
            clock.now, _, entry, good = heappop(returning)
            if good:
                lane.succeeded()
            else:
                self.refused += 1
                left += 1
                lane.overloaded(entry.sent, clock.now)
                lane.failed(entry.sent, clock.now, limits, dice)
            lane.in_flight -= 1
        self.seconds = clock.now - 1000.0


@pytest.mark.parametrize("most", [5, 12, 40, 100])
def test_a_window_settles_near_what_the_server_takes(most: int) -> None:
    simulation = Simulation(most, concurrency=256, requests=4000)
    settled = simulation.under_way[1000:]
    assert most / 2 - 1 <= sum(settled) / len(settled) <= most + 1
    assert max(settled) <= most + 2
    # Halved once for all refusals of one moment, and then `most / 2` rounds of at least `most / 2`
    # answers each until the next: the refusals after the first overshoot are that rare.
    assert simulation.refused <= 64 + 2 * (4000 / (most / 2) ** 2 + 1)


def test_a_server_without_limit_gets_the_full_concurrency_within_a_few_rounds() -> None:
    simulation = Simulation(10**6, concurrency=256, requests=4000)
    assert simulation.refused == 0
    assert max(simulation.under_way) == 256
    # 32, 64, 128, 256: full after three rounds of about a second.
    assert simulation.under_way.index(256) <= 32 + 64 + 128 + 256
    assert simulation.seconds <= 4000 / 256 * 1.2 + 6


def test_refusals_of_one_moment_halve_the_window_once() -> None:
    lane = Lane(teacher(32), 0, Limits())
    entries = [lane.enter(1, 10.0) for _ in range(32)]
    for entry in entries:
        lane.overloaded(entry.sent, 11.0)
    assert lane.window == 16.0
    lane.overloaded(11.5, 12.0)
    assert lane.window == 8.0
    for _ in range(10):
        lane.overloaded(13.0, 13.0)
    assert lane.window == 1.0


# --- rounds of failures


def test_a_failing_endpoint_rests_ever_longer_and_is_tried_by_one_request() -> None:
    limits = Limits(backoff=1.0, longest_backoff=8.0)
    lane, dice, now = Lane(teacher(), 0, limits), random.Random(2), 100.0
    rests = []
    for _ in range(9):
        lane.failed(now, now, limits, dice)
        rests.append(max(lane.paused_until - now, 0.0))
        now += rests[-1] + 1.0
    assert rests[:2] == [0.0, 0.0]
    for rest, longest in zip(rests[2:], [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert longest / 2 <= rest <= longest
    assert lane.window == 1.0
    lane.succeeded()
    assert lane.failed_rounds == 0
    assert lane.window == 2.0


def test_failures_of_requests_sent_together_are_one_round() -> None:
    limits = Limits()
    lane, dice = Lane(teacher(), 0, limits), random.Random(2)
    for moment in (5.0, 5.1, 5.2):
        lane.failed(4.0, moment, limits, dice)
    assert lane.failed_rounds == 1
    lane.failed(5.05, 6.0, limits, dice)
    assert lane.failed_rounds == 2


# --- who goes next, and where


def test_a_short_pause_is_not_slept_through_because_of_a_long_one() -> None:
    async def run(clock: Clock) -> float:
        lanes = Lanes([teacher(1), teacher(1)], Limits(), clock=clock)
        first, second = lanes.lanes
        busy = await lanes.enter(b"", 1)
        if busy.lane is first:
            first, second = second, first
        first.paused_until = clock.now + 60.0
        waiting = asyncio.ensure_future(lanes.enter(b"", 1))
        await asyncio.sleep(0)  # it waits now, for the end of the long pause
        lanes.failed(busy, overloaded=True, pause=2.0)
        lanes.leave(busy)
        begun = clock.now
        entry = await waiting
        assert entry.lane is second
        return clock.now - begun

    assert simulate(run) == pytest.approx(2.0, abs=0.01)


def test_who_waits_for_much_is_not_overtaken_by_those_who_want_little() -> None:
    async def run(clock: Clock) -> list[str]:
        lanes = Lanes([teacher()], Limits(tokens_per_minute=100), clock=clock)
        order: list[str] = []

        async def one(name: str, tokens: int) -> None:
            entry = await lanes.enter(name.encode(), tokens)
            order.append(name)
            await asyncio.sleep(1.0)
            entry.lane.succeeded()
            lanes.leave(entry)

        tasks = [asyncio.ensure_future(one("first", 60))]
        await asyncio.sleep(1.0)
        tasks.append(asyncio.ensure_future(one("large", 90)))
        for number in range(20):
            await asyncio.sleep(1.0)
            tasks.append(asyncio.ensure_future(one(f"small {number}", 10)))
        await asyncio.gather(*tasks)
        return order

    assert simulate(run)[:4] == ["first", "large", "small 0", "small 1"]


def test_one_who_gives_up_waiting_leaves_the_place_to_the_next() -> None:
    async def run(clock: Clock) -> str:
        lanes = Lanes([teacher(1)], Limits(), clock=clock)
        entry = await lanes.enter(b"", 1)
        waiting = [asyncio.ensure_future(lanes.enter(b"%d" % i, 1)) for i in range(3)]
        await asyncio.sleep(0)
        lanes.leave(entry)  # wakes the first, which is cancelled before it can look
        waiting[0].cancel()
        entry = await asyncio.wait_for(waiting[1], 5)
        assert not waiting[2].done()
        lanes.leave(entry)
        await asyncio.wait_for(waiting[2], 5)
        return "all served"

    assert simulate(run) == "all served"


def test_whatever_is_cancelled_no_place_is_lost() -> None:
    async def run(clock: Clock) -> int:
        lanes = Lanes([teacher(3), teacher(2)], Limits(), clock=clock)
        dice = random.Random(6)
        served = 0

        async def one(number: int) -> None:
            nonlocal served
            entry = await lanes.enter(b"%d" % number, 1)
            try:
                await asyncio.sleep(dice.random())
                if dice.random() < 0.2:
                    lanes.failed(entry, overloaded=dice.random() < 0.5, pause=None)
                else:
                    entry.lane.succeeded()
                    served += 1
            finally:
                lanes.leave(entry)

        tasks = [asyncio.ensure_future(one(number)) for number in range(400)]
        for _ in range(100):
            await asyncio.sleep(dice.random() / 5)
            dice.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [lane.in_flight for lane in lanes.lanes] == [0, 0]
        assert not lanes._waiting
        return served

    assert simulate(run) > 150


@pytest.mark.parametrize("endpoints", [2, 3, 5, 8])
def test_rows_are_spread_evenly_over_endpoints(endpoints: int) -> None:
    lanes = Lanes([teacher() for _ in range(endpoints)], Limits(), clock=Clock())
    rows = [f"Buyer {i} says it is great.".encode() for i in range(4000)]
    shares = Counter(lanes._order(row, None)[0].number for row in rows)
    assert len(shares) == endpoints
    assert max(shares.values()) <= 1.15 * len(rows) / endpoints
    assert min(shares.values()) >= 0.85 * len(rows) / endpoints
    # An endpoint that leaves moves only its own rows.
    fewer = Lanes([teacher() for _ in range(endpoints)], Limits(), clock=Clock())
    gone = fewer.lanes.pop()
    for row in rows[:500]:
        before = lanes._order(row, None)[0].number
        if before != gone.number:
            assert fewer._order(row, None)[0].number == before


@settings(max_examples=50)
@given(st.integers(1, 40), st.floats(0.01, 5), st.floats(0.01, 60))
def test_back_off_doubles_within_full_jitter_up_to_its_longest(
    failures: int, backoff: float, longest: float
) -> None:
    limits = Limits(backoff=backoff, longest_backoff=longest)
    dice = random.Random(failures)
    delays = [limits.delay(failures, dice) for _ in range(20)]
    most = min(longest, backoff * 2.0 ** (failures - 1))
    assert 0 <= min(delays) <= max(delays) <= most
    assert max(delays) - min(delays) > most / 4, "no jitter"


@pytest.mark.parametrize(
    "given",
    [
        {"attempts": 0},
        {"give_up_after": -1},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 0},
        {"backoff": -1.0},
        {"longest_backoff": float("nan")},
        {"longest_pause": -5.0},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_limit_that_cannot_be_meant_is_refused(given: dict[str, Any]) -> None:
    name = next(iter(given))
    with pytest.raises(TeacherError, match=rf"limits\.{name} is .*must be"):
        Limits(**given)


def test_the_last_rows_of_a_failing_teacher_do_not_rest_one_after_the_other(tmp_path: Path) -> None:
    """All rows are begun, so that no stop saves any: they fail together once it is hopeless."""
    rows, limits = 50, Limits(attempts=100, backoff=0.001, give_up_after=5)
    down = ScriptedTeacher(lambda _: RetryableError("HTTP 500: down"), concurrency=64)
    data = pd.DataFrame({"text": [f"Buyer {i} says it is great." for i in range(rows)]})
    result = run(down.script, tmp_path, data, teacher=down, mode="cot", limits=limits)
    assert [error[:23] for error in result["error"]] == ["server: HTTP 500: down "] * rows
    assert "given up after 5 rounds of failed requests" in result["error"][0]
    # Two rounds of the window, what was under way at the third, and a few alone.
    assert len(down.seen) <= 3 * 32 + 2 * limits.give_up_after
