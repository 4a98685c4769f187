"""kill -9 of a batch labeling run at whatever it does: every request is executed exactly once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import batch_server
import pytest

from labelers.store import Store

pytestmark = pytest.mark.integration

REPO = Path(__file__).parents[1]
ROWS = 300
#: What the provider sees of a run, in order; `uploaded` and `created` are before its answer is sent.
EVENTS = ("upload", "uploaded", "create", "created", "poll", "download", "half")

RUN = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import pandas as pd
from labelers import OpenAICompatible, Task, label
from labelers.batches import OpenAIBatch

base_url, folder, first, rows = sys.argv[2:]
texts = [f"Buyer {i} says it is {'great' if i % 3 else 'dull'}." for i in range(int(first), int(rows))]
told = set()

def note(news):
    if news["status"] == "waiting" and "waiting" not in told:
        print("waiting", flush=True)
    told.add(news["status"])

sys.stdin.readline()
result = label(
    pd.DataFrame({"text": texts}),
    Task(
        instruction="Decide whether a product review is positive or negative.",
        template="Review: {{ text }}",
        labels=("positive", "negative"),
    ),
    OpenAIBatch(
        teacher=OpenAICompatible(model="teacher-1", base_url=base_url),
        journal=folder + "/batches",
        most_requests=100,
        gather_for=0.05,
        poll_every=0.02,
        on_batch=note,
        sleep=lambda seconds: asyncio.sleep(min(seconds, 0.05)),
    ),
    store=folder + "/store",
)
print(result["label"][:].count("positive"), result["error"][:].count(None), "waiting" in told)
"""


def start(
    server: batch_server.Server,
    folder: Path,
    first: int = 0,
    rows: int = ROWS,
    *,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[str]:
    """A run; with a pipe for ``stdin`` it begins when it is told to go."""
    arguments = [REPO, server.base_url, folder, first, rows]
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True)


def until_it_waits(run: subprocess.Popen[str]) -> None:
    """Return when the run has said that it waits for another: its request for the models is no sign."""
    assert run.stdout is not None
    assert run.stdout.readline() == "waiting\n"


def result(run: subprocess.Popen[str]) -> list[str]:
    """Rows labelled positive, rows without an error, and whether the run waited for another."""
    said = run.communicate(timeout=300)[0].split()
    assert run.returncode == 0
    return said


def assert_paid_once(server: batch_server.Server, folder: Path, wanted: int) -> None:
    story = server.control()
    assert server.paid_twice() == 0
    assert len(story["executed"]) == wanted
    assert story["direct"] == []
    with Store(folder / "store") as store:
        assert len(store) == wanted
        assert store.damaged == 0


def moments(dice: random.Random) -> list[tuple[str, float]]:
    """Each event once, as it happens; then some of them again and up to 100 ms later."""
    exact = [(event, 0.0) for event in EVENTS]
    dice.shuffle(exact)
    return exact + [(dice.choice(EVENTS), dice.uniform(0.0, 0.1)) for _ in range(13)]


def test_nothing_is_lost_and_nothing_paid_twice_whenever_it_is_killed(tmp_path: Path) -> None:
    dice = random.Random(7)
    report = []
    with batch_server.running() as server:
        dataset, left = 0, moments(dice)
        while left:
            # A dataset of its own for as many kills as it takes to label it.
            folder, first = tmp_path / f"{dataset}", dataset * ROWS
            server.control(forget=True)
            while left:
                event, after = left[0]
                run = start(server, folder, first, first + ROWS, stdin=subprocess.PIPE)
                server.control(kills=[[run.pid, event, 1, after]])
                assert run.stdin is not None
                run.stdin.write("go\n")
                run.stdin.flush()
                if run.wait(timeout=300) == 0:  # It had come to its end before the event.
                    run.communicate()
                    break
                assert run.returncode == -signal.SIGKILL
                run.communicate()
                left.pop(0)
                assert server.paid_twice() == 0
                report.append((event, after, len(server.control()["batches"])))
            server.control(kills=[])
            said = result(start(server, folder, first, first + ROWS))
            assert said == ["200", "300", "False"]
            assert_paid_once(server, folder, 2 * ROWS)  # a label and a rationale each
            dataset += 1
    assert len(report) == 20
    print(f"\nkill -9 of a batch run of {ROWS} rows, {2 * ROWS} requests: 0 lost, 0 paid twice")
    for event, after, batches in report:
        print(f"  killed {after * 1000:3.0f} ms after {event!r}, {batches} batches made")


def test_a_second_process_waits_its_turn_and_pays_nothing(tmp_path: Path) -> None:
    with batch_server.running() as server:
        # The first is held up while it looks after its batch, until the second has begun to wait.
        server.control(hold=True)
        first = start(server, tmp_path)
        server.wait_for("poll")
        second = start(server, tmp_path)
        until_it_waits(second)
        server.control(hold=False)
        assert result(first) == ["200", "300", "False"]
        assert result(second) == ["200", "300", "True"]
        assert_paid_once(server, tmp_path, 2 * ROWS)


def test_a_process_that_waits_takes_over_when_the_other_is_killed(tmp_path: Path) -> None:
    with batch_server.running() as server:
        server.control(hold=True)
        first = start(server, tmp_path)
        server.wait_for("poll")
        second = start(server, tmp_path)
        until_it_waits(second)
        first.kill()
        first.communicate()
        server.control(hold=False)
        assert result(second)[:2] == ["200", "300"]
        assert_paid_once(server, tmp_path, 2 * ROWS)
