"""Low-rank adapters: train a few small matrices beside frozen weights, then merge them in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from student.checkpoints import load_checkpoint
from student.errors import InputError, TrainingError

if TYPE_CHECKING:
    from peft import LoraModel
    from transformers import PreTrainedModel

__all__ = ["add_adapters", "check_lora", "merged_network"]

_DEFAULTS = {"rank": 8, "alpha": None, "dropout": 0.0}


def check_lora(lora: Mapping[str, Any] | None, four_bit: bool, device: torch.device) -> None:
    """Raise `InputError` for settings of adapters that cannot be, or a library that is missing."""
    if lora is not None:
        _settings(lora)
        _peft()
    if not four_bit:
        return
    if lora is None:
        raise InputError(
            "load_in_4bit=True needs lora: weights of four bits cannot be trained, adapters beside "
            "them can. Set for example lora={'rank': 8}"
        )
    if device.type != "cuda":
        raise InputError(
            f"load_in_4bit=True needs a CUDA device, and this training is on {device.type!r}: leave it "
            "out (a T5 of that size takes four bytes a weight), or train on a machine with a GPU"
        )
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise InputError(f"load_in_4bit=True needs {missing[0]}: pip install {missing[0]}")


def add_adapters(network: PreTrainedModel, lora: Mapping[str, Any], seed: int) -> LoraModel:
    """Freeze `network` and put an adapter beside every linear layer but the vocabulary head.

    W x becomes W x + (alpha / rank) B A x, with A (rank, in) random and B (out, rank) zero: Hu et
    al. 2021, "LoRA". The layers are found by peft (`all-linear`): T5's are named `wi` in one family
    and `wi_0`, `wi_1` in another, and a list by hand silently misses half of them.
    `network` itself is changed; the returned object is what
    `merged_network` needs.
    """
    settings = _settings(lora)
    peft = _peft()
    config = peft.LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules="all-linear",
    )
    place = network.device
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        adapters: LoraModel = peft.LoraModel(network, config, "default")
    return adapters


def merged_network(
    adapters: LoraModel, *, base: str | Path | None, lora: Mapping[str, Any] | None, seed: int
) -> PreTrainedModel:
    """Add every adapter to the weights beside it: the network is a plain T5 again, as fast.

    With `base` the trained network's own weights are of four bits: the adapters move to the model
    `base`, loaded anew in full precision, and are merged there.
    Raises `TrainingError` where merging would give weights that are no numbers.
    """
    if base is not None:
        full, _ = load_checkpoint(base)
        trained = dict(adapters.model.named_parameters())
        adapters = add_adapters(full, lora or {}, seed)
        with torch.no_grad():
            for name, weight in full.named_parameters():
                if weight.requires_grad:
                    weight.copy_(trained[name])
    network: PreTrainedModel = adapters.model
    config: Any = network.config
    flag = config.tie_word_embeddings
    try:
        with warnings.catch_warnings():
            # peft takes flan's head, which is not tied, for a mistake of merging and "corrects" it.
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer")
            adapters.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise TrainingError(f"the adapters cannot be merged into the weights: {error}") from error
    config.tie_word_embeddings = flag
    return network


def _settings(lora: Mapping[str, Any]) -> dict[str, Any]:
    unknown = lora.keys() - _DEFAULTS.keys() if isinstance(lora, Mapping) else {repr(lora)}
    if unknown:
        raise InputError(
            f"lora={lora!r}; it must be settings by name: {', '.join(_DEFAULTS)}, for example "
            "{'rank': 8}"
        )
    settings: dict[str, Any] = {**_DEFAULTS, **lora}
    rank, alpha, dropout = settings["rank"], settings["alpha"], settings["dropout"]
    if type(rank) is not int or rank < 1:
        raise InputError(f"lora: rank={rank!r}; it must be a whole number, at least 1")
    if alpha is not None and not (type(alpha) in (int, float) and alpha > 0):
        raise InputError(f"lora: alpha={alpha!r}; it must be above 0 (default: twice the rank)")
    if not (type(dropout) in (int, float) and 0 <= dropout < 1):
        raise InputError(f"lora: dropout={dropout!r}; it must be from 0 to below 1")
    return settings | {"alpha": 2 * rank if alpha is None else alpha}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("lora needs peft: pip install 'curate-distill[lora]'") from error
    return peft
