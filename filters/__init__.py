"""Decide which labelled rows to train on, with a reason, a score and a twin for every drop.

`apply` runs a list of filters over a pandas frame or a `datasets.Dataset` and annotates it;
`embed`, `cluster`, `cluster_words` and `layout` give the vectors, the groups and the map that filters and
reports share. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filters.arguments import FilterError
    from filters.balance import Rebalance
    from filters.clusters import Clusters, cluster, cluster_words, layout
    from filters.decisions import FILTERS, Result, apply
    from filters.duplicates import ExactDuplicate, NearDuplicate, SemanticDuplicate
    from filters.embeddings import EmbeddingError, Encoder, embed
    from filters.quality import Confidence
    from filters.rows import Filter, Judgement, Matches, Rows

_HOMES = {
    "FILTERS": "decisions",
    "Clusters": "clusters",
    "Confidence": "quality",
    "EmbeddingError": "embeddings",
    "Encoder": "embeddings",
    "ExactDuplicate": "duplicates",
    "Filter": "rows",
    "FilterError": "arguments",
    "Judgement": "rows",
    "Matches": "rows",
    "NearDuplicate": "duplicates",
    "Rebalance": "balance",
    "Result": "decisions",
    "Rows": "rows",
    "SemanticDuplicate": "duplicates",
    "apply": "decisions",
    "cluster": "clusters",
    "cluster_words": "clusters",
    "embed": "embeddings",
    "layout": "clusters",
}

__all__ = [
    "FILTERS",
    "Clusters",
    "Confidence",
    "EmbeddingError",
    "Encoder",
    "ExactDuplicate",
    "Filter",
    "FilterError",
    "Judgement",
    "Matches",
    "NearDuplicate",
    "Rebalance",
    "Result",
    "Rows",
    "SemanticDuplicate",
    "apply",
    "cluster",
    "cluster_words",
    "embed",
    "layout",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'filters' has no attribute {name!r}")
    return getattr(import_module(f"filters.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
