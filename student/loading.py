"""Students from a folder or from the Hub, in any of the formats that `export` writes."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from student.checkpoints import check_reference, load_checkpoint
from student.devices import resolve_device
from student.errors import CheckpointError, InputError
from student.formatting import Formatting

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Student", "find_folder", "load", "read_settings"]

SETTINGS_FILE = "student.json"
EXPORTS = {"ctranslate2": "model.bin", "onnx": "encoder.onnx"}
"""Formats of an exported folder, and the file that tells them."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """A loaded student: the network, its tokenizer, and how its inputs are written.

    `network` is the `transformers` model, or the runtime's network of an exported student. `labels`
    is the closed label set it was trained on, `None` for free text and for tasks whose choices
    differ from row to row. `settings` is the folder's whole student.json.
    """

    network: Any
    tokenizer: PreTrainedTokenizerBase
    formatting: Formatting
    labels: tuple[str, ...] | None
    settings: Mapping[str, Any]

    @property
    def format(self) -> str:
        """`transformers`, `ctranslate2` or `onnx`."""
        found: str = self.settings.get("export", {}).get("format", "transformers")
        return found


def load(model: str | Path, *, device: str = "auto") -> Student:
    """Load a student, to predict with it many times.

    `model` is a folder that `train` or `export` wrote, one of the Hub's cache, any T5 folder, or a
    Hub id of one of these. The format is told from the files. A folder without student.json is taken
    as a plain T5: no prefix, no label set. A folder of low-rank adapters (peft's, in safetensors) is
    merged into the model that it names. CTranslate2 and ONNX exports run on the CPU.

    Raises `CheckpointError` when it cannot be loaded, `InputError` when it is no T5.
    """
    folder = find_folder(model)
    settings = read_settings(folder)
    known = {field.name for field in fields(Formatting)}
    labels = settings.get("labels")
    kind = next(
        (name for name, file in EXPORTS.items() if folder and (folder / file).is_file()), None
    )
    if folder is None or kind is None:
        adapters = folder is not None and (folder / "adapter_config.json").is_file()
        network, tokenizer = (
            _load_adapters(folder) if folder and adapters else load_checkpoint(folder or model)
        )
        network.to(resolve_device(device))  # type: ignore[arg-type]
    else:
        resolve_device(device)
        network, tokenizer = _load_export(folder, kind, settings)
    return Student(
        network=network,
        tokenizer=tokenizer,
        formatting=Formatting(**{key: settings[key] for key in known if key in settings}),
        labels=tuple(labels) if labels else None,
        settings=settings,
    )


def find_folder(model: str | Path) -> Path | None:
    """Return the folder that `model` names, downloading a student from the Hub; else None.

    None means a plain Hub model, which `transformers` fetches by itself: only what a student has
    (student.json) or an export is looked for here. A folder of the Hub's cache
    (`models--name--student`) stands for its `main` snapshot.
    """
    check_reference(model)
    folder = Path(model)
    if folder.is_dir():
        branch = folder / "refs" / "main"
        if branch.is_file() and (folder / "snapshots").is_dir():
            return folder / "snapshots" / branch.read_text(encoding="utf-8").strip()
        return folder
    if isinstance(model, Path) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        return None
    return _download(model)


def read_settings(folder: Path | None) -> dict[str, Any]:
    """Read student.json; empty where there is none. Raises `CheckpointError` where it is broken."""
    file = (folder or Path()) / SETTINGS_FILE
    if folder is None or not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; train the student again") from error
    return settings


def _download(name: str) -> Path | None:
    """Fetch a student of the Hub, or find it in the Hub's cache; None where it is no student."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hf_hub_download(name, SETTINGS_FILE)
        # Weights in formats that run code when read are never fetched.
        return Path(
            snapshot_download(name, ignore_patterns=["*.pt", "*.pth", "*.pkl", "pytorch_model*"])
        )
    except (OSError, ValueError, HfHubHTTPError):
        return None  # transformers gives the reason, where it cannot load the name either


def _load_adapters(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that adapters were trained beside, and add them to its weights."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError(
            f"{folder} holds low-rank adapters, which need peft: pip install 'curate-distill[lora]'"
        ) from error
    try:
        named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        network, tokenizer = load_checkpoint(named["base_model_name_or_path"])
        flag = network.config.tie_word_embeddings
        adapted: Any = PeftModel.from_pretrained(network, str(folder), use_safetensors=True)
        with warnings.catch_warnings():
            # peft takes an untied flan head for a mistake of merging and "corrects" the flag.
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer")
            merged: Any = adapted.merge_and_unload(safe_merge=True)
        merged.config.tie_word_embeddings = flag
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"cannot load the adapters in {folder}: {error}") from error
    return merged, tokenizer


def _load_export(
    folder: Path, kind: str, settings: Mapping[str, Any]
) -> tuple[Any, PreTrainedTokenizerBase]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if kind == "ctranslate2":
            from student.ctranslate2_network import CTranslate2Network

            return CTranslate2Network.load(folder, tokenizer), tokenizer
        from student.onnx_network import OnnxNetwork

        return OnnxNetwork.load(folder, tokenizer, settings), tokenizer
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"cannot load the {kind} export {folder}: {str(error).splitlines()[0]}; export it again"
        ) from error
