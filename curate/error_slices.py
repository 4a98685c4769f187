"""Where a student errs more than elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from curate.teacher_scores import holm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SMALLEST", "Slice", "wilson", "worst_slices"]

#: Slices of fewer rows are not looked at: one row more or less would change the picture.
SMALLEST = 10
_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows that share a value, and how the student does on them.

    Attributes:
        by: What rows are sliced by.
        value: The value that they share.
        rows: How many there are.
        errors: How many of them are wrong.
        error_rate: Their share.
        low: Lower end of its 95 % interval (Wilson, 1927).
        high: Upper end.
        elsewhere: The error rate on all other rows.
        excess: Errors beyond what the rate elsewhere would give.
        p: One-sided p-value of Fisher's exact test that the slice is worse.
        p_holm: The same, corrected by Holm's rule for all slices looked at.
        teacher_error_rate: The teacher's error rate on the same rows.
    """

    by: str
    value: str
    rows: int
    errors: int
    error_rate: float
    low: float
    high: float
    elsewhere: float
    excess: float
    p: float
    p_holm: float
    teacher_error_rate: float

    def facts(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


def worst_slices(rows: pd.DataFrame, columns: Mapping[str, pd.Series]) -> list[Slice]:
    """Every slice of at least ten rows, the one with the most excess errors first.

    Rows are taken as independent; where they come in groups, p-values are too small.

    Args:
        rows: From :func:`curate.error_rows.judged_rows`.
        columns: From :func:`curate.error_rows.slice_columns`.
    """
    from scipy.stats import fisher_exact

    wrong = ~rows["right"].to_numpy(dtype=bool)
    teacher_wrong = ~rows["teacher_right"].to_numpy(dtype=bool)
    found: list[tuple[dict[str, Any], float]] = []
    for by, values in columns.items():
        for value in sorted(values.dropna().unique()):
            inside = (values == value).to_numpy()
            size, errors = int(inside.sum()), int(wrong[inside].sum())
            rest = len(rows) - size
            if size < SMALLEST or not rest:
                continue
            others = int(wrong.sum()) - errors
            table = [[errors, size - errors], [others, rest - others]]
            p = float(fisher_exact(table, alternative="greater").pvalue)
            low, high = wilson(errors, size)
            facts = {
                "by": by, "value": value, "rows": size, "errors": errors, "error_rate": errors / size,
                "low": low, "high": high, "elsewhere": others / rest,
                "excess": errors - size * others / rest,
                "teacher_error_rate": float(teacher_wrong[inside].mean()),
            }  # fmt: skip
            found.append((facts, p))
    corrected = holm([p for _, p in found])
    slices = [
        Slice(**facts, p=p, p_holm=adjusted)
        for (facts, p), adjusted in zip(found, corrected, strict=True)
    ]
    return sorted(slices, key=lambda each: (-each.excess, each.by, each.value))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    share = hits / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
