"""Which pairs are worth comparing: MinHash bands for shingles, matrix blocks for embeddings.

Units are numbered from the one most worth keeping; every pair is (worse, better) with
`worse > better`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from filters.rows import Floats, Ints
from filters.shingles import HASH_BITS, ShingleSets, release, sort_rows
from filters.words import Hashes, in_threads, mix

Counts: TypeAlias = NDArray[np.uint32]
BandKeys: TypeAlias = NDArray[np.uint32]

# A bucket with more members than this is not compared pair by pair, but with its best members.
_BUCKET = 64
_BEST = 32
_RARITY_BITS = 20
_COUNTED = 8_000_000
_FEW = 20_000_000
_MANY = 1_000_000
_RARER = 0.4  # the share of a set's shingles that signs for it
_SKETCH = 128
_AT_ONCE = 50_000
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


def choose_bands(threshold: float, floor: float, permutations: int, texts: int) -> tuple[int, int]:
    """Return (bands, entries per band) for locality-sensitive hashing.

    Two sets that resemble each other by s share a band with probability 1 - (1 - s^r)^b (Leskovec
    et al., Mining of Massive Datasets, section 3.4). Here s is what the rarer parts of two sets
    are expected to resemble each other by where the sets do by `threshold`, or by `floor`. The
    largest r is taken that then misses at most 1 %, or 25 %, of the pairs. Beyond a million texts
    signatures are twice as long, so that r can be larger: chance pairs grow with the square.
    """
    entries_in_all = permutations if texts <= _MANY else 2 * permutations
    upper, lower = (_likely_in_parts(similarity) for similarity in (threshold, floor))
    for entries in range(8, 1, -1):
        bands = entries_in_all // entries
        missed = (1 - upper**entries) ** bands
        if bands and missed <= 0.01 and (1 - lower**entries) ** bands <= 0.25:
            return bands, entries
    return entries_in_all, 1


def _least_in_parts(similarity: float) -> float:
    """Return the least Jaccard similarity of the rarer parts of two sets of one size.

    All that sets them apart may be in the parts, and what they share only as far as there is room.
    """
    apart = (1 - similarity) / (1 + similarity)  # the share of either set that the other lacks
    return max(_RARER - apart, 0.0) / (_RARER + apart)


def _likely_in_parts(similarity: float) -> float:
    """Return what to expect: halfway between the worst case and no difference to whole sets."""
    return (similarity + _least_in_parts(similarity)) / 2


def count_shingles(sets: ShingleSets) -> Counts:
    """Return how often shingles occur, by the first bits of their hashes.

    Where two shingles fall together both look more frequent than they are, to every text alike. Of
    large sets a sample of the texts is counted, chosen by content, so that order is no matter.
    """
    hashes = sets.hashes
    if (share := len(hashes) // _COUNTED) > 1:
        hashes, _ = sets.take(np.flatnonzero(mix(sets.keys) % np.uint64(share) == 0))
    bits = int(np.clip(np.ceil(np.log2(max(len(hashes), 1))) + 1, 10, 24))
    counts = np.zeros(1 << bits, dtype=np.int64)
    for start in range(0, len(hashes), 8_000_000):
        counts += np.bincount(
            hashes[start : start + 8_000_000] >> (HASH_BITS - bits), minlength=len(counts)
        )
    return np.minimum(counts, (1 << _RARITY_BITS) - 1).astype(np.uint32)


@dataclass(frozen=True, kw_only=True)
class Signatures:
    """What is kept of the MinHash signatures of texts.

    `keys` are their keys in every band, shape (bands, n); `sketch` is the last byte of the first
    128 entries at most, shape (n, entries), from which a pair's similarity can be guessed. `place`
    says for each of m units which of the n it is.
    """

    keys: BandKeys
    sketch: NDArray[np.uint8]
    place: Ints


def sign(
    sets: ShingleSets,
    rows: Ints,
    counts: Counts,
    bands: tuple[int, int],
    seed: int,
    folder: Path | None = None,
) -> Signatures:
    """Return the signatures of some rows, one unit per row.

    The MinHash (Broder 1997) is of the rarer part of a set: what many texts have in common, such
    as the words of a template, says little and would propose too many pairs.

    Args:
        sets: The sets of shingles.
        rows: Which of them.
        counts: How often shingles occur, from `count_shingles`.
        bands: Bands and entries per band, from `choose_bands`.
        seed: Of the permutations.
        folder: Where the arrays are kept as files; by default they are kept in memory.
    """
    count, entries = bands
    keys = make_array(folder, "keys", (count, len(rows)), np.uint32)
    width = min(count * entries, _SKETCH)
    sketch = make_array(folder, "sketch", (len(rows), width), np.uint8)
    by_row = np.argsort(rows)

    def sign_part(start: int) -> None:
        part = slice(start, min(start + 2_048, len(rows)))
        theirs = sets.take(rows[by_row[part]])
        keys[:, part], sketch[part] = digest(*rarer_part(*theirs, counts), bands, seed)
        release(keys)
        release(sketch)

    for _ in in_threads(sign_part, range(0, len(rows), 2_048)):
        pass
    place = np.empty(len(rows), dtype=np.int64)
    place[by_row] = np.arange(len(rows))
    return Signatures(keys=keys, sketch=sketch, place=place)


def digest(
    tokens: Hashes, offsets: Hashes, bands: tuple[int, int], seed: int
) -> tuple[BandKeys, NDArray[np.uint8]]:
    """Return band keys, shape (bands, n), and sketches, shape (n, entries), of sets of tokens."""
    from rensa import RMinHash

    count, entries = bands
    rows = RMinHash.digest_matrix_from_flat_token_hashes(
        tokens, offsets, count * entries, seed
    ).to_rows()
    flat = np.fromiter(itertools.chain.from_iterable(rows), np.uint64, len(rows) * count * entries)
    table = flat.reshape(-1, count, entries)
    key = np.zeros(table.shape[:2], dtype=np.uint64)
    for entry in range(entries):
        key = mix(key * np.uint64(0x9E3779B97F4A7C15) + table[:, :, entry])
    sketch = flat.reshape(-1, count * entries)[:, :_SKETCH] & np.uint64(0xFF)
    return (key >> np.uint64(32)).astype(np.uint32).T, sketch.astype(np.uint8)


def make_array(folder: Path | None, name: str, shape: tuple[int, ...], kind: Any) -> Any:
    """Return an array to be filled, in memory or as a file."""
    if folder is None or 0 in shape:
        return np.empty(shape, dtype=kind)
    return np.memmap(folder / f"{name}.bin", dtype=kind, mode="w+", shape=shape)


def rarer_part(hashes: Ints, offsets: Ints, counts: Counts) -> tuple[Hashes, Hashes]:
    """Return the rarer two fifths of each set, as 64-bit tokens, and the offsets."""
    sizes = np.diff(offsets)
    bits = len(counts).bit_length() - 1
    rarity = counts[hashes >> (HASH_BITS - bits)].astype(np.uint64)
    token = rarity << np.uint64(64 - _RARITY_BITS)
    token |= hashes.astype(np.uint64) >> np.uint64(HASH_BITS - 64 + _RARITY_BITS)
    token = sort_rows(token, sizes)
    some = np.ceil(sizes * _RARER).astype(np.int64)
    place = np.arange(len(token)) - np.repeat(offsets[:-1], sizes)
    ends = np.concatenate([[0], np.cumsum(some)]).astype(np.uint64)
    return mix(token[place < np.repeat(some, sizes)]), ends


def are_few(sets: ShingleSets, rows: Ints) -> bool:
    """Say whether the texts are so few, or so short, that comparing each with each is quick."""
    size = int((sets.offsets[rows + 1] - sets.offsets[rows]).sum())
    return len(rows) <= 2_000 and len(rows) * size <= _FEW


def propose_all(units: Ints) -> tuple[Ints, Ints]:
    """Return all pairs (worse, better)."""
    worse, better = np.tril_indices(len(units), -1)
    return units[worse], units[better]


def propose_by_bands(
    signatures: Signatures,
    labels: Ints,
    floor: float,
    units: Ints,
    crowds: Sequence[Ints] | None = None,
) -> tuple[Ints, Ints, list[Ints]]:
    """Return pairs (worse, better) of units that share a band, and the units in crowds, per band.

    Pairs whose signatures speak clearly (by four standard deviations) against a similarity of
    `floor` are left out. A crowd is too large for all its pairs to be listed: each of its units is
    paired with the best of it.

    Args:
        signatures: Of all units, the one most worth keeping first.
        labels: A code per unit, so that in a crowd each label's best are compared too.
        floor: Least similarity of interest.
        units: Which units are of interest, ascending.
        crowds: What an earlier call has returned. Then only these are looked at again.
    """
    place, count = signatures.place, len(signatures.place)
    wanted = np.zeros(count, dtype=bool)
    wanted[units] = True
    least = least_agreement(floor, signatures.sketch.shape[1])

    def pair_up(band: int) -> tuple[Hashes, Ints]:
        mine = units if crowds is None else crowds[band][wanted[crowds[band]]]
        order, group, size = _sort_out(signatures.keys[band][place[mine]])
        release(signatures.keys)
        crowd = size > _BUCKET
        some = [np.empty(0, dtype=np.int64)]
        for worse, better in itertools.chain(
            _pair_all(order[~crowd], group[~crowd]),
            _pair_with_best(order[crowd], group[crowd], labels[mine]),
        ):
            for start in range(0, len(worse), _AT_ONCE):
                one, other = (
                    mine[worse[start : start + _AT_ONCE]],
                    mine[better[start : start + _AT_ONCE]],
                )
                equal = signatures.sketch[place[one]] == signatures.sketch[place[other]]
                near = np.count_nonzero(equal, axis=1) >= least
                some.append(one[near] * count + other[near])
        release(signatures.sketch)
        return np.concatenate(some).astype(np.uint64), np.sort(mine[order[crowd]])

    found, now = [np.empty(0, dtype=np.uint64)], []
    for some, crowd in in_threads(pair_up, range(len(signatures.keys))):
        found.append(some)
        now.append(crowd)
    pairs = _distinct(found).astype(np.int64)
    worse, better = np.divmod(pairs, max(count, 1))
    return worse, better, now


def least_agreement(floor: float, entries: int) -> float:
    """Return how many entries of two signatures agree at least, where the sets resemble by `floor`."""
    least = _least_in_parts(floor)
    return float(entries * least - 4 * np.sqrt(entries * least * (1 - least)))


def _distinct(parts: list[Hashes]) -> Hashes:
    """Return the distinct numbers, sorted (several times faster here than `np.unique`)."""
    numbers = np.sort(np.concatenate(parts))
    fresh = np.ones(len(numbers), dtype=bool)
    fresh[1:] = numbers[1:] != numbers[:-1]
    return numbers[fresh]


def _sort_out(keys: NDArray[np.uint32]) -> tuple[Ints, Ints, Ints]:
    """Return the units that share a key: in the order of keys, with group number and group size."""
    # One sort of whole numbers groups the keys and keeps the units of a key in their order.
    placed = np.sort(
        (keys.astype(np.uint64) << np.uint64(32)) | np.arange(len(keys), dtype=np.uint64)
    )
    starts = np.flatnonzero(np.diff(placed >> np.uint64(32), prepend=np.uint64(1 << 33)))
    sizes = np.diff(starts, append=len(keys))
    shared = np.repeat(sizes > 1, sizes)
    order = (placed[shared] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    sizes = sizes[sizes > 1]
    return order, np.repeat(np.arange(len(sizes)), sizes), np.repeat(sizes, sizes)


def _pair_all(units: Ints, groups: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield all pairs within groups, those of neighbours first; `groups` is sorted."""
    for step in range(1, min(_BUCKET, len(units))):
        same = groups[step:] == groups[:-step]
        if not same.any():
            return
        yield units[step:][same], units[:-step][same]


def _pair_with_best(units: Ints, groups: Ints, labels: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield each unit with the first units of its group, and of its group and label."""
    if not len(units):
        return
    views = [(units, groups)]
    if labels.min() != labels.max():
        by_label = np.lexsort((units, labels[units], groups))
        fine = groups[by_label] * (labels.max() + 2) + labels[units[by_label]] + 1
        views.append((units[by_label], fine))
    for members, belongs in views:
        starts = np.flatnonzero(np.r_[True, belongs[1:] != belongs[:-1]])
        first = np.repeat(starts, np.diff(np.r_[starts, len(belongs)]))
        place = np.arange(len(belongs)) - first
        for best in range(_BEST):
            after = np.flatnonzero(place > best)
            yield members[after], members[first[after] + best]


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
