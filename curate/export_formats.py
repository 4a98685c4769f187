"""The training set as tables, as JSON lines, and as messages for chat trainers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curate.exceptions import CurateError
from curate.export_rows import SLIM, CuratedSet, column_of, rows_of
from curate.gold import first_gold
from labelers.prompts import ANSWER_MARKER

Answer = Literal["label", "rationale"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written for one form.

    Attributes:
        rows: Lines or table rows by split, repeats counted.
        features: The columns as the front matter of a dataset card lists them; None where they
            cannot be listed, or the files are no table.
        tables: The rows by split as Arrow tables, for the Hub; empty where the form has none.
        warnings: What does not go over into this form, in sentences.
        reading: How the files are read, in Markdown.
    """

    rows: Mapping[str, int]
    features: list[dict[str, Any]] | None = None
    tables: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    reading: str = ""


def write_parquet(folder: Path, curated: CuratedSet, columns: str) -> Written:
    """Write ``data/<split>.parquet``."""
    import pyarrow.parquet as pq

    tables = choose_columns(curated, columns)
    for split, table in tables.items():
        pq.write_table(table, _file(folder, split, "parquet"))
    return _as_tables(tables, curated)


def write_jsonl(folder: Path, curated: CuratedSet, columns: str) -> Written:
    """Write ``data/<split>.jsonl``.

    Raises:
        CurateError: If a column holds what JSON cannot.
    """
    tables = choose_columns(curated, columns)
    for split, table in tables.items():
        with _file(folder, split, "jsonl").open("w", encoding="utf-8") as file:
            for row in rows_of(table):
                file.write(json_line(row))
    return _as_tables(tables, curated)


def _as_tables(tables: Mapping[str, Any], curated: CuratedSet) -> Written:
    said = "The recipe's student learns from people's labels: those are in `gold`, not in `label`."
    return Written(
        rows={split: table.num_rows for split, table in tables.items()},
        features=features_of(tables["train"].schema),
        tables=tables,
        warnings=[said] if _learns_gold(curated) else [],
        reading="A row with `copies` above 1 stands in the files once: repeat it when training, and "
        "multiply its loss by `weight`.",
    )


def choose_columns(curated: CuratedSet, columns: str) -> dict[str, Any]:
    """The tables with the columns of ``slim`` or ``all``; what is null in every row is left out."""
    there = curated.splits["train"].column_names
    wanted = there if columns == "all" else [name for name in SLIM if name in there]
    full = [
        name
        for name in wanted
        if any(table[name].null_count < table.num_rows for table in curated.splits.values())
    ]
    return {split: table.select(full) for split, table in curated.splits.items()}


def write_chat(folder: Path, curated: CuratedSet, answer: Answer) -> Written:
    """Write ``data/<split>.jsonl`` with one key, ``messages``: system, user, assistant.

    The system message is the task's instruction, the user's message the row's input as it was rendered, and
    the assistant's message the label, or ``<rationale> So the answer is <label>.`` Train rows are
    repeated as often as `copies` says. Test rows are answered by people's labels; where the data has none,
    by the teacher's.

    Raises:
        CurateError: If rationales are asked for and no train row has one.
    """
    import pyarrow as pa

    train = curated.splits["train"]
    if answer == "rationale" and not any(row["rationale"] for row in _answers(train)):
        raise CurateError(
            "no kept train row has a rationale: leave --answer at label, or have the teacher write some "
            "(teacher.rationales in the recipe) and run again"
        )
    instruction = curated.facts["recipe"]["task"]["instruction"]
    by_people = has_gold(curated)
    tables = {}
    for split, table in curated.splits.items():
        talks = list(_talks(table, split, instruction, answer, by_people=by_people))
        if not talks:
            continue
        with _file(folder, split, "jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json_line({"messages": talk}) for talk in talks)
        tables[split] = pa.table({"messages": pa.array(talks, _messages_type())})
    return Written(
        rows={split: table.num_rows for split, table in tables.items()},
        features=[
            {
                "name": "messages",
                "list": [{"name": name, "dtype": "string"} for name in ("role", "content")],
            }
        ],
        tables=tables,
        warnings=list(_not_said(curated, answer, tables)),
        reading=_reading(answer, by_people),
    )


def _messages_type() -> Any:
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _answers(table: Any) -> Iterator[dict[str, Any]]:
    names = ("input", "label", "rationale", "gold", "copies")
    for row in rows_of(table, [name for name in names if name in table.column_names]):
        yield {name: row.get(name) for name in names}


def _talks(
    table: Any, split: str, instruction: str, answer: Answer, *, by_people: bool
) -> Iterator[list[dict[str, str]]]:
    for row in _answers(table):
        label = first_gold(row["gold"]) if split == "test" and by_people else row["label"]
        if label is None:
            continue
        said = label
        if answer == "rationale" and row["rationale"] and label == row["label"]:
            said = f"{row['rationale'].rstrip()} {ANSWER_MARKER} {label}."
        talk = [
            {"role": "system", "content": instruction},
            {"role": "user", "content": row["input"]},
            {"role": "assistant", "content": said},
        ]
        for _ in range(copies_of(row) if split == "train" else 1):
            yield talk


def has_gold(curated: CuratedSet) -> bool:
    """Whether people labelled any test row."""
    test = curated.splits.get("test")
    return test is not None and "gold" in test.column_names and test["gold"].null_count < len(test)


def copies_of(row: Mapping[str, Any]) -> int:
    """How often a train row is repeated."""
    copies = row.get("copies")
    return 1 if copies is None or copies != copies else int(copies)


def _learns_gold(curated: CuratedSet) -> bool:
    return bool(curated.facts["recipe"].get("student", {}).get("target") == "gold")


def has_weights(train: Any) -> bool:
    """Whether some row weighs more or less than 1."""
    return bool({w for w in column_of(train, "weight") if w is not None and w == w} - {1.0})


def _not_said(curated: CuratedSet, answer: Answer, tables: Mapping[str, Any]) -> Iterator[str]:
    train = curated.splits["train"]
    if _learns_gold(curated):
        yield "The recipe's student learns from people's labels; here the assistant gives the teacher's."
    if has_weights(train):
        yield "Messages carry no weights: rows of all weights count alike in training."
    bare = sum(not row["rationale"] for row in _answers(train))
    if answer == "rationale" and bare:
        yield (
            f"Train rows without a rationale, of which the assistant says the label alone: {bare} of "
            f"{train.num_rows}."
        )
    lost = curated.splits["test"].num_rows if "test" in curated.splits else 0
    lost -= tables["test"].num_rows if "test" in tables else 0
    if lost:
        yield f"Test rows left out, without an answer to be compared with: {lost}."
    hidden = sum(
        any(choice not in row["input"] for choice in row["choices"] or ())
        for row in rows_of(train, ["input", "choices"])
    )
    if curated.facts["recipe"]["task"].get("choices") is not None and hidden:
        yield (
            f"Train rows whose input does not show their options: {hidden} of {train.num_rows}. A chat model "
            "sees the input alone: add {{ choices | letters }} to task.template."
        )


def _reading(answer: Answer, by_people: bool) -> str:
    said = (
        f"the rationale, then `{ANSWER_MARKER} <label>.` (the label alone where there is no rationale)"
        if answer == "rationale"
        else "the label"
    )
    whose = "people's" if by_people else "the teacher's, for people labelled none,"
    return (
        "Each line has one key, `messages`: `system` is the task's instruction as the recipe words "
        f"it, `user` the row's input as the template renders it, `assistant` {said}. Train rows with "
        f"`copies` above 1 are repeated. In test rows {whose} labels answer. TRL, axolotl and "
        "OpenAI's fine-tuning take lines of this form."
    )


def _file(folder: Path, split: str, ending: str) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    return folder / "data" / f"{split}.{ending}"


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON; NaN is null, dates are written as ISO 8601 has them.

    Raises:
        CurateError: If it holds bytes or the like.
    """
    plain = {name: _value(name, each) for name, each in row.items()}
    return json.dumps(plain, ensure_ascii=False) + "\n"


def _value(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_value(name, each) for each in value]
    if isinstance(value, dict):
        return {str(key): _value(name, each) for key, each in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise CurateError(
        f"the column {name!r} holds {type(value).__name__}, which JSON cannot carry: use --format "
        "parquet, or --columns slim"
    )


_DTYPES = {
    "string": "string", "double": "float64", "float": "float32", "bool": "bool", "int64": "int64",
    "int32": "int32",
}  # fmt: skip


def features_of(schema: Any) -> list[dict[str, Any]] | None:
    """The columns as a card's front matter lists them; None if one of them is no plain value or list."""
    import pyarrow as pa

    listed = []
    for column in schema:
        nested = pa.types.is_list(column.type)
        dtype = _DTYPES.get(str(column.type.value_type if nested else column.type))
        if dtype is None:
            return None
        listed.append({"name": column.name, "sequence" if nested else "dtype": dtype})
    return listed
