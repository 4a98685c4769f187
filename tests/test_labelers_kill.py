"""kill -9 at random moments of a labeling run: what was received is kept, the rest is asked."""

from __future__ import annotations

import random
import re
import signal
from collections import Counter
from pathlib import Path

import fault_server
import pytest
import teacher_server
from labeling_children import children, result, told

from labelers import Store

pytestmark = pytest.mark.integration

ROWS, IN_FLIGHT, KILLS, LATENCY = 500, 16, 20, 0.02


def stored(folder: Path) -> int:
    with Store(folder / "store") as store:
        assert store.damaged == 0
        return len(store)


def right(first: int, rows: int) -> list[str]:
    return ["positive" if i % 3 else "negative" for i in range(first, first + rows)]


def test_no_received_answer_is_lost_and_repeats_are_at_most_those_in_flight(tmp_path: Path) -> None:
    dice = random.Random(7)
    wanted = 2 * ROWS  # a label and a rationale each
    moments = sorted(dice.sample(range(1, wanted), KILLS))
    kept, repeats = 0, 0
    report = []
    how = {"rows": ROWS, "concurrency": IN_FLIGHT, "mode": "score"}
    with teacher_server.running(latency=LATENCY) as server, children() as runs:
        for moment in moments:
            asked_before = len(server.control()["received"])
            run = runs.start(tmp_path, server.base_url, held=True, **how)
            # The server strikes: so many requests in, and up to one latency later, so before that
            # request is answered. The run is held until the server knows: it cannot end first.
            at = max(moment + repeats, asked_before + 1)
            server.control(kills=[(run, at, dice.uniform(0, LATENCY))])
            runs.go(run)
            assert runs.wait(run) == -signal.SIGKILL

            story = server.control()
            now = stored(tmp_path)
            assert now - kept >= told(tmp_path), "an answer that the run had told of is lost"
            # Answers sent in full but not stored were on their way when the client died.
            assert len(set(story["answered"])) - now <= IN_FLIGHT
            again = len(story["received"]) - len(set(story["received"]))
            assert again - repeats <= IN_FLIGHT, "more was paid twice than was in flight"
            report.append((len(story["received"]) - asked_before, told(tmp_path), again - repeats))
            kept, repeats = now, again

        assert runs.wait(runs.start(tmp_path, server.base_url, **how)) == 0
        assert result(tmp_path) == {"labels": right(0, ROWS), "errors": [None] * ROWS}
        story = server.control()
        again = len(story["received"]) - len(set(story["received"]))
        assert again - repeats <= IN_FLIGHT
        assert len(set(story["received"])) == wanted == stored(tmp_path)

        assert runs.wait(runs.start(tmp_path, server.base_url, **how)) == 0
        assert len(server.control()["received"]) == len(story["received"]), "a second run asked"
    print(f"\nkill -9: {KILLS} kills, {ROWS} rows, {wanted} answers wanted, {IN_FLIGHT} in flight")
    for number, (asked, told_of, twice) in enumerate(report, 1):
        print(f"  run {number}: {asked} requests, {told_of} answers told of, {twice} repeated")
    print(f"  in all: {len(story['received'])} requests at the server, {again} repeated, 0 lost")


def lines(folder: Path) -> Counter[bytes]:
    """How often each exchange stands in the store's files."""
    with Store(folder / "store") as store:
        return Counter(line[:40] for _, line in store.lines())


def test_two_processes_on_one_store_pay_for_each_row_once(tmp_path: Path) -> None:
    rows = 400
    with fault_server.running(latency=0.005) as server, children() as runs:
        how = {"rows": rows, "concurrency": IN_FLIGHT}
        pair = [runs.start(tmp_path, server.base_url, name=name, **how) for name in "ab"]
        assert [runs.wait(run) for run in pair] == [0, 0]
        for name in "ab":
            assert result(tmp_path, name) == {"labels": right(0, rows), "errors": [None] * rows}
        received = server.control().received
        assert len(received) == len(set(received)) == rows, "a row was paid for by both"
        assert set(lines(tmp_path).values()) == {1}
        assert stored(tmp_path) == rows


def to_ask(folder: Path, first: int, rows: int) -> int:
    """Of how many of a run's rows no answer is stored."""
    with Store(folder / "store") as store:
        told_of = {int(n) for _, line in store.lines() for n in re.findall(rb"Buyer (\d+)", line)}
    return len(set(range(first, first + rows)) - told_of)


def test_two_processes_that_are_killed_lose_nothing_and_repeat_what_was_in_flight(
    tmp_path: Path,
) -> None:
    """Two at once over rows that overlap by half, each killed ten times at random."""
    dice, rows, kills = random.Random(5), 300, 10
    firsts = {"a": 0, "b": rows // 2}
    wanted = rows + rows // 2
    kept = killed = 0
    with fault_server.running(latency=0.01) as server, children() as runs:
        for kill in range(kills + 1):
            before = len(server.control().log)
            pair = {
                name: runs.start(
                    tmp_path, server.base_url, name=name, rows=rows, first=first,
                    concurrency=IN_FLIGHT, held=True,
                )
                for name, first in firsts.items()
            }  # fmt: skip
            # Each within the number of its own rows that are left: before as many requests have come
            # in, whoever of both sends them, and the last is answered, it cannot have ended. One that
            # the other has left nothing to ask ends by itself.
            left = {
                name: to_ask(tmp_path, first, rows) if kill < kills else 0
                for name, first in firsts.items()
            }
            server.control(
                kills=[
                    [
                        run,
                        before + dice.randint(1, max(1, left[name] // (kills + 1 - kill))),
                        dice.uniform(0, 0.01),
                    ]
                    for name, run in pair.items()
                    if left[name]
                ]
            )
            runs.go(*pair.values())
            ends = [runs.wait(run) for run in pair.values()]
            assert ends == [-signal.SIGKILL if left[name] else 0 for name in pair]
            killed += ends.count(-signal.SIGKILL)
            now = stored(tmp_path)
            assert now - kept >= sum(told(tmp_path, name) for name in pair)
            story = server.control()
            assert len(set(story.answered)) - now <= 2 * IN_FLIGHT
            repeated = len(story.received) - len(set(story.received))
            assert repeated <= 2 * IN_FLIGHT * min(kill + 1, kills), "more than was in flight"
            kept = now
        for name, first in firsts.items():
            assert result(tmp_path, name) == {"labels": right(first, rows), "errors": [None] * rows}
        assert kept == wanted == len(set(story.received))
    assert set(lines(tmp_path).values()) == {1}, "an answer was stored twice"
    # In one leg a share of the rows that are left is answered, and at most the 32 in flight: however
    # unevenly the two get on, there is something to kill for more than half of the legs.
    assert killed >= kills
    print(f"\n{killed} kills, {wanted} rows: {len(story.received)} requests, {repeated} repeated")
