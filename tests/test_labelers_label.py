"""label(): datasets in and out, event loops, and what the store saves."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from scripted_teacher import (
    QUIZ,
    REVIEWS,
    SENTIMENT,
    ScriptedTeacher,
    question,
    reviews,
    run,
    says,
    scores,
    sentiment,
    thoughtful,
)

import labelers
from labelers import Demonstration, Prices, Progress, Store, Task, TaskError, TeacherError, label


def test_scored_rows_get_a_label_its_probabilities_and_a_rationale(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(sentiment, prices=Prices(prompt=1.0, completion=2.0))
    rows = run(
        sentiment, tmp_path, reviews(split=["train", "train", "test", None]), teacher=teacher
    )
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


@pytest.mark.parametrize("form", ["numpy", "pandas", "arrow"])
def test_a_format_set_on_the_dataset_changes_nothing(tmp_path: Path, form: str) -> None:
    rows = {"question": ["Where do fish live?"], "options": [["tree", "pond"]], "split": ["train"]}
    data = datasets.Dataset.from_dict(rows).with_format(form)
    teacher = ScriptedTeacher(lambda _: says("In water. So the answer is (b)."))
    result = label(data, QUIZ, teacher, store=tmp_path, mode="cot")
    assert result["label"][:] == ["pond"]
    assert result["input"][:] == ["Where do fish live?\n(a) tree\n(b) pond"]


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
        (
            {"body": REVIEWS},
            SENTIMENT,
            r"needs the column 'text', which the data lacks.*\['body'\]",
        ),
        ({"input": ["It works.", None]}, SENTIMENT, "row 1 has the input None"),
        ({"text": ["It works.", None]}, SENTIMENT, "row 1: .* null"),
        ({"question": ["Where?"]}, QUIZ, "needs the column 'options'"),
        ({"question": ["Where?"], "options": ["a, b"]}, QUIZ, "row 0 has the choices 'a, b'"),
        ({"question": ["Where?"], "options": [["pond"]]}, QUIZ, "row 0 has 1 choices"),
        ({"question": ["Where?"], "options": [["pond", None]]}, QUIZ, "a list of texts"),
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


def test_a_frame_that_no_dataset_can_hold_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    teacher = ScriptedTeacher(sentiment)
    with pytest.raises(TaskError, match=r"what a dataset cannot.*give each column one type"):
        label(reviews(note=["a", 1, None, {}]), SENTIMENT, teacher, store=tmp_path)
    assert teacher.seen == []


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_pandas(reviews())})
    for data in (splits, [{"text": "It works."}]):
        with pytest.raises(TaskError, match=r"one datasets\.Dataset or pandas\.DataFrame"):
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
    rows = run(thoughtful, tmp_path, data, teacher=teacher, mode="cot", on_progress=seen.append)
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


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"samples": "3"}, "samples is '3': it must be a whole number"),
        ({"rationales": -1}, "rationales is -1: it must be"),
        ({"temperature": "hot"}, "temperature is 'hot': it must be a number, 0 or more"),
        ({"temperature": -1.0}, "temperature is -1.0: it must be a number, 0 or more"),
        ({"limits": {"attempts": 3}}, "limits is {'attempts': 3}: give labelers.Limits(...)"),
        ({"budget": {"tokens": 3}}, "budget is {'tokens': 3}: give labelers.Budget(...)"),
    ],
)
def test_arguments_of_another_kind_are_refused_before_anything_is_asked(
    tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    task = labelers.Task(instruction="Glad or cross?", labels=("glad", "cross"))
    teacher = labelers.OpenAICompatible(model="m", base_url="http://127.0.0.1:9/v1")
    rows = pd.DataFrame({"text": ["I love this lamp."]})
    with pytest.raises(labelers.TaskError, match=re.escape(said)):
        labelers.label(rows, task, teacher, store=tmp_path / "store", **how)
    assert not (tmp_path / "store").exists()
