"""Model folders: read any T5, write a normal Hugging Face folder that loads back unchanged."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
import transformers
from safetensors.torch import save_file

from student.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "FAMILIES",
    "check_output",
    "check_reference",
    "load_checkpoint",
    "read_checkpoint",
    "replace_folder",
    "save_checkpoint",
]

FAMILIES = ("t5", "mt5", "umt5", "t5gemma")
"""Values of `model_type` that train and predict here; flan-t5, t5-v1_1 and byt5 are `t5`."""

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def load_checkpoint(
    model: str | Path, *, four_bit_on: torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder-decoder of the T5 family and its tokenizer, in fp32, in evaluation mode.

    `model` is a folder or a Hub id. With `four_bit_on`, a CUDA device, the linear layers' weights are
    of four bits (NF4, Dettmers et al. 2023, "QLoRA"): to be trained with adapters only.
    Raises `CheckpointError` when nothing loads from there, `InputError` when it is a model of
    another kind.
    """
    config, tokenizer = read_checkpoint(model)
    with _load_errors(model), _quiet_transformers():
        loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            model, **({} if four_bit_on is None else _four_bit(four_bit_on))
        )
    loaded.config.decoder_start_token_id = config.decoder_start_token_id
    if four_bit_on is None:
        loaded.float()  # weights stay in fp32 whatever the file holds; autocast saves the time
    else:
        for weight in loaded.parameters():
            if weight.is_floating_point():  # weights of four bits are bytes
                weight.data = weight.data.float()
    loaded.train(False)
    return loaded, tokenizer


def read_checkpoint(model: str | Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Read a model's config and tokenizer only: whether `load_checkpoint` takes it, in a moment.

    Of a folder it is seen, too, that weights are there. The config says where decoding starts.
    Raises what `load_checkpoint` raises.
    """
    check_reference(model)
    folder = Path(model)
    # A Hub id has one slash at most, and begins with a name.
    is_path = isinstance(model, Path) or model.count("/") > 1 or model[:1] in ("", "/", ".", "~")
    if is_path and not (folder.is_dir() and str(model)):
        raise CheckpointError(
            f"no model folder at {str(model)!r}; give a folder that has a config.json"
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{model} has no config.json, so it is not a model folder")
    with _load_errors(model), _quiet_transformers():
        config: Any = transformers.AutoConfig.from_pretrained(model)
        if config.model_type not in FAMILIES:
            raise InputError(
                f"{model} is a {config.model_type!r} model; a student is one of "
                f"{', '.join(FAMILIES)}, for example google/flan-t5-small"
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    if folder.is_dir() and not any(any(folder.glob(name)) for name in _WEIGHTS):
        raise CheckpointError(
            f"{model} holds no weights (model.safetensors); copy them there, or give another folder"
        )
    _check_tokenizer(str(model), config, tokenizer)
    return config, tokenizer


def check_reference(model: object) -> None:
    """Raise `InputError` for what is neither a folder nor a Hub id, whatever lies there."""
    if not isinstance(model, (str, Path)):
        raise InputError(
            f"model={model!r}; it must be a folder with config.json, weights and tokenizer, or a Hub "
            "id such as google/flan-t5-small"
        )


@contextmanager
def _load_errors(model: str | Path) -> Iterator[None]:
    """Turn what transformers and the Hub's client raise into a `CheckpointError`."""
    try:
        yield
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise CheckpointError(
            f"cannot load a model from {str(model)!r}: {_first_line(error)}. Give a folder with "
            "config.json, weights and tokenizer, or a Hub id such as google/flan-t5-small "
            "(which needs the network the first time)"
        ) from error


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    *,
    texts: Mapping[str, str],
) -> None:
    """Write weights, config, tokenizer and `texts` (file name to content) as one folder.

    Everything is written to a temporary folder beside `output`, which is then renamed, so that a
    folder named `output` is always complete. An earlier student there is replaced.
    Raises `CheckpointError` when the disk is full or the place cannot be written.
    """
    partial: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        partial.chmod(0o755)
        with _quiet_transformers():
            _write_model(model, partial)
            tokenizer.save_pretrained(partial)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        replace_folder(partial, output)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the student to {output}: {_first_line(error)}. Free some space or "
            "choose another output folder; nothing was left half written"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def check_output(output: Path) -> None:
    """Refuse, before any training, an output that would overwrite something else than a student."""
    if output.is_file():
        raise InputError(f"output={str(output)!r} is a file; name a folder")
    if output.is_dir() and any(output.iterdir()) and not (output / "student.json").is_file():
        raise InputError(
            f"output={str(output)!r} holds files that no student wrote (there is no student.json); "
            "name an empty or new folder"
        )


def _four_bit(device: torch.device) -> dict[str, Any]:
    config = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _write_model(model: PreTrainedModel, folder: Path) -> None:
    """Save weights and config such that every transformers version reads the same model.

    In T5's config `tie_word_embeddings` says two things at once: the head shares the embedding
    matrix, and the decoder's output is scaled by d_model**-0.5. transformers 5 forces the flag to
    True and keeps the scaling apart; a config saved that way makes older versions (and converters)
    tie and scale a flan checkpoint, with wrong numbers and no error. So the flag is written as
    the scaling says, and where it is False both matrices are in the file.
    """
    config: Any = model.config
    if config.model_type == "t5gemma":  # has no such flag, and its names are its own
        model.save_pretrained(folder)
        return
    scaled = bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))
    if config.model_type == "mt5":  # transformers 5 never scales it, and hub files are untied
        scaled = False
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        state.pop(name, None)  # always the same matrix as shared.weight
    if not scaled:
        state["lm_head.weight"] = state["lm_head.weight"].clone()
    elif torch.equal(state["lm_head.weight"], state["shared.weight"]):
        state.pop("lm_head.weight")
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written |= {"tie_word_embeddings": scaled, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _check_tokenizer(name: str, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{name}: the tokenizer knows {len(tokenizer)} tokens and the model only "
            f"{config.vocab_size}; they do not belong together"
        )
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise CheckpointError(f"{name}: its tokenizer names no end or padding token")
    if getattr(config, "decoder_start_token_id", None) is None:
        # T5 starts decoding from padding, T5Gemma from its own token.
        own = config.decoder.bos_token_id if config.model_type == "t5gemma" else None
        config.decoder_start_token_id = tokenizer.pad_token_id if own is None else own


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` where `old` is or would be; the old one goes once the new one is there."""
    if not old.exists():
        new.rename(old)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{old.name}-old-", dir=old.parent))
    old.rename(aside / old.name)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars and warning that flan is not tied, which is right.

    And the Hub's client from telling of each try to reach it: the error that follows says it once.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    library: Any = transformers.utils.logging
    bars = library.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            library.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
