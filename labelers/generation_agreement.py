"""Whether generated rows came out as intended, by what a labeler that was not told says of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelers.tasks import TaskError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often the label of a generated row is the one it was written for.

    Attributes:
        rows: Generated rows with an intended label.
        labelled: Those of them that have a label.
        agreed: Those whose label is the intended one.
        share: ``agreed / labelled``; None where nothing is labelled.
        low: Lower end of its 95 % interval (Wilson, 1927); None where nothing is labelled.
        high: Upper end of it.
        confusion: Rows by intended label and label given; ``(none)`` for rows without one.
    """

    rows: int
    labelled: int
    agreed: int
    share: float | None
    low: float | None
    high: float | None
    confusion: dict[str, dict[str, int]]


def agreement(
    generated: datasets.Dataset | pd.DataFrame, labelled: datasets.Dataset | pd.DataFrame
) -> Agreement:
    """Compare what rows were written for with what they were labelled, row by row, by ``id``.

    Args:
        generated: Rows from :func:`labelers.generate`; others among them are passed over.
        labelled: The same rows after labeling, in any order and among any others.

    Raises:
        TaskError: If a column is missing, or none of the generated rows is among the labelled ones.
    """
    wrote = _columns(generated, "generated rows", "id", "generated_for")
    said = dict(_columns(labelled, "labelled rows", "id", "label"))
    pairs = [(label, said.get(row), row in said) for row, label in wrote if _is_text(label)]
    if pairs and not any(there for _, _, there in pairs):
        raise TaskError(
            f"none of the {len(pairs)} generated rows is among the {len(said)} labelled ones: label the "
            "generated rows first, and keep their ids"
        )
    confusion: dict[str, Counter[str]] = {}
    for intended, given, _ in pairs:
        name = given if isinstance(given, str) else "(none)"
        confusion.setdefault(intended, Counter())[name] += 1
    count = sum(_is_text(given) for _, given, _ in pairs)
    agreed = sum(intended == given for intended, given, _ in pairs)
    low, high = _wilson(agreed, count)
    return Agreement(
        rows=len(pairs),
        labelled=count,
        agreed=agreed,
        share=agreed / count if count else None,
        low=low,
        high=high,
        confusion={intended: dict(given) for intended, given in confusion.items()},
    )


def _columns(rows: Any, what: str, *names: str) -> list[tuple[Any, ...]]:
    table = rows.to_pandas() if hasattr(rows, "to_pandas") else rows
    for name in names:
        if name not in table.columns:
            raise TaskError(
                f"the {what} lack the column {name!r}; they have {', '.join(map(str, table.columns))}"
            )
    return list(zip(*(table[name].tolist() for name in names), strict=True))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _wilson(successes: int, n: int) -> tuple[float | None, float | None]:
    if not n:
        return None, None
    p, z2 = successes / n, _Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
