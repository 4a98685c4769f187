"""Rules with a reason each: too short, too long, cut off, a label that is not allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from filters.arguments import FilterError, check_number
from filters.limits import (
    ABOVE,
    BELOW,
    as_texts,
    check_fields,
    drop_above,
    drop_below,
    read_field,
    score_fields,
)
from filters.rows import Floats, Judgement, Rows, missing
from filters.words import split_words

_CUT_OFF = ("length", "max_tokens", "MAX_TOKENS")
_ENDINGS = (".", "!", "?", "…", "。", "！", "？", "।", "؟", '"', "'", "”", "’", "»", ")", "]", "}")
_USUAL = 0.8  # this share of rationales must end properly before one that does not is suspect


@dataclass(frozen=True, kw_only=True)
class TooShort:
    """Drop rows with too few words; the score is the number of words in the shortest field.

    Args:
        minimum: Rows with fewer words are dropped; at least 1. Scripts written without spaces
            count characters.
        fields: Text columns. A null rationale or label is passed over.
    """

    reason: ClassVar[str] = "too_short"
    drops = BELOW
    minimum: int = 3
    fields: Sequence[str] = ("input",)

    def __post_init__(self) -> None:
        check_number(self.reason, "minimum", self.minimum, low=1, whole=True, remedy="try 3")
        object.__setattr__(self, "fields", check_fields(self.reason, self.fields))

    def judge(self, rows: Rows) -> Judgement:
        """Count every row's words."""
        scores = score_fields(rows, self.fields, self.reason, count_words, np.fmin)
        return drop_below(rows, scores, self.minimum)


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """Drop rows with too many words; the score is the number of words in the longest field.

    Args:
        maximum: Rows with more words are dropped; at least 1. Scripts written without spaces count
            characters.
        fields: Text columns. A null rationale or label is passed over.
    """

    reason: ClassVar[str] = "too_long"
    drops = ABOVE
    maximum: int = 400
    fields: Sequence[str] = ("input",)

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=1, whole=True, remedy="try 400")
        object.__setattr__(self, "fields", check_fields(self.reason, self.fields))

    def judge(self, rows: Rows) -> Judgement:
        """Count every row's words."""
        scores = score_fields(rows, self.fields, self.reason, count_words, np.fmax)
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class Truncated:
    """Drop rows whose answer was cut off.

    The score is 1 where `finish_reason` says that the teacher ran out of tokens; 0.5 where the
    rationale does not end in a full stop or another closing mark, although at least four in five
    rationales of the set do; else 0.

    Args:
        maximum: Rows with a higher score are dropped; in [0, 1). 0.5 drops only what the
            teacher's server said was cut off.
    """

    reason: ClassVar[str] = "truncated"
    drops = ABOVE
    maximum: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, high=0.99, remedy="try 0 or 0.5")

    def judge(self, rows: Rows) -> Judgement:
        """Look at every row's finish reason and at how its rationale ends."""
        scores = np.zeros(len(rows))
        rationales, null = read_field(rows, "rationale", self.reason)
        ended = np.array([text.rstrip().endswith(_ENDINGS) for text in rationales], dtype=bool)
        given = ~null
        if given.any() and ended[given].mean() >= _USUAL:
            scores[given & ~ended] = 0.5
        if "finish_reason" in rows.frame.columns:
            scores[rows.frame["finish_reason"].isin(_CUT_OFF).to_numpy(dtype=bool)] = 1.0
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class UnknownLabel:
    """Drop rows whose label is none of the allowed ones.

    The score is 0 for a label that is in the set, 0.5 for one that is but for case and white
    space, 1 for any other, and NaN where nothing says what is allowed.

    Args:
        labels: The allowed labels; without them, each row's `choices`.
        maximum: Rows with a higher score are dropped; in [0, 1). 0.5 forgives case and space.
    """

    reason: ClassVar[str] = "unknown_label"
    drops = ABOVE
    labels: Sequence[str] = ()
    maximum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", as_texts(self.reason, "labels", self.labels))
        check_number(self.reason, "maximum", self.maximum, low=0, high=0.99, remedy="try 0 or 0.5")

    def judge(self, rows: Rows) -> Judgement:
        """Look every label up."""
        if rows.labels is None:
            raise FilterError(
                f"{self.reason}: there is no column 'label'; label the rows first, or leave the "
                "filter out"
            )
        allowed = [list(self.labels)] * len(rows) if self.labels else read_choices(rows)
        if not self.labels and not any(allowed):
            raise FilterError(
                f"{self.reason}: no row has choices and labels is (); write for example "
                "labels: [positive, negative]"
            )
        scores = [_look_up(one, set_) for one, set_ in zip(rows.labels, allowed, strict=True)]
        return drop_above(rows, np.array(scores, dtype=np.float64), self.maximum)


def _look_up(label: object, allowed: Sequence[str]) -> float:
    if label is None or not allowed:
        return np.nan
    if label in allowed:
        return 0.0
    return 0.5 if _plain(str(label)) in {_plain(one) for one in allowed} else 1.0


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def read_choices(rows: Rows) -> list[list[str]]:
    """Return every row's `choices`, an empty list where there are none.

    Raises:
        FilterError: A row's choices are not a list of texts.
    """
    if "choices" not in rows.frame.columns:
        return [[] for _ in range(len(rows))]
    null = missing(rows.frame["choices"])
    found = []
    for place, value in enumerate(rows.frame["choices"].tolist()):
        # A list is never null to pandas; what is null here is None or NaN.
        choices: list[Any] = [] if null[place] else _listed(value)
        if not all(isinstance(choice, str) for choice in choices):
            raise FilterError(
                f"row {rows.ids[place]!r}: choices is {value!r}; it must be a list of texts or "
                "null; turn them into strings first"
            )
        found.append(choices)
    return found


def _listed(value: object) -> list[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence | np.ndarray):
        return [value]
    return list(value)


def count_words(found: list[str]) -> Floats:
    """Return the number of words of each text, 0 for one of white space only."""
    counts = split_words(found).list.len().to_numpy().astype(np.float64)
    return np.where([bool(text.strip()) for text in found], counts, 0.0)
