"""Several answers a row, other ways to probabilities, and what is shown to the teacher per row."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from scripted_teacher import (
    QUIZ,
    REVIEWS,
    SENTIMENT,
    Body,
    ScriptedTeacher,
    question,
    reviews,
    run,
    says,
    scores,
    sentiment,
    thoughtful,
)

from labelers import (
    Demonstration,
    JsonField,
    Number,
    Pattern,
    RandomDemonstrations,
    RowError,
    SimilarDemonstrations,
    Task,
    TaskError,
    TeacherError,
    write_demonstrations,
)

COT = {"mode": "cot"}


class Wavering:
    """Says something else each time it is asked the same."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: Counter[str] = Counter()

    def __call__(self, body: Body) -> Any:
        place = self.asked[question(body)]
        self.asked[question(body)] += 1
        answer = self.answers[place % len(self.answers)]
        return answer if isinstance(answer, dict) else says(answer)


def test_the_label_that_most_samples_say_wins_and_disagreement_is_kept(tmp_path: Path) -> None:
    script = Wavering(
        "It broke. So the answer is negative.",
        "It is sharp. So the answer is positive.",
        "It came late. So the answer is negative.",
    )
    teacher = ScriptedTeacher(script, concurrency=1)
    rows = run(script, tmp_path, teacher=teacher, samples=3, **COT)
    assert rows["label"].tolist() == ["negative"] * 4
    assert rows["votes"][0].tolist() == ["negative", "positive", "negative"]
    assert rows["agreement"][0] == pytest.approx(2 / 3)
    assert rows["label_probs"][0].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert (rows["label_source"][0], rows["confidence"][0]) == ("votes", pytest.approx(2 / 3))
    assert rows["rationale"][0] == "It broke."
    assert rows["rationales"][0].tolist() == ["It broke.", "It came late."]
    assert {body["temperature"] for body in teacher.seen} == {0.7}
    assert rows["completion_tokens"][0] == 30


def test_more_samples_later_cost_only_those_that_are_new(tmp_path: Path) -> None:
    run(thoughtful, tmp_path, samples=3, **COT)
    teacher = ScriptedTeacher(thoughtful)
    run(thoughtful, tmp_path, teacher=teacher, samples=5, **COT)
    assert len(teacher.seen) == 2 * len(REVIEWS)


def test_an_even_vote_is_no_label(tmp_path: Path) -> None:
    script = Wavering("So the answer is negative.", "So the answer is positive.")
    rows = run(script, tmp_path, teacher=ScriptedTeacher(script, concurrency=1), samples=2, **COT)
    assert rows["label"].isna().all()
    assert rows["error"][0].startswith("tie: ")
    assert rows["votes"][0].tolist() == ["negative", "positive"]


def test_an_unread_sample_is_a_vote_for_nothing(tmp_path: Path) -> None:
    script = Wavering("It broke. So the answer is negative.", "I cannot tell.")
    rows = run(script, tmp_path, teacher=ScriptedTeacher(script, concurrency=1), samples=2, **COT)
    assert rows["label"][0] == "negative"
    assert rows["votes"][0].tolist() == ["negative", None]
    assert rows["agreement"][0] == 0.5


def test_a_vote_by_probability_weighs_sure_answers_more(tmp_path: Path) -> None:
    def answer(label: str, probability: float) -> Body:
        body = says(f"So the answer is {label}.")
        logprob = math.log(probability)
        body["choices"][0]["logprobs"] = {
            "content": [{"token": label, "logprob": logprob, "top_logprobs": []}]
        }
        return body

    script = Wavering(answer("negative", 0.1), answer("positive", 0.9), answer("negative", 0.2))
    teacher = ScriptedTeacher(script, concurrency=1)
    rows = run(script, tmp_path, teacher=teacher, samples=3, vote="probability", **COT)
    assert rows["label"].tolist() == ["positive"] * 4
    assert rows["confidence"][0] == pytest.approx(0.9 / 1.2)
    assert teacher.seen[0]["logprobs"] is True
    silent = ScriptedTeacher(script, top_logprobs=0)
    with pytest.raises(TeacherError, match="use vote: majority"):
        run(script, tmp_path, teacher=silent, samples=3, vote="probability", **COT)


def test_short_answers_are_voted_on_without_probabilities(tmp_path: Path) -> None:
    script = Wavering("positive", "Negative.", "positive")
    teacher = ScriptedTeacher(script, concurrency=1, top_logprobs=0)
    rows = run(
        script, tmp_path, teacher=teacher, probabilities="votes", samples=3, rationales=False
    )
    assert rows["label"].tolist() == ["positive"] * 4
    assert rows["label_probs"][0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert "logprobs" not in teacher.seen[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"samples": 3}, "several samples are drawn by `probabilities: votes`"),
        ({"probabilities": "votes"}, "votes need at least 2"),
        ({"samples": 3, "mode": "cot", "temperature": 0.0}, "the same answer would be paid for"),
        ({"samples": 0, "mode": "cot"}, "samples is 0: it must be at least 1"),
        ({"probabilities": "guess"}, "probabilities is 'guess': choose"),
        ({"probabilities": "scoring"}, "use api: completions"),
        ({"calibration": "batches"}, "calibration is 'batches': choose"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_anything_is_asked(
    tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    teacher = ScriptedTeacher(sentiment)
    with pytest.raises(TaskError, match=message):
        run(sentiment, tmp_path, teacher=teacher, **how)
    assert teacher.seen == []


def scored_prompt(body: Body) -> Body:
    """As vLLM scores a prompt: one mapping per token, the prompt's own first."""
    prompt = body["prompt"]
    start, _, label = prompt.rpartition(" ")
    good = "love" in prompt.split("\n\n")[-1] or "lasts" in prompt.split("\n\n")[-1]
    probability = {"positive": 0.8 if good else 0.15, "negative": 0.1 if good else 0.75}[label]
    entry = {"logprob": math.log(probability), "rank": 1, "decoded_token": " " + label}
    return {
        "choices": [
            {
                "index": 0,
                "text": "\n",
                "finish_reason": "length",
                "prompt_logprobs": [
                    None,
                    {"5": {"logprob": -3.0, "rank": 9, "decoded_token": start[-1]}},
                    {"7": entry},
                ],
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 1},
    }


def test_each_label_s_whole_text_can_be_scored(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(scored_prompt, api="completions", prefill=True)
    rows = run(
        scored_prompt, tmp_path, teacher=teacher, probabilities="scoring", rationales=False,
        calibration=None,
    )  # fmt: skip
    assert rows["label"].tolist() == ["negative", "positive", "positive", "negative"]
    assert rows["label_probs"][1].tolist() == pytest.approx([0.8 / 0.9, 0.1 / 0.9])
    assert (rows["label_source"][1], rows["off_label_mass"][1]) == ("scoring", pytest.approx(0.1))
    assert len(teacher.seen) == 2 * len(REVIEWS)
    assert teacher.seen[0]["prompt"].endswith((": positive", ": negative"))


def test_a_server_that_does_not_score_prompts_is_told_so(tmp_path: Path) -> None:
    def deaf(body: Body) -> Body:
        choice = {"index": 0, "text": "x", "finish_reason": "length"}
        return {"choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 1}}

    teacher = ScriptedTeacher(deaf, api="completions", prefill=True)
    with pytest.raises(TeacherError, match="was asked to score a prompt's tokens and did not"):
        run(deaf, tmp_path, teacher=teacher, probabilities="scoring")


class Obedient(ScriptedTeacher):
    """Is held to a list of answers in vLLM's way."""

    dialect = "vllm"


def held(body: Body) -> Body:
    choices = body["structured_outputs"]["choice"]
    if "positive" not in choices:
        return says(choices[0])
    return scores(
        {"positive": 0.7, "negative": 0.3} if "love" in question(body) else {"negative": 1.0}
    )


def test_a_teacher_can_be_held_to_the_labels(tmp_path: Path) -> None:
    teacher = Obedient(held)
    rows = run(
        held,
        tmp_path,
        teacher=teacher,
        probabilities="constrained",
        rationales=False,
        calibration=None,
    )
    assert rows["label"].tolist() == ["negative", "positive", "negative", "negative"]
    assert rows["label_probs"][1].tolist() == pytest.approx([0.7, 0.3])
    assert rows["label_source"].tolist() == ["constrained"] * 4
    assert rows["off_label_mass"].isna().all()
    assert teacher.seen[-1]["structured_outputs"] == {"choice": ["positive", "negative"]}


def test_a_server_that_ignores_the_constraint_is_found_out_before_the_first_row(
    tmp_path: Path,
) -> None:
    teacher = Obedient(sentiment)
    with pytest.raises(TeacherError):
        run(sentiment, tmp_path, teacher=teacher, probabilities="constrained")
    assert not any("strap" in question(body) for body in teacher.seen)


def test_one_answer_outside_the_constraint_is_an_error_of_its_row(tmp_path: Path) -> None:
    def script(body: Body) -> Body:
        return scores({"mixed": 1.0}) if "strap" in question(body) else held(body)

    rows = run(
        script, tmp_path, teacher=Obedient(script), probabilities="constrained", rationales=False,
        calibration=None,
    )  # fmt: skip
    assert rows["error"][0].startswith("constraint: the answer was constrained to")
    assert rows["label"][1] == "positive"


def test_contextual_calibration_divides_by_what_is_made_of_empty_inputs(tmp_path: Path) -> None:
    def leaning(body: Body) -> Body:
        if question(body) in ("Review: N/A", "Review: [MASK]", "Review: "):
            return scores({"positive": 0.8, "negative": 0.2})
        return scores({"positive": 0.7, "negative": 0.3})

    raw = run(leaning, tmp_path, rationales=False, calibration=None)
    rows = run(leaning, tmp_path, rationales=False, calibration="contextual")
    assert raw["label"].tolist() == ["positive"] * 4
    assert rows["label"].tolist() == ["negative"] * 4
    expected = [0.7 / 0.8, 0.3 / 0.2]
    assert rows["label_probs"][0].tolist() == pytest.approx([e / sum(expected) for e in expected])
    with pytest.raises(TaskError, match="needs one label set for all rows"):
        run(leaning, tmp_path, task=QUIZ, calibration="contextual")


def test_several_rationales_are_asked_for_and_kept(tmp_path: Path) -> None:
    reasons = Wavering("It broke.", "It came late.", "It broke.")

    def script(body: Body) -> Any:
        return reasons(body) if "\nLabel:" in question(body) else sentiment(body)

    teacher = ScriptedTeacher(script, concurrency=1)
    rows = run(script, tmp_path, teacher=teacher, rationales=3)
    assert rows["rationale"][0] == "It broke."
    assert rows["rationales"][0].tolist() == ["It broke.", "It came late."]
    assert sum("\nLabel:" in question(body) for body in teacher.seen) == 3 * len(REVIEWS)


def test_what_a_reasoning_teacher_thought_can_become_the_rationale(tmp_path: Path) -> None:
    def thinks(body: Body) -> Body:
        answer = thoughtful(body)
        text = answer["choices"][0]["message"]["content"].rsplit(". ", 1)[1]
        answer["choices"][0]["message"]["content"] = (
            f"<think>A  broken\nstrap is bad.</think>{text}"
        )
        return answer

    rows = run(thinks, tmp_path, keep_reasoning=True, **COT)
    assert rows["label"].tolist() == ["negative", "positive", "positive", "negative"]
    assert rows["rationale"][0] == "A broken strap is bad."
    plain = run(thinks, tmp_path, **COT)
    assert plain["rationale"][0] is None

    def in_a_field(body: Body) -> Body:
        answer = thoughtful(body)
        answer["choices"][0]["message"]["reasoning_content"] = "Straps should hold."
        return answer

    rows = run(in_a_field, tmp_path / "2", keep_reasoning=True, **COT)
    assert rows["rationale"][0] == "Straps should hold."


def test_thinking_that_used_up_all_tokens_is_truncated_and_no_label(tmp_path: Path) -> None:
    rows = run(lambda body: says("<think>Well, the strap is positive", "length"), tmp_path, **COT)
    assert rows["label"].isna().all()
    assert rows["error"][0].startswith("truncated: ")
    assert "all of it thinking" in rows["error"][0]


POOL = tuple(
    Demonstration(input=f"Review: {text}", label=label, rationale=f"Because {text.lower()}")
    for text, label in (
        ("Battery died at noon.", "negative"),
        ("Lovely bright screen.", "positive"),
        ("Strap snapped.", "negative"),
        ("Fast delivery.", "positive"),
    )
)


def shown(body: Body) -> list[str]:
    return [m["content"] for m in body["messages"] if m["role"] == "user"][:-1]


def test_random_demonstrations_differ_by_row_and_stay_the_same_for_a_row(tmp_path: Path) -> None:
    rule = RandomDemonstrations(pool=POOL, shots=2, seed=1)
    first, second = ScriptedTeacher(thoughtful), ScriptedTeacher(thoughtful)
    run(thoughtful, tmp_path / "1", teacher=first, demonstrations=rule, **COT)
    run(thoughtful, tmp_path / "2", teacher=second, demonstrations=rule, **COT)
    by_row = {question(body): shown(body) for body in first.seen}
    assert by_row == {question(body): shown(body) for body in second.seen}
    assert len({tuple(each) for each in by_row.values()}) > 1
    assert {len(each) for each in by_row.values()} == {2}


def words(texts: Any) -> list[list[float]]:
    return [
        [float(word in text.lower()) for word in ("battery", "screen", "strap", "arrived")]
        for text in texts
    ]


def test_similar_demonstrations_stand_nearest_to_the_question(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(thoughtful)
    rule = SimilarDemonstrations(pool=POOL, shots=2, encode=words)
    run(thoughtful, tmp_path, teacher=teacher, demonstrations=rule, **COT)
    last = {question(body): shown(body)[-1] for body in teacher.seen}
    assert last["Review: The strap broke on day two."] == "Review: Strap snapped."
    assert last["Review: The battery lasts for weeks."] == "Review: Battery died at noon."


def test_a_row_of_the_pool_is_never_shown_its_own_answer() -> None:
    texts = [each.input for each in POOL]
    for rule in (
        RandomDemonstrations(pool=POOL, shots=3),
        SimilarDemonstrations(pool=POOL, shots=3, encode=words),
    ):
        for text, chosen in zip(texts, rule.choose(texts), strict=True):
            assert text not in [each.input for each in chosen]
            assert len(chosen) == 3


def test_a_pool_smaller_than_what_is_shown_is_refused() -> None:
    with pytest.raises(TaskError, match="5 demonstrations a row are wanted of a pool of 4"):
        RandomDemonstrations(pool=POOL, shots=5)
    broken = SimilarDemonstrations(pool=POOL, shots=2, encode=lambda texts: [1.0] * len(texts))
    with pytest.raises(TaskError, match="one finite vector a text is needed"):
        broken.choose(["A text."])


def test_what_is_redacted_is_not_sent_and_the_row_keeps_its_text(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(thoughtful)
    notes: list[str] = []

    def redact(text: str) -> tuple[str, dict[str, int]]:
        hidden = text.replace("strap", "<THING>")
        return hidden, {"THING": 1} if hidden != text else {}

    rows = run(
        thoughtful, tmp_path, teacher=teacher, redact=redact,
        on_progress=lambda progress: notes.extend(progress.notes), **COT,
    )  # fmt: skip
    assert "strap" not in orjson.dumps(teacher.seen).decode()
    assert rows["input"][0] == "Review: The strap broke on day two."
    assert "redacted before sending, in 1 of 4 rows: 1 THING" in notes
    assert b"strap" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*.jsonl"))


def test_a_row_that_cannot_be_redacted_is_not_sent(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(thoughtful)

    def redact(text: str) -> tuple[str, dict[str, int]]:
        if "strap" in text:
            raise RowError("it took too long", kind="redaction")
        return text, {}

    rows = run(thoughtful, tmp_path, teacher=teacher, redact=redact, **COT)
    assert rows["error"][0] == "redaction: it took too long"
    assert rows["label"].tolist() == [None, "positive", "positive", "negative"]
    assert len(teacher.seen) == 3


GOLD = ["negative", "positive", "positive", "negative"]


def explains(body: Body) -> Body:
    """Explains every label it is shown, and is led by the explanation."""
    text = question(body)
    if "\nLabel:" in text:
        return says(
            "The buyer is pleased." if "positive" in text.rsplit("\n", 1)[1] else "It failed."
        )
    pleased = "Think of this: The buyer is pleased." in text
    return says(f"Well. So the answer is {'positive' if pleased else 'negative'}.")


def test_the_teacher_writes_demonstrations_and_those_that_lead_it_right_are_kept(
    tmp_path: Path,
) -> None:
    teacher = ScriptedTeacher(explains)
    written = write_demonstrations(
        reviews(gold=GOLD, split=["train"] * 4), SENTIMENT, teacher, wanted=2, store=tmp_path
    )
    assert sorted(d.label for d in written.demonstrations) == ["negative", "positive"]
    assert all(d.written for d in written.demonstrations)
    found = {d.label: d.rationale for d in written.demonstrations}
    assert found == {"negative": "It failed.", "positive": "The buyer is pleased."}
    assert written.tried == 2


def test_an_explanation_that_leads_elsewhere_is_not_kept(tmp_path: Path) -> None:
    def stubborn(body: Body) -> Body:
        return says("It failed." if "\nLabel:" in question(body) else "So the answer is negative.")

    written = write_demonstrations(
        reviews(gold=GOLD), SENTIMENT, ScriptedTeacher(stubborn), wanted=4, store=tmp_path
    )
    assert [d.label for d in written.demonstrations] == ["negative", "negative"]
    assert (written.tried, written.failures) == (4, {"wrong_answer": 2})


def test_test_rows_are_never_shown_with_their_gold(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(explains)
    with pytest.raises(TaskError, match="rows of the split 'test'"):
        write_demonstrations(
            reviews(gold=GOLD, split=["train", "test", "train", "train"]), SENTIMENT, teacher,
            store=tmp_path,
        )  # fmt: skip
    assert teacher.seen == []


def test_free_text_is_voted_on_by_value(tmp_path: Path) -> None:
    script = Wavering("So the answer is 1,200.", "So the answer is 1200.0", "So the answer is 7.")
    task = Task(instruction="Add up.", template="{{ text }}")
    teacher = ScriptedTeacher(script, concurrency=1)
    rows = run(script, tmp_path, task=task, teacher=teacher, samples=3, **COT)
    assert rows["label"].tolist() == ["1,200"] * 4
    assert rows["agreement"][0] == pytest.approx(2 / 3)
    assert rows["label_probs"].isna().all()


def test_a_json_answer_is_asked_for_shown_and_read(tmp_path: Path) -> None:
    task = Task(
        instruction="Decide whether a product review is positive or negative.",
        template="Review: {{ text }}",
        labels=("positive", "negative"),
        answer=JsonField(field="verdict.label", rationale="why"),
        demonstrations=(
            Demonstration(input="Review: Strap snapped.", label="negative", rationale="It broke."),
        ),
    )

    def script(body: Body) -> Body:
        said = "positive" if "love" in question(body) else "negative"
        return says(orjson.dumps({"why": "As it says.", "verdict": {"label": said}}).decode())

    teacher = ScriptedTeacher(script)
    rows = run(script, tmp_path, task=task, teacher=teacher, **COT)
    assert rows["label"].tolist() == ["negative", "positive", "negative", "negative"]
    assert rows["rationale"][0] == "As it says."
    system, _, shown, _ = (message["content"] for message in teacher.seen[0]["messages"])
    assert "JSON object that holds the answer in 'verdict.label'" in system
    assert orjson.loads(shown) == {"why": "It broke.", "verdict": {"label": "negative"}}


def test_a_number_is_asked_for_in_digits(tmp_path: Path) -> None:
    task = Task(instruction="Add up.", template="{{ text }}", answer=Number())
    teacher = ScriptedTeacher(lambda body: says("Two and two. So the answer is 4 apples."))
    rows = run(teacher.script, tmp_path, task=task, teacher=teacher, **COT)
    assert rows["label"].tolist() == ["4"] * 4
    assert "a number in digits" in teacher.seen[0]["messages"][0]["content"]


def test_a_demonstration_that_would_be_read_otherwise_is_refused(tmp_path: Path) -> None:
    task = Task(
        instruction="Name the code.",
        template="{{ text }}",
        answer=Pattern(pattern=r"code=(\w+)"),
        demonstrations=(Demonstration(input="A", label="x7", rationale="It says so."),),
    )
    teacher = ScriptedTeacher(lambda body: says("code=x1"))
    with pytest.raises(
        TaskError, match=r"demonstration 1 shows the answer .* would be read as None"
    ):
        run(teacher.script, tmp_path, task=task, teacher=teacher, **COT)
    assert teacher.seen == []
