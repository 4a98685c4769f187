"""Learning from the teacher's probabilities of the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from student.errors import InputError
from student.objectives import Denominators, Loss, encoder_states, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from student.batches import Batch

__all__ = ["choice_divergence", "soft_label"]


def soft_label(
    model: PreTrainedModel,
    batch: Batch,
    denominators: Denominators | None = None,
    *,
    soft_weight: float = 0.5,
    temperature: float = 1.0,
) -> Loss:
    """Distil the teacher's distribution over a closed label set, mixed with the label itself.

    L = soft_weight * L_soft + (1 - soft_weight) * L_label

    L_label is that of `label_only`, a token mean. L_soft is a mean over rows, with T = `temperature`:

    s_ij = sum_t log p(c_ijt | c_ij<t, x_i)      choice j of row i as a whole sequence, `</s>` included
    L_soft = T^2 * sum_i w_i KL(p_i^(1/T) / Z || softmax_j(s_ij / T))  /  sum_i w_i

    The student's distribution is, at T = 1, the one that `predict` gives. KL differs from cross-entropy
    only by the teacher's entropy, so both have the same gradient; KL is 0 where the two agree. T^2 keeps
    the gradients' size (Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network",
    section 2). A row without a distribution counts in L_label only.

    `batch` comes from examples encoded with `soft_labels=True`. The encoder runs once per row, the
    decoder once over all the row's choices, which gives L_label too.
    """
    if batch.choice_targets is None or batch.choice_rows is None or batch.choice_probs is None:
        raise InputError("the batch has no choices; encode the examples with soft_labels=True")
    assert batch.choice_hard is not None
    assert batch.soft_weights is not None
    denominators = denominators or Denominators.of(batch)
    rows, mask = len(batch.label_targets), batch.attention_mask
    mask = mask[:rows]
    states = encoder_states(model, batch.input_ids[:rows], mask)
    owners = batch.choice_rows
    losses, pairs = token_losses(model, states[owners], mask[owners], batch.choice_targets)
    scores = torch.zeros(len(owners), device=losses.device).index_add(0, pairs, -losses)
    label = -(scores[batch.choice_hard] * batch.label_weights).sum() / (denominators.label or 1.0)
    kl = choice_divergence(scores, batch.choice_probs, owners, rows, temperature=temperature)
    soft = temperature**2 * (kl * batch.soft_weights).sum() / (denominators.soft or 1.0)
    return Loss(
        total=soft_weight * soft + (1 - soft_weight) * label,
        label=label.detach(),
        soft=soft.detach(),
    )


def choice_divergence(
    scores: torch.Tensor,
    probs: torch.Tensor,
    owners: torch.Tensor,
    rows: int,
    *,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Return KL(teacher || student) of every row, in nats, (rows,), without the factor T^2.

    `scores`: (c,) the student's log-likelihood of every (row, choice) pair; `probs`: (c,) the teacher's
    probability, 0 allowed; `owners`: (c,) the row of each pair, 0..rows-1. Both are softened by
    `temperature` within their row.
    """
    student = _normalised(scores / temperature, owners, rows)
    # At probability 0 the log is -inf, and 0 * -inf would be NaN: such a choice adds nothing.
    teacher = _normalised(probs.log() / temperature, owners, rows)
    terms = teacher.exp() * (teacher.masked_fill(probs == 0, 0.0) - student)
    return torch.zeros(rows, device=scores.device).index_add(0, owners, terms)


def _normalised(logs: torch.Tensor, owners: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a log-softmax within each row: of (c,) unnormalised logs, by their owner."""
    top = torch.full((rows,), -torch.inf, device=logs.device)
    top = top.scatter_reduce(0, owners, logs.detach(), "amax")
    shifted = logs - top[owners]
    total = torch.zeros(rows, device=logs.device).index_add(0, owners, shifted.exp())
    return shifted - total.log()[owners]
