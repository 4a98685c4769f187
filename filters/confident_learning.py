"""Which labels of one fixed set are suspect, from probabilities that did not see them.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR
70), for the thresholds and the joint; Kuan and Mueller 2022, "Model-agnostic label quality scoring to
detect real-world label errors", for the scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from filters.rows import Flags, Floats, Ints, Rows, missing

SCORES = ("self_confidence", "margin", "adjusted")
_INVERSE_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_MOST_FOR_PENALTY = 5_000  # rows are enough to choose it by


def class_thresholds(probabilities: Floats, labels: Ints) -> Floats:
    """Return t_j, the mean probability of class j over the rows labelled j; shape (k,).

    A class without rows has the threshold infinity: no row is confidently of it.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_joint(probabilities: Floats, labels: Ints) -> Ints:
    """Return C, where C[i, j] counts the rows labelled i that are confidently of class j.

    A row is confidently of the class with the highest probability among those with p_j >= t_j;
    a row for which no probability reaches its threshold is not counted. Shape (k, k).
    """
    classes = probabilities.shape[1]
    confident = _confident_class(probabilities, class_thresholds(probabilities, labels))
    counted = confident >= 0
    cells = labels[counted] * classes + confident[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def gain(probabilities: Floats, labels: Ints) -> float:
    """Return by how many nats the labels are likelier than if guessed by their frequency."""
    if not len(labels):
        return 0.0
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    own = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-6)
    return float((np.log(own) - np.log(shares[labels])).sum())


def suspects(probabilities: Floats, labels: Ints, thresholds: Floats) -> Flags:
    """Return True for the rows off the diagonal of the confident joint, shape (n,)."""
    confident = _confident_class(probabilities, thresholds)
    return np.asarray((confident >= 0) & (confident != labels), dtype=bool)


def _confident_class(probabilities: Floats, thresholds: Floats) -> Ints:
    """Return each row's confident class, or -1."""
    if not probabilities.size:
        return np.full(len(probabilities), -1, dtype=np.int64)
    # A mean of equal numbers may differ from them in the last digit.
    reached = np.where(probabilities >= thresholds - 1e-12, probabilities, -1.0)
    best = reached.argmax(axis=1)
    return np.where(reached.max(axis=1) >= 0, best, -1).astype(np.int64)


def label_quality(probabilities: Floats, labels: Ints, score: str, thresholds: Floats) -> Floats:
    """Return a score per row from 0 (surely wrong) to 1 (surely right), shape (n,).

    "self_confidence" is p(label). "margin" is (p(label) - highest other p + 1) / 2. "adjusted" is
    p(label) after p_j - t_j + max t, cut off at 0 and scaled to sum to 1, so that a class of which
    the model is never sure is not suspected as a whole.
    """
    rows = np.arange(len(labels))
    if score == "adjusted":
        finite = thresholds[np.isfinite(thresholds)]
        shifted = probabilities - np.where(np.isfinite(thresholds), thresholds, 0)
        shifted = np.maximum(shifted + (finite.max() if len(finite) else 0), 0)
        sums = shifted.sum(axis=1)
        return np.asarray(shifted[rows, labels] / np.where(sums > 0, sums, 1))
    own = probabilities[rows, labels]
    if score == "self_confidence" or probabilities.shape[1] < 2:
        return np.asarray(own)
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    return np.asarray((own - others.max(axis=1) + 1) / 2)


def deal_folds(groups: Sequence[str], folds: int, seed: int) -> Ints:
    """Return a fold number per row; rows of one group share it, and their order plays no part.

    Groups are dealt out in the order of a hash of their names, so that folds hold equally many.
    """
    names = sorted(set(groups), key=lambda name: _scramble(name, seed))
    fold = {name: place % folds for place, name in enumerate(names)}
    return np.array([fold[name] for name in groups], dtype=np.int64)


def group_names(rows: Rows) -> list[str]:
    """Return the rows' groups as texts; a row without one is a group of its own."""
    ids = [f"id {one}" for one in rows.ids]
    if "group" not in rows.frame.columns:
        return ids
    null = missing(rows.frame["group"])
    named = rows.frame["group"].tolist()
    return [
        one if none else f"group {name}" for one, name, none in zip(ids, named, null, strict=True)
    ]


def _scramble(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogatepass")).digest()


def out_of_fold(features: Any, labels: Ints, classes: int, folds: Ints, known: Flags) -> Floats:
    """Return class probabilities, each row's from a model that was not fitted to its fold.

    The models are logistic regressions. Their penalty is the one that gives the labels the highest
    likelihood out of fold: the more labels are wrong, the stronger it has to be.

    Args:
        features: Dense or sparse, shape (n, d), rows of length about 1.
        labels: Class numbers, shape (n,).
        classes: How many classes there are.
        folds: Fold numbers, shape (n,).
        known: Rows that may be fitted to, shape (n,).

    Returns:
        Shape (n, classes). A class that a fold's model has not seen has probability 0.
    """
    places = np.flatnonzero(known)
    some = places[:: -(-len(places) // _MOST_FOR_PENALTY) or 1]
    inverse_penalty = _choose_penalty(features[some], labels[some], folds[some])
    found = np.zeros((len(labels), classes))
    for fold in np.unique(folds):
        held, fitted = folds == fold, known & (folds != fold)
        columns, part = _predict(features, labels, fitted, held, inverse_penalty)
        found[np.ix_(np.flatnonzero(held), columns)] = part
    return found


def _choose_penalty(features: Any, labels: Ints, folds: Ints) -> float:
    """Return the inverse penalty under which held-out labels are likeliest."""
    best, least = _INVERSE_PENALTIES[0], np.inf
    for inverse_penalty in _INVERSE_PENALTIES:
        loss = 0.0
        for fold in np.unique(folds):
            held, fitted = folds == fold, folds != fold
            columns, part = _predict(features, labels, fitted, held, inverse_penalty)
            own = (part * (labels[held][:, None] == columns[None, :])).sum(axis=1)
            loss -= float(np.log(np.maximum(own, 1e-6)).sum())
        if loss >= least:
            break  # likelihood rises and falls once
        best, least = inverse_penalty, loss
    return best


def _predict(
    features: Any, labels: Ints, fitted: Flags, held: Flags, inverse_penalty: float
) -> tuple[Ints, Floats]:
    """Fit to some rows; return the classes seen and their probabilities for the rows held out."""
    seen = np.unique(labels[fitted])
    if len(seen) < 2:
        return seen, np.ones((int(held.sum()), len(seen)))
    model = fit_logistic(features[fitted], labels[fitted], inverse_penalty)
    return seen, np.asarray(model.predict_proba(features[held]))


def fit_logistic(features: Any, labels: ArrayLike, inverse_penalty: float) -> Any:
    """Fit a logistic regression on one core, so that the last digits stay the same."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        return LogisticRegression(C=inverse_penalty, max_iter=1000).fit(features, labels)


def word_features(texts: Sequence[str]) -> Any:
    """Return TF-IDF weights of words and pairs of words, sparse, shape (n, d), rows of length 1."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from filters.words import split_words

    words: list[list[str]] = split_words(texts).to_list()
    runs = [[*one, *(" ".join(pair) for pair in pairwise(one))] for one in words]
    vectorizer = TfidfVectorizer(analyzer=_as_they_are, sublinear_tf=True, dtype=np.float64)
    return vectorizer.fit_transform(runs)


def _as_they_are(runs: list[str]) -> list[str]:
    return runs


def scale(features: NDArray[Any], fitted: Flags) -> Floats:
    """Return features with mean 0 and deviation 1 over the fitted rows."""
    part = np.asarray(features[fitted], dtype=np.float64)
    deviation = part.std(axis=0)
    return np.asarray((features - part.mean(axis=0)) / np.where(deviation > 0, deviation, 1))
