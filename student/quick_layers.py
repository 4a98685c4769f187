"""Layers of a T5 that train faster than those it comes with, and compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.activations import NewGELUActivation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Dropout", "quicken"]

#: A mask is drawn with 16 bits an entry, four entries from one 64-bit number.
DRAWS = 2**16


def quicken(network: PreTrainedModel) -> None:
    """Replace layers of `network`, in place, by faster ones with the same function and no weights.

    - T5 v1.1's gelu (Hendrycks and Gimpel 2016, the tanh form), written as eight operations in
      transformers, becomes torch's single one.
    - On the CPU dropout draws its masks as `Dropout` does. CUDA's own is fast already.

    With both, a step of flan-t5-small on two cores takes a tenth less time, in fp32 as in bf16.
    """
    parents = list(network.modules())
    for parent in parents:
        for name, layer in list(parent.named_children()):
            if type(layer) is NewGELUActivation:
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif type(layer) is nn.Dropout and network.device.type == "cpu":
                setattr(parent, name, Dropout(layer.p))


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) for the CPU: entries become 0 with chance `p`, else x / (1 - p).

    torch draws a random number an entry, one after another, which took a seventh of a training step.
    Here one number decides four entries; `p` is rounded to a multiple of 1/65536. Masks follow
    `torch.manual_seed`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.dropped = round(p * DRAWS)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return `states`, of any shape; in training with some of its entries dropped."""
        if not self.training or self.dropped == 0:
            return states
        if self.dropped == DRAWS:
            return states * 0
        words = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        # As int16 the draws are even over -32768..32767: the lowest `dropped` of them drop.
        draws = words.view(torch.int16)[: states.numel()].view(states.shape)
        kept = draws >= self.dropped - DRAWS // 2
        return states * kept.to(states.dtype).mul_(DRAWS / (DRAWS - self.dropped))

    def extra_repr(self) -> str:
        """Return what stands between the brackets when the network is printed."""
        return f"p={self.p}"
