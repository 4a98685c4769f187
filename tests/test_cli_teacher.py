"""``curate teacher`` on the command line: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from small_recipe import TEACHER_ERRORS, review_rows, small_recipe, write_csv, write_recipe

from curate.cli import main

WEAK = "teacher={engine: recorded, column: weak, name: weak}"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["teacher", *(str(argument) for argument in arguments)])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with a recorded teacher that is right but on one sentence, and one that never praises."""
    (tmp_path / "tiny-t5").mkdir()
    monkeypatch.chdir(tmp_path)
    rows = [
        row | {"weak": "So the answer is negative." if i % 6 else "I cannot say."}
        for i, row in enumerate(review_rows())
    ]
    return write_recipe(tmp_path, small_recipe(), rows=rows)


def test_the_table_the_winner_and_its_errors_are_printed(path: Path) -> None:
    result = call(path, "--vary", WEAK, "--rows", 44, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "44 train rows with gold; test rows were not looked at"
    assert lines[2].split()[:5] == ["variant", "accuracy", "95", "%", "interval"]
    base, weak = (next(x for x in lines if x.startswith(name)) for name in ("base", "teacher 1"))
    assert base.split()[-2:] == ["0.0%", "0.0%"]
    assert "worse" in weak
    assert '\nteacher 1 is teacher={"engine": "recorded"' in result.stdout
    assert "base is picked by the rule 'best' (within 0.01), with an accuracy of" in result.stdout
    assert "(none did better)." in result.stdout
    assert "to label with it" not in result.stdout
    assert f"said negative: Review: {TEACHER_ERRORS[0]}" in result.stdout
    assert lines[-1] == "results: runs/small/teacher"


def test_the_words_for_set_bring_the_winner_into_the_recipe(path: Path) -> None:
    weak = ["--set", WEAK, "--vary", "teacher.column=said", "--quiet"]
    result = call(path, *weak, "--rows", 30)
    assert result.exit_code == 0, result.output
    assert "\nto label with it: --set teacher.column=said\n" in result.stdout
    assert "It is better than the recipe as it is by" in result.stdout
    run = ["label", str(path), "--quiet", "--set", WEAK, "--set", "teacher.column=said"]
    assert CliRunner().invoke(main, run).exit_code == 0
    labels = pd.read_parquet("runs/small/labeled.parquet")
    assert (labels["label"] == labels["gold"]).mean() > 0.9


def test_both_files_hold_what_was_printed(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    assert call(path, "--vary", WEAK, "--rows", 25, "--output", folder).exit_code == 0
    facts = json.loads((folder / "teacher-trials.json").read_text(encoding="utf-8"))
    table = pd.read_parquet(folder / "teacher-trials.parquet")
    assert list(table) == ["id", "variant", "label", "gold", "right", "confidence", "error"]
    assert table["variant"].value_counts().to_dict() == {"base": 25, "teacher 1": 25}
    assert facts["ids"] == table.loc[table["variant"] == "base", "id"].tolist()
    base, weak = facts["variants"]
    shares = table.groupby("variant")["right"].mean()
    assert base["accuracy"]["value"] == pytest.approx(shares["base"])
    assert weak["accuracy"]["value"] == pytest.approx(shares["teacher 1"])
    assert weak["changes"]["teacher"]["column"] == "weak"
    unread = table.loc[table["error"].notna(), "variant"]
    assert set(unread) == {"teacher 1"}
    assert weak["unread"] == pytest.approx(len(unread) / 25)
    assert len(facts["disagreements"]) == 10
    for row in facts["disagreements"]:
        assert row["labels"]["base"] != row["labels"]["teacher 1"]
    assert (facts["winner"], facts["rule"], facts["within"]) == ("base", "best", 0.01)


def test_progress_names_each_variant_and_a_failed_one_has_a_line(path: Path) -> None:
    result = call(path, "--vary", "teacher.column=absent,weak", "--rows", 20)
    assert result.exit_code == 0, result.output
    assert "variant teacher.column=weak …" in result.stderr
    assert "not judged: teacher.column=absent: teacher.column names 'absent'" in result.stdout


def test_a_rows_text_cannot_steer_the_terminal(path: Path) -> None:
    rows = [row | {"text": f"{row['text']}\x1b[31m"} for row in review_rows()]
    write_csv(path.parent / "reviews.csv", rows)
    result = call(path, "--rows", 44, "--quiet")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert f"said negative: Review: {TEACHER_ERRORS[0]}\\x1b[31m" in result.stdout
    assert "Nothing else could be compared with it." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "student.epochs=1,2"], "only keys under task and teacher can be tried"),
        (
            ["--vary", "teacher.column"],
            "write a key and its values, such as teacher.mode=score,cot",
        ),
        (["--set", "data.limit=10"], "10 train rows have gold"),
        (["--set", "trials.rows=3"], "trials.rows is 3"),
        (["--rows", "5"], "5 is not in the range x>=20"),
        (["--rule", "fastest"], "'fastest' is not one of"),
        (["--within", "7"], "7.0 is not in the range 0<=x<=1"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(
    path: Path, arguments: list[str], message: str
) -> None:
    result = call(path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not Path("runs").exists()
