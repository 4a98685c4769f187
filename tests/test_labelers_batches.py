"""The Batch API teacher against a provider in a process of its own; no clock is waited for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import batch_server
import orjson
import pandas as pd
import pytest
from batch_server import Server

from labelers.batches import OpenAIBatch
from labelers.labeling import label
from labelers.openai_api import OpenAICompatible
from labelers.tasks import Task
from labelers.teachers import Prices, RowError, Teacher, TeacherError

pytestmark = pytest.mark.integration

KEY = "sk-not-to-be-seen-4242"
CHAT = "chat/completions"
FIVE = ["I love the screen.", "The lid is loose.", "It hums.", "A great lamp.", "It came late."]
SAID = ["positive", "negative", "negative", "positive", "negative"]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with batch_server.running(api_key=KEY) as server:
        yield server


@pytest.fixture
def server(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shared_server.control(forget=True)
    return shared_server


class Naps:
    """Sleeps that take no time: others get their turn, and the seconds are remembered."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        for _ in range(10):
            await asyncio.sleep(0)


def batch_teacher(server: Server, folder: Path, **changes: Any) -> OpenAIBatch:
    asked = OpenAICompatible(
        model="teacher-1",
        base_url=server.base_url,
        api_key_env="TEACHER_KEY",
        prices=Prices(10, 50),
    )
    settings = {"teacher": asked, "journal": folder / "batches", "sleep": Naps(), **changes}
    return OpenAIBatch(**settings)


def request(question: str, path: str = CHAT) -> bytes:
    asked: dict[str, Any] = (
        {"messages": [{"content": question, "role": "user"}]}
        if path == CHAT
        else {"prompt": question}
    )
    return orjson.dumps({**asked, "model": "teacher-1"}, option=orjson.OPT_SORT_KEYS)


def ask(
    teacher: OpenAIBatch, questions: Sequence[str], path: str = CHAT, after: Any = None
) -> list[Any]:
    """What the teacher says to each question: its label, or the exception."""

    async def one(question: str) -> str:
        body = orjson.loads(await teacher.send(path, request(question, path)))
        choice = body["choices"][0]
        text = choice["message"]["content"] if path == CHAT else choice["text"]
        return str(text).rsplit(" ", 1)[-1].rstrip(".")

    async def all_of_them() -> list[Any]:
        await teacher.start()
        try:
            tasks = [asyncio.create_task(one(question)) for question in questions]
            if after is not None:
                await after(tasks)
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await teacher.close()

    return asyncio.run(all_of_them())


def refusal(teacher: OpenAIBatch, questions: Sequence[str] = FIVE) -> str:
    """The one TeacherError with which all questions end."""
    answers = ask(teacher, questions)
    assert {type(answer) for answer in answers} == {TeacherError}
    assert KEY not in repr(answers)
    return str(answers[0])


def journal(folder: Path) -> list[list[dict[str, Any]]]:
    """The events of each batch, in the order in which they were made."""
    files = sorted((folder / "batches").glob("*/*.jsonl"), key=lambda file: file.stat().st_ctime_ns)
    return [[orjson.loads(line) for line in file.read_bytes().splitlines()] for file in files]


def steps(folder: Path) -> list[str]:
    return [
        "".join(f"{e['event']} {e.get('why', '')}".strip() + ", " for e in b)
        for b in journal(folder)
    ]


MADE = "intent, file, batch, "


# ------------------------------------------------------------------------------- what is gathered


def test_requests_asked_together_go_out_in_one_batch_at_half_the_price(
    server: Server, tmp_path: Path
) -> None:
    news: list[Mapping[str, Any]] = []
    teacher = batch_teacher(server, tmp_path, on_batch=news.append)
    assert isinstance(teacher, Teacher)
    assert ask(teacher, FIVE) == SAID
    story = server.control()
    assert [batch["lines"] for batch in story["batches"]] == [5]
    assert len(story["executed"]) == 5
    assert story["direct"] == []
    assert teacher.prices == Prices(5, 25)
    assert teacher.identity == teacher.teacher.identity
    assert [(seen["status"], seen["completed"]) for seen in news] == [
        ("in_progress", 0), ("finalizing", 0), ("completed", 5),
    ]  # fmt: skip
    assert steps(tmp_path) == [MADE + "closed done, "]


def test_each_endpoint_and_each_full_file_is_a_batch_of_its_own(
    server: Server, tmp_path: Path
) -> None:
    teacher = batch_teacher(server, tmp_path, most_requests=100)
    questions = [f"Buyer {i} says it is {'great' if i % 2 else 'dull'}." for i in range(250)]
    assert ask(teacher, questions) == ["positive" if i % 2 else "negative" for i in range(250)]
    assert sorted(batch["lines"] for batch in server.control()["batches"]) == [50, 100, 100]
    assert ask(batch_teacher(server, tmp_path), FIVE, "completions") == SAID
    assert server.control()["batches"][-1]["endpoint"] == "/v1/completions"
    small = batch_teacher(server, tmp_path, most_bytes=1000)
    assert ask(small, [question + " Yes." for question in FIVE]) == SAID
    assert max(batch["lines"] for batch in server.control()["batches"][4:]) == 4


def test_equal_requests_are_samples_and_each_is_executed(server: Server, tmp_path: Path) -> None:
    assert ask(batch_teacher(server, tmp_path), FIVE[:1] * 3) == ["positive"] * 3
    story = server.control()
    assert len(story["executed"]) == 3
    assert [batch["lines"] for batch in story["batches"]] == [3]


def test_the_pause_between_two_looks_grows(server: Server, tmp_path: Path) -> None:
    naps = Naps()
    ask(batch_teacher(server, tmp_path, sleep=naps, gather_for=0.25, poll_every=40.0), FIVE)
    assert [s for s in naps.seconds if s != 0.25] == [40.0, 52.0]


def test_labels_come_from_batches_and_are_shared_with_the_direct_teacher(
    server: Server, tmp_path: Path
) -> None:
    task = Task(
        instruction="Decide whether a product review is positive or negative.",
        template="Review: {{ text }}",
        labels=("positive", "negative"),
    )
    rows = pd.DataFrame({"text": FIVE})
    teacher = batch_teacher(server, tmp_path)
    labelled = label(rows, task, teacher, store=tmp_path / "store")
    assert labelled["label"][:] == SAID
    assert labelled["error"][:] == [None] * 5
    assert labelled["cost_usd"][0] == pytest.approx(2 * (40 * 5 + 8 * 25) / 1e6)
    story = server.control()
    assert len(story["executed"]) == 10  # a label and a rationale each
    label(rows, task, teacher.teacher, store=tmp_path / "store")
    assert server.control()["executed"] == story["executed"]


# -------------------------------------------------------------------------------- calls that fail


@pytest.mark.parametrize("at", ["upload", "uploaded", "poll", "download"])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "times": 3},
        {"status": 0, "times": 2},
        {"status": 429, "headers": {"Retry-After": "7"}},
        {"status": 200, "body": "<html>Log in</html>", "type": "text/html"},
    ],
)
def test_a_passing_fault_of_a_call_costs_nothing(
    server: Server, tmp_path: Path, at: str, fault: dict[str, Any]
) -> None:
    server.control(faults=[{"at": at, **fault}])
    naps = Naps()
    assert ask(batch_teacher(server, tmp_path, sleep=naps), FIVE) == SAID
    assert server.paid_twice() == 0
    assert len(server.control()["batches"]) == 1
    if fault["status"] == 429:
        assert 7.0 in naps.seconds


def test_a_file_of_answers_that_breaks_off_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.control(faults=[{"at": "half", "status": 0, "times": 2}])
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert server.control()["events"].count("download") == 3
    assert server.control()["direct"] == []


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 0}, {"status": 429}, {"status": 200, "body": "{}"}],
)
def test_a_batch_whose_creation_was_not_confirmed_is_found_and_not_made_again(
    server: Server, tmp_path: Path, fault: dict[str, Any]
) -> None:
    server.control(faults=[{"at": "created", **fault}, {"at": "list", "status": 500}])
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    story = server.control()
    assert story["events"].count("create") == 1
    assert len(story["executed"]) == 5


def test_a_batch_that_was_not_made_is_made_after_looking_for_it(
    server: Server, tmp_path: Path
) -> None:
    server.control(faults=[{"at": "create", "status": 503}])
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    events = server.control()["events"]
    first, second = (i for i, event in enumerate(events) if event == "create")
    assert events[first + 1 : second] == ["list"] * 3
    assert len(server.control()["executed"]) == 5


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"at": "upload", "status": 401}, "refuses the key in TEACHER_KEY (HTTP 401: planned)"),
        ({"at": "create", "status": 403}, "refuses the key in TEACHER_KEY (HTTP 403: planned)"),
        (
            {"at": "upload", "status": 404},
            "it offers no Batch API, so ask it directly (in a recipe, without teacher.batch)",
        ),
        (
            {"at": "create", "status": 400, "body": f'{{"error": {{"message": "no {KEY}"}}}}'},
            "could not create a batch (HTTP 400: no [key])",
        ),
        (
            {
                "at": "create",
                "status": 429,
                "body": '{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}',
            },
            "You exceeded your quota): add credit",
        ),
    ],
)
def test_a_refused_call_stops_the_run_at_once(
    server: Server, tmp_path: Path, fault: dict[str, Any], said: str
) -> None:
    server.control(faults=[fault])
    assert said in refusal(batch_teacher(server, tmp_path))
    assert server.control()["events"].count(fault["at"]) == 1
    assert server.control()["executed"] == []


def test_a_provider_that_stays_down_is_given_up_and_its_batch_found_later(
    server: Server, tmp_path: Path
) -> None:
    server.control(faults=[{"at": "poll", "status": 500, "times": 99}])
    message = refusal(batch_teacher(server, tmp_path))
    assert "could not look after batch batch-0 (HTTP 500: planned) (8 attempts)" in message
    assert "run the same command again later" in message
    server.control(faults=[])
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert len(server.control()["executed"]) == 5
    assert server.control()["events"].count("create") == 1


# --------------------------------------------------------------------- batches that do not go well


def test_a_batch_that_is_refused_stops_the_run_with_the_providers_words(
    server: Server, tmp_path: Path
) -> None:
    error = {"code": "invalid_json_line", "message": "Line 3 is not parseable.", "line": 3}
    server.control(outcomes=[{"status": "failed", "errors": [error]}])
    message = refusal(batch_teacher(server, tmp_path))
    assert "refused batch batch-0 of 5 requests" in message
    assert message.endswith("run the same command again. Line 3 is not parseable.")
    assert steps(tmp_path) == [MADE + "closed failed, "]
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert len(server.control()["executed"]) == 5


def test_what_does_not_fit_the_providers_queue_goes_in_smaller_parts_one_by_one(
    server: Server, tmp_path: Path
) -> None:
    server.control(queue=30)
    questions = [f"Buyer {i} says it is great." for i in range(100)]
    assert ask(batch_teacher(server, tmp_path), questions) == ["positive"] * 100
    done = [b["lines"] for b in server.control()["batches"] if b["status"] == "completed"]
    assert done == [25, 25, 25, 25]
    assert server.paid_twice() == 0


def test_a_batch_that_finds_the_queue_full_of_ours_waits_for_one_to_end(
    server: Server, tmp_path: Path
) -> None:
    server.control(queue=60)
    questions = [f"Buyer {i} says it is great." for i in range(100)]
    teacher = batch_teacher(server, tmp_path, most_requests=50)
    assert ask(teacher, questions) == ["positive"] * 100
    batches = [(b["lines"], b["status"]) for b in server.control()["batches"]]
    assert sorted(batches) == [(50, "completed"), (50, "completed"), (50, "failed")]


def test_a_queue_that_stays_full_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelers.batch_run._QUEUE_REFUSALS", 8)
    server.control(queue=0)
    naps = Naps()
    message = refusal(batch_teacher(server, tmp_path, sleep=naps), FIVE[:2])
    assert "queue has been full for long" in message
    assert "Enqueued token limit reached. Limit: 0" in message
    assert naps.seconds.count(105.0) == 1  # the last of ever longer pauses
    assert server.control()["executed"] == []


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_a_batch_leaves_undone_is_asked_directly(
    server: Server, tmp_path: Path, status: str
) -> None:
    server.control(outcomes=[{"status": status, "share": 0.5}])
    teacher = batch_teacher(server, tmp_path)
    assert ask(teacher, FIVE) == SAID
    assert server.control()["direct"] == FIVE[2:]
    assert teacher.fallbacks == 3
    assert server.paid_twice() == 0


def test_without_the_fallback_it_goes_into_further_batches(server: Server, tmp_path: Path) -> None:
    server.control(outcomes=[{"status": "expired", "share": 0.5}] * 2)
    assert ask(batch_teacher(server, tmp_path, fallback=False), FIVE) == SAID
    story = server.control()
    assert [batch["lines"] for batch in story["batches"]] == [5, 3, 2]
    assert story["direct"] == []
    assert server.paid_twice() == 0
    # The first batches are closed too: their open requests were answered by later ones.
    assert [taken.endswith("closed done, ") for taken in steps(tmp_path)] == [True] * 3


def test_files_that_are_named_only_later_are_waited_for(server: Server, tmp_path: Path) -> None:
    server.control(outcomes=[{"status": "completed", "files_later": 2}])
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert server.control()["direct"] == []


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "temperature is out of range", "bad_request"),
        (400, "maximum context length is 2048 tokens", "context_length"),
        (413, "body is too large", "bad_request"),
        (400, "[key] is no key", "bad_request"),
    ],
)
def test_a_hopeless_line_fails_its_row_and_no_other(
    server: Server, tmp_path: Path, status: int, words: str, kind: str
) -> None:
    body = {"error": {"message": words.replace("[key]", KEY)}}
    fault = {"word": "lid", "status": status, "body": body}
    server.control(line_faults=[fault])
    answers = ask(batch_teacher(server, tmp_path), FIVE)
    assert answers[:1] + answers[2:] == SAID[:1] + SAID[2:]
    assert isinstance(answers[1], RowError)
    assert (answers[1].kind, str(answers[1])) == (kind, f"HTTP {status}: {words}")
    assert server.control()["direct"] == []
    assert steps(tmp_path) == [MADE + "closed done, "]


@pytest.mark.parametrize(
    "fault",
    [{"status": 429}, {"status": 500}, {"status": 200, "body": {"choices": []}}],
)
def test_a_line_that_may_yet_succeed_is_asked_directly(
    server: Server, tmp_path: Path, fault: dict[str, Any]
) -> None:
    server.control(line_faults=[{"word": "lid", **fault}])
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert server.control()["direct"] == [FIVE[1]]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the key in TEACHER_KEY"), (404, "check teacher.model")]
)
def test_a_line_that_no_request_could_survive_stops_the_run(
    server: Server, tmp_path: Path, status: int, said: str
) -> None:
    server.control(line_faults=[{"word": "", "status": status, "times": 9}])
    assert said in refusal(batch_teacher(server, tmp_path))


# -------------------------------------------------------------------------------- a second start


def stop_at(event: str, server: Server, folder: Path, questions: Sequence[str] = FIVE) -> list[Any]:
    """Ends a run, as an interrupt does, once the provider has seen the event."""

    async def stop(tasks: Sequence[asyncio.Task[str]]) -> None:
        await asyncio.to_thread(server.wait_for, event)
        for task in tasks:
            task.cancel()

    # The batch stands still meanwhile, or it might be completed before the run is told to stop.
    server.control(hold=True)
    answers = ask(batch_teacher(server, folder), questions, after=stop)
    server.control(hold=False)
    return answers


def test_a_batch_under_way_is_waited_for_and_not_made_again(server: Server, tmp_path: Path) -> None:
    stopped = stop_at("poll", server, tmp_path)
    assert {type(answer) for answer in stopped} == {asyncio.CancelledError}
    assert steps(tmp_path) == [MADE]
    # More is asked this time: the old batch answers its five, a new one the sixth.
    assert ask(batch_teacher(server, tmp_path), [*FIVE, "It is sharp."]) == [*SAID, "positive"]
    story = server.control()
    assert [batch["lines"] for batch in story["batches"]] == [5, 1]
    assert len(story["executed"]) == 6


def test_a_batch_that_nobody_asks_for_is_left_alone(server: Server, tmp_path: Path) -> None:
    stop_at("created", server, tmp_path)
    polls = server.control()["events"].count("poll")
    assert ask(batch_teacher(server, tmp_path), ["It is sharp."]) == ["positive"]
    assert server.control()["batches"][0]["status"] != "completed"
    assert server.control()["events"].count("poll") == polls + 3


def cut(folder: Path, events: int) -> None:
    """Take the journal back to its first events, as if the process had been killed then."""
    (file,) = (folder / "batches").glob("*/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:events]))


@pytest.mark.parametrize("known", [1, 2])
def test_a_batch_whose_id_was_not_written_down_is_known_by_its_token(
    server: Server, tmp_path: Path, known: int
) -> None:
    stop_at("poll", server, tmp_path)
    cut(tmp_path, known)
    ask(batch_teacher(server, tmp_path / "other"), ["It is sharp."])  # newer in the list
    server.control(page=1)
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert server.control()["events"].count("create") == 2
    assert server.paid_twice() == 0


def fail_before_creation(server: Server, folder: Path) -> None:
    server.control(faults=[{"at": "create", "status": 500, "times": 99}])
    refusal(batch_teacher(server, folder))
    server.control(faults=[])
    assert steps(folder) == ["intent, file, "]


def test_a_batch_that_was_never_made_is_made_of_the_file_that_was_uploaded(
    server: Server, tmp_path: Path
) -> None:
    fail_before_creation(server, tmp_path)
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert server.control()["events"].count("upload") == 1
    assert steps(tmp_path) == [MADE + "closed done, "]


def test_of_a_batch_that_was_never_made_only_what_is_still_wanted_is_paid_for(
    server: Server, tmp_path: Path
) -> None:
    fail_before_creation(server, tmp_path)
    assert ask(batch_teacher(server, tmp_path), FIVE[:2]) == SAID[:2]
    assert len(server.control()["executed"]) == 2
    assert sorted(steps(tmp_path)) == [MADE + "closed done, ", "intent, file, closed abandoned, "]


def test_samples_asked_again_are_not_given_the_answers_of_those_that_are_stored(
    server: Server, tmp_path: Path
) -> None:
    stop_at("poll", server, tmp_path, FIVE[:1] * 3)
    # As if the first of three samples had been stored and the process killed then.
    assert ask(batch_teacher(server, tmp_path), FIVE[:1] * 2) == ["positive"] * 2
    ((*_, last),) = journal(tmp_path)
    assert last["event"] == "taken"
    assert [name[32:] for name in last["requests"]] == ["-2", "-3"]
    assert len(server.control()["executed"]) == 3


def test_an_answer_that_could_not_be_stored_is_read_again_and_not_paid_again(
    server: Server, tmp_path: Path
) -> None:
    async def label_without_room(teacher: OpenAIBatch) -> None:
        async def one(question: str) -> None:
            await teacher.send(CHAT, request(question))
            if question != FIVE[0]:
                raise OSError("No space left on device")

        await teacher.start()
        tasks = [asyncio.create_task(one(question)) for question in FIVE]
        await asyncio.gather(*tasks, return_exceptions=True)
        await teacher.close()

    asyncio.run(label_without_room(batch_teacher(server, tmp_path)))
    assert steps(tmp_path) == [MADE + "taken, "]
    assert ask(batch_teacher(server, tmp_path), FIVE[1:]) == SAID[1:]
    assert len(server.control()["executed"]) == 5
    assert steps(tmp_path) == [MADE + "taken, closed done, "]


def test_who_began_before_another_had_stored_reads_its_answers_and_pays_nothing(
    server: Server, tmp_path: Path
) -> None:
    early = batch_teacher(server, tmp_path)  # looked into the store before the other's answers came
    ask(batch_teacher(server, tmp_path), FIVE)
    assert ask(early, FIVE) == SAID
    assert len(server.control()["executed"]) == 5
    # Who begins later finds them in the store; if asked all the same, they are asked for.
    assert ask(batch_teacher(server, tmp_path), FIVE[:1]) == SAID[:1]
    assert len(server.control()["executed"]) == 6


def test_other_weights_under_the_same_name_do_not_share_batches(
    server: Server, tmp_path: Path
) -> None:
    stop_at("poll", server, tmp_path)
    newer = batch_teacher(server, tmp_path)
    revised = OpenAICompatible(
        model="teacher-1", base_url=server.base_url, api_key_env="TEACHER_KEY", revision="2"
    )
    assert ask(batch_teacher(server, tmp_path, teacher=revised), FIVE) == SAID
    assert len(server.control()["batches"]) == 2
    assert ask(newer, FIVE) == SAID
    assert len(server.control()["batches"]) == 2


# ------------------------------------------------------------------------------------- the journal


def test_a_line_torn_by_a_kill_is_cut_off(server: Server, tmp_path: Path) -> None:
    stop_at("poll", server, tmp_path)
    (file,) = (tmp_path / "batches").glob("*/*.jsonl")
    file.write_bytes(file.read_bytes() + b'{"event":"clo')
    torn = file.with_name("20260101T000000-torn.jsonl")
    torn.write_bytes(b'{"event":"intent","requests":["0')
    assert ask(batch_teacher(server, tmp_path), FIVE) == SAID
    assert steps(tmp_path) == [MADE + "closed done, "]
    assert not torn.exists()


def test_a_damaged_journal_is_named_and_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    stop_at("poll", server, tmp_path)
    (file,) = (tmp_path / "batches").glob("*/*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"event":"file"', b'"ev\0nt":"file"'))
    with pytest.raises(TeacherError, match=rf"{file.name} is damaged .* move it away"):
        ask(batch_teacher(server, tmp_path), FIVE)
    assert len(server.control()["batches"]) == 1
    file.rename(file.with_suffix(".bad"))
    assert ask(batch_teacher(server, tmp_path), FIVE[:1]) == SAID[:1]


def test_a_batch_older_than_its_files_is_forgotten(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(batch_teacher(server, tmp_path), FIVE)
    now = time.time()
    monkeypatch.setattr("labelers.batch_journal.time.time", lambda: now + 32 * 86_400)
    ask(batch_teacher(server, tmp_path), FIVE[:1])
    assert [len(events[0]["requests"]) for events in journal(tmp_path)] == [1]


def test_a_journal_that_cannot_be_written_stops_the_run_before_anything_is_made(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "batches").write_text("a file where the folder should be")
    with pytest.raises(TeacherError, match=r"journal of batches .* cannot be written"):
        ask(batch_teacher(server, tmp_path), FIVE)
    assert server.control()["events"] == ["models"]


def test_two_in_one_process_are_told_and_not_left_waiting(server: Server, tmp_path: Path) -> None:
    first, second = batch_teacher(server, tmp_path), batch_teacher(server, tmp_path)

    async def both() -> None:
        await first.start()
        try:
            with pytest.raises(
                TeacherError, match="another OpenAIBatch of teacher-1 in this process"
            ):
                await second.start()
            with pytest.raises(TeacherError, match="serves a run already"):
                await first.start()
        finally:
            await first.close()
        await second.start()
        await second.close()

    asyncio.run(both())


def test_the_key_and_the_users_other_settings_stay_where_they_are(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OPENAI_ORG_ID": "org-mine",
        "OPENAI_PROJECT_ID": "proj-mine",
        "OPENAI_CUSTOM_HEADERS": "X-Mine: secret",
    }.items():
        monkeypatch.setenv(name, value)
    teacher = batch_teacher(server, tmp_path)
    assert ask(teacher, FIVE) == SAID
    assert server.control()["leaks"] == []
    assert KEY not in repr(teacher)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"most_requests": 0}, "most_requests is 0: it must be at least 1"),
        ({"concurrency": 0}, "concurrency is 0: it must be at least 1"),
        ({"discount": 1.5}, "discount is 1.5: it is the share of the price"),
    ],
)
def test_a_setting_out_of_range_is_refused(
    server: Server, tmp_path: Path, setting: dict[str, Any], said: str
) -> None:
    with pytest.raises(TeacherError, match=said):
        batch_teacher(server, tmp_path, **setting)


def test_prices_that_are_given_are_not_halved(server: Server, tmp_path: Path) -> None:
    assert batch_teacher(server, tmp_path, prices=Prices(1, 2)).prices == Prices(1, 2)
    assert batch_teacher(server, tmp_path, discount=0.25).prices == Prices(2.5, 12.5)


def test_the_openai_package_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, labelers.batches; sys.exit('openai' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
    )


def test_every_setting_and_event_stands_in_the_docs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "batches.md").read_text(encoding="utf-8")
    for setting in fields(OpenAIBatch):
        if setting.init:
            assert f"`{setting.name}`" in page
    for event in ("intent", "file", "batch", "taken", "closed"):
        assert f"| `{event}`" in page
