"""Distilling from a larger T5 whose token probabilities can be seen: objective, teachers, sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutput

from student.batches import IGNORED, Batch
from student.divergences import (
    DIVERGENCES,
    TeacherTokens,
    divergence,
    on_teachers_tokens,
)
from student.errors import InputError
from student.objectives import Denominators, Loss, encoder_states, token_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Teacher",
    "WhiteBox",
    "check_same_tokenizer",
    "live_teacher",
    "sample_targets",
    "trained_teacher",
    "white_box_loss",
]

Teacher = Callable[[Batch, torch.Tensor], TeacherTokens]
"""Of a batch and targets (rows, length), the distribution at each target token, row by row."""


@dataclass(frozen=True, kw_only=True)
class WhiteBox:
    """From which T5 to distil, and how; the argument `white_box` of `train`.

    `teacher` is a folder or Hub id of a T5 with the student's tokenizer, fine-tuned on the task.
    `divergence` is "forward_kl", "reverse_kl" or "jsd" (with `beta`, above 0 and below 1).
    `on_policy` is the share of rows, from 0 to 1, for which the teacher judges a sequence that the
    student itself has just sampled, instead of the label.

    The teacher runs along with the student, unless one of these says otherwise: `cache`, a folder
    where the teacher's `top_k` most probable tokens of every place are written once and read from then
    on; `train_teacher`, which trains the teacher on the same batches as the student learns from it.
    """

    teacher: str | Path
    divergence: str = "forward_kl"
    beta: float = 0.5
    on_policy: float = 0.0
    cache: str | Path | None = None
    top_k: int = 64
    train_teacher: bool = False

    def __post_init__(self) -> None:
        """Raise `InputError` for a value, or two values together, that cannot work."""
        if self.divergence not in DIVERGENCES:
            raise InputError(
                f"divergence={self.divergence!r}; it must be one of {', '.join(DIVERGENCES)}"
            )
        if not 0 < self.beta < 1:
            raise InputError(
                f"beta={self.beta!r}; it must be above 0 and below 1, where jsd vanishes. The limits are "
                "divergence='forward_kl' (0) and 'reverse_kl' (1)"
            )
        if not 0 <= self.on_policy <= 1:
            raise InputError(f"on_policy={self.on_policy!r}; it must be between 0 and 1")
        if type(self.top_k) is not int or self.top_k < 1:
            raise InputError(f"top_k={self.top_k!r}; it must be a whole number, at least 1")
        if self.on_policy and self.cache is not None:
            raise InputError(
                f"on_policy={self.on_policy} and a cache: what the student will sample cannot be asked "
                "beforehand; leave out cache, or set on_policy to 0"
            )
        if self.train_teacher and (self.cache is not None or self.on_policy):
            raise InputError(
                "train_teacher learns from the labels, batch by batch: leave out cache, and set on_policy "
                "to 0; or train the teacher first"
            )


def white_box_loss(
    model: PreTrainedModel,
    batch: Batch,
    denominators: Denominators | None = None,
    *,
    teacher: Teacher,
    kind: str = "forward_kl",
    beta: float = 0.5,
    temperature: float = 2.0,
    soft_weight: float = 0.5,
) -> Loss:
    """Distil a teacher's distribution over the next token, mixed with the label itself.

    L = soft_weight * L_soft + (1 - soft_weight) * L_label  [+ L_teacher]

    L_label is that of `label_only`. With T = `temperature`, z the logits, over valid tokens only:

    L_soft = T^2 * sum_i w_i sum_t D(softmax(z_teacher,it / T), softmax(z_student,it / T))
             / sum_i w_i |y_i|

    D is `divergence`. T^2 keeps the gradients' size (Hinton, Vinyals and Dean 2015); on the label's own
    tokens this is word-level distillation (Kim and Rush 2016, "Sequence-Level Knowledge Distillation").
    Where the batch has `sampled_targets` (`sample_targets`), y are those in L_soft: distilling on the
    student's own sequences, with no gradient through the sampling, as in GKD (Agarwal et al. 2024);
    MiniLLM (Gu et al. 2024) adds a policy gradient for it. The student's encoder runs once either way.
    L_teacher, the teacher's own token mean, is there where it is trained along; no gradient passes from
    the student's loss into the teacher.
    """
    denominators = denominators or Denominators.of(batch)
    rows = len(batch.label_targets)
    mask = batch.attention_mask[:rows]
    states = encoder_states(model, batch.input_ids[:rows], mask)
    logits, owners = token_logits(model, states, mask, batch.label_targets)
    weights = batch.label_weights[owners]
    hard = F.cross_entropy(
        logits, batch.label_targets[batch.label_targets != IGNORED], reduction="none"
    )
    per_token = denominators.label or 1.0
    label = (hard * weights).sum() / per_token
    targets = batch.label_targets
    if batch.sampled_targets is not None:
        targets = batch.sampled_targets
        logits, owners = token_logits(model, states, mask, targets)
        weights = batch.label_weights[owners]
        per_token = denominators.sampled or 1.0
    told = teacher(batch, targets)
    log_p, log_q = on_teachers_tokens(logits, told, temperature=temperature)
    apart = divergence(log_p.detach(), log_q, kind=kind, beta=beta)
    soft = temperature**2 * (apart * weights).sum() / per_token
    total = soft_weight * soft + (1 - soft_weight) * label
    if told.own_losses is not None:
        total = total + (told.own_losses * weights).sum() / per_token
    return Loss(total=total, label=label.detach(), soft=soft.detach())


def live_teacher(network: PreTrainedModel, *, temperature: float = 2.0) -> Teacher:
    """Return a teacher that runs along, in evaluation mode and without gradient."""
    network.train(False)

    def ask(batch: Batch, targets: torch.Tensor) -> TeacherTokens:
        with torch.no_grad():
            logits = _logits(network, batch, targets)
        return TeacherTokens(log_probs=(logits / temperature).log_softmax(-1))

    return ask


def trained_teacher(network: PreTrainedModel, *, temperature: float = 2.0) -> Teacher:
    """Return a teacher that runs along and learns the labels itself, from the same forward pass."""

    def ask(batch: Batch, targets: torch.Tensor) -> TeacherTokens:
        network.train(torch.is_grad_enabled())
        logits = _logits(network, batch, targets)
        return TeacherTokens(
            log_probs=(logits.detach() / temperature).log_softmax(-1),
            own_losses=F.cross_entropy(logits, targets[targets != IGNORED], reduction="none"),
        )

    return ask


def sample_targets(
    model: PreTrainedModel, batch: Batch, *, share: float, end: int, pad: int, max_tokens: int
) -> Batch:
    """Return the batch with `sampled_targets`: for a `share` of its rows, what the student writes.

    Each row is drawn with probability `share`; its sequence is sampled from the student's own
    distribution at temperature 1, dropout off, to its first `end` or `max_tokens`. Other rows keep the
    label. Uses torch's current random state. Done before the denominators of a step are counted.
    """
    rows = len(batch.label_targets)
    chosen = (torch.rand(rows) < share).nonzero()[:, 0].to(batch.label_targets.device)
    if not len(chosen):
        return replace(batch, sampled_targets=batch.label_targets)
    was_training = model.training
    model.train(False)
    network: Any = model
    with torch.no_grad():
        mask = batch.attention_mask[chosen]
        states = encoder_states(model, batch.input_ids[chosen], mask)
        written = network.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            do_sample=True,
            num_beams=1,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_tokens,
        )[:, 1:]
    model.train(was_training)
    after_end = ((written == end).cumsum(dim=1) - (written == end).long()) > 0
    written = written.masked_fill(after_end | (written == pad), IGNORED)
    width = max(written.shape[1], batch.label_targets.shape[1])
    targets = F.pad(
        batch.label_targets, (0, width - batch.label_targets.shape[1]), value=IGNORED
    ).clone()
    targets[chosen] = F.pad(written, (0, width - written.shape[1]), value=IGNORED)
    return replace(batch, sampled_targets=targets)


def check_same_tokenizer(
    teacher: Any,
    teachers: PreTrainedTokenizerBase,
    student: Any,
    students: PreTrainedTokenizerBase,
    texts: Sequence[str],
) -> None:
    """Refuse a teacher whose tokens are not the student's: its probabilities would be of other words.

    Compares the vocabularies, the special tokens, the sizes of the heads, and `texts` as both cut them.
    `teacher` and `student` are their configs.
    """
    both = (teacher, student)
    sizes = [config.vocab_size for config in both]
    why = None
    if teachers.get_vocab() != students.get_vocab():
        why = f"they have {len(teachers):,} and {len(students):,} tokens, not the same"
    elif sizes[0] != sizes[1]:
        why = f"their heads have {sizes[0]:,} and {sizes[1]:,} outputs"
    elif [teachers.eos_token_id, teachers.pad_token_id, both[0].decoder_start_token_id] != [
        students.eos_token_id,
        students.pad_token_id,
        both[1].decoder_start_token_id,
    ]:
        why = "their end, padding or start tokens differ"
    else:
        for text in texts:
            if teachers(text)["input_ids"] != students(text)["input_ids"]:
                why = f"they cut the text {text[:60]!r} differently"
                break
    if why is not None:
        raise InputError(
            f"the white-box teacher and the student do not share a tokenizer: {why}. Take both from one "
            "family (google/flan-t5-*, google/t5-v1_1-* and t5-* each within itself), or make the student "
            "from the teacher with student.shrink"
        )


def _logits(network: PreTrainedModel, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    rows = len(targets)
    mask = batch.attention_mask[:rows]
    states = encoder_states(network, batch.input_ids[:rows], mask)
    return token_logits(network, states, mask, targets)[0]
