"""What a student computes with: the interface that every format shares, and transformers' own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from transformers.modeling_outputs import BaseModelOutput

from student.batches import IGNORED
from student.devices import autocast, return_freed_memory
from student.objectives import encoder_states, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Network", "TransformersNetwork", "Written", "parts"]

TOKENS_AT_ONCE = 2_048
"""Target tokens scored in one decoder call; bounds the memory of the vocabulary head."""


class Written(NamedTuple):
    """A generated answer: its token ids, and the mean log probability of them and of `</s>`."""

    ids: list[int]
    mean_log_probability: float


class Network(Protocol):
    """Computes log probabilities and writes answers, in whatever format the weights are.

    It is given `batches_at_once` batches in one call, so that one which computes several beside each
    other has enough of them; `batch_size` says how many rows are padded together.
    """

    @property
    def batches_at_once(self) -> int:
        """How many batches a call may bring; 1 where it computes one after the other."""
        ...

    def score(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[Sequence[int]]],
        *,
        batch_size: int,
    ) -> list[list[float]]:
        """Return log p(target | source) in nats, for each source's own targets.

        Sources and targets are token ids that end in `</s>`.
        """
        ...

    def generate(
        self, sources: Sequence[Sequence[int]], *, max_tokens: int, num_beams: int, batch_size: int
    ) -> list[Written]:
        """Return the greedy answer, or the best of `num_beams` beams, of at most `max_tokens`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TransformersNetwork:
    """A `transformers` encoder-decoder; `precision` is `fp32` or `bf16` (autocast)."""

    model: PreTrainedModel
    pad: int
    end: int
    precision: str = "fp32"
    batches_at_once: int = 1

    def score(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[Sequence[int]]],
        *,
        batch_size: int,
    ) -> list[list[float]]:
        """Score every pair; each source is encoded once, whatever the number of its targets."""
        with torch.inference_mode():
            states, mask = self._encode(sources)
            pairs = [(row, target) for row, several in enumerate(targets) for target in several]
            scores: list[float] = []
            longest = max((len(target) for _, target in pairs), default=1)
            for part in parts(pairs, max(1, TOKENS_AT_ONCE // longest)):
                rows = torch.tensor([row for row, _ in part], device=states.device)
                width = max(len(target) for _, target in part)
                padded = [[*target, *[IGNORED] * (width - len(target))] for _, target in part]
                losses, owners = token_losses(
                    self.model, states[rows], mask[rows], torch.tensor(padded, device=states.device)
                )
                totals = torch.zeros(len(part), device=states.device)
                scores += totals.index_add(0, owners, -losses).tolist()
        return_freed_memory(states.device)
        rest = iter(scores)
        return [[next(rest) for _ in several] for several in targets]

    def generate(
        self, sources: Sequence[Sequence[int]], *, max_tokens: int, num_beams: int, batch_size: int
    ) -> list[Written]:
        """Write with transformers' own search, then score what was written."""
        network: Any = self.model
        with torch.inference_mode():
            states, mask = self._encode(sources)
            with autocast(self.precision, states.device):
                written = network.generate(
                    encoder_outputs=BaseModelOutput(last_hidden_state=states),
                    attention_mask=mask,
                    do_sample=False,
                    num_beams=num_beams,
                    max_new_tokens=max_tokens,
                )
            targets = written[:, 1:]  # without the start token
            # A row ends at its first </s>; what generate put after it is padding.
            after_end = ((targets == self.end).cumsum(dim=1) - (targets == self.end).long()) > 0
            targets = targets.masked_fill(after_end, IGNORED)
            losses, owners = token_losses(self.model, states, mask, targets)
            sums = torch.zeros(len(targets), device=states.device).index_add(0, owners, -losses)
            means = sums / (targets != IGNORED).sum(dim=1).clamp(min=1)
        return_freed_memory(states.device)
        return [
            Written([i for i in row if i not in (IGNORED, self.end)], mean)
            for row, mean in zip(targets.tolist(), means.tolist(), strict=True)
        ]

    def _encode(self, sources: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.model.device
        width = max(map(len, sources))
        ids = torch.tensor([[*source, *[self.pad] * (width - len(source))] for source in sources])
        mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sources])
        ids, mask = ids.to(device), mask.to(device)
        with autocast(self.precision, device):
            states = encoder_states(self.model, ids, mask)
        # Labels are compared in fp32: in bf16 two close labels would often tie.
        return states.float(), mask


def parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield `items` in runs of `size`, the last one shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
