"""Calibration against values worked out by hand, and of whole labelled datasets."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.calibrated_rows import LEAST_FITTED, CalibrationReport, Method, calibrate
from labelers.calibrations import (
    BatchCalibration,
    CalibrationError,
    ContextualCalibration,
    IsotonicCalibration,
    TemperatureCalibration,
    brier,
    calibration_error,
)
from labelers.columns import RowsError

SENTIMENT = ["positive", "negative"]


# ------------------------------------------------------------------------- without gold labels


def test_batch_calibration_takes_a_lean_away() -> None:
    # Mean (0.7, 0.3): a row at the mean says nothing, so it comes out even.
    batch = np.array([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]])
    rule = BatchCalibration.fit(batch)
    assert rule.prior == pytest.approx([0.7, 0.3])
    calibrated = rule.apply(batch)
    # By hand, row 0: 0.9/0.7 = 1.2857 and 0.1/0.3 = 0.3333; 1.2857 / 1.6190 = 0.79412.
    assert calibrated[0] == pytest.approx([0.7941176, 0.2058824])
    assert calibrated[1] == pytest.approx([0.5, 0.5])
    # Row 2: 0.7143 and 1.6667; 0.7143 / 2.3810 = 0.3.
    assert calibrated[2] == pytest.approx([0.3, 0.7])


def test_a_label_never_seen_in_the_batch_does_not_divide_by_zero() -> None:
    calibrated = BatchCalibration.fit(np.array([[1.0, 0.0], [1.0, 0.0]])).apply(
        np.array([[1.0, 0.0], [0.4, 0.6]])
    )
    assert np.isfinite(calibrated).all()
    assert calibrated.sum(axis=1) == pytest.approx([1, 1])


def test_contextual_calibration_divides_by_what_is_said_to_nothing() -> None:
    # To "N/A", "[MASK]" and "" the teacher says positive with 0.8 on the mean.
    rule = ContextualCalibration.fit(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]))
    assert rule.prior == pytest.approx([0.8, 0.2])
    # 0.6/0.8 = 0.75 and 0.4/0.2 = 2: the label turns.
    assert rule.apply(np.array([[0.6, 0.4], [0.8, 0.2]])) == pytest.approx(
        np.array([[0.75 / 2.75, 2 / 2.75], [0.5, 0.5]])
    )


# ------------------------------------------------------------------------------- temperature


def test_an_overconfident_teacher_gets_the_temperature_that_makes_it_right() -> None:
    # It says 0.9 and is right in three of four: T with 9**(1/T) = 3, which is 2.
    found = TemperatureCalibration.fit([[0.9, 0.1]] * 40, [0, 0, 0, 1] * 10)
    assert found.temperature == pytest.approx(2.0, abs=1e-3)
    assert found.apply([[0.9, 0.1], [0.1, 0.9]]) == [
        pytest.approx([0.75, 0.25], abs=1e-4),
        pytest.approx([0.25, 0.75], abs=1e-4),
    ]


def test_a_shy_teacher_gets_a_temperature_below_one() -> None:
    # It says 0.6 and is right in nine of ten: 1.5**(1/T) = 9, so T = ln 1.5 / ln 9.
    found = TemperatureCalibration.fit([[0.6, 0.4]] * 40, ([0] * 9 + [1]) * 4)
    assert found.temperature == pytest.approx(math.log(1.5) / math.log(9), abs=1e-3)


def test_a_teacher_that_is_always_right_or_always_wrong_gets_a_bound() -> None:
    surest = TemperatureCalibration.fit([[0.8, 0.2]] * 30, [0] * 30)
    assert surest.temperature == pytest.approx(0.05, rel=1e-2)
    wrong = TemperatureCalibration.fit([[0.8, 0.2]] * 30, [1] * 30)
    assert wrong.temperature == pytest.approx(20, rel=1e-2)


def test_rows_may_differ_in_their_number_of_choices() -> None:
    rows = [[0.9, 0.1], [0.9, 0.05, 0.05], [0.1, 0.9], [0.05, 0.9, 0.05]] * 10
    found = TemperatureCalibration.fit(rows, [0, 0, 0, 0] * 10)
    applied = found.apply(rows)
    assert found.temperature > 1
    assert [len(row) for row in applied[:4]] == [2, 3, 2, 3]
    assert [sum(row) for row in applied] == pytest.approx([1.0] * 40)


def test_a_probability_of_zero_survives() -> None:
    found = TemperatureCalibration.fit([[1.0, 0.0]] * 39 + [[0.0, 1.0]], [0] * 40)
    assert math.isfinite(found.temperature)
    assert found.apply([[1.0, 0.0]])[0] == pytest.approx([39 / 40, 1 / 40], abs=1e-3)


DISTRIBUTIONS = st.lists(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=5).map(
        lambda row: [p / sum(row) for p in row]
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=50, deadline=None)
@given(DISTRIBUTIONS, st.randoms(use_true_random=False))
def test_a_temperature_keeps_the_order_and_never_raises_the_loss(
    rows: list[list[float]], drawn: random.Random
) -> None:
    gold = [drawn.randrange(len(row)) for row in rows]
    applied = TemperatureCalibration.fit(rows, gold).apply(rows)
    for before, after in zip(rows, applied, strict=True):
        assert sum(after) == pytest.approx(1)
        order = sorted(range(len(before)), key=lambda k: before[k])
        assert all(after[a] <= after[b] + 1e-12 for a, b in pairwise(order))

    def loss(table: Sequence[Sequence[float]]) -> float:
        return -sum(math.log(row[g] + 1e-300) for row, g in zip(table, gold, strict=True))

    assert loss(applied) <= loss(rows) + 1e-4


# ---------------------------------------------------------------------------------- isotonic


def test_isotonic_calibration_learns_how_often_a_probability_was_right() -> None:
    # Says 0.9 and is right in 6 of 10; says 0.6 and is right in 6 of 10, too.
    rows = [[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10 + [[0.2, 0.8]] * 10
    gold = ([0] * 6 + [1] * 4) * 2 + [1] * 10
    found = IsotonicCalibration.fit(rows, gold)
    # Negative: at 0.1 in 4 of 10, at 0.4 in 4 of 10, at 0.8 always.
    assert found.apply([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]) == [
        pytest.approx([0.6, 0.4]),
        pytest.approx([0.6, 0.4]),
        pytest.approx([0.0, 1.0]),
    ]
    # Halfway between two corners it is a straight line, beyond the last one it is flat.
    assert found.apply([[0.4, 0.6], [1.0, 0.0]]) == [
        pytest.approx([0.3, 0.7]),
        pytest.approx([0.6, 0.4]),
    ]


def test_a_falling_relation_is_levelled_not_learnt() -> None:
    # The surer, the less often right: rising at most, so that both get the mean, 10 of 20.
    rows = [[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10
    gold = [0] * 3 + [1] * 7 + [0] * 7 + [1] * 3
    for row in IsotonicCalibration.fit(rows, gold).apply(rows):
        assert row == pytest.approx([0.5, 0.5])


def test_pooled_curves_serve_choices_that_differ_from_row_to_row() -> None:
    rows = [[0.8, 0.2]] * 20 + [[0.1, 0.8, 0.1]] * 20
    gold = [0] * 10 + [1] * 10 + [1] * 14 + [0] * 3 + [2] * 3
    found = IsotonicCalibration.fit(rows, gold, pooled=True)
    # 0.8 was right in 24 of 40, 0.2 in 10 of 20, 0.1 in 6 of 40.
    assert found.apply([[0.8, 0.2], [0.1, 0.8, 0.1]]) == [
        pytest.approx([0.6 / 1.1, 0.5 / 1.1]),
        pytest.approx([0.15 / 0.9, 0.6 / 0.9, 0.15 / 0.9]),
    ]
    with pytest.raises(CalibrationError, match=r"2 to 3 choices.*pooled=True"):
        IsotonicCalibration.fit(rows, gold)


def test_a_row_that_all_curves_map_to_zero_becomes_even() -> None:
    # A label is never right where it has 0.4 or less, and always from 0.6 on.
    rows = [[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]] * 10
    found = IsotonicCalibration.fit(rows, [0, 1, 2] * 10)
    assert found.apply([[0.4, 0.3, 0.3]])[0] == pytest.approx([1 / 3] * 3)
    assert found.apply([[0.5, 0.4, 0.1]])[0] == pytest.approx([1, 0, 0])


def test_curves_fitted_to_two_labels_refuse_three() -> None:
    found = IsotonicCalibration.fit([[0.9, 0.1], [0.1, 0.9]], [0, 1])
    with pytest.raises(CalibrationError, match=r"row 0 has 3 labels.*fitted to 2"):
        found.apply([[0.2, 0.3, 0.5]])


# ----------------------------------------------------------------------------------- figures


def test_the_calibration_error_by_hand() -> None:
    # Bin (0.8, 1.0]: mean confidence 0.9, 1 of 2 right, gap 0.4; bin (0.4, 0.6]: 0.55, 1 of 2, 0.05.
    found = calibration_error([0.95, 0.85, 0.5, 0.6], [True, False, True, False], bins=5)
    assert found == pytest.approx(0.5 * 0.4 + 0.5 * 0.05)
    # In one bin all gaps meet: mean 0.725 against 2 of 4.
    assert calibration_error([0.95, 0.85, 0.5, 0.6], [True, False, True, False], bins=1) == (
        pytest.approx(0.225)
    )


def test_the_calibration_error_at_its_ends() -> None:
    assert calibration_error([1.0, 1.0, 0.0], [True, True, False]) == 0
    assert calibration_error([1.0, 0.0], [False, True]) == 1
    # A bin holds its upper edge: 0.2 is with 0.15, not with 0.25.
    assert calibration_error([0.15, 0.2], [True, False], bins=5) == pytest.approx(0.325)
    assert calibration_error([0.25, 0.2], [True, False], bins=5) == pytest.approx(0.475)


def test_the_brier_score_by_hand() -> None:
    # (0.3² + 0.3²) and (0.4² + 0.5² + 0.9²), as a mean.
    assert brier([[0.7, 0.3], [0.4, 0.5, 0.1]], [0, 2]) == pytest.approx((0.18 + 1.22) / 2)
    assert brier([[0.5, 0.5]], [1]) == pytest.approx(0.5)
    assert brier([[1.0, 0.0]], [0]) == 0
    assert brier([[1.0, 0.0]], [1]) == 2


@pytest.mark.parametrize(
    ("confidences", "correct", "bins", "message"),
    [
        ([], [], 15, "no rows"),
        ([0.5], [True, False], 15, "1 rows came with 2"),
        ([1.2], [True], 15, "confidence 1.2"),
        ([-0.1], [True], 15, "confidence -0.1"),
        ([math.nan], [True], 15, "confidence nan"),
        ([0.5], [True], 0, "bins is 0"),
    ],
)
def test_the_calibration_error_refuses_what_it_cannot_judge(
    confidences: list[float], correct: list[bool], bins: int, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibration_error(confidences, correct, bins)


@pytest.mark.parametrize(
    ("rows", "gold", "message"),
    [
        ([], [], "no rows"),
        ([[0.5, 0.5]], [], "1 rows came with 0 gold"),
        ([[0.5, 0.4]], [0], r"row 0 has the probabilities \[0.5, 0.4\]"),
        ([[0.5, 0.5], [1.5, -0.5]], [0, 0], "row 1"),
        ([[math.nan, 1.0]], [0], "row 0"),
        ([[0.5, 0.5]], [2], "gold label number 2, and 2 labels: 0 to 1"),
        ([[0.5, 0.5]], [-1], "gold label number -1"),
    ],
)
def test_what_is_no_distribution_is_refused_everywhere(
    rows: list[list[float]], gold: list[int], message: str
) -> None:
    for take in (brier, TemperatureCalibration.fit, IsotonicCalibration.fit):
        with pytest.raises(CalibrationError, match=message):
            take(rows, gold)


# ------------------------------------------------------------------------------ whole datasets


def reviews(rows: int = 80, *, seed: int = 0) -> tuple[pd.DataFrame, list[str | None]]:
    """Labelled reviews whose teacher says 0.97 and is right in four of five; a quarter is test."""
    drawn = random.Random(seed)
    table = []
    gold: list[str | None] = []
    for i in range(rows):
        said = drawn.randrange(2)
        sure = 0.97
        probabilities = [sure, 1 - sure] if said == 0 else [1 - sure, sure]
        table.append(
            {
                "id": str(i),
                "input": f"Review: lamp number {i} hums.",
                "split": "test" if i % 4 == 3 else "train",
                "choices": SENTIMENT,
                "label": SENTIMENT[said],
                "label_probs": probabilities,
                "confidence": sure,
            }
        )
        gold.append(SENTIMENT[said if i % 5 else 1 - said])
    return pd.DataFrame(table), gold


def test_temperature_calibration_of_a_dataset_changes_probabilities_and_no_label() -> None:
    frame, gold = reviews(200)
    result, report = calibrate(frame, gold, method="temperature")
    assert result["label"][:] == frame["label"].tolist()
    assert result["input"][:] == frame["input"].tolist()
    for label, probabilities, confidence in zip(
        result["label"], result["label_probs"], result["confidence"], strict=True
    ):
        assert confidence == probabilities[SENTIMENT.index(label)] == max(probabilities)
        assert confidence == pytest.approx(0.8, abs=1e-3)
    assert (report.fitted, report.judged, report.folds, report.changed) == (150, 50, 0, 0)
    assert report.before.accuracy == report.after.accuracy == 0.8
    assert report.before.calibration_error == pytest.approx(0.17)
    assert report.after.calibration_error < 0.001
    assert report.after.brier < report.before.brier
    assert isinstance(report.rule, TemperatureCalibration)
    assert report.rule.temperature > 1
    assert str(report).startswith(
        "temperature calibration on 150 rows; over 50 rows, kept out of the fit: calibration error "
        "0.170 -> 0.000, Brier score "
    )


def test_isotonic_calibration_of_a_dataset_can_turn_labels() -> None:
    # The teacher leans: it says positive with 0.6 to what is negative.
    rows = [([0.6, 0.4], "negative"), ([0.9, 0.1], "positive")] * 40
    frame = pd.DataFrame(
        {
            "label": ["positive"] * 80,
            "label_probs": [probabilities for probabilities, _ in rows],
            "confidence": [0.6, 0.9] * 40,
            "split": ["train"] * 60 + ["test"] * 20,
        }
    )
    result, report = calibrate(
        frame, [right for _, right in rows], method="isotonic", labels=SENTIMENT
    )
    assert result["label"][:4] == ["negative", "positive"] * 2
    assert result["label_probs"][:2] == [[0.0, 1.0], [1.0, 0.0]]
    assert result["confidence"][:2] == [1.0, 1.0]
    assert report.changed == 40
    assert (report.before.accuracy, report.after.accuracy) == (0.5, 1.0)
    assert report.after == type(report.after)(accuracy=1.0, calibration_error=0.0, brier=0.0)


def test_isotonic_calibration_leaves_the_teachers_label_where_both_come_out_even() -> None:
    frame = pd.DataFrame(
        {
            "label": ["negative"] * 40,
            "label_probs": [[0.3, 0.7]] * 40,
            "confidence": [0.7] * 40,
            "choices": [SENTIMENT] * 40,
        }
    )
    result, report = calibrate(frame, SENTIMENT * 20, method="isotonic")
    assert result["label_probs"][0] == pytest.approx([0.5, 0.5])
    assert set(result["label"]) == {"negative"}
    assert report.changed == 0


def test_figures_are_not_over_rows_that_were_fitted_on() -> None:
    # Pure noise: isotonic calibration fits it, and rows that it was fitted on would flatter it.
    drawn = random.Random(1)
    sure = [drawn.uniform(0.5, 1) for _ in range(60)]
    frame = pd.DataFrame(
        {
            "label": ["positive"] * 60,
            "label_probs": [[p, 1 - p] for p in sure],
            "confidence": sure,
            "choices": [SENTIMENT] * 60,
        }
    )
    gold = [drawn.choice(SENTIMENT) for _ in range(60)]
    result, report = calibrate(frame, gold, method="isotonic", folds=5)
    assert (report.fitted, report.judged, report.folds) == (60, 60, 5)
    assert "judged in 5 folds of the same rows" in str(report)
    flattering = brier(result["label_probs"][:], [SENTIMENT.index(g) for g in gold])
    assert report.after.brier > flattering + 0.02
    again = calibrate(frame, gold, method="isotonic", folds=5)[1]
    assert again.after == report.after
    assert calibrate(frame, gold, method="isotonic", folds=5, seed=3)[1].after != report.after


def test_rows_of_one_group_are_judged_by_a_rule_that_saw_none_of_them() -> None:
    # In each group the same probability and gold; across groups they have nothing in common.
    drawn = random.Random(2)
    table = []
    for group in range(10):
        sure, right = 0.5 + group / 20, drawn.randrange(2)
        table += [(sure, right, f"review {group}")] * 6
    frame = pd.DataFrame(
        {
            "label": ["positive"] * 60,
            "label_probs": [[sure, 1 - sure] for sure, _, _ in table],
            "confidence": [sure for sure, _, _ in table],
            "choices": [SENTIMENT] * 60,
            "group": [group for _, _, group in table],
        }
    )
    gold = [SENTIMENT[right] for _, right, _ in table]
    honest = calibrate(frame, gold, method="isotonic")[1]
    leaky = calibrate(frame.drop(columns="group"), gold, method="isotonic")[1]
    assert leaky.after.brier < honest.after.brier
    with pytest.raises(CalibrationError, match="folds is 11: 2 to 10"):
        calibrate(frame, gold, method="isotonic", folds=11)


def test_rows_without_label_or_gold_pass_through() -> None:
    frame, gold = reviews(80)
    frame.loc[0, "label"] = None
    frame.at[1, "label_probs"] = None
    gold[2] = None
    result, report = calibrate(frame, gold, method="temperature")
    assert result["label"][0] is None
    assert result["label_probs"][0] == pytest.approx(frame["label_probs"][0])
    assert result["label_probs"][1] is None
    assert result["confidence"][1] == frame["confidence"][1]
    assert result["confidence"][2] < frame["confidence"][2]
    assert (report.fitted, report.judged, report.skipped) == (57, 20, 2)


def test_the_rows_to_fit_on_can_be_named() -> None:
    frame, gold = reviews(80)
    mask = [i < 50 for i in range(80)]
    report = calibrate(frame, gold, method="temperature", fit_on=mask)[1]
    assert (report.fitted, report.judged) == (50, 30)
    shuffled = frame.sample(frac=1, random_state=0)
    series = pd.Series(gold, index=frame.index).loc[shuffled.index]
    moved = calibrate(
        shuffled, series, method="temperature", fit_on=pd.Series(mask).loc[shuffled.index]
    )[1]
    assert moved.after.brier == pytest.approx(report.after.brier)


def test_choices_that_differ_from_row_to_row_are_calibrated_together() -> None:
    drawn = random.Random(4)
    table = []
    gold = []
    for i in range(120):
        choices = [f"place {i} {letter}" for letter in "abcde"[: 3 + i % 3]]
        rest = 0.1 / (len(choices) - 1)
        table.append(
            {
                "choices": choices,
                "label": choices[0],
                "label_probs": [0.9] + [rest] * (len(choices) - 1),
                "confidence": 0.9,
                "split": "train" if i < 80 else "test",
            }
        )
        gold.append(choices[0] if drawn.random() < 0.6 else choices[1])
    methods: tuple[Method, ...] = ("temperature", "isotonic")
    for method in methods:
        result, report = calibrate(datasets.Dataset.from_list(table), gold, method=method)
        assert [len(p) for p in result["label_probs"]] == [3 + i % 3 for i in range(120)]
        assert report.after.calibration_error < report.before.calibration_error - 0.1
        assert report.changed == 0


def test_other_columns_their_types_and_their_order_stay() -> None:
    frame, gold = reviews(60)
    data = datasets.Dataset.from_pandas(frame).add_column("stars", [1] * 60)
    data = data.cast_column("stars", datasets.ClassLabel(names=["one", "two"]))
    picked = data.select(list(range(59, -1, -1)))
    result, _ = calibrate(picked, gold[::-1], method="temperature")
    assert result.column_names == data.column_names
    assert result.features["stars"] == datasets.ClassLabel(names=["one", "two"])
    assert result["id"][:3] == ["59", "58", "57"]


def test_an_empty_fit_and_unfit_arguments_are_told() -> None:
    frame, gold = reviews(80)
    few = [g if i < 30 else None for i, g in enumerate(gold)]
    with pytest.raises(
        CalibrationError, match=f"23 rows can be fitted on, and at least {LEAST_FITTED}"
    ):
        calibrate(frame, few, method="temperature")
    with pytest.raises(CalibrationError, match="method is 'platt'"):
        calibrate(frame, gold, method="platt")  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="80 rows came with 3 gold"):
        calibrate(frame, gold[:3], method="temperature")
    with pytest.raises(CalibrationError, match="fit_on has 1 values for 80 rows"):
        calibrate(frame, gold, method="temperature", fit_on=[True])
    with pytest.raises(
        CalibrationError, match="row 0 has the gold label 'mixed', which is not among"
    ):
        calibrate(frame, ["mixed", *gold[1:]], method="temperature")
    with pytest.raises(CalibrationError, match="row 1 has the gold label 1: a label's text"):
        calibrate(frame, [None, 1, *gold[2:]], method="temperature")  # type: ignore[list-item]
    frame.at[7, "label_probs"] = [0.2, 0.2]
    with pytest.raises(CalibrationError, match="row 7 has the probabilities"):
        calibrate(frame, gold, method="temperature")


def test_columns_that_are_missing_or_do_not_fit_are_told() -> None:
    frame, gold = reviews(40)

    def refused(data: Any, message: str, **how: Any) -> None:
        with pytest.raises(RowsError, match=message):
            calibrate(data, gold, method="temperature", **how)

    refused(frame.drop(columns="confidence"), "no column 'confidence'.*label it first")
    refused(frame.drop(columns="choices"), r"row 0 .* label_probs and no choices.*labels=\[")
    refused(frame.drop(columns="choices"), "2 label_probs and the choices", labels=["a", "b", "c"])
    refused({"label": []}, "is a dict")
    report: CalibrationReport = calibrate(
        frame.drop(columns="choices"), gold, method="temperature", labels=SENTIMENT
    )[1]
    assert report.fitted == 30
