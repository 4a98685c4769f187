"""What a generation comes to: the new rows, what was not taken, and the counts of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

#: The columns of generated rows, with their Arrow types by name.
GENERATED_COLUMNS = {
    "id": "string",
    "input": "string",
    "source": "string",
    "split": "string",
    "generated_for": "string",
    "generated_from": "list",
    "generated_attributes": "string",
    "generated_cluster": "int64",
    "generated_by": "string",
    "generated_key": "string",
    "seeded_by": "string",
}


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A text that the teacher wrote and that was not taken.

    Attributes:
        reason: ``empty``, ``not_text``, ``echo``, ``too_short``, ``too_long``, ``near_test``,
            ``near_duplicate`` or ``error``.
        text: What was written, or the error.
        label: The label it was written for.
        related_id: For ``near_duplicate``: the row that it is near to.
        similarity: How near it is to that row, or to the nearest forbidden text.
        key: Where the exchange lies in the store; None for an error.
    """

    reason: str
    text: str
    label: str | None
    related_id: str | None = None
    similarity: float | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class GenerationReport:
    """What a generation came to.

    Attributes:
        wanted: Rows asked for.
        accepted: Rows written and taken.
        requests: Answers that were judged: asked now, or found in the store.
        asked: Requests answered by the teacher in this run.
        reused: Requests answered by the store.
        rejected: Texts not taken, by reason.
        by_label: Rows taken, by the label they were written for.
        by_cluster: The same by cluster, where rows were written per cluster.
        shortfall: Rows missing, by label: the requests allowed did not suffice.
        redacted: Personal data replaced in the seeds before they were shown, by kind.
        prompt_tokens: Tokens read by the teacher in this run.
        completion_tokens: Tokens written by it in this run.
        cost_usd: Cost of this run; None where the teacher has no prices.
    """

    wanted: int
    accepted: int
    requests: int
    asked: int
    reused: int
    rejected: dict[str, int]
    by_label: dict[str, int]
    by_cluster: dict[int, int]
    shortfall: dict[str, int]
    redacted: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The new rows, what was not taken, and the counts of both."""

    dataset: datasets.Dataset
    rejections: tuple[Rejection, ...]
    report: GenerationReport


def as_dataset(rows: Sequence[Mapping[str, Any]]) -> datasets.Dataset:
    """The rows, each with all of :data:`GENERATED_COLUMNS`, as a dataset; also where there are none."""
    import datasets
    import pyarrow as pa

    arrays = {
        name: pa.array(
            [row[name] for row in rows],
            pa.list_(pa.string()) if kind == "list" else pa.type_for_alias(kind),
        )
        for name, kind in GENERATED_COLUMNS.items()
    }
    return datasets.Dataset(pa.table(arrays))
