"""A smaller student made from a larger T5: some of its layers, with their weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from student.checkpoints import check_output, load_checkpoint, save_checkpoint
from student.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["even_layers", "shrink", "smaller_network"]

_FIRST_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def shrink(
    model: str | Path,
    *,
    encoder_layers: int | Sequence[int],
    decoder_layers: int | Sequence[int],
    output: str | Path,
) -> Path:
    """Write the folder of a smaller T5: the given layers of `model`, embeddings, head and tokenizer.

    A number picks so many layers at even distances, the first and the last among them (`even_layers`);
    a list names them, from 0, in rising order. All weights are copies, nothing is random: shrink and
    fine-tune (Shleifer and Rush 2020, "Pre-trained Summarization Distillation"). Few decoder layers make
    the answers faster, since the decoder runs once per token.

    `model` is a folder or a Hub id. Where it is a student, prefixes, limits and label set stay with the
    smaller one. Returns `output`, to be given to `train` as `model`. Raises `InputError` for layers that
    are not there or an output that holds something else, `CheckpointError` where the model does not load.
    """
    output = Path(output)
    check_output(output)
    if Path(model).is_dir() and output.resolve() == Path(model).resolve():
        raise InputError(f"output={str(output)!r} is the model itself; name another folder")
    large, tokenizer = load_checkpoint(model)
    depth: Any = large.config
    chosen = {
        "encoder_layers": _layers("encoder_layers", encoder_layers, depth.num_layers),
        "decoder_layers": _layers("decoder_layers", decoder_layers, depth.num_decoder_layers),
    }
    small = smaller_network(large, **chosen)
    name = Path(model).name if Path(model).is_dir() else str(model)
    own = Path(model) / "student.json"
    settings = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    settings |= {"base_model": name, "shrunk": {"from": name, **chosen}}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    save_checkpoint(small, tokenizer, output, texts={"student.json": text})
    return output


def even_layers(count: int, depth: int) -> list[int]:
    """Return `count` of the layers 0..depth-1 at even distances, first and last included."""
    if count == 1:
        return [0]
    return [(2 * i * (depth - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def smaller_network(
    network: PreTrainedModel, *, encoder_layers: Sequence[int], decoder_layers: Sequence[int]
) -> PreTrainedModel:
    """Return a new network with copies of these layers of `network`, in evaluation mode.

    A head of its own stays one: transformers ties the head of any T5 that it builds from a config, so
    that copying an untied head into it would overwrite the embeddings. The table of relative positions,
    which T5 keeps in layer 0 for all layers, moves to the new layer 0.
    """
    config: Any = copy.deepcopy(network.config)
    config.num_layers, config.num_decoder_layers = len(encoder_layers), len(decoder_layers)
    old = network.state_dict()
    new: dict[str, torch.Tensor] = {}
    for name, tensor in old.items():
        stack, _, rest = name.partition(".")
        if stack not in ("encoder", "decoder") or not rest.startswith("block."):
            new[name] = tensor
    for stack, layers in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        for place, layer in enumerate(layers):
            start = f"{stack}.block.{layer}."
            for name in (name for name in old if name.startswith(start)):
                new[f"{stack}.block.{place}.{name.removeprefix(start)}"] = old[name]
        new.setdefault(f"{stack}.{_FIRST_BIAS}", old[f"{stack}.{_FIRST_BIAS}"])
    with torch.random.fork_rng():
        classes: Any = transformers.AutoModelForSeq2SeqLM
        small = classes.from_config(config)
    if old["lm_head.weight"].data_ptr() != old["shared.weight"].data_ptr():
        small.lm_head = torch.nn.Linear(config.d_model, config.vocab_size, bias=False)
    small.load_state_dict(new)
    small.generation_config = copy.deepcopy(network.generation_config)
    small.train(False)
    built: PreTrainedModel = small
    return built


def _layers(name: str, wanted: int | Sequence[int], depth: int) -> list[int]:
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if not 1 <= wanted <= depth:
            raise InputError(f"{name}={wanted}; the model has {depth}, so give 1 to {depth}")
        return even_layers(wanted, depth)
    layers = [] if isinstance(wanted, (int, str)) else list(wanted)
    whole = all(type(layer) is int and 0 <= layer < depth for layer in layers)
    if not layers or not whole or layers != sorted(set(layers)):
        raise InputError(
            f"{name}={wanted!r}; give a number of layers, or a list of layers from 0 to {depth - 1} in "
            "rising order"
        )
    return layers
