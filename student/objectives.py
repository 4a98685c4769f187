"""Training objectives: what is minimised, one function each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutput

from student.batches import IGNORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Denominators",
    "Loss",
    "encoder_states",
    "label_only",
    "multitask",
    "token_losses",
    "token_weight",
]


@dataclass(frozen=True, kw_only=True)
class Denominators:
    """What the summed token losses are divided by: the weighted number of target tokens.

    With gradient accumulation these are the totals of the whole effective batch, so that the
    gradients of its parts add up to the gradient of one large batch.
    """

    label: float
    rationale: float

    @classmethod
    def of(cls, *batches: Batch) -> Denominators:
        """Count the weighted tokens of the batches that make up one optimizer step."""
        return cls(
            label=sum(token_weight(b.label_targets, b.label_weights) for b in batches),
            rationale=sum(token_weight(b.rationale_targets, b.rationale_weights) for b in batches),
        )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """`total` carries the gradient; `label` and `rationale` are its detached parts, in nats."""

    total: torch.Tensor
    label: torch.Tensor
    rationale: torch.Tensor | None = None

    def parts(self) -> tuple[float, float, float]:
        """Return total, label and rationale (0 where the objective has none) as numbers."""
        rationale = 0.0 if self.rationale is None else float(self.rationale)
        return float(self.total.detach()), float(self.label), rationale


def label_only(
    model: PreTrainedModel, batch: Batch, denominators: Denominators | None = None
) -> Loss:
    """Standard fine-tuning (target gold) or standard distillation (target the teacher's label).

    L = sum_i w_i sum_t -log p(y_it | y_i<t, x_i)  /  sum_i w_i |y_i|

    with w_i the row's weight and |y_i| its target tokens, the closing `</s>` included: the token
    mean of Hsieh et al. 2023, "Distilling Step-by-Step!", section 3.2, weighted.
    """
    denominators = denominators or Denominators.of(batch)
    rows = len(batch.label_targets)
    mask = batch.attention_mask[:rows]
    states = encoder_states(model, batch.input_ids[:rows], mask)
    loss = _weighted_sum(model, states, mask, batch.label_targets, batch.label_weights)
    loss = loss / (denominators.label or 1.0)
    return Loss(total=loss, label=loss.detach())


def multitask(
    model: PreTrainedModel,
    batch: Batch,
    denominators: Denominators | None = None,
    *,
    alpha: float = 0.5,
) -> Loss:
    """Distilling step-by-step: predict the label, and separately write the rationale.

    L = alpha * L_label + (1 - alpha) * L_rationale

    each a weighted token mean with its own denominator. Source: Hsieh et al. 2023, section 3.2,
    which writes L_label + lambda * L_rationale; alpha is the form of the authors' code, 0.5 there.
    The two tasks differ by their prefix. A row without a rationale counts in L_label only.

    Both tasks' inputs go through the encoder in one call. The decoders run apart, so that
    labels are not padded to the length of rationales.
    """
    denominators = denominators or Denominators.of(batch)
    rows, mask = len(batch.label_targets), batch.attention_mask
    states = encoder_states(model, batch.input_ids, mask)
    label = _weighted_sum(
        model, states[:rows], mask[:rows], batch.label_targets, batch.label_weights
    )
    label = label / (denominators.label or 1.0)
    rationale = torch.zeros_like(label)
    if len(batch.rationale_targets):
        rationale = _weighted_sum(
            model, states[rows:], mask[rows:], batch.rationale_targets, batch.rationale_weights
        )
        rationale = rationale / (denominators.rationale or 1.0)
    return Loss(
        total=alpha * label + (1 - alpha) * rationale,
        label=label.detach(),
        rationale=rationale.detach(),
    )


def token_weight(targets: torch.Tensor, weights: torch.Tensor) -> float:
    """Return sum_i w_i |y_i|: target tokens that are not padding, counted by their row's weight."""
    return float(((targets != IGNORED).sum(dim=1) * weights).sum())


def encoder_states(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Run the encoder: (rows, source length) ids to (rows, source length, width) states."""
    encoder: Any = model.get_encoder()
    states: torch.Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
    return states


def token_losses(
    model: PreTrainedModel,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    targets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -log p of every target token that is not padding, and the row each belongs to.

    `states`: (rows, source length, width) from the encoder; `targets`: (rows, target length), padded
    with -100. Both results have one entry per valid token, row by row. The vocabulary head, the
    widest matrix of a small T5, sees valid tokens only.
    """
    valid = targets != IGNORED
    start = torch.full_like(targets[:, :1], int(model.config.decoder_start_token_id))
    shifted = torch.cat([start, targets[:, :-1]], dim=1)
    network: Any = model
    with _head_sees(model, valid):
        logits = network(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=attention_mask,
            # What follows a row's last token is never read, so any id in the vocabulary will do.
            decoder_input_ids=shifted.masked_fill(shifted == IGNORED, 0),
            use_cache=False,
        ).logits
    losses = F.cross_entropy(logits.float(), targets[valid], reduction="none")
    return losses, valid.nonzero()[:, 0]


def _weighted_sum(
    model: PreTrainedModel,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    losses, rows = token_losses(model, states, attention_mask, targets)
    return (losses * weights[rows]).sum()


@contextmanager
def _head_sees(model: PreTrainedModel, valid: torch.Tensor) -> Iterator[None]:
    """Hand the head only the places marked in `valid`.

    A hook instead of a head of our own: whether the decoder's output is scaled before the head
    differs between T5, T5 v1.1 and mT5, and between versions of transformers; the model knows.
    """
    network: Any = model
    head = network.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][valid],))
    try:
        yield
    finally:
        hook.remove()
