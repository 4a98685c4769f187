"""Several endpoints of one model: which of them is asked, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_server
import numpy as np
import pandas as pd
import pytest
from fault_server import FaultServer
from scripted_teacher import (
    SENTIMENT,
    Body,
    ScriptedTeacher,
    question,
    sentiment,
    thoughtful,
)

from labelers import (
    Fleet,
    Limits,
    OpenAICompatible,
    Progress,
    RetryableError,
    RowError,
    Store,
    TeacherError,
    label,
)

QUICK = Limits(backoff=0.005, longest_backoff=0.02)


def buyers(count: int) -> pd.DataFrame:
    words = ("dull", "great", "great")
    return pd.DataFrame(
        {"text": [f"Buyer {i:04d} says it is {words[i % 3]}." for i in range(count)]}
    )


def ask(teacher: Any, store: Path, data: pd.DataFrame, **how: Any) -> pd.DataFrame:
    how = {"mode": "cot", "limits": QUICK, **how}
    rows = label(data, SENTIMENT, teacher, store=store, **how).to_pandas()
    return rows.replace({np.nan: None})


def asked(teacher: ScriptedTeacher) -> set[str]:
    """The buyers about whom an endpoint was asked."""
    return {question(body)[8:18] for body in teacher.seen}


@dataclass
class Absent(ScriptedTeacher):
    """An endpoint that does not answer the first ``times`` starts."""

    times: int = 10**6

    async def start(self) -> None:
        await super().start()
        if self.starts <= self.times:
            raise TeacherError(f"no server answers at {self.name}'s address")


# --- what a fleet is


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"revision": "2"}, "identity"),
        ({"model": "another"}, "identity"),
        ({"api": "completions"}, "api"),
        ({"top_logprobs": 5}, "top_logprobs"),
    ],
)
def test_endpoints_of_different_models_are_no_fleet(other: dict[str, Any], what: str) -> None:
    members = [ScriptedTeacher(thoughtful), ScriptedTeacher(thoughtful, **other)]
    with pytest.raises(TeacherError, match=rf"differ in {what}.*must serve the same model"):
        Fleet(members)


def test_a_fleet_without_endpoints_is_refused() -> None:
    with pytest.raises(TeacherError, match="at least one endpoint"):
        Fleet([])


def test_a_fleet_shares_stored_answers_with_each_of_its_endpoints(tmp_path: Path) -> None:
    ask(ScriptedTeacher(thoughtful), tmp_path, buyers(10))
    members = [ScriptedTeacher(thoughtful) for _ in range(2)]
    ask(Fleet(members), tmp_path, buyers(10))
    assert [member.seen for member in members] == [[], []]
    assert [member.starts for member in members] == [0, 0]


# --- which endpoint is asked


def test_all_requests_about_a_row_go_to_one_endpoint_while_it_has_room(tmp_path: Path) -> None:
    members = [ScriptedTeacher(sentiment, concurrency=64) for _ in range(3)]
    rows = ask(Fleet(members), tmp_path, buyers(60), mode="score", calibration=None)
    assert rows["rationale"].notna().all()
    assert sum(len(member.seen) for member in members) == 120  # a label and a rationale each
    told = [asked(member) for member in members]
    assert all(len(names) >= 10 for names in told), "rows are spread over all endpoints"
    assert sum(map(len, told)) == 60, "a row was asked of two endpoints"


def test_samples_of_a_row_go_to_one_endpoint(tmp_path: Path) -> None:
    members = [ScriptedTeacher(thoughtful, concurrency=64) for _ in range(2)]
    ask(Fleet(members), tmp_path, buyers(8), samples=5)
    assert sum(len(member.seen) for member in members) == 40
    assert not asked(members[0]) & asked(members[1])


def test_a_full_endpoint_leaves_its_rows_to_the_others(tmp_path: Path) -> None:
    """One endpoint is ten times as slow: it is not waited for."""

    @dataclass
    class Slow(ScriptedTeacher):
        turns: int = 1

        async def send(self, path: str, body: bytes) -> bytes:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            return await super().send(path, body)

    slow, fast = (
        Slow(thoughtful, concurrency=4, turns=100),
        Slow(thoughtful, concurrency=4, turns=10),
    )
    rows = ask(Fleet([slow, fast]), tmp_path, buyers(200))
    assert rows["error"].tolist() == [None] * 200
    assert len(slow.seen) + len(fast.seen) == 200
    assert len(fast.seen) > 4 * len(slow.seen) > 0


def test_a_retry_goes_to_another_endpoint(tmp_path: Path) -> None:
    def broken(body: Body) -> Any:
        return (
            RetryableError("HTTP 500: planned")
            if "Buyer 0007" in question(body)
            else thoughtful(body)
        )

    members = [ScriptedTeacher(broken, concurrency=32) for _ in range(2)]
    rows = ask(Fleet(members), tmp_path, buyers(20))
    assert rows["error"][7] == "server: HTTP 500: planned (6 attempts)"
    tries = [sum("Buyer 0007" in question(body) for body in member.seen) for member in members]
    assert tries == [3, 3]


# --- one that fails


def test_an_endpoint_that_does_not_start_is_left_out_and_named(tmp_path: Path) -> None:
    absent, present = Absent(thoughtful), ScriptedTeacher(thoughtful)
    told: list[Progress] = []
    rows = ask(Fleet([absent, present]), tmp_path, buyers(20), on_progress=told.append)
    assert rows["error"].tolist() == [None] * 20
    assert absent.seen == []
    assert len(present.seen) == 20
    assert told[-1].notes == ("an endpoint was left out: no server answers at scripted's address",)


def test_an_endpoint_that_was_left_out_is_asked_again_in_the_next_run(tmp_path: Path) -> None:
    late, present = Absent(thoughtful, times=1), ScriptedTeacher(thoughtful)
    fleet = Fleet([late, present])
    ask(fleet, tmp_path / "first", buyers(20))
    assert late.seen == []
    told: list[Progress] = []
    ask(fleet, tmp_path / "second", buyers(20), on_progress=told.append)
    assert len(late.seen) > 0
    assert told[-1].notes == ()


def test_if_no_endpoint_starts_the_run_stops(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no server answers"):
        ask(Fleet([Absent(thoughtful), Absent(thoughtful)]), tmp_path, buyers(5))


def test_an_endpoint_that_breaks_at_the_start_takes_the_others_down_in_good_order(
    tmp_path: Path,
) -> None:
    class Broken(ScriptedTeacher):
        async def start(self) -> None:
            raise ZeroDivisionError("a defect, not an absence")

    good = ScriptedTeacher(thoughtful)
    with pytest.raises(ZeroDivisionError):
        ask(Fleet([good, Broken(thoughtful)]), tmp_path, buyers(5))
    assert (good.starts, good.closes) == (1, 1), "connections were left open"


def test_an_endpoint_that_fails_on_the_way_costs_a_few_requests_and_no_row(tmp_path: Path) -> None:
    left = [40]

    def dying(body: Body) -> Any:
        left[0] -= 1
        return thoughtful(body) if left[0] >= 0 else RetryableError("HTTP 500: gone")

    sick, well = ScriptedTeacher(dying, concurrency=8), ScriptedTeacher(thoughtful, concurrency=8)
    # Each rest is twice as long as the one before, from 2.5 ms on: 14 of them take 40 seconds.
    rows = ask(Fleet([sick, well]), tmp_path, buyers(400), limits=Limits(backoff=0.005))
    assert rows["error"].tolist() == [None] * 400
    assert len(well.seen) == 360
    # Two rounds of its window before it rests, and a single request after each rest.
    assert len(sick.seen) - 40 <= 3 * 8 + 14


def test_the_run_stops_only_when_all_endpoints_fail(tmp_path: Path) -> None:
    members = [
        ScriptedTeacher(lambda _: RetryableError("HTTP 500: gone"), concurrency=4) for _ in range(3)
    ]
    with pytest.raises(TeacherError, match=r"12 rounds of requests failed in a row"):
        ask(Fleet(members), tmp_path, buyers(300), limits=Limits(attempts=100, backoff=0.0005))
    for member in members:
        assert 12 <= len(member.seen) <= 2 * 4 + 40


def test_a_row_refused_by_one_endpoint_is_not_asked_of_the_others(tmp_path: Path) -> None:
    members = [ScriptedTeacher(lambda _: RowError("HTTP 400: no"), concurrency=4) for _ in range(3)]
    rows = ask(Fleet(members), tmp_path, buyers(6))
    assert rows["error"].tolist() == ["bad_request: HTTP 400: no"] * 6
    assert sum(len(member.seen) for member in members) == 6


# --- with real servers


def teacher(server: FaultServer | socket.socket) -> OpenAICompatible:
    """One endpoint; a socket's is an address that is taken and at which nobody listens."""
    if isinstance(server, FaultServer):
        url = server.base_url
    else:
        server.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    return OpenAICompatible(
        model=fault_server.MODEL, base_url=url, concurrency=16, read_timeout=5.0
    )


@pytest.mark.integration
def test_of_three_servers_one_is_absent_one_dies_and_the_third_finishes(tmp_path: Path) -> None:
    rows = 600
    with ExitStack() as stack:
        mortal, survivor = (
            stack.enter_context(fault_server.running(latency=0.01)) for _ in range(2)
        )
        seen_by_mortal: list[str] = []
        notes: list[tuple[str, ...]] = []

        def watch(progress: Progress) -> None:
            notes.append(progress.notes)
            if progress.asked >= 200 and not seen_by_mortal:
                answered = mortal.control().answered
                if len(answered) > 50:  # it may have been the slower one so far
                    seen_by_mortal.extend(answered)
                    mortal.die()

        absent = stack.enter_context(socket.socket())
        fleet = Fleet([teacher(absent), teacher(mortal), teacher(survivor)])
        result = ask(fleet, tmp_path, buyers(rows), on_progress=watch)
        story = survivor.control()
    assert result["error"].tolist() == [None] * rows
    assert result["label"].tolist() == ["positive" if i % 3 else "negative" for i in range(rows)]
    assert len(seen_by_mortal) > 50
    assert len(notes[-1]) == 1
    assert notes[-1][0].startswith(
        "an endpoint was left out: no server answers at http://127.0.0.1"
    )
    # What the dead one had under way is asked once more, of the survivor; at most its 16 of one moment
    # were answered between the look at its story and its death.
    assert len(story.received) == len(set(story.received))
    assert rows - 16 <= len(story.received) + len(seen_by_mortal) <= rows + 16
    with Store(tmp_path) as store:
        assert len(store) == rows


@pytest.mark.integration
def test_an_endpoint_that_asks_for_a_pause_is_left_alone_while_the_others_go_on(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        # At 16 in flight and 50 ms the brisk one answers 320 rows a second at most: however fast the
        # machine, rows are left when the pause ends. And it is long enough for 50 on a slow one.
        tired, brisk = (stack.enter_context(fault_server.running(latency=0.05)) for _ in range(2))
        tired.control(pause_at=60, pause=2.0)
        result = ask(
            Fleet([teacher(tired), teacher(brisk)]), tmp_path, buyers(1500),
            limits=Limits(attempts=1),
        )  # fmt: skip
        its, others = tired.control(), brisk.control()
    assert result["error"].tolist() == [None] * 1500
    # Whatever comes in during the pause is refused: that is what was under way when it began, for
    # with the first refusal the client knows of it.
    assert 1 <= its.fates["429 pause"] <= 16
    begin, end = its.pauses[0]
    assert sum(begin < moment < end for moment, *_ in others.log) > 50
    assert sum(moment >= end for moment, *_ in its.log) > 50, "it was not asked again"


@pytest.mark.integration
def test_a_fleet_of_faulty_servers_loses_no_row_and_keeps_to_its_bound(tmp_path: Path) -> None:
    rows = 600
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                fault_server.running(
                    seed=seed, fault_rate=0.3, faults=["500", "cut", "half JSON", "429", "HTML 502"]
                )
            )
            for seed in range(3)
        ]
        fleet = Fleet([teacher(server) for server in servers])
        result = ask(fleet, tmp_path, buyers(rows))
        stories = [server.control() for server in servers]
    failed = [error for error in result["error"] if error]
    assert all(error.startswith("server:") for error in failed)
    assert len(failed) <= 4
    answered = Counter(digest for story in stories for digest in story.answered)
    assert set(answered.values()) == {1}, "an answered row was asked of another endpoint"
    assert len(answered) == rows - len(failed)
    assert sum(len(story.log) for story in stories) <= 1.6 * rows
    # However slow one is against the others: with 48 under way and room for 16 at each, it is asked.
    assert min(len(story.log) for story in stories) >= 16
