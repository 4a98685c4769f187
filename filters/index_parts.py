"""The parts of a near-duplicate index on disk: a folder of arrays each, never changed once there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filters.arguments import FilterError
from filters.proposals import BandKeys, Counts, digest, rarer_part
from filters.rows import Ints
from filters.shingles import ShingleSets, release
from filters.words import Hashes, in_threads

_ARRAYS = ("hashes", "offsets", "keys", "placed", "sketch")
_AT_ONCE = 2_048


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some rows of an index.

    `placed` holds for every band the rows' keys in ascending order, each with the row's number in
    its last 32 bits, shape (bands, n); `sketch` is as in `Signatures`.
    """

    ids: list[str]
    labels: list[str | None]
    sets: ShingleSets
    placed: Hashes
    sketch: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    def candidates(self, band_keys: BandKeys, crowd: int) -> tuple[Ints, Ints]:
        """Return pairs (new row, row of this part) that share a band, each once.

        Args:
            band_keys: Of the new rows, shape (bands, m).
            crowd: Of a band's key, the first so many rows only.
        """
        found = [np.empty(0, dtype=np.int64)]
        count = len(self)
        for band, keys in zip(self.placed, band_keys, strict=True):
            low = keys.astype(np.uint64) << np.uint64(32)
            first = np.searchsorted(band, low)
            sizes = np.searchsorted(band, low | np.uint64(0xFFFFFFFF), side="right") - first
            sizes = np.minimum(sizes, crowd)
            new = np.repeat(np.arange(len(keys)), sizes)
            place = np.arange(len(new)) + np.repeat(first - np.cumsum(sizes) + sizes, sizes)
            old = (band[place] & np.uint64(0xFFFFFFFF)).astype(np.int64)
            found.append(new * count + old)
            release(self.placed)
        pairs = np.unique(np.concatenate(found))
        return pairs // max(count, 1), pairs % max(count, 1)


def sign_rows(
    sets: ShingleSets, counts: Counts, bands: tuple[int, int], seed: int
) -> tuple[BandKeys, NDArray[np.uint8]]:
    """Return band keys, shape (bands, n), and sketches, shape (n, entries), of all rows of `sets`."""

    def sign_part(start: int) -> tuple[BandKeys, NDArray[np.uint8]]:
        rows = np.arange(start, min(start + _AT_ONCE, len(sets)))
        return digest(*rarer_part(*sets.take(rows), counts), bands, seed)

    signed = list(in_threads(sign_part, range(0, len(sets), _AT_ONCE)))
    keys = np.concatenate([part for part, _ in signed], axis=1)
    return keys, np.concatenate([part for _, part in signed])


def write_part(
    path: Path,
    ids: Sequence[str],
    labels: Sequence[str | None],
    sets: ShingleSets,
    band_keys: BandKeys,
    sketch: NDArray[np.uint8],
) -> None:
    """Write a part under a temporary name, to the disk, and rename it."""
    import pyarrow as pa
    from pyarrow import parquet

    draft = path.with_name(f"part-draft-{path.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    rows = np.arange(len(ids), dtype=np.uint64)
    placed = np.sort((band_keys.astype(np.uint64) << np.uint64(32)) | rows, axis=1)
    arrays: tuple[Any, ...] = (sets.hashes, sets.offsets, sets.keys, placed, sketch)
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(draft / f"{name}.npy", array)
    names = pa.table({"id": pa.array(ids, pa.string()), "label": pa.array(labels, pa.string())})
    parquet.write_table(names, draft / "rows.parquet")
    for file in draft.iterdir():
        sync(file)
    draft.replace(path)
    sync(path.parent)


def open_part(path: Path) -> Part:
    """Return a part; its arrays stay on the disk and are read where they are needed."""
    from pyarrow import parquet

    try:
        arrays: dict[str, Any] = {
            name: np.load(path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS
        }
        rows = parquet.read_table(path / "rows.parquet").to_pydict()
    except (OSError, ValueError) as error:
        raise FilterError(
            f"{path} is damaged ({error}); restore it, or remove the index and add the rows again"
        ) from error
    sets = ShingleSets(
        hashes=arrays["hashes"], offsets=np.array(arrays["offsets"]), keys=np.array(arrays["keys"])
    )
    return Part(
        ids=rows["id"],
        labels=rows["label"],
        sets=sets,
        placed=arrays["placed"],
        sketch=arrays["sketch"],
    )


def join_sets(parts: Sequence[ShingleSets]) -> ShingleSets:
    """Return the sets of several parts, one part after the other."""
    ends = np.cumsum([0, *(int(part.offsets[-1]) for part in parts)])
    offsets = [part.offsets[:-1] + end for part, end in zip(parts, ends, strict=False)]
    return ShingleSets(
        hashes=np.concatenate([part.hashes for part in parts]),
        offsets=np.concatenate([*offsets, ends[-1:]]),
        keys=np.concatenate([part.keys for part in parts]),
    )


def some_sets(sets: ShingleSets, rows: Ints) -> ShingleSets:
    """Return the sets of some rows."""
    hashes, offsets = sets.take(rows)
    return ShingleSets(hashes=hashes, offsets=offsets, keys=sets.keys[rows])


def sync(path: Path) -> None:
    """Have the operating system write a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
