"""k-means on embeddings, the words that set a cluster apart, and a 2-D map."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from filters.arguments import FilterError, check_number
from filters.rows import Floats, Ints

Vectors = NDArray[np.float32]

_SMALL = 5_000  # rows up to which k-means may take its time
_MAPPED = 3_000  # rows up to which the map is worth a t-SNE


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """A partition of n rows, the largest cluster first.

    `labels` gives each row's cluster, shape (n,); `centroids` are unit vectors, shape (k, d);
    `prototypes` is the position of the row nearest to each centroid, shape (k,).
    """

    labels: Ints
    centroids: Vectors
    prototypes: Ints


def as_vectors(embeddings: ArrayLike, rows: int | None = None) -> Vectors:
    """Return embeddings as unit vectors, shape (n, d), or raise `FilterError`.

    Args:
        embeddings: Numbers, shape (n, d).
        rows: The n to insist on.
    """
    try:
        vectors = np.asarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise FilterError(
            f"embeddings: {error}; they must be numbers, one row per text; see filters.embed"
        ) from error
    if vectors.ndim != 2 or (len(vectors) and not vectors.shape[1]):
        raise FilterError(
            f"embeddings: the shape is {vectors.shape}; it must be (rows, dimensions); "
            "see filters.embed"
        )
    if rows is not None and len(vectors) != rows:
        raise FilterError(
            f"embeddings: there are {len(vectors)} for {rows} rows; one per row is needed, in the "
            "rows' order; embed the same rows again"
        )
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise FilterError(
            f"embeddings: number {bad} holds NaN or infinity; all must be finite; embed it again"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def cluster(embeddings: ArrayLike, k: int | None = None, *, seed: int = 0) -> Clusters:
    """Group rows by spherical k-means (Dhillon and Modha 2001, with Euclidean steps).

    The result depends on the rows and the seed, not on the rows' order; equal rows share a
    cluster.

    Args:
        embeddings: Shape (n, d).
        k: Number of clusters; by default sqrt(n / 2), from 2 to 1,000. Never more than there are
            distinct rows.
        seed: Seed of the starting centroids.
    """
    if k is not None:
        check_number("cluster", "k", k, low=1, whole=True, remedy="leave it out")
    vectors = as_vectors(embeddings)
    if not len(vectors):
        none = np.empty(0, dtype=np.int64)
        return Clusters(labels=none, centroids=vectors, prototypes=none)
    distinct, place, counts = _distinct(vectors)
    wanted = k or min(max(round(math.sqrt(len(vectors) / 2)), 2), 1_000)
    labels = _fit(vectors[distinct], counts, min(wanted, len(distinct)), seed)[place]
    labels = _largest_first(labels, place)
    centroids = np.zeros((labels.max() + 1, vectors.shape[1]), dtype=np.float64)
    np.add.at(centroids, labels, vectors)
    unit = as_vectors(centroids)
    nearness = np.einsum("ij,ij->i", vectors, unit[labels])
    order = np.lexsort((place, -np.round(nearness, 6), labels))
    prototypes = order[np.unique(labels[order], return_index=True)[1]]
    return Clusters(labels=labels, centroids=unit, prototypes=prototypes)


def _distinct(vectors: Vectors) -> tuple[Ints, Ints, Ints]:
    """Return the distinct rows in an order of their own, where each row went, and how often."""
    rows = np.ascontiguousarray(vectors) + np.float32(0)  # no negative zeros
    digests = np.array([hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in rows])
    _, first, place, counts = np.unique(
        digests, return_index=True, return_inverse=True, return_counts=True
    )
    return first, place, counts


def _fit(vectors: Vectors, counts: Ints, k: int, seed: int) -> Ints:
    from sklearn.cluster import KMeans

    if k == len(vectors):
        return np.arange(k)
    small = len(vectors) <= _SMALL
    means = KMeans(
        k,
        init="k-means++" if small else "random",
        n_init=3 if small else 1,
        max_iter=50 if small else 10,
        random_state=seed,
    )
    with _one_thread(small):
        return np.asarray(means.fit_predict(vectors, sample_weight=counts), dtype=np.int64)


def _one_thread(limited: bool) -> AbstractContextManager[object]:
    """Keep small work on one thread: its sums then come in one order, and spinning costs more."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1) if limited else nullcontext()


def _largest_first(labels: Ints, place: Ints) -> Ints:
    """Renumber clusters by size, ties by their first row in the canonical order."""
    found, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    first = np.full(len(found), np.iinfo(np.int64).max)
    np.minimum.at(first, codes, place)
    rank = np.empty(len(found), dtype=np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(found))
    renumbered: Ints = rank[codes]
    return renumbered


def cluster_words(texts: Sequence[str], labels: ArrayLike, most: int = 5) -> list[list[str]]:
    """Return the words that set each cluster apart, the most telling first.

    A word's weight is the z-score of its log-odds in the cluster against the rest, with a Dirichlet
    prior from the whole (Monroe et al. 2008, "Fightin' Words", eq. 16, 20 and 22), over the
    number of texts that hold it. Only words with a positive weight are named; English function
    words are not, and "dvd's" counts as "dvd".

    Args:
        texts: n texts.
        labels: Each text's cluster, whole numbers from 0, shape (n,).
        most: At most so many words per cluster.

    Returns:
        One list per cluster number, from 0 to the largest.
    """
    codes = np.asarray(labels)
    if len(codes) != len(texts):
        raise FilterError(
            f"cluster_words: there are {len(codes)} labels for {len(texts)} texts; "
            "one per text is needed; pass the labels of the same rows"
        )
    check_number("cluster_words", "most", most, low=1, whole=True, remedy="5 reads well")
    if not len(codes):
        return []
    words, table = _count_words(texts, codes)
    everywhere = table.sum(axis=0)
    # The prior has the weight of one average cluster; more would drown small clusters.
    prior = everywhere * (table.sum() / len(table) / max(table.sum(), 1))
    here, rest = table + prior, everywhere - table + prior
    total, others = here.sum(axis=1, keepdims=True), rest.sum(axis=1, keepdims=True)
    odds = np.log(here / np.maximum(total - here, 1e-9))
    odds -= np.log(rest / np.maximum(others - rest, 1e-9))
    weights = np.where(table > 0, odds / np.sqrt(1 / here + 1 / rest), 0)
    named = []
    for row in weights:
        order = sorted(
            np.flatnonzero(row > 0).tolist(), key=lambda w: (-round(row[w], 9), words[w])
        )
        named.append([words[word] for word in order[:most]])
    return named


def _count_words(texts: Sequence[str], codes: NDArray[Any]) -> tuple[list[str], Floats]:
    """Return the words and how many texts of each cluster hold them, shape (clusters, words)."""
    import polars as pl
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    pattern = r"[\p{L}\p{M}]{2,}(?:['’][\p{L}\p{M}]+)*"
    word = pl.col("word")
    counted = (
        pl.DataFrame({"cluster": codes.astype(np.int64), "word": pl.Series(texts, dtype=pl.String)})
        .with_row_index("text")
        .with_columns(word.str.normalize("NFKC").str.to_lowercase().str.extract_all(pattern))
        .explode("word")
        .drop_nulls()
        .with_columns(word.str.replace("’", "'").str.replace("'s$", ""))
        .filter(~word.is_in(sorted(ENGLISH_STOP_WORDS)) & ~word.str.contains("'t$|'m$|'re$|'ve$"))
        .unique(["text", "word"])
        .group_by("cluster", "word")
        .len()
    )
    words = counted["word"].unique().sort().to_list()
    columns = {word: position for position, word in enumerate(words)}
    table = np.zeros((int(codes.max()) + 1, len(words)))
    where = [columns[word] for word in counted["word"].to_list()]
    table[counted["cluster"].to_numpy(), where] = counted["len"].to_numpy()
    return words, table


def layout(embeddings: ArrayLike, *, seed: int = 0) -> Floats:
    """Place rows on a 2-D map, near ones together; shape (n, 2), both axes from 0 to 1.

    PCA to 50 dimensions, then t-SNE (van der Maaten and Hinton 2008) up to 3,000 distinct rows;
    PCA alone beyond, and below 10. Equal rows share a place. The rows' order does not matter.
    """
    vectors = as_vectors(embeddings)
    if not len(vectors):
        return np.empty((0, 2))
    distinct, place, _ = _distinct(vectors)
    points = vectors[distinct].astype(np.float64)
    points -= points.mean(axis=0)
    if 10 <= len(points) <= _MAPPED:
        points = _tsne(_principal(points, 50, seed), seed)
    else:
        points = _principal(points, 2, seed)
    low, high = points.min(axis=0), points.max(axis=0)
    spread = np.where(high - low > 1e-12, high - low, 1)
    scaled = np.where(high - low > 1e-12, (points - low) / spread, 0.5)
    return np.asarray(scaled[place], dtype=np.float64)


def _principal(points: Floats, most: int, seed: int) -> Floats:
    """Project on the first principal axes, with zeros where there are fewer than two."""
    from sklearn.decomposition import PCA

    axes = min(most, *points.shape)
    if len(points) == 1:
        return np.zeros((1, 2))
    projected = PCA(axes, random_state=seed).fit_transform(points)
    short = max(2 - projected.shape[1], 0)
    return np.pad(projected, ((0, 0), (0, short)))


def _tsne(points: Floats, seed: int) -> Floats:
    from sklearn.manifold import TSNE

    mapping = TSNE(
        perplexity=min(30, (len(points) - 1) / 3),
        init=points[:, :2] / max(points[:, 0].std(), 1e-12) * 1e-4,
        learning_rate="auto",
        max_iter=500,
        random_state=seed,
    )
    with _one_thread(True):
        return np.asarray(mapping.fit_transform(points), dtype=np.float64)
