"""Filters on numbers that somebody else gave the rows: a judge's verdict, a language model's surprise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from filters.arguments import FilterError, check_choice, check_number
from filters.limits import ABOVE, BELOW, check_fields, drop_above, drop_below, read_field
from filters.quality import numbers
from filters.rows import Floats, Judgement, Rows

_KEEP_OR_DROP = ("keep", "drop")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Drop rows that a judge finds wanting; the score is the judge's, from 0 to 1.

    A judge is whoever scored the rows before: a second teacher asked whether the answer is right
    and follows from its rationale, or a person.

    Args:
        column: Where the verdicts stand, each a number from 0 (wrong) to 1 (right), or null.
        minimum: Rows with a lower verdict are dropped; in [0, 1].
        on_missing: What becomes of a row without a verdict: "keep" or "drop". Its score is NaN.
    """

    reason: ClassVar[str] = "judge"
    drops = BELOW
    column: str = "judge"
    minimum: float = 0.5
    on_missing: str = "keep"

    def __post_init__(self) -> None:
        _check_column(self.reason, self.column)
        check_number(self.reason, "minimum", self.minimum, low=0, high=1, remedy="try 0.5")
        check_choice(self.reason, "on_missing", self.on_missing, _KEEP_OR_DROP)

    def judge(self, rows: Rows) -> Judgement:
        """Compare every verdict with the minimum."""
        scores = numbers(rows, self.column, self.reason)
        if (outside := (scores < 0) | (scores > 1)).any():
            place = int(np.argmax(outside))
            raise FilterError(
                f"row {rows.ids[place]!r}: {self.column} is {scores[place]:g}; a verdict is a "
                "number from 0 to 1; divide it by the judge's highest mark"
            )
        judged = drop_below(rows, scores, self.minimum)
        if self.on_missing == "keep":
            return judged
        lowest = drop_below(rows, np.nan_to_num(scores, nan=-np.inf), self.minimum)
        return _with_scores(lowest, scores)


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Drop rows whose text surprises a language model; the score is the perplexity.

    Perplexity is exp of the mean negative log-likelihood per token (Jelinek et al. 1977). What is
    high depends on the model and its tokens: look at the scores before choosing the maximum.

    Args:
        maximum: Rows with a higher perplexity are dropped; above 1.
        column: Where perplexities stand; read unless `model` is given.
        model: A callable that gives one perplexity for each text of a list.
        fields: The text that the model reads: these columns, joined by a blank line.
    """

    reason: ClassVar[str] = "perplexity"
    drops = ABOVE
    maximum: float = 1000.0
    column: str = "perplexity"
    model: Callable[[list[str]], Sequence[float]] | None = None
    fields: Sequence[str] = ("input",)

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=1, open_low=True, remedy="try 1000")
        _check_column(self.reason, self.column)
        if self.model is not None and not callable(self.model):
            raise FilterError(
                f"{self.reason}: model is {self.model!r}; it must be a callable from a list of "
                "texts to their perplexities; or leave it out and name a column"
            )
        object.__setattr__(self, "fields", check_fields(self.reason, self.fields))

    def judge(self, rows: Rows) -> Judgement:
        """Compare every perplexity with the maximum."""
        if self.model is None:
            return drop_above(rows, numbers(rows, self.column, self.reason), self.maximum)
        parts = [read_field(rows, name, self.reason)[0] for name in self.fields]
        found = ["\n\n".join(filter(None, each)) for each in zip(*parts, strict=True)]
        scores: Floats = np.asarray(list(self.model(found)), dtype=np.float64)
        if scores.shape != (len(found),):
            raise FilterError(
                f"{self.reason}: model gave {scores.shape} numbers for {len(found)} texts; it must "
                "give one for each"
            )
        return drop_above(rows, scores, self.maximum)


def _with_scores(judgement: Judgement, scores: Floats) -> Judgement:
    """Return a judgement that shows NaN again where a row without a score was dropped."""
    matches = replace(judgement.matches, score=scores[judgement.matches.row])
    return replace(judgement, scores=scores, matches=matches)


def _check_column(owner: str, name: object) -> None:
    if not isinstance(name, str) or not name or name == "gold":
        raise FilterError(
            f"{owner}: column is {name!r}; it must name a column of numbers other than 'gold'"
        )
