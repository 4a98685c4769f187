"""What an ablation's students take of memory and disk, and whether there is room for it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from curate.exceptions import CurateError
from curate.references import resolve_model

#: What a training takes beside weights, gradients and moments.
_OTHER_BYTES = 1_500_000_000
#: What a student is taken to need whose weights are not here yet.
_UNKNOWN_BYTES = 4_000_000_000


def count_parameters(folder: Path) -> int | None:
    """Weights in a folder's safetensors files, by their headers; None where there are none."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                size = 1
                for side in entry["shape"]:
                    size *= side
                total += size
    return total or None


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; 0 where there is none."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.exists() else 0


def _model_bytes(model: str, base: Path) -> int | None:
    """Bytes of a student's weights as they lie on this machine; None where they are not here yet."""
    folder = Path(resolve_model(model, "student", base))
    found = [*folder.glob("*.safetensors"), *folder.glob("*.bin")] if folder.is_dir() else []
    return sum(path.stat().st_size for path in found) or None


def jobs_that_fit(jobs: int, models: Sequence[str], base: Path) -> tuple[int, str | None]:
    """How many cells fit side by side, at most ``jobs``, and a note where that is fewer.

    A student takes its weights four times over (weights, gradients, and AdamW's two moments) and 1.5 GB
    for the libraries and a batch. On a GPU the free memory there counts, too.
    """
    if jobs <= 1:
        return 1, None
    sizes = [_model_bytes(model, base) for model in set(models)]
    need = max(4 * size + _OTHER_BYTES if size else _UNKNOWN_BYTES for size in sizes)
    free = _free_memory()
    fit = jobs if free is None else max(1, min(jobs, free // need))
    if fit == jobs:
        return jobs, None
    return fit, (
        f"{fit} of {jobs} jobs are run side by side: a student takes about {need / 1e9:.1f} GB, and "
        f"{(free or 0) / 1e9:.1f} GB are free"
    )


def _free_memory() -> int | None:
    """Bytes that are free in memory or, if that is less, on the GPU; None where it cannot be told."""
    import torch

    found = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    if torch.cuda.is_available():
        found.append(int(torch.cuda.mem_get_info()[0]))
    return min(found, default=None)


def check_disk(folder: Path, models: Sequence[str], base: Path, *, at_once: int | None) -> None:
    """See that the students' weights have room, before the first is trained.

    Args:
        folder: Where they are written.
        models: What each student starts from.
        base: The recipe's folder.
        at_once: How many are there at a time; None where all are kept.

    Raises:
        CurateError: If the disk has less free than they take.
    """
    if not models:
        return
    known = {model: _model_bytes(model, base) or 0 for model in set(models)}
    sizes = [known[model] for model in models]
    need = sum(sizes) if at_once is None else max(sizes) * at_once
    free = shutil.disk_usage(folder).free
    if need > free:
        raise CurateError(
            f"{len(models)} students need about {need / 1e9:.1f} GB until test has been read, and the disk "
            f"that holds {folder} has {free / 1e9:.1f} GB free: make room, name another folder with "
            "--output, or ask for fewer cells"
        )
