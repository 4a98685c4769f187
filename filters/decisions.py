"""Run a list of filters over rows and merge what they found into verdicts. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import ArrayLike

from filters.arithmetic import Arithmetic
from filters.balance import Rebalance
from filters.clusters import as_vectors
from filters.contamination import Contamination, SemanticContamination
from filters.duplicates import (
    ExactDuplicate,
    NearDuplicate,
    SemanticDuplicate,
)
from filters.ensemble_scores import Ensemble
from filters.frames import (
    as_frame,
    check_filters,
    read_clusters,
)
from filters.label_noise import LabelNoise
from filters.languages import Language
from filters.outside_scores import Judge, Perplexity
from filters.quality import Agreement, Confidence, Entropy, Margin
from filters.rationales import Copied, OtherChoice, Restatement, Unsupported
from filters.references import Texts, read_references
from filters.results import Result
from filters.rows import (
    Filter,
    OnProgress,
)
from filters.rules import TooLong, TooShort, Truncated, UnknownLabel
from filters.selection import Select
from filters.text_rules import Echo, PersonalData, Refusal, Repetition, Residue
from filters.verdicts import Verdicts

if TYPE_CHECKING:
    import datasets

FILTERS: dict[str, type[Any]] = {
    "contamination": Contamination,
    "semantic_contamination": SemanticContamination,
    "exact_duplicate": ExactDuplicate,
    "near_duplicate": NearDuplicate,
    "semantic_duplicate": SemanticDuplicate,
    "too_short": TooShort,
    "too_long": TooLong,
    "language": Language,
    "refusal": Refusal,
    "truncated": Truncated,
    "residue": Residue,
    "echo": Echo,
    "repetition": Repetition,
    "personal_data": PersonalData,
    "unknown_label": UnknownLabel,
    "confidence": Confidence,
    "margin": Margin,
    "entropy": Entropy,
    "agreement": Agreement,
    "label_noise": LabelNoise,
    "unsupported": Unsupported,
    "other_choice": OtherChoice,
    "restatement": Restatement,
    "copied": Copied,
    "arithmetic": Arithmetic,
    "judge": Judge,
    "perplexity": Perplexity,
    "ensemble": Ensemble,
    "rebalance": Rebalance,
    "select": Select,
}

_OURS = (
    *("keep", "reason", "related_id", "weight", "copies"),
    *(f"score_{reason}" for reason in FILTERS),
)


def apply(
    dataset: pd.DataFrame | datasets.Dataset,
    filters: Sequence[Filter],
    *,
    embeddings: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    references: Mapping[str, Texts] | None = None,
    reference_embeddings: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Result:
    """Let filters judge rows, in the order given; no row is changed, moved or lost.

    If there is a `label` column, rows whose label is null or whose `error` is not are dropped
    first, with the reason "unlabelled". The first filter that drops a row gives its reason. A row
    once dropped is no twin that a later filter could drop another row for, yet every filter
    scores every row. Of a group of duplicates the row most worth keeping stays: the one with the
    higher confidence, then with a rationale, then the longer one, then the first by id. The
    outcome does not depend on the order of the rows.

    A column `review` goes before all filters (see `apply_review`): a row with "drop" goes, with
    the reason "review"; one with "accept" or "relabel" stays whatever filters say of it, and is
    the first choice among duplicates.

    Args:
        dataset: Rows with a unique `id`, an `input`, and whatever the filters need.
        filters: For example `[ExactDuplicate(), Confidence(minimum=0.6)]`.
        embeddings: Vectors in the rows' order, shape (n, d); for `SemanticDuplicate`.
        clusters: Whole numbers in the rows' order, shape (n,); written to the column `cluster`.
        references: Other sets by name, for `Contamination`: frames or Datasets with `id` and
            `input` (nothing else is read), or lists of texts, whose ids are their places.
        reference_embeddings: Vectors of such sets by name, shape (m, d).
        seed: Seed for whatever is drawn at random.
        on_progress: Called with {"stage", "done", "total"}, the stage being a filter's reason.

    Raises:
        FilterError: An argument, a column or a row that cannot be worked with.
    """
    check_filters(filters, list(FILTERS))
    frame = as_frame(dataset)
    frame = frame.drop(columns=[name for name in _OURS if name in frame.columns])
    if clusters is not None:
        frame["cluster"] = read_clusters(clusters, len(frame))
    vectors = None if embeddings is None else as_vectors(embeddings, len(frame))
    verdicts = Verdicts.of(
        frame,
        embeddings=vectors,
        references=read_references(references or {}, reference_embeddings or {}),
        seed=seed,
        on_progress=on_progress,
    )
    for each in filters:
        verdicts.add(each.reason, each.judge(verdicts.rows))
    written = {*_OURS, *(f"score_{each.reason}" for each in filters)}
    written |= set() if clusters is None else {"cluster"}
    return verdicts.result(filters, source=_without(dataset, written))


def _without(
    dataset: pd.DataFrame | datasets.Dataset, written: set[str]
) -> datasets.Dataset | None:
    """Return the columns of a Dataset that are not ours; None for a frame."""
    if isinstance(dataset, pd.DataFrame):
        return None
    return dataset.select_columns([name for name in dataset.column_names if name not in written])
