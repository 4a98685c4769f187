"""From a recipe's data to more rows: a pool without labels, and rows that the teacher writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scripted_teacher import AT_ONCE, Body, ScriptedTeacher, says

from curate.exceptions import CurateError
from curate.generation import (
    add_generated,
    add_pool,
    generate_rows,
    load_pool,
    seed_rows,
    share_kept,
)
from curate.recipe import DataSection
from curate.sources import load_examples
from curate.tables import SourceError
from labelers import Task, label

TASK = Task(
    instruction="Decide whether a product review is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
)
NEW = [
    "The zip jams every single morning.",
    "Support never answered my three letters.",
    "Its fan howls like a jet engine.",
    "Paint came off within an hour.",
]
TRAIN = [
    ("The strap broke on day two.", "negative", "one"),
    ("I love the sharp screen.", "positive", "two"),
    ("My kettle leaks all over the table.", "negative", "three"),
    ("The battery lasts for weeks.", None, "four"),
]
TEST = [("Sadly the kettle caught fire.", "negative", "five")]


def examples(**data: Any) -> pd.DataFrame:
    train, test = (
        pd.DataFrame(rows, columns=["text", "sentiment", "customer"]).assign(stars=3)
        for rows in (TRAIN, TEST)
    )
    section = DataSection(train="memory", gold="sentiment", group="customer", **data)
    return load_examples(section, TASK, folder=Path(), train=train, test=test)


def in_turn(texts: list[str]) -> Any:
    said = 0

    def script(body: Body) -> Body:
        nonlocal said
        said += 1
        return says(texts[(said - 1) % len(texts)])

    return script


def write(
    rows: pd.DataFrame, store: Path, texts: list[str] = NEW, **how: Any
) -> tuple[pd.DataFrame, dict[str, Any], ScriptedTeacher]:
    teacher = ScriptedTeacher(in_turn(texts))
    how.setdefault("labels", {"negative": 2})
    new, info = generate_rows(rows, TASK, teacher, store=store, limits=AT_ONCE, **how)
    return new, info, teacher


def shown_to(teacher: ScriptedTeacher) -> str:
    return "\n".join(m["content"] for body in teacher.seen for m in body["messages"])


def test_generated_rows_are_train_rows_without_gold_in_groups_of_their_own(tmp_path: Path) -> None:
    rows = examples()
    new, info, teacher = write(rows, tmp_path)
    whole = add_generated(rows, new)
    assert list(whole.columns[: len(rows.columns)]) == list(rows.columns)
    added = whole[whole["source"] == "generated"]
    assert added["input"].tolist() == [f"Review: {text}" for text in NEW[:2]]
    assert added["gold"].isna().all()
    assert set(added["split"]) == {"train"}
    assert added["group"].tolist() == added["id"].tolist()
    assert added["choices"].tolist() == [["positive", "negative"]] * 2
    assert added["stars"].isna().all()
    assert set(added["seeded_by"]) == {"gold"}
    assert info["seeded_by"] == "gold"
    assert info["accepted"] == 2
    # What was there is as it was, in its order, and it can be written to a file.
    assert whole["id"].tolist()[:5] == rows["id"].tolist()
    assert whole["stars"].tolist()[:5] == [3] * 5
    whole.to_parquet(tmp_path / "examples.parquet")
    assert "caught fire" not in shown_to(teacher)


def test_nothing_near_to_a_test_row_or_an_unlabelled_train_row_is_taken(tmp_path: Path) -> None:
    said = ["Sadly, the kettle caught fire", "The battery lasts for weeks!", *NEW]
    new, info, teacher = write(examples(), tmp_path, said)
    assert info["rejected"] == {"near_test": 1, "near_duplicate": 1}
    assert info["examples_rejected"]["near_test"] == ["Sadly, the kettle caught fire"]
    assert new["input"].tolist() == [f"Review: {text}" for text in NEW[:2]]
    assert "battery lasts" not in shown_to(teacher)  # it has no gold


def test_seeds_may_be_labelled_by_a_first_pass_instead_of_gold(tmp_path: Path) -> None:
    rows = examples().assign(gold=None)
    labelled = rows.assign(label=["positive", "negative", "positive", "positive", "negative"])
    new, info, teacher = write(rows, tmp_path, labelled=labelled)
    assert info["seeded_by"] == "label"
    assert set(new["seeded_by"]) == {"label"}
    assert new["generated_from"].map(list).tolist() == [[rows["id"][1]]] * 2
    assert "I love the sharp screen." in shown_to(teacher)


def test_without_gold_and_without_a_first_pass_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="none of the 4 train rows has a label to show"):
        write(examples().assign(gold=None), tmp_path)


def test_generated_rows_are_no_seeds_of_further_ones(tmp_path: Path) -> None:
    rows = examples()
    new, _, _ = write(rows, tmp_path / "first")
    whole = add_generated(rows, new)
    again, info, teacher = write(whole, tmp_path / "second", [NEW[0], *NEW[2:]])
    assert NEW[0] not in shown_to(teacher)
    assert info["rejected"] == {"near_duplicate": 1}
    assert again["input"].tolist() == [f"Review: {text}" for text in NEW[2:]]


def test_rows_are_written_per_cluster(tmp_path: Path) -> None:
    rows = examples()
    train = rows[rows["split"] == "train"]
    clusters = dict(zip(train["id"], [0, 0, 1, 1], strict=True))
    new, info, _ = write(rows, tmp_path, clusters=clusters)
    assert new["generated_cluster"].tolist() == [0, 1]
    assert info["by_cluster"] == {0: 1, 1: 1}
    with pytest.raises(CurateError, match="has no cluster"):
        seed_rows(rows, TASK, clusters={})


def test_generated_rows_can_be_labelled_like_any_other(tmp_path: Path) -> None:
    rows = examples()
    whole = add_generated(rows, write(rows, tmp_path)[0])
    teacher = ScriptedTeacher(lambda body: says("It says so. So the answer is negative."))
    labelled = label(
        whole.drop(columns="gold"), TASK, teacher, mode="cot", store=tmp_path
    ).to_pandas()
    assert labelled["label"].tolist() == ["negative"] * 7


def test_a_stray_row_is_refused() -> None:
    rows = examples()
    stray = rows.iloc[:1].assign(id="x", split="test", source="generated")
    with pytest.raises(CurateError, match="of the split 'test'"):
        add_generated(rows, stray)
    twice = rows.iloc[:1].assign(source="generated")
    with pytest.raises(CurateError, match="among the examples already"):
        add_generated(rows, twice)


def test_the_share_kept_is_told_apart_from_other_rows() -> None:
    curated = pd.DataFrame(
        {
            "split": ["train"] * 6 + ["validation"],
            "source": ["generated"] * 4 + ["reviews.csv"] * 3,
            "generated_for": ["negative", "negative", "positive", "positive", None, None, None],
            "keep": [True, False, False, True, True, False, True],
            "reason": [None, "confidence", "near_duplicate", None, None, "confidence", None],
        }
    )
    assert share_kept(curated) == {
        "rows": 4,
        "kept": 2,
        "share": 0.5,
        "dropped": {"confidence": 1, "near_duplicate": 1},
        "by_label": {"negative": {"rows": 2, "kept": 1}, "positive": {"rows": 2, "kept": 1}},
        "others": {"rows": 2, "kept": 1, "share": 0.5},
        "of_training_set": pytest.approx(2 / 3),
    }
    none = share_kept(curated[curated["source"] != "generated"])
    assert (none["rows"], none["share"]) == (0, None)


def pool_of(rows: list[tuple[str, str]], **columns: Any) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["text", "customer"]).assign(**columns)
    section = DataSection(train="memory", gold="sentiment", group="customer")
    return load_pool(table, section, TASK, folder=Path())


def test_a_pool_adds_train_rows_that_are_new() -> None:
    pool = pool_of(
        [
            ("A pool row of its own.", "six"),
            ("THE STRAP   broke on day two.", "seven"),  # in train
            ("sadly the kettle caught FIRE.", "eight"),  # in test
            ("The same customer as in test.", "five"),
            ("A pool row of its own.", "nine"),
        ]
    )
    whole, counts = add_pool(examples(), pool)
    assert counts == {"rows": 5, "added": 1, "in_train": 1, "in_test": 2, "repeated": 1}
    row = whole.iloc[-1]
    assert (row["input"], row["split"], row["group"]) == (
        "Review: A pool row of its own.", "train", "six",
    )  # fmt: skip
    assert row["gold"] is None
    assert len(whole) == 6


def test_gold_in_a_pool_is_not_read() -> None:
    pool = pool_of([("A pool row of its own.", "six")], sentiment="positive")
    assert pool["gold"].isna().all()
    assert "sentiment" not in pool.columns


def test_a_pool_is_read_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["One more row."]}).to_csv(tmp_path / "pool.csv", index=False)
    section = DataSection(train="train.csv", gold="sentiment", group="customer", id="number")
    pool = load_pool("pool.csv", section, TASK, folder=tmp_path)
    assert pool["input"].tolist() == ["Review: One more row."]
    assert set(pool["source"]) == {"pool.csv"}


def test_a_pool_with_the_ids_of_other_rows_is_refused() -> None:
    rows = examples()
    pool = pool_of([("A pool row of its own.", "six")]).assign(id=rows["id"][0])
    with pytest.raises(SourceError, match="stands in the pool and in the data, for different"):
        add_pool(rows, pool)
