"""Suspected wrong labels: rows whose label others like them speak against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from filters.arguments import FilterError, check_choice, check_number
from filters.clusters import as_vectors
from filters.confident_learning import SCORES
from filters.frames import as_frame, has_label, read_ids, read_labels, value_order
from filters.label_opinions import Opinion, Work, opine_on_classes, opine_on_pairs
from filters.limits import BELOW, drop_below
from filters.rows import Flags, Floats, Judgement, Rows, texts

if TYPE_CHECKING:
    import datasets

EVIDENCE = ("auto", "rivals", "text", "both")
_HALF_OF_CHANCE = 1 / 3  # p / (p + 1/k) where p is half of 1/k


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Drop rows whose label is probably wrong, by models that never saw that label.

    With one label set for all rows this is confident learning: a logistic regression on the
    rows' embeddings (on words where there are none) gives each row probabilities from a model that
    was fitted to other folds. Where each row has choices of its own, (row, choice) pairs are
    scored instead: see `filters.choice_pairs`. Nothing but the teacher's labels is learnt from;
    `gold` is not read.

    The score is, for one label set, the label's quality from 0 to 1 (see `score`); for choices of
    the row's own, p / (p + 1/k), p being the label's probability and k the number of choices: 0.5
    says that the label is as likely as chance. NaN where nothing can be said.

    Args:
        minimum: Rows with a lower score are dropped; in [0, 1].
        share: Instead of a minimum: the share of the scored rows to drop, those of the lowest
            scores; in [0, 1). The threshold is then the lowest score that stays. With neither, as
            many rows go as the confident joint holds off its diagonal; with choices of the row's
            own, the minimum is 1/3: labels half as likely as chance.
        score: "self_confidence" (p of the label), "margin" (how far it is above the next), or
            "adjusted" (p relative to what is usual for its class). For one label set only.
        folds: Folds of rows; rows of one `group` share a fold. At least 2.
        probabilities: A column of probabilities to use instead of a model of this filter's own: a
            list per row, aligned with its `choices` (or, without choices, with the sorted labels).
            They must come from a model that was not trained on the row's label, such as an
            out-of-fold student.
        evidence: For choices of the row's own: "rivals", "text", "both", or "auto", which takes
            rivals where at least half of the rows have one, else text. Text needs `encoder`.
        encoder: A sentence-transformers folder, a Hub id or a callable, as in `embed`.
    """

    reason: ClassVar[str] = "label_noise"
    drops = BELOW
    minimum: float | None = None
    share: float | None = None
    score: str = "adjusted"
    folds: int = 5
    probabilities: str | None = None
    evidence: str = "auto"
    encoder: Any = None

    def __post_init__(self) -> None:
        check_threshold(self.reason, self.minimum, self.share)
        check_choice(self.reason, "score", self.score, SCORES)
        check_number(self.reason, "folds", self.folds, low=2, whole=True, remedy="try 5")
        check_choice(self.reason, "evidence", self.evidence, EVIDENCE)
        if self.probabilities is not None and (
            not isinstance(self.probabilities, str) or self.probabilities == "gold"
        ):
            raise FilterError(
                f"{self.reason}: probabilities is {self.probabilities!r}; it must name a column of "
                "probabilities other than 'gold'"
            )

    def judge(self, rows: Rows) -> Judgement:
        """Score every labelled row; learn from the rows still alive."""
        rows.report(self.reason, 0, len(rows))
        found = self.opine(rows)
        rows.report(self.reason, len(rows), len(rows))
        scored = rows.alive & ~np.isnan(found.scores)
        warnings = list(found.warnings)
        if rows.alive.any() and not scored.any() and not warnings:
            warnings = [f"{self.reason}: no row could be scored, so none was dropped"]
        threshold = choose_threshold(found, scored, self.minimum, self.share)
        return drop_below(rows, found.scores, threshold, warnings=warnings)

    def opine(self, rows: Rows) -> Opinion:
        """Return what the models think of every row's label."""
        inputs = texts(rows, "input", self.reason)
        work = Work.of(rows, self.reason, inputs, rows.embeddings, self.folds, rows.alive)
        if work.own_choices:
            return opine_on_pairs(work, self.evidence, self.encoder, self.probabilities)
        return opine_on_classes(work, self.score, self.probabilities)


def suspect_labels(
    dataset: pd.DataFrame | datasets.Dataset,
    *,
    noise: LabelNoise | None = None,
    embeddings: ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank labelled rows by how probably their label is wrong, with the label to put instead.

    Args:
        dataset: Rows with `id`, `input`, `label`, and whatever `noise` needs.
        noise: How labels are scored; by default `LabelNoise()`.
        embeddings: Vectors in the rows' order, shape (n, d).
        seed: Seed of the folds.

    Returns:
        One line per scored row, the lowest score first, then by id: `id`, `label`, `score`,
        `probability` (of the label), `opinion` (the likeliest label) and `opinion_probability`.

    Raises:
        FilterError: As for `apply`.
    """
    noise = noise or LabelNoise()
    frame = as_frame(dataset)
    ids, labels = read_ids(frame), read_labels(frame)
    rows = Rows(
        frame=frame,
        ids=ids,
        alive=has_label(frame, labels),
        order=value_order(frame, ids),
        labels=labels,
        embeddings=None if embeddings is None else as_vectors(embeddings, len(frame)),
        seed=seed,
    )
    found = noise.opine(rows)
    listed = pd.DataFrame(
        {
            "id": ids,
            "label": rows.labels,
            "score": found.scores,
            "probability": found.own,
            "opinion": found.best,
            "opinion_probability": found.highest,
        }
    )
    listed = listed[rows.alive & ~np.isnan(found.scores)]
    return listed.sort_values(["score", "id"], ignore_index=True)


def check_threshold(owner: str, minimum: object, share: object) -> None:
    """Raise `FilterError` unless at most one of the two is given, and in its range."""
    if minimum is not None and share is not None:
        raise FilterError(
            f"{owner}: minimum is {minimum!r} and share is {share!r}; they are two ways to say "
            "what goes; leave one out"
        )
    if minimum is not None:
        check_number(owner, "minimum", minimum, low=0, high=1, remedy="try 0.3")
    if share is not None:
        check_number(owner, "share", share, low=0, high=0.999, remedy="try 0.2")


def choose_threshold(
    found: Opinion, scored: Flags, minimum: float | None, share: float | None
) -> float:
    """Return the minimum; unless it is given, from the share of rows to drop, or the suspects."""
    if minimum is not None:
        return minimum
    if share is not None:
        return score_at(found.scores[scored], share)
    if found.suspects is None:
        return _HALF_OF_CHANCE
    suspected = int(found.suspects[scored].sum())
    return score_at(found.scores[scored], suspected / max(int(scored.sum()), 1))


def score_at(scores: Floats, share: float) -> float:
    """Return the score below which at most this share of the scores lies."""
    if not len(scores):
        return 0.0
    return float(np.sort(scores)[min(int(share * len(scores) + 1e-9), len(scores) - 1)])
