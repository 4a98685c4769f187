"""What a recipe's metrics come to: findings, the printed table, comparisons, exports of a run."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from small_recipe import small_recipe, write_recipe
from tiny_student import tiny_folder

import curate
from curate.cli import main
from curate.evaluation import weigh_abstention
from curate.exceptions import CurateError, RecipeError
from curate.recipe import parse_recipe
from curate.results import result_table

METRICS = ["accuracy", "mcc", "ece", "perplexity", "micro_f1"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> curate.Run:
    """One run that asks for metrics beyond the usual; tests must not change it."""
    folder = tmp_path_factory.mktemp("scored")
    tiny_folder(folder / "tiny-t5")
    recipe = small_recipe()
    recipe["task"] |= {"metrics": METRICS, "separator": ",", "goal": {"macro_f1": 0.5}}
    return curate.run(write_recipe(folder, recipe), output=folder / "run")


def test_the_printed_table_shows_what_the_recipe_names(done: curate.Run) -> None:
    assert list(done.shown) == ["macro_f1", *METRICS]
    head, _, *lines = result_table(done.metrics, done.shown).splitlines()
    for title in ("macro-F1", "accuracy", "MCC", "ECE", "perplexity of gold", "micro-F1 (sets)"):
        assert title in head
    found = done.metrics["student"]
    (line,) = [each for each in lines if each.startswith("student")]
    assert f"{found['mcc']['value']:.3f}" in line
    assert f"{found['perplexity']['value']:.3f}" in line
    assert found["perplexity"]["value"] > 1
    assert done.metrics["majority"]["perplexity"] is None
    # Every label alone is a set of one.
    assert found["micro_f1"]["value"] == pytest.approx(found["accuracy"]["value"])


def test_run_json_compares_the_student_and_says_what_it_takes(done: curate.Run) -> None:
    facts = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    rivals = {entry["system"]: entry for entry in facts["comparisons"]}
    assert set(rivals) == {"majority", "tfidf", "teacher"}
    ours = done.metrics["student"]["macro_f1"]["value"]
    for name, entry in rivals.items():
        assert entry["metric"] == "macro_f1"
        theirs = done.metrics[name]["macro_f1"]["value"]
        assert entry["difference"] == pytest.approx(ours - theirs)
        assert entry["low"] <= entry["difference"] <= entry["high"]
    speed = facts["stages"]["predictions"]["speed"]
    assert speed["rows_per_second"] > 0
    card = (done.student / "README.md").read_text(encoding="utf-8")
    assert "## Costs" in card
    assert "rows/s in batches of 32" in card
    assert "Labeling:" in card


def test_two_runs_are_compared_on_the_rows_they_share(done: curate.Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(done.folder / "run.json", other)
    frame = pd.read_parquet(done.folder / "predictions.parquet")
    ours = frame["system"] == "student"
    frame.loc[ours, "prediction"] = frame.loc[ours, "gold"]
    frame.to_parquet(other / "predictions.parquet")
    found = curate.compare(other, done.folder, metric="accuracy")
    wrong = 1 - done.metrics["student"]["accuracy"]["value"]
    assert found["difference"] == pytest.approx(wrong)
    assert found["mcnemar"]["second_only"] == 0
    shown = CliRunner().invoke(main, ["compare", str(other), str(done.folder), "--metric", "mcc"])
    assert shown.exit_code == 0
    assert "McNemar's exact test" in shown.output
    same = CliRunner().invoke(main, ["compare", str(done.folder), str(done.folder)])
    assert "may well be chance" in same.output
    frame[ours].assign(id="x" + frame["id"]).to_parquet(other / "predictions.parquet")
    with pytest.raises(CurateError, match="share no test row"):
        curate.compare(other, done.folder)
    with pytest.raises(CurateError, match="is no complete run folder"):
        curate.compare(tmp_path, done.folder)


def test_a_runs_student_is_exported_and_answers_as_before(done: curate.Run, tmp_path: Path) -> None:
    output = tmp_path / "plain"
    told = CliRunner().invoke(
        main,
        ["export", "student", str(done.folder), "--to", "transformers", "--output", str(output)],
    )
    assert told.exit_code == 0, told.output
    assert "100.0% of its answers are the student's, on the run's test rows" in told.output
    assert f"export: {output}" in told.output
    texts = ["The strap broke on day two.", "Lovely sound."]
    columns = ["prediction", "label_probs"]
    before, after = (curate.predict(each, texts)[columns] for each in (done.student, output))
    pd.testing.assert_frame_equal(before, after)
    with pytest.raises(CurateError, match="name a file of rows with --rows"):
        curate.export_student(output, tmp_path / "again", to="transformers")
    rows = pd.DataFrame({"text": texts, "truth": ["negative", "positive"]})
    named = curate.export_student(
        output, tmp_path / "again", to="transformers", rows=rows, gold="truth"
    )
    assert named.report["rows"] == 2
    assert named.report["accuracy"] == named.report["accuracy_of_original"]


@pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None, reason="ctranslate2 is not installed"
)
def test_a_refused_export_ends_the_command_with_the_figures(
    done: curate.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import student.exports

    worse: Any = {"checked": True, "agreement": 0.5, "accuracy": None, "accuracy_of_original": None}
    monkeypatch.setattr(student.exports, "_gate", lambda *_: worse)
    arguments = ["export", "student", str(done.folder), "--output", str(tmp_path / "int8")]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 2
    assert "agrees with the student on 50.0%" in told.output
    assert [path.name for path in tmp_path.iterdir()] == ["int8.refused.json"]


def test_an_unsure_answer_is_printed_as_none(done: curate.Run) -> None:
    arguments = ["predict", "--model", str(done.student), "--abstain-below", "1", "Lovely sound."]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 0
    assert told.output.startswith("(no answer: abstained: confidence")


def test_validation_rows_show_what_abstaining_buys(done: curate.Run) -> None:
    recipe = parse_recipe(json.loads((done.folder / "run.json").read_text("utf-8"))["recipe"])
    labeled = done.table("labeled")
    assert weigh_abstention(labeled, done.student, recipe) is None  # it has no validation rows
    labeled.loc[labeled.index[:10], "split"] = "validation"
    found = weigh_abstention(labeled, done.student, recipe)
    assert found is not None
    assert found["rows"] == 10
    first = found["table"][0]
    assert (first["threshold"], first["coverage"]) == (0.0, 1.0)
    sure = curate.predict(done.student, labeled.head(10)[["input"]])
    right = (sure["prediction"] == labeled.head(10)["gold"]).mean()
    assert first["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": {"ece": 0.1}}, "a goal is a least value"),
        ({"metrics": ["micro_f1"]}, "say in task.separator"),
        ({"labels": None, "metrics": ["brier"]}, "needs the probability of each label"),
        ({"labels": None, "goal": {"mcc": 0.5}}, "task.goal.mcc needs one label set"),
        ({"metrics": []}, "task.metrics is"),
        ({"goal": {"f1": 0.5}}, "unknown metric 'f1'"),
    ],
)
def test_metrics_that_cannot_be_are_found_before_anything_is_paid(
    changes: dict[str, Any], message: str
) -> None:
    recipe = small_recipe()
    recipe["task"] |= changes
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe)


def test_a_metric_whose_library_is_missing_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.recipe_metrics.find_spec", lambda name: None)
    recipe = small_recipe()
    recipe["task"] |= {"metrics": ["bleu"]}
    with pytest.raises(RecipeError, match=r"needs sacrebleu.*curate-distill\[metrics\]"):
        parse_recipe(recipe)
