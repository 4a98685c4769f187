"""How likely each choice of a row is its label, learnt from the other rows, one pair at a time.

Where every row has choices of its own there are no classes to learn. What can be learnt is which
(row, choice) pairs are labels. Evidence of two kinds:

- **rivals**: rows that offer some of the same choices. A choice that a row shares with its rivals,
  and that none of them has as its label, is likelier than one that appears nowhere else or that a
  rival has taken. Sets of questions written around the same options leave such traces.
- **text**: how near question and choice are to a sentence embedder.

A row's own label is never part of its evidence, and a pair's score comes from a model that was not
fitted to its row's fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from filters.confident_learning import fit_logistic, scale
from filters.rows import Flags, Floats, Ints

_LEVELS = ((3, None), (2, 2), (1, 1))  # choices shared with a rival: three or more, two, one
_HUB = 200  # a choice offered by more rows than this ("yes") makes nobody a rival
_BLOCK = 4_096


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """(row, choice) pairs, those of a row side by side.

    `row` and `choice` number rows and distinct choice texts, shape (m,); `own` is True for the
    pair that is the teacher's label; `names` are the choice texts.
    """

    row: Ints
    choice: Ints
    own: Flags
    names: list[str]
    rows: int


def list_pairs(choices: list[list[str]], labels: list[str | None]) -> Pairs:
    """Return every row's different choices; a label that is not among them has no pair."""
    numbers: dict[str, int] = {}
    row, choice, own = [], [], []
    for place, (offered, label) in enumerate(zip(choices, labels, strict=True)):
        for name in dict.fromkeys(offered):
            row.append(place)
            choice.append(numbers.setdefault(name, len(numbers)))
            own.append(name == label)
    return Pairs(
        row=np.array(row, dtype=np.int64),
        choice=np.array(choice, dtype=np.int64),
        own=np.array(own, dtype=bool),
        names=list(numbers),
        rows=len(choices),
    )


def score_pairs(pairs: Pairs, features: Floats, folds: Ints, known: Flags) -> Floats:
    """Return p(choice is the label) per pair, summing to 1 within a row, shape (m,).

    A logistic regression on all pairs of the fitted rows gives a logit per pair; the softmax over
    a row's pairs makes probabilities of them.

    Args:
        pairs: The pairs.
        features: Shape (m, d).
        folds: Fold numbers of the rows, shape (n,).
        known: Rows that may be fitted to, shape (n,).
    """
    logits = np.zeros(len(pairs.row))
    labelled = np.zeros(pairs.rows, dtype=bool)
    labelled[pairs.row[pairs.own]] = True
    usable = (known & labelled)[pairs.row]
    for fold in np.unique(folds):
        held = folds[pairs.row] == fold
        fitted = usable & ~held
        if not held.any() or not pairs.own[fitted].any() or pairs.own[fitted].all():
            continue
        scaled = scale(features, fitted)
        model = fit_logistic(scaled[fitted], pairs.own[fitted], 1.0)
        logits[held] = model.decision_function(scaled[held])
    highest = np.full(pairs.rows, -np.inf)
    np.maximum.at(highest, pairs.row, logits)
    weights = np.exp(logits - highest[pairs.row])
    return np.asarray(weights / np.bincount(pairs.row, weights, pairs.rows)[pairs.row])


def rival_features(pairs: Pairs, known: Flags) -> Floats:
    """Return what other rows make of each pair's choice, shape (m, 42).

    For rivals that share three or more, two, or one of the row's choices: how many offer this
    choice and how many have it as their label (`known` rows only), and whether any does; then how
    often the choice is a label where it is offered. Each number is given as it is, less the row's
    mean and less the row's maximum, since choices compete within a row.
    """
    offers, claims = _incidence(pairs, known)
    found = np.zeros((len(pairs.row), 2 * len(_LEVELS)))
    for start in range(0, pairs.rows, _BLOCK):
        stop = min(start + _BLOCK, pairs.rows)
        inside = (pairs.row >= start) & (pairs.row < stop)
        where = (pairs.row[inside] - start, pairs.choice[inside])
        for level, shared in enumerate(_share(offers, start, stop)):
            found[inside, 2 * level] = _at(shared @ offers, where)
            found[inside, 2 * level + 1] = _at(shared @ claims, where)
    offered = np.bincount(pairs.choice, minlength=len(pairs.names))[pairs.choice] - 1
    claimed = np.bincount(pairs.choice[pairs.own & known[pairs.row]], minlength=len(pairs.names))
    others = claimed[pairs.choice] - (pairs.own & known[pairs.row])
    columns = []
    for level in range(len(_LEVELS)):
        offering, claiming = found[:, 2 * level], found[:, 2 * level + 1]
        columns += [np.log1p(offering), offering > 0, claiming, claiming > 0]
    columns += [np.log((others + 0.5) / (offered + 2.5)), offered == 0]
    return relative(np.column_stack(columns).astype(np.float64), pairs)


def relative(columns: Floats, pairs: Pairs) -> Floats:
    """Return columns as they are, less the row's mean, and less the row's maximum."""
    sizes = np.maximum(np.bincount(pairs.row, minlength=pairs.rows), 1)
    mean = np.zeros((pairs.rows, columns.shape[1]))
    np.add.at(mean, pairs.row, columns)
    mean /= sizes[:, None]
    highest = np.full((pairs.rows, columns.shape[1]), -np.inf)
    np.maximum.at(highest, pairs.row, columns)
    return np.hstack([columns, columns - mean[pairs.row], columns - highest[pairs.row]])


def rival_share(pairs: Pairs) -> float:
    """Return the share of rows that have a rival, one with at least two choices in common."""
    offers, _ = _incidence(pairs, np.ones(pairs.rows, dtype=bool))
    rivals = 0
    for start in range(0, pairs.rows, _BLOCK):
        many, two, _ = _share(offers, start, min(start + _BLOCK, pairs.rows))
        rivals += int(((many.sum(axis=1) + two.sum(axis=1)) > 0).sum())
    return rivals / max(pairs.rows, 1)


def _incidence(pairs: Pairs, known: Flags) -> tuple[Any, Any]:
    """Return two sparse 0/1 matrices (rows, choices): what is offered, and what is the label."""
    from scipy.sparse import csr_matrix

    shape = (pairs.rows, len(pairs.names))
    common = np.bincount(pairs.choice, minlength=len(pairs.names)) > _HUB
    offered = ~common[pairs.choice]
    claimed = offered & pairs.own & known[pairs.row]

    def matrix(which: Flags) -> Any:
        ones = np.ones(int(which.sum()))
        return csr_matrix((ones, (pairs.row[which], pairs.choice[which])), shape=shape)

    return matrix(offered), matrix(claimed)


def _share(offers: Any, start: int, stop: int) -> list[Any]:
    """Return, per level, which rows are rivals of rows start to stop: sparse 0/1 matrices."""
    overlap = (offers[start:stop] @ offers.T).tocsr()
    own = overlap.indices == np.repeat(np.arange(start, stop), np.diff(overlap.indptr))
    levels = []
    for least, most in _LEVELS:
        level = overlap.copy()
        inside = (level.data >= least) & (level.data <= (most or np.inf)) & ~own
        level.data = inside.astype(np.float64)
        level.eliminate_zeros()
        levels.append(level)
    return levels


def _at(product: Any, where: tuple[Ints, Ints]) -> Floats:
    return np.asarray(product.tocsr()[where]).ravel()
