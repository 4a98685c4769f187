"""Read the columns that every filter relies on, and refuse what cannot be worked with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from filters.arguments import FilterError
from filters.rows import Filter, Flags, Floats, Ints, Objects, column, missing

if TYPE_CHECKING:
    import datasets


def as_frame(dataset: pd.DataFrame | datasets.Dataset) -> pd.DataFrame:
    """Return the rows as a frame that can be added to without touching the caller's."""
    if isinstance(dataset, pd.DataFrame):
        return dataset.copy(deep=False)
    # `datasets` is slow to import, and whoever holds a Dataset has imported it.
    library = sys.modules.get("datasets")
    if library is not None and isinstance(dataset, library.Dataset):
        return pd.DataFrame(dataset.to_pandas())
    raise FilterError(
        f"apply: the dataset is a {type(dataset).__name__}; it must be a pandas DataFrame or a "
        "datasets.Dataset; of a DatasetDict pass one split, such as dataset['train']"
    )


def read_ids(frame: pd.DataFrame) -> Objects:
    """Return the `id` column, shape (n,); ids are strings, all different."""
    values = column(frame, "id", "apply")
    ids = np.empty(len(frame), dtype=object)
    ids[:] = values.tolist()
    for position, value in enumerate(ids):
        if not isinstance(value, str):
            raise FilterError(
                f"apply: the id of row number {position} is {value!r}; it must be a string; "
                "write frame['id'] = frame['id'].astype(str)"
            )
    if (double := pd.Series(ids, dtype=object).duplicated()).any():
        raise FilterError(
            f"apply: the id {ids[int(np.argmax(double))]!r} occurs more than once; ids must "
            "differ; number the rows or leave the repeats out"
        )
    return ids


def read_labels(frame: pd.DataFrame) -> Objects | None:
    """Return the `label` column with None for nulls, shape (n,), or None if there is none."""
    if "label" not in frame.columns:
        return None
    labels = np.empty(len(frame), dtype=object)
    labels[:] = frame["label"].tolist()
    labels[missing(frame["label"])] = None
    return labels


def has_label(frame: pd.DataFrame, labels: Objects | None) -> Flags:
    """Return True where the teacher gave a label and no error; all True without labels."""
    if labels is None:
        return np.ones(len(frame), dtype=bool)
    given = np.array([label is not None for label in labels], dtype=bool)
    if "error" in frame.columns:
        given &= missing(frame["error"])
    return given


def read_clusters(clusters: ArrayLike, count: int) -> Ints:
    """Return clusters as whole numbers, shape (count,)."""
    found = np.asarray(clusters)
    if found.shape != (count,) or not (np.issubdtype(found.dtype, np.integer) or not count):
        raise FilterError(
            f"apply: clusters has shape {found.shape} and type {found.dtype}; it must be one "
            f"whole number for each of the {count} rows; see filters.cluster"
        )
    return found.astype(np.int64)


def check_filters(filters: Sequence[Filter], names: Sequence[str]) -> None:
    """Raise unless `filters` is a list of filters with different reasons."""
    seen: set[str] = set()
    for each in filters:
        reason = getattr(each, "reason", None)
        if (
            isinstance(each, str | type)
            or not isinstance(reason, str)
            or not hasattr(each, "judge")
        ):
            raise FilterError(
                f"apply: {each!r} is not a filter; it must be an object such as "
                f"filters.NearDuplicate(threshold=0.8); recipe names are {', '.join(names)}"
            )
        if reason in seen:
            raise FilterError(
                f"apply: there are two filters {reason!r}; each may be there once, since each "
                "has one score column; run apply twice"
            )
        seen.add(reason)


def value_order(frame: pd.DataFrame, ids: Objects) -> Ints:
    """Return row positions, the one most worth keeping first.

    Higher confidence comes first, then higher agreement of the teacher's votes (missing is
    lowest), then having a rationale, then a longer input, then the id in alphabetical order.
    """
    import polars as pl

    count = len(frame)
    confidence, agreement = _quality(frame, "confidence"), _quality(frame, "agreement")
    reasoned = np.zeros(count, dtype=bool)
    if "rationale" in frame.columns:
        reasoned = np.array(
            [isinstance(r, str) and bool(r.strip()) for r in frame["rationale"].tolist()]
        )
    lengths = np.zeros(count, dtype=np.int64)
    if "input" in frame.columns and isinstance(frame["input"].dtype, pd.StringDtype):
        lengths = np.asarray(frame["input"].str.len().fillna(0), dtype=np.int64)
    elif "input" in frame.columns:
        lengths = np.array(
            [len(text) if isinstance(text, str) else 0 for text in frame["input"].tolist()]
        )
    alphabetical = np.empty(count, dtype=np.int64)
    alphabetical[pl.Series(ids.tolist(), dtype=pl.String).arg_sort().to_numpy()] = np.arange(count)
    return np.lexsort((alphabetical, -lengths, ~reasoned.astype(bool), -agreement, -confidence))


def _quality(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column of numbers, minus infinity where there is none."""
    if name not in frame.columns:
        return np.full(len(frame), -np.inf)
    numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isnan(numbers), -np.inf, numbers)


def text_column(values: Sequence[str | None] | Objects) -> pd.Series:
    """Return a column of text with nulls, of the type that pandas itself gives to text."""
    import pyarrow as pa

    found: pd.Series = pa.array(list(values), pa.string()).to_pandas()
    return found
