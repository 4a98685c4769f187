"""The faster layers compute what those they replace compute."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_student import tiny_model
from torch import nn

from student.quick_layers import Dropout, quicken


def test_a_quickened_t5_gives_the_same_losses_and_gradients() -> None:
    network = tiny_model(dropout_rate=0.1)
    quick = copy.deepcopy(network)
    quicken(quick)
    assert not any(type(layer) is nn.Dropout for layer in quick.modules())
    ids = torch.tensor([[5, 9, 12, 1], [7, 3, 1, 0]])
    losses = []
    for model in (network, quick):
        model.eval()
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=ids).loss
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    theirs = {name: weight.grad for name, weight in network.named_parameters()}
    ours = {name: weight.grad for name, weight in quick.named_parameters()}
    assert theirs.keys() == ours.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    states = torch.ones(401, 501, dtype=dtype)
    left = Dropout(p)(states)
    share = float((left == 0).float().mean())
    # 200,901 draws: four standard deviations are 0.0045 at most.
    assert share == pytest.approx(p, abs=0.0045)
    kept = left[left != 0].float()
    assert kept.min() == kept.max() == pytest.approx(1 / (1 - p), rel=0.005)


def test_dropout_differs_from_call_to_call_and_follows_the_seed() -> None:
    dropout, states = Dropout(0.5), torch.ones(3, 7, 11)
    torch.manual_seed(0)
    first, second = dropout(states), dropout(states)
    torch.manual_seed(0)
    assert torch.equal(dropout(states), first)
    assert not torch.equal(first, second)


def test_neighbouring_entries_are_dropped_independently() -> None:
    torch.manual_seed(1)
    dropped = Dropout(0.5)(torch.ones(400_000)) == 0
    for apart in (1, 2, 3, 4):
        both = float((dropped[apart:] & dropped[:-apart]).float().mean())
        assert both == pytest.approx(0.25, abs=0.004)


@pytest.mark.parametrize(("p", "left"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_of_nothing_and_of_all(p: float, left: float) -> None:
    assert torch.equal(Dropout(p)(torch.ones(5)), torch.full((5,), left))


def test_dropout_does_nothing_outside_training() -> None:
    states = torch.ones(5)
    assert Dropout(0.9).eval()(states) is states
