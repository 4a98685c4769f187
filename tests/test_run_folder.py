"""The run folder: whole files or none, one process at a time, and stages that know themselves."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from curate.run_folder import RunError, RunFolder, fingerprint, table_hash

FRAME = pd.DataFrame({"id": ["a", "b"], "input": ["The lid cracked.", "It hums softly."]})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tables_and_texts_are_written_and_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.write_table("examples.parquet", FRAME) == tmp_path / "examples.parquet"
    pd.testing.assert_frame_equal(run.read_table("examples.parquet"), FRAME)
    run.write_text("run.json", '{"verdict": "größer"}')
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["verdict"] == "größer"
    assert names(tmp_path) == ["examples.parquet", "run.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"the disk that holds .* is full: make room and run the same command again"),
        (errno.EACCES, r"cannot be written to \(Permission denied\): name another with --output"),
    ],
)
def test_a_failed_write_leaves_the_former_file_and_nothing_half(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.write_table("examples.parquet", FRAME)

    def fail(frame: pd.DataFrame, path: Path, **_: Any) -> None:
        path.write_bytes(b"PAR1 and then no more room")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(RunError, match=words):
        run.write_table("examples.parquet", FRAME[:1])
    assert names(tmp_path) == ["examples.parquet"]
    assert len(run.read_table("examples.parquet")) == 2


def test_a_stage_is_done_while_its_mark_and_its_file_are_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.done("labeled", "mark", "labeled.parquet") is None
    run.write_table("labeled.parquet", FRAME)
    run.record("labeled", "mark", {"rows": 2})
    run.record("curated", "other", {"kept": 1})
    again = RunFolder(tmp_path)
    assert again.done("labeled", "mark", "labeled.parquet") == {"rows": 2}
    assert again.done("labeled", "changed", "labeled.parquet") is None
    assert again.done("curated", "other", "curated.parquet") is None
    again.remove("labeled.parquet")
    assert again.done("labeled", "mark", "labeled.parquet") is None


def test_a_damaged_list_of_stages_is_named(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text('{"labeled": ')
    with pytest.raises(RunError, match=r"stages\.json cannot be read.*delete it"):
        RunFolder(tmp_path).stages()


@pytest.mark.parametrize("content", ["[]", '"words"', '{"labeled": {"info": {}}}'])
def test_a_list_of_stages_in_another_shape_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text(content)
    with pytest.raises(RunError, match=r"stages\.json cannot be read.*delete it"):
        RunFolder(tmp_path).done("labeled", "mark", "labeled.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1 cut off"])
def test_a_damaged_table_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labeled.parquet").write_bytes(content)
    with pytest.raises(RunError, match=r"labeled\.parquet cannot be read.*delete it"):
        RunFolder(tmp_path).read_table("labeled.parquet")
    with pytest.raises(RunError, match=r"curated\.parquet is not there.*curate"):
        RunFolder(tmp_path).read_table("curated.parquet")


def test_files_and_folders_are_removed_and_absent_ones_are_no_matter(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.json").write_text("{}")
    run.write_text("run.json", "{}")
    for name in ("student", "run.json", "report.html"):
        run.remove(name)
    assert names(tmp_path) == []


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(RunError, match=r"run is in use by another process.*--output"),
        RunFolder(tmp_path / "run").locked(),
    ):
        pytest.fail("two hold one folder")
    with RunFolder(tmp_path / "run").locked() as run:
        assert run.path.is_dir()


def test_a_place_that_cannot_hold_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(RunError, match=r"cannot be written to.*--output"),
            RunFolder(place).locked(),
        ):
            pytest.fail("a file holds a run")


@pytest.mark.integration
def test_a_killed_holder_leaves_the_folder_free(tmp_path: Path) -> None:
    hold = (
        "import sys; from curate.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunError, match="in use by another process"),
            RunFolder(tmp_path).locked(),
        ):
            pytest.fail("two processes hold one folder")
        holder.kill()
    with RunFolder(tmp_path).locked():
        pass


# ---------------------------------------------------------------------------------------- hashes


def test_the_hash_of_a_table_knows_its_rows_columns_and_order() -> None:
    first = table_hash(FRAME)
    assert first == table_hash(FRAME.copy())
    different = [
        FRAME[::-1],
        FRAME[:1],
        FRAME[["input", "id"]],
        FRAME.rename(columns={"id": "key"}),
        FRAME.assign(input=["The lid cracked.", "It hums softly"]),
        FRAME.assign(gold=None),
    ]
    assert len({first, *map(table_hash, different)}) == len(different) + 1


def test_the_hash_outlives_the_file(tmp_path: Path) -> None:
    frame = FRAME.assign(
        label_probs=[[0.1, 0.9], [1 / 3, 2 / 3]], confidence=[0.9, 2 / 3], gold=[None, "x"]
    )
    run = RunFolder(tmp_path)
    run.write_table("labeled.parquet", frame)
    once = run.read_table("labeled.parquet")
    run.write_table("again.parquet", once)
    assert table_hash(once) == table_hash(run.read_table("again.parquet"))


def test_bytes_can_be_hashed() -> None:
    images = [FRAME.assign(image=[b"\xff\xd8\xff", last]) for last in (b"\x00", b"\x01")]
    assert table_hash(images[0]) == table_hash(images[0].copy())
    assert table_hash(images[0]) != table_hash(images[1])


def test_fingerprints_differ_where_anything_does() -> None:
    marks = [
        fingerprint("labeled", {"a": 1, "b": [1, 2]}),
        fingerprint("labeled", {"a": 1, "b": [2, 1]}),
        fingerprint("labeled", {"a": 1, "b": [1, "2"]}),
        fingerprint("curated", {"a": 1, "b": [1, 2]}),
    ]
    assert len(set(marks)) == 4
    assert fingerprint("labeled", {"b": [1, 2], "a": 1}) == marks[0]
