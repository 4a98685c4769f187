"""What a student has to beat: the most frequent label, and bag-of-words logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from student.errors import InputError

__all__ = ["Baseline", "majority", "tfidf"]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a baseline answered, or why it cannot.

    `predictions`: one label per test row, or None where the baseline does not apply; `reason` then
    says why. `label_probs`: (rows, labels), aligned with `labels`.
    """

    name: str
    predictions: list[str] | None
    label_probs: list[list[float]] | None = None
    labels: tuple[str, ...] = ()
    reason: str | None = None


def majority(
    train_labels: Sequence[str],
    n: int,
    *,
    choices: Sequence[Sequence[str]] | None = None,
    labels: Sequence[str] | None = None,
) -> Baseline:
    """Answer all `n` rows with the most frequent training label; its probability is its share.

    With `choices` (one list per row) each row gets the most frequent label among its own, the first
    of them on a tie, and `label_probs` is null. `labels` fixes the columns of `label_probs`.
    Raises `InputError` without training labels.
    """
    counts = Counter(train_labels)
    if not counts:
        raise InputError("the majority baseline needs at least one training label")
    if choices is not None:
        picked = [max(options, key=lambda option: counts[option]) for options in choices]
        return Baseline(name="majority", predictions=picked)
    names = tuple(labels) if labels is not None else tuple(sorted(counts))
    top = max(sorted(counts), key=lambda label: counts[label])
    shares = [counts[name] / len(train_labels) for name in names]
    return Baseline(
        name="majority",
        predictions=[top] * n,
        label_probs=[list(shares) for _ in range(n)],
        labels=names,
    )


def tfidf(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    choices: Sequence[Sequence[str]] | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> Baseline:
    """Train TF-IDF + logistic regression on the student's own training labels and answer the test.

    Features are words and word pairs with sublinear term frequency. `weights` enter the loss.
    `labels` fixes the columns of `label_probs` (0 for a label never seen in training).

    It does not apply to free text or to choices that differ from row to row, where a bag of words
    has no classes to learn: then `predictions` is None and `reason` says so.
    """
    if len(train_texts) != len(train_labels):
        raise InputError(f"{len(train_texts)} training texts but {len(train_labels)} labels")
    seen = tuple(sorted(set(train_labels)))
    if not seen:
        raise InputError("the TF-IDF baseline needs at least one training row")
    shared = tuple(dict.fromkeys(choices[0])) if choices else seen
    names = tuple(labels) if labels is not None else shared
    if choices is not None and len({tuple(options) for options in choices}) > 1:
        return _not_applicable("the choices differ from row to row, so there are no fixed classes")
    if labels is None and len(seen) > max(10, len(train_texts) / 2):
        return _not_applicable(
            f"{len(seen)} different answers in {len(train_texts)} rows: free text"
        )
    if not test_texts:
        return Baseline(name="tfidf", predictions=[], label_probs=[], labels=names)
    if len(seen) == 1:
        columns = {seen[0]: np.ones(len(test_texts))}
        reason = f"every training label is {seen[0]!r}; there was nothing to learn"
    else:
        # One-letter words count too ("I", "5"): sklearn's own pattern drops them.
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        # C = 10: on a thousand short texts the default of 1 costs four points of accuracy.
        model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000, random_state=seed))
        try:
            model.fit(
                list(train_texts), list(train_labels), logisticregression__sample_weight=weights
            )
        except ValueError as error:
            return _not_applicable(f"it could not be trained: {error}")
        probabilities = model.predict_proba(list(test_texts))
        columns = {str(name): probabilities[:, i] for i, name in enumerate(model.classes_)}
        reason = None
    missing = np.zeros(len(test_texts))
    table = np.stack([columns.get(name, missing) for name in names], axis=1)
    return Baseline(
        name="tfidf",
        predictions=[names[i] for i in table.argmax(axis=1)],
        label_probs=table.tolist(),
        labels=names,
        reason=reason,
    )


def _not_applicable(reason: str) -> Baseline:
    return Baseline(name="tfidf", predictions=None, reason=reason)
