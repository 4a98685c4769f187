"""Filters on rationales: do they lead to the label, and are they the teacher's own words?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from filters.arguments import check_number
from filters.label_noise import check_threshold, choose_threshold
from filters.label_opinions import Opinion, Work, opine_on_classes, opine_on_pairs
from filters.languages import small_words
from filters.limits import ABOVE, BELOW, as_texts, drop_above, drop_below, read_field
from filters.rows import Judgement, Rows
from filters.rules import read_choices
from filters.text_rules import contained
from filters.words import split_words


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Drop rows whose rationale does not lead to the label.

    The names of labels and choices are taken out of the rationale, and a model learns, from the
    other rows, which label such a rationale ends in; the score is how well the row's label agrees,
    as in `LabelNoise`. With one label set the model is a logistic regression on words; with
    choices of the row's own it compares rationale and choice by their embeddings and needs an
    `encoder`. NaN where there is no rationale.

    Args:
        minimum: Rows with a lower score are dropped; in [0, 1].
        share: Instead of a minimum: the share of the scored rows to drop; in [0, 1). With neither,
            see `LabelNoise`.
        folds: Folds of rows; rows of one `group` share a fold. At least 2.
        encoder: A sentence-transformers folder, a Hub id or a callable, as in `embed`.
    """

    reason: ClassVar[str] = "unsupported"
    drops = BELOW
    minimum: float | None = None
    share: float | None = None
    folds: int = 5
    encoder: Any = None

    def __post_init__(self) -> None:
        check_threshold(self.reason, self.minimum, self.share)
        check_number(self.reason, "folds", self.folds, low=2, whole=True, remedy="try 5")

    def judge(self, rows: Rows) -> Judgement:
        """Score every row's rationale; learn from the rows still alive."""
        rows.report(self.reason, 0, len(rows))
        found = self._opine(rows)
        rows.report(self.reason, len(rows), len(rows))
        scored = rows.alive & ~np.isnan(found.scores)
        warnings = list(found.warnings)
        if rows.alive.any() and not scored.any() and not warnings:
            warnings = [f"{self.reason}: no row has a rationale, so none was dropped"]
        threshold = choose_threshold(found, scored, self.minimum, self.share)
        return drop_below(rows, found.scores, threshold, warnings=warnings)

    def _opine(self, rows: Rows) -> Opinion:
        rationales, null = read_field(rows, "rationale", self.reason)
        given = ~null & np.array([bool(text.strip()) for text in rationales], dtype=bool)
        names = read_choices(rows)
        if rows.labels is not None and not any(names):
            everywhere = sorted({str(label) for label in rows.labels if label is not None})
            names = [everywhere] * len(rows)
        masked = mask_names(rationales, names)
        work = Work.of(rows, self.reason, masked, None, self.folds, rows.alive & given)
        if not work.own_choices:
            found = opine_on_classes(work, "adjusted")
        elif self.encoder is None:
            found = Opinion.none(
                len(rows),
                f"{self.reason}: choices differ from row to row, so rationales were not judged; "
                "name an encoder",
            )
        else:
            found = opine_on_pairs(work, "text", self.encoder)
        return found.only(given)


@dataclass(frozen=True, kw_only=True)
class OtherChoice:
    """Drop rows whose rationale names another choice than the label.

    The score is 1 where the rationale names another choice and not the label, 0.5 where it names
    the label and the last choice that it names is another, 0 where the label comes last, and NaN
    where it names no choice at all. A plural counts as the word; the longest name counts, so that
    "train station" does not name "train".

    Args:
        maximum: Rows with a higher score are dropped; in [0, 1). 0 drops both kinds.
        labels: The labels for rows without `choices`.
    """

    reason: ClassVar[str] = "other_choice"
    drops = ABOVE
    maximum: float = 0.5
    labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, high=0.99, remedy="try 0.5")
        object.__setattr__(self, "labels", as_texts(self.reason, "labels", self.labels))

    def judge(self, rows: Rows) -> Judgement:
        """Look for the choices in every rationale."""
        rationales, _ = read_field(rows, "rationale", self.reason)
        names = [one or list(self.labels) for one in read_choices(rows)]
        labels = [None] * len(rows) if rows.labels is None else list(rows.labels)
        said = find_names(rationales, names)
        scores = [_differs(one, label) for one, label in zip(said, labels, strict=True)]
        return drop_above(rows, np.array(scores, dtype=np.float64), self.maximum)


@dataclass(frozen=True, kw_only=True)
class Restatement:
    """Drop rows whose rationale says nothing that the input and the label do not say.

    The score is the share of the rationale's distinct words, without the small words of English,
    that occur in the input or the label. NaN where there are none.

    Args:
        maximum: Rows with a higher score are dropped; in [0, 1].
    """

    reason: ClassVar[str] = "restatement"
    drops = ABOVE
    maximum: float = 0.95

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, high=1, remedy="try 0.95")

    def judge(self, rows: Rows) -> Judgement:
        """Count every rationale's words that are nothing new."""
        rationales, _ = read_field(rows, "rationale", self.reason)
        inputs, _ = read_field(rows, "input", self.reason)
        labels, _ = read_field(rows, "label", self.reason)
        small = small_words("en")
        scores = np.full(len(rows), np.nan)
        columns = (split_words(one).to_list() for one in (rationales, inputs, labels))
        for place, (said, shown, label) in enumerate(zip(*columns, strict=True)):
            words = set(said) - small if rationales[place].strip() else set()
            if words:
                scores[place] = len(words & {*shown, *label}) / len(words)
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Drop rows whose rationale is copied from a demonstration in the prompt.

    The score is the highest share of the rationale's runs of `run` words that one demonstration
    holds; a rationale of fewer words is one run. NaN where there is no rationale.

    Args:
        demonstrations: The rationales that the teacher was shown.
        maximum: Rows with a higher score are dropped; in [0, 1].
        run: Words per run; at least 1.
    """

    reason: ClassVar[str] = "copied"
    drops = ABOVE
    demonstrations: Sequence[str] = ()
    maximum: float = 0.8
    run: int = 5

    def __post_init__(self) -> None:
        shown = as_texts(self.reason, "demonstrations", self.demonstrations)
        object.__setattr__(self, "demonstrations", shown)
        check_number(self.reason, "maximum", self.maximum, low=0, high=1, remedy="try 0.8")
        check_number(self.reason, "run", self.run, low=1, whole=True, remedy="try 5")

    def judge(self, rows: Rows) -> Judgement:
        """Compare every rationale with every demonstration."""
        rationales, _ = read_field(rows, "rationale", self.reason)
        shown = split_words(self.demonstrations).to_list()
        scores = np.full(len(rows), np.nan)
        for place, said in enumerate(split_words(rationales).to_list()):
            if rationales[place].strip():
                shares = (contained(said, [one], self.run) for one in shown)
                scores[place] = max(shares, default=0.0)
        warnings: tuple[str, ...] = ()
        if not shown:
            warnings = (
                f"{self.reason}: there are no demonstrations to compare with, so none was dropped; "
                "name them, or leave the filter out",
            )
        return drop_above(rows, scores, self.maximum, warnings=warnings)


def _differs(said: Sequence[str], label: object) -> float:
    if not said or label is None:
        return np.nan
    if label not in said:
        return 1.0
    return 0.0 if said[-1] == label else 0.5


def find_names(found: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return which of its names each text holds, in the order in which they are last mentioned."""
    return [
        [name for _, _, name in _mentions(words, listed)]
        for words, listed in zip(split_words(found).to_list(), _spelled(names), strict=True)
    ]


def mask_names(found: Sequence[str], names: Sequence[Sequence[str]]) -> list[str]:
    """Return each text's normalised words without the names in it."""
    masked = []
    for words, listed in zip(split_words(found).to_list(), _spelled(names), strict=True):
        spans = _mentions(words, listed, every=True)
        taken = {place for start, stop, _ in spans for place in range(start, stop)}
        masked.append(" ".join(word for place, word in enumerate(words) if place not in taken))
    return masked


def _spelled(names: Sequence[Sequence[str]]) -> Iterable[dict[tuple[str, ...], str]]:
    """Return, per row, each name's words, without a plural's ending, and the name."""
    distinct = sorted({name for listed in names for name in listed})
    words = dict(zip(distinct, split_words(distinct).to_list(), strict=True))
    return ({tuple(map(_stem, words[name])): name for name in listed} for listed in names)


def _mentions(
    words: Sequence[str], names: dict[tuple[str, ...], str], *, every: bool = False
) -> list[tuple[int, int, str]]:
    """Return (start, stop, name) where a name stands; only the last of each unless `every`."""
    stems = [_stem(word) for word in words]
    lengths = sorted({len(name) for name in names}, reverse=True)
    found: list[tuple[int, int, str]] = []
    start = 0
    while start < len(stems):
        for length in lengths:
            name = names.get(tuple(stems[start : start + length]))
            if name is not None and start + length <= len(stems):
                found.append((start, start + length, name))
                start += length - 1
                break
        start += 1
    if every:
        return found
    last = {name: (start, stop, name) for start, stop, name in found}
    return sorted(last.values())


def _stem(word: str) -> str:
    """Return an English word without a plural's ending, well enough to compare two words."""
    for ending, least in (("es", 5), ("s", 4)):
        if word.endswith(ending) and not word.endswith("ss") and len(word) >= least:
            word = word.removesuffix(ending)
            break
    return word.removesuffix("e") if len(word) > 3 else word
