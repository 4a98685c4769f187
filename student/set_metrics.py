"""Answers that are sets of labels: "joy, surprise" against "joy"."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from student.errors import InputError
from student.row_statistics import (
    Answers,
    Floats,
    Statistics,
    check_lengths,
    is_null,
    macro_f1_of,
    mean_of,
    ratio,
)

__all__ = ["label_set", "micro_f1", "set_macro_f1", "subset_accuracy"]

Sets = Sequence[Collection[str] | None]


def label_set(answer: object, separator: str | None) -> frozenset[str] | None:
    """Read an answer as a set: a text is split at `separator`, a list is taken as it is.

    Null stays null; empty parts are left out, so that "" is the empty set.
    """
    if answer is None or is_null(answer):
        return None
    if isinstance(answer, str):
        parts = answer.split(separator) if separator else [answer]
        return frozenset(part.strip() for part in parts if part.strip())
    if isinstance(answer, Collection):
        return frozenset(str(part) for part in answer)
    raise InputError(f"{answer!r} is no set of labels; give a list, or a text and its separator")


def micro_f1(gold: Sets, predictions: Sets) -> float:
    """Return 2 TP / (gold labels + predicted labels), counted over all rows together."""
    return micro_f1_statistics(_answers(gold, predictions)).all_rows()


def set_macro_f1(gold: Sets, predictions: Sets) -> float:
    """Return the mean over labels of each label's F1, over the labels that occur."""
    return set_macro_f1_statistics(_answers(gold, predictions)).all_rows()


def subset_accuracy(gold: Sets, predictions: Sets) -> float:
    """Return the share of rows whose whole set is right; no answer is wrong."""
    return subset_statistics(_answers(gold, predictions)).all_rows()


def micro_f1_statistics(answers: Answers) -> Statistics:
    """Take micro F1 apart: labels right, and labels in gold and predictions together."""
    rows = [
        (len(gold & (said or frozenset())), len(gold) + len(said or ()))
        for gold, said in _pairs(answers)
    ]
    table = np.asarray(rows, dtype=float)
    return Statistics(rows=table, value=lambda sums: ratio(2 * sums[:, 0], sums[:, 1]))


def set_macro_f1_statistics(answers: Answers) -> Statistics:
    """Take macro F1 over sets apart: per label whether it is right, gold, predicted."""
    pairs = _pairs(answers)
    names = sorted(frozenset().union(*(gold | (said or frozenset()) for gold, said in pairs)))
    table: Floats = np.zeros((len(pairs), 3 * len(names)))
    for i, (gold, said) in enumerate(pairs):
        for j, name in enumerate(names):
            is_gold, is_said = name in gold, said is not None and name in said
            table[i, j :: len(names)] = is_gold and is_said, is_gold, is_said
    return Statistics(rows=table, value=macro_f1_of)


def subset_statistics(answers: Answers) -> Statistics:
    """Take subset accuracy apart: whether a row's whole set is right."""
    return mean_of(np.asarray([gold == said for gold, said in _pairs(answers)], dtype=float))


def _pairs(answers: Answers) -> list[tuple[frozenset[str], frozenset[str] | None]]:
    check_lengths(answers.gold, answers.predictions)
    return [
        (label_set(gold, answers.separator) or frozenset(), label_set(said, answers.separator))
        for gold, said in zip(answers.gold, answers.predictions, strict=True)
    ]


def _answers(gold: Sets, predictions: Sets) -> Answers:
    return Answers(gold=gold, predictions=predictions)  # type: ignore[arg-type]
