"""From examples to batches: format, tokenise once, bucket by length, pad."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

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
class Formatting:
    """How a text becomes the student's input; saved with the student, so that predict does alike.

    In the multitask scheme of Hsieh et al. 2023 the prefix tells the student which of its two
    tasks to do. Limits are in tokens, the closing `</s>` included.
    """

    label_prefix: str = ""
    rationale_prefix: str = "[rationale] "
    max_input_tokens: int = 512
    max_label_tokens: int = 64
    max_rationale_tokens: int = 128


@dataclass(frozen=True, kw_only=True)
class EncodedExamples:
    """Token ids of every example, in its order; `None` where a row has no rationale.

    `truncated` counts the rows cut at a limit, by part. A row with `copies` = 3 is here once;
    `order` lists the rows as often as an epoch shows them.
    """

    label_inputs: list[list[int]]
    label_targets: list[list[int]]
    rationale_inputs: list[list[int] | None]
    rationale_targets: list[list[int] | None]
    weights: list[float]
    order: list[int]
    truncated: dict[str, int]

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

    `input_ids`, `attention_mask`: (n + m, source length), the label task's rows first.
    `label_targets`: (n, label length), `rationale_targets`: (m, rationale length), padded with -100.
    `label_weights`: (n,), `rationale_weights`: (m,).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    label_targets: torch.Tensor
    rationale_targets: torch.Tensor
    label_weights: torch.Tensor
    rationale_weights: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    formatting: Formatting,
    *,
    rationales: bool,
) -> EncodedExamples:
    """Tokenise every text once; cut at the limits, keep the closing `</s>`, count what was cut.

    With `rationales=False` (the label-only objective) rationales are not tokenised at all.
    """
    having = [i for i, example in enumerate(examples) if rationales and example.rationale]
    label_inputs, cut_inputs = token_ids(
        [formatting.label_prefix + example.input for example in examples],
        tokenizer,
        formatting.max_input_tokens,
    )
    label_targets, cut_labels = token_ids(
        [example.target for example in examples], tokenizer, formatting.max_label_tokens
    )
    sources, _ = token_ids(
        [formatting.rationale_prefix + examples[i].input for i in having],
        tokenizer,
        formatting.max_input_tokens,
    )
    targets, cut_rationales = token_ids(
        [examples[i].rationale or "" for i in having], tokenizer, formatting.max_rationale_tokens
    )
    by_row = dict(zip(having, zip(sources, targets, strict=True), strict=True))
    pairs = [by_row.get(i, (None, None)) for i in range(len(examples))]
    return EncodedExamples(
        label_inputs=label_inputs,
        label_targets=label_targets,
        rationale_inputs=[source for source, _ in pairs],
        rationale_targets=[target for _, target in pairs],
        weights=[example.weight for example in examples],
        order=[i for i, example in enumerate(examples) for _ in range(example.copies)],
        truncated={"inputs": cut_inputs, "labels": cut_labels, "rationales": cut_rationales},
    )


def token_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[list[int]], int]:
    """Tokenise `texts`, each ending in `</s>` and at most `limit` long; count those cut."""
    if not texts:
        return [], 0
    end = tokenizer.eos_token_id
    found = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    whole = [ids if ids and ids[-1] == end else [*ids, end] for ids in found]
    cut = sum(len(ids) > limit for ids in whole)
    return [ids if len(ids) <= limit else [*ids[: limit - 1], end] for ids in whole], cut


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
    having = [row for row in rows if encoded.rationale_targets[row] is not None]
    sources = [encoded.label_inputs[row] for row in rows]
    sources += [encoded.rationale_inputs[row] or [] for row in having]
    input_ids = _padded(sources, pad_token_id)
    lengths = torch.tensor([len(source) for source in sources])
    return Batch(
        input_ids=input_ids,
        attention_mask=(torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
        label_targets=_padded([encoded.label_targets[row] for row in rows], IGNORED),
        rationale_targets=_padded(
            [encoded.rationale_targets[row] or [] for row in having], IGNORED
        ),
        label_weights=torch.tensor([encoded.weights[row] for row in rows]),
        rationale_weights=torch.tensor([encoded.weights[row] for row in having]),
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
