"""New rows from a teacher: what is asked, what is taken, what is not, and that a second run is free."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from scripted_teacher import AT_ONCE, Body, ScriptedTeacher, says

from labelers import Demonstration, RowError, Task, TaskError, TeacherError
from labelers.generation import generate
from labelers.generation_agreement import agreement
from labelers.generation_results import GENERATED_COLUMNS, Generation
from labelers.novelty import Forbidden, Nearness, is_text, words

TASK = Task(
    instruction="Decide whether a product review is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
    answer_name="Sentiment",
)
SEEDS = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d", "e"],
        "input": [
            "Review: The strap broke on day two.",
            "Review: It arrived scratched and late.",
            "Review: My kettle leaks all over the table.",
            "Review: I love the sharp screen.",
            "Review: The battery lasts for weeks.",
        ],
        "label": ["negative", "negative", "negative", "positive", "positive"],
        "split": "train",
    }
)
NEW = [
    "The zip jams every single morning.",
    "Support never answered my three letters.",
    "Its fan howls like a jet engine.",
    "Paint came off within an hour.",
    "Nobody could find the missing cable.",
    "Two buttons stopped working overnight.",
    "Shipping took months and cost plenty.",
    "This lamp flickers whenever somebody walks past.",
]


def prompt_of(body: Body) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    return "\n".join(message["content"] for message in body["messages"])


def in_turn(texts: list[str], finish_reason: str = "stop") -> Any:
    """A script that says one text after another, then starts again."""
    said = 0

    def script(body: Body) -> Body:
        nonlocal said
        said += 1
        return says(texts[(said - 1) % len(texts)], finish_reason)

    return script


def write(
    script: Any, store: Path, *, teacher: ScriptedTeacher | None = None, **how: Any
) -> Generation:
    how.setdefault("seeds", SEEDS)
    how.setdefault("wanted", {"negative": 3})
    task = how.pop("task", TASK)
    return generate(task, teacher or ScriptedTeacher(script), store=store, limits=AT_ONCE, **how)


def test_rows_are_written_with_their_provenance(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))
    result = write(None, tmp_path, teacher=teacher)
    rows = result.dataset.to_pandas()
    assert list(rows.columns) == list(GENERATED_COLUMNS)
    assert rows["input"].tolist() == [f"Review: {text}" for text in NEW[:3]]
    assert set(rows["source"]) == {"generated"}
    assert set(rows["split"]) == {"train"}
    assert set(rows["generated_for"]) == {"negative"}
    assert set(rows["generated_by"]) == {"scripted"}
    assert set(rows["seeded_by"]) == {"label"}
    assert "label" not in rows.columns  # intended is not labelled
    assert rows["id"].is_unique
    for shown in rows["generated_from"]:
        assert sorted(shown) == ["a", "b", "c"]
    assert result.report.accepted == result.report.wanted == 3
    assert result.report.by_label == {"negative": 3}
    assert result.report.shortfall == {}
    assert result.rejections == ()
    assert result.report.asked == result.report.requests == 3


def test_the_exchange_behind_a_row_is_in_the_store(tmp_path: Path) -> None:
    from labelers import Store

    result = write(in_turn(NEW), tmp_path)
    with Store(tmp_path) as store:
        stored = {exchange.key: exchange for exchange in store.exchanges()}
    for row in result.dataset:
        said = stored[row["generated_key"]].response["choices"][0]["message"]["content"]
        assert row["input"] == f"Review: {said}"


def test_a_base_model_is_shown_rows_under_their_labels_and_stopped_at_the_next(
    tmp_path: Path,
) -> None:
    teacher = ScriptedTeacher(
        lambda body: {
            "choices": [{"text": " The zip jams every morning.", "finish_reason": "stop"}]
        },
        api="completions",
    )
    result = write(None, tmp_path, teacher=teacher, wanted={"positive": 1})
    (body,) = teacher.seen
    blocks = body["prompt"].split("\n\n")
    assert blocks[0] == TASK.instruction
    assert sorted(blocks[1:3]) == [
        "Sentiment: positive\nReview: I love the sharp screen.",
        "Sentiment: positive\nReview: The battery lasts for weeks.",
    ]
    assert blocks[3:] == ["Sentiment: positive\nReview:"]
    assert body["stop"] == ["\n"]
    assert body["temperature"] == 0.9
    assert result.dataset["input"][0] == "Review: The zip jams every morning."


def test_a_chat_model_is_told_the_label_and_the_attributes(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))
    result = write(
        None, tmp_path, teacher=teacher, wanted={"negative": 8}, shots=1,
        attributes={"tone": ["angry", "dry"], "length": ["one sentence"]},
    )  # fmt: skip
    asked = [body["messages"][-1]["content"].rsplit("\n\n", 1)[-1] for body in teacher.seen]
    assert set(asked) == {
        "Write one new text. Sentiment: negative; tone: angry; length: one sentence.",
        "Write one new text. Sentiment: negative; tone: dry; length: one sentence.",
    }
    drawn = [json.loads(value) for value in result.dataset["generated_attributes"]]
    assert {value["tone"] for value in drawn} == {"angry", "dry"}


def test_gold_and_test_rows_are_never_shown(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))
    seeds = SEEDS.assign(gold="a human's word")
    write(None, tmp_path, teacher=teacher, seeds=seeds, forbidden=["Review: A secret test text."])
    assert teacher.seen
    for body in teacher.seen:
        assert "secret" not in prompt_of(body)
        assert "human's word" not in prompt_of(body)


def test_test_rows_among_the_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="rows of the split 'test': show train rows only"):
        write(in_turn(NEW), tmp_path, seeds=SEEDS.assign(split=["train"] * 4 + ["test"]))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "empty"),
        ("Review:", "empty"),
        ("The strap broke on day two!", "near_duplicate"),
        ("the strap broke on day TWO yesterday", "near_duplicate"),
        ("Sadly the kettle caught fire", "near_test"),
        ("Bad.", "too_short"),
        (" ".join(f"word{chr(97 + i)}" for i in range(26)), "too_long"),
        ("8 7 6 5 4 3 2 1 0 !!! ???", "not_text"),
        ("no no no no no no no no no no", "not_text"),
        ("Here it is: Sentiment: negative, as you wished", "echo"),
        ("Decide whether a product review is positive or negative", "echo"),
    ],
)
def test_what_is_no_new_text_is_rejected_by_reason(said: str, reason: str, tmp_path: Path) -> None:
    result = write(
        in_turn([said]), tmp_path, wanted={"negative": 1}, max_requests=2,
        forbidden=["Review: Sadly, the kettle caught fire."],
    )  # fmt: skip
    assert len(result.dataset) == 0
    assert result.report.rejected == {reason: 2}
    assert result.report.shortfall == {"negative": 1}


def test_a_text_that_was_cut_off_is_rejected(tmp_path: Path) -> None:
    result = write(in_turn(NEW, "length"), tmp_path, wanted={"negative": 1})
    assert result.report.rejected == {"too_long": 4}


def test_a_near_duplicate_names_its_twin_and_how_near_it_is(tmp_path: Path) -> None:
    result = write(
        in_turn([NEW[0], "The zip jams every single evening."]), tmp_path, wanted={"negative": 2},
        max_requests=2,
    )  # fmt: skip
    (taken,) = result.dataset
    (rejection,) = result.rejections
    assert rejection.reason == "near_duplicate"
    assert rejection.related_id == taken["id"]
    assert rejection.similarity == pytest.approx(5 / 7)
    assert rejection.text == "The zip jams every single evening."


def test_demonstrations_are_not_repeated_and_fill_up_where_seeds_are_few(tmp_path: Path) -> None:
    shown = Demonstration(input="Review: Returned it twice already.", label="negative")
    task = Task(
        instruction=TASK.instruction,
        template=TASK.template,
        labels=TASK.labels,
        demonstrations=(shown,),
    )
    teacher = ScriptedTeacher(in_turn(["Returned it twice already!", *NEW]))
    result = write(
        None, tmp_path, teacher=teacher, task=task, seeds=SEEDS[3:], wanted={"negative": 1}
    )
    assert result.report.rejected == {"near_duplicate": 1}
    assert result.dataset["generated_from"][0] == ["demonstration-1"]
    assert "Returned it twice" in prompt_of(teacher.seen[0])


def test_a_rejected_text_is_written_anew_until_enough_are_there(tmp_path: Path) -> None:
    said = [NEW[0], NEW[0], NEW[1], "Bad.", NEW[2]]
    result = write(in_turn(said), tmp_path, teacher=ScriptedTeacher(in_turn(said), concurrency=1))
    assert [text.removeprefix("Review: ") for text in result.dataset["input"]] == NEW[:3]
    assert result.report.rejected == {"near_duplicate": 1, "too_short": 1}
    assert result.report.requests == 5


def test_a_teacher_that_says_one_thing_forever_ends_at_the_cap(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn([NEW[0]]))
    result = write(None, tmp_path, teacher=teacher, wanted=10, max_requests=15)
    assert len(teacher.seen) == result.report.requests == 15
    assert result.report.accepted == 1
    assert sum(result.report.shortfall.values()) == 19


def test_a_request_that_fails_costs_no_other(tmp_path: Path) -> None:
    answers = in_turn(NEW)

    def script(body: Body) -> Any:
        answer = answers(body)
        refused = NEW[1] in orjson.dumps(answer).decode()
        return RowError("the filter objects", kind="content_filter") if refused else answer

    result = write(script, tmp_path)
    assert result.report.accepted == 3
    assert result.report.rejected == {"error": 1}
    assert result.rejections[0].text == "content_filter: the filter objects"


def test_an_unreachable_teacher_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no such model"):
        write(lambda body: TeacherError("no such model"), tmp_path)


def test_a_second_run_asks_nothing_and_writes_the_same(tmp_path: Path) -> None:
    first = write(in_turn(NEW), tmp_path, shots=1)
    idle = ScriptedTeacher(lambda body: AssertionError("asked again"))
    second = write(None, tmp_path, teacher=idle, shots=1)
    assert idle.seen == []
    assert idle.starts == 0
    assert second.report.reused == 3
    assert second.dataset.to_pandas().equals(first.dataset.to_pandas())


def test_equal_requests_are_stored_as_samples_of_their_own(tmp_path: Path) -> None:
    # One seed and nothing to vary: all requests are equal, and all must be asked.
    teacher = ScriptedTeacher(in_turn(NEW))
    result = write(None, tmp_path, teacher=teacher, seeds=SEEDS[:1], wanted={"negative": 5})
    assert len(teacher.seen) == 5
    assert len({orjson.dumps(body) for body in teacher.seen}) == 1
    assert result.dataset["input"][:] == [f"Review: {text}" for text in NEW[:5]]


class Shuffling(ScriptedTeacher):
    """Answers by the request alone, but in another order than asked."""

    async def send(self, path: str, body: bytes) -> bytes:
        import asyncio

        answer = await super().send(path, body)
        for _ in range(random.Random(body).randrange(7)):
            await asyncio.sleep(0)
        return answer


def test_rows_do_not_depend_on_which_answer_comes_first(tmp_path: Path) -> None:
    def script(body: Body) -> Body:
        return says(NEW[random.Random(prompt_of(body)).randrange(len(NEW))])

    def rows(concurrency: int) -> pd.DataFrame:
        teacher = Shuffling(script, concurrency=concurrency)
        result = write(
            None, tmp_path / str(concurrency), teacher=teacher, wanted={"negative": 4}, shots=2,
            attributes={"mark": [str(i) for i in range(40)]}, max_requests=30,
        )  # fmt: skip
        frame: pd.DataFrame = result.dataset.to_pandas()
        return frame

    one, seven = rows(1), rows(7)
    assert len(one) == 4
    assert one.equals(seven)


def test_another_seed_draws_other_requests(tmp_path: Path) -> None:
    prompts = []
    for seed in (0, 1):
        teacher = ScriptedTeacher(in_turn(NEW))
        write(None, tmp_path, teacher=teacher, shots=2, wanted={"negative": 6}, seed=seed)
        prompts.append([prompt_of(body) for body in teacher.seen])
    assert prompts[0] != prompts[1]


def test_per_cluster_divides_the_rows_and_shows_one_cluster_at_a_time(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))
    seeds = SEEDS.assign(cluster=[7, 7, 9, 9, 9])
    result = write(
        None,
        tmp_path,
        teacher=teacher,
        seeds=seeds,
        wanted={"negative": 5},
        per_cluster=True,
        shots=2,
    )
    rows = result.dataset.to_pandas()
    assert rows["generated_cluster"].tolist() == [7, 7, 7, 9, 9]
    assert result.report.by_cluster == {7: 3, 9: 2}
    for cluster, shown in zip(rows["generated_cluster"], rows["generated_from"], strict=True):
        assert set(shown) <= set(seeds.loc[seeds["cluster"] == cluster, "id"])
    # Cluster 9 has one negative row: a positive one of the same cluster is shown with it, labelled so.
    last = prompt_of(teacher.seen[-1])
    assert "(Sentiment: positive)" in last
    assert "(Sentiment: negative):\nMy kettle leaks all over the table." in last


def test_seeds_without_a_label_are_compared_with_and_not_shown(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn([NEW[0], NEW[1]]))
    seeds = pd.concat(
        [SEEDS, pd.DataFrame({"id": ["x"], "input": [f"Review: {NEW[0]}"], "split": "train"})]
    )
    result = write(None, tmp_path, teacher=teacher, seeds=seeds, wanted={"negative": 1}, shots=8)
    assert result.dataset["input"][:] == [f"Review: {NEW[1]}"]
    assert result.rejections[0].related_id == "x"
    assert NEW[0] not in prompt_of(teacher.seen[0])


def test_free_text_needs_a_number_only(tmp_path: Path) -> None:
    task = Task(instruction="Solve the problem.", template="{{ question }}")
    seeds = pd.DataFrame(
        {"input": ["Ann has two apples and eats one.", "Bob buys five pens today."]}
    )
    teacher = ScriptedTeacher(
        in_turn(["Carl sold nine red bikes.", "Dora baked four cakes early."])
    )
    result = write(None, tmp_path, teacher=teacher, task=task, seeds=seeds, wanted=2)
    assert result.report.accepted == 2
    assert result.dataset["generated_for"][:] == [None, None]
    assert "Label" not in prompt_of(teacher.seen[0])


def test_texts_of_several_lines_end_where_the_next_example_would_begin(tmp_path: Path) -> None:
    task = Task(instruction="Sort the note.", template="{{ note }}", labels=("a", "b"))
    seeds = pd.DataFrame({"input": ["first line here\nsecond line here"] * 2, "label": ["a", "b"]})
    teacher = ScriptedTeacher(
        lambda body: {
            "choices": [
                {
                    "text": " one new note\nwith two lines\n\nLabel: a\nText: and more",
                    "finish_reason": "stop",
                }
            ]
        },
        api="completions",
    )
    result = write(None, tmp_path, teacher=teacher, task=task, seeds=seeds, wanted={"a": 1})
    assert teacher.seen[0]["stop"] == ["\n\n"]
    assert result.dataset["input"][:] == ["one new note\nwith two lines"]


@pytest.mark.parametrize(
    "said",
    [
        '"The zip jams every single morning."',
        "- The zip jams every single morning.",
        "1. Review: The zip jams every single morning.",
        "“The zip jams every single morning.”\n\nExample 2 (Sentiment: negative):\nMore",
        "The zip jams every single morning.\nSentiment: negative",
    ],
)
def test_what_stands_around_a_text_is_taken_off(said: str, tmp_path: Path) -> None:
    result = write(in_turn([said]), tmp_path, wanted={"negative": 1})
    assert result.dataset["input"][:] == ["Review: The zip jams every single morning."]


def test_what_the_template_puts_after_the_text_is_put_back(tmp_path: Path) -> None:
    # As a block of YAML ends.
    task = Task(
        instruction="Sort it.", template="Text: {{ text }}\nWhich one?\n", labels=("a", "b")
    )
    seeds = pd.DataFrame(
        {
            "input": ["Text: one apple pie\nWhich one?", "Text: two old shoes\nWhich one?"],
            "label": ["a", "b"],
        }
    )
    teacher = ScriptedTeacher(in_turn(["three new hats\nWhich one?"]))
    result = write(None, tmp_path, teacher=teacher, task=task, seeds=seeds, wanted={"a": 1})
    assert "Which one?" not in prompt_of(teacher.seen[0])
    assert result.dataset["input"][:] == ["Text: three new hats\nWhich one?"]


def test_personal_data_in_seeds_is_taken_out_before_it_is_shown(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))

    def redact(text: str) -> tuple[str, Counter[str]]:
        return text.replace("kettle", "<THING_1>"), Counter({"THING": text.count("kettle")})

    result = write(None, tmp_path, teacher=teacher, redact=redact)
    shown = "\n".join(prompt_of(body) for body in teacher.seen)
    assert "kettle" not in shown
    assert "<THING_1> leaks" in shown
    assert result.report.redacted == {"THING": 1}


def test_a_seed_that_cannot_be_redacted_is_not_shown(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))

    def redact(text: str) -> tuple[str, Counter[str]]:
        if "kettle" in text:
            raise RowError("took too long", kind="redaction")
        return text, Counter()

    result = write(None, tmp_path, teacher=teacher, redact=redact, shots=1, wanted={"negative": 5})
    assert result.report.rejected["error"] >= 1
    assert result.report.accepted == 5
    assert not any("kettle" in prompt_of(body) for body in teacher.seen)


def test_progress_counts_rows_taken_and_texts_rejected(tmp_path: Path) -> None:
    told: list[Any] = []
    write(in_turn([NEW[0], "Bad.", NEW[1], NEW[2]]), tmp_path, on_progress=told.append)
    assert {progress.phase for progress in told} == {"generate"}
    assert [progress.total for progress in told] == [3, 3, 3, 3]
    assert (told[-1].done, told[-1].failed, told[-1].asked) == (3, 1, 4)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"wanted": {"mixed": 3}}, r"wanted names 'mixed', which is not one of \['positive', 'neg"),
        ({"wanted": {"negative": 0}}, "0 rows are wanted of 'negative'"),
        ({"wanted": {}}, "wanted is empty"),
        ({"seeds": SEEDS.drop(columns="label")}, "the seeds lack the column 'label'"),
        ({"seeds": SEEDS.assign(label="mixed")}, "seed 0 has the label 'mixed'"),
        ({"seeds": SEEDS.assign(input=None)}, "seed 0 has the input None"),
        ({"seeds": SEEDS[3:]}, "no seed has the label 'negative'"),
        ({"per_cluster": True}, "the seeds lack the column 'cluster'"),
        ({"attributes": {"tone": "angry"}}, "give a list of at least one text"),
        ({"near_duplicate": 7}, "near_duplicate is 7: above 0 and up to 1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"seeded_by": "me"}, "choose 'gold' or 'label'"),
        ({"task": Task(instruction="Choose.", choices="options")}, "input only"),
        ({"task": Task(instruction="Solve."), "wanted": {"a": 1}}, "the task has no label set"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_first_request(
    how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    teacher = ScriptedTeacher(in_turn(NEW))
    with pytest.raises(TaskError, match=message):
        write(None, tmp_path, teacher=teacher, **how)
    assert teacher.seen == []


def test_agreement_counts_rows_that_came_out_as_intended() -> None:
    generated = pd.DataFrame(
        {"id": list("abcd"), "generated_for": ["negative", "negative", "negative", "positive"]}
    )
    labelled = pd.DataFrame(
        {"id": list("dcbaz"), "label": ["positive", None, "positive", "negative", "negative"]}
    )
    result = agreement(generated, labelled)
    assert (result.rows, result.labelled, result.agreed) == (4, 3, 2)
    assert result.share == pytest.approx(2 / 3)
    # Wilson's interval of 2 in 3, as in any table of it.
    assert result.low == pytest.approx(0.2077, abs=1e-4)
    assert result.high == pytest.approx(0.9385, abs=1e-4)
    assert result.confusion == {
        "negative": {"negative": 1, "positive": 1, "(none)": 1},
        "positive": {"positive": 1},
    }


def test_agreement_of_rows_that_were_not_labelled_is_refused() -> None:
    generated = pd.DataFrame({"id": ["a"], "generated_for": ["negative"]})
    with pytest.raises(TaskError, match="none of the 1 generated rows is among the 1 labelled"):
        agreement(generated, pd.DataFrame({"id": ["b"], "label": ["negative"]}))


def test_nothing_labelled_gives_no_share() -> None:
    generated = pd.DataFrame({"id": ["a"], "generated_for": ["negative"]})
    result = agreement(generated, pd.DataFrame({"id": ["a"], "label": [None]}))
    assert (result.labelled, result.share, result.low) == (0, None, None)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_the_nearest_text_is_found_exactly(threshold: float) -> None:
    source = random.Random(3)
    vocabulary = [f"w{chr(97 + i)}" for i in range(18)]
    texts = [" ".join(source.choices(vocabulary, k=source.randrange(1, 9))) for _ in range(300)]
    index = Nearness(threshold)
    for i, text in enumerate(texts[:200]):
        index.add(str(i), text)

    def jaccard(one: str, other: str) -> float:
        a, b = set(one.split()), set(other.split())
        return len(a & b) / len(a | b)

    found_some = False
    for text in texts[200:]:
        best = max(jaccard(text, other) for other in texts[:200])
        found = index.nearest(text)
        if best >= threshold:
            assert found is not None
            assert found[1] == pytest.approx(best)
            assert jaccard(text, texts[int(found[0])]) == pytest.approx(best)
            found_some = True
        else:
            assert found is None
    assert found_some


def test_a_short_test_text_within_a_longer_one_is_found_and_kept_as_hashes_only() -> None:
    text = "the lens cap of this camera falls off whenever it is carried in a bag"
    banned = Forbidden([text, "Great!"], 0.7)
    longer = f"I bought two last year for a wedding and, to be honest, {text}, so both went back to the shop"
    assert banned.similarity(longer) == 1.0
    assert banned.similarity("GREAT") == 1.0
    assert banned.similarity("I bought two last year for a wedding") is None
    assert "camera" not in repr([vars(banned), vars(banned._near)])


def test_words_and_texts_of_other_scripts() -> None:
    assert words("Größe: ＡＢＣ 12") == ["grösse", "abc", "12"]
    assert words("電池很好") == ["電", "池", "很", "好"]
    assert is_text("電池很好")
    assert not is_text("caf\ufffd au lait")
    assert not is_text("   ")


def test_the_example_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "generation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python no-run\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    teacher = ScriptedTeacher(
        lambda body: says(
            "It breaks. So the answer is negative."
            if "step by step" in prompt_of(body)
            else f"{NEW[random.Random(prompt_of(body)).randrange(len(NEW))]} {len(teacher.seen)}"
        )
    )
    names: dict[str, Any] = {
        "task": TASK, "teacher": teacher, "train": SEEDS, "test": SEEDS[:0],
    }  # fmt: skip
    exec(compile(code, "docs/generation.md", "exec"), names)  # noqa: S102
    assert names["written"].report.accepted > 0
    assert names["agreed"].share == 1.0
