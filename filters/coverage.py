"""Which rows stand for the others: farthest-first and facility location, both greedy and exact."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from filters.rows import Floats, Ints

Vectors = NDArray[np.float32]

_WATCHED = 1_024  # rows among which choices are made before all are looked at again
_MOST = 8_192
_TAKEN = 4.0  # above any cosine
_PART = 1_000  # rows that may cover one another in facility location


def farthest_first(vectors: Vectors, count: int, known: Vectors | None = None) -> Ints:
    """Return positions of `count` rows, each the one least like all chosen before it.

    Gonzalez (1985), O(n k d) in matrix products. The cosine to the nearest chosen row only ever
    rises, so as long as the lowest one among the rows that were farthest is no higher than that of
    any other row was, the next choice is among them: many are made before all rows are looked at again.
    The first row is the one nearest the mean, unless there are `known` rows to be far from. Ties go
    to the first row; equal rows come last.

    Args:
        vectors: L2-normalised, shape (n, d).
        count: How many to choose; at most n are.
        known: Rows that are chosen already, shape (m, d).
    """
    count = min(count, len(vectors))
    if not count:
        return np.empty(0, dtype=np.int64)
    chosen: list[int] = []
    if known is not None and len(known):
        nearest = _highest(vectors, known)
    else:
        nearest = np.full(len(vectors), -2.0)
        middle = np.round(vectors @ vectors.mean(axis=0, dtype=np.float64), 6)
        nearest[int(np.argmax(middle))] = -3.0  # farther than any: it is taken first
    watched = _WATCHED
    while len(chosen) < count:
        rank = min(watched, len(vectors)) - 1
        limit = float(np.partition(nearest, rank)[rank])
        # In the first rounds all rows are as far: one choice, and then look again.
        pool = (
            np.flatnonzero(nearest <= limit) if chosen or known is not None else np.argmin(nearest)
        )
        pool = np.atleast_1d(pool)
        near, own = nearest[pool].copy(), vectors[pool]
        fresh: list[int] = []
        while len(chosen) + len(fresh) < count:
            place = int(np.argmin(near))
            if near[place] > limit:
                break
            fresh.append(int(pool[place]))
            near = np.maximum(near, np.round(own @ own[place], 6))
            near[place] = _TAKEN
        nearest = np.maximum(nearest, _highest(vectors, vectors[fresh]))
        nearest[fresh] = _TAKEN
        chosen += fresh
        if len(fresh) < 32:
            watched = min(2 * watched, _MOST)
        elif len(fresh) > 128:
            watched = max(watched // 2, _WATCHED)
    return np.array(chosen, dtype=np.int64)


def _highest(vectors: Vectors, others: Vectors) -> Floats:
    """Return each row's highest cosine to the others, shape (n,), block by block.

    Rounded to six digits: the last ones depend on the shape of the product.
    """
    highest = np.full(len(vectors), -1.0)
    height = max(1, 8_000_000 // max(len(others), 1))
    for start in range(0, len(vectors), height):
        block = vectors[start : start + height] @ others.T
        highest[start : start + height] = block.max(axis=1)
    return np.round(highest, 6)


def facilities(vectors: Vectors, groups: Ints, count: int, lots: NDArray[np.uint64]) -> Ints:
    """Return positions of `count` rows that greedily maximise sum_i max_j max(0, cos(i, j)).

    i runs over all rows and j over the chosen ones of the same part. Parts are the groups, those
    above 1,000 rows cut at random. Since a gain only ever falls, a stale one is an upper bound
    (Minoux 1978): the greedy choice is exact though few gains are computed anew.

    Args:
        vectors: L2-normalised, shape (n, d).
        groups: A group per row, shape (n,).
        count: How many to choose; fewer than n.
        lots: A random number per row, for cutting large groups.
    """
    parts = _cut(groups, lots)
    cosines = [np.maximum(np.round(vectors[part] @ vectors[part].T, 6), 0) for part in parts]
    covered = [np.zeros(len(part), dtype=np.float32) for part in parts]
    queue = [
        (-round(float(gain), 4), int(row), number, place, 0)
        for number, part in enumerate(parts)
        for place, (row, gain) in enumerate(
            zip(part, cosines[number].sum(axis=1, dtype=np.float64), strict=True)
        )
    ]
    heapq.heapify(queue)
    sizes = np.zeros(len(parts), dtype=np.int64)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        _, row, number, place, at = heapq.heappop(queue)
        if at == sizes[number]:
            chosen.append(row)
            sizes[number] += 1
            covered[number] = np.maximum(covered[number], cosines[number][place])
            continue
        more = np.maximum(cosines[number][place] - covered[number], 0).sum(dtype=np.float64)
        entry = (-round(float(more), 4), row, number, place, int(sizes[number]))
        heapq.heappush(queue, entry)
    return np.array(chosen, dtype=np.int64)


def _cut(groups: Ints, lots: NDArray[np.uint64]) -> list[Ints]:
    """Return the positions in each group, large groups in parts of at most `_PART`."""
    parts = []
    for number in np.unique(groups):
        members = np.flatnonzero(groups == number)
        pieces = -(-len(members) // _PART)
        drawn = members[np.argsort(lots[members], kind="stable")]
        parts += [np.sort(piece) for piece in np.array_split(drawn, pieces)]
    return parts


def mean_coverage(vectors: Vectors, chosen: Vectors) -> float:
    """Return the mean over rows of the highest cosine to a chosen row."""
    return float(_highest(vectors, chosen).mean())
