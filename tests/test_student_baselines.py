"""The two baselines, and the rule that importing the package stays cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import student

TRAIN = [
    ("I love this lamp, it is bright and easy to carry", "positive"),
    ("A lovely sound and an easy setup", "positive"),
    ("Works perfectly, I love it", "positive"),
    ("The strap broke on day two", "negative"),
    ("It broke after an hour and nobody answered", "negative"),
]
TEXTS, GIVEN = [text for text, _ in TRAIN], [label for _, label in TRAIN]


def test_majority_answers_with_the_most_frequent_label() -> None:
    found = student.majority(GIVEN, 3)
    assert found.predictions == ["positive"] * 3
    assert found.labels == ("negative", "positive")
    assert found.label_probs == [[0.4, 0.6]] * 3
    fixed = student.majority(GIVEN, 1, labels=["positive", "negative", "mixed"])
    assert fixed.label_probs == [[0.6, 0.4, 0.0]]
    with pytest.raises(student.InputError, match="at least one training label"):
        student.majority([], 3)


def test_majority_stays_within_each_rows_choices() -> None:
    found = student.majority(GIVEN, 2, choices=[["negative", "mixed"], ["mixed", "other"]])
    assert found.predictions == ["negative", "mixed"]


def test_tfidf_learns_words_and_gives_probabilities() -> None:
    texts = ["The lamp broke after an hour", "I love the easy setup"]
    found = student.tfidf(TEXTS, GIVEN, texts, labels=["positive", "mixed", "negative"])
    assert found.predictions == ["negative", "positive"]
    assert found.label_probs is not None
    for row in found.label_probs:
        assert sum(row) == pytest.approx(1.0)
        assert row[1] == 0.0  # "mixed" was never seen
    assert found.label_probs[0][2] > 0.5 > found.label_probs[1][2]


def test_tfidf_weights_enter_the_loss() -> None:
    # The same words with both labels: the heavier row decides.
    texts, labels = ["plain lamp", "plain lamp", "other words"], ["yes", "no", "no"]
    for weights, expected in (([5.0, 1.0, 1.0], "yes"), ([1.0, 5.0, 1.0], "no")):
        found = student.tfidf(texts, labels, ["plain lamp"], weights=weights)
        assert found.predictions == [expected]


def test_tfidf_with_one_label_says_so() -> None:
    found = student.tfidf(["a lamp", "a strap"], ["yes", "yes"], ["a radio"], labels=["yes", "no"])
    assert found.predictions == ["yes"]
    assert found.label_probs == [[1.0, 0.0]]
    assert found.reason == "every training label is 'yes'; there was nothing to learn"


def test_tfidfs_probabilities_stand_in_the_order_of_the_choices() -> None:
    alike = [["no", "yes", "unsure"]] * 2
    found = student.tfidf(
        ["a bright lamp", "a dull lamp"] * 3, ["yes", "no"] * 3, ["bright", "dull"], choices=alike
    )
    assert found.predictions == ["yes", "no"]
    assert found.label_probs is not None
    assert found.label_probs[0][1] > 0.5 > found.label_probs[0][0]
    assert found.label_probs[0][2] == 0


def test_tfidf_does_not_pretend_where_there_are_no_classes() -> None:
    choices = [["bank", "river"], ["lamp", "sun"]]
    by_row = student.tfidf(TEXTS, GIVEN, ["a", "b"], choices=choices)
    assert by_row.predictions is None
    assert by_row.reason == "the choices differ from row to row, so there are no fixed classes"
    sums = [f"{i} plus one" for i in range(12)]
    free = student.tfidf(sums, [str(i + 1) for i in range(12)], ["20 plus one"])
    assert free.predictions is None
    assert free.reason == "12 different answers in 12 rows: free text"
    empty = student.tfidf(["?!", "..."] * 2, ["yes", "no"] * 2, ["a lamp"])
    assert empty.predictions is None
    assert "could not be trained" in (empty.reason or "")
    with pytest.raises(student.InputError, match="2 training texts but 1 labels"):
        student.tfidf(["a", "b"], ["yes"], ["c"])


def test_the_card_tells_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    options = {"alpha": 0.5, "batch_size": 16, "gradient_accumulation": 2, "seed": 3}
    options |= {"learning_rate": 5e-4, "schedule": "linear", "warmup_ratio": 0.1}
    settings = {
        "objective": "label",
        "target": "label",
        "base_model": "google/flan-t5-small",
        "labels": ["positive", "negative: really"],
        "max_input_tokens": 512,
    }
    history = {
        "steps": [{}] * 20,
        "epochs": [{"epoch": 1, "validation_accuracy": 0.875}],
        "best_epoch": 1,
        "rows": 640,
        "validation_rows": 64,
        "truncated": {"inputs": 3, "labels": 0},
        "left_out": {"not kept": 12},
        "options": options,
        "precision": "fp32",
        "device": "cpu",
        "seconds": 61.0,
    }
    (tmp_path / "student.json").write_text(json.dumps(settings))
    (tmp_path / "history.json").write_text(json.dumps(history))
    metrics = student.evaluate(["a", "b"] * 20, ["a"] * 40, labels=["a", "b"])
    card = student.write_card(
        tmp_path, teacher="SmolLM2-135M, scored labels", metrics=metrics, notes=["English only."]
    ).read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "google/flan-t5-small"
    assert front["metrics"] == ["accuracy", "f1"]
    for said in (
        "- Teacher: SmolLM2-135M, scored labels",
        "- Data: not stated",
        "| accuracy | 0.500 |",
        "On 40 examples labelled by people",
        "Validation accuracy: 0.875",
        "20 steps of 32 rows",
        "- Rows given but not trained on: 12 not kept",
        "3 inputs",
        "- English only.",
        "Before publishing, check the licences",
        "`negative: really`",
    ):
        assert said in card
    with pytest.raises(student.CheckpointError, match="give a folder that train wrote"):
        student.write_card(tmp_path / "nowhere")


def test_importing_student_loads_nothing_heavy() -> None:
    code = (
        "import student, sys; print(sorted(sys.modules.keys() & {'torch', 'transformers', "
        "'sklearn', 'pandas', 'datasets', 'curate', 'labelers', 'filters'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert all(getattr(student, name) is not None for name in student.__all__)
    with pytest.raises(AttributeError, match="no attribute 'distill'"):
        student.distill  # noqa: B018
