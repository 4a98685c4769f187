"""`curate review`: a run's doubtful rows in a file, filled in by a person, honoured by the next run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from doubtful_run import DROPPED_SUSPECTS, KEPT_SUSPECTS, REVIEWED, make_doubtful_run
from small_recipe import small_recipe, write_csv, write_recipe

import curate
import filters
from curate.cli import main
from curate.exceptions import CurateError
from curate.review_command import COLUMNS, write_review
from curate.run_facts import count_reviewed, rows_deduped, run_facts

KETTLE = "The kettle boils two cups of water in under a minute, even when it is full."
STRAP = "The strap broke on day two while I was on the bus to work with my lunch."


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_doubtful_run(tmp_path_factory.mktemp("doubtful") / "run")


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe over eight rows, of which two like ones got different labels."""
    said = [(KETTLE, "positive"), (KETTLE.replace("full", "half"), "negative")]
    said += [(STRAP, "negative"), (f"A lamp: {STRAP.replace('strap', 'switch')}", "negative")]
    said += [(f"Number {i} of the tents stood firm in the rain.", "positive") for i in range(4)]
    rows = [
        {"id": f"r{i}", "text": text, "said": f"So the answer is {label}."}
        for i, (text, label) in enumerate(said)
    ]
    monkeypatch.chdir(tmp_path)
    recipe = small_recipe(data={"test": "held.csv", "gold": None, "group": None})
    recipe["filters"] = [{"near_duplicate": {"threshold": 0.7}}]
    recipe["student"] = {"model": str(tmp_path)}
    write_csv(tmp_path / "held.csv", [{"id": "t0", "text": "It hums.", "said": rows[0]["said"]}])
    write_recipe(tmp_path, recipe, rows=rows)
    return tmp_path


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def review(run: Path, output: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["review", str(run), "--output", str(output), *more])


def test_conflicts_suspects_and_verdicts_stand_in_one_file(doubtful: Path, tmp_path: Path) -> None:
    done = write_review(doubtful, tmp_path / "review.csv")
    found = lines(tmp_path / "review.csv")
    assert list(found[0]) == list(COLUMNS)
    assert len({line["id"] for line in found}) == len(found) == done.rows
    by_id = {line["id"]: line for line in found}
    first, second = found[:2]
    assert first["twin"] == second["id"]
    assert second["twin"] == first["id"]
    assert first["label"] == second["twin_label"] != second["label"]
    assert first["twin_input"] == second["input"]
    assert f"like {second['id']}, which has another label" in first["why"]
    for rank, one in enumerate((*DROPPED_SUSPECTS, *KEPT_SUSPECTS), start=1):
        line = by_id[one]
        assert f"suspected wrong label, number {rank}" in line["why"]
        assert {line["opinion"], line["label"]} == {"positive", "negative"}
        assert float(line["opinion_probability"]) == pytest.approx(0.99 - 0.02 * rank)
        assert line["kept"] == ("yes" if one in KEPT_SUSPECTS else "no: label_noise")
    assert {one: line["review"] for one, line in by_id.items() if line["review"]} == REVIEWED
    assert (done.suspects, done.carried, done.left_out) == (5, 3, 0)


def test_a_pair_of_which_no_row_is_kept_needs_no_review(doubtful: Path, tmp_path: Path) -> None:
    write_review(doubtful, tmp_path / "all.csv")
    first, second = (line["id"] for line in lines(tmp_path / "all.csv")[:2])
    curated = pd.read_parquet(doubtful / "curated.parquet")
    for gone, listed in (([second], True), ([first, second], False)):
        run = tmp_path / f"{len(gone)} dropped"
        run.mkdir()
        keep = curated["keep"] & ~curated["id"].isin(gone)
        curated.assign(keep=keep).to_parquet(run / "curated.parquet")
        pd.read_parquet(doubtful / "decisions.parquet").to_parquet(run / "decisions.parquet")
        write_review(run, run / "review.csv")
        pairs = {(line["id"], line["twin"]) for line in lines(run / "review.csv")}
        assert ((first, second) in pairs) is listed


def test_the_file_as_it_is_written_holds_the_verdicts_so_far_and_no_other(
    doubtful: Path, tmp_path: Path
) -> None:
    for name in ("review.csv", "review.jsonl"):
        write_review(doubtful, tmp_path / name)
        read = filters.read_review(tmp_path / name)
        assert dict(zip(read["id"], read["verdict"], strict=True)) == REVIEWED


def test_the_limit_takes_the_worst_and_says_what_is_left_out(
    doubtful: Path, tmp_path: Path
) -> None:
    result = review(doubtful, tmp_path / "r.csv", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "1 pair in conflict, 1 suspected labels, 3 verdicts carried over" in result.output
    assert re_number(result.output, "more are left out") > 1
    found = [line["id"] for line in lines(tmp_path / "r.csv") if "suspected" in line["why"]]
    assert found == [DROPPED_SUSPECTS[0]]


def re_number(text: str, before: str) -> int:
    return int(text.split(before)[0].split()[-1].replace(",", ""))


def test_a_file_that_a_person_has_filled_in_is_never_replaced(
    doubtful: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,review,label\nr0001,drop,\n", encoding="utf-8")
    result = review(doubtful, path)
    assert result.exit_code == 2
    assert "mine.csv holds 1 verdicts, which would be lost" in result.output
    assert path.read_text(encoding="utf-8") == "id,review,label\nr0001,drop,\n"
    # A form with nothing in it may be.
    path.write_text("id,review,label\nr0001,,\n", encoding="utf-8")
    assert review(doubtful, path).exit_code == 0
    assert len(lines(path)) > 5


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.csv", "to do,when\ncall Kim,today\n", "cannot be read as a review"),
        ("review.jsonl", "{", "cannot be read as a review"),
        ("review.xlsx", None, "a review is a .csv or .jsonl file"),
    ],
)
def test_other_files_are_left_alone(
    doubtful: Path, tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    result = review(doubtful, tmp_path / name)
    assert result.exit_code == 2
    assert said in result.output
    if content is not None:
        assert (tmp_path / name).read_text(encoding="utf-8") == content


def test_a_folder_without_filtered_rows_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"curated\.parquet is not there.*`curate run`"):
        write_review(tmp_path, tmp_path / "review.csv")


def test_texts_of_all_kinds_come_through_both_forms(doubtful: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    odd = 'said: "ok",\r\nthen\u2028left\x85 שלום 🙂 =1+1\x00'
    curated = pd.read_parquet(doubtful / "curated.parquet")
    listed = curated["suspect_rank"].notna()
    curated["input"] = [
        "word " * 300_000 if suspected else f"{odd} {i}" for i, suspected in enumerate(listed)
    ]
    curated.to_parquet(run / "curated.parquet")
    pd.read_parquet(doubtful / "decisions.parquet").to_parquet(run / "decisions.parquet")
    for name in ("review.csv", "review.jsonl"):
        done = write_review(run, tmp_path / name)
        text = (tmp_path / name).read_text(encoding="utf-8-sig")
        assert "שלום 🙂 =1+1� " in text
        assert "(1,500,000 characters in all)" in text
        assert len(text) < 200_000
        assert dict(filters.read_review(tmp_path / name)[["id", "verdict"]].to_numpy()) == REVIEWED
    read = [json.loads(line) for line in (tmp_path / "review.jsonl").read_text().splitlines()]
    assert len(read) == done.rows


def curated_rows(run: curate.Run) -> dict[str, Any]:
    frame = run.table("curated")
    return dict(zip(frame["id"], frame.to_dict("records"), strict=True))


def test_the_round_trip(labelled: Path) -> None:
    run = curate.filter("recipe.yaml", output="run")
    assert run.stages["curated"]["conflicts"] == 1
    assert run.stages["curated"]["reviewed"] == {}
    result = CliRunner().invoke(main, ["review", "run"])
    assert result.exit_code == 0, result.output
    assert "2 rows to review: 1 pair in conflict, 0 suspected labels" in result.output
    assert f"--set data.review={labelled / 'review.csv'}" in result.output
    table = pd.read_csv("review.csv", dtype=str, keep_default_na=False)
    assert sorted(table["id"]) == ["r0", "r1"]
    table.loc[table["id"] == "r1", ["review", "label"]] = ["relabel", "positive"]
    table.loc[table["id"] == "r0", "review"] = "accept"
    table.to_csv("review.csv", index=False)
    again = curate.filter("recipe.yaml", output="run", overrides=["data.review=review.csv"])
    after = curated_rows(again)
    assert (after["r1"]["label"], after["r1"]["label_source"]) == ("positive", "review")
    assert again.stages["curated"]["conflicts"] == 0
    assert again.stages["curated"]["reviewed"] == {"accept": 1, "relabel": 1}
    assert {"stage": "after review", "rows": 8} in again.stages["curated"]["funnel"]
    # The filled-in file stays as it is; a new one carries the verdicts on.
    assert CliRunner().invoke(main, ["review", "run"]).exit_code == 2
    assert write_review(Path("run"), Path("next.csv")).carried == 2
    third = curate.filter("recipe.yaml", output="run", overrides=["data.review=next.csv"])
    assert curated_rows(third)["r1"]["label"] == "positive"


def test_rows_left_out_before_labeling_are_read_off_the_evidence(labelled: Path) -> None:
    many = [{"id": f"m{i}", "text": STRAP if i < 3 else f"{KETTLE} {i}"} for i in range(4)]
    write_csv(labelled / "many.csv", many)
    arguments = ["dedupe", "many.csv", "--output", "few.csv"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert rows_deduped(labelled / "few.csv") == 2
    assert rows_deduped(labelled / "many.csv") is None
    assert rows_deduped(labelled / "vader-products") is None
    (labelled / "many.csv.decisions.parquet").write_bytes(b"something else")
    assert rows_deduped(labelled / "many.csv") is None


def test_run_json_has_the_policy_and_what_each_filter_dropped(labelled: Path) -> None:
    from curate.recipe import load_recipe

    run = curate.filter("recipe.yaml", output="run")
    recipe = load_recipe(Path("recipe.yaml"))
    curated = run.table("curated")
    curated["weight"] = 0.5
    facts = run_facts(recipe, stages=run.stages, curated=curated, metrics={}, goal=[], verdict="")
    told = facts["filters"]
    assert told["policy"] == run.stages["curated"]["policy"]
    assert told["policy"] == filters.policy_hash(recipe.built_filters())
    assert told["dropped"] == {"near_duplicate": int((~curated["keep"]).sum())}
    assert told["kept"] == int(curated["keep"].sum())
    assert (told["conflicts"], told["reviewed"], told["notes"]) == (1, {}, [])
    after = facts["balance"]["after"]
    assert facts["balance"]["effective"] == {label: n / 2 for label, n in after.items()}


def test_verdicts_are_counted() -> None:
    assert count_reviewed(pd.DataFrame({"id": ["a"]})) == {}
    told = pd.DataFrame({"review": ["drop", None, "accept", "drop"]})
    assert count_reviewed(told) == {"accept": 1, "drop": 2}
