"""The teacher's label probabilities as a target, against the same numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_student_objectives import assert_same_gradients, gradients, loss_by_hand
from tiny_student import LABELS, tiny_model, tiny_tokenizer, untied_model

from student.batches import Batch, Formatting, collate, encode
from student.errors import InputError
from student.examples import Example, read_examples
from student.objectives import Denominators, label_only
from student.soft_labels import choice_divergence, soft_label

FORMATTING = Formatting(label_prefix="[label] ")
ROWS = [
    Example(
        input="The strap broke on day two.",
        target="negative",
        choices=("positive", "negative"),
        label_probs=(0.2, 0.8),
    ),
    Example(
        input="A lovely lamp, bright and easy to carry.",
        target="mixed feelings",
        choices=tuple(LABELS),
        label_probs=(0.5, 0.0, 0.4, 0.1),
        weight=0.25,
    ),
    Example(input="A dull lamp.", target="mixed", choices=tuple(LABELS), weight=2.0),
]


def batch_of(rows: list[Example]) -> Batch:
    encoded = encode(rows, tiny_tokenizer(), FORMATTING, rationales=False, soft_labels=True)
    return collate(encoded, range(len(rows)), pad_token_id=0)


def kl_by_hand(model: Any, row: Example, temperature: float) -> torch.Tensor:
    """KL of one row, choice by choice, from plain forward passes without padding or masks."""
    assert row.choices is not None
    assert row.label_probs is not None
    scores = [-loss_by_hand(model, f"[label] {row.input}", c)[0] for c in row.choices]
    powers = [torch.exp(score.double() / temperature) for score in scores]
    softened = [p ** (1 / temperature) for p in row.label_probs]
    total = torch.zeros(())
    for p, power in zip(softened, powers, strict=True):
        share = p / sum(softened)
        if share:
            total = total + share * (math.log(share) - torch.log(power / sum(powers)))
    return total


def loss_of_rows_by_hand(model: Any, temperature: float, soft_weight: float) -> torch.Tensor:
    hard, tokens = torch.zeros(()), 0.0
    for row in ROWS:
        loss, length = loss_by_hand(model, f"[label] {row.input}", row.target)
        hard, tokens = hard + row.weight * loss, tokens + row.weight * length
    soft = [row.weight * kl_by_hand(model, row, temperature) for row in ROWS[:2]]
    mean = temperature**2 * (soft[0] + soft[1]) / (1.0 + 0.25)
    return soft_weight * mean + (1 - soft_weight) * hard / tokens


@pytest.mark.parametrize("build", [untied_model, tiny_model], ids=["flan", "t5 1.0"])
@pytest.mark.parametrize(("temperature", "soft_weight"), [(1.0, 0.5), (3.0, 0.9), (0.5, 1.0)])
def test_loss_and_gradient_equal_the_formula(
    build: Any, temperature: float, soft_weight: float
) -> None:
    model = build()
    found = soft_label(model, batch_of(ROWS), soft_weight=soft_weight, temperature=temperature)
    by_hand = loss_of_rows_by_hand(model, temperature, soft_weight)
    assert found.total.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert_same_gradients(gradients(model, found.total), gradients(model, by_hand))


def test_without_soft_weight_it_is_the_label_loss() -> None:
    model = untied_model()
    batch = batch_of(ROWS)
    found = soft_label(model, batch, soft_weight=0.0)
    plain = label_only(model, batch)
    assert found.total.item() == pytest.approx(plain.total.item(), abs=1e-6)
    assert found.label.item() == pytest.approx(plain.label.item(), abs=1e-6)
    assert_same_gradients(gradients(model, found.total), gradients(model, plain.total))


def test_the_divergence_is_zero_where_the_teacher_agrees_with_the_student() -> None:
    scores = torch.tensor([-1.0, -3.0, -0.5, -0.5, -4.0])
    owners = torch.tensor([0, 0, 1, 1, 1])
    same = torch.cat([scores[:2].softmax(0), scores[2:].softmax(0)])
    assert choice_divergence(scores, same, owners, 2).abs().max() < 1e-6
    other = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    expected = [-float(scores[:2].log_softmax(0)[0]), -float(scores[2:].log_softmax(0)[2])]
    found = choice_divergence(scores, other, owners, 2)  # -log q of the one choice that is certain
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_encoder_runs_once_per_row_and_the_decoder_once() -> None:
    model, batch = untied_model(), batch_of(ROWS)
    encoded: list[int] = []
    decoded: list[int] = []
    model.get_encoder().register_forward_hook(lambda _, __, out: encoded.append(len(out[0])))
    model.get_decoder().register_forward_hook(lambda _, __, out: decoded.append(len(out[0])))
    soft_label(model, batch)
    assert (encoded, decoded) == ([3], [2 + 4 + 1])


def test_parts_of_a_step_add_up_to_the_whole() -> None:
    model = untied_model()
    parts = [batch_of(ROWS[:1]), batch_of(ROWS[1:])]
    denominators = Denominators.of(*parts)
    whole = soft_label(model, batch_of(ROWS), temperature=2.0).total
    added = torch.stack(
        [soft_label(model, part, denominators, temperature=2.0).total for part in parts]
    ).sum()
    assert denominators.soft == 1.25
    assert whole.item() == pytest.approx(added.item(), abs=1e-5)
    assert_same_gradients(gradients(model, whole), gradients(model, added))


def test_a_choice_listed_twice_has_both_probabilities() -> None:
    twice = Example(
        input="A lamp.",
        target="positive",
        choices=("positive", "negative", "positive"),
        label_probs=(0.3, 0.5, 0.2),
    )
    once = Example(
        input="A lamp.",
        target="positive",
        choices=("positive", "negative"),
        label_probs=(0.5, 0.5),
    )
    model = untied_model()
    one, two = (soft_label(model, batch_of([row])).total.item() for row in (twice, once))
    assert one == pytest.approx(two, abs=1e-6)


def test_label_probs_are_read_and_null_is_no_distribution() -> None:
    rows = [
        {"input": "a", "label": "x", "choices": ["x", "y"], "label_probs": [0.25, 0.75]},
        {"input": "b", "label": "y", "choices": ["x", "y"], "label_probs": None},
    ]
    examples, _ = read_examples(rows)
    assert examples[0].label_probs == (0.25, 0.75)
    batch = batch_of(examples)
    assert batch.soft_weights is not None
    assert batch.soft_weights.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([0.5, 0.2, 0.3], "has 3 label_probs for 2 choices"),
        ([0.5, 0.2], r"label_probs \[0.5, 0.2\]; they must be probabilities that add up to 1"),
        ([1.5, -0.5], "must be probabilities"),
        (["a", "b"], "must be probabilities"),
        ([float("nan"), 1.0], "must be probabilities"),
        ("0.5", "has 1 label_probs for 2 choices"),
    ],
)
def test_what_is_no_distribution_is_named(probs: Any, message: str) -> None:
    row = {"input": "A lamp.", "label": "x", "choices": ["x", "y"], "label_probs": probs}
    examples, _ = read_examples([row])
    with pytest.raises(InputError, match=r"the row 'A lamp.' " + message + "|" + message):
        batch_of(examples)


def test_a_label_outside_the_distribution_is_named() -> None:
    row = Example(input="A lamp.", target="z", choices=("x", "y"), label_probs=(0.5, 0.5))
    with pytest.raises(InputError, match=r"label 'z' of the row 'A lamp.' is not among"):
        batch_of([row])
