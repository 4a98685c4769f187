"""Decide which labelled rows to train on, with a reason, a score and a twin for every drop.

`apply` runs a list of filters over a pandas frame or a `datasets.Dataset` and annotates it;
`embed`, `cluster`, `cluster_words` and `layout` give the vectors, the groups and the map that filters and
reports share. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filters.alarms import conflicts
    from filters.arguments import FilterError
    from filters.arithmetic import Arithmetic
    from filters.balance import Rebalance
    from filters.clusters import Clusters, cluster, cluster_words, layout
    from filters.contamination import Contamination, SemanticContamination
    from filters.decisions import FILTERS, apply
    from filters.differences import Difference, diff
    from filters.duplicates import ExactDuplicate, NearDuplicate, SemanticDuplicate
    from filters.embeddings import EmbeddingError, Encoder, embed
    from filters.ensemble_scores import Ensemble, FittedScore, fit_score
    from filters.explanations import Explanation, explain
    from filters.label_noise import LabelNoise, suspect_labels
    from filters.languages import Language
    from filters.near_index import NearIndex
    from filters.outside_scores import Judge, Perplexity
    from filters.partitions import Partitioned, dedupe_batches
    from filters.quality import Agreement, Confidence, Entropy, Margin
    from filters.rationales import Copied, OtherChoice, Restatement, Unsupported
    from filters.references import read_references
    from filters.results import Result, policy, policy_hash, result_from
    from filters.reviews import apply_review, read_review
    from filters.rows import Filter, Judgement, Matches, Reference, Rows
    from filters.rules import TooLong, TooShort, Truncated, UnknownLabel
    from filters.selection import Select, next_to_label
    from filters.self_tests import SelfTest, self_test
    from filters.static_embeddings import distil_static
    from filters.text_rules import Echo, PersonalData, Refusal, Repetition, Residue
    from filters.thresholds import rethreshold
    from filters.twins import group_twins

_HOMES = {
    "FILTERS": "decisions",
    "Agreement": "quality",
    "Arithmetic": "arithmetic",
    "Clusters": "clusters",
    "Confidence": "quality",
    "Contamination": "contamination",
    "Copied": "rationales",
    "Difference": "differences",
    "Echo": "text_rules",
    "EmbeddingError": "embeddings",
    "Encoder": "embeddings",
    "Ensemble": "ensemble_scores",
    "Entropy": "quality",
    "ExactDuplicate": "duplicates",
    "Explanation": "explanations",
    "Filter": "rows",
    "FilterError": "arguments",
    "FittedScore": "ensemble_scores",
    "Judge": "outside_scores",
    "Judgement": "rows",
    "LabelNoise": "label_noise",
    "Language": "languages",
    "Margin": "quality",
    "Matches": "rows",
    "NearDuplicate": "duplicates",
    "NearIndex": "near_index",
    "OtherChoice": "rationales",
    "Partitioned": "partitions",
    "Perplexity": "outside_scores",
    "PersonalData": "text_rules",
    "Rebalance": "balance",
    "Reference": "rows",
    "Refusal": "text_rules",
    "Repetition": "text_rules",
    "Residue": "text_rules",
    "Restatement": "rationales",
    "Result": "results",
    "Rows": "rows",
    "Select": "selection",
    "SelfTest": "self_tests",
    "SemanticContamination": "contamination",
    "SemanticDuplicate": "duplicates",
    "TooLong": "rules",
    "TooShort": "rules",
    "Truncated": "rules",
    "UnknownLabel": "rules",
    "Unsupported": "rationales",
    "apply": "decisions",
    "apply_review": "reviews",
    "cluster": "clusters",
    "cluster_words": "clusters",
    "conflicts": "alarms",
    "dedupe_batches": "partitions",
    "diff": "differences",
    "distil_static": "static_embeddings",
    "embed": "embeddings",
    "explain": "explanations",
    "fit_score": "ensemble_scores",
    "group_twins": "twins",
    "layout": "clusters",
    "next_to_label": "selection",
    "policy": "results",
    "policy_hash": "results",
    "read_references": "references",
    "read_review": "reviews",
    "result_from": "results",
    "rethreshold": "thresholds",
    "self_test": "self_tests",
    "suspect_labels": "label_noise",
}

__all__ = [
    "FILTERS",
    "Agreement",
    "Arithmetic",
    "Clusters",
    "Confidence",
    "Contamination",
    "Copied",
    "Difference",
    "Echo",
    "EmbeddingError",
    "Encoder",
    "Ensemble",
    "Entropy",
    "ExactDuplicate",
    "Explanation",
    "Filter",
    "FilterError",
    "FittedScore",
    "Judge",
    "Judgement",
    "LabelNoise",
    "Language",
    "Margin",
    "Matches",
    "NearDuplicate",
    "NearIndex",
    "OtherChoice",
    "Partitioned",
    "Perplexity",
    "PersonalData",
    "Rebalance",
    "Reference",
    "Refusal",
    "Repetition",
    "Residue",
    "Restatement",
    "Result",
    "Rows",
    "Select",
    "SelfTest",
    "SemanticContamination",
    "SemanticDuplicate",
    "TooLong",
    "TooShort",
    "Truncated",
    "UnknownLabel",
    "Unsupported",
    "apply",
    "apply_review",
    "cluster",
    "cluster_words",
    "conflicts",
    "dedupe_batches",
    "diff",
    "distil_static",
    "embed",
    "explain",
    "fit_score",
    "group_twins",
    "layout",
    "next_to_label",
    "policy",
    "policy_hash",
    "read_references",
    "read_review",
    "result_from",
    "rethreshold",
    "self_test",
    "suspect_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'filters' has no attribute {name!r}")
    return getattr(import_module(f"filters.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
