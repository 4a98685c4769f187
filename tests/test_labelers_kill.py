"""kill -9 at ten random moments of a labeling run: what was received is kept, the rest is asked."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import teacher_server

from labelers import Store

pytestmark = pytest.mark.integration

REPO = Path(__file__).parents[1]
ROWS, IN_FLIGHT, KILLS, LATENCY = 500, 16, 10, 0.02

# Each line of the journal says how many answers the run has told its user of: those are received.
RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import pandas as pd
from labelers import OpenAICompatible, Task, label

base_url, store, journal, rows, in_flight = sys.argv[2:]
words = ["dull", "great", "great"]
texts = [f"Buyer {i} says it is {words[i % 3]}." for i in range(int(rows))]
log = os.open(journal, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
result = label(
    pd.DataFrame({"text": texts}),
    Task(
        instruction="Decide whether a product review is positive or negative.",
        template="Review: {{ text }}",
        labels=("positive", "negative"),
    ),
    OpenAICompatible(model="teacher-1", base_url=base_url, concurrency=int(in_flight)),
    store=store,
    on_progress=lambda p: os.write(log, b"%d\\n" % p.asked),
)
print(result["label"][:].count("positive"), result["error"][:].count(None))
"""


def start(server: teacher_server.Server, folder: Path) -> subprocess.Popen[str]:
    (folder / "journal").unlink(missing_ok=True)
    arguments = [REPO, server.base_url, folder / "store", folder / "journal", ROWS, IN_FLIGHT]
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told(folder: Path) -> int:
    """Answers that the killed run had told of, by the last complete line of its journal."""
    try:
        lines = (folder / "journal").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(lines[-1]) if lines else 0


def stored(folder: Path) -> int:
    with Store(folder / "store") as store:
        assert store.damaged == 0
        return len(store)


def test_no_received_answer_is_lost_and_repeats_are_at_most_those_in_flight(tmp_path: Path) -> None:
    dice = random.Random(7)
    wanted = 2 * ROWS  # a label and a rationale each
    moments = sorted(dice.sample(range(1, wanted), KILLS))
    kept, repeats = 0, 0
    report = []
    with teacher_server.running(latency=LATENCY) as server:
        for moment in moments:
            run = start(server, tmp_path)
            # The server strikes: so many requests in, and up to one latency later.
            asked_before = len(server.control()["received"])
            at = max(moment + repeats, asked_before + 1)
            server.control(kills=[(run.pid, at, dice.uniform(0, LATENCY))])
            assert run.wait() == -signal.SIGKILL
            run.communicate()

            story = server.control()
            now = stored(tmp_path)
            assert now - kept >= told(tmp_path), "an answer that the run had told of is lost"
            # Answers sent in full but not stored were on their way when the client died.
            assert len(set(story["answered"])) - now <= IN_FLIGHT
            again = len(story["received"]) - len(set(story["received"]))
            assert again - repeats <= IN_FLIGHT, "more was paid twice than was in flight"
            report.append((len(story["received"]) - asked_before, told(tmp_path), again - repeats))
            kept, repeats = now, again

        run = start(server, tmp_path)
        assert run.communicate()[0].split() == [str(sum(i % 3 > 0 for i in range(ROWS))), str(ROWS)]
        story = server.control()
        again = len(story["received"]) - len(set(story["received"]))
        assert again - repeats <= IN_FLIGHT
        assert len(set(story["received"])) == wanted == stored(tmp_path)

        run = start(server, tmp_path)
        run.communicate()
        assert run.returncode == 0
        assert len(server.control()["received"]) == len(story["received"]), "a second run asked"
    print(f"\nkill -9: {KILLS} kills, {ROWS} rows, {wanted} answers wanted, {IN_FLIGHT} in flight")
    for number, (asked, told_of, twice) in enumerate(report, 1):
        print(f"  run {number}: {asked} requests, {told_of} answers told of, {twice} repeated")
    print(f"  in all: {len(story['received'])} requests at the server, {again} repeated, 0 lost")
