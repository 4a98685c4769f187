"""`curate dedupe`: repeats go before a teacher is paid for them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from near_twins import rows_with_twins

from curate import dedupe_command
from curate.cli import main

TEXT = "The zoom on this little camera is far better than I had expected for its price."
ROWS = [
    {"id": "a", "text": TEXT, "stars": 4},
    {"id": "b", "text": TEXT.upper(), "stars": 5},
    {"id": "c", "text": TEXT.replace("camera", "player"), "stars": 3},
    {"id": "d", "text": "The strap broke on day two.", "stars": 1},
]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dedupe", *map(str, arguments)])


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("rows", [2, 20_000])
def test_rows_that_stay_are_written_as_they_are(
    tmp_path: Path, suffix: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedupe_command, "_ROWS", rows)
    source, output = write(tmp_path / f"in{suffix}", ROWS), tmp_path / f"out{suffix}"
    done = call(source, "--output", output)
    assert done.exit_code == 0, done.output
    assert read(output).to_dict("records") == [ROWS[0], ROWS[3]]
    evidence = pd.read_parquet(f"{output}.decisions.parquet")
    drops = evidence[evidence["verdict"] == "drop"]
    assert drops[["id", "filter", "related_id"]].values.tolist() == [
        ["b", "exact_duplicate", "a"],
        ["c", "near_duplicate", "a"],
    ]
    assert (drops["score"] >= drops["threshold"]).all()


def test_what_is_printed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    arguments = ("--output", tmp_path / "out.csv", "--prompt-tokens", 1_000, "--price", 500)
    lines = call(source, *arguments).output.splitlines()
    # Twice 79 characters, at 4 to a token, and 1,000 tokens of prompt for each.
    assert lines[:4] == [
        "4 rows read, 2 stay (50.0%)",
        "  exact_duplicate: 1 dropped",
        "  near_duplicate: 1 dropped",
        "labeling the 2 dropped rows would have cost about 2,039 prompt tokens, 1.02 USD "
        "(at 4 characters a token)",
    ]
    assert lines[4:] == [
        f"rows that stay: {tmp_path / 'out.csv'}",
        f"evidence:       {tmp_path / 'out.csv.decisions.parquet'}",
    ]


def test_the_column_the_label_and_the_threshold_can_be_chosen(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    source = write(
        tmp_path / "in.jsonl",
        [
            {"key": 7, "review": TEXT, "said": "good"},
            {"key": 8, "review": TEXT.replace("better", "worse"), "said": "bad"},
        ],
    )
    assert "say with --text" in call(source, "--output", output).output
    arguments = (source, "--output", output, "--force", "--text", "review", "--id", "key")
    assert "2 rows read, 1 stay" in call(*arguments).output
    assert "2 rows read, 2 stay" in call(*arguments, "--threshold", "0.9").output
    labelled = call(*arguments, "--label", "said").output
    assert "2 rows read, 2 stay" in labelled
    assert "1 pair of alike texts with different labels stayed" in labelled
    evidence = pd.read_parquet(f"{output}.decisions.parquet")
    assert evidence[["id", "related_id", "verdict"]].values.tolist() == [["8", "7", "conflict"]]


def test_several_columns_count_together(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.csv", [{"q": "Is it good?", "a": "It is."}, {"q": "Is it good?", "a": "No."}]
    )
    arguments = (source, "--output", tmp_path / "out.csv", "--force", "--text", "q")
    assert "1 stay" in call(*arguments).output
    assert "2 stay" in call(*arguments, "--text", "a").output


@pytest.mark.parametrize("rows", [500, 20_000])
def test_an_index_remembers_the_rows_of_earlier_files(
    tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedupe_command, "_ROWS", rows)
    all_rows = rows_with_twins(1_000).drop(columns="label")
    first = write(tmp_path / "one.jsonl", all_rows[:700].to_dict("records"))
    second = write(tmp_path / "two.jsonl", all_rows[700:].to_dict("records"))
    whole = write(tmp_path / "whole.jsonl", all_rows.to_dict("records"))
    index = ("--index", tmp_path / "index")
    for source in (first, second):
        done = call(source, "--output", tmp_path / f"{source.stem}.out.jsonl", *index)
        assert done.exit_code == 0, done.output
    stayed = {*read(tmp_path / "one.out.jsonl")["id"], *read(tmp_path / "two.out.jsonl")["id"]}
    assert len(stayed) == 1_000
    call(whole, "--output", tmp_path / "whole.out.jsonl")
    assert len(read(tmp_path / "whole.out.jsonl")) == 1_000
    # The same file again: what stayed then stays, and nothing is added.
    again = call(second, "--output", tmp_path / "two.out.jsonl", "--force", *index)
    assert set(read(tmp_path / "two.out.jsonl")["id"]) <= stayed, again.output
    other = call(first, "--output", tmp_path / "three.jsonl", *index, "--threshold", "0.8")
    assert other.exit_code == 2
    assert "was made with threshold 0.7, not 0.8" in other.output
    assert not (tmp_path / "three.jsonl").exists()


def refused(tmp_path: Path, name: str, content: bytes, *arguments: object) -> str:
    source, output = tmp_path / name, tmp_path / "out.csv"
    source.write_bytes(content)
    done = call(source, "--output", output, *arguments)
    assert done.exit_code == 2, done.output
    assert [path.name for path in tmp_path.iterdir()] == [name]
    return done.output


def test_bad_input_is_refused_with_the_place_and_leaves_no_file(tmp_path: Path) -> None:
    said = refused(tmp_path, "a.jsonl", b'{"text": "fine"}\n{"text": null}\n')
    assert "a.jsonl:2: text is None; every row needs a text" in said


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.jsonl", b'{"text": 3}\n', (), "a.jsonl:1: text is 3"),
        ("a.jsonl", b"{no\n", (), "a.jsonl:1: this line is not JSON"),
        ("a.csv", b"", (), "holds no rows"),
        ("a.csv", b"text\ncaf\xe9\n", (), "give --encoding"),
        ("a.csv", b"text\nfine\n", ("--encoding", "klingon"), "no text encoding"),
        ("a.csv", b"text\nfine\n", ("--text", "words"), "no column 'words': its columns are text"),
        ("a.csv", b"id,text\n1,a\n1,b\n", (), "the id '1' occurs more than once"),
        ("a.parquet", b"nothing", (), "cannot be parsed"),
    ],
)
def test_bad_files(
    tmp_path: Path, name: str, content: bytes, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(tmp_path, name, content, *arguments)


def test_an_output_is_not_replaced_unasked_and_never_the_input(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "One."}])
    assert "replace it with --force" in call(source, "--output", source).output
    assert "is the file to read" in call(source, "--output", source, "--force").output
    assert "name it .csv, .tsv" in call(source, "--output", tmp_path / "out.txt").output
    assert call(source, "--output", tmp_path / "out.csv").exit_code == 0
    assert "is there already" in call(source, "--output", tmp_path / "out.csv").output
