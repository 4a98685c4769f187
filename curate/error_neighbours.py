"""What the student had learned from near an error, and where labels are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["clusters_of", "label_next", "nearest_training_rows", "word_vectors"]

Encode = Callable[[Sequence[str]], Any]
_BLOCK = 2_048


def word_vectors(texts: Sequence[str], others: Sequence[str]) -> tuple[Any, Any]:
    """TF-IDF vectors of length 1 of two lists of texts, sparse: what stands in where there is no embedder."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    try:
        fitted = vectorizer.fit([*texts, *others])
    except ValueError:  # no text has a word in it
        fitted = vectorizer.set_params(analyzer="char").fit([*texts, *others])
    return fitted.transform(texts), fitted.transform(others)


def nearest_training_rows(
    errors: pd.DataFrame, training: pd.DataFrame, vectors: Any, theirs: Any, most: int = 3
) -> dict[str, list[dict[str, Any]]]:
    """For each error's id, the training rows most like it: id, input, label, cosine and whether it was kept.

    Args:
        errors: Rows with ``id``.
        training: Rows with ``id``, ``input``, ``label`` and ``keep``.
        vectors: The errors', of length 1, shape (n, d), dense or sparse.
        theirs: The training rows', shape (m, d).
        most: How many for each.
    """
    import numpy as np

    found: dict[str, list[dict[str, Any]]] = {}
    for start in range(0, len(errors), _BLOCK):
        block = vectors[start : start + _BLOCK] @ theirs.T
        cosines = np.asarray(block.todense() if hasattr(block, "todense") else block)
        for place, row in enumerate(cosines):
            order = np.lexsort((np.arange(len(row)), -row))[:most]
            near = training.iloc[order]
            found[str(errors["id"].iloc[start + place])] = [
                {
                    "id": i,
                    "input": text,
                    "label": label,
                    "similarity": float(value),
                    "kept": bool(kept),
                }
                for i, text, label, kept, value in zip(
                    near["id"], near["input"], near["label"], near["keep"], row[order], strict=True
                )
            ]
    return found


def clusters_of(vectors: Any, training: pd.DataFrame, theirs: Any) -> Any:
    """Each row's cluster: that of the nearest mean of the training rows' clusters, shape (n,).

    Args:
        vectors: Of length 1, shape (n, d).
        training: Rows with ``cluster``.
        theirs: Their vectors, shape (m, d).
    """
    import numpy as np

    # Beside validation rows, which have no cluster, the column is of floats.
    labels = training["cluster"].to_numpy(dtype=int)
    names = np.unique(labels)
    means = np.stack([theirs[labels == name].mean(axis=0) for name in names])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return names[np.argmax(vectors @ means.T, axis=1)]


def label_next(rows: pd.DataFrame, training: pd.DataFrame, most: int = 5) -> list[dict[str, Any]]:
    """Clusters that deserve more labels, the one with the highest error rate first.

    For each cluster: test rows, errors, the error rate, drawn towards the overall rate by ten rows' weight
    (so that two errors in three rows do not lead), and the kept training rows. ``share`` is the cluster's
    part of all errors to be expected, its size times its drawn rate: how to part a label budget.

    Args:
        rows: Judged test rows with ``cluster``.
        training: Training rows with ``cluster`` and ``keep``.
        most: How many clusters to return.
    """
    overall = float((~rows["right"]).mean())
    kept = training[training["keep"].astype(bool)]["cluster"].value_counts()
    sizes = training["cluster"].value_counts()
    found = []
    for cluster, part in rows.groupby("cluster"):
        errors = int((~part["right"]).sum())
        rate = (errors + 10 * overall) / (len(part) + 10)
        number = int(str(cluster))
        weight = rate * (int(sizes.get(number, 0)) + len(part))
        found.append(
            {"cluster": number, "rows": len(part), "errors": errors, "drawn_rate": rate,
             "kept": int(kept.get(number, 0)), "share": weight}
        )  # fmt: skip
    total = sum(each["share"] for each in found) or 1.0
    for each in found:
        each["share"] = each["share"] / total
    order = sorted(found, key=lambda each: (-each["drawn_rate"], each["cluster"]))
    return order[:most]
