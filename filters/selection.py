"""Select: a training set of a given size. Also, which rows to have labelled next."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from filters.arguments import FilterError, check_choice, check_number
from filters.clusters import Vectors, as_vectors, cluster
from filters.coverage import facilities, farthest_first, mean_coverage
from filters.frames import read_clusters
from filters.rows import Flags, Floats, Ints, Judgement, Rows, drop_lines, missing

Ways = ("prototypes", "k_center", "facility_location", "uncertainty", "random")
_DRAWS = 3


@dataclass(frozen=True, kw_only=True)
class Select:
    """Keep a budget of rows and drop the rest. Put it last.

    Args:
        rows: How many rows stay, if there are that many.
        by: How they are chosen.
            "prototypes": each cluster gives rows in proportion to its size (largest remainders),
            those nearest its centroid first (Sorscher et al. 2022, the "easy" end).
            "k_center": the row least like those already chosen comes next, which is a
            2-approximation of the smallest radius that covers all rows (Gonzalez 1985; Sener and
            Savarese 2018). Outliers come early.
            "facility_location": greedily maximises the sum over all rows of the highest cosine to
            a chosen one (Nemhauser et al. 1978, at least 1 - 1/e of the best; lazily, Minoux
            1978). A row is covered by rows of its own cluster only, and clusters above 1,000 rows
            are cut into parts at random, so that no large matrix is needed.
            "uncertainty": the rows between whose two likeliest labels the teacher's probabilities
            differ least (margin sampling, Scheffer et al. 2001), or with the lowest confidence
            where there are no probabilities. With a teacher that errs these are also the rows on
            which it errs most.
            "random": by a hash of seed and id, so that a larger budget keeps a smaller one's rows.

    The score is the row's place among the chosen, from 1, divided by `rows`; a row that is not
    chosen has a score above 1 (the next place, where no order goes further) and is dropped.
    Ties go to the row more worth keeping. With embeddings a note compares the mean highest cosine
    of all rows to a chosen one with that of random choices of as many rows.
    """

    reason: ClassVar[str] = "select"
    rows: int = 1_000
    by: str = "facility_location"

    def __post_init__(self) -> None:
        check_number(self.reason, "rows", self.rows, low=1, whole=True, remedy="try 1000")
        check_choice(self.reason, "by", self.by, Ways)

    def judge(self, rows: Rows) -> Judgement:
        """Rank the rows still alive and keep the first."""
        pool = rows.order[rows.alive[rows.order]]
        if rows.embeddings is None and self.by not in ("uncertainty", "random"):
            raise FilterError(
                f"select: embeddings is None, and by={self.by!r} needs one vector per row; pass "
                "embeddings=filters.embed(texts, model) to apply, or choose by 'random'"
            )
        scores = np.full(len(rows), (self.rows + 1) / self.rows)
        chosen = pool
        if len(pool) > self.rows or self.by in ("uncertainty", "random"):
            chosen = pool[self._choose(rows, pool)]
        scores[chosen] = np.arange(1, len(chosen) + 1) / self.rows
        dropped: Flags = rows.alive & (scores > 1)
        return Judgement(
            scores=scores,
            dropped=dropped,
            threshold=1.0,
            matches=drop_lines(np.flatnonzero(dropped), scores),
            notes=self._compare(rows, pool, rows.alive & ~dropped) if dropped.any() else (),
        )

    def _choose(self, rows: Rows, pool: Ints) -> Ints:
        """Return places in `pool`, best first: all of them, or the first `rows`."""
        rows.report(self.reason, 0, self.rows)
        if self.by == "uncertainty":
            return np.argsort(_margins(rows)[pool], kind="stable")
        if self.by == "random" or rows.embeddings is None:
            return np.argsort(_lots(rows, pool, 0), kind="stable")
        vectors = rows.embeddings[pool]
        if self.by == "k_center":
            return farthest_first(vectors, self.rows)
        groups = _groups(rows, pool, vectors)
        if self.by == "prototypes":
            return _prototypes(vectors, groups, self.rows)
        return facilities(vectors, groups, self.rows, _lots(rows, pool, 0))

    def _compare(self, rows: Rows, pool: Ints, stays: Flags) -> tuple[str, ...]:
        """Say how well the chosen rows cover the others, beside random rows."""
        if rows.embeddings is None:
            return ()
        # At most 5,000 rows, drawn once, stand for all: the product would take minutes otherwise.
        judged = rows.embeddings[pool[np.argsort(_lots(rows, pool, -1))[:5_000]]]
        count = int(stays.sum())
        ours = mean_coverage(judged, rows.embeddings[pool[stays[pool]]])
        draws = [
            mean_coverage(judged, rows.embeddings[pool[np.argsort(_lots(rows, pool, n))[:count]]])
            for n in range(1, _DRAWS + 1)
        ]
        return (
            f"select: {count} of {len(pool)} rows by {self.by} cover the rows with a mean highest "
            f"cosine of {ours:.4f}; {_DRAWS} random choices of as many with {min(draws):.4f} to "
            f"{max(draws):.4f}",
        )


def _lots(rows: Rows, pool: Ints, draw: int) -> NDArray[np.uint64]:
    """Return a random number per row that depends on seed, draw and id alone."""
    return np.array(
        [
            int.from_bytes(
                hashlib.blake2b(
                    f"{rows.seed}\0{draw}\0{rows.ids[place]}".encode(), digest_size=8
                ).digest()
            )
            for place in pool
        ],
        dtype=np.uint64,
    )


def _margins(rows: Rows) -> Floats:
    """Return how much likelier the first label is than the second, NaN last in any order."""
    frame = rows.frame
    margins = np.full(len(rows), np.nan)
    if "label_probs" in frame.columns:
        for place, probabilities in enumerate(frame["label_probs"].tolist()):
            if probabilities is None or isinstance(probabilities, float):
                continue
            ranked = sorted((float(one) for one in probabilities), reverse=True)
            if len(ranked) > 1 and np.isfinite(ranked).all():
                margins[place] = ranked[0] - ranked[1]
    if not np.isnan(margins).all():
        return margins
    if "confidence" not in frame.columns:
        raise FilterError(
            "select: by='uncertainty' needs a column 'label_probs' or 'confidence', and there is "
            "neither; ask the teacher for one or choose another way"
        )
    from filters.quality import confidences

    return confidences(rows, "select")


def _groups(rows: Rows, pool: Ints, vectors: Vectors) -> Ints:
    """Return a cluster per row of the pool: the one that it has, else of its own making."""
    if "cluster" in rows.frame.columns and not missing(rows.frame["cluster"]).any():
        codes = np.unique(rows.frame["cluster"].to_numpy()[pool], return_inverse=True)[1]
        return np.asarray(codes, dtype=np.int64)
    return cluster(vectors, seed=rows.seed).labels


def _prototypes(vectors: Vectors, groups: Ints, count: int) -> Ints:
    """Return the rows nearest their centroids, the same share of every cluster."""
    sizes = np.bincount(groups)
    centroids = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(centroids, groups, vectors)
    nearness = np.round(np.einsum("ij,ij->i", vectors, as_vectors(centroids)[groups]), 6)
    order = np.lexsort((np.arange(len(groups)), -nearness, groups))
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = np.flatnonzero(place < share_out(count, sizes.astype(np.float64), sizes)[groups])
    return taken[np.lexsort((taken, -nearness[taken], place[taken]))]


def share_out(budget: int, weights: Floats, most: Ints) -> Ints:
    """Divide a budget in proportion to weights, by largest remainders, none above its `most`.

    What a group cannot use goes to the others. Ties go to the first group.
    """
    given = np.zeros(len(weights), dtype=np.int64)
    left = min(budget, int(most.sum()))
    while left > 0:
        room = most - given
        open_ = room > 0
        share = np.where(open_, np.maximum(weights, 1e-12), 0)
        exact = left * share / share.sum()
        whole = np.minimum(np.floor(exact).astype(np.int64), room)
        if not whole.sum():
            first = np.lexsort((np.arange(len(weights)), -exact))[:left]
            whole[first] = np.minimum(1, room[first])
        given += whole
        left -= int(whole.sum())
    return given


def next_to_label(
    embeddings: ArrayLike,
    clusters: ArrayLike,
    labelled: ArrayLike,
    budget: int,
    *,
    confidence: ArrayLike | None = None,
) -> Ints:
    """Choose which rows to send to the teacher next, a cluster at a time.

    The budget is divided by Neyman's (1934) allocation: a cluster's part is in proportion to its
    unlabelled rows times the standard deviation sqrt(u (1 - u)) of its labels, where the doubt u is
    the mean of 1 - confidence of its labelled rows, shrunk to the mean of all with the weight of
    two rows, and between .05 and .5. Without confidences the part is in proportion to the
    unlabelled rows. Within a cluster rows are taken farthest first from those that are labelled
    or chosen, from the middle of the cluster where none is.

    Args:
        embeddings: Shape (n, d).
        clusters: Whole numbers, shape (n,).
        labelled: True where a row has its label already, shape (n,).
        budget: How many rows may be labelled.
        confidence: Probability of each row's label, shape (n,); NaN, or anything, where unlabelled.

    Returns:
        Positions of at most `budget` unlabelled rows, the most wanted of each cluster first.

    Raises:
        FilterError: An argument that does not fit the others.
    """
    vectors = as_vectors(embeddings)
    groups = np.unique(read_clusters(clusters, len(vectors)), return_inverse=True)[1]
    check_number("next_to_label", "budget", budget, low=0, whole=True, remedy="try 100")
    has = np.asarray(labelled)
    if has.shape != (len(vectors),) or has.dtype != np.bool_:
        raise FilterError(
            f"next_to_label: labelled has shape {has.shape} and type {has.dtype}; it must be true or "
            f"false for each of the {len(vectors)} rows"
        )
    count = int(groups.max(initial=-1)) + 1
    free = np.bincount(groups[~has], minlength=count)
    spread = np.ones(count)
    if confidence is not None:
        spread = _spread(groups, has, np.asarray(confidence, dtype=np.float64), count)
    budgets = share_out(budget, free * spread, free)
    chosen, turns = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for number in np.flatnonzero(budgets):
        members = np.flatnonzero(groups == number)
        known = members[has[members]]
        open_ = members[~has[members]]
        picked = farthest_first(vectors[open_], int(budgets[number]), vectors[known])
        chosen.append(open_[picked])
        turns.append(np.arange(len(picked)))
    rows = np.concatenate(chosen)
    return rows[np.lexsort((rows, groups[rows], np.concatenate(turns)))]


def _spread(groups: Ints, labelled: Flags, confidence: Floats, count: int) -> Floats:
    """Return each cluster's estimated standard deviation of the labels being right."""
    if confidence.shape != labelled.shape:
        raise FilterError(
            f"next_to_label: confidence has shape {confidence.shape}; one number for each of the "
            f"{len(labelled)} rows is needed"
        )
    told = labelled & np.isfinite(confidence)
    doubt = 1 - np.clip(confidence[told], 0, 1)
    overall = doubt.mean() if len(doubt) else 0.5
    sums = np.bincount(groups[told], weights=doubt, minlength=count)
    seen = np.bincount(groups[told], minlength=count)
    mean = np.clip((sums + 2 * overall) / (seen + 2), 0.05, 0.5)
    return np.asarray(np.sqrt(mean * (1 - mean)))
