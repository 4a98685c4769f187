"""Scored labels and greedy text, against the same worked out one sequence at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_student import COMPLAINTS, LABELS, PRAISE, review_rows, tiny_folder, tiny_tokenizer

import student

TEXTS = [*PRAISE, *COMPLAINTS, "A lamp."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student trained for a moment on free text, so that nothing closes its label set."""
    place = tmp_path_factory.mktemp("students")
    rows = [row | {"choices": None} for row in review_rows()]
    base = tiny_folder(place / "base")
    student.train(
        rows,
        model=base,
        output=place / "student",
        epochs=12,
        batch_size=8,
        learning_rate=2e-2,
        schedule="constant",
        precision="fp32",
        max_label_tokens=16,
    )
    return place / "student"


def log_probability(network: Any, text: str, label: str) -> float:
    """log p(label, </s> | text), from the plain forward pass of one pair."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(f"[label] {text}", return_tensors="pt").input_ids
    target = tokenizer(label, return_tensors="pt").input_ids
    shifted = torch.cat([torch.zeros(1, 1, dtype=torch.long), target[:, :-1]], dim=1)
    with torch.no_grad():
        logits = network(input_ids=ids, decoder_input_ids=shifted).logits[0]
    chosen = logits.log_softmax(-1)[torch.arange(target.shape[1]), target[0]]
    return float(chosen.sum())


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def test_probabilities_are_those_of_whole_label_sequences(folder: Path) -> None:
    loaded = student.load(folder)
    # "mixed" begins "mixed feelings", and lengths run from two tokens to eleven.
    found = student.predict(loaded, TEXTS, choices=LABELS, precision="fp32", batch_size=4)
    for text, row in zip(TEXTS, found.itertuples(), strict=True):
        by_hand = softmax([log_probability(loaded.network, text, label) for label in LABELS])
        assert row.label_probs == pytest.approx(by_hand, abs=1e-5)
        assert row.prediction == LABELS[by_hand.index(max(by_hand))]
        assert row.confidence == pytest.approx(max(by_hand), abs=1e-5)
    assert list(found.columns) == ["prediction", "confidence", "label_probs", "error"]


def test_choices_may_differ_from_row_to_row(folder: Path) -> None:
    loaded = student.load(folder)
    choices = [LABELS[: 2 + i % 3] for i in range(len(TEXTS))]
    choices[0] = ["negative", "mixed feelings"]
    found = student.predict(loaded, TEXTS, choices=choices, precision="fp32", batch_size=4)
    for text, options, row in zip(TEXTS, choices, found.itertuples(), strict=True):
        by_hand = softmax([log_probability(loaded.network, text, label) for label in options])
        assert row.label_probs == pytest.approx(by_hand, abs=1e-5)
    assert found["prediction"][0] in ("negative", "mixed feelings")


def test_batches_and_order_change_nothing(folder: Path) -> None:
    loaded = student.load(folder)
    together = student.predict(loaded, TEXTS, choices=LABELS, precision="fp32", batch_size=9)
    for place, text in enumerate(TEXTS):
        alone = student.predict(loaded, [text], choices=LABELS, precision="fp32")
        assert alone["label_probs"][0] == pytest.approx(together["label_probs"][place], abs=1e-5)


def test_the_students_own_label_set_is_the_default(folder: Path, tmp_path: Path) -> None:
    student.train(review_rows(), model=folder, output=tmp_path / "s", objective="label", epochs=1)
    found = student.predict(tmp_path / "s", TEXTS)
    assert {len(probs) for probs in found["label_probs"]} == {2}
    assert set(found["prediction"]) <= {"positive", "negative"}


def test_without_choices_it_writes_text(folder: Path) -> None:
    loaded = student.load(folder)
    found = student.predict(loaded, TEXTS, precision="fp32", batch_size=4)
    assert found["prediction"].tolist()[:8] == ["positive"] * 4 + ["negative"] * 4
    assert found["label_probs"].isna().all()
    expected = log_probability(loaded.network, TEXTS[0], "positive") / 2  # the word and </s>
    assert found["confidence"][0] == pytest.approx(expected, abs=1e-5)
    by_model = loaded.network.generate(
        **tiny_tokenizer()(f"[label] {TEXTS[8]}", return_tensors="pt"), max_new_tokens=16
    )
    text = tiny_tokenizer().decode(by_model[0], skip_special_tokens=True).strip()
    assert found["prediction"][8] == text


def test_a_written_answer_outside_the_choices_is_no_answer(folder: Path) -> None:
    found = student.predict(
        folder, [*PRAISE, *COMPLAINTS], choices=["Positive", "other"], method="generate"
    )
    assert found["prediction"].tolist() == ["Positive"] * 4 + [None] * 4


def test_progress_counts_rows_and_an_empty_list_gives_an_empty_table(folder: Path) -> None:
    seen: list[Any] = []
    student.predict(folder, TEXTS, choices=LABELS, batch_size=4, on_progress=seen.append)
    assert seen == [{"done": n, "total": 9} for n in (4, 8, 9)]
    empty = student.predict(folder, [])
    assert list(empty.columns) == ["prediction", "confidence", "label_probs", "error"]
    assert len(empty) == 0


def test_bf16_answers_stay_close_to_fp32(folder: Path) -> None:
    one = student.predict(folder, TEXTS, choices=LABELS, precision="fp32")
    two = student.predict(folder, TEXTS, choices=LABELS, precision="bf16")
    for left, right in zip(one["label_probs"], two["label_probs"], strict=True):
        assert left == pytest.approx(right, abs=0.1)


def test_a_plain_t5_folder_predicts_without_prefix(tmp_path: Path) -> None:
    loaded = student.load(tiny_folder(tmp_path / "plain"))
    assert loaded.labels is None
    assert loaded.formatting.label_prefix == ""
    assert len(student.predict(loaded, ["A lamp."], choices=["positive", "negative"])) == 1


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("one text", {}, "inputs is one text"),
        (["a", None], {}, "input 1 is None"),
        (["a"], {"method": "score"}, "method='score' needs choices"),
        (["a"], {"method": "beam"}, "method='beam' is not known"),
        (["a"], {"choices": []}, "give a list of labels"),
        (["a"], {"choices": "positive"}, "give a list of labels"),
        (["a", "b"], {"choices": [["x", "y"]]}, "1 choice lists for 2 inputs"),
        (["a", "b"], {"choices": [["x", "y"], []]}, "input 1: choices are"),
        (
            ["a"],
            {"choices": ["né", "nó"]},
            "'né' and 'nó' are the same to this student's tokenizer",
        ),
        (["a"], {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_input_is_named(
    folder: Path, inputs: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(student.InputError, match=message):
        student.predict(folder, inputs, **options)


def test_a_broken_settings_file_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text("{")
    with pytest.raises(student.CheckpointError, match=r"student.json cannot be read"):
        student.load(tmp_path)
