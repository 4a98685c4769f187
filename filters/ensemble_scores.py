"""One score out of several, fitted to a few rows that a person has checked, or by mean rank."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from filters.arguments import FilterError, as_names, check_number
from filters.confident_learning import deal_folds, fit_logistic
from filters.frames import as_frame, read_ids
from filters.label_noise import check_threshold, score_at
from filters.limits import BELOW, as_texts, drop_below
from filters.rows import Floats, Judgement, Rows, column

_BINS = 10
_FEWEST = 10  # right and wrong rows each, below which nothing can be fitted
_INVERSE_PENALTY = 0.3
_DEFAULT_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Rows with like predictions: their mean prediction, and the share that was right."""

    low: float
    high: float
    rows: int
    predicted: float
    right: float


@dataclass(frozen=True, kw_only=True)
class FittedScore:
    """The probability that a row's label is right, as a function of several scores.

    A logistic regression on the scores, each brought to mean 0 and deviation 1; a score that is
    missing counts as the mean. `bins`, `calibration_error` (mean distance between prediction and
    share right, weighted by rows) and `brier` are those of predictions out of fold.
    """

    scores: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    rows: int
    right: float
    bins: tuple[Bin, ...]
    calibration_error: float
    brier: float

    def apply(self, frame: pd.DataFrame) -> Floats:
        """Return the probability that each row's label is right, shape (n,).

        Raises:
            FilterError: A score's column is absent or holds something that is not a number.
        """
        return self.combine(_table(frame, self.scores))

    def combine(self, table: Floats) -> Floats:
        """Return the same from a table of the scores, shape (n, number of scores)."""
        scaled = (table - np.array(self.means)) / np.array(self.deviations)
        logits = np.nan_to_num(scaled, nan=0.0) @ np.array(self.weights) + self.intercept
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this to a JSON file."""
        text = json.dumps({"version": 1, **asdict(self)}, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedScore:
        """Read what `save` wrote.

        Raises:
            FilterError: The file cannot be read or holds something else.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            if told.pop("version") != 1:
                raise ValueError("another version")
            told["bins"] = tuple(Bin(**each) for each in told["bins"])
            for name in ("scores", "means", "deviations", "weights"):
                told[name] = tuple(told[name])
            found = cls(**told)
            if not len(found.scores) == len(found.means) == len(found.weights):
                raise ValueError("lists of different lengths")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FilterError(
                f"{os.fspath(path)}: no fitted score can be read from it ({error}); write one with "
                "filters.fit_score(...).save(path)"
            ) from error
        return found


def fit_score(
    dataset: pd.DataFrame,
    scores: Sequence[str],
    right: Sequence[bool | None],
    *,
    folds: int = 5,
    seed: int = 0,
) -> FittedScore:
    """Fit one score to rows of which it is known whether their label is right.

    Args:
        dataset: Rows with `id` and the scores, such as `apply(...).frame`.
        scores: Names of number columns, such as "score_label_noise".
        right: Per row True, False, or None where it is not known. At least 10 of either.
        folds: Folds for the calibration that is shown; rows of one `group` share a fold.
        seed: Seed of the folds.

    Raises:
        FilterError: A column is absent or no number, `right` does not fit, or too little is known.
    """
    frame = as_frame(dataset)
    names = as_names("fit_score", "scores", scores)
    check_number("fit_score", "folds", folds, low=2, whole=True, remedy="try 5")
    known, labels = _read_right(right, len(frame))
    ids = read_ids(frame)
    order = np.flatnonzero(known)[np.argsort(ids[known])]  # a fit depends on the rows' order
    table, truth = _table(frame, names)[order], labels[order]
    groups = frame["group"] if "group" in frame.columns else frame["id"]
    dealt = deal_folds([str(groups.iloc[place]) for place in order], folds, seed)
    held_out = np.full(len(order), truth.mean())
    for fold in range(folds):
        held = dealt == fold
        if held.any() and 0 < truth[~held].sum() < (~held).sum():
            held_out[held] = _combined(table[~held], truth[~held], table[held])
    bins = reliability(held_out, truth)
    means, deviations, weights, intercept = _fit(table, truth)
    return FittedScore(
        scores=names,
        means=means,
        deviations=deviations,
        weights=weights,
        intercept=intercept,
        rows=len(order),
        right=float(truth.mean()),
        bins=bins,
        calibration_error=sum(b.rows * abs(b.predicted - b.right) for b in bins) / len(order),
        brier=float(((held_out - truth) ** 2).mean()),
    )


def reliability(predicted: Floats, right: Floats) -> tuple[Bin, ...]:
    """Return up to ten bins of equally many rows, the lowest predictions first."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    return tuple(
        Bin(
            low=float(predicted[part].min()),
            high=float(predicted[part].max()),
            rows=len(part),
            predicted=float(predicted[part].mean()),
            right=float(right[part].mean()),
        )
        for part in parts
    )


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Drop rows by one score combined from those of the filters before.

    With `fitted` the score is the probability that the label is right, from what `fit_score`
    learnt of rows that a person checked. Without, it is the mean of the rows' ranks by each score,
    from 0 (worst by all) to 1; a score that is missing counts as the middle. The filters that are
    combined stand before this one; give those that should drop nothing themselves a threshold
    that no row crosses.

    Args:
        scores: The reasons of the filters to combine; by default all before this one that judge
            by a threshold.
        fitted: A file written by `FittedScore.save`, whose scores are then taken.
        minimum: Rows with a lower score are dropped; in [0, 1].
        share: Instead of a minimum: the share of the rows to drop; in [0, 1). With neither, a
            fifth of them, or with `fitted` those that are likelier wrong than right.
    """

    reason: ClassVar[str] = "ensemble"
    drops = BELOW
    scores: Sequence[str] = ()
    fitted: str | None = None
    minimum: float | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", as_texts(self.reason, "scores", self.scores))
        check_threshold(self.reason, self.minimum, self.share)
        if self.fitted is not None and not isinstance(self.fitted, str):
            raise FilterError(
                f"{self.reason}: fitted is {self.fitted!r}; it must be the path of a file"
            )
        if self.fitted is not None and self.scores:
            raise FilterError(
                f"{self.reason}: fitted is {self.fitted!r} and scores is {list(self.scores)}; the "
                "file says which scores it combines; leave `scores` out"
            )

    def judge(self, rows: Rows) -> Judgement:
        """Combine the scores of every row."""
        if self.fitted is not None:
            scores = self._from_file(rows, self.fitted)
        else:
            scores = _mean_rank(rows, _better(rows, self.scores))
        if self.minimum is not None:
            return drop_below(rows, scores, self.minimum)
        if self.share is None and self.fitted is not None:
            return drop_below(rows, scores, 0.5)
        share = _DEFAULT_SHARE if self.share is None else self.share
        return drop_below(rows, scores, score_at(scores[rows.alive], share))

    def _from_file(self, rows: Rows, path: str) -> Floats:
        fitted = FittedScore.load(path)
        found = []
        for name in fitted.scores:
            before = rows.found.get(name.removeprefix("score_"))
            if before is not None and name.startswith("score_"):
                found.append(before.scores)
            else:
                found.append(_numbers(column(rows.frame, name, self.reason), name))
        return fitted.combine(np.column_stack(found))


def _better(rows: Rows, reasons: Sequence[str]) -> dict[str, Floats]:
    """Return the scores of earlier filters, turned so that higher is better."""
    there = {name: each for name, each in rows.found.items() if each.drops is not None}
    for name in reasons:
        if name not in there:
            raise FilterError(
                f"ensemble: scores names {name!r}; of the filters before this one, those with a "
                f"score to combine are: {', '.join(there) or 'none'}"
            )
    if not there:
        raise FilterError(
            "ensemble: no filter before this one has a score to combine; put it after "
            "label_noise, confidence or others that judge by a threshold"
        )
    return {
        name: each.scores if each.drops == BELOW else -each.scores
        for name, each in there.items()
        if name in (reasons or there)
    }


def _mean_rank(rows: Rows, scores: Mapping[str, Floats]) -> Floats:
    """Return the mean of the rows' ranks, each from 0 to 1, equal scores sharing a rank."""
    total = np.zeros(len(rows))
    for found in scores.values():
        ranks = pd.Series(found).rank().to_numpy()
        given = int((~np.isnan(found)).sum())
        total += np.nan_to_num((ranks - 0.5) / max(given, 1), nan=0.5)
    return total / len(scores)


def _fit(
    table: Floats, truth: Floats
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]:
    given = ~np.isnan(table)
    counts = np.maximum(given.sum(axis=0), 1)
    means = np.where(given, table, 0).sum(axis=0) / counts
    deviations = np.sqrt((np.where(given, table - means, 0) ** 2).sum(axis=0) / counts)
    deviations = np.where(deviations > 0, deviations, 1.0)
    scaled = np.nan_to_num((table - means) / deviations, nan=0.0)
    model: Any = fit_logistic(scaled, truth, _INVERSE_PENALTY)
    return (
        tuple(map(float, means)),
        tuple(map(float, deviations)),
        tuple(map(float, model.coef_[0])),
        float(model.intercept_[0]),
    )


def _combined(table: Floats, truth: Floats, others: Floats) -> Floats:
    means, deviations, weights, intercept = _fit(table, truth)
    scaled = np.nan_to_num((others - np.array(means)) / np.array(deviations), nan=0.0)
    return np.asarray(1 / (1 + np.exp(-(scaled @ np.array(weights) + intercept))))


def _read_right(right: Sequence[Any], rows: int) -> tuple[Any, Floats]:
    if len(right) != rows:
        raise FilterError(
            f"fit_score: right has {len(right)} entries and there are {rows} rows; give one for "
            "each, None where it is not known"
        )
    known, truth = np.zeros(rows, dtype=bool), np.zeros(rows)
    for place, value in enumerate(right):
        if not isinstance(value, str) and pd.isna(value):
            continue
        if not isinstance(value, bool | np.bool_):
            raise FilterError(
                f"fit_score: right[{place}] is {value!r}; it must be True, False or None"
            )
        known[place], truth[place] = True, float(value)
    good, bad = int(truth[known].sum()), int((1 - truth[known]).sum())
    if min(good, bad) < _FEWEST:
        raise FilterError(
            f"fit_score: {good} rows are known to be right and {bad} to be wrong; at least "
            f"{_FEWEST} of either are needed; have more rows checked"
        )
    return known, truth


def _table(frame: pd.DataFrame, names: Sequence[str]) -> Floats:
    return np.column_stack([_numbers(column(frame, name, "fit_score"), name) for name in names])


def _numbers(values: pd.Series, name: str) -> Floats:
    try:
        found = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise FilterError(
            f"score {name!r} holds something that is no number ({error}); name a column of numbers"
        ) from error
    return np.where(np.isfinite(found), found, np.nan)
