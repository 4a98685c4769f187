"""Ways to ask a teacher, compared on the same train rows: fairly, cheaply, and with what they are worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teacher_server
from scripted_teacher import Body, ScriptedTeacher, question, says, scores
from small_recipe import review_rows, small_recipe, write_recipe

import curate
import labelers
from curate import assets
from curate.exceptions import CurateError, RecipeError
from curate.recipe import Recipe, parse_recipe
from curate.teacher_answers import draw_rows
from curate.teacher_scores import Judged, are_right, choose, difference, holm
from curate.teacher_variants import override, read_vary

PRAISE = {row["text"] for row in review_rows() if row["sentiment"] == "positive"}
TEACHER = {"engine": "llama.cpp", "model": "smollm2-135m", "api": "chat"}


def sentence(body: Body) -> str:
    """The review in a request's question."""
    return question(body).removeprefix("Review: ").split("\n")[0]


def prompt(body: Body) -> str:
    return json.dumps(body)


def answer(label: str, sure: float = 0.9) -> Body:
    other = "negative" if label == "positive" else "positive"
    return scores({label: sure, other: 1 - sure})


def truth(body: Body) -> str:
    return "positive" if sentence(body) in PRAISE else "negative"


def knows_when_asked_well(body: Body) -> Body:
    """Right where it is asked for the mood; else it takes every review for a complaint."""
    return answer(truth(body) if "mood" in prompt(body) else "negative")


@pytest.fixture
def teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ScriptedTeacher]]:
    """Every teacher of an in-process engine is a scripted one; ``scripts[0]`` is what it says."""
    made: list[ScriptedTeacher] = []
    (tmp_path / "tiny-t5").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assets, "resolve", lambda reference, kind, **_: reference)

    def make(**how: Any) -> ScriptedTeacher:
        made.append(
            ScriptedTeacher(
                SCRIPTS[how["name"]], name=how["name"], model=how["name"], prices=how["prices"]
            )
        )
        return made[-1]

    monkeypatch.setattr(labelers, "LlamaCpp", make)
    yield made
    SCRIPTS.clear()


SCRIPTS: dict[str, Callable[[Body], Any]] = {}


def recipe_at(
    folder: Path,
    script: Callable[[Body], Any] = knows_when_asked_well,
    *,
    rows: Any = None,
    **changes: Any,
) -> Path:
    SCRIPTS["smollm2-135m"] = script
    changes.setdefault("teacher", {})
    changes["teacher"] = {**TEACHER, **changes["teacher"]}
    recipe = small_recipe(**changes)
    recipe["teacher"].pop("column", None)
    recipe["teacher"]["engine"] = changes["teacher"]["engine"]
    return write_recipe(folder, recipe, rows=rows)


def asked(teachers: Sequence[ScriptedTeacher]) -> list[Body]:
    return [body for teacher in teachers for body in teacher.seen]


def entry(trials: curate.Trials, name: str) -> Any:
    return next(each for each in trials.variants if each["name"] == name)


# ------------------------------------------------------------------------------------ what is found


def test_the_better_name_of_the_answer_is_found_and_said_to_be_better(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path)
    trials = curate.teacher(
        path, vary=["task.instruction=Judge the mood.,Judge the style."], rows=40
    )
    assert trials.rows == 40
    assert [each["name"] for each in trials.variants] == [
        "base", "task.instruction=Judge the mood.", "task.instruction=Judge the style.",
    ]  # fmt: skip
    good, base = entry(trials, "task.instruction=Judge the mood."), entry(trials, "base")
    assert good["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    gold = trials.table().query("variant == 'base'")["gold"]
    assert base["accuracy"]["value"] == pytest.approx((gold == "negative").mean())
    assert base["accuracy"]["low"] < base["accuracy"]["value"] < base["accuracy"]["high"]
    found = good["difference"]
    assert found["verdict"] == "better"
    assert found["value"] == pytest.approx(1 - base["accuracy"]["value"])
    assert 0 < found["low"] < found["value"] < found["high"]
    same = entry(trials, "task.instruction=Judge the style.")["difference"]
    assert (same["value"], same["p_holm"], same["verdict"]) == (0.0, 1.0, "not shown")
    assert trials.winner == "task.instruction=Judge the mood."
    assert trials.overrides == ["task.instruction=Judge the mood."]
    assert "It is better than the recipe as it is by" in trials.verdict
    assert trials.wrong == []


def test_where_nothing_is_better_it_says_so_and_keeps_the_recipe(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path, lambda body: answer(truth(body)))
    trials = curate.teacher(path, vary=["task.instruction=Judge the mood."], rows=20)
    assert trials.winner == "base"
    assert trials.overrides == []
    assert "No variant is shown to be better than the recipe as it is, on 20 rows" in trials.verdict


def test_confidence_and_calibration_are_those_of_the_answers(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path, lambda body: answer("negative", 0.8), teacher={"calibration": None})
    base = entry(curate.teacher(path, rows=40), "base")
    right = base["accuracy"]["value"]
    assert base["confidence"] == pytest.approx(0.8)
    assert base["calibration_error"] == pytest.approx(abs(0.8 - right))
    assert base["brier"] == pytest.approx(right * 0.08 + (1 - right) * 1.28)
    assert base["macro_f1"] == pytest.approx(right / (1 + right))


def test_tokens_and_cost_are_counted_for_a_thousand_rows(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path, teacher={"prices": {"prompt": 2.0, "completion": 10.0}})
    trials = curate.teacher(path, vary=["teacher.prices=null"], rows=20)
    assert entry(trials, "base")["tokens"] == 60
    assert entry(trials, "base")["cost_usd"] == pytest.approx(1000 * (50 * 2e-6 + 10 * 10e-6))
    assert entry(trials, "teacher.prices=null")["cost_usd"] is None


def test_unread_answers_and_other_errors_count_as_wrong(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    def script(body: Body) -> Any:
        if "kettle" in sentence(body):
            return says("It is a kettle, and I cannot say.")
        if "lamp" in sentence(body):
            return labelers.RowError("this model reads no lamps", kind="bad_request")
        return says(f"The buyer says so. So the answer is {truth(body)}.")

    path = recipe_at(tmp_path, script, teacher={"mode": "cot"})
    trials = curate.teacher(path, rows=40)
    base, table = entry(trials, "base"), trials.table()
    texts = {row["id"]: row["text"] for row in read_rows(trials, path)}
    kettles = sum("kettle" in texts[i] for i in table["id"])
    lamps = sum("lamp" in texts[i] for i in table["id"])
    assert kettles > 0 < lamps
    assert base["errors"] == {"unread": kettles, "bad_request": lamps}
    assert base["unread"] == pytest.approx(kettles / 40)
    assert base["failed"] == pytest.approx(lamps / 40)
    assert base["accuracy"]["value"] == pytest.approx(1 - (kettles + lamps) / 40)
    assert base["brier"] is None
    assert table.loc[table["label"].isna(), "error"].str.contains("kettle|lamps").all()


def read_rows(trials: curate.Trials, path: Path) -> list[dict[str, Any]]:
    """The data with the ids that the toolkit gives it."""
    from curate.recipe import load_recipe
    from curate.sources import load_examples

    recipe = load_recipe(path)
    frame = load_examples(recipe.data, recipe.task.task(), folder=path.parent)
    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    return rows


# --------------------------------------------------------------------------------- which rows, which gold


def test_only_train_rows_with_gold_are_asked_about(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    rows = review_rows()
    for i, row in enumerate(rows):
        row["split"] = "test" if i % 3 == 0 else "train"
        row["sentiment"] = "" if i % 5 == 0 and i % 3 else row["sentiment"]
    path = recipe_at(tmp_path, rows=rows, data={"group": None})
    curate.teacher(path, vary=["task.instruction=Judge the mood."], rows=200)
    allowed = {r["text"] for r in rows if r["split"] == "train" and r["sentiment"]}
    assert {sentence(body) for body in asked(teachers)} == allowed
    assert "sentiment" not in {key for body in asked(teachers) for key in body}


def test_more_rows_keep_the_fewer_and_a_limit_keeps_them_too(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path)
    few = set(curate.teacher(path, rows=20).table()["id"])
    more = set(curate.teacher(path, rows=30).table()["id"])
    limited = set(curate.teacher(path, rows=20, overrides=["data.limit=25"]).table()["id"])
    assert (len(few), len(more)) == (20, 30)
    assert few < more
    assert limited == few


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": None}, "no train row has gold, and test rows are not used"),
        ({"limit": 12}, "12 train rows have gold .* at least 20 are needed"),
    ],
)
def test_too_little_gold_is_an_error_that_says_what_to_do(
    tmp_path: Path, teachers: list[ScriptedTeacher], change: dict[str, Any], message: str
) -> None:
    path = recipe_at(tmp_path, data=change)
    with pytest.raises(CurateError, match=message):
        curate.teacher(path)
    assert asked(teachers) == []


def test_rows_that_a_demonstration_answers_are_not_judged_on(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path)
    shown = next(row for row in read_rows(None, path) if row["split"] == "train")  # type: ignore[arg-type]
    demonstration = {"input": shown["input"].upper(), "label": shown["gold"]}
    trials = curate.teacher(
        path, rows=100, vary=[f"task.demonstrations=[[{json.dumps(demonstration)}]]"]
    )
    assert shown["id"] not in set(trials.table()["id"])
    assert any("1 train rows were left out" in note for note in trials.notes)
    assert trials.variants[1]["name"] == "task.demonstrations 1"
    assert shown["input"].upper() in prompt(asked(teachers)[-1])


def test_demonstrations_are_written_for_other_rows_than_those_judged_on(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    def script(body: Body) -> Body:
        if body.get("logprobs"):
            return answer(truth(body))
        if "Label:" in question(body):
            return says("The buyer says so in plain words.")
        return says(f"The buyer says so. So the answer is {truth(body)}.")

    path = recipe_at(tmp_path, script)
    trials = curate.teacher(path, rows=30, vary=["teacher.demonstrations={written: 2}"])
    assert entry(trials, "teacher.demonstrations 1")["problem"] is None
    texts = {row["id"]: row["text"] for row in read_rows(trials, path)}
    judged_on = {texts[i] for i in trials.table()["id"]}
    # What stands before the question are the demonstrations, written for other rows.
    written = [body for body in asked(teachers) if len(body["messages"]) > 3]
    assert written
    for body in written:
        shown = prompt({"messages": body["messages"][:-1]})
        assert not any(f'Review: {text}"' in shown for text in judged_on)
    assert len(trials.table().query("variant == 'teacher.demonstrations 1'")) == 30


def test_a_calibration_on_gold_is_judged_on_rows_it_was_not_fitted_on(
    tmp_path: Path, teachers: list[ScriptedTeacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[set[str], list[bool]]] = []
    calibrate = labelers.calibrate

    def spy(labelled: Any, gold: Any, **how: Any) -> Any:
        fits.append((set(labelled["group"]), how["fit_on"]))
        held = {g for g, fitted in zip(labelled["group"], how["fit_on"], strict=True) if not fitted}
        used = {g for g, fitted in zip(labelled["group"], how["fit_on"], strict=True) if fitted}
        assert not held & used
        return calibrate(labelled, gold, **how)

    monkeypatch.setattr(labelers, "calibrate", spy)
    # Sure of all, and right on a half: fitted on gold its confidence must fall.
    path = recipe_at(tmp_path, lambda body: answer("negative", 0.99), teacher={"calibration": None})
    trials = curate.teacher(path, rows=44, vary=["teacher.calibration=temperature"])
    fitted, raw = entry(trials, "teacher.calibration=temperature"), entry(trials, "base")
    assert len(fits) == 5
    assert np.sum([[not each for each in mask] for _, mask in fits], axis=0).tolist() == [1] * 44
    assert raw["confidence"] == pytest.approx(0.99)
    assert fitted["confidence"] < 0.75
    assert fitted["calibration_error"] < raw["calibration_error"]
    assert fitted["accuracy"] == raw["accuracy"]


def test_a_calibration_on_gold_inside_a_cascade_is_not_judged(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path)
    cheap = {**TEACHER, "calibration": "temperature"}
    cascade = {"engine": "cascade", "cheap": cheap, "dear": TEACHER}
    trials = curate.teacher(path, rows=40, vary=[f"teacher={json.dumps(cascade)}"])
    assert "within engine 'cascade' is fitted on the rows" in entry(trials, "teacher 1")["problem"]
    assert trials.winner == "base"


# ---------------------------------------------------------------------------------- what is paid for


@pytest.fixture
def server() -> Iterator[teacher_server.Server]:
    with teacher_server.running() as running:
        yield running


def test_nothing_is_paid_twice_not_even_by_the_later_labeling(
    tmp_path: Path, server: teacher_server.Server
) -> None:
    (tmp_path / "tiny-t5").mkdir()
    teacher = {"engine": "openai", "model": teacher_server.MODEL, "base_url": server.base_url}
    recipe = small_recipe()
    recipe["teacher"] = teacher
    path = write_recipe(tmp_path, recipe)
    how: dict[str, Any] = {"rows": 24, "output": tmp_path / "trials"}
    first = curate.teacher(path, vary=["teacher.calibration=null", "teacher.mode=cot"], **how)
    paid = server.control()["received"]
    assert len(paid) == len(set(paid)) == 48  # score and chain of thought; calibration asks nothing
    assert entry(first, "base")["rate"] > 0
    again = curate.teacher(path, vary=["teacher.calibration=null", "teacher.mode=cot"], **how)
    assert server.control()["received"] == paid
    assert [each.get("asked") for each in again.variants] == [0, 0, 0]
    assert entry(again, "base")["seconds"] is None
    assert entry(again, "base")["tokens"] == entry(first, "base")["tokens"] == 48
    run = curate.label(path, output=tmp_path / "run")
    # 60 labels, of which 24 are known, and rationales of the 44 train rows.
    assert len(server.control()["received"]) == 48 + 36 + 44
    assert len(set(server.control()["received"])) == 48 + 36 + 44
    assert run.stages["labeled"]["labelled"] == 60


def test_a_spent_budget_is_no_wrong_answer(tmp_path: Path, teachers: list[ScriptedTeacher]) -> None:
    path = recipe_at(tmp_path, teacher={"budget": {"tokens": 20_000}})
    with pytest.raises(CurateError, match=r"the budget is spent, and .* rows were not asked"):
        curate.teacher(path, rows=40, overrides=["teacher.budget.tokens=1500"])
    trials = curate.teacher(path, rows=20, overrides=["teacher.budget.tokens=20000"])
    assert entry(trials, "base")["errors"] == {}


# --------------------------------------------------------------------------------------- variants


def test_a_variant_that_cannot_be_set_up_does_not_stop_the_others(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    SCRIPTS["broken"] = lambda body: labelers.TeacherError("the key is wrong: set TEACHER_KEY")
    variants = {
        "no such mode": {"teacher.mode": "guess"},
        "no key": {"teacher.model": "broken"},
        "other labels": {"task.labels": ["good", "bad"]},
        "two words": {"task.answer_name": "Mood", "task.instruction": "What mood, good or bad?"},
    }
    path = recipe_at(tmp_path, trials={"rows": 25, "variants": variants})
    trials = curate.teacher(path)
    problems = {each["name"]: each["problem"] for each in trials.variants}
    assert list(problems) == ["base", *variants]
    assert "teacher.mode is 'guess'" in problems["no such mode"]
    assert "the key is wrong: set TEACHER_KEY" in problems["no key"]
    assert "task.labels lacks 'negative'" in problems["other labels"]
    assert (problems["base"], problems["two words"], trials.rows) == (None, None, 25)
    assert trials.winner == "two words"
    assert trials.overrides == ["task.answer_name=Mood", "task.instruction=What mood, good or bad?"]
    assert parse_recipe(small_recipe(), overrides=trials.overrides).task.instruction == (
        "What mood, good or bad?"
    )


def test_if_no_variant_can_be_judged_it_is_an_error(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path, lambda body: labelers.TeacherError("nobody is there: start it"))
    with pytest.raises(CurateError, match=r"none of 2 variants .* nobody is there: start it"):
        curate.teacher(path, vary=["task.instruction=Judge the mood."])


def test_another_template_shows_the_same_rows_in_other_words(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path, lambda body: answer("negative"))
    trials = curate.teacher(path, rows=20, vary=['task.template="{{ text }} (a buyer wrote)"'])
    table = trials.table()
    assert set(table.groupby("id")["variant"].count()) == {2}
    inputs = {row["id"]: row["text"] for row in read_rows(trials, path)}
    asked_about = {question(body) for body in asked(teachers)}
    for i in set(table["id"]):
        assert f"Review: {inputs[i]}" in asked_about
        assert f"{inputs[i]} (a buyer wrote)" in asked_about


def test_labels_in_another_order_are_a_variant(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path, lambda body: answer(truth(body)))
    trials = curate.teacher(path, rows=20, vary=["task.labels=[[negative, positive]]"])
    assert entry(trials, "task.labels 1")["accuracy"]["value"] == 1.0
    assert entry(trials, "task.labels 1")["brier"] == pytest.approx(entry(trials, "base")["brier"])


def test_what_the_recipe_says_already_is_left_out(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    path = recipe_at(tmp_path)
    trials = curate.teacher(path, rows=20, vary=["task.answer_name=Label,Mood"])
    assert [each["name"] for each in trials.variants] == ["base", "task.answer_name=Mood"]
    assert trials.notes == ["task.answer_name=Label is what the recipe says and was left out"]


@pytest.mark.parametrize(
    ("given", "key", "values"),
    [
        ("teacher.mode=score,cot", "teacher.mode", ["score", "cot"]),
        ("teacher.temperature=[0, 0.7]", "teacher.temperature", [0, 0.7]),
        ("teacher.calibration=null,batch", "teacher.calibration", [None, "batch"]),
        (
            "task.instruction='Good, or bad?',Praise?",
            "task.instruction",
            ["Good, or bad?", "Praise?"],
        ),
        ("task.stop=[[END]]", "task.stop", [["END"]]),
        (
            "task.instruction=Name the buyer's mood.,Is the buyer's mood good?",
            "task.instruction",
            ["Name the buyer's mood.", "Is the buyer's mood good?"],
        ),
        ("teacher={a: 1, b: [x, y]},{a: 2}", "teacher", [{"a": 1, "b": ["x", "y"]}, {"a": 2}]),
        ("task.stop=[a, b],[c]", "task.stop", [["a", "b"], ["c"]]),
    ],
)
def test_values_are_read_as_yaml(given: str, key: str, values: list[Any]) -> None:
    assert read_vary(given) == (key, values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("teacher.mode", "write a key and its values"),
        ("teacher.mode=[]", "there is no value in the list"),
        ("task.instruction='Good", "a text with a comma or a colon stands in quotes"),
        ("data.limit=10,20", "changes 'data.limit': only keys under task and teacher"),
        ("task.choices=options", "says what the data is"),
    ],
)
def test_what_cannot_be_varied_is_refused(given: str, message: str) -> None:
    with pytest.raises(CurateError, match=message):
        read_vary(given)


@pytest.mark.parametrize(
    "value", ["Sentiment", "yes", "1", "Good, or bad?", "a: b", " edges ", "", None, 0.0001, ["x"]]
)
def test_what_is_printed_for_set_brings_the_value_back(value: Any) -> None:
    from curate.recipe_files import set_value

    values: dict[str, Any] = {}
    set_value(values, {}, override("task.answer_name", value))
    assert values == {"task": {"answer_name": value}}


def trials_section(**section: Any) -> dict[str, Any]:
    return small_recipe(trials=section)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rows": 5}, "trials.rows is 5"),
        ({"rule": "fastest"}, "trials.rule is 'fastest'"),
        (
            {"variants": {"x": {"student.epochs": 3}}},
            "changes 'student.epochs': only keys under task",
        ),
        (
            {"variants": {"base": {"task.answer_name": "A"}}},
            "'base' belongs to the recipe as it is",
        ),
        ({"variantes": {}}, "did you mean 'variants'"),
        ({"variants": {"x": {"teacher.api_key_env": "sk-1"}}}, "never the key itself"),
        (
            {"variants": {"x": {"teacher": {"base_url": "http://me:pw@host/v1"}}}},
            "no name and password",
        ),
    ],
)
def test_a_section_that_cannot_be_tried_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(trials_section(**section))


def test_a_checked_recipe_can_be_given_as_it_is(
    tmp_path: Path, teachers: list[ScriptedTeacher]
) -> None:
    import pandas as pd

    SCRIPTS["smollm2-135m"] = knows_when_asked_well
    recipe = small_recipe(
        trials={"rows": 20, "variants": {"s": {"task.instruction": "Judge the mood."}}}
    )
    recipe["teacher"] = TEACHER
    checked = parse_recipe(recipe)
    assert isinstance(checked, Recipe)
    trials = curate.teacher(checked, train=pd.DataFrame(review_rows()), output=tmp_path / "t")
    assert trials.winner == "s"
    assert trials.folder == tmp_path / "t"


# ------------------------------------------------------------------------------------------- figures


def judged(name: str, right: Sequence[int], **values: Any) -> Judged:
    marks = np.array(right, dtype=bool)
    usual: dict[str, Any] = {
        "accuracy": {"value": float(marks.mean()), "low": 0.0, "high": 1.0}, "macro_f1": None,
        "unread": 0.0, "failed": 0.0, "errors": {}, "calibration_error": None, "brier": None,
        "confidence": None, "tokens": 100.0, "requests": 1.0, "cost_usd": None, "free": False,
        "asked": 0, "from_store": 0, "seconds": None, "rate": None, "notes": [],
    }  # fmt: skip
    return Judged(name=name, right=marks, **(usual | values))


def pick(*given: Judged, rule: str = "best", within: float = 0.01) -> str:
    return choose(given, rule, within, [None] * len(given[0].right), 0).name


def test_the_most_accurate_is_picked_whatever_it_costs() -> None:
    dear = judged("dear", [1] * 95 + [0] * 5, cost_usd=9.0)
    cheap = judged("cheap", [1] * 90 + [0] * 10, cost_usd=0.1)
    assert pick(cheap, dear) == "dear"
    assert pick(cheap, dear, rule="cheapest") == "dear"
    assert pick(cheap, dear, within=0.05) == "cheap"


def test_of_equally_good_ones_cost_decides_then_tokens_then_unread_rows() -> None:
    right = [1] * 90 + [0] * 10
    a = judged("a", right, cost_usd=2.0, tokens=10)
    b = judged("b", right, cost_usd=1.0, tokens=20)
    assert pick(a, b) == "b"
    unpriced = judged("c", right, tokens=5)
    assert pick(a, b, unpriced) == "c"
    # Nobody is paid for what runs on this machine.
    assert pick(a, b, judged("d", right, tokens=5000, free=True)) == "d"
    tidy = judged("tidy", right, cost_usd=1.004, tokens=20)
    assert pick(judged("b", right, cost_usd=1.0, unread=0.1), tidy) == "tidy"
    assert pick(judged("base", right), judged("e", right)) == "base"


def test_a_small_but_certain_loss_is_no_tie_for_the_best_and_one_for_the_cheapest() -> None:
    best = judged("best", [1] * 2000, cost_usd=2.0)
    worse = judged("worse", [1] * 1985 + [0] * 15, cost_usd=1.0)
    assert pick(best, worse) == "best"
    assert pick(best, worse, rule="cheapest") == "worse"


def test_the_difference_is_paired_and_knows_of_groups() -> None:
    one = np.array([1] * 60 + [0] * 40, dtype=bool)
    other = np.array([1] * 50 + [0] * 50, dtype=bool)
    apart = difference(one, other, [None] * 100, 0)
    assert apart["value"] == pytest.approx(0.1)
    assert apart["p"] == pytest.approx(2 / 1024, abs=0.002)  # ten rows differ, all one way
    assert 0.04 < apart["low"] < 0.1 < apart["high"] < 0.17
    # All ten belong to one review: one observation, which proves nothing.
    together = difference(one, other, [*range(50), *["same"] * 10, *range(60, 100)], 0)
    assert together["p"] == 1.0
    assert together["low"] == 0.0
    assert difference(one, one, [None] * 100, 0)["p"] == 1.0


def test_holm_corrects_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_free_answers_count_by_their_words_and_numbers_by_value() -> None:
    free = {"instruction": "Solve it.", "labels": None, "goal": {}}
    values = small_recipe(task=free, teacher={"engine": "recorded", "column": "said"})
    text = parse_recipe(values)
    assert are_right(["Paris.", "lyon", None], ["paris", "Paris", "Paris"], text).tolist() == [
        True, False, False,
    ]  # fmt: skip
    sums = parse_recipe(values | {"task": values["task"] | {"answer": "number"}})
    assert are_right(["1200", "8", "3.50"], ["1,200.0", "9", "3.5"], sums).tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_the_draw_leaves_test_rows_alone(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, small_recipe())
    import pandas as pd

    frame = pd.DataFrame(read_rows(None, path))  # type: ignore[arg-type]
    chosen, others, notes = draw_rows(frame, 25, set())
    train = set(frame.loc[frame["split"] == "train", "id"])
    assert set(chosen["id"]) | set(others["id"]) == train
    assert not set(chosen["id"]) & set(others["id"])
    assert (len(chosen), notes) == (25, [])
    _, rest, told = draw_rows(frame, 200, set())
    assert rest.empty
    assert told == [f"{len(train)} train rows have gold; 200 were asked for"]
