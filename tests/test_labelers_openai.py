"""The OpenAI-compatible teacher against a real server in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import teacher_server
from teacher_server import Fault, Server

from labelers import (
    Demonstration,
    Limits,
    OpenAICompatible,
    Prices,
    Progress,
    Store,
    Task,
    TeacherError,
    label,
)

pytestmark = pytest.mark.integration

KEY = "sk-not-to-be-seen-4242"
SENTIMENT = Task(
    instruction="Decide whether a product review is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
    demonstrations=(
        Demonstration(
            input="Review: The strap broke on day two.",
            rationale="A part that breaks at once is a complaint.",
            label="negative",
        ),
    ),
)
REVIEWS = [
    "I love the sharp screen.",
    "The lid does not close.",
    "Works perfectly since May.",
    "It arrived scratched and late.",
]
LABELS = ["positive", "negative", "positive", "negative"]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with teacher_server.running(api_key=KEY) as server:
        yield server


@pytest.fixture
def server(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shared_server.control(forget=True)
    return shared_server


def teacher(server: Server, **changes: Any) -> OpenAICompatible:
    settings = {
        "model": teacher_server.MODEL,
        "base_url": server.base_url,
        "api_key_env": "TEACHER_KEY",
        **changes,
    }
    return OpenAICompatible(**settings)


def run(asked: OpenAICompatible, store: Path, **how: Any) -> pd.DataFrame:
    data = pd.DataFrame({"text": how.pop("texts", REVIEWS)})
    how.setdefault("limits", Limits(attempts=3, backoff=0.0))
    result = label(data, SENTIMENT, asked, store=store, **how)
    return result.to_pandas().replace({np.nan: None})


def assert_no_key(*shown: object, folder: Path) -> None:
    for thing in shown:
        assert KEY not in repr(thing)
        assert KEY not in str(thing)
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_labels_come_with_probabilities_over_both_apis(
    server: Server, tmp_path: Path, api: Any
) -> None:
    asked = teacher(server, api=api, prices=Prices(prompt=10.0, completion=50.0))
    seen: list[Progress] = []
    rows = run(asked, tmp_path, on_progress=seen.append)
    assert rows["label"].tolist() == LABELS
    # The server gives the label 0.7 and 0.1 in two spellings, the other 0.15, and 0.04 elsewhere.
    assert rows["label_probs"][0] == pytest.approx([0.8 / 0.95, 0.15 / 0.95])
    assert rows["off_label_mass"].tolist() == pytest.approx([0.05] * 4)
    assert set(rows["rationale"]) == {"The buyer says so in plain words."}
    # Two requests a row, each of 40 tokens read and 8 written.
    assert rows["cost_usd"].tolist() == pytest.approx([2 * (40 * 10 + 8 * 50) / 1e6] * 4)
    assert seen[-1].cost_usd == pytest.approx(rows["cost_usd"].sum())
    assert len(server.control()["received"]) == 8
    again = run(teacher(server, api=api), tmp_path)
    assert again["label"].tolist() == LABELS
    assert len(server.control()["received"]) == 8
    assert_no_key(asked, seen, rows.to_dict(), folder=tmp_path)


def test_a_chain_of_thought_is_asked_and_read(server: Server, tmp_path: Path) -> None:
    rows = run(teacher(server), tmp_path, mode="cot")
    assert rows["label"].tolist() == LABELS
    assert set(rows["rationale"]) == {"The words of the buyer say so."}
    assert rows["finish_reason"].tolist() == ["stop"] * 4


def test_a_run_asks_as_many_at_once_as_it_may_and_each_row_once(
    server: Server, tmp_path: Path
) -> None:
    texts = [f"Buyer {i} says it is great." for i in range(300)]
    rows = run(teacher(server, concurrency=64), tmp_path, mode="cot", texts=texts)
    assert set(rows["label"]) == {"positive"}
    story = server.control()
    assert len(story["received"]) == len(set(story["received"])) == 300
    assert sorted(story["answered"]) == sorted(story["received"])


# ------------------------------------------------------------------------ what stops a run at once


def refused(asked: OpenAICompatible, store: Path) -> str:
    with pytest.raises(TeacherError) as caught:
        run(asked, store)
    assert_no_key(caught.value, caught.value.__cause__, folder=store)
    return str(caught.value)


def test_a_refused_key_is_named_by_its_variable_and_never_shown(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = KEY + "-but-wrong"
    monkeypatch.setenv("TEACHER_KEY", wrong)
    message = refused(teacher(server), tmp_path)
    assert "refuses the key in TEACHER_KEY (HTTP 401: Incorrect API key: [key])" in message
    assert server.control()["received"] == []


def test_a_missing_key_is_asked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEACHER_KEY")
    message = refused(teacher(server), tmp_path)
    assert "the environment variable TEACHER_KEY holds no key for" in message
    assert "export TEACHER_KEY=" in message
    unnamed = OpenAICompatible(model="any-model")
    assert "OPENAI_API_KEY holds no key for https://api.openai.com" in refused(unnamed, tmp_path)


def test_a_key_that_no_header_can_carry_is_refused_unseen(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", f"{KEY}\nsecond line")
    assert "TEACHER_KEY holds a line break" in refused(teacher(server), tmp_path)


def test_a_key_where_its_variables_name_belongs_is_refused_unseen(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="the name of an environment variable") as caught:
        OpenAICompatible(model="m", api_key_env=KEY)
    assert_no_key(caught.value, folder=tmp_path)


def test_a_password_in_the_url_is_refused_unseen(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="holds a user name or password") as caught:
        OpenAICompatible(model="m", base_url=f"http://me:{KEY}@127.0.0.1:1/v1")
    assert_no_key(caught.value, folder=tmp_path)


def test_a_model_that_the_server_lacks_is_answered_with_those_it_has(
    server: Server, tmp_path: Path
) -> None:
    message = refused(teacher(server, model="teacher-9"), tmp_path)
    assert "serves no model named 'teacher-9'; it serves: teacher-1. Correct" in message


def test_a_server_that_is_not_there_is_said_to_be_so(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:  # so that nobody comes to listen there meanwhile
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        message = refused(teacher(server, base_url=f"http://127.0.0.1:{port}/v1"), tmp_path)
    assert f"no server answers at http://127.0.0.1:{port}/v1" in message
    message = refused(teacher(server, base_url="http://no-such-host.invalid/v1"), tmp_path)
    assert "no server answers at http://no-such-host.invalid/v1" in message
    message = refused(teacher(server, base_url="http://[half-an-address/v1"), tmp_path)
    assert "no server answers at http://[half-an-address/v1" in message


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://127.0.0.1/v1"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(TeacherError, match="must begin with http:// or https://"):
        OpenAICompatible(model="m", base_url=url)


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the key"), (403, "refuses the key"), (404, "HTTP 404")]
)
def test_a_refusal_in_the_middle_stops_the_run(
    server: Server, tmp_path: Path, status: int, said: str
) -> None:
    server.plan(Fault("lid", status, body=f'{{"error": "no more for {KEY}"}}'))
    message = refused(teacher(server, concurrency=1), tmp_path)
    assert said in message
    assert "no more for [key]" in message
    with Store(tmp_path) as store:
        assert len(store) == 1


# ------------------------------------------------------------------------------ what fails one row


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "temperature is out of range", "bad_request"),
        (422, "no such field", "bad_request"),
        (413, "body is too large", "bad_request"),
        (
            400,
            "This model's maximum context length is 2048 tokens, you asked for 9000",
            "context_length",
        ),
    ],
)
def test_a_hopeless_request_fails_its_row_once_and_no_other(
    server: Server, tmp_path: Path, status: int, words: str, kind: str
) -> None:
    server.plan(Fault("lid", status, times=9, body=f'{{"error": {{"message": "{words}"}}}}'))
    rows = run(teacher(server), tmp_path, mode="cot")
    assert rows["label"].tolist() == ["positive", None, "positive", "negative"]
    assert rows["error"][1] == f"{kind}: HTTP {status}: {words}"
    assert len(server.control()["received"]) == 4


@pytest.mark.parametrize(
    "fault",
    [
        Fault("lid", 429, times=2, headers={"Retry-After": "0"}),
        Fault("lid", 429, times=2, headers={"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}),
        Fault("lid", 429, times=2, headers={"Retry-After": "presently"}),
        Fault("lid", 500),
        Fault("lid", 503, times=2, body="<html>Service unavailable</html>"),
        Fault("lid", 408),
        Fault("lid", 0, times=2),
        Fault("lid", 200, body="<html><body>Log in to this network</body></html>"),
        Fault("lid", 200, body='{"choices": [], "object": "chat.completion"}'),
        Fault("lid", 200, body='{"choices": [{"message": {"role": "assi'),
    ],
)
def test_a_passing_fault_costs_attempts_and_no_label(
    server: Server, tmp_path: Path, fault: Fault
) -> None:
    seen: list[Progress] = []
    server.plan(fault)
    rows = run(teacher(server), tmp_path, mode="cot", on_progress=seen.append)
    assert rows["label"].tolist() == LABELS
    assert seen[-1].retries == fault.times
    assert len(server.control()["received"]) == 4 + fault.times
    with Store(tmp_path) as store:
        assert len(store) == 4


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("lid", 500, times=9), "server: HTTP 500: planned (3 attempts)"),
        (Fault("lid", 0, times=9), "server: the connection failed ("),
        (Fault("lid", 200, times=9, body="<html>"), "server: the answer is not JSON: b'<html>'"),
    ],
)
def test_a_lasting_fault_fails_its_row_after_its_attempts(
    server: Server, tmp_path: Path, fault: Fault, error: str
) -> None:
    server.plan(fault)
    rows = run(teacher(server), tmp_path, mode="cot")
    assert rows["label"].tolist() == ["positive", None, "positive", "negative"]
    assert rows["error"][1].startswith(error)
    assert len(server.control()["received"]) == 6


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(silence, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asked = OpenAICompatible(
            model="m", base_url=f"http://127.0.0.1:{port}/v1", read_timeout=0.05
        )
        try:
            await asked.start()
        finally:
            server.close()
            await server.wait_closed()

    with pytest.raises(TeacherError, match=r"no server answers at .* \(it timed out\)"):
        asyncio.run(ask())


def test_no_connection_is_left_open(
    server: Server, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    gc.collect()
    recwarn.clear()
    run(teacher(server), tmp_path)
    with pytest.raises(TeacherError):
        run(teacher(server, model="teacher-9"), tmp_path / "other")
    gc.collect()
    assert [str(w.message) for w in recwarn if "nclosed" in str(w.message)] == []


def test_the_users_openai_key_goes_to_no_server_that_a_recipe_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    elsewhere = OpenAICompatible(model="m", base_url="http://127.0.0.1:9/v1")
    assert elsewhere._read_key() == ""
    assert OpenAICompatible(model="m")._read_key() == "sk-of-the-user"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    assert OpenAICompatible(model="m")._read_key() == "sk-of-the-user"


def test_an_address_without_its_version_is_told_of(server: Server, tmp_path: Path) -> None:
    bare = server.base_url.removesuffix("/v1")
    message = refused(teacher(server, base_url=bare), tmp_path)
    assert (
        f"HTTP 404 (404: Not Found): teacher.base_url ends in /v1 as a rule, try {bare}/v1"
        in message
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"api": "chats"}, "teacher.api is 'chats': choose 'chat' or 'completions'"),
        ({"concurrency": 0}, "teacher.concurrency is 0: it must be a whole number, at least 1"),
        ({"concurrency": "8"}, "teacher.concurrency is '8': it must be a whole number"),
        ({"prices": {"prompt": 1}}, "teacher.prices is {'prompt': 1}: give labelers.Prices("),
    ],
)
def test_settings_of_another_kind_are_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(TeacherError, match=re.escape(said)):
        OpenAICompatible(model="m", base_url="http://127.0.0.1:9/v1", **how)
