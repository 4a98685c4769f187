"""What models that never saw a row's label think of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from filters.arguments import FilterError
from filters.choice_pairs import (
    Pairs,
    list_pairs,
    relative,
    rival_features,
    rival_share,
    score_pairs,
)
from filters.confident_learning import (
    class_thresholds,
    deal_folds,
    gain,
    group_names,
    label_quality,
    out_of_fold,
    suspects,
    word_features,
)
from filters.quality import distributions
from filters.rows import Flags, Floats, Ints, Rows
from filters.rules import read_choices

_FEWEST = 5  # rows of a label below which no model can learn it
_LEAST_GAIN = 3.0  # nats by which held-out labels must be likelier than by frequency: 20 to 1


@dataclass(frozen=True, kw_only=True)
class Work:
    """What models look at: rows in order of id, since the last digits of a fit depend on the order.

    All have length n: `choices` (empty where a row has none), `labels`, the `texts` to learn from
    and their `vectors`, if there are any; `known` rows may be learnt from; rows of one fold are
    judged by models fitted to the others. `order` are the rows' positions, `owner` the filter.
    """

    owner: str
    rows: Rows
    order: Ints
    choices: list[list[str]]
    labels: list[str | None]
    texts: list[str]
    vectors: NDArray[np.float32] | None
    known: Flags
    folds: Ints

    @classmethod
    def of(
        cls,
        rows: Rows,
        owner: str,
        texts: Sequence[str],
        vectors: NDArray[np.float32] | None,
        folds: int,
        known: Flags,
    ) -> Work:
        """Put rows, texts and vectors in order of id, and deal out folds by group.

        Raises:
            FilterError: There are no labels.
        """
        if rows.labels is None:
            raise FilterError(
                f"{owner}: there is no column 'label'; label the rows first, or leave the filter out"
            )
        order = np.argsort(rows.ids)
        choices, groups = read_choices(rows), group_names(rows)
        labels = [rows.labels[place] for place in order]
        return cls(
            owner=owner,
            rows=rows,
            order=order,
            choices=[choices[place] for place in order],
            labels=[None if label is None else str(label) for label in labels],
            texts=[texts[place] for place in order],
            vectors=None if vectors is None else vectors[order],
            known=known[order],
            folds=deal_folds([groups[place] for place in order], folds, rows.seed),
        )

    @property
    def own_choices(self) -> bool:
        """Whether choices differ from row to row."""
        return len({tuple(sorted(one)) for one in self.choices if one}) > 1


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """Scores, p of the label, and the likeliest label with its p; `suspects` for classes only."""

    scores: Floats
    own: Floats
    best: list[str | None]
    highest: Floats
    suspects: Flags | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def none(cls, size: int, *warnings: str) -> Opinion:
        """Return the opinion that nothing can be said of any row."""
        nan = np.full(size, np.nan)
        return cls(scores=nan, own=nan, best=[None] * size, highest=nan, warnings=warnings)

    def only(self, which: Flags) -> Opinion:
        """Return the opinion on some rows, with none on the others."""
        suspected = None if self.suspects is None else self.suspects & which
        return replace(
            self,
            scores=np.where(which, self.scores, np.nan),
            own=np.where(which, self.own, np.nan),
            suspects=suspected,
        )

    def put_back(self, order: Ints) -> Opinion:
        """Return the opinion in the caller's order, `order` being the present one."""
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return replace(
            self,
            scores=self.scores[back],
            own=self.own[back],
            best=[self.best[place] for place in back],
            highest=self.highest[back],
            suspects=None if self.suspects is None else self.suspects[back],
        )


def opine_on_classes(work: Work, score: str, probabilities: str | None = None) -> Opinion:
    """Score labels of one set, by confident learning."""
    size = len(work.labels)
    learnable = [one for one, known in zip(work.labels, work.known, strict=True) if known]
    counts = pd.Series(learnable, dtype=object).value_counts()
    named = next((one for one in work.choices if one), [])
    names = sorted({*map(str, counts.index), *named})
    number = {name: place for place, name in enumerate(names)}
    codes = np.array([number.get(str(label), -1) for label in work.labels], dtype=np.int64)
    warnings: tuple[str, ...] = ()
    if probabilities is not None:
        table, judged = _given_table(probabilities, work, names)
    else:
        judged = np.array([counts.get(label, 0) >= _FEWEST for label in work.labels], dtype=bool)
        known = work.known & judged
        if rare := int((counts < _FEWEST).sum()):
            warnings = (
                f"{work.owner}: {rare} of {len(counts)} labels have fewer than {_FEWEST} rows, "
                "which were not judged; merge rare labels, or leave the filter out for free text",
            )
        if len(np.unique(codes[known])) < 2:
            return Opinion.none(size, *warnings)
        features = word_features(work.texts) if work.vectors is None else work.vectors
        table = out_of_fold(features, codes, len(names), work.folds, known)
    chosen = np.flatnonzero(judged & (codes >= 0))
    if not len(chosen):
        return Opinion.none(size, *warnings)
    part, codes, known = table[chosen], codes[chosen], work.known[chosen]
    thresholds = class_thresholds(part[known], codes[known])
    scores, own, highest = (np.full(size, np.nan) for _ in range(3))
    scores[chosen] = label_quality(part, codes, score, thresholds)
    own[chosen] = part[np.arange(len(chosen)), codes]
    highest[chosen] = part.max(axis=1)
    best: list[str | None] = [None] * size
    for place, code in zip(chosen, part.argmax(axis=1), strict=True):
        best[place] = names[code]
    suspected = np.zeros(size, dtype=bool)
    if gain(part[known], codes[known]) >= _LEAST_GAIN:
        suspected[chosen] = suspects(part, codes, thresholds)
    else:
        warnings = (
            *warnings,
            f"{work.owner}: out of fold, labels are predicted no better than by their frequency, so "
            "none is suspected; texts and labels may have nothing to do with each other, or the "
            "rows are too few",
        )
    found = Opinion(
        scores=scores,
        own=own,
        best=best,
        highest=highest,
        suspects=suspected,
        warnings=warnings,
    )
    return found.put_back(work.order)


def _given_table(name: str, work: Work, names: list[str]) -> tuple[Floats, Flags]:
    """Return a column of probabilities as a table, shape (n, classes), and where it has a row."""
    found = distributions(work.rows, name, work.owner)
    number = {one: place for place, one in enumerate(names)}
    table, has = np.zeros((len(found), len(names))), np.zeros(len(found), dtype=bool)
    for place, source in enumerate(work.order):
        given, listed = found[source], work.choices[place] or names
        if given is None:
            continue
        _check_length(work, source, name, given, listed)
        table[place, [number[one] for one in listed]], has[place] = given, True
    return table, has


def _check_length(work: Work, source: int, name: str, given: Floats, listed: Sequence[str]) -> None:
    if len(given) != len(listed):
        raise FilterError(
            f"row {work.rows.ids[source]!r}: {name} holds {len(given)} probabilities and there are "
            f"{len(listed)} labels to choose from; give one for each choice, or, for rows without "
            "choices, one for each label in alphabetical order"
        )


def opine_on_pairs(
    work: Work, evidence: str, encoder: Any, probabilities: str | None = None
) -> Opinion:
    """Score labels where each row has choices of its own."""
    choices = work.choices
    pairs = list_pairs(choices, work.labels)
    if probabilities is not None:
        found = _given_pairs(probabilities, work, pairs)
    else:
        chosen = _choose_evidence(work.owner, evidence, encoder, pairs)
        if chosen is None:
            return Opinion.none(
                len(choices),
                f"{work.owner}: fewer than half of the rows share two choices with another row, so "
                "labels were not judged; name an encoder, or give out-of-fold probabilities of a "
                "student",
            )
        parts = []
        if chosen != "text":
            parts.append(rival_features(pairs, work.known))
        if chosen != "rivals":
            parts.append(_text_features(encoder, work, pairs))
        found = score_pairs(pairs, np.hstack(parts), work.folds, work.known)
    return _from_pairs(pairs, found).put_back(work.order)


def _from_pairs(pairs: Pairs, probabilities: Floats) -> Opinion:
    own, highest = np.full(pairs.rows, np.nan), np.full(pairs.rows, np.nan)
    own[pairs.row[pairs.own]] = probabilities[pairs.own]
    np.fmax.at(highest, pairs.row, probabilities)
    best: list[str | None] = [None] * pairs.rows
    for place in np.flatnonzero(probabilities == highest[pairs.row])[::-1]:
        best[pairs.row[place]] = pairs.names[pairs.choice[place]]
    sizes = np.maximum(np.bincount(pairs.row, minlength=pairs.rows), 1)
    return Opinion(scores=own / (own + 1 / sizes), own=own, best=best, highest=highest)


def _choose_evidence(owner: str, evidence: str, encoder: Any, pairs: Pairs) -> str | None:
    """Return which evidence to use, None if there is none."""
    if evidence in ("text", "both") and encoder is None:
        raise FilterError(
            f"{owner}: evidence is {evidence!r} and encoder is None; name a "
            "sentence-transformers folder or a Hub id, or take 'rivals'"
        )
    if evidence != "auto":
        return evidence
    if rival_share(pairs) >= 0.5:
        return "rivals"
    return "text" if encoder is not None else None


def _text_features(encoder: Any, work: Work, pairs: Pairs) -> Floats:
    """Return how near question and choice are: their cosine and its parts, shape (m, 3 + d)."""
    from filters.embeddings import embed

    questions = [bare(text, one) for text, one in zip(work.texts, work.choices, strict=True)]
    asked = embed(questions, encoder)[pairs.row]
    offered = embed(pairs.names, encoder)[pairs.choice]
    products = (asked * offered).astype(np.float64)
    cosine = products.sum(axis=1, keepdims=True)
    return np.hstack([relative(cosine, pairs), products])


def bare(text: str, choices: Sequence[str]) -> str:
    """Return an input without the lines that list its choices, so that a question is left."""
    offered = sorted(choices, key=len, reverse=True)
    lines = [
        line
        for line in text.splitlines()
        if not any(one and one in line and len(line) <= len(one) + 6 for one in offered)
    ]
    return "\n".join(lines).strip() or text


def _given_pairs(name: str, work: Work, pairs: Pairs) -> Floats:
    """Return a column of probabilities, aligned with choices, pair by pair."""
    found, choices = distributions(work.rows, name, work.owner), work.choices
    values = np.full(len(pairs.row), np.nan)
    first = np.searchsorted(pairs.row, np.arange(pairs.rows))
    for place, source in enumerate(work.order):
        given = found[source]
        if given is None:
            continue
        _check_length(work, source, name, given, choices[place])
        summed: dict[str, float] = {}
        for choice, value in zip(choices[place], given.tolist(), strict=True):
            summed[choice] = summed.get(choice, 0.0) + value
        values[first[place] : first[place] + len(summed)] = list(summed.values())
    return values
