"""A server with a fault in every third answer: what becomes of the rows, and what it is asked meanwhile."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fault_server
import numpy as np
import pandas as pd
import pytest
from fault_server import IGNORES, PASSING
from scripted_teacher import SENTIMENT

from labelers import Limits, OpenAICompatible, Store, TeacherError, label

pytestmark = pytest.mark.integration

WORDS = ("dull", "great", "great")
#: Short, so that faults cost the tests little time.
QUICK = Limits(backoff=0.02, longest_backoff=0.2)


def buyers(count: int) -> pd.DataFrame:
    texts = [f"Buyer {i:04d} says it is {WORDS[i % 3]}." for i in range(count)]
    return pd.DataFrame({"id": [f"r{i}" for i in range(count)], "text": texts})


def ask(
    server: fault_server.FaultServer, store: Path, data: pd.DataFrame, **how: Any
) -> pd.DataFrame:
    teacher = how.pop("teacher", None) or OpenAICompatible(
        model=fault_server.MODEL,
        base_url=server.base_url,
        concurrency=how.pop("concurrency", 64),
        read_timeout=how.pop("read_timeout", 10.0),
        dialect=how.pop("dialect", None),
        **how.pop("teacher_how", {}),
    )
    how = {"mode": "cot", "limits": QUICK, **how}
    rows = label(data, SENTIMENT, teacher, store=store, **how)
    return rows.to_pandas().replace({np.nan: None})


def in_store(folder: Path) -> int:
    with Store(folder) as store:
        assert store.damaged == 0
        return len(store)


def test_of_2000_rows_at_30_percent_faults_none_is_lost_or_asked_without_end(
    tmp_path: Path,
) -> None:
    data = buyers(2000)
    # Stalls of 30 s, cut short by the time-out, are what takes the time here: an eighth as many of
    # them. A time-out that a machine's own pause could set off would have an answer paid for twice.
    faults = [*PASSING, IGNORES] * 8
    for _ in range(7):
        faults.remove("stall")
    with fault_server.running(seed=11, fault_rate=0.3, faults=faults, pause=0.05) as server:
        rows = ask(server, tmp_path, data, read_timeout=3.0)
        story = server.control()

    assert rows["id"].tolist() == data["id"].tolist()
    assert rows["text"].tolist() == data["text"].tolist()
    right = ["positive" if i % 3 else "negative" for i in range(len(data))]
    classes: Counter[str] = Counter()
    for found, error, wanted in zip(rows["label"], rows["error"], right, strict=True):
        if error is None:
            assert found == wanted
        else:
            assert found is None
            classes[error.split(":")[0]] += 1
    # An answer that heeds no label set is an answer: stored, and an error of its row.
    assert set(classes) <= {"unread", "server"}
    assert classes["unread"] == story.fates[IGNORES] > 20
    # Six attempts all fail for one row in about 1,700.
    assert classes["server"] <= 6
    # One exchange for each row that was answered, by what the server itself says it sent in full.
    assert in_store(tmp_path) == len(data) - classes["server"] == len(set(story.answered))
    assert len(story.answered) == len(set(story.answered)), "an answered row was asked again"
    assert set(PASSING) <= set(story.fates)

    # No storm. 28 % of requests fail in a way that is asked again: 1 / (1 - 0.28) = 1.39 a row.
    # The pauses of an endpoint refuse what was under way when they began: at most the window.
    refused = story.fates["429 pause"]
    assert len(story.log) - refused <= 1.45 * len(data)
    assert len(story.log) <= 1.6 * len(data)
    assert max(Counter(story.received).values()) <= QUICK.attempts + len(story.pauses)
    print(
        f"\n{len(story.log)} requests for {len(data)} rows; {dict(story.fates)}; errors {classes}"
    )


def test_what_failed_in_all_attempts_is_all_that_a_second_run_asks(tmp_path: Path) -> None:
    data = buyers(60)
    with fault_server.running(always={"Buyer 0007": "500", "Buyer 0008": "cut"}) as server:
        rows = ask(server, tmp_path, data)
        failed = rows[rows["label"].isna()]
        assert failed.index.tolist() == [7, 8]
        assert failed["error"][7].startswith("server: HTTP 500: planned")
        assert failed["error"][8].startswith("server: the connection failed")
        assert server.control().asked_about("Buyer 0007") == QUICK.attempts
        server.control(forget=True)
        rows = ask(server, tmp_path, data)
        assert server.control().fates == {"answered": 2}
    assert rows["error"].tolist() == [None] * 60


def test_a_pause_is_left_alone_by_all_requests_and_is_no_attempt(tmp_path: Path) -> None:
    only_one = Limits(attempts=1)
    told: list[float] = []
    with fault_server.running(latency=0.005, pause_at=100, pause=1.0) as server:
        rows = ask(
            server, tmp_path, buyers(300), limits=only_one,
            on_progress=lambda progress: told.append(progress.paused),
        )  # fmt: skip
        story = server.control()
    # With one attempt a row, any refusal that counted as one would have failed its row.
    assert rows["error"].tolist() == [None] * 300
    # What was under way when the pause began is what met it: a request that comes in before its end
    # is refused, so whoever asked again too early would be refused twice.
    met = [digest for _, digest, _, fate, _ in story.log if fate == "429 pause"]
    assert len(met) == len(set(met)) <= 64
    _, end = story.pauses[0]
    assert sum(moment >= end for moment, *_ in story.log) > 150
    assert 0.9 < max(told) <= 1.0, "the user was not told of the pause"


@pytest.mark.parametrize("fate", ["500", "503", "cut", "HTML 502", "HTML 200"])
def test_a_server_that_goes_down_stops_the_run_in_few_requests_and_a_rerun_completes(
    tmp_path: Path, fate: str
) -> None:
    data, window = buyers(400), 32
    limits = Limits(backoff=0.005, longest_backoff=0.02)
    with fault_server.running(latency=0.002, after=150, then=fate) as server:
        with pytest.raises(TeacherError, match=r"12 rounds.*run the same command again") as stopped:
            ask(server, tmp_path, data, concurrency=window, limits=limits)
        story = server.control()
        answered = story.fates["answered"]
        assert f"The {answered} answers received are stored" in str(stopped.value)
        assert in_store(tmp_path) == answered == len(story.answered)
        # Two rounds of what fits the window; from the third on the endpoint rests, and is then
        # tried with one request; some rounds begin while the one before still comes back.
        assert story.fates[fate] <= 3 * window + limits.give_up_after
        server.control(forget=True, after=0)
        rows = ask(server, tmp_path, data, concurrency=window)
        assert rows["error"].tolist() == [None] * 400
        assert len(server.control().log) == 400 - answered, "an answered row was paid for again"


def test_a_server_that_is_gone_stops_the_run_and_keeps_what_it_said(tmp_path: Path) -> None:
    limits = Limits(backoff=0.005, longest_backoff=0.02)
    received = []
    with fault_server.running(latency=0.005) as server:

        def die_on_the_way(progress: Any) -> None:
            received.append(progress.asked)
            if progress.asked == 100:
                server.die()

        with pytest.raises(TeacherError, match=r"12 rounds of requests failed"):
            ask(server, tmp_path, buyers(400), on_progress=die_on_the_way, limits=limits)
    assert in_store(tmp_path) == max(received) >= 100


@pytest.mark.parametrize(("fate", "kind"), [("400", "bad_request"), ("context", "context_length")])
def test_a_row_that_is_refused_for_good_is_asked_once(tmp_path: Path, fate: str, kind: str) -> None:
    with fault_server.running(always={"Buyer 0005": fate}) as server:
        rows = ask(server, tmp_path, buyers(30))
        assert rows["error"][5].startswith(f"{kind}: HTTP 400")
        assert [error for error in rows["error"] if error] == [rows["error"][5]]
        assert server.control().asked_about("Buyer 0005") == 1


@pytest.mark.parametrize(
    ("fate", "says"),
    [
        ("401", "asks for a key"),
        ("403", "asks for a key"),
        ("404", "check teacher.base_url, teacher.model"),
        ("402", "the account has no money left"),
        ("quota", "the account has no money left"),
    ],
)
def test_a_refusal_of_every_request_stops_the_run_with_what_is_under_way(
    tmp_path: Path, fate: str, says: str
) -> None:
    with fault_server.running(latency=0.005, after=50, then=fate) as server:
        with pytest.raises(TeacherError, match=says):
            ask(server, tmp_path, buyers(300), concurrency=8)
        story = server.control()
        assert story.fates[fate] <= 8
        # Of what was under way with the first refusal, some answers may be read only after it.
        kept = in_store(tmp_path)
        assert 49 - 7 <= kept <= len(story.answered) <= 49
        server.control(forget=True, after=0)
        assert ask(server, tmp_path, buyers(300))["error"].tolist() == [None] * 300
        assert len(server.control().log) == 300 - kept


def test_a_pause_of_hours_stops_the_run_and_says_how_long_it_is(tmp_path: Path) -> None:
    with fault_server.running(latency=0.005, pause_at=40, pause=7200) as server:
        with pytest.raises(TeacherError, match=r"a pause of 7,(199|200) s.*limits.longest_pause"):
            ask(server, tmp_path, buyers(200), concurrency=8)
        story = server.control()
        assert story.fates["429 pause"] <= 8
        # Of what was under way with the first refusal, some answers may be read only after it.
        assert 39 - 7 <= in_store(tmp_path) <= story.fates["answered"] == 39


def test_a_retry_after_of_no_time_is_an_attempt_like_any_other(tmp_path: Path) -> None:
    with fault_server.running(always={"Buyer 0003": "429 at once"}) as server:
        rows = ask(server, tmp_path, buyers(30))
        assert rows["error"][3].startswith("server: HTTP 429")
        assert server.control().asked_about("Buyer 0003") == QUICK.attempts


def test_a_label_outside_the_constraint_is_an_error_of_its_row(tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "mode": "score", "probabilities": "constrained", "rationales": False, "dialect": "vllm",
        "teacher_how": {"top_logprobs": 0},
    }  # fmt: skip
    with fault_server.running(obeys=True, always={"Buyer 0004": IGNORES}) as server:
        rows = ask(server, tmp_path, buyers(8), **how)
        assert [i for i, error in enumerate(rows["error"]) if error] == [4]
        assert rows["error"][4].startswith("constraint: the answer was constrained to ['positive'")
        assert rows["label"].drop(4).tolist() == [
            "positive" if i % 3 else "negative" for i in range(8) if i != 4
        ]
        # A server that ignores all constraints is found out before the first row is asked.
        server.control(forget=True)
        with pytest.raises(TeacherError, match="does not hold its answers to a list"):
            ask(server, tmp_path / "second", buyers(8), **how)
        assert server.control().asked_about("Buyer") == 0


def test_a_window_settles_near_what_the_server_takes_at_once(tmp_path: Path) -> None:
    data, most = buyers(300), 10
    # So slow a server has ten requests under way as long as the client takes less than 15 ms for one.
    with fault_server.running(latency=0.15, most_at_once=most) as server:
        rows = ask(server, tmp_path, data, concurrency=64)
        story = server.control()
    assert rows["error"].tolist() == [None] * len(data)
    under_way = [entry[4] for entry in story.log[150:-50]]
    assert most / 3 <= np.mean(under_way) <= most + 1
    assert max(under_way) <= most + 3
    # The first window alone is refused by `32 - most`, what its answers let out before the first refusal
    # is read by up to `2 * most`, and its half and quarter as far as they are under way. Then one
    # refusal for each time that the window has grown past the limit by one: it is halved, and needs
    # `most / 2` rounds of about 8 requests to come back.
    assert story.fates["429"] <= 3 * (32 - most) + 0.08 * len(data)
