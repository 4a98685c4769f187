"""Rows from every kind of source, in the house's columns, and what is refused on the way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from curate.recipe import DataSection
from curate.run_folder import table_hash
from curate.sources import RESERVED, load_examples
from curate.tables import SourceError, read_log, read_table
from labelers import Task
from labelers.rows import LABEL_COLUMNS

LINES = [
    {"text": "The strap broke on day two.", "mood": "negative", "stars": "1"},
    {"text": 'She said "never again", and sent it back.', "mood": "negative", "stars": "007"},
    {
        "text": "Setup took five minutes.\nIt works perfectly since.",
        "mood": "positive",
        "stars": "NA",
    },
    {"text": "Größe passt, schöne Farbe – très bien!", "mood": "positive", "stars": None},
]
MANY = [f"Snippet number {n} praises the {thing}." for n in range(25) for thing in ("lamp", "tent")]


def task(**changes: Any) -> Task:
    settings = {
        "instruction": "Is it praise?",
        "template": "{{ text }}",
        "labels": ("positive", "negative"),
    }
    return Task(**(settings | changes))


def load(
    source: Any,
    folder: Path,
    *,
    of: Task | None = None,
    test: Any = None,
    seed: int = 0,
    **section: Any,
) -> pd.DataFrame:
    """Examples of a file in ``folder``, or of an object in memory."""
    in_memory = not isinstance(source, str)
    data = DataSection(
        train="memory" if in_memory else source,
        test=test if isinstance(test, str) else None,
        **({"test_fraction": 0.5} | section),
    )
    return load_examples(
        data,
        of or task(),
        folder=folder,
        train=source if in_memory else None,
        test=None if isinstance(test, str) else test,
        seed=seed,
    )


def refusal(source: Any, folder: Path, **how: Any) -> str:
    with pytest.raises(SourceError) as caught:
        load(source, folder, **how)
    return str(caught.value)


def write_as(kind: str, folder: Path) -> Path:
    """LINES as a file of some kind."""
    frame = pd.DataFrame(LINES, dtype=object)
    path = folder / f"reviews.{kind}"
    if kind in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    elif kind in ("jsonl", "ndjson"):
        path.write_text("\n".join(json.dumps(line) for line in LINES))
    elif kind == "json":
        path.write_text(json.dumps(LINES))
    elif kind == "json-with-key":
        path = folder / "reviews.json"
        path.write_text(json.dumps({"rows": LINES}))
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    else:
        path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in LINES).encode()))
    return path


# ---------------------------------------------------------------------------------- reading tables


@pytest.mark.parametrize(
    "kind",
    [
        "csv", "tsv", "jsonl", "ndjson", "json", "json-with-key", "parquet", "csv.gz", "jsonl.gz",
    ],
)  # fmt: skip
def test_every_kind_of_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    frame = read_table(write_as(kind, tmp_path))
    assert list(frame.columns) == ["text", "mood", "stars"]
    rows = [{k: None if v != v else v for k, v in r.items()} for r in frame.to_dict("records")]
    assert rows == LINES


def test_windows_files_read_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(
        "﻿text,mood\r\nThe lid cracked.,negative\r\nIt hums softly.,positive\r\n".encode()
    )
    assert read_table(path).to_dict("list") == {
        "text": ["The lid cracked.", "It hums softly."],
        "mood": ["negative", "positive"],
    }
    lines = tmp_path / "reviews.jsonl"
    lines.write_bytes('﻿{"text": "The lid cracked."}\r\n\r\n{"text": "It hums."}\r\n'.encode())
    assert read_table(lines, encoding="UTF-8")["text"].tolist() == ["The lid cracked.", "It hums."]


def test_other_encodings_are_read_when_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes("text\nSchöne Größe.\n".encode("latin-1"))
    assert read_table(path, encoding="latin-1")["text"].tolist() == ["Schöne Größe."]
    with pytest.raises(
        SourceError, match=r"reviews\.csv:2: .*not utf-8.*0xf6.*data\.encoding.*latin-1"
    ):
        read_table(path)
    with pytest.raises(SourceError, match=r"data\.encoding is 'utf-9'"):
        read_table(path, encoding="utf-9")


def test_a_folder_is_read_file_after_file(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "second"}')
    (tmp_path / "a.csv").write_text("text\nfirst\n")
    (tmp_path / "notes.txt").write_text("not data")
    assert read_table(tmp_path)["text"].tolist() == ["first", "second"]
    (tmp_path / "c.csv").write_text("text,mood\nthird,positive\n")
    with pytest.raises(SourceError, match=r"c\.csv and .*a\.csv have different columns \(mood"):
        read_table(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no \.csv"):
        read_table(tmp_path)


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.json", "r.parquet"])
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match=rf"{name} is empty: it holds no rows"):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"), [("r.csv", "text,mood\n"), ("r.json", "[]"), ("r.jsonl", "\n\n")]
)
def test_a_file_without_rows_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=rf"{name} holds no rows"):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.jsonl", b'{"text": "a"}\n{"text": "b"\n', r"r\.jsonl:2: this line is not JSON"),
        ("r.jsonl", b'{"text": "a"}\n["b"]\n', r"r\.jsonl:2: a JSON object is needed"),
        ("r.json", b'[{"text": "a"},\n {"text" "b"}]', r"r\.json:2: this is not JSON"),
        ("r.json", b'{"a": 1, "b": 2}', r"must hold a list of objects.*\.jsonl"),
        ("r.csv", b"text,mood\na,b\nc,d,e\n", r"r\.csv cannot be parsed: .*line 3, saw 3"),
        ("r.csv", b"text,mood\na,b,c\nd,e,f\n", r"r\.csv: .*more cells than the header"),
        ("r.csv", b'text\n"never closed\n', r"r\.csv cannot be parsed.*check its quotes"),
        ("r.parquet", b"PAR2, but not really", r"r\.parquet cannot be parsed"),
        ("r.jsonl.gz", b"plain text", r"r\.jsonl\.gz cannot be read: .*gzip"),
        ("r.jsonl.gz", gzip.compress(b'{"text": "a"}' * 99)[:-9], r"r\.jsonl\.gz cannot be read: .*cut off"),
        ("r.xlsx", b"PK", r"r\.xlsx is of no known kind: name it \.csv"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_line(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words):
        read_table(tmp_path / name)


def test_a_misspelt_file_is_met_with_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text\nfine\n")
    with pytest.raises(SourceError, match=r"did you mean .*reviews\.csv\?.*vader-products"):
        read_table(tmp_path / "reveiws.csv")


def test_a_pandas_frame_keeps_what_was_in_its_index(tmp_path: Path) -> None:
    frame = pd.DataFrame(LINES).assign(key=list("abcd")).set_index("key")
    assert read_table(frame)["key"].tolist() == list("abcd")
    frame.to_parquet(tmp_path / "r.parquet")
    assert read_table(tmp_path / "r.parquet")["key"].tolist() == list("abcd")
    numbered = pd.DataFrame({0: ["The lid cracked."], 1: ["negative"]}, index=[7])
    assert read_table(numbered).to_dict("list") == {"0": ["The lid cracked."], "1": ["negative"]}


def test_a_frame_with_a_name_twice_is_refused() -> None:
    frame = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    with pytest.raises(SourceError, match=r"two columns are named 'text'"):
        read_table(frame)


def test_the_names_of_class_labels_take_the_place_of_their_numbers() -> None:
    dataset = datasets.Dataset.from_dict(
        {"text": ["It hums.", "It broke.", "Hm."], "mood": [1, 0, None]},
        features=datasets.Features(
            {"text": datasets.Value("string"), "mood": datasets.ClassLabel(names=["bad", "good"])}
        ),
    )
    assert read_table(dataset)["mood"].tolist() == ["good", "bad", None]


def test_several_splits_at_once_are_refused() -> None:
    one = datasets.Dataset.from_dict({"text": ["It hums."]})
    with pytest.raises(SourceError, match=r"DatasetDict.*dataset\['train'\]"):
        read_table(datasets.DatasetDict({"train": one, "test": one}))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"a list is no table"):
        read_table(["It hums."])  # type: ignore[arg-type]


# -------------------------------------------------------------------------------- the house columns


def test_examples_have_the_house_columns_first_and_pass_others_through(tmp_path: Path) -> None:
    write_as("csv", tmp_path)
    frame = load(
        "reviews.csv", tmp_path, of=task(template="Review: {{ text }}"), gold="mood", seed=1
    )
    assert list(frame.columns) == [
        "id", "input", "choices", "gold", "split", "group", "source", "text", "stars",
    ]  # fmt: skip
    assert frame["input"][0] == "Review: The strap broke on day two."
    assert frame["choices"].tolist() == [["positive", "negative"]] * 4
    assert frame["gold"].tolist() == [line["mood"] for line in LINES]
    assert frame["source"].unique().tolist() == ["reviews.csv"]
    assert frame["stars"].tolist()[:3] == ["1", "007", "NA"]
    assert set(frame["split"]) == {"train", "test"}


def test_pandas_and_datasets_objects_give_the_same_examples(tmp_path: Path) -> None:
    frame = pd.DataFrame(LINES)
    first = load(frame, tmp_path, gold="mood")
    second = load(datasets.Dataset.from_pandas(frame), tmp_path, gold="mood")
    assert first["source"].unique().tolist() == ["memory"]
    assert table_hash(first) == table_hash(second)


def test_ids_are_taken_from_the_data_or_made_from_the_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(LINES).assign(number=[10.0, 11.0, 12.0, 13.0])
    assert load(frame, tmp_path, id="number")["id"].tolist() == ["10", "11", "12", "13"]
    given = load(frame.assign(id=list("wxyz")), tmp_path)
    assert given["id"].tolist() == list("wxyz")
    made = load(frame, tmp_path)["id"].tolist()
    shuffled = load(frame.iloc[::-1], tmp_path)["id"].tolist()
    assert made == shuffled[::-1]
    assert len(set(made)) == 4
    ignored = load(frame.assign(id=["a", "a", "b", "b"]), tmp_path, ignore=["id"])
    assert ignored["id"].tolist() == made


def test_equal_texts_without_ids_get_ids_of_their_own(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["It hums.", "It hums.", *MANY]})
    first, second = load(frame, tmp_path)["id"][:2]
    assert second == f"{first}-2"


def test_repeated_ids_are_refused_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,The lid cracked.\n2,It hums.\n")
    (tmp_path / "b.csv").write_text("id,text\n3,It shines.\n2,It rusts.\n")
    message = refusal("a.csv", tmp_path, test="b.csv")
    assert "the id '2' stands 2 times: a.csv, row 2; b.csv, row 2" in message
    assert "data.ignore" in message


def test_numbers_and_booleans_can_be_labels(tmp_path: Path) -> None:
    stars = pd.DataFrame({"text": MANY[:4], "stars": [1, 2, None, 2]})
    found = load(stars, tmp_path, of=task(labels=("1", "2")), gold="stars")
    assert found["gold"].tolist() == ["1", "2", None, "2"]
    truth = pd.DataFrame({"text": MANY[:2], "fine": [True, False]})
    found = load(truth, tmp_path, of=task(labels=("True", "False")), gold="fine", test_fraction=0.6)
    assert found["gold"].tolist() == ["True", "False"]


def test_empty_gold_is_no_gold(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text,mood\nIt hums.,\nIt broke., \nIt shines.,positive\n")
    assert load("r.csv", tmp_path, gold="mood", seed=1)["gold"].tolist() == [None, None, "positive"]


def test_options_come_from_lists_or_from_json_text(tmp_path: Path) -> None:
    per_row = task(labels=None, choices="options", template="{{ text }}\n{{ options | letters }}")
    lists = pd.DataFrame({"text": ["Where do fish live?"] * 2, "options": [["sea", "sky"]] * 2})
    lists["text"] += ["", " Say."]
    found = load(lists, tmp_path, of=per_row)
    assert found["choices"].tolist() == [["sea", "sky"]] * 2
    assert found["input"][0] == "Where do fish live?\n(a) sea\n(b) sky"
    as_text = lists.assign(options='["sea", "sky"]')
    assert load(as_text, tmp_path, of=per_row)["input"].tolist() == found["input"].tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (None, "must hold a list of at least two options"),
        ("sea, sky", "must hold a list of at least two options"),
        ('"sea"', "must hold a list of at least two options"),
        (["sea"], "must hold a list of at least two options"),
        (["sea", "sea"], "twice"),
    ],
)
def test_options_that_are_none_are_refused(options: Any, words: str, tmp_path: Path) -> None:
    per_row = task(labels=None, choices="options")
    frame = pd.DataFrame({"text": MANY[:2], "options": pd.Series([["sea", "sky"], options])})
    message = refusal(frame, tmp_path, of=per_row)
    assert "memory, row 2: the column 'options'" in message
    assert words in message


def test_a_template_may_read_a_column_named_input(tmp_path: Path) -> None:
    frame = pd.DataFrame({"input": ["Where do fish live?", "Where do larks sing?"]})
    found = load(frame, tmp_path, of=task(template="Question: {{ input }}"))
    assert found["input"].tolist()[0] == "Question: Where do fish live?"


# ---------------------------------------------------------------------------------------- splitting


def test_the_column_split_is_followed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY[:3], "split": ["test", "train", "validation"]})
    assert load(frame, tmp_path)["split"].tolist() == ["test", "train", "validation"]


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        (["train", "dev", "test"], "the column 'split' holds 'dev': train, test and validation"),
        (
            ["train", None, "test"],
            "the column 'split' is null in row 2 of memory and not in others",
        ),
        (["test", "validation", "test"], "there are no train rows"),
        (["train", "validation", "train"], "there are no test rows"),
    ],
)
def test_a_column_split_that_does_not_serve_is_refused(
    splits: list[str | None], words: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"text": MANY[:3], "split": splits})
    assert words in refusal(frame, tmp_path)


def test_rows_that_call_themselves_test_are_not_trained_on(tmp_path: Path) -> None:
    train = pd.DataFrame({"text": MANY[:3], "split": ["train", "validation", "test"]})
    test = pd.DataFrame({"text": MANY[3:5]})
    message = refusal(train, tmp_path, test=test)
    assert "data.train" in message
    assert "'test' in its column 'split'" in message
    found = load(train[:2], tmp_path, test=test)
    assert found["split"].tolist() == ["train", "validation", "test", "test"]


def test_groups_stay_together_and_on_their_side_when_rows_are_added(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY, "author": [f"author {n // 5}" for n in range(50)]})
    split = load(frame, tmp_path, group="author").groupby("group")["split"]
    assert (split.nunique() == 1).all()
    assert set(split.first()) == {"train", "test"}
    fewer = load(frame[:30], tmp_path, group="author").groupby("group")["split"].first()
    assert fewer.to_dict().items() <= split.first().to_dict().items()


def test_a_random_split_keeps_twins_on_one_side(tmp_path: Path) -> None:
    twins = [text.upper().replace(" ", "  ") for text in MANY]
    frame = load(pd.DataFrame({"text": MANY + twins}), tmp_path)
    sides = frame["split"].tolist()
    assert sides[:50] == sides[50:]
    assert set(sides) == {"train", "test"}
    share = sides.count("test") / len(sides)
    assert 0.25 < share < 0.75


def test_the_split_depends_on_the_seed(tmp_path: Path) -> None:
    data = DataSection(train="memory", test_fraction=0.5)
    frame = pd.DataFrame({"text": MANY})
    sides = [
        load_examples(data, task(), folder=tmp_path, train=frame, seed=seed)["split"].tolist()
        for seed in (0, 0, 1)
    ]
    assert sides[0] == sides[1] != sides[2]


def test_a_larger_limit_keeps_the_rows_of_a_smaller_one(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY})
    kept: dict[int, set[str]] = {}
    for limit in (3, 8, 1000):
        found = load(frame, tmp_path, limit=limit, test_limit=2)
        kept[limit] = set(found.loc[found["split"] == "train", "id"])
        assert len(kept[limit]) == min(limit, (load(frame, tmp_path)["split"] == "train").sum())
        assert (found["split"] == "test").sum() == 2
    assert kept[3] < kept[8] < kept[1000]


def test_train_rows_that_are_test_rows_are_refused_or_dropped(tmp_path: Path) -> None:
    train = pd.DataFrame({"text": ["It hums.", "It shines.", "It leaks."]})
    test = pd.DataFrame({"text": ["it  HUMS.", "It glows."]})
    message = refusal(train, tmp_path, test=test)
    assert "1 train rows are also in test" in message
    assert "'It hums.'" in message
    assert "data.overlap to drop" in message
    found = load(train, tmp_path, test=test, overlap="drop")
    assert found["input"].tolist() == ["It shines.", "It leaks.", "it  HUMS.", "It glows."]


def test_an_exact_copy_in_test_is_called_overlap_and_not_a_repeated_id(tmp_path: Path) -> None:
    train = pd.DataFrame({"text": ["It hums.", "It shines."]})
    message = refusal(train, tmp_path, test=train[:1])
    assert "1 train rows are also in test" in message
    found = load(train, tmp_path, test=train[:1], overlap="drop")
    assert found["split"].tolist() == ["train", "test"]
    assert found["id"].is_unique
    numbered = train.assign(id=["a", "b"])
    dropped = load(numbered, tmp_path, test=numbered[:1], overlap="drop")
    assert dropped[["id", "split"]].to_numpy().tolist() == [["b", "train"], ["a", "test"]]


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    train = pd.DataFrame({"text": ["It hums.", "It shines."], "author": ["A", "B"]})
    test = pd.DataFrame({"text": ["It glows."], "author": ["B"]})
    assert "same group 'B'" in refusal(train, tmp_path, test=test, group="author")


# ------------------------------------------------------------------------------------ what is refused


def test_absent_columns_are_named_with_what_there_is(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY, "mood": "positive"})
    message = refusal(frame, tmp_path, of=task(template="{{ txt }}"))
    assert "task.template '{{ txt }}' names the column 'txt', which memory lacks" in message
    assert "did you mean 'text'?" in message
    for key in ("gold", "group", "id"):
        message = refusal(frame, tmp_path, **{key: "sentiment"})
        assert f"data.{key} names the column 'sentiment'" in message
        assert "it has text, mood" in message


def test_a_gold_label_outside_the_set_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY[:2], "mood": ["positive", "Negative"]})
    message = refusal(frame, tmp_path, gold="mood")
    assert "memory, row 2: data.gold ('mood') is 'Negative'" in message
    assert "['positive', 'negative']" in message
    assert "task.labels" in message


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ({"name": "lamp"}, "a label is needed, or a list of them"),
        (["lamp", None], "a list with 'None' in it"),
        (["lamp", " "], "a list with ' ' in it"),
        ([["lamp"], "light"], "a list with \"['lamp']\" in it"),
    ],
)
def test_gold_that_is_no_text_is_refused(gold: Any, words: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY[:2], "thing": pd.Series([["tent"], gold], dtype=object)})
    message = refusal(frame, tmp_path, of=task(labels=None), gold="thing")
    assert "memory, row 2: data.gold ('thing')" in message
    assert words in message


THINGS = [
    {"text": "It lights the whole desk.", "thing": ["lamp", "light", "lamp"]},
    {"text": "The pegs bend at once.", "thing": ["tent"]},
    {"text": "Somebody left this row alone.", "thing": None},
    {"text": "It boils two cups in a minute.", "thing": ["kettle", "electric kettle"]},
]
REFERENCES = [["lamp", "light"], ["tent"], None, ["kettle", "electric kettle"]]


def write_things(kind: str, folder: Path) -> None:
    """THINGS as a file of some kind; a text format holds a list as its JSON."""
    frame = pd.DataFrame(THINGS)
    if kind == "csv":
        frame["thing"] = [None if v is None else json.dumps(v) for v in frame["thing"]]
        frame.to_csv(folder / "things.csv", index=False)
    elif kind == "jsonl":
        (folder / "things.jsonl").write_text("".join(json.dumps(row) + "\n" for row in THINGS))
    else:
        frame.to_parquet(folder / "things.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_several_references_are_read_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    write_things(kind, tmp_path)
    found = load(f"things.{kind}", tmp_path, of=task(labels=None), gold="thing")
    assert found["gold"].tolist() == REFERENCES


def test_texts_beside_references_become_lists_of_one(tmp_path: Path) -> None:
    write_things("jsonl", tmp_path)
    held_out = pd.DataFrame({"text": MANY[:2], "thing": ["lamp", "tent"]})
    found = load("things.jsonl", tmp_path, of=task(labels=None), test=held_out, gold="thing")
    assert found["gold"].tolist() == [*REFERENCES, ["lamp"], ["tent"]]
    # Lists of one alone are texts as any other.
    alone = held_out.assign(thing=[["lamp"], ["tent"]])
    found = load(alone, tmp_path, of=task(labels=None), gold="thing")
    assert found["gold"].tolist() == ["lamp", "tent"]


def test_only_a_table_of_texts_holds_lists_as_json(tmp_path: Path) -> None:
    lists = {"text": MANY[0], "thing": '["lamp", "light"]'}
    numbers = {"text": MANY[1], "thing": "[3, 4]"}
    pd.DataFrame([lists, numbers]).to_csv(tmp_path / "r.csv", index=False)
    how: dict[str, Any] = {"of": task(labels=None), "gold": "thing"}
    assert load("r.csv", tmp_path, **how)["gold"].tolist() == [["lamp", "light"], ["[3, 4]"]]
    (tmp_path / "r.jsonl").write_text(f"{json.dumps(lists)}\n{json.dumps(numbers)}\n")
    assert load("r.jsonl", tmp_path, **how)["gold"].tolist() == ['["lamp", "light"]', "[3, 4]"]
    pd.DataFrame([lists | {"thing": '["lamp", "light'}]).to_csv(tmp_path / "r.csv", index=False)
    assert "begins as a JSON list of references and is none" in refusal("r.csv", tmp_path, **how)


def test_a_list_is_one_set_where_the_task_has_a_separator(tmp_path: Path) -> None:
    data = DataSection(train="memory", gold="moods", test_fraction=0.5)
    moods = pd.DataFrame({"text": MANY[:3], "moods": [["joy", "surprise"], ["joy"], []]})
    how: dict[str, Any] = {"folder": tmp_path, "separator": ", "}
    found = load_examples(data, task(labels=None), train=moods, **how)
    assert found["gold"].tolist() == ["joy, surprise", "joy", None]
    moods["moods"] = [["joy, or so"], ["joy"], []]
    with pytest.raises(SourceError, match=r"the label 'joy, or so', in which task\.separator ', '"):
        load_examples(data, task(labels=None), train=moods, **how)


def test_rows_with_references_are_split_and_held_against_test(tmp_path: Path) -> None:
    golds = [["lamp", "light"] if "lamp" in text else ["tent"] for text in MANY]
    frame = pd.DataFrame({"text": MANY, "thing": golds, "shop": [i // 2 for i in range(len(MANY))]})
    how: dict[str, Any] = {"of": task(labels=None), "gold": "thing"}
    found = load(frame, tmp_path, group="shop", limit=10, keep_twins_together=True, **how)
    assert found["split"].value_counts()["train"] == 10
    assert all(gold == ["lamp", "light"] for gold in found.loc[found["text"] == MANY[0], "gold"])
    left = load(frame, tmp_path, test=frame[:5], overlap="drop", **how)
    assert left["split"].value_counts().to_dict() == {"train": len(MANY) - 5, "test": 5}


@pytest.mark.parametrize("text", [None, "", "   ", float("nan"), pd.NA])
def test_a_null_or_empty_text_is_refused(text: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": pd.Series(["It hums.", text], dtype=object)})
    message = refusal(frame, tmp_path)
    assert (
        "memory, row 2: the column 'text', which task.template reads, is null or empty" in message
    )


def test_a_text_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["It hums.", "lid " * 25_001]})
    message = refusal(frame, tmp_path)
    assert "row 2: the input has 100,004 characters; data.max_characters allows 100,000" in message
    assert len(load(frame, tmp_path, max_characters=200_000)) == 2


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "It hums."}\n{"text": "cut emoji \\ud83d"}\n')
    message = refusal("r.jsonl", tmp_path)
    assert "r.jsonl, row 2: the column 'text' holds half of a surrogate pair" in message


def test_a_column_of_several_kinds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        '{"text": "It hums.", "stars": 5}\n{"text": "It leaks.", "stars": "one"}\n'
    )
    message = refusal("r.jsonl", tmp_path)
    assert "the column 'stars'" in message
    assert "data.ignore" in message
    assert list(load("r.jsonl", tmp_path, ignore=["stars"], seed=1).columns)[-1] == "text"


def test_reserved_names_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY})
    message = refusal(frame.assign(label="positive"), tmp_path)
    assert "memory has a column 'label', a name that this toolkit writes to itself" in message
    assert "name it in data.gold" in message
    assert "'score_near_duplicate'" in refusal(frame.assign(score_near_duplicate=1.0), tmp_path)
    found = load(frame.assign(label="positive"), tmp_path, gold="label")
    assert set(found["gold"]) == {"positive"}
    assert "label" not in found.columns


def test_a_reserved_name_that_the_recipe_names_stands_in_nobodys_way(tmp_path: Path) -> None:
    frame = pd.DataFrame({"review": MANY, "label": "positive", "source": "shop"})
    frame["group"] = [f"author {n // 10}" for n in range(50)]
    data = {"group": "group", "gold": "label", "ignore": ["source"]}
    found = load(frame, tmp_path, of=task(template="{{ review }}"), seed=2, **data)
    assert list(found.columns) == ["id", "input", "choices", "gold", "split", "group", "source"]
    assert found["group"].nunique() == 5
    assert found["input"].tolist() == MANY


def test_ignored_columns_are_gone(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY})
    assert "keep" not in load(frame.assign(keep=1), tmp_path, ignore=["keep"]).columns


def test_every_label_column_is_reserved() -> None:
    assert set(LABEL_COLUMNS) <= RESERVED


def test_a_template_that_fails_on_a_row_says_which(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": MANY[:2], "stars": [1, 0]})
    message = refusal(frame, tmp_path, of=task(template="{{ text }} {{ 1 / stars }}"))
    assert "memory, row 2: task.template failed" in message


# --------------------------------------------------------------------------------- recorded outputs


def test_a_log_is_read_by_id_and_by_prompt(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"id": 7, "response": "positive"}\n'
        '{"prompt": "It leaks.", "response": "negative"}\n'
        '{"prompt": "It is blue.", "response": null}\n'
    )
    by_id, by_prompt = read_log(path)
    assert dict(by_id) == {"7": "positive"}
    assert dict(by_prompt) == {"It leaks.": "negative"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"id": 1, "answer": "x"}', r"has the keys answer, id: each line needs `response`"),
        ('{"response": "x"}', r"each line needs `response`, and `prompt` or `id`"),
        ('{"id": 1, "response": "x"', r"log\.jsonl:1: this line is not JSON"),
        ('{"id": 1, "response": {"a": 1}}', r"log\.jsonl, row 1: the response is .*a text is needed"),
        (
            '{"id": 1, "response": "x"}\n{"id": 1, "response": "y"}',
            r"log\.jsonl, row 2: .*'1' .*another response",
        ),
    ],
)  # fmt: skip
def test_a_log_that_cannot_serve_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(SourceError, match=words):
        read_log(tmp_path / "log.jsonl")


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jsonl does not exist: correct teacher\.log"):
        read_log(tmp_path / "nowhere.jsonl")


# ----------------------------------------------------------------------------------- hubs and built-ins


@pytest.mark.integration
def test_a_hub_that_does_not_answer_is_one_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        SourceError, match=r"the Hub data set 'nobody/nothing:plain@test' could not"
    ):
        read_table("nobody/nothing:plain@test")


def test_unlabelled_train_rows_with_a_labelled_test_file(tmp_path: Path) -> None:
    raw = pd.DataFrame({"text": ["The strap broke on day two.", "The lamp is bright and sturdy."]})
    labelled = pd.DataFrame({"text": ["The tent leaks at every seam."], "mood": ["negative"]})
    found = load(raw, tmp_path, test=labelled, gold="mood")
    assert found["gold"].tolist() == [None, None, "negative"]
    with pytest.raises(SourceError, match=r"data\.gold names the column 'mood'"):
        load(labelled, tmp_path, test=raw, gold="mood")


def test_the_rows_of_a_limit_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text": MANY, "split": ["train"] * 40 + ["test"] * 10})
    drawn = [load(rows, tmp_path, limit=5, seed=seed)["id"].tolist() for seed in (0, 1, 2)]
    assert drawn[0] == drawn[1] == drawn[2]
