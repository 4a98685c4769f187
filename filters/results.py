"""What `apply` gives back: all rows with verdicts, the evidence, and the counts drawn from both."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from filters.alarms import count_conflicts
from filters.rows import Filter, Reference

if TYPE_CHECKING:
    import datasets

UNLABELLED = "unlabelled"
REVIEW = "review"
_BALANCED = ("label", "cluster", "source")


@dataclass(frozen=True, kw_only=True)
class Result:
    """All rows with their verdicts, and the evidence.

    Attributes:
        frame: Every row in its order, with `keep`, `reason`, `related_id` (the twin that stands
            behind the drop), `score_<filter>`, `weight`, `copies`, and `cluster` if clusters were
            given.
        decisions: One line per match or drop: `id`, `filter`, `score`, `threshold`, `related_id`,
            `verdict` ("drop", "keep" or "conflict"); with references also `related_set`, the set
            that the twin is in, null if it is among the rows.
        counts: {"rows", "kept", "dropped": {reason: rows}, "conflicts": pairs}.
        drops: {column: {value: {"rows", "kept", reason: rows, ...}}} for label and cluster, as far
            as they are there.
        funnel: [{"stage", "rows"}, ...]: how many rows are left after each step.
        balance: {column: {"before": {value: rows}, "after": {value: rows}, "effective":
            {value: sum of weight x copies}}} for label, cluster, source and whatever is
            rebalanced by, as far as they are there; "before" counts the labelled rows.
        warnings: Sentences for people: what was wiped out, giant groups, conflicts.
        notes: Sentences for people that are no cause for alarm, such as how a selection compares
            with a random one.
        filters: The filters, as they ran.
        policy: SHA-256 of the filters with all their arguments, in their order.
        seed: What filters drew at random with.
        references: The other sets that rows were compared with.
    """

    frame: pd.DataFrame
    decisions: pd.DataFrame
    counts: dict[str, Any]
    drops: dict[str, dict[str, dict[str, int]]]
    funnel: list[dict[str, Any]]
    balance: dict[str, dict[str, dict[str, float]]]
    warnings: list[str]
    notes: list[str]
    filters: tuple[Filter, ...]
    policy: str
    seed: int = 0
    references: Mapping[str, Reference] = field(default_factory=dict, repr=False)
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


def result_from(
    frame: pd.DataFrame,
    decisions: pd.DataFrame,
    filters: Sequence[Filter],
    *,
    seed: int = 0,
    references: Mapping[str, Reference] | None = None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    source: datasets.Dataset | None = None,
) -> Result:
    """Put a `Result` together from annotated rows and evidence, such as a run's two files.

    Args:
        frame: Rows with `keep`, `reason`, `weight`, `copies` and scores, as `apply` wrote them.
        decisions: The evidence.
        filters: The filters that judged, in their order.
        seed: The seed they had.
        references: The other sets that rows were compared with.
        warnings: What a person should look at.
        notes: What a person may like to know.
        source: The dataset that came in, without the columns that are written.
    """
    reasons = [each.reason for each in filters]
    balanced = [name for each in filters for name in getattr(each, "by", ()) if _balances(each)]
    return Result(
        frame=frame,
        decisions=decisions,
        counts=_count(frame, decisions),
        drops={name: _drops(frame, name) for name in ("label", "cluster") if name in frame.columns},
        funnel=_funnel(frame, reasons),
        balance={
            name: _balance(frame, name)
            for name in dict.fromkeys([*_BALANCED, *balanced])
            if name in frame.columns
        },
        warnings=list(warnings),
        notes=list(notes),
        filters=tuple(filters),
        policy=policy_hash(filters),
        seed=seed,
        references=dict(references or {}),
        _source=source,
    )


def policy(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """Return filters as plain values: [{"filter": reason, "arguments": {name: value}}, ...].

    A filter that is no dataclass is described by its attributes.
    """
    listed = []
    for each in filters:
        described: Any = each
        if dataclasses.is_dataclass(described):
            names = [one.name for one in dataclasses.fields(described)]
        else:
            names = list(getattr(described, "__dict__", {}))
        arguments = {name: getattr(described, name) for name in names}
        listed.append({"filter": each.reason, "arguments": arguments})
    return listed


def policy_hash(filters: Sequence[Filter]) -> str:
    """Return the SHA-256 of `policy(filters)`, as 64 hexadecimal digits.

    Two results with one policy were judged by the same filters, with the same arguments, in the
    same order. An argument that is no plain value, such as a callable, counts by its name.
    """
    text = json.dumps(policy(filters), sort_keys=True, ensure_ascii=False, default=_name)
    return hashlib.sha256(text.encode()).hexdigest()


def _name(value: Any) -> str:
    """Describe a value without its address in memory, which differs from run to run."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _balances(each: Filter) -> bool:
    return each.reason == "rebalance" and not isinstance(getattr(each, "by", ()), str)


def _count(frame: pd.DataFrame, decisions: pd.DataFrame) -> dict[str, Any]:
    dropped = frame["reason"].value_counts(sort=False)
    return {
        "rows": len(frame),
        "kept": int(frame["keep"].sum()),
        "dropped": {str(reason): int(rows) for reason, rows in dropped.items()},
        "conflicts": count_conflicts(decisions),
    }


def _funnel(frame: pd.DataFrame, reasons: Sequence[str]) -> list[dict[str, Any]]:
    """Count what is left after each step; a reason belongs to the step that gave it."""
    dropped = frame["reason"].value_counts()
    left = len(frame)
    steps = [{"stage": "rows", "rows": left}]
    if "label" in frame.columns:
        left -= int(dropped.get(UNLABELLED, 0))
        steps.append({"stage": "labelled", "rows": left})
    if REVIEW in frame.columns:
        left -= int(dropped.get(REVIEW, 0))
        steps.append({"stage": f"after {REVIEW}", "rows": left})
    for reason in reasons:
        left -= int(dropped.get(reason, 0))
        steps.append({"stage": f"after {reason}", "rows": left})
    return [*steps, {"stage": "training set", "rows": left}]


def _drops(frame: pd.DataFrame, name: str) -> dict[str, dict[str, int]]:
    """Count rows, kept rows and each reason's drops for every value of a column."""
    named = frame[name].map(str, na_action="ignore")
    counted: dict[str, dict[str, int]] = {}
    for value in _values(frame[name]):
        rows = frame[named == value]
        reasons = rows["reason"].value_counts()
        counted[value] = {"rows": len(rows), "kept": int(rows["keep"].sum())} | {
            str(reason): int(count) for reason, count in sorted(reasons.items(), key=str)
        }
    return counted


def _values(column: pd.Series) -> list[str]:
    """Return a column's values as text, numbers in their order."""
    distinct = column.dropna().unique().tolist()
    numbers = all(isinstance(value, int | float) for value in distinct)
    return list(
        dict.fromkeys(str(value) for value in sorted(distinct, key=None if numbers else str))
    )


def _balance(frame: pd.DataFrame, name: str) -> dict[str, dict[str, float]]:
    """Count a column's values before and after, and after with weights and copies."""
    labelled = frame[frame["reason"].isna() | (frame["reason"] != UNLABELLED)]
    values = _values(labelled[name])
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
