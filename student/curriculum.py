"""In which order the rows of an epoch come."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

from student.batches import POOL_BATCHES, bucketed_batches

__all__ = ["CURRICULA", "epoch_batches"]

CURRICULA = ("confidence",)
POOLS = 10


def epoch_batches(
    lengths: Sequence[int],
    batch_size: int,
    *,
    confidences: Sequence[float | None] | None,
    seed: int,
    epoch: int,
) -> list[list[int]]:
    """Cut the places 0..n-1 into the batches of an epoch, each place once.

    Without `confidences`, and in every epoch but the first, the order is random
    (`bucketed_batches`). With them the first epoch goes from easy to hard (Bengio et al. 2009,
    "Curriculum Learning"): rows by falling confidence of the teacher, those of equal confidence in
    random order, those without one last. They are cut into at least ten pools (if there are ten
    batches) of at most 32 batches; in a pool, batches are of similar length and in random order.
    Every epoch has the same rows and the same number of steps, with a curriculum or without.
    """
    if confidences is None or epoch > 1:
        return bucketed_batches(lengths, batch_size, seed=seed, epoch=epoch)
    shuffle = random.Random(f"{seed}/curriculum")
    places = list(range(len(lengths)))
    shuffle.shuffle(places)
    places.sort(key=lambda place: _difficulty(confidences[place]))
    count = len(bucketed_batches(lengths, batch_size, seed=seed, epoch=epoch))
    pools = min(count, max(POOLS, -(-count // POOL_BATCHES)))
    batches: list[list[int]] = []
    for first, end in pairwise(count * pool // pools for pool in range(pools + 1)):
        pool = _part(places, first, end, count)
        pool.sort(key=lambda place: lengths[place])
        cut = [_part(pool, i, i + 1, end - first) for i in range(end - first)]
        shuffle.shuffle(cut)
        batches += cut
    return batches


def _part(places: Sequence[int], first: int, end: int, parts: int) -> list[int]:
    """Return parts `first` to `end` of `places` cut into `parts` whose sizes differ by at most one."""
    return list(places[len(places) * first // parts : len(places) * end // parts])


def _difficulty(confidence: float | None) -> float:
    return math.inf if confidence is None or math.isnan(confidence) else -confidence
