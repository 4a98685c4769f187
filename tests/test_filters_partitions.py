"""Duplicates of rows that come in batches: the outcome of `apply`, with the shingles on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from near_twins import rows_with_twins

import filters
from filters import ExactDuplicate, FilterError, NearDuplicate, dedupe_batches


def batches(rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def some_rows(count: int) -> pd.DataFrame:
    rows = rows_with_twins(count)
    again = rows[:50].assign(id=[f"again-{n}" for n in range(50)], input=rows["input"][:50] + "!!")
    rows = pd.concat([rows, again], ignore_index=True)
    return rows.assign(confidence=np.random.default_rng(0).random(len(rows)).round(1))


@pytest.mark.parametrize(("count", "size"), [(40, 7), (3_000, 1_000)])
def test_batches_have_the_outcome_of_apply(tmp_path: Path, count: int, size: int) -> None:
    rows = some_rows(count)
    expected = filters.apply(rows, [ExactDuplicate(), NearDuplicate()])
    found = dedupe_batches(batches(rows, size), tmp_path / "decisions.parquet", folder=tmp_path)
    assert found.keep.tolist() == expected.frame["keep"].tolist()
    assert [reason for reason in found.reasons if reason] == expected.frame[
        "reason"
    ].dropna().tolist()
    names = ("rows", "kept", "dropped", "conflicts")
    assert found.counts == {name: expected.counts[name] for name in names}
    by = ["filter", "id", "related_id"]
    columns = [*by, "score", "threshold", "verdict"]
    pd.testing.assert_frame_equal(
        pd.read_parquet(found.decisions)[columns].sort_values(by, ignore_index=True),
        expected.decisions[columns].sort_values(by, ignore_index=True),
        check_dtype=False,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["decisions.parquet"]


def test_settings_and_unlabelled_rows(tmp_path: Path) -> None:
    text = "the zoom on this little camera is far better than i had expected for its price"
    rows = pd.DataFrame({"id": ["a", "b"], "input": [text, text.replace("camera", "player")]})
    target = tmp_path / "decisions.parquet"
    strict = dedupe_batches(batches(rows, 1), target, near=NearDuplicate(threshold=0.9))
    assert strict.keep.tolist() == [True, True]
    assert dedupe_batches(batches(rows, 1), target).keep.tolist() == [True, False]


def test_no_row_at_all(tmp_path: Path) -> None:
    found = dedupe_batches(iter([]), tmp_path / "decisions.parquet")
    assert found.counts == {"rows": 0, "kept": 0, "dropped": {}, "conflicts": 0}
    assert len(pd.read_parquet(found.decisions)) == 0


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": ["a", "a"], "input": ["One.", "Two."]})
    target = tmp_path / "decisions.parquet"
    with pytest.raises(FilterError, match="the id 'a' occurs more than once"):
        dedupe_batches(batches(rows, 1), target, folder=tmp_path)
    with pytest.raises(FilterError, match="both must read the same fields"):
        dedupe_batches(batches(rows, 1), target, exact=ExactDuplicate(fields=["rationale"]))
    with pytest.raises(FilterError, match="row 'b': input is null"):
        dedupe_batches(
            iter([pd.DataFrame({"id": ["b"], "input": [None]})]), target, folder=tmp_path
        )
    assert list(tmp_path.iterdir()) == []
