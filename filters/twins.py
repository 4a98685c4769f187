"""Groups of near-twins, so that a random split can keep each on one side."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from filters.arguments import check_number
from filters.rows import Ints, OnProgress


def group_twins(
    texts: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    threshold: float = 0.8,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Ints:
    """Number texts so that near-twins share a number.

    Two texts are twins if `NearDuplicate(threshold=threshold)` says so, whatever their labels. Here
    chains are followed, unlike in the filter: of A like B like C all three share a number, since A on
    one side of a split and C on the other would leave B's twin on the wrong one.

    Args:
        texts: n texts.
        groups: A group per text; texts of one group count as twins.
        threshold: Least Jaccard similarity of twins; in (0, 1].
        seed: Seed of the MinHash signatures.
        on_progress: Called with {"stage", "done", "total"}.

    Returns:
        A number per text, from 0 in the order of first occurrence, shape (n,).

    Raises:
        FilterError: A text that is null or no text, or a threshold that is not allowed.
    """
    from filters.decisions import apply
    from filters.duplicates import NearDuplicate

    check_number(
        "group_twins", "threshold", threshold, low=0, high=1, open_low=True, remedy="try 0.8"
    )
    ids = [f"{place:012d}" for place in range(len(texts))]
    rows = pd.DataFrame({"id": pd.Series(ids, dtype=object), "input": list(texts)})
    near = NearDuplicate(threshold=threshold, floor=threshold, same_label=False)
    lines = apply(rows, [near], seed=seed, on_progress=on_progress).decisions
    twins = lines[(lines["filter"] == near.reason) & (lines["score"] >= threshold)]
    one = twins["id"].to_numpy(dtype=object).astype(np.int64)
    other = twins["related_id"].to_numpy(dtype=object).astype(np.int64)
    if groups is not None:
        codes = pd.factorize(np.fromiter(groups, dtype=object, count=len(texts)))[0]
        first = np.unique(codes, return_index=True)[1]
        one = np.concatenate([one, np.arange(len(texts))])
        other = np.concatenate([other, first[codes]])
    return join(one, other, len(texts))


def join(first: Ints, second: Ints, count: int) -> Ints:
    """Number `count` places so that linked ones share a number: connected components.

    Args:
        first: One end of each link, shape (links,).
        second: The other end, shape (links,).
        count: How many places there are.

    Returns:
        Numbers from 0 in the order of first occurrence, shape (count,).
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    found = connected_components(links, directed=False)[1] if count else np.empty(0, dtype=np.int64)
    return np.asarray(pd.factorize(found)[0], dtype=np.int64)
