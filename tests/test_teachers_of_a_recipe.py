"""The recipe's section ``teacher`` in all its forms, against a real server of OpenAI's protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_recipe import review_rows, small_recipe, write_csv, write_recipe
from teacher_server import MODEL, Fault, Server, running

import curate
import labelers
from curate.dry_run import dry_run
from curate.exceptions import RecipeError
from curate.recipe import parse_recipe
from curate.recipe_teachers import WITHOUT_EFFECT_ON_ANSWERS, OpenAISection

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(served: Server) -> Server:
    served.control(forget=True)
    return served


def asked(server: Server, **how: Any) -> dict[str, Any]:
    return {"engine": "openai", "model": MODEL, "base_url": server.base_url, **how}


def recipe_with(teacher: dict[str, Any], **sections: Any) -> dict[str, Any]:
    recipe = small_recipe(**sections)
    recipe["student"] = {"model": "flan-t5-small", "objective": "label"}
    recipe["teacher"] = teacher
    return recipe


def label(
    folder: Path, teacher: dict[str, Any], **sections: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    path = write_recipe(folder, recipe_with(teacher, **sections))
    done = curate.label(path, output=folder / "run")
    return done.table("labeled"), dict(done.stages["labeled"])


def test_an_ensemble_asks_each_member_in_its_own_words_and_merges(
    tmp_path: Path, server: Server
) -> None:
    members = [
        {"teacher": asked(server, rationales=False, calibration=None), "weight": 2.0},
        {
            "teacher": asked(server, mode="cot", revision="b"),
            "instruction": "Is the buyer glad or cross?",
        },
        {"teacher": {"engine": "recorded", "column": "said", "name": "a-log"}},
    ]
    frame, info = label(tmp_path, {"engine": "ensemble", "members": members, "vote": "majority"})
    assert len(server.control()["received"]) == 2 * len(frame)
    row = frame.iloc[0]
    assert len(row["votes"]) == 3
    assert row["teacher"] == f"{MODEL}+{MODEL}+a-log"
    assert set(frame["label_source"]) == {"ensemble"}
    # The server takes all but plain praise for blame, and has three of four votes by weight.
    agreements = set(frame["agreement"].round(2))
    assert agreements == {0.75, 1.0}
    assert info["ensemble"]["disagreed"] == int((frame["agreement"] < 1).sum())
    assert any("they disagree on" in note for note in info["notes"])
    assert info["asked"] == 2 * len(frame)


def test_a_cascade_asks_the_dear_teacher_only_where_the_cheap_one_is_unsure(
    tmp_path: Path, server: Server
) -> None:
    prices = {"prompt": 1.0, "completion": 2.0}
    teacher = {
        "engine": "cascade",
        "cheap": asked(server, rationales=False, calibration=None, prices=prices),
        "dear": asked(
            server, mode="cot", revision="large", prices={"prompt": 10.0, "completion": 20.0}
        ),
        "threshold": 0.5,
    }
    frame, info = label(tmp_path, teacher)
    assert len(server.control()["received"]) == len(frame)
    assert info["notes"] == ["cascade: the cheap teacher was sure of every row (threshold 0.5)"]
    # The server gives 0.8 of 0.99 to its label: below 0.9 every row goes on to the dear one.
    frame, info = label(tmp_path, {**teacher, "threshold": 0.9})
    assert info["cascade"]["asked"] == len(frame)
    one = (40 * 1 + 8 * 2) / 1e6 + (40 * 10 + 8 * 20) / 1e6
    assert frame["cost_usd"].tolist() == pytest.approx([one] * len(frame))
    assert frame["rationale"].notna().all()
    assert info["cascade"]["cheap"]["rows"] == len(frame)
    assert any(
        note.startswith("cascade: the dear teacher was asked 60 of 60") for note in info["notes"]
    )


def test_a_spent_budget_leaves_rows_unasked_and_a_raised_one_goes_on(
    tmp_path: Path, server: Server
) -> None:
    teacher = asked(server, mode="cot", concurrency=1, max_tokens=50, budget={"tokens": 3000})
    frame, info = label(tmp_path, teacher)
    asked_first = len(server.control()["received"])
    assert 0 < asked_first < len(frame)
    assert asked_first * 48 <= 3000
    left = frame[frame["label"].isna()]
    assert left["error"].str.startswith("budget: not asked").all()
    assert info["errors"] == {"budget": len(left)}
    assert any("raise teacher.budget" in note for note in info["notes"])
    frame, info = label(tmp_path, {**teacher, "budget": {"tokens": 100_000}})
    assert frame["label"].notna().all()
    assert len(server.control()["received"]) == len(frame)
    assert info["asked"] == len(frame) - asked_first


def test_calibration_on_gold_is_reported_before_and_after(tmp_path: Path, server: Server) -> None:
    frame, info = label(tmp_path, asked(server, rationales=False, calibration="temperature"))
    (report,) = info["calibration"]
    test = frame[frame["split"] == "test"]
    assert (report["method"], report["judged"]) == ("temperature", len(test))
    assert report["fitted"] == (frame["split"] == "train").sum()
    right = (frame["label"] == frame["gold"])[frame["split"] == "test"].mean()
    assert report["before"]["accuracy"] == pytest.approx(right)
    # The server is sure of 81 % and right on far fewer: temperature takes its sureness away.
    assert report["after"]["calibration_error"] < report["before"]["calibration_error"]
    assert frame["confidence"].max() < 0.8


def test_a_fleet_shares_the_rows_and_one_that_is_not_there_is_left_out(
    tmp_path: Path, server: Server
) -> None:
    with running() as second:
        urls = [server.base_url, second.base_url, "http://127.0.0.1:9/v1"]
        frame, info = label(tmp_path, asked(server, mode="cot", base_url=urls))
        first, other = (len(s.control()["received"]) for s in (server, second))
    assert frame["label"].notna().all()
    assert first + other == len(frame)
    assert min(first, other) > len(frame) // 5
    assert any(
        "an endpoint was left out: no server answers at http://127.0.0.1:9" in n
        for n in info["notes"]
    )


def test_the_teacher_writes_rows_that_are_labelled_like_any_other(
    tmp_path: Path, server: Server
) -> None:
    """The server answers each request to write a row with one sentence: one row is new."""
    generate = {"labels": {"negative": 2}, "max_requests": 8}
    frame, _ = label(tmp_path, asked(server, rationales=False, calibration=None), generate=generate)
    new = frame[frame["source"] == "generated"]
    assert len(new) == 1
    assert set(new["split"]) == {"train"}
    assert new["gold"].isna().all()
    assert new["label"].notna().all()
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    told = stages["generated"]["info"]
    assert told["accepted"] == 1
    assert stages["labeled"]["info"]["generated"]["rows"] == 1
    assert told["requests"] == 8


def test_pool_rows_are_trained_on_and_never_twice(tmp_path: Path, server: Server) -> None:
    pool = [{"text": "A pool row about a kettle that I love."}, {"text": review_rows()[0]["text"]}]
    write_csv(tmp_path / "pool.csv", pool)
    teacher = asked(server, rationales=False, calibration=None)
    frame, _ = label(tmp_path, teacher, data={"pool": "pool.csv"})
    assert len(frame) == len(review_rows()) + 1
    row = frame[frame["input"].str.contains("pool row")].iloc[0]
    assert (row["split"], row["label"]) == ("train", "positive")


def test_similar_demonstrations_come_from_the_recipe_s_embedder(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(texts: list[str], model: str, **_: Any) -> Any:
        return [[float("kettle" in t), float("lamp" in t), 0.1] for t in texts]

    monkeypatch.setattr("filters.embed", encode)
    monkeypatch.setattr("curate.demonstrations.resolve_model", lambda *a, **k: "none")
    shown = [
        {"input": "Review: A kettle.", "label": "positive", "rationale": "Fine."},
        {"input": "Review: A lamp.", "label": "negative", "rationale": "Dim."},
    ]
    teacher = asked(server, mode="cot", demonstrations={"choose": "similar", "shots": 1})
    recipe = recipe_with(teacher, task={"demonstrations": shown}, embedder="all-minilm-l6-v2")
    path = write_recipe(tmp_path, recipe)
    done = curate.label(path, output=tmp_path / "run")
    with labelers.Store(tmp_path / ".curate") as store:
        for exchange in store.exchanges():
            messages = [m["content"] for m in exchange.request["messages"]]
            if "kettle" in messages[-1]:
                assert messages[1] == "Review: A kettle."
            if "lamp" in messages[-1]:
                assert messages[1] == "Review: A lamp."
    assert done.table("labeled")["label"].notna().all()


def test_exchanges_bear_the_recipe_s_name(tmp_path: Path, server: Server) -> None:
    label(tmp_path, asked(server, mode="cot"))
    with labelers.Store(tmp_path / ".curate") as store:
        assert {exchange.run for exchange in store.exchanges()} == {"small"}


def test_speed_and_patience_change_no_answer_and_ask_nobody(tmp_path: Path, server: Server) -> None:
    label(tmp_path, asked(server, mode="cot"))
    before = len(server.control()["received"])
    path = write_recipe(
        tmp_path,
        recipe_with(
            asked(server, mode="cot", concurrency=2, read_timeout=5.0, limits={"attempts": 2})
        ),
    )
    done = curate.label(path, output=tmp_path / "run")
    assert done.stages["labeled"]["reused"]
    assert len(server.control()["received"]) == before
    assert set(OpenAISection.model_fields) >= WITHOUT_EFFECT_ON_ANSWERS - {"threads", "slots"}


def test_a_busy_server_is_waited_for_as_it_asks(tmp_path: Path, server: Server) -> None:
    headers = {"Retry-After": "0"}
    server.plan(Fault("kettle", 429, 5, headers=headers), Fault("tent", 503, 2))
    frame, info = label(tmp_path, asked(server, mode="cot", limits={"attempts": 3, "backoff": 0.0}))
    assert frame["label"].notna().all()
    assert len(server.control()["received"]) == len(frame) + 7
    assert info["asked"] == len(frame)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            {"mode": "score", "samples": 3},
            "in mode score several samples are drawn by `probabilities: votes`",
        ),
        (
            {"mode": "cot", "samples": 3, "temperature": 0},
            "the same answer would be paid for so many times",
        ),
        ({"budget": {"usd": 5.0}}, "teacher.budget.usd is 5.0, and the teacher has no prices"),
        ({"budget": {}}, "give `tokens`, `usd` or both"),
        ({"budget": {"dollars": 3}}, "unknown key 'teacher.budget.dollars'"),
        ({"limits": {"attempts": 0}}, "teacher.limits.attempts is 0"),
        ({"demonstrations": {"choose": "random"}}, "there are 0 demonstrations to choose from"),
        ({"demonstrations": {"choose": "similar"}}, "needs embeddings, and embedder is null"),
        ({"base_url": []}, "is an empty list"),
        ({"base_url": ["http://a/v1", 3]}, "a list of the URLs of several"),
        ({"base_url": ["http://me:secret@a/v1"]}, "must hold no name and password"),
        ({"batch": True, "base_url": ["http://a/v1", "http://b/v1"]}, "give a single base_url"),
        (
            {"batch": True, "limits": {"requests_per_minute": 9}},
            "leave out limits.requests_per_minute",
        ),
        ({"rationales": "some"}, "teacher.rationales is 'some'"),
        ({"temperature": -1}, "teacher.temperature is -1"),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_asked(
    teacher: dict[str, Any], message: str
) -> None:
    section = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", **teacher}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_with(section))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"task": {"answer": "nubmer"}},
            "must be number, equation, {regex: pattern} or {json: field}",
        ),
        ({"task": {"answer": {"regex": "("}}}, "task.answer"),
        ({"generate": {"labels": {"positve": 3}}}, "did you mean 'positive'?"),
        ({"generate": {"labels": {"positive": 0}}}, "generate.labels.positive is 0"),
        ({"generate": {"labels": {"positive": 5}, "per_cluster": True}}, "embedder is null"),
    ],
)
def test_other_sections_are_checked_as_well(sections: dict[str, Any], message: str) -> None:
    teacher = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_with(teacher, **sections))
    assert message in str(caught.value)


def test_a_cheap_teacher_that_is_never_sure_is_refused() -> None:
    teacher = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    cascade = {"engine": "cascade", "cheap": {**teacher, "mode": "cot"}, "dear": teacher}
    with pytest.raises(RecipeError, match="every row would go to the dear teacher as well"):
        parse_recipe(recipe_with(cascade))
    parse_recipe(recipe_with({**cascade, "cheap": {**teacher, "mode": "cot", "samples": 5}}))


def test_a_budget_too_small_for_any_row_says_so_and_no_more(tmp_path: Path, server: Server) -> None:
    with pytest.raises(curate.CurateError) as caught:
        label(tmp_path, asked(server, mode="cot", budget={"tokens": 5}))
    assert "the first error is: budget: not asked" in str(caught.value)
    assert "instruction" not in str(caught.value)
    assert server.control()["received"] == []


def test_calibration_on_gold_needs_gold() -> None:
    teacher = {"engine": "openai", "model": "m", "calibration": "isotonic"}
    recipe = recipe_with(teacher)
    del recipe["data"]["gold"]
    with pytest.raises(RecipeError, match=r"fitted on human labels, and data\.gold is not set"):
        parse_recipe(recipe)


def test_the_share_of_written_rows_that_is_kept_is_reported(tmp_path: Path, server: Server) -> None:
    generate = {"labels": {"negative": 2}, "max_requests": 4}
    path = write_recipe(
        tmp_path,
        recipe_with(asked(server, rationales=False, calibration=None), generate=generate),
    )
    done = curate.filter(path, output=tmp_path / "run")
    told = done.stages["curated"]["generated"]
    assert (told["rows"], told["kept"]) == (1, 1)
    assert any(
        "Of 1 rows that the teacher wrote 1 are kept" in w
        for w in done.stages["curated"]["warnings"]
    )


def test_a_raised_budget_brings_the_rationales_that_did_not_fit(
    tmp_path: Path, server: Server
) -> None:
    """All labels fit and most rationales do not: the stage is not done, though no row has an error."""
    rows = len(review_rows())
    teacher = asked(server, concurrency=1, budget={"tokens": rows * 48 + 2000})
    frame, info = label(tmp_path, teacher)
    assert frame["label"].notna().all()
    train = frame["split"] == "train"
    before = int(frame["rationale"].notna().sum())
    assert before < train.sum()
    assert info["unfinished"] == train.sum() - before
    frame, info = label(tmp_path, {**teacher, "budget": {"tokens": 100_000}})
    assert frame.loc[train, "rationale"].notna().all()
    assert info["unfinished"] == 0


def test_a_dear_teacher_without_budget_is_told_of_and_asked_when_it_is_raised(
    tmp_path: Path, server: Server
) -> None:
    dear = asked(server, mode="cot", revision="large", prices={"prompt": 10.0, "completion": 20.0})
    teacher = {
        "engine": "cascade",
        "cheap": asked(server, rationales=False, calibration=None),
        "dear": {**dear, "budget": {"usd": 0.0001}},
        "threshold": 0.9,
    }
    frame, info = label(tmp_path, teacher)
    assert set(frame["rationale"].isna()) == {True}
    assert any(
        note.startswith(f"{MODEL} gave no label for 60 of 60 rows; the first error: budget: ")
        for note in info["notes"]
    )
    # Nothing was spent on the dear teacher, so what it would cost for all rows is not known.
    assert not any("saved" in note for note in info["notes"])
    frame, info = label(tmp_path, {**teacher, "dear": {**dear, "budget": {"usd": 10.0}}})
    assert frame["rationale"].notna().all()
    assert not any("gave no label" in note for note in info["notes"])


def test_a_member_that_fails_is_no_disagreement(tmp_path: Path, server: Server) -> None:
    members = [
        {"teacher": asked(server, mode="cot")},
        {"teacher": asked(server, mode="cot", revision="b", budget={"tokens": 100})},
    ]
    frame, info = label(tmp_path, {"engine": "ensemble", "members": members, "vote": "majority"})
    assert frame["label"].notna().all()
    assert info["ensemble"]["disagreed"] == 0
    assert f"{MODEL} gave no label for 60 of 60 rows" in " ".join(info["notes"])


def test_too_few_generated_rows_are_told_of(tmp_path: Path, server: Server) -> None:
    generate = {"labels": {"negative": 3}, "max_requests": 5}
    label(tmp_path, asked(server, rationales=False, calibration=None), generate=generate)
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    (note,) = stages["generated"]["info"]["notes"]
    assert note.startswith("2 of the 3 rows wanted were not had in 5 requests; left out: ")


@pytest.mark.parametrize("member", [{"mode": "cot"}, {"engine": "recorded", "column": "said"}])
def test_a_vote_by_probability_needs_them_of_every_member(member: dict[str, Any]) -> None:
    served_by = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    second = member if "engine" in member else {**served_by, **member}
    teacher = {
        "engine": "ensemble",
        "members": [{"teacher": served_by}, {"teacher": second}],
    }
    with pytest.raises(RecipeError, match=r"teacher\.members\.1 .*set teacher\.vote to majority"):
        parse_recipe(recipe_with(teacher))
    parse_recipe(recipe_with({**teacher, "vote": "majority"}))
    if "mode" in member:
        drawn = [{"teacher": served_by}, {"teacher": {**second, "samples": 3}}]
        parse_recipe(recipe_with({**teacher, "members": drawn}))


def test_the_dialect_of_llama_cpp_s_server_can_be_named() -> None:
    teacher = {"engine": "openai", "model": "m", "probabilities": "constrained"}
    parse_recipe(recipe_with({**teacher, "structured": "llama.cpp"}))


def test_an_account_of_tokens_is_no_secret() -> None:
    teacher = {"engine": "openai", "model": "m", "budget": {"tokens": "many"}, "max_tokens": "few"}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_with(teacher))
    assert "teacher.budget.tokens is 'many'" in str(caught.value)
    assert "teacher.max_tokens is 'few'" in str(caught.value)


def test_rows_that_fail_are_told_of_with_the_first_error(tmp_path: Path, server: Server) -> None:
    server.plan(Fault("kettle", 500, 99))
    frame, info = label(tmp_path, asked(server, mode="cot", limits={"attempts": 1, "backoff": 0.0}))
    failed = int(frame["label"].isna().sum())
    assert failed == info["errors"]["server"]
    (note,) = info["notes"]
    assert note.startswith(f"{failed} rows have no label; the first error: server: ")
    assert "HTTP 500: planned" in note


def test_a_raised_budget_brings_the_generated_rows_that_did_not_fit(
    tmp_path: Path, server: Server
) -> None:
    generate = {"labels": {"negative": 2}, "max_requests": 4}
    teacher = asked(server, rationales=False, calibration=None, budget={"tokens": 300})
    path = write_recipe(tmp_path, recipe_with(teacher, generate=generate))
    with pytest.raises(curate.CurateError, match=r"no row of .* was labelled"):
        curate.label(path, output=tmp_path / "run")
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    (note,) = stages["generated"]["info"]["notes"]
    assert "4 error; the first error: budget: " in note
    frame, _ = label(tmp_path, {**teacher, "budget": {"tokens": 100_000}}, generate=generate)
    assert (frame["source"] == "generated").sum() == 1


def test_what_contextual_calibration_cannot_ask_is_said(tmp_path: Path, server: Server) -> None:
    server.plan(Fault("[MASK]", 400, 1))
    with pytest.raises(labelers.TeacherError, match=r"calibration: contextual .*HTTP 400: planned"):
        label(tmp_path, asked(server, rationales=False, calibration="contextual"))


def test_a_dry_run_says_that_rows_to_be_generated_are_not_in_it(tmp_path: Path) -> None:
    teacher = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    generate = {"labels": {"negative": 2, "positive": 3}}
    path = write_recipe(tmp_path, recipe_with(teacher, generate=generate))
    told = dry_run(path)
    assert "5 rows are to be generated first, in up to 20 requests: neither" in told
    path = write_recipe(tmp_path, recipe_with(teacher))
    assert "generated" not in dry_run(path)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_written_demonstrations_hold_no_personal_data_either(
    tmp_path: Path, server: Server, api: str
) -> None:
    pytest.importorskip("presidio_analyzer")
    recipe = recipe_with(
        asked(server, mode="cot", api=api, demonstrations={"written": 4}),
        privacy={"entities": ["EMAIL_ADDRESS"]},
    )
    path = write_recipe(tmp_path, recipe)
    rows = [row | {"text": f"jane@example.com: {row['text']}"} for row in review_rows()]
    write_csv(tmp_path / "reviews.csv", rows)
    done = curate.label(path, output=tmp_path / "run")
    assert any(
        note.startswith("4 demonstrations were written") for note in done.stages["labeled"]["notes"]
    )
    with labelers.Store(tmp_path / ".curate") as store:
        asked_of = [json.dumps(exchange.request) for exchange in store.exchanges()]
    assert len(asked_of) > len(rows)
    assert not any("jane@example.com" in request for request in asked_of)
    assert all("<EMAIL_ADDRESS_1>: " in request for request in asked_of)
    assert done.table("labeled")["input"].str.contains("jane@example.com").all()
