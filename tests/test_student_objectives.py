"""Losses and gradients against the same numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_student import tiny_model, tiny_tokenizer, untied_model

from student.batches import IGNORED, Batch, Formatting, collate, encode
from student.examples import Example
from student.objectives import (
    Denominators,
    encoder_states,
    label_only,
    multitask,
    token_losses,
)

FORMATTING = Formatting(label_prefix="[label] ")
ROWS = [
    Example(
        input="The strap broke on day two.",
        target="negative",
        rationale="It broke at once.",
        weight=1.0,
    ),
    Example(
        input="I love the sound of this little radio, and it is easy to carry.",
        target="positive",
        rationale="The sound is lovely, so it is positive.",
        weight=0.25,
    ),
    Example(input="A dull lamp.", target="mixed feelings", rationale=None, weight=2.0),
]


def batch_of(rows: list[Example], *, rationales: bool = True) -> Batch:
    encoded = encode(rows, tiny_tokenizer(), FORMATTING, rationales=rationales)
    return collate(encoded, range(len(rows)), pad_token_id=0)


def loss_by_hand(model: Any, source: str, target: str) -> tuple[torch.Tensor, int]:
    """Sum of -log p over the target's tokens, one row at a time, without padding or masks."""
    tokenizer = tiny_tokenizer()
    source_ids = tokenizer(source, return_tensors="pt").input_ids
    target_ids = tokenizer(target, return_tensors="pt").input_ids
    shifted = torch.cat([torch.zeros(1, 1, dtype=torch.long), target_ids[:, :-1]], dim=1)
    logits = model(input_ids=source_ids, decoder_input_ids=shifted).logits[0]
    log_probs = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    total = -sum(log_probs[i, token] for i, token in enumerate(target_ids[0].tolist()))
    assert isinstance(total, torch.Tensor)
    return total, target_ids.shape[1]


def task_loss_by_hand(model: Any, rows: list[Example], task: str) -> torch.Tensor:
    """Weighted token mean: sum_i w_i sum_t -log p / sum_i w_i |y_i|."""
    total, tokens = torch.zeros(()), 0.0
    for row in rows:
        text = row.target if task == "label" else row.rationale
        if text is None:
            continue
        loss, length = loss_by_hand(model, f"[{task}] {row.input}", text)
        total = total + row.weight * loss
        tokens += row.weight * length
    return total / tokens


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert any(float(grad.abs().max()) > 1e-3 for grad in one.values())
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("build", [untied_model, tiny_model], ids=["flan", "t5 1.0"])
def test_label_loss_and_gradient_equal_the_formula(build: Any) -> None:
    model = build()
    ours = label_only(model, batch_of(ROWS, rationales=False)).total
    theirs = task_loss_by_hand(model, ROWS, "label")
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert_same_gradients(gradients(model, ours), gradients(model, theirs))


@pytest.mark.parametrize("build", [untied_model, tiny_model], ids=["flan", "t5 1.0"])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_multitask_loss_and_gradient_equal_two_separate_passes(build: Any, alpha: float) -> None:
    model = build()
    found = multitask(model, batch_of(ROWS), alpha=alpha)
    label = task_loss_by_hand(model, ROWS, "label")
    rationale = task_loss_by_hand(model, ROWS, "rationale")
    by_hand = alpha * label + (1 - alpha) * rationale
    assert found.total.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert float(found.label) == pytest.approx(label.item(), abs=1e-5)
    assert found.rationale is not None
    assert found.rationale.item() == pytest.approx(rationale.item(), abs=1e-5)
    assert_same_gradients(gradients(model, found.total), gradients(model, by_hand))


def test_the_loss_is_the_models_own_where_weights_are_one() -> None:
    model, tokenizer = untied_model(), tiny_tokenizer()
    rows = [Example(input=row.input, target=row.target) for row in ROWS]
    sources = tokenizer([f"[label] {r.input}" for r in rows], padding=True, return_tensors="pt")
    targets = tokenizer([r.target for r in rows], padding=True, return_tensors="pt").input_ids
    targets[targets == 0] = IGNORED
    own = model(
        input_ids=sources.input_ids, attention_mask=sources.attention_mask, labels=targets
    ).loss
    ours = label_only(model, batch_of(rows, rationales=False)).total
    assert ours.item() == pytest.approx(own.item(), abs=1e-5)


def test_padding_never_contributes() -> None:
    model = untied_model()
    batch = batch_of(ROWS)
    rows, width = batch.input_ids.shape
    wider = Batch(
        # More padding, and nonsense instead of the padding token: the masks must hide it.
        input_ids=torch.cat([batch.input_ids, torch.full((rows, 5), 7)], dim=1),
        attention_mask=torch.cat([batch.attention_mask, torch.zeros(rows, 5).long()], dim=1),
        label_targets=torch.cat([batch.label_targets, torch.full((3, 4), IGNORED)], dim=1),
        rationale_targets=torch.cat([batch.rationale_targets, torch.full((2, 9), IGNORED)], dim=1),
        label_weights=batch.label_weights,
        rationale_weights=batch.rationale_weights,
    )
    assert width < wider.input_ids.shape[1]
    one, two = multitask(model, batch).total, multitask(model, wider).total
    assert one.item() == pytest.approx(two.item(), abs=1e-6)
    assert_same_gradients(gradients(model, one), gradients(model, two))


def test_a_row_of_weight_zero_and_a_row_not_there_are_the_same() -> None:
    model = untied_model()
    silenced = Example(
        input=ROWS[1].input, target=ROWS[1].target, rationale=ROWS[1].rationale, weight=0.0
    )
    one = multitask(model, batch_of([ROWS[0], silenced])).total
    two = multitask(model, batch_of([ROWS[0]])).total
    assert one.item() == pytest.approx(two.item(), abs=1e-6)


def test_weights_change_the_loss_in_the_stated_proportion() -> None:
    model = untied_model()
    alone = [label_only(model, batch_of([row])).total.item() for row in ROWS[:2]]
    tokens = [int((batch_of([row]).label_targets != IGNORED).sum()) for row in ROWS[:2]]
    together = label_only(model, batch_of(ROWS[:2])).total.item()
    parts = [w * n for w, n in zip((1.0, 0.25), tokens, strict=True)]
    expected = sum(p * loss for p, loss in zip(parts, alone, strict=True)) / sum(parts)
    assert together == pytest.approx(expected, abs=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3  # else any weights would give the same


def test_rows_without_rationale_give_the_label_loss_alone() -> None:
    model = untied_model()
    found = multitask(model, batch_of([ROWS[2]]), alpha=0.3)
    label = label_only(model, batch_of([ROWS[2]])).total
    assert found.total.item() == pytest.approx(0.3 * label.item(), abs=1e-6)
    assert found.rationale is not None
    assert found.rationale.item() == 0.0


def test_parts_of_a_step_add_up_to_the_whole() -> None:
    model = untied_model()
    whole = batch_of(ROWS)
    parts = [batch_of([row]) for row in ROWS]
    denominators = Denominators.of(*parts)
    assert denominators == Denominators.of(whole)
    losses = [multitask(model, part, denominators).total for part in parts]
    one, two = multitask(model, whole).total, torch.stack(losses).sum()
    assert one.item() == pytest.approx(two.item(), abs=1e-5)
    assert_same_gradients(gradients(model, one), gradients(model, two))


def test_multitask_encodes_once_and_spares_the_head_the_padding() -> None:
    model, batch = untied_model(), batch_of(ROWS)
    encoded: list[int] = []
    headed: list[int] = []
    model.get_encoder().register_forward_hook(lambda *_: encoded.append(1))
    model.lm_head.register_forward_hook(lambda _, inputs, __: headed.append(len(inputs[0])))
    multitask(model, batch)
    assert len(encoded) == 1
    valid = [int((t != IGNORED).sum()) for t in (batch.label_targets, batch.rationale_targets)]
    assert headed == valid  # and the decoders run apart: labels are not padded to rationales
    assert batch.label_targets.numel() > valid[0]


@pytest.mark.parametrize("family", ["t5", "mt5", "umt5"])
def test_every_family_computes_its_own_logits(family: str) -> None:
    model = tiny_model(family=family)
    batch = batch_of(ROWS, rationales=False)
    states = encoder_states(model, batch.input_ids, batch.attention_mask)
    losses, rows = token_losses(model, states, batch.attention_mask, batch.label_targets)
    own = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        labels=batch.label_targets,
    )
    assert losses.mean().item() == pytest.approx(own.loss.item(), abs=1e-5)
    assert rows.tolist() == (batch.label_targets != IGNORED).nonzero()[:, 0].tolist()
    again = model(input_ids=batch.input_ids, labels=batch.label_targets)
    assert again.logits.shape[:2] == batch.label_targets.shape  # the hook on the head is gone
