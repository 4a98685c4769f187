"""Reads and replaces columns of labelled rows, be they a dataset or a data frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labelers.rows import LABEL_COLUMNS

if TYPE_CHECKING:
    import datasets
    import pandas as pd

#: Label columns that hold lists, with the Arrow type of their items.
LIST_COLUMNS = {"label_probs": "float64", "votes": "string", "rationales": "string"}


class RowsError(ValueError):
    """Rows that lack a column, or do not belong together."""


def to_dataset(rows: datasets.Dataset | pd.DataFrame, name: str = "the data") -> datasets.Dataset:
    """The rows as a dataset whose table is in their order.

    Raises:
        RowsError: If they are neither a dataset nor a data frame, or the frame holds what no
            dataset can.
    """
    import datasets
    import pyarrow as pa

    if isinstance(rows, datasets.Dataset):
        # As an Arrow table, because putting the rows in order otherwise draws a progress bar.
        ordered = rows.with_format("arrow")[:].cast(rows.features.arrow_schema)
        return datasets.Dataset(ordered)
    if not hasattr(rows, "columns") or isinstance(rows, dict):
        raise RowsError(
            f"{name} is a {type(rows).__name__}: a datasets.Dataset or pandas.DataFrame is needed"
        )
    try:
        return datasets.Dataset.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise RowsError(f"{name} holds what a dataset cannot ({error})") from error


def read_column(rows: datasets.Dataset, name: str) -> list[Any]:
    """One column as plain Python values; NaN is None."""
    return [
        None if isinstance(value, float) and math.isnan(value) else value
        for value in rows.data.table.column(name).to_pylist()
    ]


def require_columns(rows: datasets.Dataset, names: Sequence[str], name: str = "the data") -> None:
    """Refuse rows that lack a column.

    Raises:
        RowsError: With the first column that is missing.
    """
    for column in names:
        if column not in rows.column_names:
            raise RowsError(
                f"{name} has no column {column!r}; its columns are {rows.column_names}: label it first"
            )


def read_choices(
    rows: datasets.Dataset, labels: Sequence[str] | None, name: str = "the data"
) -> list[list[str] | None]:
    """The choices of each row: its own, else the label set.

    Raises:
        RowsError: If a row has probabilities and it is not known of which labels, or not as many
            as choices.
    """
    own: list[Any] = [None] * len(rows)
    if "choices" in rows.column_names:
        own = read_column(rows, "choices")
    found = []
    distributions = read_column(rows, "label_probs")
    for i, (choices, probabilities) in enumerate(zip(own, distributions, strict=True)):
        choices = choices if choices is not None else (list(labels) if labels else None)
        if probabilities is not None and choices is None:
            raise RowsError(
                f"row {i} of {name} has label_probs and no choices, so that it is not known which label "
                "each belongs to: pass labels=[...], in the order of the task's"
            )
        if probabilities is not None and len(probabilities) != len(choices or ()):
            raise RowsError(
                f"row {i} of {name} has {len(probabilities)} label_probs and the choices {choices}: one "
                "for each is needed"
            )
        found.append(choices)
    return found


def replace_columns(
    rows: datasets.Dataset, columns: Mapping[str, Sequence[Any]]
) -> datasets.Dataset:
    """The rows with some label columns replaced, each in its place; new ones stand at the end."""
    import datasets

    table = rows.data.table
    for name, values in columns.items():
        array = _array(name, values)
        place = table.schema.get_field_index(name)
        if place >= 0:
            table = table.remove_column(place)
        table = table.add_column(place if place >= 0 else table.num_columns, name, array)
    features = datasets.Features(
        {
            name: feature
            for name, feature in rows.features.items()
            if name in table.column_names and name not in columns
        }
    )
    for name in columns:
        features[name] = datasets.Features.from_arrow_schema(table.select([name]).schema)[name]
    ordered = datasets.Features({name: features[name] for name in table.column_names})
    return datasets.Dataset(table.cast(ordered.arrow_schema))


def _array(name: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    if name in LIST_COLUMNS:
        kind = pa.list_(pa.type_for_alias(LIST_COLUMNS[name]))
    else:
        kind = pa.type_for_alias(LABEL_COLUMNS[name])
    return pa.array(list(values), kind)
