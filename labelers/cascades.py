"""Asks a dear teacher only where a cheap one is unsure, and accounts for what that saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelers.columns import RowsError, read_column, replace_columns, require_columns, to_dataset
from labelers.rows import LABEL_COLUMNS

if TYPE_CHECKING:
    import datasets
    import pandas as pd

#: Summed over both teachers; the other label columns are those of the teacher whose label stands.
_SUMMED = ("prompt_tokens", "completion_tokens", "cost_usd")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many of the rows judged are right; a row without a label is wrong."""

    right: int
    rows: int

    @property
    def value(self) -> float | None:
        """The share of right ones, 0 to 1; None where no row could be judged."""
        return self.right / self.rows if self.rows else None


@dataclass(frozen=True, kw_only=True)
class CascadeReport:
    """What a cascade cost and how right it is.

    Costs are in US dollars. They are None where the dear teacher has no price; a cheap teacher without
    one counts as free.

    Attributes:
        rows: Rows in all.
        asked: Rows that the dear teacher was asked.
        tokens: Tokens of both teachers, prompts and answers.
        tokens_all_dear: Tokens if the dear teacher had been asked every row: their mean over the
            rows that it answered, times all rows; None where it answered none. The rows asked are the
            hard ones; where these are longer than the others it is too high.
        spent_usd: Cost of both teachers.
        all_dear_usd: Cost if the dear teacher had been asked every row, found like the tokens.
        saved_usd: The difference; below 0 where the cascade cost more than the dear teacher alone.
        cheap: Accuracy of the cheap teacher alone, over all rows with gold.
        cascade: Accuracy of the cascade, over the same rows.
        cheap_on_asked: Accuracy of the cheap teacher over the rows asked that have gold.
        dear_on_asked: Accuracy of the dear teacher over the same rows.
    """

    rows: int
    asked: int
    tokens: int
    tokens_all_dear: float | None
    spent_usd: float | None
    all_dear_usd: float | None
    saved_usd: float | None
    cheap: Accuracy
    cascade: Accuracy
    cheap_on_asked: Accuracy
    dear_on_asked: Accuracy


def needs_dear(labelled: datasets.Dataset | pd.DataFrame, threshold: float) -> list[int]:
    """Places of the rows that a dear teacher is to be asked.

    Those are the rows whose ``confidence`` is below the threshold or unknown, and those without a
    label. Calibrate the confidences first (:func:`labelers.calibrate`), or a threshold of 0.8 is not
    one of 80 % right.

    Raises:
        RowsError: If the threshold is not between 0 and 1, or a column is missing.
    """
    if not 0.0 <= threshold <= 1.0:
        raise RowsError(f"the threshold is {threshold!r}: a confidence between 0 and 1 is needed")
    data = to_dataset(labelled)
    require_columns(data, ("label", "confidence"))
    pairs = zip(read_column(data, "label"), read_column(data, "confidence"), strict=True)
    return [
        i
        for i, (label, confidence) in enumerate(pairs)
        if label is None or confidence is None or confidence < threshold
    ]


def merge_cascade(
    cheap: datasets.Dataset | pd.DataFrame,
    dear: datasets.Dataset | pd.DataFrame,
    asked: Sequence[int],
) -> datasets.Dataset:
    """The cheap teacher's rows with the dear teacher's answers where it was asked.

    Where the dear teacher gave no label the cheap one's stands. Tokens and costs are those of both;
    a cost that is null counts as nothing.

    Args:
        cheap: All rows, labelled by the cheap teacher.
        dear: The rows asked, in the order of ``asked``, labelled by the dear teacher.
        asked: Their places among all rows.

    Raises:
        RowsError: If the two do not fit together, or a column is missing.
    """
    all_rows, dear_rows = _check(cheap, dear, asked)
    names = [n for n in LABEL_COLUMNS if n in all_rows.column_names]
    columns: dict[str, list[Any]] = {name: read_column(all_rows, name) for name in names}
    said = {
        name: read_column(dear_rows, name)
        if name in dear_rows.column_names
        else [None] * len(asked)
        for name in names
    }
    for k, i in enumerate(asked):
        for name in names:
            if name in _SUMMED:
                known = [v for v in (columns[name][i], said[name][k]) if v is not None]
                columns[name][i] = sum(known) if known else None
            elif said["label"][k] is not None:
                columns[name][i] = said[name][k]
    return replace_columns(all_rows, columns)


def report_cascade(
    cheap: datasets.Dataset | pd.DataFrame,
    dear: datasets.Dataset | pd.DataFrame,
    asked: Sequence[int],
    gold: Sequence[str | Sequence[str] | None],
) -> CascadeReport:
    """Account for a cascade: costs against asking the dear teacher everything, and accuracies.

    Args:
        cheap: All rows, labelled by the cheap teacher.
        dear: The rows asked, in the order of ``asked``, labelled by the dear teacher.
        asked: Their places among all rows.
        gold: A human's label for each of all rows, or a list of them of which each is right; None where
            there is none.

    Raises:
        RowsError: If the arguments do not fit together, or a column is missing.
    """
    all_rows, dear_rows = _check(cheap, dear, asked)
    right = list(gold)
    if len(right) != len(all_rows):
        raise RowsError(
            f"{len(all_rows)} rows came with {len(right)} gold labels: give one for each, None where there "
            "is none"
        )
    rows = len(all_rows)
    cheap_labels, dear_labels = read_column(all_rows, "label"), read_column(dear_rows, "label")
    final = list(cheap_labels)
    for i, label in zip(asked, dear_labels, strict=True):
        final[i] = label if label is not None else final[i]
    cheap_cost, dear_cost = _total(all_rows, "cost_usd"), _total(dear_rows, "cost_usd")
    # Rows for which no request was sent, as the budget was spent, tell nothing of what a row takes.
    answered, dear_tokens = _answered(dear_rows), _tokens(dear_rows)
    all_dear_usd = dear_cost / answered * rows if answered and dear_cost is not None else None
    spent = (
        cheap_cost
        if not asked
        else (cheap_cost or 0.0) + dear_cost
        if dear_cost is not None
        else None
    )
    asked_gold = [right[i] for i in asked]
    return CascadeReport(
        rows=rows,
        asked=len(asked),
        tokens=_tokens(all_rows) + dear_tokens,
        tokens_all_dear=dear_tokens / answered * rows if answered else None,
        spent_usd=spent,
        all_dear_usd=all_dear_usd,
        saved_usd=all_dear_usd - spent if all_dear_usd is not None and spent is not None else None,
        cheap=_accuracy(cheap_labels, right),
        cascade=_accuracy(final, right),
        cheap_on_asked=_accuracy([cheap_labels[i] for i in asked], asked_gold),
        dear_on_asked=_accuracy(dear_labels, asked_gold),
    )


def _check(
    cheap: datasets.Dataset | pd.DataFrame,
    dear: datasets.Dataset | pd.DataFrame,
    asked: Sequence[int],
) -> tuple[datasets.Dataset, datasets.Dataset]:
    all_rows, dear_rows = to_dataset(cheap, "cheap"), to_dataset(dear, "dear")
    for data, name in ((all_rows, "cheap"), (dear_rows, "dear")):
        require_columns(data, ("label", *_SUMMED), name)
    if len(asked) != len(dear_rows):
        raise RowsError(
            f"{len(asked)} places came with {len(dear_rows)} rows of the dear teacher: give one for each"
        )
    if len(set(asked)) < len(asked) or not all(0 <= i < len(all_rows) for i in asked):
        raise RowsError(f"the places asked are not different rows of 0 to {len(all_rows) - 1}")
    for name in ("id", "input"):
        if name in all_rows.column_names and name in dear_rows.column_names:
            own = read_column(all_rows, name)
            for i, other in zip(asked, read_column(dear_rows, name), strict=True):
                if own[i] != other:
                    raise RowsError(
                        f"row {i} has the {name} {own[i]!r}, and {other!r} in the dear teacher's rows: give "
                        "these in the order of the places asked"
                    )
    return all_rows, dear_rows


def _total(rows: datasets.Dataset, name: str) -> float | None:
    known = [value for value in read_column(rows, name) if value is not None]
    return sum(known) if known else None


def _tokens(rows: datasets.Dataset) -> int:
    return int((_total(rows, "prompt_tokens") or 0) + (_total(rows, "completion_tokens") or 0))


def _answered(rows: datasets.Dataset) -> int:
    """Rows that took tokens, or for which a cost is known."""
    names = ("prompt_tokens", "completion_tokens", "cost_usd")
    return sum(
        any(values) for values in zip(*(read_column(rows, name) for name in names), strict=True)
    )


def _accuracy(said: Sequence[str | None], gold: Sequence[str | Sequence[str] | None]) -> Accuracy:
    # A data frame has NaN, not None, where there is no gold label.
    judged = [(a, b) for a, b in zip(said, gold, strict=True) if isinstance(b, str | list)]
    right = sum(a == b if isinstance(b, str) else a in b for a, b in judged)
    return Accuracy(right=right, rows=len(judged))
