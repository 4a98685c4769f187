"""Calibrates labelled rows against gold labels, and reports what it was worth."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from labelers.calibrations import (
    CalibrationError,
    IsotonicCalibration,
    TemperatureCalibration,
    brier,
    calibration_error,
    check_distributions,
)
from labelers.columns import (
    read_choices,
    read_column,
    replace_columns,
    require_columns,
    to_dataset,
)

if TYPE_CHECKING:
    import datasets
    import pandas as pd

Method = Literal["temperature", "isotonic"]
Rule = TemperatureCalibration | IsotonicCalibration

#: Fewer gold labels than these say more about chance than about the teacher.
LEAST_FITTED = 30


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How right and how honest labels are, over the rows judged.

    Attributes:
        accuracy: Share of right labels, 0 to 1.
        calibration_error: Expected calibration error in 15 bins, 0 to 1.
        brier: Brier score, 0 to 2.
    """

    accuracy: float
    calibration_error: float
    brier: float


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What a calibration was fitted on, what it was judged on, and what it changed.

    Attributes:
        method: ``temperature`` or ``isotonic``.
        rule: What was fitted; its ``apply`` calibrates further distributions.
        fitted: Rows that the rule was fitted on.
        judged: Rows that the figures are over.
        folds: 0 where the rows judged were kept out of the fit. Otherwise every row with gold was
            fitted on, and the figures come from so many folds, each judged by a rule fitted on the
            others (the rule that was applied is fitted on all).
        skipped: Rows with gold but without a label and a distribution; they are in no figure.
        changed: Rows, over all, whose label is another now.
        before: Quality before.
        after: Quality after.
    """

    method: Method
    rule: Rule
    fitted: int
    judged: int
    folds: int
    skipped: int
    changed: int
    before: Quality
    after: Quality

    def __str__(self) -> str:
        how = (
            f"judged in {self.folds} folds of the same rows"
            if self.folds
            else "kept out of the fit"
        )
        figures = ", ".join(
            f"{name} {getattr(self.before, field):.3f} -> {getattr(self.after, field):.3f}"
            for name, field in (
                ("calibration error", "calibration_error"),
                ("Brier score", "brier"),
                ("accuracy", "accuracy"),
            )
        )
        return f"{self.method} calibration on {self.fitted} rows; over {self.judged} rows, {how}: {figures}"


@dataclass(frozen=True)
class _Row:
    """A row that can be calibrated, with the places of its label and gold label."""

    place: int
    probabilities: list[float]
    label: int
    gold: int | None


def calibrate(
    labelled: datasets.Dataset | pd.DataFrame,
    gold: Sequence[str | None],
    *,
    method: Method,
    labels: Sequence[str] | None = None,
    fit_on: Sequence[bool] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[datasets.Dataset, CalibrationReport]:
    """Fit a calibration on rows with gold labels and apply it to all rows.

    Rows without a label or a distribution stay as they are.

    Args:
        labelled: Rows with ``label``, ``label_probs`` and ``confidence``, as :func:`labelers.label`
            returns them, and ``choices`` unless ``labels`` is given.
        gold: A human's label for each row, None where there is none.
        method: ``temperature`` changes no label. ``isotonic`` can, and wants some hundred rows. Where
            choices differ from row to row it fits one curve for all of them.
        labels: The label set, in the order of ``label_probs``, where rows have no ``choices``.
        fit_on: For each row whether it may be fitted on; by default all that are not of the
            ``split`` "test". Only rows with gold and a distribution are used.
        folds: Folds of cross-fitting where no row with gold is left to judge by. Rows of one
            ``group`` are in one fold.
        seed: Draws the folds.

    Returns:
        The rows with ``label_probs``, ``confidence`` and ``label`` calibrated, and the report. Its
        figures are never over rows that the judged rule was fitted on.

    Raises:
        CalibrationError: If fewer than 30 rows can be fitted on, a gold label is not among its
            row's choices, or an argument does not fit.
        RowsError: If a column is missing or does not fit the choices.
    """
    if method not in get_args(Method):
        raise CalibrationError(f"method is {method!r}: choose 'temperature' or 'isotonic'")
    data = to_dataset(labelled)
    require_columns(data, ("label", "label_probs", "confidence"))
    choices = read_choices(data, labels)
    # As lists, because a pandas series is looked up by its index.
    usable, skipped = _usable(data, list(gold), choices)
    mask = _mask(data, None if fit_on is None else list(fit_on))
    fitted = [row for row in usable if row.gold is not None and mask[row.place]]
    judged = [row for row in usable if row.gold is not None and not mask[row.place]]
    if len(fitted) < LEAST_FITTED:
        raise CalibrationError(
            f"{len(fitted)} rows can be fitted on, and at least {LEAST_FITTED} are needed: give more gold "
            "labels, or leave the probabilities as they are"
        )
    pooled = len({tuple(choices[row.place] or ()) for row in usable}) > 1
    rule = _fit(method, fitted, pooled)
    after = dict(zip([row.place for row in usable], _apply(rule, usable), strict=True))
    if cross_fitted := not judged:
        judged = fitted
        held_out = _cross_fit(
            fitted, _groups(data), folds, seed, lambda rows: _fit(method, rows, pooled)
        )
    else:
        held_out = [after[row.place] for row in judged]
    report = CalibrationReport(
        method=method,
        rule=rule,
        fitted=len(fitted),
        judged=len(judged),
        folds=folds if cross_fitted else 0,
        skipped=skipped,
        changed=sum(_label(rule, row, after[row.place]) != row.label for row in usable),
        before=_quality(judged, [row.label for row in judged], [r.probabilities for r in judged]),
        after=_quality(
            judged,
            [_label(rule, row, p) for row, p in zip(judged, held_out, strict=True)],
            held_out,
        ),
    )
    return _write(data, rule, usable, after, choices), report


def _usable(
    data: datasets.Dataset, gold: Sequence[str | None], choices: Sequence[list[str] | None]
) -> tuple[list[_Row], int]:
    """The rows that can be calibrated, and how many others have gold."""
    if len(gold) != len(data):
        raise CalibrationError(
            f"{len(data)} rows came with {len(gold)} gold labels: give one for each, None where there is none"
        )
    usable = []
    skipped = 0
    columns = zip(read_column(data, "label"), read_column(data, "label_probs"), strict=True)
    for i, (label, probabilities) in enumerate(columns):
        right, allowed = gold[i], choices[i]
        known = isinstance(right, str)
        # A data frame has NaN, not None, where there is no label.
        if not known and right is not None and right == right:
            raise CalibrationError(
                f"row {i} has the gold label {right!r}: a label's text is needed"
            )
        if label is None or probabilities is None or allowed is None:
            skipped += known
            continue
        for what, value in (("label", label), ("gold label", right if known else label)):
            if value not in allowed:
                raise CalibrationError(
                    f"row {i} has the {what} {value!r}, which is not among its choices {allowed}"
                )
        check_distributions([probabilities], first=i)
        place = _place(right, allowed, probabilities) if isinstance(right, str) else None
        usable.append(_Row(i, probabilities, _place(label, allowed, probabilities), place))
    return usable, skipped


def _place(label: str, choices: Sequence[str], probabilities: Sequence[float]) -> int:
    """Where a label stands; of options that are listed twice, the likelier."""
    same = [k for k, choice in enumerate(choices) if choice == label]
    return max(same, key=lambda k: probabilities[k])


def _mask(data: datasets.Dataset, fit_on: Sequence[bool] | None) -> Sequence[bool]:
    if fit_on is None:
        if "split" not in data.column_names:
            return [True] * len(data)
        return [split != "test" for split in read_column(data, "split")]
    if len(fit_on) != len(data):
        raise CalibrationError(
            f"fit_on has {len(fit_on)} values for {len(data)} rows: give one each"
        )
    return [bool(value) for value in fit_on]


def _groups(data: datasets.Dataset) -> list[Any]:
    """What a row shares a fold with: its group, or itself alone."""
    own: list[Any] = [None] * len(data)
    if "group" in data.column_names:
        own = read_column(data, "group")
    return [i if group is None else ("group", group) for i, group in enumerate(own)]


def _fit(method: Method, rows: Sequence[_Row], pooled: bool) -> Rule:
    probabilities = [row.probabilities for row in rows]
    gold = [row.gold for row in rows if row.gold is not None]
    if method == "temperature":
        return TemperatureCalibration.fit(probabilities, gold)
    return IsotonicCalibration.fit(probabilities, gold, pooled=pooled)


def _apply(rule: Rule, rows: Sequence[_Row]) -> list[list[float]]:
    return rule.apply([row.probabilities for row in rows])


def _cross_fit(
    rows: Sequence[_Row],
    groups: Sequence[Any],
    folds: int,
    seed: int,
    fit: Callable[[Sequence[_Row]], Rule],
) -> list[list[float]]:
    """Each row's distribution by a rule that was fitted without its fold."""
    members = sorted({groups[row.place] for row in rows}, key=str)
    if not 2 <= folds <= len(members):
        raise CalibrationError(
            f"folds is {folds}: 2 to {len(members)} are possible here, one group of rows at least in each"
        )
    random.Random(seed).shuffle(members)
    fold_of = {member: number % folds for number, member in enumerate(members)}
    folded = [fold_of[groups[row.place]] for row in rows]
    found: dict[int, list[float]] = {}
    for fold in range(folds):
        out = [row for row, own in zip(rows, folded, strict=True) if own == fold]
        rule = fit([row for row, own in zip(rows, folded, strict=True) if own != fold])
        found.update(zip([row.place for row in out], _apply(rule, out), strict=True))
    return [found[row.place] for row in rows]


def _label(rule: Rule, row: _Row, probabilities: Sequence[float]) -> int:
    """The likeliest label; of equal ones the teacher's own, then the one likelier before."""
    if isinstance(rule, TemperatureCalibration):
        return row.label
    return max(
        range(len(probabilities)),
        key=lambda k: (probabilities[k], k == row.label, row.probabilities[k]),
    )


def _quality(
    rows: Sequence[_Row], said: Sequence[int], probabilities: Sequence[Sequence[float]]
) -> Quality:
    gold = [row.gold for row in rows if row.gold is not None]
    correct = [a == b for a, b in zip(said, gold, strict=True)]
    # Rounding can leave a probability just beyond 1.
    confidences = [min(1.0, p[k]) for p, k in zip(probabilities, said, strict=True)]
    return Quality(
        accuracy=sum(correct) / len(correct),
        calibration_error=calibration_error(confidences, correct),
        brier=brier(probabilities, gold),
    )


def _write(
    data: datasets.Dataset,
    rule: Rule,
    usable: Sequence[_Row],
    after: dict[int, list[float]],
    choices: Sequence[list[str] | None],
) -> datasets.Dataset:
    columns = {name: read_column(data, name) for name in ("label", "label_probs", "confidence")}
    for row in usable:
        probabilities, allowed = after[row.place], choices[row.place]
        assert allowed is not None
        label = _label(rule, row, probabilities)
        columns["label"][row.place] = allowed[label]
        columns["label_probs"][row.place] = probabilities
        columns["confidence"][row.place] = probabilities[label]
    return replace_columns(data, columns)
