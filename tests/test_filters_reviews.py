"""A person's verdicts: read from a file, written beside the rows, and stronger than any filter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, run

import filters
from filters import Confidence, ExactDuplicate, FilterError, Rebalance, Select


def rows() -> pd.DataFrame:
    return frame(
        ["The zoom is great.", "the zoom is great", "It broke.", "Fine.", "A good buy."],
        label=["positive", "positive", "positive", None, "positive"],
        confidence=[0.9, 0.8, 0.4, None, 0.7],
        label_probs=[[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], None, [0.7, 0.3]],
        rationale=["So it is."] * 5,
        choices=[["positive", "negative"]] * 5,
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_verdicts_are_read_from_csv_and_jsonl_alike(tmp_path: Path) -> None:
    table = "id,verdict,label,note\nr0,Accept,,fine\nr2,relabel,negative,\nr1,,,unsure\nr4,drop,,\n"
    lines = [
        {"id": "r0", "review": "accept"},
        {"id": "r2", "verdict": "relabel", "label": "negative"},
        {"id": "r1", "verdict": None},
        {"id": "r4", "verdict": "drop", "label": "positive"},
    ]
    expected = [["r0", "accept", None], ["r2", "relabel", "negative"], ["r4", "drop", None]]
    for path in (
        write(tmp_path / "review.csv", "\ufeff" + table),
        write(tmp_path / "review.jsonl", "\n".join(json.dumps(line) for line in lines)),
    ):
        found = filters.read_review(path)
        assert found.astype(object).where(found.notna(), None).to_numpy().tolist() == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "r.csv",
            "id,verdict\nr0,keep\n",
            "line 2: the verdict is 'keep'; allowed are accept, drop",
        ),
        ("r.csv", "id,label\nr0,good\n", "columns are id, label; 'id' and 'review' "),
        ("r.csv", "id,verdict,label\nr0,relabel,\n", "'r0' is to be relabelled and `label` is ''"),
        ("r.csv", "id,verdict\nr0,drop\nr0,accept\n", "line 3: 'r0' has two verdicts, 'drop'"),
        ("r.jsonl", '{"id": 3, "verdict": "drop"}\n', "line 1: the id is 3; it must be the text"),
        ("r.jsonl", "[1]\n", "line 1: it is no object"),
        ("r.jsonl", "{\n", "line 1: it is no JSON"),
        ("r.txt", "", "a review is a .csv or .jsonl file"),
    ],
)
def test_a_file_with_a_fault_is_an_error_that_names_the_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        filters.read_review(write(tmp_path / name, text))
    with pytest.raises(FilterError, match="cannot be read"):
        filters.read_review(tmp_path / "absent.csv")


def reviewed(**verdicts: str) -> pd.DataFrame:
    table = pd.DataFrame(
        [(one, said.split()[0], [*said.split(), None][1]) for one, said in verdicts.items()],
        columns=["id", "verdict", "label"],
    )
    before = rows()
    found, warnings = filters.apply_review(before, table)
    pd.testing.assert_frame_equal(before, rows())
    assert warnings == []
    return found


def test_a_person_wins_over_every_filter() -> None:
    chosen = [ExactDuplicate(), Confidence(), Rebalance(by=["label"]), Select(rows=1, by="random")]
    result = run(reviewed(r1="accept", r2="accept", r4="drop"), *chosen)
    assert {"r1", "r2"} <= kept(result)
    assert result.frame.set_index("id")["reason"]["r4"] == "review"
    assert result.frame.set_index("id")["reason"]["r0"] == "exact_duplicate", (
        "r1 is the one to stay"
    )
    assert [step["stage"] for step in result.funnel][:3] == ["rows", "labelled", "after review"]
    drops = result.decisions[result.decisions["verdict"] == "drop"]
    assert set(drops["id"]) == set(result.frame.loc[~result.frame["keep"], "id"])
    moved = filters.rethreshold(result, {"confidence.minimum": 0.99})
    assert {"r1", "r2"} <= kept(moved)
    assert "a person's verdict: accept" in str(filters.explain(result, "r2"))


def test_a_new_label_takes_the_place_of_what_the_teacher_thought() -> None:
    found = reviewed(r2="relabel negative", r3="relabel positive")
    row = found.set_index("id").loc["r2"]
    assert (row["label"], row["label_source"], row["review"]) == ("negative", "review", "relabel")
    assert row["label_probs"] is None
    assert pd.isna([row["rationale"], row["confidence"]]).all()
    assert found["confidence"].tolist()[0] == 0.9
    assert np.array_equal(found["label_probs"][0], [0.9, 0.1])
    assert kept(run(found, Confidence())) == {"r0", "r1", "r2", "r3", "r4"}, "r3 has a label now"


def test_verdicts_that_fit_no_row_or_no_choice_are_told() -> None:
    table = pd.DataFrame({"id": ["r0", "gone"], "verdict": ["drop", "drop"], "label": [None, None]})
    found, warnings = filters.apply_review(rows(), table)
    assert warnings == [
        "review: 1 of 2 verdicts name rows that are not there, first 'gone'; they change nothing"
    ]
    assert found["review"].notna().tolist() == [True, False, False, False, False]
    table = pd.DataFrame({"id": ["r0"], "verdict": ["relabel"], "label": ["happy"]})
    with pytest.raises(
        FilterError, match="'r0' is to be labelled 'happy'; its choices are 'positive'"
    ):
        filters.apply_review(rows(), table)


@pytest.mark.parametrize("said", ["keep", 1])
def test_a_column_of_that_name_with_something_else_in_it_is_an_error(said: Any) -> None:
    with pytest.raises(
        FilterError, match=r"row 'r0': review is .* if it means something else, rename"
    ):
        run(frame(["One."], review=[said]))


def test_an_accepted_row_without_a_label_still_cannot_be_trained_on() -> None:
    assert "r3" not in kept(run(reviewed(r3="accept")))
