"""What `apply` hands to a filter, and what a filter hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from filters.arguments import FilterError

if TYPE_CHECKING:
    import pandas as pd

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Objects: TypeAlias = NDArray[np.object_]
OnProgress: TypeAlias = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Another set of texts that rows are compared with, such as the test rows.

    `ids` and `texts` have length m; `embeddings` is L2-normalised, shape (m, d), or None.
    """

    ids: Objects
    texts: list[str]
    embeddings: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows as one filter sees them.

    Args:
        frame: All rows, in the caller's order.
        ids: The rows' ids, shape (n,).
        alive: True where no earlier filter has dropped the row, shape (n,).
        order: Row positions, the row most worth keeping first, rows already dropped last,
            shape (n,).
        labels: The teacher's labels, None where missing, shape (n,); None without such a column.
        embeddings: L2-normalised vectors, shape (n, d), or None.
        references: Other sets of texts by name.
        found: What the filters before this one found, by reason.
        seed: Seed for whatever a filter draws at random.
        on_progress: Called with {"stage", "done", "total"} now and then.
    """

    frame: pd.DataFrame
    ids: Objects
    alive: Flags
    order: Ints
    labels: Objects | None = None
    embeddings: NDArray[np.float32] | None = None
    references: Mapping[str, Reference] = field(default_factory=dict)
    found: Mapping[str, Judgement] = field(default_factory=dict)
    seed: int = 0
    on_progress: OnProgress | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell the caller how far a filter is."""
        if self.on_progress is not None:
            self.on_progress({"stage": stage, "done": done, "total": total})


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Evidence: one line per match. All arrays have the same length.

    `row` and `related` are row positions (`related` is -1 where there is no twin); `verdict` is
    "drop" (this line drops the row), "conflict" (a twin with another label) or "keep" (seen, but
    it changes nothing). Where twins are in other sets, `elsewhere` holds (set, id) for each line.
    """

    row: Ints
    related: Ints
    score: Floats
    verdict: Objects
    elsewhere: Sequence[tuple[str, str]] | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one filter found: a score for every row, and which rows it drops.

    `dropped` may only be True where the row was alive. `weights` and `copies` are given only by
    filters that balance. `notes` are sentences for people that are no cause for alarm. `drops` is
    "below" or "above" where the score alone decides which rows go: those below or above the
    threshold.
    """

    scores: Floats
    dropped: Flags
    threshold: float | None
    matches: Matches
    weights: Floats | None = None
    copies: Ints | None = None
    warnings: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    drops: str | None = None


class Filter(Protocol):
    """A frozen dataclass with a stable `reason` and this one method."""

    reason: ClassVar[str]

    def judge(self, rows: Rows) -> Judgement:
        """Score every row and say which of the rows still alive to drop."""
        ...


def drop_lines(rows: Ints, scores: Floats) -> Matches:
    """Return one "drop" line without a twin for each position in `rows`."""
    return Matches(
        row=rows,
        related=np.full(len(rows), -1, dtype=np.int64),
        score=scores[rows],
        verdict=np.full(len(rows), "drop", dtype=object),
    )


def missing(values: pd.Series) -> Flags:
    """Return True where a column holds None, NaN or another null, shape (n,)."""
    return np.asarray(values.isna(), dtype=bool)


def column(frame: pd.DataFrame, name: str, wanted_by: str) -> pd.Series:
    """Return one column, or raise `FilterError` naming the columns there are."""
    if name not in frame.columns:
        there = ", ".join(map(str, frame.columns))
        raise FilterError(
            f"{wanted_by}: there is no column {name!r}; the columns are {there}; "
            "add it or name another"
        )
    values: pd.Series = frame[name]
    return values


def texts(rows: Rows, name: str, wanted_by: str) -> list[str]:
    """Return a text column as a list of str.

    A null in `input` is an error; in any other column it reads as an empty text.

    Raises:
        FilterError: The column is absent, or a row holds a null `input`, something that is not
            text, or half of a surrogate pair. The message names the row's id.
    """
    values = column(rows.frame, name, wanted_by)
    null = missing(values)
    found: list[str] = []
    for position, value in enumerate(values.tolist()):
        if null[position]:
            if name == "input":
                raise FilterError(
                    f"row {rows.ids[position]!r}: {name} is null; every row needs a text; "
                    "fill it in or leave the row out"
                )
            found.append("")
        elif isinstance(value, str):
            found.append(value)
        else:
            raise FilterError(
                f"row {rows.ids[position]!r}: {name} is {value!r} ({type(value).__name__}); "
                "it must be text; turn it into a string first"
            )
    _check_encodable(rows, name, found)
    return found


def _check_encodable(rows: Rows, name: str, found: list[str]) -> None:
    try:
        "".join(found).encode()
        return
    except UnicodeEncodeError:
        pass  # find the row below; one long join is the quick way to learn that all is well
    for position, value in enumerate(found):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise FilterError(
                f"row {rows.ids[position]!r}: {name} holds half of a surrogate pair, which is no "
                "Unicode text; repair it with text.encode('utf-8', 'replace').decode()"
            )
