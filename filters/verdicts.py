"""Rows on their way through filters: what each found, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from filters.alarms import find_alarms
from filters.duplicates import text_series
from filters.frames import has_label, read_ids, read_labels, text_column, value_order
from filters.results import REVIEW, UNLABELLED, Result, result_from
from filters.reviews import read_verdicts
from filters.rows import (
    Filter,
    Flags,
    Judgement,
    Matches,
    Objects,
    OnProgress,
    Reference,
    Rows,
    drop_lines,
)

if TYPE_CHECKING:
    import datasets


@dataclass(kw_only=True)
class Verdicts:
    """Rows on their way through filters.

    `rows` is how the next filter sees them, `accepted` which of them a person keeps, `reasons` why
    a row is gone, `judgements` what each filter found, `lines` the evidence so far.
    """

    rows: Rows
    accepted: Flags
    reasons: Objects
    judgements: dict[str, Judgement] = field(default_factory=dict)
    lines: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        *,
        embeddings: NDArray[np.float32] | None = None,
        references: Mapping[str, Reference],
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Verdicts:
        """Read the columns that all filters rely on, and drop what has no label or is reviewed so."""
        ids, labels = read_ids(frame), read_labels(frame)
        labelled = has_label(frame, labels)
        discarded, accepted = read_verdicts(frame, ids)
        accepted &= labelled
        order = value_order(frame, ids)
        rows = Rows(
            frame=frame,
            ids=ids,
            alive=labelled & ~discarded,
            order=order[np.argsort(~accepted[order], kind="stable")],
            labels=labels,
            embeddings=embeddings,
            references=references,
            seed=seed,
            on_progress=on_progress,
        )
        if "input" in frame.columns:
            text_series(
                rows, "input", "apply"
            )  # a null or a number is an error whatever the filters
        reasons = np.full(len(frame), None, dtype=object)
        reasons[discarded], reasons[~labelled] = REVIEW, UNLABELLED
        lines = []
        for reason, gone in ((UNLABELLED, ~labelled), (REVIEW, discarded & labelled)):
            nothing = drop_lines(np.flatnonzero(gone), np.full(len(frame), np.nan))
            lines.append(_lines(ids, reason, None, nothing))
        verdicts = cls(rows=rows, accepted=accepted, reasons=reasons, lines=lines)
        verdicts._living_first()
        return verdicts

    def _living_first(self) -> None:
        """Put rows already dropped last: none of them can be the one that stays."""
        order = self.rows.order
        order = order[np.argsort(~self.rows.alive[order], kind="stable")]
        self.rows = replace(self.rows, order=order)

    def add(self, reason: str, judgement: Judgement) -> None:
        """Take in what a filter found."""
        judgement = _overrule(judgement, self.accepted)
        self.judgements[reason] = judgement
        self.reasons[judgement.dropped] = reason
        self.lines.append(_lines(self.rows.ids, reason, judgement.threshold, judgement.matches))
        alive = self.rows.alive & ~judgement.dropped
        self.rows = replace(self.rows, alive=alive, found=dict(self.judgements))
        self._living_first()

    def result(
        self,
        filters: Sequence[Filter],
        *,
        source: datasets.Dataset | None = None,
        notes: Sequence[str] = (),
    ) -> Result:
        """Write it all down."""
        decisions = pd.concat(self.lines, ignore_index=True)
        if not self.rows.references and decisions["related_set"].isna().all():
            decisions = decisions.drop(columns=["related_set"])
        found = self.judgements
        frame = _annotate(self.rows.frame, self.reasons, found, decisions)
        alarms = [warning for judgement in found.values() for warning in judgement.warnings]
        return result_from(
            frame,
            decisions,
            filters,
            seed=self.rows.seed,
            references=self.rows.references,
            warnings=alarms + find_alarms(frame, decisions, list(found)),
            notes=[*notes, *(note for judgement in found.values() for note in judgement.notes)],
            source=source,
        )


def _lines(ids: Objects, reason: str, threshold: float | None, matches: Matches) -> pd.DataFrame:
    """Return one filter's part of the decisions, by id, the highest score first."""
    related = [ids[position] if position >= 0 else None for position in matches.related]
    sets: list[str | None] = [None] * len(related)
    if matches.elsewhere is not None:
        sets = [name for name, _ in matches.elsewhere]
        related = [their_id for _, their_id in matches.elsewhere]
    frame = pd.DataFrame(
        {
            "id": text_column(ids[matches.row]),
            "filter": text_column([reason] * len(related)),
            "score": matches.score.astype(np.float64),
            "threshold": np.full(len(related), np.nan if threshold is None else threshold),
            "related_id": text_column(related),
            "verdict": text_column(matches.verdict),
            "related_set": text_column(sets),
        }
    )
    return frame.sort_values(
        ["id", "score", "related_id", "related_set"],
        ascending=[True, False, True, True],
        ignore_index=True,
    )


def _annotate(
    frame: pd.DataFrame,
    reasons: Objects,
    found: Mapping[str, Judgement],
    decisions: pd.DataFrame,
) -> pd.DataFrame:
    """Add the columns of the verdict."""
    added: dict[str, Any] = {
        "keep": np.array([reason is None for reason in reasons], dtype=bool),
        "reason": text_column(reasons).array,
        "related_id": text_column(_twins(frame["id"].tolist(), reasons, decisions)).array,
    }
    weights, copies = np.ones(len(frame)), np.ones(len(frame), dtype=np.int64)
    for reason, judgement in found.items():
        added[f"score_{reason}"] = judgement.scores
        weights = weights if judgement.weights is None else weights * judgement.weights
        copies = copies if judgement.copies is None else copies * judgement.copies
    added |= {"weight": weights, "copies": copies}
    return frame.assign(**added)


def _twins(ids: list[str], reasons: Objects, decisions: pd.DataFrame) -> list[str | None]:
    """Return the id of the nearest twin behind each drop, None where there is none."""
    drops = decisions[(decisions["verdict"] == "drop") & decisions["related_id"].notna()]
    keys = zip(drops["id"].tolist(), drops["filter"].tolist(), strict=True)
    twins = dict(zip(reversed(list(keys)), reversed(drops["related_id"].tolist()), strict=True))
    return [twins.get((one, reason)) for one, reason in zip(ids, reasons, strict=True)]


def _overrule(judgement: Judgement, accepted: Flags) -> Judgement:
    """Return the judgement with no drop of a row that a person has accepted."""
    if not (judgement.dropped & accepted).any():
        return judgement
    verdict = judgement.matches.verdict.copy()
    verdict[accepted[judgement.matches.row] & (verdict == "drop")] = "keep"
    return replace(
        judgement,
        dropped=judgement.dropped & ~accepted,
        matches=replace(judgement.matches, verdict=verdict),
    )
