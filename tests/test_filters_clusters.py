"""Clusters, their words, and the map."""

from __future__ import annotations

import numpy as np
import pytest

from filters import FilterError, cluster, cluster_words, layout


def blobs(count: int, each: int, spread: float = 0.05) -> np.ndarray:
    draw = np.random.default_rng(0)
    centres = np.eye(count, 16)
    return np.repeat(centres, each, axis=0) + draw.normal(size=(count * each, 16)) * spread


def test_well_separated_groups_are_found() -> None:
    found = cluster(blobs(4, 30), 4)
    groups = found.labels.reshape(4, 30)
    assert (groups == groups[:, :1]).all()
    assert len(set(groups[:, 0])) == 4
    assert found.centroids.shape == (4, 16)
    assert np.linalg.norm(found.centroids, axis=1) == pytest.approx(1)
    assert (found.labels[found.prototypes] == np.arange(4)).all()


def test_the_prototype_is_the_row_nearest_to_its_centroid() -> None:
    vectors = blobs(3, 20)
    found = cluster(vectors, 3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for number, prototype in enumerate(found.prototypes):
        members = np.flatnonzero(found.labels == number)
        assert prototype == members[np.argmax(unit[members] @ found.centroids[number])]


def test_clusters_are_numbered_by_size() -> None:
    vectors = np.concatenate([blobs(3, 10)[:12], blobs(3, 10)[20:]])
    sizes = np.bincount(cluster(vectors, 3).labels)
    assert sizes.tolist() == sorted(sizes, reverse=True)


def test_the_order_of_the_rows_does_not_matter() -> None:
    vectors = np.random.default_rng(1).normal(size=(200, 16))
    order = np.random.default_rng(2).permutation(200)
    one, other = cluster(vectors), cluster(vectors[order])
    assert (one.labels[order] == other.labels).all()
    assert (order[other.prototypes] == one.prototypes).all()
    assert layout(vectors)[order] == pytest.approx(layout(vectors[order]))


def test_the_seed_decides() -> None:
    vectors = np.random.default_rng(1).normal(size=(200, 16))
    assert (cluster(vectors, seed=3).labels == cluster(vectors, seed=3).labels).all()


@pytest.mark.parametrize(("rows", "clusters"), [(200, 10), (2, 2), (8, 2), (1, 1)])
def test_the_default_number_of_clusters(rows: int, clusters: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(rows, 16))
    assert len(cluster(vectors).centroids) == clusters


def test_never_more_clusters_than_distinct_rows() -> None:
    vectors = np.repeat(np.eye(3), [5, 1, 2], axis=0)
    found = cluster(vectors, 10)
    assert np.bincount(found.labels).tolist() == [5, 2, 1]
    assert cluster(np.ones((6, 3)), 4).labels.tolist() == [0] * 6
    empty = cluster(np.empty((0, 0)))
    assert len(empty.labels) == len(empty.prototypes) == 0


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_number_of_clusters_that_makes_no_sense(k: float) -> None:
    with pytest.raises(FilterError, match=r"k is .*; it must be a whole number at least 1"):
        cluster(np.eye(3), k)  # type: ignore[arg-type]


def test_the_words_of_a_cluster_set_it_apart() -> None:
    texts = [
        "The battery lasts all day.",
        "This battery charges fast.",
        "A battery for the whole day.",
        "The DVD's picture is sharp.",
        "My DVD player skips.",
        "The dvd player won't play this disc.",
    ]
    words = cluster_words(texts, [0, 0, 0, 2, 2, 2], most=2)
    assert words == [["battery", "day"], [], ["dvd", "player"]]


def test_cluster_words_of_nothing_and_of_no_words() -> None:
    assert cluster_words([], []) == []
    assert cluster_words(["!!!", "12"], [0, 1]) == [[], []]
    with pytest.raises(FilterError, match="2 labels for 1 texts"):
        cluster_words(["One."], [0, 1])


def test_near_rows_are_near_on_the_map() -> None:
    places = layout(blobs(4, 30))
    assert places.shape == (120, 2)
    assert places.min(axis=0) == pytest.approx(0)
    assert places.max(axis=0) == pytest.approx(1)
    groups = places.reshape(4, 30, 2)
    centres = groups.mean(axis=1)
    inside = np.linalg.norm(groups - centres[:, None], axis=2).max()
    between = min(np.linalg.norm(centres[i] - centres[j]) for i in range(4) for j in range(i))
    assert inside < between


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 9, 10, 12])
def test_maps_of_few_rows(rows: int) -> None:
    places = layout(np.random.default_rng(0).normal(size=(rows, 4)))
    assert places.shape == (rows, 2)
    assert ((places >= 0) & (places <= 1)).all()


def test_equal_rows_share_a_place() -> None:
    assert layout(np.ones((5, 3))).tolist() == [[0.5, 0.5]] * 5
    places = layout(np.concatenate([blobs(4, 5), blobs(4, 5)]))
    assert (places[:20] == places[20:]).all()


def test_large_maps_fall_back_to_principal_axes() -> None:
    vectors = np.random.default_rng(0).normal(size=(3_100, 4)) * [9, 5, 1, 1]
    places = layout(vectors)
    assert places.shape == (3_100, 2)
    assert abs(np.corrcoef(places[:, 0], vectors[:, 0])[0, 1]) > 0.8
