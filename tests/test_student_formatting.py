"""Where a rationale stands: a task of its own, before the label, or behind the text."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from test_student_objectives import (
    ROWS,
    assert_same_gradients,
    gradients,
    loss_by_hand,
)
from tiny_student import tiny_tokenizer, untied_model

from student.batches import Formatting, collate, encode
from student.errors import InputError
from student.examples import Example
from student.formatting import check_marker, label_sources, label_targets, split_answer
from student.objectives import Denominators, label_only, multitask

FIRST = Formatting(rationale_in="target")
BEHIND = Formatting(rationale_in="input")


def ids(text: str) -> list[int]:
    found: list[int] = tiny_tokenizer()(text).input_ids
    return found


def test_the_rationale_stands_before_the_label_and_can_be_parted_again() -> None:
    row = Example(input="A dull lamp.", target="mixed feelings", rationale="It is dull.")
    encoded = encode([row], tiny_tokenizer(), FIRST, rationales=False)
    text = "It is dull. So the answer is: mixed feelings"
    assert tiny_tokenizer().decode(encoded.label_targets[0], skip_special_tokens=True) == text
    assert encoded.label_inputs[0] == ids("A dull lamp.")
    assert encoded.rationale_targets == [None]
    assert split_answer(text, FIRST.answer_marker) == ("It is dull.", "mixed feelings")
    assert split_answer("So the answer is: a. So the answer is: b", FIRST.answer_marker)[1] == "b"
    assert split_answer("It goes on and on", FIRST.answer_marker) == ("It goes on and on", None)


def test_a_long_rationale_is_cut_and_the_label_is_whole() -> None:
    tokenizer = tiny_tokenizer()
    formatting = replace(FIRST, max_rationale_tokens=6)
    found, cut = label_targets(
        ["negative", "positive"], ["dull " * 40, None], tokenizer, formatting
    )
    assert cut == {"labels": 0, "rationales": 1}
    texts = tokenizer.batch_decode(found, skip_special_tokens=True)
    assert [split_answer(text, FIRST.answer_marker)[1] for text in texts] == [
        "negative",
        "positive",
    ]
    assert texts[1] == "So the answer is: positive"  # a row without a rationale
    assert len(found[0]) - len(found[1]) == 5


def test_one_target_of_both_has_the_loss_of_that_text() -> None:
    model = untied_model()
    encoded = encode(ROWS, tiny_tokenizer(), FIRST, rationales=False)
    found = label_only(model, collate(encoded, range(3), pad_token_id=0)).total
    total, tokens = torch.zeros(()), 0.0
    for row in ROWS:
        before = f"{row.rationale} " if row.rationale else ""
        target = f"{before}So the answer is: {row.target}"
        assert ids(target) == encoded.label_targets[ROWS.index(row)]
        loss, length = loss_by_hand(model, row.input, target)
        total, tokens = total + row.weight * loss, tokens + row.weight * length
    assert found.item() == pytest.approx((total / tokens).item(), abs=1e-5)
    assert_same_gradients(gradients(model, found), gradients(model, total / tokens))


def test_the_rationale_stands_behind_the_text_and_the_text_is_cut_first() -> None:
    tokenizer = tiny_tokenizer()
    texts, reasons = ["A dull lamp.", "A lamp."], ["It is dull.", None]
    found, cut = label_sources(texts, reasons, tokenizer, BEHIND)
    assert found == [ids("A dull lamp. Rationale: It is dull."), ids("A lamp.")]
    assert cut == {"inputs": 0, "rationales": 0}
    small = replace(BEHIND, max_input_tokens=20, max_rationale_tokens=16)
    found, cut = label_sources(["A lamp. " * 20, "A lamp."], ["dull " * 20, ""], tokenizer, small)
    assert cut == {"inputs": 1, "rationales": 1}
    assert len(found[0]) == 20
    assert found[0][4:] == [*ids("Rationale: " + "dull " * 20)[:15], 1]
    assert found[0][:4] == ids("A lamp. " * 20)[:4]
    narrow = replace(BEHIND, max_input_tokens=16, max_rationale_tokens=128)
    found, cut = label_sources(["A lamp. " * 20], ["dull " * 40], tokenizer, narrow)
    assert len(found[0]) == 16
    assert cut == {"inputs": 1, "rationales": 1}
    plain, _ = label_sources(texts, reasons, tokenizer, Formatting(label_prefix="[label] "))
    assert plain == [ids("[label] A dull lamp."), ids("[label] A lamp.")]


def test_settings_come_back_from_their_own_names() -> None:
    formatting = Formatting(rationale_in="target", shared_encoder=True, answer_marker="Thus:")
    assert Formatting(**asdict(formatting)) == formatting
    check_marker("So the answer is:", tiny_tokenizer())
    for marker in ("réponse:", " Thus:", ""):
        with pytest.raises(InputError, match=r"comes back from this student's tokenizer as"):
            check_marker(marker, tiny_tokenizer())


SHARED = Formatting(label_prefix="Review: ", shared_encoder=True)


def shared_by_hand(model: Any, alpha: float, start: int) -> torch.Tensor:
    """Both tasks from one input, row by row: only the decoder's first token tells them apart."""
    sums = {"label": torch.zeros(()), "rationale": torch.zeros(())}
    tokens = {"label": 0.0, "rationale": 0.0}
    for row in ROWS:
        source = torch.tensor([ids(f"Review: {row.input}")])
        for task, text, first in (("label", row.target, 0), ("rationale", row.rationale, start)):
            if text is None:
                continue
            target = ids(text)
            decoder = torch.tensor([[first, *target[:-1]]])
            logs = model(input_ids=source, decoder_input_ids=decoder).logits[0].log_softmax(-1)
            sums[task] = sums[task] - row.weight * logs[range(len(target)), target].sum()
            tokens[task] += row.weight * len(target)
    return (
        alpha * sums["label"] / tokens["label"]
        + (1 - alpha) * sums["rationale"] / tokens["rationale"]
    )


def test_a_shared_encoder_has_the_loss_of_both_tasks_and_runs_on_each_row_once() -> None:
    model = untied_model()
    encoded = encode(ROWS, tiny_tokenizer(), SHARED, rationales=True)
    batch = collate(encoded, range(3), pad_token_id=0)
    assert batch.input_ids.shape[0] == 3
    seen: list[int] = []
    hook = model.get_encoder().register_forward_hook(lambda _, __, out: seen.append(len(out[0])))
    found = multitask(model, batch, alpha=0.3, rationale_start=1).total
    hook.remove()
    assert seen == [3]  # of its own encoder input, the rationale's task would have two rows more
    by_hand = shared_by_hand(model, 0.3, 1)
    assert found.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert_same_gradients(gradients(model, found), gradients(model, by_hand))
    other = multitask(model, batch, alpha=0.3).total
    assert abs(other.item() - found.item()) > 1e-3  # the task token is read


def test_parts_of_a_shared_step_add_up_to_the_whole() -> None:
    model = untied_model()
    encoded = encode(ROWS, tiny_tokenizer(), SHARED, rationales=True)
    parts = [collate(encoded, rows, pad_token_id=0) for rows in ([2, 0], [1])]
    denominators = Denominators.of(*parts)
    losses = [multitask(model, part, denominators, rationale_start=1).total for part in parts]
    whole = multitask(model, collate(encoded, range(3), pad_token_id=0), rationale_start=1).total
    added = torch.stack(losses).sum()
    assert whole.item() == pytest.approx(added.item(), abs=1e-5)
    assert_same_gradients(gradients(model, whole), gradients(model, added))
