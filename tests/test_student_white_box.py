"""A teacher whose token probabilities are seen: divergences, loss, sampling, mismatches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_student_objectives import (
    FORMATTING,
    ROWS,
    assert_same_gradients,
    batch_of,
    gradients,
)
from tiny_student import tiny_model, tiny_tokenizer, untied_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from student.batches import IGNORED, collate, encode
from student.divergences import TeacherTokens, divergence, on_teachers_tokens, top_tokens
from student.errors import InputError
from student.objectives import Denominators, label_only
from student.white_box import (
    WhiteBox,
    check_same_tokenizer,
    live_teacher,
    sample_targets,
    trained_teacher,
    white_box_loss,
)


def random_logs(seed: int, shape: tuple[int, ...] = (6, 11)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64).log_softmax(-1)


def by_the_book(p: list[float], q: list[float], kind: str, beta: float) -> float:
    def kl(a: list[float], b: list[float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    if kind == "forward_kl":
        return kl(p, q)
    if kind == "reverse_kl":
        return kl(q, p)
    m = [beta * x + (1 - beta) * y for x, y in zip(p, q, strict=True)]
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_divergences_equal_their_sums(kind: str, beta: float) -> None:
    p, q = random_logs(1), random_logs(2)
    found = divergence(p, q, kind=kind, beta=beta)
    expected = [
        by_the_book(a.exp().tolist(), b.exp().tolist(), kind, beta)
        for a, b in zip(p, q, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert (found > 0).all()
    assert divergence(p, p, kind=kind, beta=beta).abs().max() < 1e-12


def test_jsd_tends_to_both_divergences_and_is_symmetric_and_bounded_at_a_half() -> None:
    p, q = random_logs(1), random_logs(2)
    near = 1e-6
    low = divergence(p, q, kind="jsd", beta=near) / near
    high = divergence(p, q, kind="jsd", beta=1 - near) / near
    torch.testing.assert_close(low, divergence(p, q), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(high, divergence(p, q, kind="reverse_kl"), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(divergence(p, q, kind="jsd"), divergence(q, p, kind="jsd"))
    far = torch.tensor([[0.0, -80.0], [-80.0, 0.0]], dtype=torch.float64)
    apart = divergence(far[:1], far[1:], kind="jsd")
    assert apart.item() == pytest.approx(math.log(2), abs=1e-9)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_the_top_tokens_give_a_lower_bound_that_grows_to_the_whole(kind: str) -> None:
    teacher, student = random_logs(3), random_logs(4)
    whole = divergence(
        *on_teachers_tokens(student, _whole(teacher, 2.0), temperature=2.0), kind=kind
    )
    before = torch.zeros(6, dtype=torch.float64)
    for k in (1, 3, 7, 10, 11):
        told = top_tokens(teacher, k, temperature=2.0)
        log_p, log_q = on_teachers_tokens(student, told, temperature=2.0)
        assert log_p.shape[-1] == min(k + 1, 11)
        assert log_p.exp().sum(-1).tolist() == pytest.approx([1.0] * 6)  # no mass is dropped
        assert log_q.exp().sum(-1).tolist() == pytest.approx([1.0] * 6)
        found = divergence(log_p, log_q, kind=kind)
        assert (found <= whole + 1e-12).all()
        before = found
    torch.testing.assert_close(before, whole)


def _whole(logits: torch.Tensor, temperature: float) -> TeacherTokens:
    return TeacherTokens(log_probs=(logits / temperature).log_softmax(-1))


def logits_by_hand(model: Any, source: str, target: list[int]) -> torch.Tensor:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(source, return_tensors="pt").input_ids
    decoder = torch.tensor([[0, *target[:-1]]])
    logits: torch.Tensor = model(input_ids=ids, decoder_input_ids=decoder).logits[0]
    return logits


def soft_by_hand(
    model: Any, teacher: Any, targets: list[list[int]], kind: str, temperature: float
) -> torch.Tensor:
    """T^2 times the weighted token mean of the divergence, row by row and token by token."""
    total, tokens = torch.zeros(()), 0.0
    for row, target in zip(ROWS, targets, strict=True):
        source = f"[label] {row.input}"
        with torch.no_grad():
            p = torch.softmax(logits_by_hand(teacher, source, target) / temperature, -1)
        q = torch.softmax(logits_by_hand(model, source, target) / temperature, -1)
        m = 0.3 * p + 0.7 * q
        apart = {
            "forward_kl": (p * (p / q).log()).sum(-1),
            "reverse_kl": (q * (q / p).log()).sum(-1),
            "jsd": 0.3 * (p * (p / m).log()).sum(-1) + 0.7 * (q * (q / m).log()).sum(-1),
        }[kind]
        total = total + row.weight * apart.sum()
        tokens += row.weight * len(target)
    return temperature**2 * total / tokens


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize(("temperature", "soft_weight"), [(1.0, 1.0), (2.0, 0.4)])
def test_loss_and_gradient_equal_the_formula(
    kind: str, temperature: float, soft_weight: float
) -> None:
    model, teacher = untied_model(), untied_model(seed=7, num_layers=3)
    batch = batch_of(ROWS, rationales=False)
    found = white_box_loss(
        model,
        batch,
        teacher=live_teacher(teacher, temperature=temperature),
        kind=kind,
        beta=0.3,
        temperature=temperature,
        soft_weight=soft_weight,
    )
    targets = [tiny_tokenizer()(row.target).input_ids for row in ROWS]
    soft = soft_by_hand(model, teacher, targets, kind, temperature)
    by_hand = soft_weight * soft + (1 - soft_weight) * label_only(model, batch).total
    assert found.total.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert found.soft is not None
    assert found.soft.item() == pytest.approx(soft.item(), abs=1e-5)
    assert_same_gradients(gradients(model, found.total), gradients(model, by_hand))
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_teacher_equal_to_the_student_adds_nothing() -> None:
    model = untied_model()
    batch = batch_of(ROWS, rationales=False)
    for kind in ("forward_kl", "reverse_kl", "jsd"):
        found = white_box_loss(
            model, batch, teacher=live_teacher(model), kind=kind, soft_weight=1.0
        )
        assert abs(found.total.item()) < 1e-6
        largest = max(float(grad.abs().max()) for grad in gradients(model, found.total).values())
        assert largest < 1e-6


def test_parts_of_a_step_add_up_to_the_whole() -> None:
    model, teacher = untied_model(), live_teacher(untied_model(seed=7))
    batch = batch_of(ROWS, rationales=False)
    parts = [batch_of([row], rationales=False) for row in ROWS]
    denominators = Denominators.of(*parts)
    added = torch.stack(
        [white_box_loss(model, part, denominators, teacher=teacher).total for part in parts]
    ).sum()
    whole = white_box_loss(model, batch, teacher=teacher).total
    assert whole.item() == pytest.approx(added.item(), abs=1e-5)
    assert_same_gradients(gradients(model, whole), gradients(model, added))


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_sampled_sequences_are_judged_and_labels_still_learnt(kind: str) -> None:
    model, teacher = untied_model(), untied_model(seed=7)
    batch = batch_of(ROWS, rationales=False)
    torch.manual_seed(3)
    sampled = sample_targets(model, batch, share=1.0, end=1, pad=0, max_tokens=9)
    assert sampled.sampled_targets is not None
    written = [[t for t in row if t != IGNORED] for row in sampled.sampled_targets.tolist()]
    assert written != [tiny_tokenizer()(row.target).input_ids for row in ROWS]
    assert all(1 <= len(row) <= 9 and 1 not in row[:-1] for row in written)
    found = white_box_loss(
        model, sampled, teacher=live_teacher(teacher, temperature=1.0), kind=kind, temperature=1.0
    )
    soft = soft_by_hand(model, teacher, written, kind, 1.0)
    by_hand = 0.5 * soft + 0.5 * label_only(model, batch).total
    assert found.total.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert_same_gradients(gradients(model, found.total), gradients(model, by_hand))
    parts = [
        _part(sampled, row) for row in range(len(ROWS))
    ]  # the denominators count sampled tokens apart from the labels'
    denominators = Denominators.of(*parts)
    assert denominators == Denominators.of(sampled)
    assert denominators.sampled != denominators.label


def _part(batch: Any, row: int) -> Any:
    one = {
        name: tensor[row : row + 1]
        for name, tensor in vars(batch).items()
        if tensor is not None and len(tensor) == len(ROWS)
    }
    empty = {"rationale_targets": batch.rationale_targets, "rationale_weights": torch.zeros(0)}
    return type(batch)(**(one | empty))


def test_sampling_is_repeatable_takes_its_share_and_keeps_the_label_elsewhere() -> None:
    model = untied_model(dropout_rate=0.3).train()
    encoded = encode(ROWS * 20, tiny_tokenizer(), FORMATTING, rationales=False)
    batch = collate(encoded, range(60), pad_token_id=0)

    def draw(seed: int, share: float) -> torch.Tensor:
        torch.manual_seed(seed)
        found = sample_targets(model, batch, share=share, end=1, pad=0, max_tokens=4)
        assert found.sampled_targets is not None
        return found.sampled_targets

    assert torch.equal(draw(1, 0.5), draw(1, 0.5))
    assert not torch.equal(draw(1, 1.0), draw(2, 1.0))
    assert torch.equal(draw(1, 0.0), batch.label_targets)
    same = (draw(1, 0.5) == batch.label_targets).all(dim=1)
    assert 15 <= int(same.sum()) <= 45
    assert model.training


def test_a_teacher_trained_along_learns_its_labels_and_nothing_else() -> None:
    model, teacher = untied_model(), untied_model(seed=7)
    batch = batch_of(ROWS, rationales=False)
    found = white_box_loss(model, batch, teacher=trained_teacher(teacher)).total
    own = label_only(teacher, batch).total
    plain = white_box_loss(model, batch, teacher=live_teacher(teacher)).total
    assert found.item() == pytest.approx(plain.item() + own.item(), abs=1e-5)
    expected = gradients(teacher, own)
    teacher.zero_grad()
    students = gradients(model, found)
    of_teacher = {n: p.grad for n, p in teacher.named_parameters() if p.grad is not None}
    assert_same_gradients(of_teacher, expected)
    assert_same_gradients(students, gradients(model, plain))


def test_a_teacher_of_another_tokenizer_is_refused() -> None:
    model, tokenizer = untied_model(), tiny_tokenizer()
    texts = ["The strap broke on day two."]
    check_same_tokenizer(untied_model(seed=3).config, tokenizer, model.config, tokenizer, texts)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -1.0)]
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=2)),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    with pytest.raises(InputError, match=r"do not share a tokenizer: they have 4 and \d+ tokens"):
        check_same_tokenizer(model.config, other, model.config, tokenizer, texts)
    wide = tiny_model(vocab_size=200)
    with pytest.raises(InputError, match=r"their heads have 200 and 192 outputs.*student\.shrink"):
        check_same_tokenizer(wide.config, tokenizer, model.config, tokenizer, texts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divergence": "kl"}, "divergence='kl'; it must be one of forward_kl, reverse_kl, jsd"),
        ({"beta": 1.0}, "beta=1.0; .*divergence='forward_kl'"),
        ({"on_policy": 1.5}, "on_policy=1.5; it must be between 0 and 1"),
        ({"top_k": 0}, "top_k=0; it must be a whole number"),
        ({"on_policy": 0.5, "cache": "c"}, "cannot be asked beforehand"),
        ({"train_teacher": True, "cache": "c"}, "leave out cache"),
        ({"train_teacher": True, "on_policy": 0.5}, "set on_policy to 0"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WhiteBox(teacher="large", **changes)
