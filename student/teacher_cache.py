"""A white-box teacher's most probable tokens, asked once and kept on disk by example."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from student.batches import EncodedExamples, collate
from student.devices import autocast
from student.divergences import TeacherTokens, top_tokens
from student.errors import CheckpointError, InputError
from student.networks import parts
from student.objectives import encoder_states, token_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from student.batches import Batch
    from student.white_box import Teacher

__all__ = ["cache_teacher", "cached_teacher", "example_keys", "weights_hash"]

ROWS_PER_FILE = 512
"""Rows asked between two writes: what a killed run loses at most."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where one row's tokens lie: a file, and the first and last + 1 line of its tensors."""

    file: Path
    start: int
    stop: int


def cache_teacher(
    network: PreTrainedModel,
    encoded: EncodedExamples,
    keys: Sequence[str],
    folder: str | Path,
    *,
    top_k: int = 64,
    temperature: float = 2.0,
    batch_size: int = 32,
    precision: str = "fp32",
    pad_token_id: int = 0,
    on_progress: Callable[[Mapping[str, Any]], object] | None = None,
) -> Path:
    """Ask the teacher about every target token of every example that the cache does not know yet.

    `keys`, one per example, are those of `example_keys`: a row whose id, input or target changed is
    asked again, all others are read. Returns the folder, inside `folder`, of this teacher (a hash of its
    weights), temperature, precision and `top_k`; answers of another setting are never mixed in.

    A file holds about 512 rows, in the safetensors format (no pickle; mapped into memory when read), and
    is renamed into place when complete, so that a killed run goes on where it was. Its tensors have one
    line per target token: `token_ids` int32 (n, k), `log_probs` float32 (n, k) at the temperature,
    `log_tail` float32 (n,), the log of the mass of all other tokens (not there if k is the vocabulary).
    That is 8 k + 4 bytes a token: 0.5 KB with k = 64.

    `on_progress` receives {"done", "total"} (rows) after every batch. Raises `CheckpointError` where the
    folder cannot be written, or a file in it cannot be read.
    """
    place = Path(folder) / _setting(weights_hash(network), top_k, temperature, precision)
    known = _index(place)
    missing = [row for row, key in enumerate(keys) if key not in known]
    missing.sort(key=lambda row: len(encoded.label_inputs[row]))  # little padding
    done = len(keys) - len(missing)
    network.train(False)
    for part in parts(missing, ROWS_PER_FILE):
        answers: list[TeacherTokens] = []
        for rows in parts(part, batch_size):
            batch = collate(encoded, rows, pad_token_id=pad_token_id).to(network.device)
            count, mask = len(rows), batch.attention_mask[: len(rows)]
            with torch.inference_mode(), autocast(precision, network.device):
                states = encoder_states(network, batch.input_ids[:count], mask)
                logits, _ = token_logits(network, states, mask, batch.label_targets)
                answers.append(top_tokens(logits, top_k, temperature=temperature))
            done += count
            if on_progress is not None:
                on_progress({"done": done, "total": len(keys)})
        lengths = [len(encoded.label_targets[row]) for row in part]
        _write(place, [keys[row] for row in part], lengths, answers)
    return place


def cached_teacher(folder: str | Path, keys: Sequence[str]) -> Teacher:
    """Return a teacher that reads what `cache_teacher` wrote; row i of the encoded examples is `keys[i]`.

    It can be asked about the batch's label targets only. Raises `InputError` where a row is missing,
    `CheckpointError` where a file cannot be read.
    """
    places = _index(Path(folder))
    absent = [key for key in keys if key not in places]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(keys)} rows are not in the teacher's cache {folder}, such as "
            f"{absent[0]!r}; ask the teacher with cache_teacher first"
        )
    files = {place.file: _open(place.file) for place in places.values()}

    def ask(batch: Batch, targets: torch.Tensor) -> TeacherTokens:
        if batch.rows is None or targets is not batch.label_targets:
            raise InputError("a cached teacher knows the labels of encoded examples, nothing else")
        wanted = [places[keys[row]] for row in batch.rows.tolist()]

        def read(name: str) -> torch.Tensor:
            found = [files[p.file].get_slice(name)[p.start : p.stop] for p in wanted]
            return torch.cat(found).to(targets.device)

        tail = "log_tail" in files[wanted[0].file].keys()  # noqa: SIM118 - no mapping
        return TeacherTokens(
            log_probs=read("log_probs"),
            token_ids=read("token_ids").long(),
            log_tail=read("log_tail") if tail else None,
        )

    return ask


def example_keys(encoded: EncodedExamples, ids: Sequence[str | None]) -> list[str]:
    """Return one key per example: its id, if it has one, and a hash of its input and target tokens."""
    keys = []
    for name, source, target in zip(ids, encoded.label_inputs, encoded.label_targets, strict=True):
        digest = hashlib.sha256(np.array([len(source), *source, *target], dtype="<i8").tobytes())
        keys.append(f"{name or ''}/{digest.hexdigest()[:24]}")
    return keys


def weights_hash(network: PreTrainedModel) -> str:
    """Return a hash of all weights, to tell one teacher from another (or from itself, trained on)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _setting(weights: str, top_k: int, temperature: float, precision: str) -> str:
    text = f"1 {weights} {top_k} {float(temperature)!r} {precision}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _index(place: Path) -> dict[str, _Place]:
    found = {}
    for file in sorted(place.glob("*.safetensors")):
        stored = _open(file).metadata()
        start = 0
        for key, length in json.loads(stored["rows"]):
            found[key] = _Place(file=file, start=start, stop=start + length)
            start += length
    return found


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the teacher's cache {file} cannot be read: {error}; delete that file, and the teacher is "
            "asked about its rows again"
        ) from error


def _write(
    place: Path, keys: Sequence[str], lengths: Sequence[int], answers: Sequence[TeacherTokens]
) -> None:
    tensors = {
        "token_ids": torch.cat([a.token_ids.int() for a in answers if a.token_ids is not None]),
        "log_probs": torch.cat([a.log_probs for a in answers]),
    }
    tails = [a.log_tail for a in answers if a.log_tail is not None]
    if tails:
        tensors["log_tail"] = torch.cat(tails)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    rows = json.dumps(list(zip(keys, lengths, strict=True)))
    name = hashlib.sha256(rows.encode()).hexdigest()[:24]
    partial = place / f".{name}-{uuid.uuid4().hex}.part"
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"rows": rows})
        os.replace(partial, place / f"{name}.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the teacher's cache to {place}: {error}. Free some space, make top_k smaller, "
            "or leave out cache, and the teacher runs along"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
