"""The whole way, small: recorded teacher outputs, a tiny random T5, and what is run again and when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from small_recipe import (
    TEACHER_ERRORS,
    embed_by_words,
    review_rows,
    small_recipe,
    write_csv,
    write_jsonl,
    write_recipe,
)
from tiny_student import tiny_folder

import curate
import filters
import labelers
import student
from curate import assets
from curate.cli import main
from curate.exceptions import CurateError
from curate.results import median_table, result_table
from student.examples import read_examples

STAGES = ["examples", "labeled", "curated", "student", "predictions"]
LABELS = ["positive", "negative"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost a model this small most of its time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny-t5")


@pytest.fixture
def at(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tiny T5 beside where recipes go, and a stand-in for the embedder."""
    (tmp_path / "tiny-t5").symlink_to(tiny_t5)
    (tmp_path / "words").mkdir()
    monkeypatch.setattr(filters, "embed", embed_by_words)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_t5: Path) -> Iterator[curate.Run]:
    """One complete run with clusters and every filter but confidence; tests must not change it."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "tiny-t5").symlink_to(tiny_t5)
    (folder / "words").mkdir()
    recipe = small_recipe(
        embedder="words",
        filters=[
            "exact_duplicate",
            {"near_duplicate": {"threshold": 0.6}},
            {"semantic_duplicate": {"threshold": 0.95}},
            {"rebalance": {"by": ["label", "cluster"]}},
        ],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "embed", embed_by_words)
        yield curate.run(write_recipe(folder, recipe), output=folder / "run")


def again(folder: Path, *overrides: str, verb: str = "run") -> dict[str, bool]:
    """Run the recipe in ``folder`` and say of each stage whether its former result was reused."""
    run = getattr(curate, verb)(folder / "recipe.yaml", output=folder / "run", overrides=overrides)
    return {name: info["reused"] for name, info in run.stages.items()}


class Spy:
    """Takes a function's place, keeps its first argument, and goes on to the function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seen: list[Any] = []
        self.how: list[dict[str, Any]] = []

    def __call__(self, first: Any, *rest: Any, **how: Any) -> Any:
        self.seen.append(first)
        self.how.append(how)
        return self.function(first, *rest, **how)


# --------------------------------------------------------------------------------- what a run leaves


def test_a_run_leaves_its_files_and_nothing_half(done: curate.Run) -> None:
    names = {path.name for path in done.folder.iterdir()} - {".lock"}
    assert names == {
        "examples.parquet", "labeled.parquet", "curated.parquet", "decisions.parquet",
        "predictions.parquet", "errors.json", "errors.parquet", "student", "run.json", "report.html",
        "stages.json",
    }  # fmt: skip
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "history.json"} <= {
        path.name for path in done.student.iterdir()
    }
    assert done.report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_run_json_says_what_happened(done: curate.Run) -> None:
    facts = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    assert set(facts) >= {
        "name", "created", "curate_version", "seed", "recipe", "recipe_sha256", "stages", "funnel",
        "balance", "metrics", "goal", "verdict", "versions", "machine",
    }  # fmt: skip
    assert list(facts["stages"]) == STAGES
    for info in facts["stages"].values():
        assert info["seconds"] >= 0
        assert info["reused"] is False
    rows = facts["stages"]["examples"]["rows"]
    assert rows["train"] + rows["test"] == 60
    labeled = facts["stages"]["labeled"]
    assert (labeled["rows"], labeled["labelled"], labeled["errors"]) == (60, 60, {})
    assert (labeled["asked"], labeled["cost_usd"], labeled["teacher"]) == (0, None, "recorded")
    curated = facts["stages"]["curated"]
    assert curated["kept"] + sum(curated["dropped"].values()) == rows["train"]
    assert curated["dropped"]["near_duplicate"] > 0
    assert sum(c["size"] for c in curated["clusters"]) == rows["train"]
    assert all(c["words"] for c in curated["clusters"])
    trained = facts["stages"]["student"]
    assert (trained["rows"], trained["model"]) == (curated["kept"], "tiny-t5")
    assert (trained["objective"], trained["epochs"], trained["target"]) == ("multitask", 1, "label")
    funnel = facts["funnel"]
    assert funnel[0] == {"stage": "train rows read", "rows": rows["train"]}
    assert funnel[1]["stage"] == "labelled"
    assert [step["stage"] for step in funnel[2:6]] == [
        f"after {name}"
        for name in ("exact_duplicate", "near_duplicate", "semantic_duplicate", "rebalance")
    ]
    assert funnel[-1]["rows"] == curated["kept"]
    assert sum(facts["balance"]["before"].values()) == rows["train"]
    assert sum(facts["balance"]["after"].values()) == curated["kept"]
    assert facts["recipe"]["student"]["learning_rate"] == 5e-4
    assert facts["versions"]["torch"]


def test_every_system_is_measured_on_the_same_rows(done: curate.Run) -> None:
    facts = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    tested = facts["stages"]["examples"]["rows"]["test"]
    assert list(facts["metrics"]) == ["majority", "tfidf", "teacher", "student"]
    for metrics in facts["metrics"].values():
        assert metrics["n"] == tested
        for name in ("accuracy", "macro_f1"):
            assert 0 <= metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"] <= 1
        assert metrics["confusion"]["columns"] == [*LABELS, "(none)"]
    predictions = done.table("predictions")
    assert predictions.groupby("system")["id"].nunique().eq(tested).all()
    (goal,) = facts["goal"]
    assert (goal["metric"], goal["target"]) == ("accuracy", 0.6)
    assert goal["value"] == facts["metrics"]["student"]["accuracy"]["value"]
    assert goal["met"] is (goal["value"] >= 0.6)
    assert facts["verdict"].startswith("The goal is met" if goal["met"] else "The goal is not met")


def test_all_rows_are_labelled_and_only_train_rows_curated(done: curate.Run) -> None:
    examples, labeled, curated = (done.table(n) for n in ("examples", "labeled", "curated"))
    assert labeled["id"].tolist() == examples["id"].tolist()
    assert labeled["gold"].tolist() == examples["gold"].tolist()
    assert labeled["label"].isin(LABELS).all()
    assert labeled["rationale"].str.startswith("That is a").all()
    train = examples.loc[examples["split"] == "train", "id"]
    assert curated["id"].tolist() == train.tolist()
    assert {"keep", "reason", "cluster", "weight", "copies", "map_x", "map_y"} <= set(curated)
    assert curated["score_near_duplicate"].notna().all()
    decisions = done.table("decisions")
    dropped = curated.loc[~curated["keep"], ["id", "reason"]].to_numpy().tolist()
    drops = decisions[decisions["verdict"] == "drop"]
    assert dropped
    assert {tuple(pair) for pair in dropped} <= set(zip(drops["id"], drops["filter"], strict=True))


def test_the_model_card_says_what_the_student_is(done: curate.Run) -> None:
    card = (done.student / "README.md").read_text(encoding="utf-8")
    assert "Decide whether a product review is positive or negative." in card
    assert "\n# small\n" in card
    assert "- Data: reviews.csv" in card
    assert "- Teacher: recorded" in card
    assert "Not stated" not in card.split("## Licence")[0]
    accuracy = done.metrics["student"]["accuracy"]["value"]
    assert f"| accuracy | {accuracy:.3f} |" in card
    assert "On 16 examples labelled by people" in card


def test_the_teacher_is_judged_by_people(done: curate.Run) -> None:
    labeled = done.table("labeled")
    wrong = labeled[labeled["label"] != labeled["gold"]]
    assert set(wrong["text"].str.removesuffix(" I bought it in spring.")) == set(TEACHER_ERRORS)
    test = labeled[labeled["split"] == "test"]
    expected = (test["label"] == test["gold"]).mean()
    assert done.metrics["teacher"]["accuracy"]["value"] == pytest.approx(expected)


def test_the_student_predicts_texts_as_it_saw_them_in_training(
    done: curate.Run, tmp_path: Path
) -> None:
    text = "The strap broke on day two."
    bare = curate.predict(done.student, [text])
    (rendered,) = student.predict(done.student, [f"Review: {text}"]).to_dict("records")
    assert bare["prediction"].tolist() == [rendered["prediction"]]
    assert bare["confidence"].tolist() == pytest.approx([rendered["confidence"]])
    path = write_csv(tmp_path / "new.csv", [{"text": text, "shop": "north"}])
    output = tmp_path / "answers.jsonl"
    from_file = curate.predict(done.student, path, output=output)
    assert from_file["shop"].tolist() == ["north"]
    assert from_file["confidence"].tolist() == pytest.approx([rendered["confidence"]])
    assert json.loads(output.read_text())["prediction"] == rendered["prediction"]
    command = ["predict", "--model", str(done.student), text]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0
    assert said.stdout.startswith(
        f"{rendered['prediction']}  {rendered['confidence']:.3f}  Review:"
    )


def test_predict_refuses_files_that_do_not_fit(done: curate.Run, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "new.csv", [{"txt": "It hums."}])
    with pytest.raises(CurateError, match=r"lacks the column 'text'; its columns are txt"):
        curate.predict(done.student, path)
    path = write_csv(
        tmp_path / "null.csv", [{"input": "It hums."}, {"input": None}, {"input": "Hm"}]
    )
    path.write_text("input,n\nIt hums.,1\n,2\n")
    with pytest.raises(CurateError, match=r"row 2: the column 'input' is null or empty"):
        curate.predict(done.student, path)
    with pytest.raises(CurateError, match=r"answers\.txt: name a \.csv, \.jsonl or \.parquet"):
        curate.predict(done.student, ["It hums."], output=tmp_path / "answers.txt")
    with pytest.raises(CurateError, match=r"nowhere.* is no folder"):
        curate.predict(done.student, ["It hums."], output=tmp_path / "nowhere" / "a.csv")


# ------------------------------------------------------------------------------ what is run again


def test_a_second_run_reuses_every_stage(at: Path) -> None:
    write_recipe(at, small_recipe())
    assert again(at) == dict.fromkeys(STAGES, False)
    before = {
        p.name: p.stat().st_mtime_ns for p in (at / "run").iterdir() if p.suffix == ".parquet"
    }
    assert again(at) == dict.fromkeys(STAGES, True)
    after = {p.name: p.stat().st_mtime_ns for p in (at / "run").iterdir() if p.suffix == ".parquet"}
    assert after == before
    facts = json.loads((at / "run" / "run.json").read_text(encoding="utf-8"))
    assert all(info["reused"] for info in facts["stages"].values())


@pytest.mark.parametrize(
    ("override", "first_run_again"),
    [
        ("student.epochs=2", "student"),
        ("student.learning_rate=0.001", "student"),
        ("filters.near_duplicate.threshold=0.5", "curated"),
        ("task.instruction=Praise or complaint?", "labeled"),
        ("data.limit=20", "examples"),
        ("task.goal.accuracy=0.1", None),
    ],
)
def test_a_change_runs_its_stage_and_what_follows(
    override: str, first_run_again: str | None, at: Path
) -> None:
    write_recipe(at, small_recipe(student={"objective": "label"}))
    again(at)
    reused = again(at, override)
    first = len(STAGES) if first_run_again is None else STAGES.index(first_run_again)
    expected = {name: place < first for place, name in enumerate(STAGES)}
    if override.startswith("task.instruction"):
        # The recorded teacher says the same whatever it is asked, so nothing after it changes.
        expected |= dict.fromkeys(["curated", "student", "predictions"], True)
    assert reused == expected


def test_changed_data_under_an_old_name_is_noticed(at: Path) -> None:
    write_recipe(at, small_recipe())
    again(at, verb="label")
    write_csv(at / "reviews.csv", review_rows()[:40])
    assert again(at, verb="label") == {"examples": False, "labeled": False}


def test_a_changed_log_is_noticed(at: Path) -> None:
    write_recipe(at, small_recipe(teacher={"column": None, "log": "log.jsonl"}))
    lines = [{"prompt": f"Review: {r['text']}", "response": r["said"]} for r in review_rows()]
    write_jsonl(at / "log.jsonl", lines)
    assert again(at, verb="label") == {"examples": False, "labeled": False}
    write_jsonl(at / "log.jsonl", lines[:-1])
    assert again(at, verb="label") == {"examples": True, "labeled": False}
    labeled = curate.label(at / "recipe.yaml", output=at / "run").table("labeled")
    assert labeled["error"].dropna().str.startswith("missing:").sum() == 1


def test_a_base_model_changed_in_place_is_noticed(at: Path, tiny_t5: Path) -> None:
    (at / "tiny-t5").unlink()
    shutil.copytree(tiny_t5, at / "tiny-t5")
    write_recipe(at, small_recipe())
    again(at, verb="train")
    tiny_folder(at / "other", seed=5)
    shutil.copy2(at / "other" / "model.safetensors", at / "tiny-t5" / "model.safetensors")
    assert again(at, verb="train")["student"] is False


def test_a_run_that_fails_on_the_way_leaves_no_old_conclusion(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(at, small_recipe())
    again(at)
    assert (at / "run" / "report.html").exists()

    def fail(*_: Any, **__: Any) -> Any:
        raise student.TrainingError("the loss became nan")

    monkeypatch.setattr(student, "train", fail)
    with pytest.raises(student.TrainingError):
        again(at, "student.epochs=2")
    names = {path.name for path in (at / "run").iterdir()}
    assert names.isdisjoint({"run.json", "report.html", "student", "predictions.parquet"})
    assert {"labeled.parquet", "curated.parquet"} <= names


def test_rows_that_a_server_failed_on_are_asked_again(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(at, small_recipe(teacher={"engine": "openai", "column": None, "model": "m"}))
    recipe = small_recipe()
    recipe["teacher"] = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    write_recipe(at, recipe)
    failures = [3]

    def label(rows: pd.DataFrame, task: labelers.Task, *_: Any, **__: Any) -> datasets.Dataset:
        said = [row["said"] for row in review_rows()]
        labelled = labelers.label_recorded(rows, task, said).to_pandas()
        for i in range(failures.pop() if failures else 0):
            labelled.loc[i, "label"] = None
            labelled.loc[i, "error"] = "server: HTTP 503: busy (6 attempts)"
        return datasets.Dataset.from_pandas(labelled, preserve_index=False)

    monkeypatch.setattr(labelers, "label", label)
    assert again(at, verb="label") == {"examples": False, "labeled": False}
    info = json.loads((at / "run" / "stages.json").read_text())["labeled"]["info"]
    assert info["errors"] == {"server": 3}
    assert again(at, verb="label") == {"examples": True, "labeled": False}
    info = json.loads((at / "run" / "stages.json").read_text())["labeled"]["info"]
    assert info["errors"] == {}
    assert again(at, verb="label") == {"examples": True, "labeled": True}


# ---------------------------------------------------------------------------------- gold stays hidden


def test_gold_never_reaches_labeling_filtering_or_training(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spies = {
        (labelers, "label_recorded"): Spy(labelers.label_recorded),
        (filters, "apply"): Spy(filters.apply),
        (student, "train"): Spy(student.train),
    }
    for (package, name), spy in spies.items():
        monkeypatch.setattr(package, name, spy)
    write_recipe(at, small_recipe())
    again(at)
    for spy in spies.values():
        (rows,) = spy.seen
        assert {"input", "id"} <= set(rows.columns)
        assert {"gold", "sentiment"}.isdisjoint(rows.columns)
    (trained,) = spies[student, "train"].seen
    assert set(trained["split"]) == {"train"}
    assert spies[student, "train"].how[0]["target"] == "label"


def test_gold_never_reaches_an_asked_teacher(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [row["said"] for row in review_rows()]
    spy = Spy(lambda rows, task, *_, **__: labelers.label_recorded(rows, task, said))
    monkeypatch.setattr(labelers, "label", spy)
    recipe = small_recipe()
    recipe["teacher"] = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    write_recipe(at, recipe)
    again(at, verb="label")
    assert {"gold", "sentiment"}.isdisjoint(spy.seen[0].columns)


def test_other_gold_makes_the_same_student_and_the_same_baselines(at: Path) -> None:
    """The strongest form of the promise: with every human label turned round, all stays the same."""
    write_recipe(at, small_recipe())
    again(at, verb="evaluate")
    shutil.move(at / "run", at / "first")
    turned = {"positive": "negative", "negative": "positive"}
    write_recipe(
        at, small_recipe(), rows=[r | {"sentiment": turned[r["sentiment"]]} for r in review_rows()]
    )
    again(at, verb="evaluate")
    for name in ("labeled", "curated", "predictions"):
        first, second = (pd.read_parquet(at / f / f"{name}.parquet") for f in ("first", "run"))
        assert first["gold"].map(turned).tolist() == second["gold"].tolist()
        pd.testing.assert_frame_equal(first.drop(columns="gold"), second.drop(columns="gold"))
    assert (at / "first" / "decisions.parquet").read_bytes() == (
        at / "run" / "decisions.parquet"
    ).read_bytes()
    weights = [(at / f / "student" / "model.safetensors").read_bytes() for f in ("first", "run")]
    assert weights[0] == weights[1]


def test_a_student_on_gold_is_trained_on_gold(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(student.train)
    monkeypatch.setattr(student, "train", spy)
    write_recipe(at, small_recipe(student={"with_gold": True}))
    run = curate.run(at / "recipe.yaml", output=at / "run")
    assert [how["target"] for how in spy.how] == ["label", "gold"]
    assert "gold" in spy.seen[1].columns
    assert list(run.metrics)[-1] == "student-gold"
    assert (run.folder / "student-gold" / "model.safetensors").exists()
    spy.how.clear()
    again(at, "student.target=gold", "student.with_gold=false")
    assert [how["target"] for how in spy.how] == ["gold"]
    assert not (run.folder / "student-gold").exists()


def test_without_gold_the_reference_is_the_teacher_and_a_note_says_so(at: Path) -> None:
    write_recipe(at, small_recipe(data={"gold": None}))
    run = curate.run(at / "recipe.yaml", output=at / "run")
    assert run.metrics["teacher"]["accuracy"]["value"] == 1.0
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    (note,) = [note for note in facts["notes"] if "no human labels" in note]
    assert "agreement with the teacher, not correctness" in note
    assert run.verdict.endswith("not correctness.")
    card = (run.student / "README.md").read_text(encoding="utf-8")
    assert "labelled by people, none" not in card
    assert "Not yet evaluated on human labels." in card
    assert run.table("labeled")["gold"].isna().all()


def test_test_rows_without_gold_are_left_out_and_counted(at: Path) -> None:
    rows = review_rows()
    tested = [i for i in range(60) if i % 4 == 0]
    for i, row in enumerate(rows):
        row["split"] = "test" if i in tested else "train"
        row["review_id"] = f"review {i}"
    for i in tested[:5]:
        rows[i]["sentiment"] = ""
    write_recipe(at, small_recipe(), rows=rows)
    run = curate.run(at / "recipe.yaml", output=at / "run")
    assert run.metrics["student"]["n"] == 10
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert "5 test rows without a reference label are left out." in facts["notes"]


# ------------------------------------------------------------------------------- other kinds of task


def test_validation_rows_choose_no_row_and_count_in_no_balance(at: Path) -> None:
    rows = review_rows()
    for i, row in enumerate(rows):
        row["split"] = ("train", "train", "validation", "test")[i // 2 % 4]
    write_recipe(at, small_recipe(), rows=rows)
    run = curate.run(at / "recipe.yaml", output=at / "run")
    counts = run.table("examples")["split"].value_counts()
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert facts["stages"]["examples"]["rows"] == counts.to_dict()
    assert sum(facts["balance"]["before"].values()) == counts["train"]
    assert facts["stages"]["student"]["rows"] <= counts["train"]
    history = json.loads((run.student / "history.json").read_text(encoding="utf-8"))
    assert history["validation_rows"] == counts["validation"]
    assert history["epochs"][0]["validation_loss"] is not None


def test_options_that_differ_from_row_to_row(at: Path) -> None:
    rows = [
        row | {"options": json.dumps(LABELS if i % 2 else [*LABELS, "neither"])}
        for i, row in enumerate(review_rows())
    ]
    recipe = small_recipe(
        task={
            "labels": None, "choices": "options", "answer_form": "text",
            "template": "{{ text }}\n{{ options | letters }}",
        }
    )  # fmt: skip
    write_recipe(at, recipe, rows=rows)
    run = curate.run(at / "recipe.yaml", output=at / "run")
    assert run.table("examples")["input"][0].endswith("(a) positive\n(b) negative\n(c) neither")
    assert list(run.metrics) == ["majority", "teacher", "student"]
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert any("There is no tfidf baseline" in note for note in facts["notes"])
    # A file in the shape of the training data is answered among each row's own options.
    new = [{"text": "It hums softly.", "options": '["loud", "quiet"]'}]
    (answer,) = curate.predict(run.student, write_csv(at / "new.csv", new)).to_dict("records")
    assert answer["prediction"] in ("loud", "quiet")
    read = "It hums softly.\n(a) loud\n(b) quiet"
    (expected,) = student.predict(run.student, [read], choices=["loud", "quiet"]).to_dict("records")
    assert answer["confidence"] == pytest.approx(expected["confidence"])
    house = pd.DataFrame({"input": [read], "choices": [["loud", "quiet"]]})
    assert curate.predict(run.student, house)["confidence"][0] == pytest.approx(
        expected["confidence"]
    )
    with pytest.raises(CurateError, match=r"row 1: .*list of options"):
        curate.predict(run.student, house.assign(choices="loud or quiet"))


def test_free_text_has_no_macro_f1_and_says_so(at: Path) -> None:
    rows = [row | {"sentiment": f"answer {i // 2}"} for i, row in enumerate(review_rows())]
    for i, row in enumerate(rows):
        row["said"] = f"Think. So the answer is answer {i // 2 if i % 3 else 0}."
        row["text"] = row["text"].replace("I bought", "We bought")
        row["review_id"] = f"review {i}"
    rows += [
        row | {"text": row["text"] + " Yes!", "review_id": row["review_id"] + "b"} for row in rows
    ]
    for i, row in enumerate(rows):
        row["sentiment"] = row["sentiment"] + f" of {i}"
    recipe = small_recipe(
        task={"labels": None, "goal": {"accuracy": 0.9}}, data={"test_fraction": 0.6}
    )
    write_recipe(at, recipe, rows=rows)
    run = curate.run(at / "recipe.yaml", output=at / "run")
    assert run.metrics["student"]["macro_f1"] is None
    assert run.metrics["teacher"]["n"] > 50
    table = result_table(run.metrics)
    assert "macro-F1" in table.splitlines()[0]
    assert all(" – " in line for line in table.splitlines()[2:])
    assert run.verdict.startswith("The goal is not met: accuracy")


def test_any_of_several_references_is_right_and_the_first_is_learned(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "kettle": ["kettle", "electric kettle"], "strap": ["strap", "watch strap"],
        "lamp": ["lamp", "desk lamp", "light"], "radio": ["radio"], "tent": ["tent"],
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for row in review_rows():
        known = names[row["review_id"].partition("-")[0]]
        # The teacher takes the last name; of radios it speaks by a name that nobody gave.
        said = "wireless" if known == ["radio"] else known[-1]
        rows.append(row | {"things": known, "said": f"It is told there. So the answer is {said}."})
    recipe = small_recipe(
        task={
            "instruction": "Name the product that is reviewed.", "labels": None,
            "goal": {"exact_match": 0.5}, "metrics": ["accuracy", "rougeL", "perplexity"],
        },
        data={"train": "reviews.jsonl", "gold": "things"},
        student={"target": "gold"},
    )  # fmt: skip
    write_jsonl(at / "reviews.jsonl", rows)
    spy = Spy(student.train)
    monkeypatch.setattr(student, "train", spy)
    run = curate.run(write_recipe(at, recipe), output=at / "run")

    answers = run.table("predictions")
    taught = answers[answers["system"] == "teacher"]
    right = [
        said in known for said, known in zip(taught["prediction"], taught["gold"], strict=True)
    ]
    assert 0 < sum(right) < len(right)
    for metric in ("accuracy", "exact_match", "rougeL"):
        assert run.metrics["teacher"][metric]["value"] == pytest.approx(sum(right) / len(right))
    assert run.metrics["teacher"]["macro_f1"] is None
    assert run.metrics["student"]["perplexity"]["value"] > 1
    firsts = {known[0] for known in names.values()}
    assert set(answers.loc[answers["system"].isin(["majority", "tfidf"]), "prediction"]) <= firsts
    learned = read_examples(spy.seen[0], target="gold")[0]
    assert {each.target for each in learned} <= firsts
    # Nothing is done again for references read back from a file, and those who explain errors take them.
    assert all(again(at).values())
    found = curate.analyse_errors(run.folder)
    assert found.kinds["only the student wrong"] + found.kinds["both right"] == sum(right)
    page = curate.report(run.folder).read_text(encoding="utf-8")
    assert "lamp / desk lamp / light" in page


def test_objects_in_memory_take_the_place_of_files(at: Path) -> None:
    frame = pd.DataFrame(review_rows())
    first = curate.label(small_recipe(), train=frame, output=at / "a", store=at / "store")
    dataset = datasets.Dataset.from_pandas(frame)
    second = curate.label(small_recipe(), train=dataset, output=at / "b", store=at / "store")
    assert first.table("labeled").equals(second.table("labeled"))
    assert first.table("examples")["source"].unique().tolist() == ["memory"]
    held_out = frame[:10].assign(
        text=lambda rows: "Held out: " + rows["text"], review_id="held out"
    )
    third = curate.label(
        small_recipe(), train=frame, test=held_out, output=at / "c", store=at / "store"
    )
    assert third.stages["examples"]["rows"] == {"train": 60, "test": 10}


def test_overrides_change_mappings_and_are_refused_for_checked_recipes(at: Path) -> None:
    frame = pd.DataFrame(review_rows())
    run = curate.label(small_recipe(), train=frame, output=at / "a", overrides=["data.limit=9"])
    assert run.stages["examples"]["rows"]["train"] == 9
    (at / "recipe.yaml").write_text(json.dumps(small_recipe()))
    checked = curate.load_recipe(at / "recipe.yaml")
    with pytest.raises(CurateError, match=r"overrides.*load_recipe"):
        curate.label(checked, train=frame, output=at / "b", overrides=["data.limit=9"])


# --------------------------------------------------------------- what is refused before it is paid for


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student": {"model": "flan-t5-smal"}}, r"'flan-t5-smal' does not name a student.*flan-t5-small"),
        ({"student": {"model": "./missing"}}, r"no file or folder './missing'"),
        ({"embedder": "all-minilm"}, r"'all-minilm' does not name an embedder"),
        (
            {"filters": [{"rebalance": {"by": ["label", "topic"]}}]},
            r"filters\.0 \(rebalance\) names the column 'topic', which the data lacks",
        ),
        (
            {"filters": [{"exact_duplicate": {"fields": ["input", "gold"]}}]},
            r"filters\.0 \(exact_duplicate\) names the column 'gold', which filters never see",
        ),
        ({"teacher": {"column": "spoken"}}, r"teacher\.column names 'spoken', which the data lacks"),
    ],
)  # fmt: skip
def test_what_would_fail_later_fails_before_the_teacher_is_asked(
    changes: dict[str, Any], words: str, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(labelers.label_recorded)
    monkeypatch.setattr(labelers, "label_recorded", spy)
    write_recipe(at, small_recipe(**changes))
    with pytest.raises(CurateError, match=words):
        again(at)
    assert not spy.seen


def test_a_built_in_name_goes_before_a_folder_of_that_name(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at / "flan-t5-small").symlink_to(at / "tiny-t5")
    asked = []

    def resolve(reference: str, kind: str, **_: Any) -> str:
        asked.append((reference, kind))
        return str(at / "tiny-t5")

    monkeypatch.setattr(assets, "resolve", resolve)
    write_recipe(at, small_recipe(student={"model": "flan-t5-small"}))
    again(at, verb="train")
    assert ("flan-t5-small", "student") in asked


def test_an_embedder_that_only_the_map_needs_may_fail(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise filters.EmbeddingError("embedder 'words' could not be loaded")

    monkeypatch.setattr(filters, "embed", fail)
    write_recipe(at, small_recipe(embedder="words"))
    run = curate.filter(at / "recipe.yaml", output=at / "run")
    assert run.stages["curated"]["clusters"] == []
    assert any(
        "no map" in w and "could not be loaded" in w for w in run.stages["curated"]["warnings"]
    )
    assert "map_x" not in run.table("curated").columns
    write_recipe(at, small_recipe(embedder="words", filters=["semantic_duplicate"]))
    with pytest.raises(filters.EmbeddingError):
        curate.filter(at / "recipe.yaml", output=at / "run")


# ------------------------------------------------------------------------------------ failed labels


def test_rows_without_a_label_stay_with_their_reason(at: Path) -> None:
    rows = review_rows()
    rows[0]["said"] = ""
    rows[1]["said"] = "I could go either way on this one."
    write_recipe(at, small_recipe(), rows=rows)
    run = curate.filter(at / "recipe.yaml", output=at / "run")
    labeled = run.table("labeled")
    assert len(labeled) == 60
    assert run.stages["labeled"]["errors"] == {"missing": 1, "unread": 1}
    assert labeled["label"].isna().tolist()[:3] == [True, True, False]
    curated = run.table("curated")
    train = curated[curated["input"].isin(labeled["input"][:2])]
    assert set(train["reason"]) <= {"unlabelled"}


def test_a_run_in_which_nothing_was_labelled_stops_there(at: Path) -> None:
    rows = [row | {"said": "Who knows?"} for row in review_rows()]
    write_recipe(at, small_recipe(), rows=rows)
    with pytest.raises(
        CurateError, match=r"no row of 60 was labelled; the first error is: unread: "
    ):
        again(at)
    assert not (at / "run" / "labeled.parquet").exists()


def test_filters_that_leave_nothing_stop_the_run_with_the_reasons(at: Path) -> None:
    recipe = small_recipe(filters=[{"confidence": {"on_missing": "drop"}}])
    write_recipe(at, recipe)
    with pytest.raises(
        CurateError, match=r"no training row is left of \d+: confidence dropped \d+"
    ):
        again(at)
    assert (at / "run" / "curated.parquet").exists()
    assert not (at / "run" / "student").exists()


# ------------------------------------------------------------------------------------------- results


def test_the_verdict_names_a_baseline_that_wins_even_without_a_goal(at: Path) -> None:
    recipe = small_recipe(task={"goal": {}})
    write_recipe(at, recipe)
    run = curate.run(at / "recipe.yaml", output=at / "run")
    assert run.verdict.startswith(
        "No goal was set in the recipe (task.goal), so there is no verdict."
    )
    wins = run.metrics["tfidf"]["accuracy"]["value"] >= run.metrics["student"]["accuracy"]["value"]
    assert ("TF-IDF" in run.verdict) is wins


def test_tables_of_results(done: curate.Run) -> None:
    lines = result_table(done.metrics).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "system", "-" * 28, "majority class", "TF-IDF + logistic regression", "teacher", "student",
    ]  # fmt: skip
    accuracy = done.metrics["teacher"]["accuracy"]
    assert f"{accuracy['value']:.1%}" in lines[4]
    assert f"{accuracy['low']:.1%} to {accuracy['high']:.1%}" in lines[4]
    medians = median_table([done.metrics, done.metrics, done.metrics]).splitlines()
    assert medians[0].split() == ["system", "median", "accuracy", "range", "runs"]
    assert medians[4].split()[1] == f"{accuracy['value']:.1%}"
