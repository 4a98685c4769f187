"""What a failing row, a failing teacher and a body that is no answer cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scripted_teacher import (
    REVIEWS,
    SENTIMENT,
    Body,
    ScriptedTeacher,
    question,
    reviews,
    run,
    says,
    sentiment,
    thoughtful,
)

from labelers import (
    Limits,
    Progress,
    RetryableError,
    RowError,
    Store,
    Task,
    TaskError,
    TeacherError,
)


def test_a_failing_row_keeps_its_place_and_harms_no_other(tmp_path: Path) -> None:
    def script(body: Body) -> Any:
        if "strap" in question(body):
            return RowError("HTTP 400: the strap again")
        if "battery" in question(body):
            return RowError("4096 tokens are too many", kind="context_length")
        return sentiment(body)

    rows = run(script, tmp_path)
    assert rows["label"].tolist() == [None, "positive", None, "negative"]
    assert rows["error"].tolist() == [
        "bad_request: HTTP 400: the strap again",
        None,
        "context_length: 4096 tokens are too many",
        None,
    ]
    assert rows["text"].tolist() == REVIEWS
    assert rows["rationale"].tolist() == [None, "The buyer is glad.", None, "The buyer is cross."]


def test_equal_rows_share_their_failure_as_they_would_their_answer(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda _: RowError("HTTP 400: no straps"), concurrency=8)
    data = pd.DataFrame({"text": [REVIEWS[0]] * 5})
    rows = run(teacher.script, tmp_path, data, teacher=teacher, mode="cot")
    assert rows["error"].tolist() == ["bad_request: HTTP 400: no straps"] * 5
    assert len(teacher.seen) == 1


def test_a_passing_fault_is_tried_again_and_a_lasting_one_fails_its_row(tmp_path: Path) -> None:
    attempts = {"strap": 0, "battery": 0}
    seen: list[Progress] = []

    def script(body: Body) -> Any:
        for word in attempts:
            if word in question(body):
                attempts[word] += 1
                if word == "battery" or attempts[word] < 3:
                    return RetryableError("HTTP 500: busy")
        return thoughtful(body)

    rows = run(script, tmp_path, mode="cot", on_progress=seen.append)
    assert rows["label"].tolist() == ["negative", "positive", None, "negative"]
    assert rows["error"][2] == "server: HTTP 500: busy (3 attempts)"
    assert attempts == {"strap": 3, "battery": 3}
    assert (seen[-1].retries, seen[-1].failed, seen[-1].done) == (4, 1, 4)


def test_when_everything_fails_the_run_stops_and_says_what_is_kept(tmp_path: Path) -> None:
    def script(body: Body) -> Any:
        return thoughtful(body) if "strap" in question(body) else RetryableError("HTTP 503: down")

    teacher = ScriptedTeacher(script, concurrency=1)
    limits = Limits(attempts=10, backoff=0.0, give_up_after=6)
    with pytest.raises(TeacherError, match=r"6 rounds of requests.*HTTP 503: down.*1 answers rec"):
        run(script, tmp_path, teacher=teacher, mode="cot", limits=limits)
    assert len(teacher.seen) == 7
    assert teacher.closes == 1
    teacher = ScriptedTeacher(thoughtful)
    run(thoughtful, tmp_path, teacher=teacher, mode="cot")
    assert len(teacher.seen) == 3


def test_a_refusal_of_the_teacher_stops_the_run_at_once(tmp_path: Path) -> None:
    def script(body: Body) -> Any:
        return thoughtful(body) if "strap" in question(body) else TeacherError("the key is refused")

    teacher = ScriptedTeacher(script, concurrency=1)
    with pytest.raises(TeacherError, match="the key is refused"):
        run(script, tmp_path, teacher=teacher, mode="cot")
    assert len(teacher.seen) == 2
    with Store(tmp_path) as store:
        assert len(store) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b'{"choices": [',
        b"[]",
        b'{"choices": []}',
        b'{"choices": ["positive"]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "positive"}]}',
        b'{"choices": [{"message": {"content": ["positive"]}}]}',
        b'{"choices": [{"text": 5}]}',
        b'{"error": {"message": "overloaded"}}',
    ],
)
def test_a_body_that_is_no_answer_is_asked_again_and_never_stored(
    tmp_path: Path, body: bytes
) -> None:
    spoilt = [3]

    def script(request: Body) -> Any:
        if "battery" in question(request) and spoilt[0]:
            spoilt[0] -= 1
            return body
        return thoughtful(request)

    rows = run(script, tmp_path, mode="cot")
    assert rows["label"].tolist() == ["negative", "positive", None, "negative"]
    assert rows["error"][2].startswith("server: the answer")
    again = run(script, tmp_path, mode="cot")
    assert again["label"].tolist() == ["negative", "positive", "positive", "negative"]


@pytest.mark.parametrize(
    "usage", [None, [], "much", {"prompt_tokens": "many"}, {"prompt_tokens": -3}]
)
def test_token_counts_that_are_none_are_counted_as_nothing(tmp_path: Path, usage: Any) -> None:
    rows = run(lambda body: {**thoughtful(body), "usage": usage}, tmp_path, mode="cot")
    assert rows["label"].tolist() == ["negative", "positive", "positive", "negative"]
    assert rows["prompt_tokens"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says("It broke. So the answer is either positive or negative."), "unread: no one label"),
        (says(""), "unread: the answer is empty"),
        (says(None), "unread: the answer is empty"),
        (
            says("The strap broke on day", "length"),
            "truncated: the answer was cut off after 10 tokens",
        ),
        (says("It broke. So the answer is negative", "length"), "truncated: the answer was cut"),
    ],
)
def test_an_answer_that_says_no_label_is_an_error_with_its_text(
    tmp_path: Path, answer: Body, error: str
) -> None:
    rows = run(
        lambda body: answer if "strap" in question(body) else thoughtful(body), tmp_path, mode="cot"
    )
    assert rows["label"].tolist() == [None, "positive", "positive", "negative"]
    assert rows["error"][0].startswith(error)
    assert (answer["choices"][0]["message"]["content"] or "") in rows["error"][0]


def test_an_answer_cut_off_after_its_label_is_still_an_answer(tmp_path: Path) -> None:
    answer = says("It broke. So the answer is negative. I would", "length")
    rows = run(lambda _: answer, tmp_path, mode="cot")
    assert rows["label"].tolist() == ["negative"] * 4


def test_half_a_surrogate_pair_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    # No dataset can hold one, but a template's result can.
    task = Task(
        instruction="Judge it.", template="{{ text }}{{ '\\ud83d' if n }}", labels=SENTIMENT.labels
    )
    teacher = ScriptedTeacher(thoughtful)
    with pytest.raises(TaskError, match=r"row 1.*not valid Unicode"):
        run(thoughtful, tmp_path, reviews(n=[0, 1, 0, 0]), task, teacher=teacher, mode="cot")
    assert teacher.seen == []
