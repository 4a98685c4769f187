"""From examples to batches: format, tokenise once, bucket by length, pad."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from student.formatting import Formatting, label_sources, label_targets, token_ids
from student.soft_targets import SoftTargets, soft_targets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from student.examples import Example

__all__ = [
    "IGNORED",
    "Batch",
    "EncodedExamples",
    "Formatting",
    "bucketed_batches",
    "collate",
    "encode",
    "token_ids",
]

IGNORED = -100
"""The target id of a padded place: it never enters a loss."""

POOL_BATCHES = 32
"""Rows are sorted by length inside pools of this many batches: short padding, random order."""


@dataclass(frozen=True, kw_only=True)
class EncodedExamples:
    """Token ids of every example, in its order; `None` where a row has no rationale.

    `truncated` counts the rows cut at a limit, by part. A row with `copies` = 3 is here once;
    `order` lists the rows as often as an epoch shows them. With `shared_encoder` the rationale task
    has no inputs of its own. `soft` holds the choices and the teacher's distributions over them.
    """

    label_inputs: list[list[int]]
    label_targets: list[list[int]]
    rationale_inputs: list[list[int] | None]
    rationale_targets: list[list[int] | None]
    weights: list[float]
    order: list[int]
    truncated: dict[str, int]
    shared_encoder: bool = False
    soft: SoftTargets | None = None

    def lengths(self) -> list[int]:
        """Return one number per entry of `order`: the tokens that row puts through the student."""
        tokens = [
            len(a) + len(b) + len(c or ()) + len(d or ())
            for a, b, c, d in zip(
                self.label_inputs,
                self.label_targets,
                self.rationale_inputs,
                self.rationale_targets,
                strict=True,
            )
        ]
        return [tokens[row] for row in self.order]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one forward pass over `n` rows, `m` of which have a rationale.

    `input_ids`, `attention_mask`: (n + m, source length), the label task's rows first; (n, source
    length) where both tasks share the encoder.
    `label_targets`: (n, label length), `rationale_targets`: (m, rationale length), padded with -100.
    `label_weights`: (n,), `rationale_weights`: (m,).
    `rationale_sources`: (m,), the row of `input_ids` that each rationale is written from.
    `rows`: (n,), the rows' numbers in the encoded examples.

    For soft labels, over all `c` (row, choice) pairs of the batch, row by row:
    `choice_targets`: (c, label length); `choice_rows`: (c,), the pair's row, 0..n-1; `choice_probs`:
    (c,), the teacher's; `choice_hard`: (n,), the pair that is the row's own label; `soft_weights`:
    (n,), the row's weight, or 0 where the teacher gave no distribution.

    `sampled_targets`: (n, any length), what the student itself wrote for some rows and the label for
    the others, where a white-box teacher judges the student's own sequences.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    label_targets: torch.Tensor
    rationale_targets: torch.Tensor
    label_weights: torch.Tensor
    rationale_weights: torch.Tensor
    rationale_sources: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    choice_targets: torch.Tensor | None = None
    choice_rows: torch.Tensor | None = None
    choice_probs: torch.Tensor | None = None
    choice_hard: torch.Tensor | None = None
    soft_weights: torch.Tensor | None = None
    sampled_targets: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on another device."""
        tensors = {name: t.to(device) for name, t in vars(self).items() if t is not None}
        return replace(self, **tensors)


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    formatting: Formatting,
    *,
    rationales: bool,
    soft_labels: bool = False,
) -> EncodedExamples:
    """Tokenise every text once; cut at the limits, keep the closing `</s>`, count what was cut.

    With `rationales=False` (an objective of one task) there is no rationale task: a rationale then
    only counts where `formatting.rationale_in` puts it into the label task's input or target.
    `soft_labels` adds every choice and the teacher's distribution over them.
    """
    reasons = [example.rationale for example in examples]
    having = [i for i, reason in enumerate(reasons) if rationales and reason]
    inputs, cut_inputs = label_sources([e.input for e in examples], reasons, tokenizer, formatting)
    targets, cut_targets = label_targets(
        [e.target for e in examples], reasons, tokenizer, formatting
    )
    sources: list[list[int]] = [[]] * len(having)
    if not formatting.shared_encoder:
        prefixed = [formatting.rationale_prefix + examples[i].input for i in having]
        sources, _ = token_ids(prefixed, tokenizer, formatting.max_input_tokens)
    written, cut_rationales = token_ids(
        [reasons[i] or "" for i in having], tokenizer, formatting.max_rationale_tokens
    )
    by_row = dict(zip(having, zip(sources, written, strict=True), strict=True))
    pairs = [by_row.get(i, (None, None)) for i in range(len(examples))]
    cut_rationales += cut_inputs["rationales"] + cut_targets["rationales"]
    return EncodedExamples(
        label_inputs=inputs,
        label_targets=targets,
        rationale_inputs=[source for source, _ in pairs],
        rationale_targets=[target for _, target in pairs],
        weights=[example.weight for example in examples],
        order=[i for i, example in enumerate(examples) for _ in range(example.copies)],
        truncated={
            "inputs": cut_inputs["inputs"],
            "labels": cut_targets["labels"],
            "rationales": cut_rationales,
        },
        shared_encoder=formatting.shared_encoder,
        soft=soft_targets(examples, tokenizer, formatting) if soft_labels else None,
    )


def bucketed_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int
) -> list[list[int]]:
    """Cut the places 0..n-1 into batches of similar length, in an order fixed by seed and epoch.

    Places are shuffled, cut into pools of about 32 batches, sorted by length in the pool, and cut
    into batches whose sizes differ by at most one (so that no tiny last batch makes a noisy step);
    the batches are then shuffled. Every place occurs exactly once.
    """
    order = list(range(len(lengths)))
    shuffle = random.Random(f"{seed}/{epoch}")
    shuffle.shuffle(order)
    batches: list[list[int]] = []
    for pool in _even_parts(order, batch_size * POOL_BATCHES):
        pool.sort(key=lambda place: lengths[place])
        batches += _even_parts(pool, batch_size)
    shuffle.shuffle(batches)
    return batches


def collate(encoded: EncodedExamples, rows: Sequence[int], *, pad_token_id: int) -> Batch:
    """Pad the given rows into one `Batch`; inputs with `pad_token_id`, targets with -100."""
    having = [place for place, row in enumerate(rows) if encoded.rationale_targets[row] is not None]
    sources = [encoded.label_inputs[row] for row in rows]
    rationale_sources = having
    if not encoded.shared_encoder:
        rationale_sources = list(range(len(rows), len(rows) + len(having)))
        sources += [encoded.rationale_inputs[rows[place]] or [] for place in having]
    input_ids = _padded(sources, pad_token_id)
    lengths = torch.tensor([len(source) for source in sources])
    batch = Batch(
        input_ids=input_ids,
        attention_mask=(torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
        label_targets=_padded([encoded.label_targets[row] for row in rows], IGNORED),
        rationale_targets=_padded(
            [encoded.rationale_targets[rows[place]] or [] for place in having], IGNORED
        ),
        label_weights=torch.tensor([encoded.weights[row] for row in rows]),
        rationale_weights=torch.tensor([encoded.weights[rows[place]] for place in having]),
        rationale_sources=torch.tensor(rationale_sources, dtype=torch.long),
        rows=torch.tensor(rows),
    )
    return batch if encoded.soft is None else _with_choices(batch, encoded.soft, rows)


def _with_choices(batch: Batch, soft: SoftTargets, rows: Sequence[int]) -> Batch:
    """Add every choice of every row, and what the teacher thinks of it."""
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(soft.choices[row]))
    owners = [place for place, row in enumerate(rows) for _ in soft.choices[row]]
    known = torch.tensor([float(soft.given[row]) for row in rows])
    return replace(
        batch,
        choice_targets=_padded([ids for row in rows for ids in soft.choices[row]], IGNORED),
        choice_rows=torch.tensor(owners),
        choice_probs=torch.tensor([p for row in rows for p in soft.probs[row]]),
        choice_hard=torch.tensor(
            [start + soft.hard[row] for start, row in zip(starts, rows, strict=False)]
        ),
        soft_weights=batch.label_weights * known,
    )


def _padded(sequences: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max((len(sequence) for sequence in sequences), default=0)
    padded = torch.full((len(sequences), width), fill, dtype=torch.long)
    for place, sequence in enumerate(sequences):
        padded[place, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return padded


def _even_parts(places: Sequence[int], at_most: int) -> list[list[int]]:
    parts = math.ceil(len(places) / at_most)
    cuts = [len(places) * part // parts for part in range(parts + 1)]
    return [list(places[start:stop]) for start, stop in pairwise(cuts)]
