"""label_recorded(): what a teacher said before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scripted_teacher import QUIZ, REVIEWS, SENTIMENT, reviews

from labelers import Progress, Task, TaskError, label_recorded
from labelers.answer_rules import JsonField, Number


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


def test_the_recorded_label_may_stand_in_the_column_that_is_written() -> None:
    frame = reviews(label=["negative", "It shines. So the answer is positive.", None, "maybe"])
    rows = label_recorded(frame, SENTIMENT, list(frame["label"])).to_pandas()
    assert rows["label"].fillna("-").tolist() == ["negative", "positive", "-", "-"]


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


def test_recorded_numbers_and_json_are_read_by_the_task_s_rule() -> None:
    frame = pd.DataFrame({"text": ["6 * 7", "8 - 3", "1 + 1"]})
    counting = Task(instruction="Solve.", answer=Number())
    outputs = ["So the answer is 6 * 7 = 42.", 5.0, "So the answer is two."]
    rows = label_recorded(frame, counting, outputs).to_pandas().replace({np.nan: None})
    assert rows["label"].tolist() == ["42", "5", None]
    assert rows["error"][2].startswith("unread: ")
    assert "'So the answer is two.'" in rows["error"][2]
    judged = Task(instruction="Judge.", answer=JsonField(field="tone", rationale="why"))
    outputs = ['{"why": "It shines.", "tone": "good"}', '{"tone": "bad"}', '{"tone": "ba']
    rows = label_recorded(frame, judged, outputs).to_pandas().replace({np.nan: None})
    assert rows["label"].tolist() == ["good", "bad", None]
    assert rows["rationale"].tolist() == ["It shines.", None, None]
    assert rows["error"][2].startswith("unread: its JSON object is broken or cut off")


def test_a_recorded_output_may_say_what_was_thought_and_why_it_ended() -> None:
    outputs = [
        {"text": "negative", "reasoning": "A strap broke.", "finish_reason": "stop"},
        {"text": "<think>It shines.</think>positive", "finish_reason": None},
        {"text": "It plays. So the answer is posi", "finish_reason": "length"},
        {"text": None},
    ]
    for keep, thought in ((True, ["A strap broke.", "It shines."]), (False, [None, None])):
        result = label_recorded(reviews(), SENTIMENT, outputs, keep_reasoning=keep)
        rows = result.to_pandas().replace({np.nan: None})
        assert rows["label"].tolist() == ["negative", "positive", None, None]
        assert rows["rationale"].tolist()[:2] == thought
        assert rows["finish_reason"].tolist() == ["stop", None, "length", None]
        assert rows["error"][2] == (
            "truncated: the answer was cut off before it was complete: 'It plays. So the answer is posi'"
        )
        assert rows["error"][3] == "missing: no output was recorded for this row"
    with pytest.raises(TaskError, match=r"recorded output 1 has the fields \['said'\]: `text`"):
        label_recorded(reviews(), SENTIMENT, ["positive", {"said": "x"}, "positive", "positive"])
