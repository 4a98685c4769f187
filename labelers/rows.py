"""Between a dataset and the few fields of a row that a teacher may see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from labelers.tasks import LETTERS, Demonstration, Task, TaskError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

#: The columns that labeling writes, with their Arrow types by name.
LABEL_COLUMNS = {
    "label": "string",
    "rationale": "string",
    "label_probs": "list",
    "label_source": "string",
    "off_label_mass": "float64",
    "confidence": "float64",
    "finish_reason": "string",
    "teacher": "string",
    "prompt_key": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "cost_usd": "float64",
    "votes": "texts",
    "agreement": "float64",
    "rationales": "texts",
    "error": "string",
}
#: The column ``source`` of rows that a teacher wrote: they say nothing of how common labels are.
GENERATED = "generated"
#: A dataset that has these was labelled before, maybe by a version that wrote fewer columns.
_MARKS = ("label", "prompt_key", "finish_reason", "error")
_ANSWERS_AT_ONCE = 4096
_MOST_KNOWN = 50_000


@dataclass(frozen=True, slots=True)
class Row:
    """What a teacher may see of a row, and the split it belongs to.

    ``split`` is "generated" for a row that a teacher wrote, whichever split it is in. ``shown`` is the
    input as it is sent: without what was redacted. ``demonstrations`` are those
    chosen for this row, or None for the task's.
    """

    input: str
    choices: tuple[str, ...] | None
    split: str | None
    shown: str
    demonstrations: tuple[Demonstration, ...] | None = None


def read_rows(dataset: datasets.Dataset | pd.DataFrame, task: Task) -> list[Row]:
    """Read the rows of a dataset; the gold column is not among what is read.

    Raises:
        TaskError: If the data is no dataset, the template names an absent column, an input is not text,
            or a row's choices are not a list of 2 to 26 texts.
    """
    _check_dataset(dataset)
    names = list(_column_names(dataset))
    rendered = "input" in names
    needed = ["input"] if rendered else sorted(task.columns)
    if task.choices and "choices" in names:
        options_column: str | None = "choices"
    else:
        options_column = task.choices
    absent = [n for n in [*needed, *([options_column] if options_column else [])] if n not in names]
    if absent:
        raise TaskError(
            f"the task needs the column {absent[0]!r}, which the data lacks; its columns are {names}"
        )
    columns = {name: _column(dataset, name) for name in needed}
    options = _column(dataset, options_column) if options_column else None
    splits = _column(dataset, "split") if "split" in names else None
    sources = _column(dataset, "source") if "source" in names else None
    rows = []
    known: dict[str, str] = {}
    for i in range(len(dataset)):
        values = {name: column[i] for name, column in columns.items()}
        try:
            text = values["input"] if rendered else task.render(values)
        except TaskError as error:
            raise TaskError(f"row {i}: {error}") from error
        if not isinstance(text, str):
            raise TaskError(f"row {i} has the input {text!r}, which is not text")
        if not _is_unicode(text):
            raise TaskError(f"row {i} has the input {text[:80]!r}, which is not valid Unicode")
        choices = task.labels if options is None else _choices(options[i], i, known)
        split = splits[i] if splits else None
        if sources and sources[i] == GENERATED:
            split = GENERATED
        rows.append(Row(text, choices, split, text))
    return rows


def refuse_clash(dataset: datasets.Dataset | pd.DataFrame) -> None:
    """Refuse columns that labeling would write over, unless labeling wrote them.

    Raises:
        TaskError: If some of the label columns are there, but not all.
    """
    names = _column_names(dataset)
    clash = [name for name in LABEL_COLUMNS if name in names]
    if clash and not all(name in names for name in _MARKS):
        raise TaskError(
            f"the data has a column {clash[0]!r}, which labeling writes: rename it (`gold` for a "
            "human's label) or remove it"
        )


def _check_dataset(dataset: Any) -> None:
    """Refuse, before anything is asked, what cannot become the result's dataset."""
    names = getattr(dataset, "column_names", getattr(dataset, "columns", None))
    if names is None or isinstance(names, dict):
        raise TaskError(
            f"the data is a {type(dataset).__name__}: give one datasets.Dataset or pandas.DataFrame, "
            'such as splits["train"]'
        )
    if not hasattr(dataset, "column_names"):
        import pyarrow as pa

        try:
            pa.Table.from_pandas(dataset, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise TaskError(
                f"the data frame holds what a dataset cannot ({error}): give each column one type"
            ) from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _choices(value: Any, i: int, known: dict[str, str]) -> tuple[str, ...]:
    if (
        value is None
        or isinstance(value, (str, float))
        or not all(isinstance(v, str) for v in value)
    ):
        raise TaskError(f"row {i} has the choices {value!r}: a list of texts is needed")
    choices = tuple(value)
    if not 2 <= len(choices) <= len(LETTERS):
        raise TaskError(f"row {i} has {len(choices)} choices: 2 to {len(LETTERS)} are allowed")
    if all(map(str.strip, choices)) and _is_unicode("".join(choices)):
        return choices if len(known) > _MOST_KNOWN else _shared(choices, known)
    for choice in choices:
        if not choice.strip() or not _is_unicode(choice):
            raise TaskError(f"row {i} has the empty choice {choice!r}: every choice needs a word")
    return choices


def _shared(choices: tuple[str, ...], known: dict[str, str]) -> tuple[str, ...]:
    """Options recur from row to row: one text serves all of them."""
    return tuple(known.setdefault(choice, choice) for choice in choices)


def _column_names(dataset: datasets.Dataset | pd.DataFrame) -> Sequence[str]:
    names: Sequence[str] = getattr(dataset, "column_names", None) or list(dataset.columns)
    return names


def _column(dataset: datasets.Dataset | pd.DataFrame, name: str) -> list[Any]:
    # As plain Python values, whatever format the user has set; a slice reads them all at once.
    table: Any = dataset
    column = (table.with_format(None) if hasattr(table, "with_format") else table)[name]
    values = column.tolist() if hasattr(column, "tolist") else list(column[:])
    return [None if isinstance(v, float) and math.isnan(v) else v for v in values]


def as_dataset(
    dataset: datasets.Dataset | pd.DataFrame,
    rows: Sequence[Row],
    answers: Iterable[dict[str, Any]],
) -> datasets.Dataset:
    """The dataset with the label columns added; columns of these names are replaced.

    Args:
        dataset: What was labelled.
        rows: Its rows as they were read.
        answers: The label columns of each row, made while they are read: those of all rows at once would
            take several times the memory of the result.
    """
    import datasets
    import pyarrow as pa

    if isinstance(dataset, datasets.Dataset):
        result = dataset
    else:
        result = datasets.Dataset.from_pandas(dataset, preserve_index=False)
    result = result.remove_columns([n for n in LABEL_COLUMNS if n in result.column_names])
    if result._indices is not None:
        result = result.flatten_indices()
    table = result.data.table.combine_chunks()
    lists = {"list": pa.list_(pa.float64()), "texts": pa.list_(pa.string())}
    types = {n: lists.get(kind) or pa.type_for_alias(kind) for n, kind in LABEL_COLUMNS.items()}
    if "input" not in result.column_names:
        types = {"input": pa.string(), **types}
    schema = pa.schema(list(types.items()))
    # Left to itself, the library pickles the whole table, several times its memory, to tell it from others.
    digest = sha256(result._fingerprint.encode())
    batches = []
    made = ({"input": row.input, **answer} for row, answer in zip(rows, answers, strict=True))
    while some := list(islice(made, _ANSWERS_AT_ONCE)):
        batches.append(pa.RecordBatch.from_pylist(some, schema))
        digest.update(batches[-1].serialize())
    added = pa.Table.from_batches(batches, schema)
    for name in types:
        table = table.append_column(schema.field(name), added[name])
    return datasets.Dataset(table, fingerprint=digest.hexdigest()[:16])
