"""Run a list of filters over rows and merge what they found into verdicts. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from filters.alarms import count_conflicts, find_alarms
from filters.balance import Rebalance
from filters.clusters import as_vectors
from filters.duplicates import ExactDuplicate, NearDuplicate, SemanticDuplicate
from filters.frames import (
    as_frame,
    check_filters,
    has_label,
    read_clusters,
    read_ids,
    read_labels,
    text_column,
    value_order,
)
from filters.quality import Confidence
from filters.rows import (
    Filter,
    Judgement,
    Matches,
    Objects,
    OnProgress,
    Rows,
    drop_lines,
    texts,
)

if TYPE_CHECKING:
    import datasets

FILTERS: dict[str, type[Any]] = {
    "exact_duplicate": ExactDuplicate,
    "near_duplicate": NearDuplicate,
    "semantic_duplicate": SemanticDuplicate,
    "confidence": Confidence,
    "rebalance": Rebalance,
}

_UNLABELLED = "unlabelled"
_BALANCED = ("label", "cluster", "source")
_OURS = ("keep", "reason", "weight", "copies", *(f"score_{reason}" for reason in FILTERS))


@dataclass(frozen=True, kw_only=True)
class Result:
    """All rows with their verdicts, and the evidence.

    Attributes:
        frame: Every row in its order, with `keep`, `reason`, `score_<filter>`, `weight`, `copies`,
            and `cluster` if clusters were given.
        decisions: One line per match or drop: `id`, `filter`, `score`, `threshold`, `related_id`,
            `verdict` ("drop", "keep" or "conflict").
        counts: {"rows", "kept", "dropped": {reason: rows}, "conflicts": pairs}.
        funnel: [{"stage", "rows"}, ...]: how many rows are left after each step.
        balance: {column: {"before": {value: rows}, "after": {value: rows}, "effective":
            {value: sum of weight x copies}}} for label, cluster and source, as far as they are
            there; "before" counts the labelled rows.
        warnings: Sentences for people: what was wiped out, giant groups, conflicts.
    """

    frame: pd.DataFrame
    decisions: pd.DataFrame
    counts: dict[str, Any]
    funnel: list[dict[str, Any]]
    balance: dict[str, dict[str, dict[str, float]]]
    warnings: list[str]
    _source: datasets.Dataset | None = field(default=None, repr=False)

    @property
    def kept(self) -> pd.DataFrame:
        """The rows with `keep` True: the training set."""
        return self.frame[self.frame["keep"]]

    @property
    def dataset(self) -> datasets.Dataset:
        """All rows as a `datasets.Dataset`; the columns of one that came in are left as they are."""
        import datasets
        import pyarrow as pa

        if self._source is None:
            return datasets.Dataset.from_pandas(self.frame, preserve_index=False)
        ours = [name for name in self.frame.columns if name not in self._source.column_names]
        columns = {name: pa.array(self.frame[name]) for name in ours}
        # pandas keeps text with 64-bit offsets, datasets with 32-bit ones.
        for name, values in columns.items():
            if pa.types.is_large_string(values.type):
                columns[name] = values.cast(pa.string())
        added = datasets.Dataset(pa.table(columns))
        return datasets.concatenate_datasets([self._source, added], axis=1)


def apply(
    dataset: pd.DataFrame | datasets.Dataset,
    filters: Sequence[Filter],
    *,
    embeddings: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
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

    Args:
        dataset: Rows with a unique `id`, an `input`, and whatever the filters need.
        filters: For example `[ExactDuplicate(), Confidence(minimum=0.6)]`.
        embeddings: Vectors in the rows' order, shape (n, d); for `SemanticDuplicate`.
        clusters: Whole numbers in the rows' order, shape (n,); written to the column `cluster`.
        seed: Seed for whatever is drawn at random.
        on_progress: Called with {"stage", "done", "total"}, the stage being a filter's reason.

    Raises:
        FilterError: An argument, a column or a row that cannot be worked with.
    """
    check_filters(filters, list(FILTERS))
    frame = as_frame(dataset)
    frame = frame.drop(columns=[name for name in _OURS if name in frame.columns])
    ids, labels = read_ids(frame), read_labels(frame)
    if clusters is not None:
        frame["cluster"] = read_clusters(clusters, len(frame))
    vectors = None if embeddings is None else as_vectors(embeddings, len(frame))
    order = value_order(frame, ids)
    rows = Rows(
        frame=frame,
        ids=ids,
        alive=has_label(frame, labels),
        order=order,
        labels=labels,
        embeddings=vectors,
        seed=seed,
        on_progress=on_progress,
    )
    if "input" in frame.columns:
        texts(rows, "input", "apply")  # a null or a number is an error whatever the filters
    reasons = np.full(len(frame), None, dtype=object)
    reasons[~rows.alive] = _UNLABELLED
    nothing = drop_lines(np.flatnonzero(~rows.alive), np.full(len(frame), np.nan))
    lines = [_lines(ids, _UNLABELLED, None, nothing)]
    funnel = [{"stage": "rows", "rows": len(frame)}]
    if labels is not None:
        funnel.append({"stage": "labelled", "rows": int(rows.alive.sum())})
    found: dict[str, Judgement] = {}
    for each in filters:
        # Rows already dropped come last: none of them can be the one that stays.
        rows = replace(rows, order=order[np.argsort(~rows.alive[order], kind="stable")])
        judgement = found[each.reason] = each.judge(rows)
        reasons[judgement.dropped] = each.reason
        lines.append(_lines(ids, each.reason, judgement.threshold, judgement.matches))
        rows = replace(rows, alive=rows.alive & ~judgement.dropped)
        funnel.append({"stage": f"after {each.reason}", "rows": int(rows.alive.sum())})
    funnel.append({"stage": "training set", "rows": int(rows.alive.sum())})
    frame = _annotate(frame, reasons, found)
    decisions = pd.concat(lines, ignore_index=True)
    alarms = [warning for judgement in found.values() for warning in judgement.warnings]
    alarms += find_alarms(frame, decisions, list(found))
    written = {*_OURS, *(f"score_{reason}" for reason in found)}
    written |= set() if clusters is None else {"cluster"}
    return Result(
        frame=frame,
        decisions=decisions,
        counts=_count(frame, decisions),
        funnel=funnel,
        balance={name: _balance(frame, name) for name in _BALANCED if name in frame.columns},
        warnings=alarms,
        _source=_without(dataset, written),
    )


def _without(
    dataset: pd.DataFrame | datasets.Dataset, written: set[str]
) -> datasets.Dataset | None:
    """Return the columns of a Dataset that are not ours; None for a frame."""
    if isinstance(dataset, pd.DataFrame):
        return None
    return dataset.select_columns([name for name in dataset.column_names if name not in written])


def _lines(ids: Objects, reason: str, threshold: float | None, matches: Matches) -> pd.DataFrame:
    """Return one filter's part of the decisions, by id, the highest score first."""
    related = [ids[position] if position >= 0 else None for position in matches.related]
    frame = pd.DataFrame(
        {
            "id": text_column(ids[matches.row]),
            "filter": text_column([reason] * len(related)),
            "score": matches.score.astype(np.float64),
            "threshold": np.full(len(related), np.nan if threshold is None else threshold),
            "related_id": text_column(related),
            "verdict": text_column(matches.verdict),
        }
    )
    return frame.sort_values(
        ["id", "score", "related_id"], ascending=[True, False, True], ignore_index=True
    )


def _annotate(
    frame: pd.DataFrame, reasons: Objects, found: Mapping[str, Judgement]
) -> pd.DataFrame:
    """Add the columns of the verdict."""
    added: dict[str, Any] = {
        "keep": np.array([reason is None for reason in reasons], dtype=bool),
        "reason": text_column(reasons).array,
    }
    weights, copies = np.ones(len(frame)), np.ones(len(frame), dtype=np.int64)
    for reason, judgement in found.items():
        added[f"score_{reason}"] = judgement.scores
        weights = weights if judgement.weights is None else weights * judgement.weights
        copies = copies if judgement.copies is None else copies * judgement.copies
    added |= {"weight": weights, "copies": copies}
    return frame.assign(**added)


def _count(frame: pd.DataFrame, decisions: pd.DataFrame) -> dict[str, Any]:
    dropped = frame["reason"].value_counts(sort=False)
    return {
        "rows": len(frame),
        "kept": int(frame["keep"].sum()),
        "dropped": {str(reason): int(rows) for reason, rows in dropped.items()},
        "conflicts": count_conflicts(decisions),
    }


def _balance(frame: pd.DataFrame, name: str) -> dict[str, dict[str, float]]:
    """Count a column's values before and after, and after with weights and copies."""
    labelled = frame[frame["reason"].isna() | (frame["reason"] != _UNLABELLED)]
    distinct = labelled[name].dropna().unique().tolist()
    numbers = all(isinstance(value, int | float) for value in distinct)
    values = [str(value) for value in sorted(distinct, key=None if numbers else str)]
    named = labelled[name].map(str, na_action="ignore")
    kept = named[labelled["keep"]]
    loads = (labelled["weight"] * labelled["copies"])[labelled["keep"]]
    before, after = named.value_counts(), kept.value_counts()
    effective = loads.groupby(kept).sum()
    return {
        "before": {value: int(before.get(value, 0)) for value in values},
        "after": {value: int(after.get(value, 0)) for value in values},
        "effective": {value: round(float(effective.get(value, 0)), 6) for value in values},
    }
