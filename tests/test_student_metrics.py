"""Metrics against scikit-learn and against counts small enough to check by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

import student

LABELS = ["negative", "mixed", "positive"]


def answers(rows: int, *, labels: list[str] = LABELS, missing: float = 0.0) -> tuple[Any, Any]:
    """Gold and predictions that agree about two times in three."""
    random = np.random.default_rng(7)
    gold = random.choice(labels, size=rows, p=[0.6, 0.1, 0.3]).tolist()
    guess = random.choice(labels, size=rows).tolist()
    kept = random.random(rows) < 0.6
    predictions = [g if keep else p for g, p, keep in zip(gold, guess, kept, strict=True)]
    silent = random.random(rows) < missing
    return gold, [None if quiet else p for p, quiet in zip(predictions, silent, strict=True)]


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_values_equal_scikit_learns(missing: float) -> None:
    gold, predictions = answers(400, missing=missing)
    found = student.evaluate(gold, predictions, labels=LABELS)
    theirs = [p if p is not None else "(none)" for p in predictions]
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(gold, theirs))
    macro = f1_score(gold, theirs, labels=LABELS, average="macro")
    assert found["macro_f1"]["value"] == pytest.approx(macro)
    parts = precision_recall_fscore_support(gold, theirs, labels=LABELS)
    for i, row in enumerate(found["per_class"]):
        assert row["label"] == LABELS[i]
        got = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert got == pytest.approx([part[i] for part in parts])
    matrix = confusion_matrix(gold, theirs, labels=[*LABELS, "(none)"])[:3]
    assert found["confusion"]["matrix"] == matrix.tolist()
    assert found["confusion"]["columns"] == [*LABELS, "(none)"]
    assert found["n"] == 400
    assert found["unread"] == predictions.count(None)


def test_no_answer_and_an_answer_outside_the_set_are_wrong_and_seen() -> None:
    gold = ["yes", "yes", "no", "no"]
    found = student.evaluate(gold, ["yes", None, "perhaps", "no"], labels=["yes", "no"])
    assert found["accuracy"]["value"] == 0.5
    assert found["unread"] == 2
    assert found["confusion"]["matrix"] == [[1, 0, 1], [0, 1, 1]]
    assert found["per_class"][0] == {
        "label": "yes",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }


def test_a_label_that_never_occurs_does_not_pull_the_mean_down() -> None:
    gold, predictions = ["yes", "no", "yes"], ["yes", "no", "yes"]
    assert student.macro_f1(gold, predictions, labels=["yes", "no", "perhaps"]) == 1.0
    assert student.macro_f1(gold, ["yes", "no", "perhaps"]) == pytest.approx(
        f1_score(gold, ["yes", "no", "perhaps"], average="macro")
    )


def test_gold_that_nobody_wrote_is_left_out() -> None:
    found = student.evaluate(["yes", None, "no"], ["yes", "yes", "yes"], labels=["yes", "no"])
    assert found["n"] == 2
    assert found["accuracy"]["value"] == 0.5
    assert student.evaluate(["yes"], [float("nan")], labels=["yes"])["unread"] == 1


def test_of_several_labels_the_answered_one_counts() -> None:
    gold = [["yes", "perhaps"], ["yes", "perhaps"], ["no"]]
    answers = ["perhaps", "no", "no"]
    found = student.evaluate(
        gold,
        answers,
        labels=["yes", "no", "perhaps"],
        metrics=["accuracy", "brier"],
        label_probs=[[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]],
    )
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    # The second row was answered with neither, and stands in the table under its first label.
    assert found["confusion"]["matrix"] == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert found["macro_f1"]["value"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert found["brier"]["value"] == pytest.approx((0 + 0.5 + 0) / 3)
    with pytest.raises(student.InputError, match="row 0: gold \\['yes', 'maybe'\\] is not among"):
        student.evaluate([["yes", "maybe"]], ["yes"], labels=["yes", "no"])


def test_free_text_is_compared_as_text() -> None:
    gold = [["Paris", "the city of Paris"], ["4"], ["blue"]]
    found = student.evaluate(gold, ["the city of  paris", "4", "red"])
    assert found["exact_match"]["value"] == pytest.approx(2 / 3)
    assert found["accuracy"]["value"] == pytest.approx(1 / 3)
    assert found["macro_f1"] is None
    assert found["confusion"] is None
    assert found["per_class"] == []
    many = [f"answer {i}" for i in range(60)]
    assert student.evaluate(many, many)["macro_f1"] is None
    assert student.evaluate(["a", "b"], ["a", "a"])["macro_f1"]["value"] == pytest.approx(1 / 3)


def test_the_interval_agrees_with_the_normal_approximation() -> None:
    gold, predictions = answers(600)
    found = student.evaluate(gold, predictions, labels=LABELS, seed=1)["accuracy"]
    value = found["value"]
    half = 1.96 * (value * (1 - value) / 600) ** 0.5
    assert found["low"] == pytest.approx(value - half, abs=0.006)
    assert found["high"] == pytest.approx(value + half, abs=0.006)


def test_the_interval_of_macro_f1_is_that_of_resampling_row_by_row() -> None:
    gold, predictions = answers(150)
    low, high = student.bootstrap_interval("macro_f1", gold, predictions, labels=LABELS, seed=3)
    random, values = np.random.default_rng(11), []
    for _ in range(200):
        rows = random.integers(0, 150, size=150)
        values.append(
            f1_score([gold[i] for i in rows], [predictions[i] for i in rows], average="macro")
        )
    assert low == pytest.approx(np.quantile(values, 0.025), abs=0.03)
    assert high == pytest.approx(np.quantile(values, 0.975), abs=0.03)


def test_groups_widen_the_interval_where_rows_of_a_group_agree() -> None:
    gold = ["yes"] * 200
    predictions = ["yes" if i // 20 % 2 else "no" for i in range(200)]  # right by whole groups
    groups = [f"review {i // 20}" for i in range(200)]
    alone = student.bootstrap_interval("accuracy", gold, predictions)
    clustered = student.bootstrap_interval("accuracy", gold, predictions, groups=groups)
    assert clustered[1] - clustered[0] > 3 * (alone[1] - alone[0])
    own = student.bootstrap_interval("accuracy", gold, predictions, groups=[None] * 200)
    assert own == alone  # a row without a group stands on its own


def test_the_seed_decides_the_interval() -> None:
    gold, predictions = answers(100)
    one = student.bootstrap_interval("accuracy", gold, predictions, seed=1)
    assert one == student.bootstrap_interval("accuracy", gold, predictions, seed=1)
    others = {student.bootstrap_interval("accuracy", gold, predictions, seed=s) for s in range(5)}
    assert len(others) > 1
    sure = student.evaluate(["yes"] * 50, ["yes"] * 50, labels=["yes", "no"])
    assert sure["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_reliability_bins_and_the_error_they_give() -> None:
    confidences = [0.05, 0.55, 0.55, 0.95, 1.0]
    right = [False, True, False, True, True]
    bins = student.reliability(confidences, right)
    assert [b["count"] for b in bins] == [1, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert bins[5] == {"low": 0.5, "high": 0.6, "count": 2, "confidence": 0.55, "accuracy": 0.5}
    assert bins[1]["accuracy"] is None
    by_hand = (1 * 0.05 + 2 * 0.05 + 2 * 0.025) / 5
    assert student.expected_calibration_error(confidences, right) == pytest.approx(by_hand)
    with pytest.raises(student.InputError, match="outside 0 to 1"):
        student.reliability([1.2], [True])


def test_brier_equals_scikit_learns() -> None:
    gold, _ = answers(50)
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=50)
    theirs = brier_score_loss(
        gold, probabilities[:, [1, 0, 2]], labels=sorted(LABELS), scale_by_half=False
    )
    ours = student.brier(probabilities.tolist(), [LABELS] * 50, gold)
    assert sorted(LABELS) == ["mixed", "negative", "positive"]
    assert ours == pytest.approx(theirs)
    assert student.brier([[0.8, 0.2]], [["yes", "no"]], ["yes"]) == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("gold", "predictions", "options", "message"),
    [
        ([], [], {}, "no rows to evaluate"),
        (["a"], ["a", "b"], {}, "1 gold answers but 2 predictions"),
        ([None], ["a"], {}, "no row has gold"),
        (["maybe"], ["yes"], {"labels": ["yes", "no"]}, "gold 'maybe' is not among"),
        (["a", "b"], ["a", "b"], {"groups": ["g"]}, "1 groups for 2 rows"),
    ],
)
def test_bad_input_is_named(gold: Any, predictions: Any, options: Any, message: str) -> None:
    with pytest.raises(student.InputError, match=message):
        student.evaluate(gold, predictions, **options)
    with pytest.raises(student.InputError, match="metric 'rouge' is not known"):
        student.bootstrap_interval("rouge", ["a"], ["a"])
