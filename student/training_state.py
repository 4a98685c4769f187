"""Where a training stands, and the file from which a killed one goes on as if nothing had been.

One safetensors file beside the output holds the trained weights, AdamW's moments, the best epoch's
weights and, as JSON in a byte tensor, everything else. It can run no code, and it is replaced by a
single rename: whenever a process is killed, the file there is a whole one.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file

from student.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "TrainingState",
    "begin_or_resume",
    "identity_of",
    "is_due",
    "state_file",
    "trained_weights",
    "write_state",
]

EVERY_SECONDS = 300.0
"""Writing takes a second or two for flan-t5-small: less than one percent of the time."""


@dataclass(kw_only=True)
class TrainingState:
    """What the loop knows besides the weights; it changes with every step.

    `steps` and `epochs` are the logs of history.json; `micro_batch` is how many rows go through the
    network at a time, fewer than asked for once memory ran out; `run` names the training for
    trackers, over resumptions too; `resumed_from` is the step this process went on after.
    """

    micro_batch: int
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    resumed_from: int = 0

    def seconds(self) -> float:
        """Return how long all steps so far took, of earlier processes too."""
        return float(self.steps[-1]["seconds"]) if self.steps else 0.0

    def keep_if_best(self, network: PreTrainedModel) -> None:
        """Keep the weights, on the CPU, if the last epoch's validation loss is the lowest."""
        loss = self.epochs[-1]["validation_loss"]
        if loss is not None and loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.epochs)
            self.best_weights = {
                name: weight.detach().cpu().clone()
                for name, weight in trained_weights(network).items()
            }

    def restore_best(self, network: PreTrainedModel) -> None:
        """Put the best epoch's weights back, if any were kept."""
        weights = trained_weights(network)
        with torch.no_grad():
            for name, best in self.best_weights.items():
                weights[name].copy_(best)

    def is_stale(self, patience: int | None) -> bool:
        """Say whether `patience` epochs have gone by without a lower validation loss."""
        return patience is not None and len(self.epochs) - self.best_epoch >= patience


def trained_weights(network: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return every weight that is trained, once, however many names tied weights have."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


def state_file(output: Path) -> Path:
    """Return where the checkpoint of a training that writes `output` is: beside it, hidden."""
    return output.parent / f".{output.name}.checkpoint"


def is_due(step: int, checkpoint_every: int | None, *, since: float) -> bool:
    """Say whether to write a checkpoint after `step`, the last one (or the start) being at `since`."""
    if checkpoint_every is None:
        return time.perf_counter() - since >= EVERY_SECONDS
    return checkpoint_every > 0 and step % checkpoint_every == 0


def identity_of(
    network: PreTrainedModel, rows: Iterable[object], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what must be equal for a resumed training to be the same training.

    `rows` are the training and validation examples in order, `options` everything that was set.
    """
    data, weights = blake2b(digest_size=16), blake2b(digest_size=16)
    for row in rows:
        data.update(repr(row).encode())
    for name, weight in network.named_parameters():
        flat = weight.detach().cpu().contiguous().view(-1)
        weights.update(name.encode())
        weights.update(flat.view(torch.uint8).numpy().data)
    plain = json.loads(json.dumps(dict(options), default=str))
    return {
        **plain,
        "the rows": data.hexdigest(),
        "the model's weights": weights.hexdigest(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def write_state(
    file: Path,
    state: TrainingState,
    network: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
) -> None:
    """Write the checkpoint under a temporary name, then rename it over the one before.

    Raises `CheckpointError` when the disk is full or the place cannot be written.
    """
    known = {name: value for name, value in vars(state).items() if name != "best_weights"}
    text = json.dumps({"identity": identity, "state": known})
    tensors = {"json": torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())}
    tensors |= {f"weight {name}": weight for name, weight in trained_weights(network).items()}
    tensors |= {f"best {name}": weight for name, weight in state.best_weights.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adamw {number} {name}": moment for name, moment in moments.items()}
    temporary = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    except (OSError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write the checkpoint {file}: {error}. Free some space (it takes three to four "
            "times the model's size) and run the same again: it goes on from the checkpoint before, "
            "if there is one. checkpoint_every=0 writes none"
        ) from error


def begin_or_resume(
    file: Path,
    network: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    *,
    resume: bool | str,
    micro_batch: int,
) -> TrainingState:
    """Go on from the checkpoint `file` if it is of this very training, else begin.

    Weights and moments are copied into `network` and `optimizer`. A checkpoint of another training,
    or one that cannot be read, is left unused and the state's notes say why; with `resume=True`
    that is an `InputError`. `resume=False` never looks.
    """
    began = TrainingState(micro_batch=micro_batch)
    if resume is False or not file.is_file():
        return began
    try:
        tensors = load_file(file)
        saved = json.loads(tensors.pop("json").numpy().tobytes())
        differing = _differing(saved["identity"], identity)
        state = TrainingState(**saved["state"])
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        differing = [f"it cannot be read ({error})"]
    if differing:
        why = f"the checkpoint {file} is not of this training: {'; '.join(differing)}"
        if resume is True:
            raise InputError(
                f"{why}. Give the same options and data again, or begin anew with resume=False"
            )
        began.notes.append(f"Training began anew: {why}.")
        return began
    _restore(network, optimizer, state, tensors)
    state.resumed_from = len(state.steps)
    return state


def _restore(
    network: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    weights = trained_weights(network)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for key, tensor in tensors.items():
            kind, _, name = key.partition(" ")
            if kind == "weight":
                weights[name].copy_(tensor)
            elif kind == "best":
                state.best_weights[name] = tensor
            else:
                number, _, moment = name.partition(" ")
                moments.setdefault(int(number), {})[moment] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name what differs, with both values where they say something to a reader."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was != now:
            opaque = name.startswith("the ") or max(len(str(was)), len(str(now))) > 60
            found.append(f"{name} changed" if opaque else f"{name} was {was!r} and is {now!r}")
    return found
