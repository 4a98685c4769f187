"""The layout of Distilling step-by-step: what its loaders would read out of the files is what was meant.

The readers here follow the published ``data_utils.py`` by their own words: which files are opened, how
many rows, and where an output is cut.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import yaml
from run_folder_example import change_run, make_run

import curate
from curate.exceptions import CurateError
from curate.paper_layout import loader_code
from labelers.equations import equation_value, same_value

RECORDED = Path(__file__).parents[2] / "shared" / "data"

Parse = Callable[[str], tuple[str, str]]


def parse_options(output: str) -> tuple[str, str]:
    """As for CQA: nothing after a next question, the two parts, the text behind the letter."""
    rationale, label = output.split("Q:")[0].rstrip().split("So the answer is")
    try:
        said = re.split(r"\(.\)", label)[1].strip()
        return rationale.rstrip(), said[:-1] if said[-1] == "." else said
    except IndexError:
        return rationale.rstrip(), " "


def parse_sums(output: str) -> tuple[str, str]:
    """As for SVAMP: what stands in brackets behind "The answer is"."""
    rationale, label = output.split("Q:")[0].rstrip().split("The answer is")
    found = re.search(r"\(.*\)", label)
    return rationale.rstrip(), found.group(0) if found else " "


def parse_pairs(output: str) -> tuple[str, str]:
    """As for e-SNLI."""
    parts = output.split("Answer: ")
    label = parts[1].split("Premise")[0].rstrip() if len(parts) > 1 else " "
    return output.split("Answer:")[0].rstrip(), label


def parse_rounds(output: str) -> tuple[str, str]:
    """As for ANLI."""
    rationale, label = output.split("Premise:")[0].rstrip().split("So the answer is")
    return rationale.rstrip(), label.lstrip()[:-1]


LOADERS: dict[str, tuple[Parse, int, dict[str, int]]] = {
    "cqa": (parse_options, 1000, {"train": 10, "test": 2}),
    "svamp": (parse_sums, 500, {"train": 2, "test": 1}),
    "esnli": (parse_pairs, 5500, {"train": 100, "valid": 2, "test": 2}),
    "anli1": (parse_rounds, 5000, {"train": 4, "valid": 1, "test": 1}),
}


def read(root: Path, name: str, cache: Path) -> dict[str, list[dict[str, Any]]]:
    """Examples with the teacher's rationale and label, by split, as its loader puts them together."""
    parse, size, files = LOADERS[name]
    return assemble(root / "datasets" / name, name, parse, size, files, cache)


def assemble(
    place: Path, name: str, parse: Parse, size: int, files: Mapping[str, int], cache: Path
) -> dict[str, list[dict[str, Any]]]:
    data_files = {split: str(place / f"{name}_{split}.json") for split in files}
    loaded: Any = datasets.load_dataset("json", data_files=data_files, cache_dir=str(cache))
    whole = {}
    for split, count in files.items():
        rows = list(loaded[split])
        if split == "train":
            rows = rows[: count * size]
        said: list[tuple[str, str]] = []
        for number in range(count):
            outputs = json.loads((place / "llm" / f"{split}_CoT_{number}.json").read_text("utf-8"))
            said += map(parse, outputs)
        # Columns are added by place: one more or less is an error there.
        assert len(said) == len(rows), (split, len(said), len(rows))
        whole[split] = [
            row | {"llm_rationale": rationale, "llm_label": label}
            for row, (rationale, label) in zip(rows, said, strict=True)
        ]
    return whole


OPTIONS = ["pond", "desk", "park", "bank (b)", "etc."]


def quiz_run(folder: Path, **changes: Any) -> Path:
    """A run over questions with five options each, letters rendered as the paper's inputs have them."""
    run = make_run(folder, train=30, test=20)
    shown = "".join(f"\n({letter}) {each}" for letter, each in zip("abcde", OPTIONS, strict=True))
    for name in ("curated", "labeled"):
        frame = pd.read_parquet(run / f"{name}.parquet")
        answers = {"positive": "pond", "negative": "etc."}
        frame["input"] = frame["input"] + f"\nAnswer Choices:{shown}"
        frame["choices"] = [OPTIONS] * len(frame)
        for column in ("label", "gold"):
            frame[column] = frame[column].map(answers)
        frame.assign(**changes).to_parquet(run / f"{name}.parquet", index=False)
    change_run(run, lambda c: c["recipe"]["task"].update(labels=None, choices="options"))
    return run


def kept(run: Path) -> pd.DataFrame:
    frame = pd.read_parquet(run / "curated.parquet")
    return frame[frame["keep"]].reset_index(drop=True)


def held(run: Path) -> pd.DataFrame:
    frame = pd.read_parquet(run / "labeled.parquet")
    return frame[frame["split"] == "test"].reset_index(drop=True)


def blank(values: pd.Series[str], none: str) -> list[str]:
    return values.astype(object).where(values.notna(), none).tolist()


def test_questions_with_five_options_are_read_by_the_loader_of_cqa(tmp_path: Path) -> None:
    run = quiz_run(tmp_path / "run")
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset="cqa")
    found = read(done.folder, "cqa", tmp_path / "cache")
    for split, rows in (("train", kept(run)), ("test", held(run))):
        read_rows = found[split]
        assert set(read_rows[0]) - {"llm_label", "llm_rationale"} == {
            *("id", "question", "choices", "answer"),
            *("abstractive_explanation", "extractive_explanation"),
        }
        inputs = [
            f"{row['question']}\nAnswer Choices:"
            + "".join(f"\n({a}) {c}" for a, c in zip("abcde", row["choices"], strict=True))
            for row in read_rows
        ]
        assert inputs == rows["input"].tolist()
        assert [row["answer"] for row in read_rows] == rows["gold"].tolist()
        assert [row["llm_label"] for row in read_rows] == blank(rows["label"], " ")
        assert [row["llm_rationale"].strip() for row in read_rows] == blank(rows["rationale"], "")


def test_a_rationale_that_would_be_cut_is_worded_otherwise(tmp_path: Path) -> None:
    said = "Q: is that so? So the answer is plain to see."
    run = quiz_run(tmp_path / "run", rationale=said)
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset="cqa")
    found = read(done.folder, "cqa", tmp_path / "cache")
    assert {row["llm_rationale"] for row in found["train"]} == {
        "Q : is that so? so the answer is plain to see."
    }
    assert {row["llm_label"] for row in found["train"]} <= {"pond", "etc."}
    assert any("would part them" in each for each in done.warnings)


def test_a_label_that_would_be_misread_is_refused(tmp_path: Path) -> None:
    run = quiz_run(tmp_path / "run", label="bank (b)")
    with pytest.raises(CurateError, match=r"label 'bank \(b\)' of row .* --format jsonl"):
        curate.export_set(run, tmp_path / "set", format="paper", dataset="cqa")
    assert not (tmp_path / "set").exists()


def test_rows_without_five_options_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=30, test=20)
    with pytest.raises(CurateError, match="has 2 options, and the loader of cqa reads five"):
        curate.export_set(run, tmp_path / "set", format="paper", dataset="cqa")


def test_more_test_rows_than_its_files_hold_go_into_the_last(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=700, test=620)
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset="svamp")
    found = read(done.folder, "svamp", tmp_path / "cache")
    assert len(found["test"]) == 620
    assert [row["input"] for row in found["train"]] == kept(run)["input"].tolist()
    # Brackets stay: that reader evaluates what stands in them.
    assert {row["llm_label"] for row in found["train"]} == {"(positive)", "(negative)"}
    assert set(found["train"][0]) == {"input", "label", "llm_label", "llm_rationale"}


def test_repeated_rows_are_repeated_and_too_many_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=300, test=20)
    frame = pd.read_parquet(run / "curated.parquet")
    frame.assign(copies=8).to_parquet(run / "curated.parquet", index=False)
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset="svamp")
    assert done.rows["train"] == 8 * len(kept(run))
    assert any("reads the first 1,000 of" in each for each in done.warnings)
    assert any("both sides" in each for each in done.warnings)
    assert len(read(done.folder, "svamp", tmp_path / "cache")["train"]) == 1000


@pytest.mark.parametrize("name", ["esnli", "anli1"])
def test_pairs_are_read_by_the_loaders_of_the_inference_sets(tmp_path: Path, name: Any) -> None:
    run = make_run(tmp_path / "run", train=40, test=20)
    with pytest.raises(CurateError, match="reads validation rows and the run has none"):
        curate.export_set(run, tmp_path / "set", format="paper", dataset=name)
    for part in ("curated", "labeled"):
        frame = pd.read_parquet(run / f"{part}.parquet")
        if part == "curated":
            frame.loc[frame.index[frame["keep"]][:3], "split"] = "validation"
        frame.to_parquet(run / f"{part}.parquet", index=False)
    with pytest.raises(CurateError, match="has no 'premise', which the loader"):
        curate.export_set(run, tmp_path / "set", format="paper", dataset=name)
    for part in ("curated", "labeled"):
        frame = pd.read_parquet(run / f"{part}.parquet")
        frame = frame.assign(premise=frame["input"], hypothesis="It was good. Premise: none.")
        frame.to_parquet(run / f"{part}.parquet", index=False)
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset=name)
    found = read(done.folder, name, tmp_path / "cache")
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": done.rows["train"], "valid": 3, "test": 20,
    }  # fmt: skip
    rows = kept(run)[lambda frame: frame["split"] == "train"].reset_index(drop=True)
    assert [row["llm_label"] for row in found["train"]] == rows["label"].tolist()
    assert [row["llm_rationale"] for row in found["train"]] == rows["rationale"].tolist()
    assert [row["premise"] for row in found["train"]] == rows["input"].tolist()
    gone = (
        {"explanation_1", "explanation_2", "explanation_3"}
        if name == "esnli"
        else {"uid", "reason"}
    )
    assert gone <= set(found["train"][0])


class StandInLoader:
    """What a loader of one's own is made from: it keeps what it was given."""

    def __init__(self, **given: Any) -> None:
        self.given = given


def own_loader(code: str) -> Any:
    names: dict[str, Any] = {"DatasetLoader": StandInLoader}
    exec(code, names)  # noqa: S102
    return names["OwnDatasetLoader"]()


def test_other_data_come_with_a_loader_that_reads_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=40, test=20)
    frame = pd.read_parquet(run / "curated.parquet")
    frame.loc[frame.index[frame["keep"]][:3], "split"] = "validation"
    frame["rationale"] = "One says so. So the answer is open. Q: is it?"
    frame.to_parquet(run / "curated.parquet", index=False)
    done = curate.export_set(run, tmp_path / "set", format="paper")
    card = done.card.read_text(encoding="utf-8")
    code = loader_code("product-reviews", done.rows)
    assert code in card
    loader = own_loader(code)
    files = {
        split: len(loader.given[f"{split}_batch_idxs"]) for split in ("train", "valid", "test")
    }
    found = assemble(
        done.folder / "datasets" / "product-reviews", "product-reviews",
        loader._parse_llm_output, loader.given["batch_size"], files, tmp_path / "cache",
    )  # fmt: skip
    rows = kept(run)[lambda kept: kept["split"] == "train"]
    assert [row["input"] for row in found["train"]] == rows["input"].tolist()
    assert [row["llm_label"] for row in found["train"]] == rows["label"].tolist()
    assert {row["llm_rationale"] for row in found["train"]} == {frame["rationale"][0]}
    assert loader.given["has_valid"] is True
    assert set(loader._post_process(found)["train"][0]) >= {"input", "label"}
    assert [row["llm_label"] for row in found["test"]] == blank(held(run)["label"], " ")


def test_the_card_of_such_files_offers_no_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=30, test=20)
    text = curate.export_set(run, format="paper").card.read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert "configs" not in front
    assert "--label_type llm --llm palm" in text


# --------------------------------------------------------------------- the paper's own data, recorded


def recorded(data: str, part: str, rows: int) -> list[dict[str, Any]]:
    with gzip.open(RECORDED / f"{data}_{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(next(file)) for _ in range(rows)]
    # A few questions name an option twice, which no label could tell apart.
    return [row for row in found if len(set(row.get("choices", ()))) == len(row.get("choices", ()))]


def filtered(
    folder: Path, recipe: Mapping[str, Any], train: Sequence[Any], test: Sequence[Any]
) -> tuple[curate.Run, Path]:
    """A run of recorded answers up to its filters, and its recipe."""
    whole = {
        "teacher": {"engine": "recorded", "column": "teacher_output"},
        "filters": ["exact_duplicate"],
        "embedder": None,
        "student": {"model": "tiny"},
    } | dict(recipe)
    (folder / "tiny").mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    tables = {"train": pd.DataFrame(train), "test": pd.DataFrame(test)}
    return curate.filter(path, output=folder / "run", **tables), path


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded answers at {RECORDED}")
def test_the_papers_questions_go_through_unchanged(tmp_path: Path) -> None:
    train, test = recorded("cqa", "train", 400), recorded("cqa", "test", 60)
    recipe = {
        "name": "cqa",
        "task": {
            "instruction": "Answer the question.",
            "template": "{{ question }}\nAnswer Choices:\n{{ choices | letters }}",
            "choices": "choices",
        },
        "data": {"train": "rows", "test": "rows", "gold": "answer", "overlap": "drop"},
    }
    run, path = filtered(tmp_path, recipe, train, test)
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset="cqa", recipe=path)
    found = read(done.folder, "cqa", tmp_path / "cache")
    by_id = {row["id"]: row for row in train}
    assert len(found["train"]) > 350
    for row in found["train"]:
        original = by_id[row["id"]]
        assert (row["question"], row["answer"]) == (original["question"], original["answer"])
        assert row["choices"] == original["choices"]
        assert row["llm_label"] in original["choices"]
    # Where the original reader makes something of PaLM's own words, ours are read as the same label.
    same = [
        parse_options(by_id[row["id"]]["teacher_output"])[1] == row["llm_label"]
        for row in found["train"]
        if by_id[row["id"]]["teacher_output"].split("Q:")[0].count("So the answer is") == 1
    ]
    assert sum(same) / len(same) > 0.97


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded answers at {RECORDED}")
def test_the_papers_sums_are_worth_the_same(tmp_path: Path) -> None:
    train, test = recorded("svamp", "train", 200), recorded("svamp", "test", 40)
    recipe = {
        "name": "svamp",
        "task": {
            "instruction": "Solve it.",
            "template": "{{ input }}",
            "answer": "equation",
        },
        "data": {"train": "rows", "test": "rows", "gold": "equation", "overlap": "drop"},
    }
    run, path = filtered(tmp_path, recipe, train, test)
    done = curate.export_set(run, tmp_path / "set", format="paper", dataset="svamp", recipe=path)
    found = read(done.folder, "svamp", tmp_path / "cache")
    by_text = {row["input"]: row for row in train}
    same = 0
    for row in found["train"]:
        original = by_text[row["input"]]
        assert row["label"] == original["equation"]
        first = parse_sums(original["teacher_output"])[1]
        value = equation_value(row["llm_label"])
        assert value is not None
        theirs = equation_value(first)
        same += theirs is not None and same_value(value, theirs)
    assert same / len(found["train"]) > 0.97
