"""Training objectives: what is minimised, one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    "OBJECTIVES",
    "Denominators",
    "Loss",
    "Objective",
    "encoder_states",
    "label_only",
    "multitask",
    "token_logits",
    "token_losses",
    "token_weight",
]

OBJECTIVES = (
    "multitask",
    "label",
    "rationale_then_label",
    "rationale_as_input",
    "soft_label",
    "white_box",
)


@dataclass(frozen=True, kw_only=True)
class Denominators:
    """What the summed token losses are divided by: the weighted number of target tokens.

    `soft` is the weighted number of rows that have a soft label, `sampled` that of the tokens on which
    a white-box teacher is asked where the student wrote some of them itself.

    With gradient accumulation these are the totals of the whole effective batch, so that the
    gradients of its parts add up to the gradient of one large batch.
    """

    label: float
    rationale: float
    soft: float = 0.0
    sampled: float = 0.0

    @classmethod
    def of(cls, *batches: Batch) -> Denominators:
        """Count the weighted tokens of the batches that make up one optimizer step."""
        return cls(
            label=sum(token_weight(b.label_targets, b.label_weights) for b in batches),
            rationale=sum(token_weight(b.rationale_targets, b.rationale_weights) for b in batches),
            soft=sum(float(b.soft_weights.sum()) for b in batches if b.soft_weights is not None),
            sampled=sum(
                token_weight(b.sampled_targets, b.label_weights)
                for b in batches
                if b.sampled_targets is not None
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """`total` carries the gradient; the others are its detached parts, in nats.

    `soft` is the divergence from the teacher's distribution.
    """

    total: torch.Tensor
    label: torch.Tensor
    rationale: torch.Tensor | None = None
    soft: torch.Tensor | None = None

    def parts(self) -> tuple[float, float, float, float]:
        """Return total, label, rationale and soft (0 where the objective has none) as numbers."""
        rationale = 0.0 if self.rationale is None else float(self.rationale)
        soft = 0.0 if self.soft is None else float(self.soft)
        return float(self.total.detach()), float(self.label), rationale, soft


Objective = Callable[["PreTrainedModel", Batch, Denominators | None], Loss]
"""What is minimised: of the network, a batch, and the denominators of the whole step."""


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
    rationale_start: int | None = None,
) -> Loss:
    """Distilling step-by-step: predict the label, and separately write the rationale.

    L = alpha * L_label + (1 - alpha) * L_rationale

    each a weighted token mean with its own denominator. Source: Hsieh et al. 2023, section 3.2,
    which writes L_label + lambda * L_rationale; alpha is the form of the authors' code, 0.5 there.
    The two tasks differ by their prefix. A row without a rationale counts in L_label only.

    Both tasks' inputs go through the encoder in one call. The decoders run apart, so that
    labels are not padded to the length of rationales. Where the tasks share the encoder (a batch of
    `shared_encoder` examples) there is one input for both, and the rationale's decoder starts from
    `rationale_start`, the task token, instead of the usual start token.
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
        sources = batch.rationale_sources
        place: Any = slice(rows, None) if sources is None else sources
        rationale = _weighted_sum(
            model,
            states[place],
            mask[place],
            batch.rationale_targets,
            batch.rationale_weights,
            start=rationale_start,
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
    *,
    start: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -log p of every target token that is not padding, and the row each belongs to.

    `states`: (rows, source length, width) from the encoder; `targets`: (rows, target length), padded
    with -100. Both results have one entry per valid token, row by row. `start` is the decoder's first
    token, by default the model's own.
    """
    logits, rows = token_logits(model, states, attention_mask, targets, start=start)
    return F.cross_entropy(logits, targets[targets != IGNORED], reduction="none"), rows


def token_logits(
    model: PreTrainedModel,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    targets: torch.Tensor,
    *,
    start: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the fp32 logits (valid tokens, vocabulary) of every target token, and each one's row.

    Arguments as for `token_losses`. The vocabulary head, the widest matrix of a small T5, sees valid
    tokens only.
    """
    valid = targets != IGNORED
    first = int(model.config.decoder_start_token_id) if start is None else start
    shifted = torch.cat([torch.full_like(targets[:, :1], first), targets[:, :-1]], dim=1)
    network: Any = model
    with _head_sees(model, valid):
        logits = network(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=attention_mask,
            # What follows a row's last token is never read, so any id in the vocabulary will do.
            decoder_input_ids=shifted.masked_fill(shifted == IGNORED, 0),
            use_cache=False,
        ).logits
    return logits.float(), valid.nonzero()[:, 0]


def _weighted_sum(
    model: PreTrainedModel,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    start: int | None = None,
) -> torch.Tensor:
    losses, rows = token_losses(model, states, attention_mask, targets, start=start)
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
