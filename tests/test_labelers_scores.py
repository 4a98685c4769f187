"""Probabilities, calibration, rationales and notes of label()."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scripted_teacher import (
    Body,
    ScriptedTeacher,
    question,
    reviews,
    run,
    says,
    scores,
    sentiment,
)

from labelers import Prices, Progress, RowError, Task, TeacherError


def test_a_server_without_probabilities_stops_the_run_and_leaves_nothing_stale(
    tmp_path: Path,
) -> None:
    with pytest.raises(TeacherError, match=r"carries no log-probabilities.*use mode `cot`"):
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


def test_a_teacher_that_repeats_white_space_for_ever_is_not_asked_for_ever(tmp_path: Path) -> None:
    def script(_: Body) -> Body:
        answer = scores({" ": 1.0})
        choice = answer["choices"][0]
        choice["text"] = choice.pop("message")["content"]
        return answer

    teacher = ScriptedTeacher(script, api="completions", prefill=True)
    rows = run(script, tmp_path, reviews().head(1), teacher=teacher)
    assert rows["error"][0].startswith("ambiguous: ")
    assert len(teacher.seen) == 8


def test_white_space_before_the_label_is_no_label_and_no_ambiguity(tmp_path: Path) -> None:
    def script(_: Body) -> Body:
        return scores({"neutral": 0.7, "\n": 0.2, "very": 0.04, "": 0.06})

    rows = run(script, tmp_path, reviews().head(1), DEGREES, rationales=False)
    assert rows["label"][0] == "neutral"
    assert rows["off_label_mass"][0] == pytest.approx(0.3)


def lean(body: Body) -> Body:
    """A teacher that leans to positive: 0.9 where the buyer is glad, 0.6 where not."""
    glad_row = "glad" in question(body)
    return scores(
        {"positive": 0.9, "negative": 0.1} if glad_row else {"positive": 0.6, "negative": 0.4}
    )


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


def test_rows_that_a_teacher_wrote_do_not_bend_the_calibration(tmp_path: Path) -> None:
    written = many(40).tail(9).assign(source="generated", split="train")
    data = pd.concat([many(30).assign(source="reviews.csv"), written], ignore_index=True)
    rows = run(lean, tmp_path, data, rationales=False)
    assert rows["label_probs"][0] == pytest.approx([1 / 3, 2 / 3])
    assert rows["label_probs"][38] == pytest.approx([0.75, 0.25])


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
