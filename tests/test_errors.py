"""Error analysis of a run whose errors are known: the student fails on reviews of straps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from run_folder_example import make_run

from curate.blind_samples import read_blind_sample, write_blind_sample
from curate.cli import main
from curate.error_neighbours import clusters_of, label_next, nearest_training_rows, word_vectors
from curate.error_rows import doubtful_gold, judged_rows, list_confusions, slice_columns
from curate.error_slices import wilson, worst_slices
from curate.errors import analyse_errors, write_analysis
from curate.exceptions import CurateError
from curate.recipe import parse_recipe
from curate.reports import write_report
from curate.run_folder import RunFolder

RECIPE: dict[str, Any] = {
    "name": "reviews",
    "task": {"instruction": "Is the review good or bad?", "labels": ["good", "bad"]},
    "data": {"train": "reviews.csv", "gold": "mood"},
    "teacher": {"engine": "recorded", "column": "said"},
    "embedder": None,
}
THINGS = {"kettle": 20, "lamp": 20, "strap": 20}


def write_run(folder: Path, answers: Sequence[tuple[str, str, str, str]] = ()) -> RunFolder:
    """Sixty test rows (product, gold, student, teacher); the student is wrong on 12 of the straps' 20."""
    given = [*answers]
    if not given:
        for thing, count in THINGS.items():
            for i in range(count):
                gold = ("good", "bad")[i % 2]
                other = ("bad", "good")[i % 2]
                student = other if thing == "strap" and i < 12 else gold
                teacher = (
                    other
                    if (thing, i) in (("strap", 0), ("strap", 1), ("strap", 2), ("lamp", 0))
                    else gold
                )
                given.append((thing, gold, student, teacher))
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"t{i}", "input": f"Review {i}: the {thing} is {gold} all in all.", "split": "test",
            "choices": ["good", "bad"], "gold": gold, "group": None, "source": "reviews.csv",
            "product": thing, "price": float(i), "said": f"It is {gold}.",
        }
        for i, (thing, gold, _, _) in enumerate(given)
    ]  # fmt: skip
    run.write_table("examples.parquet", pd.DataFrame(rows))
    shown = ("id", "input", "choices", "gold", "group")
    lines = []
    for i, (row, (_, _, student, teacher)) in enumerate(zip(rows, given, strict=True)):
        for system, said in (("teacher", teacher), ("student", student)):
            lines.append(
                {**{name: row[name] for name in shown}, "system": system, "prediction": said or None,
                 "confidence": 0.5 + i / 200, "label_probs": None, "error": None}
            )  # fmt: skip
    run.write_table("predictions.parquet", pd.DataFrame(lines))
    trained = [
        {"id": f"r{i}", "input": f"My {thing} is {label} and that is all.", "split": "train",
         "label": label, "keep": i != 1, "cluster": i % 3}
        for i, (thing, label) in enumerate((t, m) for m in ("good", "bad") for t in THINGS)
    ]  # fmt: skip
    run.write_table("curated.parquet", pd.DataFrame(trained))
    facts = {"recipe": parse_recipe(RECIPE).resolved()}
    run.write_text("run.json", json.dumps(facts))
    return run


def judged(folder: Path, *answers: tuple[str, str, str, str]) -> pd.DataFrame:
    return judged_rows(write_run(folder, answers), parse_recipe(RECIPE))


def test_who_is_wrong_is_told_for_every_row(tmp_path: Path) -> None:
    rows = judged(
        tmp_path,
        ("kettle", "good", "good", "good"),
        ("kettle", "good", "bad", "good"),
        ("kettle", "good", "good", "bad"),
        ("kettle", "good", "bad", "bad"),
        ("kettle", "good", "", "good"),
    )
    assert rows["kind"].tolist() == [
        "both right", "only the student wrong", "only the teacher wrong", "both wrong",
        "only the student wrong",
    ]  # fmt: skip


def test_any_of_several_references_is_right(tmp_path: Path) -> None:
    run = write_run(
        tmp_path,
        [
            ("lamp", "good", "good", "bad"),
            ("lamp", "good", "bad", "fair"),
            ("tent", "bad", "good", "bad"),
        ],
    )
    answers = run.read_table("predictions.parquet")
    golds = {"t0": ["good", "fair"], "t1": ["good", "fair"], "t2": ["bad"]}
    run.write_table("predictions.parquet", answers.assign(gold=answers["id"].map(golds)))
    rows = judged_rows(run, parse_recipe(RECIPE))
    assert rows["right"].tolist() == [True, False, False]
    assert rows["teacher_right"].tolist() == [False, True, True]
    assert rows["gold"].tolist() == ["good / fair", "good / fair", "bad"]


def test_the_slice_with_the_errors_comes_first_and_holds_beyond_chance(tmp_path: Path) -> None:
    rows = judged(tmp_path)
    slices = worst_slices(rows, slice_columns(rows))
    worst = slices[0]
    assert (worst.by, worst.value, worst.rows, worst.errors) == ("product", "strap", 20, 12)
    assert worst.elsewhere == 0
    assert worst.excess == 12
    assert worst.teacher_error_rate == 3 / 20
    assert worst.p_holm < 0.001
    # Labels have nothing to do with it.
    by_gold = [each for each in slices if each.by == "gold"]
    assert {each.value for each in by_gold} == {"good", "bad"}
    assert all(each.p_holm > 0.5 for each in by_gold)


def test_numbers_are_sliced_in_quarters_and_ids_not_at_all(tmp_path: Path) -> None:
    columns = slice_columns(judged(tmp_path))
    assert columns["price"].value_counts().tolist() == [15, 15, 15, 15]
    assert columns["price"].iloc[0] == "lowest quarter"
    assert "id" not in columns
    assert "source" not in columns  # the same everywhere
    assert "said" not in columns  # what the recorded teacher said, which is no property of the row


def test_slices_of_few_rows_are_left_out(tmp_path: Path) -> None:
    rows = judged(
        tmp_path,
        *[("kettle", "good", "good", "good")] * 15,
        *[("lamp", "good", "bad", "good")] * 9,
    )
    assert ("product", "lamp") not in {
        (s.by, s.value) for s in worst_slices(rows, slice_columns(rows))
    }


def test_a_share_s_interval_is_wilson_s() -> None:
    # 12 of 20, by the formula on paper.
    assert wilson(12, 20) == pytest.approx((0.38658, 0.78119), abs=1e-4)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_confusions_are_counted_with_the_surest_examples(tmp_path: Path) -> None:
    found = list_confusions(judged(tmp_path), examples=2)
    assert [(c["gold"], c["answer"], c["rows"]) for c in found] == [
        ("bad", "good", 6),
        ("good", "bad", 6),
    ]
    # Confidence rises with the row's number: the surest of the wrong good ones are 50 and 48.
    assert [each["id"] for each in found[1]["examples"]] == ["t50", "t48"]


def test_gold_is_doubted_where_both_agree_against_it(tmp_path: Path) -> None:
    found = doubtful_gold(judged(tmp_path))
    assert [each["id"] for each in found] == ["t42", "t41", "t40"]
    assert found[0]["gold"] == "good"
    assert found[0]["prediction"] == "bad"


def test_the_training_rows_most_like_an_error_are_shown_with_their_labels() -> None:
    errors = pd.DataFrame({"id": ["e1"], "input": ["the strap of the bag tore"]})
    training = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "input": ["a lamp that flickers", "the strap tore at once", "my bag has a soft strap"],
            "label": ["bad", "bad", "good"],
            "keep": [True, True, False],
        }
    )
    vectors, theirs = word_vectors(errors["input"], training["input"])
    near = nearest_training_rows(errors, training, vectors, theirs, most=2)["e1"]
    assert [(each["id"], each["label"], each["kept"]) for each in near] == [
        ("b", "bad", True),
        ("c", "good", False),
    ]
    assert 1 > near[0]["similarity"] > near[1]["similarity"] > 0


def test_a_test_row_belongs_to_the_cluster_whose_middle_is_nearest() -> None:
    training = pd.DataFrame({"cluster": [0, 0, 1]})
    theirs = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    found = clusters_of(np.array([[0.9, 0.1], [0.1, 0.9]]), training, theirs)
    assert found.tolist() == [0, 1]


def test_validation_rows_beside_the_clusters_do_no_harm() -> None:
    # They have no cluster, which makes the column one of floats.
    training = pd.DataFrame({"cluster": [0.0, 0.0, 1.0], "keep": [True] * 3})
    theirs = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    rows = pd.DataFrame({"right": [True, False]})
    rows["cluster"] = clusters_of(np.array([[0.9, 0.1], [0.1, 0.9]]), training, theirs)
    assert [each["cluster"] for each in label_next(rows, training)] == [1, 0]


def test_labels_are_asked_for_where_errors_are_most_frequent() -> None:
    rows = pd.DataFrame(
        {
            "cluster": [0] * 20 + [1] * 20,
            "right": [True] * 18 + [False] * 2 + [False] * 10 + [True] * 10,
        }
    )
    training = pd.DataFrame(
        {"cluster": [0] * 30 + [1] * 30, "keep": [True] * 30 + [True] * 10 + [False] * 20}
    )
    first, second = label_next(rows, training)
    assert (first["cluster"], first["errors"], first["kept"]) == (1, 10, 10)
    assert (second["cluster"], second["kept"]) == (0, 30)
    # (10 + 10 * 0.3) / 30 against (2 + 3) / 30: the budget is parted 13 to 5.
    assert first["share"] == pytest.approx(13 / 18)


def test_the_whole_analysis_of_a_run_without_embedder(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = analyse_errors(tmp_path, by=["product"])
    assert found.kinds == {
        "both right": 47, "only the student wrong": 9, "only the teacher wrong": 1, "both wrong": 3,
    }  # fmt: skip
    assert len(found.nearest) == 12
    assert all("strap" in near[0]["input"] for near in found.nearest.values())
    assert found.next == []
    text = str(found)
    assert "student: 12 of 60 test rows are wrong (20.0%)" in text
    assert "product = strap" in text
    assert "nearest training rows are by words: the recipe has no embedder" in text
    for path in write_analysis(found, tmp_path):
        assert path.exists()
    facts = json.loads((tmp_path / "errors.json").read_text())
    assert facts["slices"][0]["value"] == "strap"
    assert pd.read_parquet(tmp_path / "errors.parquet")["kind"].value_counts()["both wrong"] == 3


def test_a_name_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(
        CurateError, match=r"--system 'studnt' has no predictions .* there are: student"
    ):
        analyse_errors(tmp_path, system="studnt")
    with pytest.raises(
        CurateError, match=r"--by 'colour' is no column of the test rows; there are: .*product"
    ):
        analyse_errors(tmp_path, by=["colour"])
    with pytest.raises(CurateError, match=r"--by 'id' has 60 distinct values in 60 rows"):
        analyse_errors(tmp_path, by=["id"])
    with pytest.raises(CurateError, match=r"run\.json is not there"):
        analyse_errors(tmp_path.parent)


def test_a_student_without_an_error_has_an_analysis_too(tmp_path: Path) -> None:
    write_run(tmp_path, [("kettle", "good", "good", "good")] * 12)
    found = analyse_errors(tmp_path)
    assert "0 of 12 test rows are wrong" in str(found)
    assert found.nearest == {}


# ------------------------------------------------------------------------------------ blind samples


def test_a_blind_sample_goes_out_and_comes_back(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    rows = judged_rows(run, parse_recipe(RECIPE))
    file = tmp_path / "blind.csv"
    assert write_blind_sample(run, rows, file, size=50) == 10  # where the two differ
    sample = pd.read_csv(file, dtype=str)
    assert sample.columns.tolist() == ["id", "input", "answer_1", "answer_2", "better", "sample"]
    own = rows.set_index("id")["prediction"]
    first = [own[i] == answer for i, answer in zip(sample["id"], sample["answer_1"], strict=True)]
    assert 0 < sum(first) < 10  # sides change
    # A person who always prefers the teacher, and leaves one row out.
    sample["better"] = ["2" if is_first else "1" for is_first in first]
    sample.loc[3, "better"] = None
    sample.to_csv(file, index=False)
    result = read_blind_sample(run, file)
    assert (result.judged, result.student, result.teacher, result.left) == (9, 0, 9, 1)
    assert result.p == pytest.approx(2 / 2**9)
    assert "a difference is shown" in str(result)
    assert "1 rows are not judged yet" in str(result)


def test_judgements_are_checked(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    rows = judged_rows(run, parse_recipe(RECIPE))
    file = tmp_path / "blind.csv"
    write_blind_sample(run, rows, file)
    with pytest.raises(CurateError, match=r"blind\.csv is there already and may hold judgements"):
        write_blind_sample(run, rows, file)
    sample = pd.read_csv(file, dtype=str)
    sample.assign(better="student").to_csv(file, index=False)
    with pytest.raises(
        CurateError, match=r"line 2: better is 'student'; it may be 1, 2, both, neither"
    ):
        read_blind_sample(run, file)
    sample.assign(id="elsewhere", better="1").to_csv(file, index=False)
    with pytest.raises(CurateError, match=r"line 2: the id 'elsewhere' is not of its sample"):
        read_blind_sample(run, file)
    pd.concat([sample, sample]).assign(better="both").to_csv(file, index=False)
    with pytest.raises(CurateError, match=r"line 12: the id '.*' stands there twice"):
        read_blind_sample(run, file)


def test_a_second_sample_leaves_the_first_one_s_key(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    rows = judged_rows(run, parse_recipe(RECIPE))
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    write_blind_sample(run, rows, first, size=6)
    write_blind_sample(run, rows, second, size=10)
    sample = pd.read_csv(first, dtype=str)
    own = rows.set_index("id")["prediction"]
    sample["better"] = [
        "1" if own[i] == answer else "2"
        for i, answer in zip(sample["id"], sample["answer_1"], strict=True)
    ]
    sample.to_csv(first, index=False)
    result = read_blind_sample(run, first)
    assert (result.student, result.teacher, result.left) == (6, 0, 0)
    pd.concat([sample, pd.read_csv(second, dtype=str)]).to_csv(first, index=False)
    with pytest.raises(CurateError, match=r"is of the samples 1, 2; .* judge one sample"):
        read_blind_sample(run, first)


def test_a_run_that_changed_since_its_student_answered_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(CurateError, match=r"has no run\.json: its rows have changed"):
        judged_rows(run, parse_recipe(RECIPE))


def test_nothing_is_to_be_judged_where_the_two_agree(tmp_path: Path) -> None:
    run = write_run(tmp_path, [("kettle", "good", "bad", "bad")] * 12)
    rows = judged_rows(run, parse_recipe(RECIPE))
    with pytest.raises(CurateError, match="the same answer on every row"):
        write_blind_sample(run, rows, tmp_path / "blind.csv")


def test_the_report_escapes_what_the_analysis_quotes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    row = {"id": "a", "input": "<script>alert(1)</script>", "gold": "<b>bad</b>", "prediction": "good",
           "confidence": 0.9}  # fmt: skip
    near = [{"id": "n", "input": "<img src=x>", "label": "good", "similarity": 0.5, "kept": False}]
    facts = {
        "rows": 3,
        "errors": 1,
        "surest": [row],
        "doubtful_gold": [row],
        "nearest": {"a": near},
    }
    (run / "errors.json").write_text(json.dumps(facts))
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src" not in page
    assert "&lt;img src=x&gt;" in page
    assert "good (dropped)" in page


def test_the_command_shows_the_analysis_and_writes_it_down(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    facts["recipe"] |= {"embedder": None, "filters": []}
    (run / "run.json").write_text(json.dumps(facts))
    shown = CliRunner().invoke(main, ["errors", str(run), "--quiet"])
    assert shown.exit_code == 0, shown.output
    assert "Worst slices" in shown.output
    page = write_report(run).read_text(encoding="utf-8")
    assert "Where it errs most" in page
    assert "The surest errors, and what was learned nearest to them" in page
    assert "the recipe has no embedder" in page
    written = CliRunner().invoke(
        main, ["errors", str(run), "--blind", str(tmp_path / "b.csv"), "--rows", "7"]
    )
    assert "holds 7 rows on which student and teacher differ" in written.output
    read = CliRunner().invoke(main, ["errors", str(run), "--judged", str(tmp_path / "b.csv")])
    assert "0 rows judged" in read.output
    assert "7 rows are not judged yet" in read.output
    page = write_report(run).read_text(encoding="utf-8")
    assert "Judged blind by a person" in page
    assert "7 rows are not judged yet" in page
