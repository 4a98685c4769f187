"""Drop rows by one number, and read the texts that the number is taken from.

Every filter made of these says in its class variable `drops` which side goes: "below" (rows with
`score < threshold`) or "above" (rows with `score > threshold`). A score of NaN means that nothing
can be said of the row, and drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from filters.arguments import FilterError, as_names
from filters.rows import Flags, Floats, Judgement, Rows, drop_lines, missing, texts

BELOW, ABOVE = "below", "above"
_TEACHERS = ("label", "rationale")


def drop_below(
    rows: Rows, scores: Floats, minimum: float, *, warnings: Sequence[str] = ()
) -> Judgement:
    """Return the judgement that drops rows with `score < minimum`."""
    return _judge(rows, scores, scores < minimum, minimum, warnings, BELOW)


def drop_above(
    rows: Rows, scores: Floats, maximum: float, *, warnings: Sequence[str] = ()
) -> Judgement:
    """Return the judgement that drops rows with `score > maximum`."""
    return _judge(rows, scores, scores > maximum, maximum, warnings, ABOVE)


def _judge(
    rows: Rows,
    scores: Floats,
    outside: Flags,
    threshold: float,
    warnings: Sequence[str],
    drops: str,
) -> Judgement:
    dropped = rows.alive & outside
    return Judgement(
        scores=scores,
        dropped=dropped,
        threshold=float(threshold),
        matches=drop_lines(np.flatnonzero(dropped), scores),
        warnings=tuple(warnings),
        drops=drops,
    )


def read_field(rows: Rows, name: str, wanted_by: str) -> tuple[list[str], Flags]:
    """Return a column's texts and where they are null; a null reads as an empty text.

    Rows without `label` or `rationale` columns read as rows whose labels or rationales are null.

    Raises:
        FilterError: Another column is absent, or a row holds something that is not text.
    """
    if name in _TEACHERS and name not in rows.frame.columns:
        return [""] * len(rows), np.ones(len(rows), dtype=bool)
    found = texts(rows, name, wanted_by)
    return found, missing(rows.frame[name])


def score_fields(
    rows: Rows,
    fields: Sequence[str],
    wanted_by: str,
    score: Callable[[list[str]], Floats],
    merge: Callable[[Floats, Floats], Floats],
) -> Floats:
    """Return one score per row from several text columns, NaN where all of them are null.

    Args:
        rows: The rows.
        fields: Names of the columns.
        wanted_by: The filter, for messages.
        score: Gives one score per text.
        merge: `np.fmin`, `np.fmax` or a sum, all of which pass over NaN.
    """
    whole = np.full(len(rows), np.nan)
    for name in fields:
        found, null = read_field(rows, name, wanted_by)
        whole = merge(whole, np.where(null, np.nan, score(found)))
    return whole


def add_known(first: Floats, second: Floats) -> Floats:
    """Return the sum, NaN counting as 0 unless both are NaN."""
    both = np.isnan(first) & np.isnan(second)
    return np.where(both, np.nan, np.nan_to_num(first) + np.nan_to_num(second))


def check_fields(owner: str, fields: object) -> tuple[str, ...]:
    """Return the names of text columns as a tuple, or raise `FilterError`.

    `gold` is refused: what a person said must not decide which of the teacher's rows stay.
    """
    names = as_names(owner, "fields", fields)
    if "gold" in names:
        raise FilterError(
            f"{owner}: fields names 'gold', which filters never see; name 'input', 'label' or "
            "'rationale'"
        )
    return names


def as_texts(owner: str, name: str, value: object) -> tuple[str, ...]:
    """Return a list of texts, which may be empty, as a tuple, or raise `FilterError`."""
    listed = (value,) if isinstance(value, str) else value
    found = tuple(listed) if isinstance(listed, list | tuple) else (None,)
    if not all(isinstance(item, str) and item.strip() for item in found):
        raise FilterError(
            f"{owner}: {name} is {value!r}; it must be a list of texts, none of them empty; leave "
            "it out where there is none"
        )
    return tuple(str(item) for item in found)
