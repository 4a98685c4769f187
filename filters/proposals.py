"""Which pairs are worth comparing: MinHash bands for shingles, matrix blocks for embeddings.

Units are numbered from the one most worth keeping; every pair is (worse, better) with
`worse > better`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from filters.rows import Floats, Ints
from filters.shingles import Hashes, ShingleSets

# A bucket with more members than this is not compared pair by pair, but with its best members.
_BUCKET = 64
_BEST = 32
_BLOCK = 8_000_000  # similarities held at once: 32 MB


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs with their similarities; `cut` says that there were too many to list them all."""

    worse: Ints
    better: Ints
    score: Floats
    cut: bool = False


def no_pairs() -> Pairs:
    """Return an empty set of pairs."""
    none = np.empty(0, dtype=np.int64)
    return Pairs(worse=none, better=none, score=np.empty(0))


def choose_bands(threshold: float, floor: float, permutations: int) -> tuple[int, int]:
    """Return (bands, rows per band) for locality-sensitive hashing.

    A pair of similarity s shares a band with probability 1 - (1 - s^r)^b (Leskovec et al., Mining
    of Massive Datasets, section 3.4). The most selective r is taken that misses at most 0.5 % of
    the pairs at the threshold and 10 % of those at the floor.
    """
    for rows in range(8, 1, -1):
        bands = permutations // rows
        missed = (1 - threshold**rows) ** bands
        if bands and missed <= 0.005 and (1 - floor**rows) ** bands <= 0.1:
            return bands, rows
    return permutations, 1


def sign(sets: ShingleSets, permutations: int, seed: int) -> NDArray[np.uint32]:
    """Return MinHash signatures, shape (n, permutations)."""
    from rensa import RMinHash

    count = len(sets.offsets) - 1
    signatures = np.empty((count, permutations), dtype=np.uint32)
    for start in range(0, count, 10_000):  # in parts, since they come as lists of Python integers
        stop = min(start + 10_000, count)
        first, last = sets.offsets[start], sets.offsets[stop]
        digests = RMinHash.digest_matrix_from_flat_token_hashes(
            sets.hashes[first:last],
            (sets.offsets[start : stop + 1] - first).astype(np.uint64),
            permutations,
            seed,
        )
        signatures[start:stop] = digests.to_rows()
    return signatures


def propose_by_bands(
    signatures: NDArray[np.uint32], labels: Ints, bands: int, rows: int
) -> tuple[Ints, Ints, bool]:
    """Return pairs (worse, better) that share a band, and whether crowded bands were cut short.

    Args:
        signatures: Shape (m, permutations), the unit most worth keeping first.
        labels: A code per unit, so that in a crowded band each label's best are compared too.
        bands: How many bands to cut the signatures into.
        rows: Signature entries per band.
    """
    count = len(signatures)
    found: list[Hashes] = [np.empty(0, dtype=np.uint64)]
    held, cut = 0, False
    for band in range(bands):
        part = signatures[:, band * rows : (band + 1) * rows].astype(np.uint64)
        keys = np.zeros(count, dtype=np.uint64)
        for entry in range(rows):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + part[:, entry] + np.uint64(1)
        worse, better, crowded = _pair_up(keys, labels)
        cut |= crowded
        found.append((worse * count + better).astype(np.uint64))
        held += len(worse)
        if held > 20_000_000:  # keep the list of repeats short
            found, held = [_distinct(found)], 0
    pairs = _distinct(found).astype(np.int64)
    return pairs // max(count, 1), pairs % max(count, 1), cut


def _distinct(parts: list[Hashes]) -> Hashes:
    """Return the distinct numbers, sorted (several times faster here than `np.unique`)."""
    numbers = np.sort(np.concatenate(parts))
    fresh = np.ones(len(numbers), dtype=bool)
    fresh[1:] = numbers[1:] != numbers[:-1]
    return numbers[fresh]


def _pair_up(keys: Hashes, labels: Ints) -> tuple[Ints, Ints, bool]:
    """Pair the units that share a key; in crowded keys, each with the best only."""
    order = np.argsort(keys, kind="stable")
    _, group, sizes = np.unique(keys[order], return_inverse=True, return_counts=True)
    size = sizes[group]
    worse: list[Ints] = []
    better: list[Ints] = []
    members, belongs = order[(size > 1) & (size <= _BUCKET)], group[(size > 1) & (size <= _BUCKET)]
    for step in range(1, _BUCKET):
        same = belongs[step:] == belongs[:-step] if step < len(belongs) else np.empty(0, bool)
        if not same.any():
            break
        worse.append(members[step:][same])
        better.append(members[:-step][same])
    crowded, belongs = order[size > _BUCKET], group[size > _BUCKET]
    if len(crowded):
        views = [(crowded, belongs)]
        if labels.min() != labels.max():
            by_label = np.lexsort((crowded, labels[crowded], belongs))
            fine = belongs[by_label] * (labels.max() + 2) + labels[crowded[by_label]] + 1
            views.append((crowded[by_label], fine))
        for units, groups in views:
            one, other = _pair_with_best(units, groups)
            worse.append(one)
            better.append(other)
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *worse]), np.concatenate([empty, *better]), bool(len(crowded))


def _pair_with_best(units: Ints, groups: Ints) -> tuple[Ints, Ints]:
    """Pair every unit with the first `_BEST` of its group; `groups` is sorted."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    first = np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    place = np.arange(len(groups)) - first
    worse, better = [], []
    for best in range(_BEST):
        after = np.flatnonzero(place > best)
        worse.append(units[after])
        better.append(units[first[after] + best])
    return np.concatenate(worse), np.concatenate(better)


def propose_by_cosine(vectors: NDArray[np.float32], labels: Ints, floor: float) -> Pairs:
    """Return all pairs whose cosine is at least `floor`, found exactly, block by block.

    Args:
        vectors: L2-normalised, shape (m, d), the unit most worth keeping first.
        labels: A code per unit. Each unit is paired with at most `_BEST` better ones of its own
            label and as many of other labels, those most worth keeping first.
        floor: Least cosine of interest.
    """
    count = len(vectors)
    found: list[Pairs] = [no_pairs()]
    height = max(1, min(1_024, _BLOCK // max(count, 1)))
    for start in range(0, count, height):
        stop = min(start + height, count)
        cosines = vectors[start:stop] @ vectors[:stop].T
        # The last digits of a block product depend on its shape: look a little lower here, and
        # take the score of a pair from the pair alone.
        row, better = np.nonzero(cosines >= floor - 1e-5)
        earlier = better < row + start
        row, better = row[earlier], better[earlier]
        worse = row + start
        groups = worse * 2 + (labels[worse] != labels[better])
        order = np.argsort(groups, kind="stable")
        sorted_groups = groups[order]
        place = np.arange(len(order)) - np.searchsorted(sorted_groups, sorted_groups)
        few = order[place < _BEST]
        score = _cosine(vectors, worse[few], better[few])
        near = score >= floor
        few, score = few[near], score[near]
        cut = bool((place >= _BEST).any())
        found.append(Pairs(worse=worse[few], better=better[few], score=score, cut=cut))
    return Pairs(
        worse=np.concatenate([pairs.worse for pairs in found]).astype(np.int64),
        better=np.concatenate([pairs.better for pairs in found]).astype(np.int64),
        score=np.concatenate([pairs.score for pairs in found]),
        cut=any(pairs.cut for pairs in found),
    )


def _cosine(vectors: NDArray[np.float32], first: Ints, second: Ints) -> Floats:
    scores = np.empty(len(first))
    for start in range(0, len(first), 10_000):
        part = slice(start, start + 10_000)
        left = vectors[first[part]].astype(np.float64)
        scores[part] = np.einsum("ij,ij->i", left, vectors[second[part]].astype(np.float64))
    return np.clip(scores, -1.0, 1.0)
