"""Rows whose label is probably wrong, with what models say instead: for the report and for review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import filters
from filters.label_noise import LabelNoise

if TYPE_CHECKING:
    import pandas as pd

    from filters.label_opinions import Opinion
    from filters.rows import Rows

RANK, OPINION = "suspect_rank", "suspect_opinion"
OPINION_PROBABILITY = "suspect_opinion_probability"
LABEL_PROBABILITY = "suspect_label_probability"

#: Without the filter in the recipe opinions are formed of up to so many rows, and up to so many rows
#: times labels, which takes seconds.
MOST_ROWS, MOST_CELLS = 5000, 100_000
_READ = ("id", "input", "label", "choices", "group")
_OF_A_PERSON = ("accept", "relabel")


@dataclass(frozen=True, kw_only=True)
class HeardLabelNoise(LabelNoise):
    """`LabelNoise` that keeps its models' opinion, so that nothing has to be computed twice.

    It has the arguments of `LabelNoise` and no other, so the policy's hash is the same.
    """

    def opine(self, rows: Rows) -> Opinion:
        """Return what the models think of every row's label, and remember it."""
        found = super().opine(rows)
        object.__setattr__(self, "heard", found)
        return found


def listening(chosen: Sequence[Any]) -> list[Any]:
    """Return a recipe's filters with `LabelNoise` replaced by one that keeps its opinion."""
    return [HeardLabelNoise(**vars(each)) if type(each) is LabelNoise else each for each in chosen]


def add_suspects(
    frame: pd.DataFrame, chosen: Sequence[Any], *, embeddings: Any = None, seed: int = 0
) -> dict[str, Any]:
    """Write into judged rows whose label is suspected, in what order, and what the models say.

    The opinion is that of the filter `label_noise` where it ran; else, for rows that have
    embeddings and are not too many, that of `LabelNoise()` on the rows that are kept, which then
    drops nothing.
    Suspected are the rows that the filter dropped and those to which the models would give another
    label, unless they have shown that they cannot tell labels apart. A row that a person accepted
    or relabelled is none.

    Args:
        frame: Rows with verdicts; the columns `suspect_rank` (from 1, null: not suspected),
            `suspect_opinion` (the likeliest label), `suspect_opinion_probability` and
            `suspect_label_probability` are added to it.
        chosen: The filters that judged it, from `listening`.
        embeddings: Vectors in the rows' order.
        seed: The seed of the folds.

    Returns:
        `by`: "label_noise", "report" (nothing was dropped for it) or null; `judged`, `rows`
        (suspected) and `dropped` (of those, by `label_noise`); `note`: why there are none, or null.
    """
    size = len(frame)
    found, where, by, note = _opinion(frame, chosen, embeddings, seed)
    own, highest, scores = (np.full(size, np.nan) for _ in range(3))
    best = np.full(size, None, dtype=object)
    if found is not None:
        own[where], highest[where], scores[where] = found.own, found.highest, found.scores
        best[where] = found.best
    # Nobody is suspected where the models predict held-out labels no better than their frequency.
    able = found is not None and (found.suspects is None or bool(found.suspects.any()))
    doubted = (own < highest) & able
    gone = (frame["reason"] == LabelNoise.reason).to_numpy(dtype=bool, na_value=False)
    alive = _alive(frame, chosen) if by == LabelNoise.reason else where
    known = alive & ~np.isnan(scores)
    suspected = known & (doubted | gone)
    if "review" in frame.columns:
        suspected &= ~frame["review"].isin(_OF_A_PERSON).to_numpy(dtype=bool)
    places = np.flatnonzero(suspected)
    ids = frame["id"].to_numpy(dtype=object)[places].astype(str)
    order = places[np.lexsort((ids, scores[places]))]
    ranks = np.full(size, np.nan)
    ranks[order] = np.arange(1, len(order) + 1)
    _write(frame, known, ranks, best, highest, own)
    if found is not None and not len(order) and found.warnings:
        note = found.warnings[-1]
    return {
        "by": by,
        "judged": int(known.sum()),
        "rows": len(order),
        "dropped": int((suspected & gone).sum()),
        "note": note,
    }


def _opinion(
    frame: pd.DataFrame, chosen: Sequence[Any], embeddings: Any, seed: int
) -> tuple[Opinion | None, Any, str | None, str | None]:
    """The opinion, the rows it is of, whose it is, and why there is none."""
    every, none = np.ones(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    for each in chosen:
        if isinstance(each, HeardLabelNoise):
            return getattr(each, "heard", None), every, LabelNoise.reason, None
    kept = frame["keep"].to_numpy(dtype=bool)
    cells = len(frame) * (frame["label"].nunique() if "label" in frame.columns else 0)
    few = len(frame) <= MOST_ROWS and 0 < cells <= MOST_CELLS
    if embeddings is None or not kept.any() or not few:
        return None, none, None, None
    own = HeardLabelNoise()
    rows = frame.loc[kept, [name for name in _READ if name in frame.columns]]
    try:
        filters.apply(rows.reset_index(drop=True), [own], embeddings=embeddings[kept], seed=seed)
    except filters.FilterError as error:
        return None, none, None, str(error)
    return getattr(own, "heard", None), kept, "report", None


def _alive(frame: pd.DataFrame, chosen: Sequence[Any]) -> Any:
    """Which rows the filter `label_noise` found alive: those that none before it had dropped."""
    reasons = [each.reason for each in chosen]
    later = reasons[reasons.index(LabelNoise.reason) :]
    return (frame["reason"].isna() | frame["reason"].isin(later)).to_numpy(dtype=bool)


def _write(frame: pd.DataFrame, known: Any, ranks: Any, best: Any, highest: Any, own: Any) -> None:
    import pandas as pd

    frame[RANK] = pd.Series(ranks, index=frame.index).astype("Int64")
    said = [one if is_known else None for one, is_known in zip(best, known, strict=True)]
    frame[OPINION] = pd.Series(said, index=frame.index, dtype="str")
    frame[OPINION_PROBABILITY] = np.where(known, highest, np.nan)
    frame[LABEL_PROBABILITY] = np.where(known, own, np.nan)
