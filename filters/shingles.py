"""Shingles (runs of words) of texts, and the exact Jaccard similarity of two texts' sets of them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from filters.rows import Floats, Ints
from filters.words import (
    Hashes,
    as_series,
    chunks,
    hash_words,
    in_threads,
    mix,
    normalise,
    split_words,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "HASH_BITS",
    "ShingleSets",
    "hash_texts",
    "jaccard",
    "normalise",
    "release",
    "shingle",
    "sort_rows",
    "split_words",
]

HASH_BITS = 62  # of a shingle's hash: what fits as a column number of a sparse matrix
_WIDTHS = (32, 64, 128, 256)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class ShingleSets:
    """The sets of shingles of n texts.

    `hashes` (62-bit, stable across machines and versions) are laid end to end: row i's, ascending
    and without repeats, from `offsets[i]` to `offsets[i + 1]`. `keys` has one number per text,
    equal where the sets are equal, shape (n,).
    """

    hashes: Ints
    offsets: Ints
    keys: Hashes

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return the hashes of some rows end to end, and their offsets."""
        sizes = self.offsets[rows + 1] - self.offsets[rows]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        shift = np.repeat(self.offsets[rows] - ends[:-1], sizes)
        taken = self.hashes[np.arange(ends[-1]) + shift]
        release(self.hashes)
        return taken, ends


def release(array: NDArray[Any]) -> None:
    """Give back the memory of an array that is a file; what is needed again is read again."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def shingle(
    fields: Sequence[Sequence[str] | pl.Series],
    lengths: Sequence[int],
    on_progress: Callable[[int], None] | None = None,
) -> ShingleSets:
    """Cut texts into runs of words.

    Args:
        fields: One list of n texts per field; a shingle never spans two fields, and the same
            words in two fields are different shingles.
        lengths: How many words a shingle has; (1, 2) takes words and pairs of neighbours. A text
            with fewer words than the shortest length is one shingle.
        on_progress: Called with the number of rows done.
    """
    columns = [as_series(texts) for texts in fields]
    parts: list[Ints] = []
    sizes = np.zeros(len(columns[0]), dtype=np.int64)
    keys = np.zeros(len(sizes), dtype=np.uint64)

    def cut(part: slice) -> tuple[slice, Hashes, Ints]:
        pieces = [
            piece
            for salt, texts in enumerate(columns)
            for piece in _runs(*hash_words(texts[part]), lengths, salt)
        ]
        return part, *_as_sets(*_interleave(pieces))

    for part, hashes, theirs in in_threads(cut, chunks(columns[0])):
        sizes[part] = theirs
        # A sum does not depend on the order, so equal sets have equal keys.
        keys[part] = np.add.reduceat(mix(hashes), np.cumsum(theirs) - theirs)
        parts.append(hashes.astype(np.int64))
        if on_progress is not None:
            on_progress(part.stop)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return ShingleSets(hashes=_lay_out(parts), offsets=offsets, keys=keys)


def _runs(
    words: Hashes, counts: Ints, lengths: Sequence[int], salt: int
) -> Iterator[tuple[Hashes, Ints]]:
    """Yield for each length the hashes of all runs of words, row after row, and how many each row has.

    Args:
        words: The hashes of all words, row after row.
        counts: How many words each row has.
        lengths: As for `shingle`.
        salt: The number of the field.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    for length in range(1, max(lengths) + 1):
        last = len(words) - length + 1
        if last <= 0 or (length not in lengths and length >= min(lengths)):
            continue
        run = np.full(last, salt * 1_000 + length, dtype=np.uint64)
        for step in range(length):
            run = mix(run * _MULTIPLIER + words[step : step + last])
        inside = row[:last] == row[length - 1 :]
        if length < min(lengths):
            # Below the shortest length only texts of exactly that many words count: whole texts.
            whole = counts == length
            yield run[inside & whole[row[:last]]], whole.astype(np.int64)
        else:
            yield run[inside], np.maximum(counts - length + 1, 0)


def _interleave(pieces: list[tuple[Hashes, Ints]]) -> tuple[Hashes, Ints]:
    """Bring what several pieces have of each row together."""
    sizes = np.sum([theirs for _, theirs in pieces], axis=0)
    whole = np.empty(int(sizes.sum()), dtype=np.uint64)
    free = np.cumsum(sizes) - sizes
    for hashes, theirs in pieces:
        starts = np.cumsum(theirs) - theirs
        whole[np.arange(len(hashes)) + np.repeat(free - starts, theirs)] = hashes
        free = free + theirs
    return whole, sizes


def _as_sets(hashes: Hashes, sizes: Ints) -> tuple[Hashes, Ints]:
    """Shorten hashes, sort them within their rows, and drop repeats there."""
    hashes = sort_rows(hashes >> np.uint64(64 - HASH_BITS), sizes)
    starts = np.cumsum(sizes) - sizes
    fresh = np.ones(len(hashes), dtype=bool)
    fresh[1:] = hashes[1:] != hashes[:-1]
    fresh[starts] = True
    return hashes[fresh], np.add.reduceat(fresh, starts, dtype=np.int64)


def sort_rows(values: Hashes, sizes: Ints) -> Hashes:
    """Sort each row's values; `sizes` are the rows' lengths, none of them 0.

    Short rows are sorted side by side in a rectangle, up to ten times faster than end to end.
    """
    found = np.empty_like(values)
    place = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    low = 0
    for width in _WIDTHS:
        rows = (sizes > low) & (sizes <= width)
        low = width
        if not rows.any():
            continue
        mine = np.flatnonzero(np.repeat(rows, sizes))
        line = np.repeat(np.arange(np.count_nonzero(rows)) * width, sizes[rows]) + place[mine]
        square = np.full(np.count_nonzero(rows) * width, np.iinfo(np.uint64).max, dtype=np.uint64)
        square[line] = values[mine]
        square.reshape(-1, width).sort(axis=1)
        found[mine] = square[line]
    starts = np.cumsum(sizes) - sizes
    for row in np.flatnonzero(sizes > low):
        part = slice(starts[row], starts[row] + sizes[row])
        found[part] = np.sort(values[part])
    return found


def _lay_out(parts: list[Ints]) -> Ints:
    """Concatenate, giving the parts' memory back on the way."""
    whole = np.empty(sum(map(len, parts)), dtype=np.int64)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def hash_texts(texts: Sequence[str] | pl.Series) -> Hashes:
    """Return a number per text, equal where the normalised texts are equal, shape (n,)."""
    column = as_series(texts)
    found = np.empty(len(column), dtype=np.uint64)

    def read(part: slice) -> None:
        words, counts = hash_words(column[part])
        ends = np.cumsum(counts)
        place = np.arange(len(words)) - np.repeat(ends - counts, counts)
        placed = mix(words + place.astype(np.uint64) * _MULTIPLIER)
        # Every text has at least one word, so no segment is empty.
        found[part] = np.add.reduceat(placed, ends - counts)

    for _ in in_threads(read, chunks(column)):
        pass
    return found


def jaccard(sets: ShingleSets, first: Ints, second: Ints, floor: float) -> Floats:
    """Return the exact Jaccard similarity |A and B| / |A or B| of pairs of texts, shape (pairs,).

    Pairs whose sizes alone put them below `floor` are given 0 without being compared.
    """
    sizes = np.diff(sets.offsets)
    small = np.minimum(sizes[first], sizes[second])
    large = np.maximum(sizes[first], sizes[second])
    scores = np.zeros(len(first))
    todo = np.flatnonzero(small >= floor * large)
    # Chunks of about four million entries keep the working memory near 200 MB.
    costs = np.cumsum(small[todo] + large[todo]) // 4_000_000

    def compare(chunk: Ints) -> None:
        shared = _shared(_matrix(sets, first[chunk]), _matrix(sets, second[chunk]))
        scores[chunk] = shared / (small[chunk] + large[chunk] - shared)

    parts = np.split(todo, np.flatnonzero(np.diff(costs)) + 1)
    for _ in in_threads(compare, [part for part in parts if len(part)]):
        pass
    return scores


def _matrix(sets: ShingleSets, rows: Ints) -> Any:
    """Return rows as a sparse 0/1 matrix with a column for every possible hash."""
    from scipy.sparse import csr_matrix

    hashes, offsets = sets.take(rows)
    ones = np.ones(len(hashes), dtype=np.int8)
    matrix = csr_matrix((ones, hashes, offsets), shape=(len(rows), 1 << HASH_BITS))
    # Known beforehand: scipy need not look, and merges the rows instead of filling columns.
    matrix.has_sorted_indices = True
    matrix.has_canonical_format = True
    return matrix


def _shared(left: Any, right: Any) -> Ints:
    shared: Ints = np.diff(left.multiply(right).indptr).astype(np.int64)
    return shared
