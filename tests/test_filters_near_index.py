"""A near-duplicate index that is kept on the disk and added to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from near_twins import original, rows_with_twins

from filters import FilterError, NearDuplicate, NearIndex

TEXT = "the zoom on this little camera is far better than i had expected for its price"
TWIN = TEXT.replace("camera", "player")


def verdicts(found: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(zip(found["id"], found["related_id"], found["verdict"], strict=True))


def test_new_rows_are_matched_with_rows_of_earlier_days_by_their_ids(tmp_path: Path) -> None:
    with NearIndex(tmp_path) as index:
        assert (
            verdicts(index.add(["monday-1", "monday-2"], [TEXT, "Nothing like it at all."])) == []
        )
    with NearIndex(tmp_path) as index:
        assert len(index) == 2
        found = index.add(["tuesday-1", "tuesday-2"], [TWIN, "Something new entirely."])
        assert len(index) == 3
    assert verdicts(found) == [("tuesday-1", "monday-1", "drop")]
    assert found["score"].tolist() == pytest.approx([28 / 34])
    assert found["threshold"].tolist() == [0.7]


def test_rows_added_together_are_matched_with_one_another_and_the_first_stays(
    tmp_path: Path,
) -> None:
    with NearIndex(tmp_path) as index:
        found = index.add(["a", "b", "c"], [TEXT, TWIN, TEXT.upper()])
        assert verdicts(found) == [("b", "a", "drop"), ("c", "a", "drop")]
        assert len(index) == 1


def test_a_near_text_with_another_label_is_a_conflict_and_stays(tmp_path: Path) -> None:
    worse = TEXT.replace("better", "worse")
    with NearIndex(tmp_path) as index:
        index.add(["a"], [TEXT], ["positive"])
        found = index.add(["b", "c"], [worse, worse + "!"], ["negative", " negative "])
        assert verdicts(found) == [("b", "a", "conflict"), ("c", "b", "drop"), ("c", "a", "keep")]
        assert len(index) == 2
        assert verdicts(index.add(["d"], [TEXT], [None])) == [
            ("d", "a", "drop"),
            ("d", "b", "drop"),
        ]


def test_an_add_given_again_changes_nothing(tmp_path: Path) -> None:
    rows = rows_with_twins(60)
    arguments = (rows["id"].tolist(), rows["input"].tolist(), rows["label"].tolist())
    with NearIndex(tmp_path) as index:
        first = index.add(*arguments)
        size = len(index)
        again = index.add(*arguments)
        assert len(index) == size
    dropped = set(first.loc[first["verdict"] == "drop", "id"])
    assert set(again.loc[again["verdict"] == "drop", "id"]) == dropped
    assert len(dropped) == 15


def test_one_add_or_many_find_the_same_twins(tmp_path: Path) -> None:
    rows = rows_with_twins(1_500)
    found = []
    for start in range(0, len(rows), 37):  # 54 parts, so that they are merged on the way
        part = rows[start : start + 37]
        with NearIndex(tmp_path / "many") as index:
            found.append(index.add(*(part[name].tolist() for name in ("id", "input", "label"))))
            many = len(index)
    with NearIndex(tmp_path / "one") as index:
        one = index.add(*(rows[name].tolist() for name in ("id", "input", "label")))
        assert len(index) == many == 1_500 + 150
    for lines in (pd.concat(found), one):
        drops = lines[lines["verdict"] == "drop"]
        assert len(drops) == 375
        assert (drops["id"].map(original) == drops["related_id"].map(original)).all()
        assert (lines["verdict"] == "conflict").sum() == 150
    assert len(list((tmp_path / "many").glob("part-*"))) <= 32


@pytest.mark.parametrize(
    ("near", "seed", "name"),
    [
        (NearDuplicate(threshold=0.8), 0, "threshold 0.7, not 0.8"),
        (NearDuplicate(shingle=(3,)), 0, r"shingle \[1, 2\], not \[3\]"),
        (NearDuplicate(same_label=False), 0, "same_label True, not False"),
        (NearDuplicate(), 1, "seed 0, not 1"),
    ],
)
def test_an_index_opens_with_no_other_settings(
    tmp_path: Path, near: NearDuplicate, seed: int, name: str
) -> None:
    with NearIndex(tmp_path) as index:
        index.add(["a"], [TEXT])
    with pytest.raises(FilterError, match=name):
        NearIndex(tmp_path, near, seed)
    with NearIndex(tmp_path) as index:
        assert len(index) == 1


def test_an_index_is_open_in_one_place_at_a_time(tmp_path: Path) -> None:
    with NearIndex(tmp_path), pytest.raises(FilterError, match="open elsewhere"):
        NearIndex(tmp_path)
    NearIndex(tmp_path).close()


def test_bad_rows_are_refused_and_nothing_is_added(tmp_path: Path) -> None:
    with NearIndex(tmp_path) as index:
        index.add(["a"], [TEXT])
        with pytest.raises(FilterError, match="'a' is in the index with another text"):
            index.add(["a"], ["Another text."])
        with pytest.raises(FilterError, match="the id 'b' occurs more than once"):
            index.add(["b", "b"], [TEXT, TWIN])
        with pytest.raises(FilterError, match="row 'c': input is null"):
            index.add(["c"], [None])  # type: ignore[list-item]
        with pytest.raises(FilterError, match="2 ids, 1 texts and 2 labels"):
            index.add(["d", "e"], [TEXT])
        assert len(index.add([], [])) == 0
        assert len(index) == 1


def test_a_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    with NearIndex(tmp_path) as index:
        index.add(["a"], [TEXT])
    (tmp_path / "part-000001" / "keys.npy").unlink()
    with pytest.raises(FilterError, match=r"part-000001 is damaged .* add the rows again"):
        NearIndex(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(FilterError, match=r"index\.json is damaged"):
        NearIndex(tmp_path)


CHILD = """
import sys
from pathlib import Path
from near_twins import rows_with_twins
from filters import NearIndex
rows = rows_with_twins(3_000)
with NearIndex(Path(sys.argv[1])) as index:
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        index.add(*(part[name].tolist() for name in ("id", "input", "label")))
        print(start, flush=True)
"""


@pytest.mark.integration
def test_kills_in_the_middle_lose_nothing_that_was_said_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    for lines in (3, 7, 11):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        assert child.stdout is not None
        for _ in range(lines):
            said = int(child.stdout.readline())
        time.sleep(0.003 * lines)  # somewhere in the next add
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with NearIndex(tmp_path) as index:
            expected = rows_with_twins(3_000)[: said + 50]
            assert len(index) >= 0.7 * len(expected)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    with NearIndex(tmp_path) as index:
        assert len(index) == 3_000 + 300
    stray = {path.name for path in tmp_path.iterdir()} - {".lock", "index.json"}
    assert all(name.startswith(("part-0", "counts-")) for name in stray)
    assert not list(tmp_path.glob("*draft*"))
