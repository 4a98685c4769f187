"""label() and label_recorded(): what goes in, what comes out, and what a failing row costs."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from scripted_teacher import Body, ScriptedTeacher, question, says, scores

from labelers import (
    Demonstration,
    Limits,
    Prices,
    Progress,
    RetryableError,
    RowError,
    Store,
    Task,
    TaskError,
    TeacherError,
    label,
    label_recorded,
)

SENTIMENT = Task(
    instruction="Decide whether a product review is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
)
QUIZ = Task(
    instruction="Answer the question.",
    template="{{ question }}\n{{ options | letters }}",
    choices="options",
)
REVIEWS = [
    "The strap broke on day two.",
    "I love the sharp screen.",
    "The battery lasts for weeks.",
    "It arrived scratched and late.",
]
AT_ONCE = Limits(attempts=3, backoff=0.0)


def glad(body: Body) -> bool:
    return any(word in question(body) for word in ("love", "lasts"))


def sentiment(body: Body) -> Body:
    """Scores with a little mass off the labels; rationales of one sentence."""
    if "\nLabel:" in question(body):
        return says(f"The buyer is {'glad' if glad(body) else 'cross'}.")
    likely, other = ("positive", "negative") if glad(body) else ("negative", "positive")
    return scores({likely: 0.6, likely.title(): 0.2, other: 0.1, "mixed": 0.1})


def thoughtful(body: Body) -> Body:
    said = "positive" if glad(body) else "negative"
    return says(f"The buyer is {'glad' if glad(body) else 'cross'}. So the answer is {said}.")


def reviews(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": REVIEWS, **columns})


def run(
    script: Callable[[Body], Any],
    store: Path,
    dataset: Any = None,
    task: Task = SENTIMENT,
    *,
    teacher: ScriptedTeacher | None = None,
    **how: Any,
) -> pd.DataFrame:
    teacher = teacher or ScriptedTeacher(script)
    how.setdefault("limits", AT_ONCE)
    result = label(reviews() if dataset is None else dataset, task, teacher, store=store, **how)
    return result.to_pandas().replace({np.nan: None})


# ------------------------------------------------------------------------------------------ columns


def test_scored_rows_get_a_label_its_probabilities_and_a_rationale(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(sentiment, prices=Prices(prompt=1.0, completion=2.0))
    rows = run(sentiment, tmp_path, reviews(split=["train", "train", "test", None]), teacher=teacher)
    assert rows["label"].tolist() == ["negative", "positive", "positive", "negative"]
    # By hand: 0.8 and 0.1 of the mass are on labels, 0.1 is not.
    assert rows["label_probs"][0] == pytest.approx([1 / 9, 8 / 9])
    assert rows["label_probs"][1] == pytest.approx([8 / 9, 1 / 9])
    assert rows["confidence"].tolist() == pytest.approx([8 / 9] * 4)
    assert rows["off_label_mass"].tolist() == pytest.approx([0.1] * 4)
    assert set(rows["label_source"]) == {"logprobs"}
    # The test row is labelled for comparison only: it needs no rationale.
    assert rows["rationale"].tolist() == [
        "The buyer is cross.", "The buyer is glad.", None, "The buyer is cross.",
    ]  # fmt: skip
    assert rows["prompt_tokens"].tolist() == [100, 100, 50, 100]
    assert rows["completion_tokens"].tolist() == [20, 20, 10, 20]
    assert rows["cost_usd"].tolist() == pytest.approx([140e-6, 140e-6, 70e-6, 140e-6])
    assert rows["error"].tolist() == [None] * 4
    assert set(rows["teacher"]) == {"scripted"}
    assert rows["input"][0] == "Review: The strap broke on day two."
    with Store(tmp_path) as store:
        exchange = store.get(bytes.fromhex(rows["prompt_key"][0]))
    assert exchange is not None
    assert exchange["choices"][0]["message"]["content"] == "negative"


def test_a_chain_of_thought_gives_a_rationale_and_a_label(tmp_path: Path) -> None:
    rows = run(thoughtful, tmp_path, mode="cot")
    assert rows["label"].tolist() == ["negative", "positive", "positive", "negative"]
    assert rows["rationale"][0] == "The buyer is cross."
    assert rows["label_probs"].tolist() == [None] * 4
    assert rows["finish_reason"].tolist() == ["stop"] * 4


def test_options_of_each_row_are_scored_by_their_letters(tmp_path: Path) -> None:
    data = pd.DataFrame(
        {
            "question": ["Where do fish live?", "Where do cars park?"],
            "options": [["tree", "pond"], ["sea", "sky", "garage"]],
        }
    )
    answers = {"fish": {"b": 0.9, "a": 0.1}, "cars": {"(c": 0.5, "c": 0.4, "a": 0.1}}
    rows = run(
        lambda body: scores(answers["fish" if "fish" in question(body) else "cars"]),
        tmp_path,
        data,
        QUIZ,
        rationales=False,
    )
    assert rows["label"].tolist() == ["pond", "garage"]
    assert rows["label_probs"][0] == pytest.approx([0.1, 0.9])
    assert rows["label_probs"][1] == pytest.approx([0.1, 0.0, 0.9])


@pytest.mark.parametrize("form", ["pandas", "datasets", "selection"])
def test_other_columns_pass_through_whatever_the_dataset(tmp_path: Path, form: str) -> None:
    data: Any = reviews(stars=[1, 5, 4, 2], tags=[["a"], [], ["b", "c"], ["d"]], gold=["x"] * 4)
    if form != "pandas":
        data = datasets.Dataset.from_pandas(data).cast_column(
            "gold", datasets.ClassLabel(names=["x", "y"])
        )
    if form == "selection":
        data = data.select([3, 1, 2, 0])
    result = label(data, SENTIMENT, ScriptedTeacher(sentiment), store=tmp_path)
    assert isinstance(result, datasets.Dataset)
    order = [3, 1, 2, 0] if form == "selection" else [0, 1, 2, 3]
    assert result["text"][:] == [REVIEWS[i] for i in order]
    assert result["stars"][:] == [[1, 5, 4, 2][i] for i in order]
    assert result["tags"][:] == [[["a"], [], ["b", "c"], ["d"]][i] for i in order]
    assert [word in ("positive", "negative") for word in result["label"]] == [True] * 4
    assert result["label"][order.index(1)] == "positive"
    if form != "pandas":
        assert result.features["gold"].names == ["x", "y"]


def test_gold_never_reaches_the_teacher(tmp_path: Path) -> None:
    golds = ["secret-one", "secret-two", "secret-three", "secret-four"]
    for mode, script in (("score", sentiment), ("cot", thoughtful)):
        teacher = ScriptedTeacher(script)
        data = reviews(gold=golds, answer=golds, stars=[1, 5, 5, 1])
        rows = run(script, tmp_path / mode, data, teacher=teacher, mode=mode)
        assert rows["gold"].tolist() == golds
        assert len(teacher.seen) == (8 if mode == "score" else 4)
        assert "secret" not in json.dumps(teacher.seen)


def test_a_dataset_with_a_column_that_labeling_writes_is_refused(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(sentiment)
    with pytest.raises(TaskError, match=r"column 'label', which labeling writes.*rename"):
        label(reviews(label=[0, 1, 1, 0]), SENTIMENT, teacher, store=tmp_path)
    assert teacher.seen == []
    # What labeling itself wrote may be labelled anew.
    first = label(reviews(), SENTIMENT, teacher, store=tmp_path)
    again = label(first, SENTIMENT, teacher, store=tmp_path)
    assert again["label"][:] == first["label"][:]
    assert again.column_names == first.column_names


def test_no_rows_make_no_request_and_an_empty_dataset(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(sentiment)
    rows = run(sentiment, tmp_path, reviews().head(0), teacher=teacher)
    assert len(rows) == 0
    assert "label_probs" in rows.columns
    assert (teacher.starts, teacher.seen) == (0, [])


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        ({"body": REVIEWS}, SENTIMENT, r"needs the column 'text', which the data lacks.*\['body'\]"),
        ({"input": ["It works.", None]}, SENTIMENT, "row 1 has the input None"),
        ({"text": ["It works.", None]}, SENTIMENT, "null"),
        ({"question": ["Where?"]}, QUIZ, "needs the column 'options'"),
        ({"question": ["Where?"], "options": ["a, b"]}, QUIZ, "row 0 has the choices 'a, b'"),
        ({"question": ["Where?"], "options": [["pond"]]}, QUIZ, "row 0 has 1 choices"),
        ({"question": ["Where?"], "options": [["pond", 3]]}, QUIZ, "a list of texts"),
        ({"question": ["Where?"], "options": [["pond", ""]]}, QUIZ, "row 0 has the empty choice"),
    ],
)
def test_data_that_does_not_fit_the_task_is_refused_before_anything_is_asked(
    tmp_path: Path, data: dict[str, Any], task: Task, message: str
) -> None:
    teacher = ScriptedTeacher(sentiment)
    with pytest.raises(TaskError, match=message):
        label(pd.DataFrame(data), task, teacher, store=tmp_path)
    assert teacher.seen == []


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_pandas(reviews())})
    for data in (splits, [{"text": "It works."}]):
        with pytest.raises(TaskError, match="one datasets.Dataset or pandas.DataFrame"):
            label(data, SENTIMENT, ScriptedTeacher(sentiment), store=tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"mode": "scores"}, TaskError, "mode is 'scores': choose 'score' or 'cot'"),
        ({"calibration": "gold"}, TaskError, "calibration is 'gold'"),
        ({"task": Task(instruction="Translate.")}, TaskError, "needs a closed label set"),
        (
            {"teacher": ScriptedTeacher(sentiment, top_logprobs=0)},
            TeacherError,
            "scripted does not give: use mode `cot`",
        ),
        (
            {
                "mode": "cot",
                "task": Task(
                    instruction="Judge.",
                    labels=("good", "bad"),
                    demonstrations=(Demonstration(input="It works.", label="good"),),
                ),
            },
            TaskError,
            "has no rationale",
        ),
    ],
)
def test_a_mode_that_cannot_be_had_is_refused(
    tmp_path: Path, how: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(sentiment, tmp_path, **how)


# -------------------------------------------------------------------------------------- event loops


def test_it_runs_inside_a_running_event_loop_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell() -> pd.DataFrame:
        return run(sentiment, tmp_path)

    assert asyncio.run(cell())["label"].tolist() == [
        "negative", "positive", "positive", "negative",
    ]  # fmt: skip


def test_interrupting_a_notebook_cell_stops_the_run_and_keeps_the_answers(tmp_path: Path) -> None:
    class Stalling(ScriptedTeacher):
        async def send(self, path: str, body: bytes) -> bytes:
            if "battery" in body.decode():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                await asyncio.Event().wait()
            return await super().send(path, body)

    async def cell() -> None:
        run(sentiment, tmp_path, teacher=Stalling(sentiment, concurrency=1))

    # A plain loop: asyncio.run would take the interrupt for itself.
    loop = asyncio.new_event_loop()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    loop.close()
    with Store(tmp_path) as store:
        assert len(store) == 2


# ---------------------------------------------------------------------------------------- the store


def test_a_second_run_asks_nothing_and_does_not_start_the_teacher(tmp_path: Path) -> None:
    first, second = ScriptedTeacher(sentiment), ScriptedTeacher(sentiment)
    before = run(sentiment, tmp_path, teacher=first)
    after = run(sentiment, tmp_path, teacher=second)
    pd.testing.assert_frame_equal(before, after)
    assert (first.starts, first.closes, len(first.seen)) == (1, 1, 8)
    assert (second.starts, second.closes, second.seen) == (0, 0, [])


def test_one_row_more_asks_one_more_and_a_changed_prompt_asks_all(tmp_path: Path) -> None:
    run(thoughtful, tmp_path, mode="cot")
    teacher = ScriptedTeacher(thoughtful)
    more = pd.DataFrame({"text": [*REVIEWS, "It fits my pocket."]})
    run(thoughtful, tmp_path, more, teacher=teacher, mode="cot")
    assert [question(body) for body in teacher.seen] == ["Review: It fits my pocket."]

    changed = Task(
        instruction="Say how the buyer felt.", template=SENTIMENT.template, labels=SENTIMENT.labels
    )
    for task, revision in ((changed, "1"), (SENTIMENT, "2")):
        teacher = ScriptedTeacher(thoughtful, revision=revision)
        run(thoughtful, tmp_path, task=task, teacher=teacher, mode="cot")
        assert len(teacher.seen) == 4


def test_equal_rows_are_paid_for_once(tmp_path: Path) -> None:
    seen: list[Progress] = []
    teacher = ScriptedTeacher(thoughtful, concurrency=8)
    data = pd.DataFrame({"text": [REVIEWS[0]] * 5 + [REVIEWS[1]] * 3})
    rows = run(
        thoughtful, tmp_path, data, teacher=teacher, mode="cot", on_progress=seen.append
    )
    assert rows["label"].tolist() == ["negative"] * 5 + ["positive"] * 3
    assert len(teacher.seen) == 2
    assert (seen[-1].asked, seen[-1].reused) == (2, 6)
    assert (seen[-1].prompt_tokens, seen[-1].completion_tokens) == (100, 20)


def test_one_open_store_serves_several_runs_even_after_it_was_closed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        label(reviews(), SENTIMENT, ScriptedTeacher(sentiment), store=store)
    teacher = ScriptedTeacher(sentiment)
    label(reviews(), SENTIMENT, teacher, store=store)
    store.close()
    assert teacher.seen == []


def test_damaged_lines_of_the_store_are_mentioned(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run(thoughtful, tmp_path, mode="cot")
    with (tmp_path / "exchanges-0001.jsonl").open("ab") as file:
        file.write(b"scribble\n")
    run(thoughtful, tmp_path, mode="cot", on_progress=seen.append)
    assert "1 damaged line" in " ".join(seen[-1].notes)


# ------------------------------------------------------------------------------------- failing rows


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


def test_a_passing_fault_is_tried_again_and_a_lasting_one_fails_its_row(tmp_path: Path) -> None:
    attempts = {"strap": 0, "battery": 0}
    seen: list[Progress] = []

    def script(body: Body) -> Any:
        for word in attempts:
            if word in question(body):
                attempts[word] += 1
                if word == "battery" or attempts[word] < 3:
                    return RetryableError("HTTP 500: busy", retry_after=0.0)
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
    with pytest.raises(TeacherError, match=r"6 requests in a row.*HTTP 503: down.*1 answers rec"):
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


@pytest.mark.parametrize("usage", [None, [], "much", {"prompt_tokens": "many"}, {"prompt_tokens": -3}])
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
        (says("The strap broke on day", "length"), "truncated: the answer was cut at 256 tokens"),
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


def test_a_row_whose_text_is_no_unicode_fails_alone(tmp_path: Path) -> None:
    # A Dataset cannot hold half a surrogate pair, but a template's result can.
    task = Task(
        instruction="Judge it.", template="{{ text }}{{ '\\ud83d' if n }}", labels=SENTIMENT.labels
    )
    teacher = ScriptedTeacher(thoughtful)
    with pytest.raises(TaskError, match="row 1.*not valid Unicode"):
        run(thoughtful, tmp_path, reviews(n=[0, 1, 0, 0]), task, teacher=teacher, mode="cot")
    assert teacher.seen == []


# ------------------------------------------------------------------------- probabilities and notes


def test_a_server_without_probabilities_stops_the_run_and_leaves_nothing_stale(
    tmp_path: Path,
) -> None:
    with pytest.raises(TeacherError, match="carries no log-probabilities.*use mode `cot`"):
        run(lambda _: says("negative"), tmp_path)
    # Once the server gives them, the same command goes through.
    assert run(sentiment, tmp_path)["label"][0] == "negative"


def test_one_answer_without_probabilities_fails_its_row_alone(tmp_path: Path) -> None:
    def script(body: Body) -> Body:
        filtered = "battery" in question(body)
        return says("", "content_filter") if filtered else sentiment(body)

    teacher = ScriptedTeacher(script, concurrency=1)
    for _ in range(2):
        rows = run(script, tmp_path, teacher=teacher)
        assert rows["label"].tolist() == ["negative", "positive", None, "negative"]
        assert rows["error"][2].startswith("no_logprobs: the answer carries no log-probabilities")


def test_a_teacher_that_names_no_label_fails_the_row_with_what_it_began(tmp_path: Path) -> None:
    def script(body: Body) -> Body:
        return scores({"I": 0.9, "As": 0.1}) if "strap" in question(body) else sentiment(body)

    rows = run(script, tmp_path)
    assert rows["error"][0].startswith("off_label: the teacher names none of")
    assert "'I'" in rows["error"][0]
    assert rows["label"][1:].tolist() == ["positive", "positive", "negative"]


DEGREES = Task(
    instruction="Judge the tone.",
    template="{{ text }}",
    labels=("very positive", "very negative", "neutral"),
)


def test_labels_that_begin_alike_are_told_apart_by_a_second_request(tmp_path: Path) -> None:
    def script(body: Body) -> Body:
        further = str(body["prompt"]).endswith("Label: very")
        answer = (
            scores({" negative": 0.75, " positive": 0.25})
            if further
            else scores({" very": 0.8, " neutral": 0.2})
        )
        choice = answer["choices"][0]
        choice["text"] = choice.pop("message")["content"]
        return answer

    teacher = ScriptedTeacher(script, api="completions", prefill=True)
    rows = run(script, tmp_path, reviews().head(1), DEGREES, teacher=teacher, rationales=False)
    assert rows["label_probs"][0] == pytest.approx([0.2, 0.6, 0.2])
    assert rows["label"][0] == "very negative"
    assert len(teacher.seen) == 2
    assert rows["prompt_tokens"][0] == 100


def test_labels_that_cannot_be_told_apart_in_a_chat_are_an_error_not_a_guess(
    tmp_path: Path,
) -> None:
    def script(_: Body) -> Body:
        return scores({"neutral": 0.6, "very": 0.4})

    rows = run(script, tmp_path, reviews().head(1), DEGREES, rationales=False)
    assert rows["label"][0] is None
    assert rows["error"][0].startswith("ambiguous: labels that begin alike cannot be told apart")


def test_white_space_before_the_label_is_no_label_and_no_ambiguity(tmp_path: Path) -> None:
    def script(_: Body) -> Body:
        return scores({"neutral": 0.7, "\n": 0.2, "very": 0.04, "": 0.06})

    rows = run(script, tmp_path, reviews().head(1), DEGREES, rationales=False)
    assert rows["label"][0] == "neutral"
    assert rows["off_label_mass"][0] == pytest.approx(0.3)


def lean(body: Body) -> Body:
    """A teacher that leans to positive: 0.9 where the buyer is glad, 0.6 where not."""
    glad_row = "glad" in question(body)
    return scores({"positive": 0.9, "negative": 0.1} if glad_row else {"positive": 0.6, "negative": 0.4})


def many(count: int, split: str = "train") -> pd.DataFrame:
    texts = [f"Buyer {i} is {'glad' if i % 2 else 'cross'}." for i in range(count)]
    return pd.DataFrame({"text": texts, "split": [split] * count})


def test_batch_calibration_is_fitted_without_the_test_rows(tmp_path: Path) -> None:
    data = pd.concat([many(30), many(40, "test").tail(9)], ignore_index=True)
    rows = run(lean, tmp_path, data, rationales=False)
    # The train rows' mean is (0.75, 0.25): 0.6/0.75 = 0.8 against 0.4/0.25 = 1.6.
    assert rows["label_probs"][0] == pytest.approx([1 / 3, 2 / 3])
    # 0.9/0.75 = 1.2 against 0.1/0.25 = 0.4.
    assert rows["label_probs"][1] == pytest.approx([0.75, 0.25])
    assert rows["label_probs"][38] == pytest.approx([0.75, 0.25])
    assert rows["label"][:4].tolist() == ["negative", "positive", "negative", "positive"]
    raw = run(lean, tmp_path, data, rationales=False, calibration=None)
    assert set(raw["label"]) == {"positive"}


@pytest.mark.parametrize("rationales", [True, False])
def test_too_few_rows_are_not_calibrated_and_a_note_says_so(
    tmp_path: Path, rationales: bool
) -> None:
    def script(body: Body) -> Body:
        return says("So it is.") if "\nLabel:" in question(body) else lean(body)

    seen: list[Progress] = []
    data = pd.concat([many(29), many(40, "test").tail(5)], ignore_index=True)
    rows = run(script, tmp_path, data, rationales=rationales, on_progress=seen.append)
    assert rows["label_probs"][0] == pytest.approx([0.6, 0.4])
    assert seen[-1].notes == (
        "34 rows with 2 choices were not calibrated: 30 rows are needed, 29 are at hand",
    )


def test_a_rationale_that_fails_leaves_the_label_and_is_noted(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def script(body: Body) -> Any:
        if "\nLabel:" in question(body) and "strap" in question(body):
            return RowError("HTTP 400: too long", kind="context_length")
        return sentiment(body)

    rows = run(script, tmp_path, on_progress=seen.append)
    assert rows["label"].tolist() == ["negative", "positive", "positive", "negative"]
    assert rows["error"].tolist() == [None] * 4
    assert rows["rationale"][0] is None
    assert seen[-1].failed == 1
    assert "1 row has no rationale; the first error: context_length: HTTP 400: too long" in (
        seen[-1].notes
    )


def test_of_a_rationale_cut_off_the_whole_sentences_are_kept(tmp_path: Path) -> None:
    def script(body: Body) -> Body:
        if "\nLabel:" in question(body):
            return says("It broke at once. The buyer then sent it", "length")
        return sentiment(body)

    assert run(script, tmp_path)["rationale"][0] == "It broke at once."


def test_progress_counts_each_row_once_in_each_phase(tmp_path: Path) -> None:
    seen: list[Progress] = []
    teacher = ScriptedTeacher(sentiment, prices=Prices(prompt=1.0, completion=0.0))
    run(sentiment, tmp_path, teacher=teacher, on_progress=seen.append, calibration=None)
    assert [(p.phase, p.done, p.total) for p in seen] == [
        *[("label", i, 4) for i in (1, 2, 3, 4)],
        *[("rationale", i, 4) for i in (1, 2, 3, 4)],
    ]
    assert (seen[-1].asked, seen[-1].failed, seen[-1].notes) == (8, 0, ())
    assert seen[-1].cost_usd == pytest.approx(400e-6)


# -------------------------------------------------------------------------------- recorded outputs


def test_recorded_answers_are_read_as_a_teacher_s(tmp_path: Path) -> None:
    outputs = [
        "The strap is a part. So the answer is negative.\n\nReview: The next one",
        "positive",
        None,
        "It is hard to say.",
    ]
    seen: list[Progress] = []
    result = label_recorded(
        reviews(gold=["g"] * 4), SENTIMENT, outputs, teacher="palm", on_progress=seen.append
    )
    rows = result.to_pandas().replace({np.nan: None})
    assert rows["label"].tolist() == ["negative", "positive", None, None]
    assert rows["rationale"].tolist() == ["The strap is a part.", None, None, None]
    assert rows["error"][2] == "missing: no output was recorded for this row"
    assert rows["error"][3].startswith("unread: ")
    assert "It is hard to say." in rows["error"][3]
    assert set(rows["teacher"]) == {"palm"}
    assert rows["gold"].tolist() == ["g"] * 4
    assert rows["cost_usd"].tolist() == [None] * 4
    assert (seen[-1].done, seen[-1].failed, seen[-1].asked) == (4, 2, 0)


def test_recorded_labels_alone_suffice_in_whatever_type_they_come() -> None:
    frame = pd.DataFrame({"text": REVIEWS, "said": ["1", "0", None, "1"]})
    task = Task(instruction="Judge.", template="{{ text }}", labels=("0", "1"))
    for outputs in (
        [1, 0, None, 1],
        [1, 0, float("nan"), 1],
        frame["said"],
        frame["said"].astype("Int64"),
    ):
        rows = label_recorded(frame, task, list(outputs)).to_pandas()
        assert rows["label"].fillna("-").tolist() == ["1", "0", "-", "1"]
        assert rows["error"][2] == "missing: no output was recorded for this row"


def test_recorded_free_text_and_options_are_read_too() -> None:
    free = Task(instruction="Translate.", template="{{ text }}")
    rows = label_recorded(pd.DataFrame({"text": ["dog"]}), free, ["le chien"]).to_pandas()
    assert rows["label"].tolist() == ["le chien"]
    data = pd.DataFrame({"question": ["Where do fish live?"], "options": [["tree", "pond"]]})
    rows = label_recorded(data, QUIZ, ["In water. So the answer is (b)."]).to_pandas()
    assert rows["label"].tolist() == ["pond"]


def test_as_many_outputs_as_rows_are_needed() -> None:
    with pytest.raises(TaskError, match="3 recorded outputs were given for 4 rows"):
        label_recorded(reviews(), SENTIMENT, ["positive"] * 3)
