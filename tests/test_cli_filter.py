"""`curate filter` looking into a run: a row explained, a threshold moved, another run, a self-test."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from small_recipe import small_recipe, write_recipe

from curate.cli import main


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["filter", *arguments, "--quiet"])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe whose rows have been labelled and filtered, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-t5").mkdir()
    near = {"near_duplicate": {"threshold": 0.5, "floor": 0.4}}
    written = write_recipe(tmp_path, small_recipe(filters=["exact_duplicate", near]))
    call(str(written))
    return str(written)


def files() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path("runs/small").iterdir() if p.suffix == ".parquet"}


def test_a_row_is_explained_from_the_files_of_the_run(recipe: str) -> None:
    rows = pd.read_parquet("runs/small/curated.parquet")
    row = rows[rows["reason"] == "near_duplicate"].iloc[0]
    before = files()
    shown = call(recipe, "--explain", row["id"])
    assert shown.startswith(f"row {row['id']!r}, label {row['label']!r}: dropped by near_duplicate")
    assert f"to {row['related_id']!r}: its twin, which stays" in shown
    assert "[I" in shown.split("-----")[-1], "the afterword is marked"
    assert files() == before
    assert "did you mean" in call(recipe, "--explain", row["id"][:-1], code=2)


def test_a_moved_threshold_shows_what_would_change_and_writes_nothing(recipe: str) -> None:
    before = files()
    shown = call(recipe, "--threshold", "near_duplicate.threshold=0.8")
    rows = pd.read_parquet("runs/small/curated.parquet")
    assert shown.startswith(f"{int(rows['keep'].sum())} rows kept before, ")
    count = int(shown.split("restored: ")[1].split(" row")[0])
    assert "(near_duplicate)" in shown
    assert files() == before
    call(recipe, "--set", "filters.near_duplicate.threshold=0.8")
    anew = pd.read_parquet("runs/small/curated.parquet")
    assert int(anew["keep"].sum()) - int(rows["keep"].sum()) == count > 0


def test_two_runs_are_compared(recipe: str) -> None:
    call(recipe, "--set", "filters.near_duplicate.threshold=0.8", "--output", "runs/other")
    folder = Path("runs/other")
    near = ["near_duplicate", {"threshold": 0.8, "floor": 0.4}]
    resolved = small_recipe() | {"filters": [["exact_duplicate", {}], near]}
    (folder / "run.json").write_text(json.dumps({"recipe": resolved}), encoding="utf-8")
    shown = call(recipe, "--diff", "runs/other")
    assert "restored: " in shown
    assert "(near_duplicate)" in shown
    same = call(str(folder), "--diff", "runs/other")
    assert same.strip().count("\n") == 0, "a folder stands for its recipe, and nothing differs"


def test_the_self_test_tries_the_recipes_filters_on_the_labelled_rows(recipe: str) -> None:
    shown = call(recipe, "--self-test")
    assert "of your rows, with changes planted: share dropped" in shown
    assert "near_duplicate" in shown
    assert "contrast*" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--threshold", "confidence.minimum=0.5"),
            "'confidence', which did not run; those that did are",
        ),
        (("--threshold", "0.5"), "--threshold 0.5: write filter.argument=value"),
        (("--threshold", "near_duplicate.threshold=0.1"), "recorded down to 0.4 only"),
        (("--diff", "runs/none"), "run.json is not there"),
        (("--explain", "r", "--output", "runs/none"), "curated.parquet is not there"),
        (("--explain", "r", "--set", "filters=[]"), "are not the recipe's"),
        (("--self-test", "--output", "runs/none"), "labeled.parquet is not there"),
    ],
)
def test_what_cannot_be_looked_up_is_said(
    recipe: str, arguments: tuple[str, ...], message: str
) -> None:
    assert message in " ".join(call(recipe, *arguments, code=2).split())
