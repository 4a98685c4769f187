"""Embeddings on disk: vectors once computed, found again by the hash of their text.

A folder per model and precision holds `keys.bin` (16 bytes per text), `vectors.f32` (d float32
per text, same order, memory-mapped when read) and `about.json`. Both files only grow, vectors
before keys, so a process killed at any moment leaves at worst a torn tail, which the next one
ignores and then overwrites.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from filters.arguments import FilterError

_KEY_BYTES = 16


def text_key(text: str) -> bytes:
    """Return the key of a text: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:_KEY_BYTES]


def model_folder(cache: Path, identity: str) -> Path:
    """Return the folder inside `cache` for one model identity."""
    return cache / "embeddings" / hashlib.sha256(identity.encode()).hexdigest()[:16]


def read_vectors(folder: Path, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
    """Return the vectors in the cache, by key; keys that are not there are left out.

    The vectors are views of a read-only memory map.

    Raises:
        FilterError: The folder is there but cannot be read.
    """
    about = folder / "about.json"
    if not about.exists():
        return {}
    with _readable(folder):
        dimension = _dimension(folder)
        known = (folder / "keys.bin").read_bytes() if (folder / "keys.bin").exists() else b""
        count = _records(folder, dimension)
        if not count:
            return {}
        vectors = np.memmap(folder / "vectors.f32", dtype="<f4", mode="r", shape=(count, dimension))
    wanted = set(keys)
    places = {
        known[start : start + _KEY_BYTES]: start // _KEY_BYTES
        for start in range(0, count * _KEY_BYTES, _KEY_BYTES)
    }
    return {key: vectors[place] for key, place in places.items() if key in wanted}


def append_vectors(
    folder: Path, identity: str, keys: Sequence[bytes], vectors: NDArray[np.float32]
) -> None:
    """Add vectors, shape (len(keys), d); safe beside other processes doing the same.

    Raises:
        FilterError: The cache cannot be written, or holds vectors of another dimension.
    """
    from filelock import FileLock

    dimension = vectors.shape[1]
    with _readable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not (folder / "about.json").exists():
                _write_about(folder, identity, dimension)
            if (held := _dimension(folder)) != dimension:
                raise FilterError(
                    f"embedding cache {folder}: it holds vectors of {held} numbers and the model "
                    f"{identity!r} now gives {dimension}; name the model differently or remove "
                    "the folder"
                )
            count = _records(folder, dimension)
            _append(folder / "vectors.f32", count * dimension * 4, vectors.astype("<f4").tobytes())
            _append(folder / "keys.bin", count * _KEY_BYTES, b"".join(keys))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise FilterError(
            f"embedding cache {folder}: {error}; it must be a folder that can be read and "
            "written, on a disk with room; name another one or remove it"
        ) from error


def _dimension(folder: Path) -> int:
    return int(json.loads((folder / "about.json").read_text("utf-8"))["dimension"])


def _write_about(folder: Path, identity: str, dimension: int) -> None:
    about = folder / f"about.json.{os.getpid()}"
    text = json.dumps({"model": identity, "dimension": dimension})
    about.write_text(text + "\n", encoding="utf-8")
    about.replace(folder / "about.json")


def _records(folder: Path, dimension: int) -> int:
    """Return how many whole records both files hold."""
    sizes = []
    for name, size in (("keys.bin", _KEY_BYTES), ("vectors.f32", dimension * 4)):
        path = folder / name
        sizes.append(path.stat().st_size // size if path.exists() else 0)
    return min(sizes)


def _append(path: Path, size: int, data: bytes) -> None:
    """Cut the file to `size` bytes, which drops a torn tail, and add `data` durably."""
    with path.open("ab") as file:
        file.truncate(size)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
