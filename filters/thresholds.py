"""Move thresholds over what is known already: no text is embedded, signed or sent anew."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from filters.arguments import FilterError
from filters.decisions import FILTERS
from filters.label_noise import score_at
from filters.limits import ABOVE, BELOW
from filters.matches import form_units, judge_units
from filters.meanings import same_meaning
from filters.proposals import Pairs
from filters.results import Result
from filters.rows import (
    Filter,
    Flags,
    Floats,
    Ints,
    Judgement,
    Matches,
    Rows,
    drop_lines,
    texts,
)
from filters.twins import join
from filters.verdicts import Verdicts

#: Judged anew from the frame's columns by their own code: cheap, and whatever changed.
ANEW = ("exact_duplicate", "rebalance")
#: Scores that depend on which rows reach the filter: it learns from them, or combines such scores.
_LEARNED = ("label_noise", "unsupported", "ensemble")
#: Judged from the recorded matches: the argument that moves, and how far below it the floor is.
RECORDED = {
    "near_duplicate": ("threshold", 0.1),
    "semantic_duplicate": ("threshold", 0.05),
    "contamination": ("containment", 0.2),
    "semantic_contamination": ("threshold", 0.05),
}
_LIMITS = {BELOW: "minimum", ABOVE: "maximum"}
_EITHER = ("minimum", "share")
_LINES = 16  # as many as a filter writes for a row: a row with fewer has all of its matches there


def rethreshold(result: Result, changes: Mapping[str, Any]) -> Result:
    """Judge again with other thresholds, from the scores and the evidence that are there.

    The outcome is that of `apply` with the changed filters and the same seed, save that scores
    reach down to the former floors:

    - `exact_duplicate` and `rebalance` judge anew from the frame's columns; any argument may change.
    - The `minimum` or `maximum` of a filter that judges by one number (`confidence`, `too_long`,
      `label_noise`, ...) moves anywhere; so does the `share` of those that have one, which takes
      the minimum's place. What `label_noise`, `unsupported` and `ensemble` learnt holds for the
      rows that reached them: they refuse if an earlier filter lets others through.
    - `near_duplicate.threshold`, `semantic_duplicate.threshold`, `contamination.containment` and
      `semantic_contamination.threshold` move anywhere at or above the floor they ran with (`floor`,
      by default 0.1, 0.05, 0.2 and 0.05 below). The two duplicate filters refuse where a row has 16
      recorded matches, since there may be more. MinHash was not asked for pairs below the threshold
      it ran with, so `near_duplicate` warns that it may overlook some when the threshold is lowered.
    - Any other filter stays as it is, and refuses if other rows reach it than before.

    Args:
        result: What `apply` gave, or `result_from` made of a run's files.
        changes: For example {"near_duplicate.threshold": 0.9, "confidence.minimum": 0.7}.

    Raises:
        FilterError: A filter that did not run, an argument that cannot be moved, a value that is not
            allowed or lies below what was recorded, or a filter that would have to look anew.
    """
    filters = _change(result, changes)
    verdicts = Verdicts.of(result.frame, references=result.references, seed=result.seed)
    former = result.frame["reason"].to_numpy(dtype=object)
    reached = verdicts.rows.alive  # the rows that reached the filter before
    for each, old in zip(filters, result.filters, strict=True):
        own = result.decisions[result.decisions["filter"] == each.reason]
        judgement = _judge(verdicts.rows, each, old, own, reached)
        verdicts.add(each.reason, judgement)
        reached = reached & (former != each.reason)
    return verdicts.result(filters, notes=result.notes)


def keep_at(result: Result, argument: str, value: float) -> Flags:
    """Return which rows of a result of one filter stay at another threshold, shape (n,).

    Raises:
        FilterError: As for `rethreshold`.
    """
    (old,) = result.filters
    (each,) = _change(result, {f"{old.reason}.{argument}": value})
    rows = Verdicts.of(result.frame, references=result.references, seed=result.seed).rows
    own = result.decisions[result.decisions["filter"] == old.reason]
    return rows.alive & ~_judge(rows, each, old, own, rows.alive).dropped


def _change(result: Result, changes: Mapping[str, Any]) -> list[Filter]:
    """Return the filters with the changed arguments."""
    filters = {each.reason: each for each in result.filters}
    for name, value in changes.items():
        reason, _, argument = name.partition(".")
        if reason not in filters:
            raise FilterError(
                f"rethreshold: {name!r} names the filter {reason!r}, which did not run; those that "
                f"did are {', '.join(filters) or 'none'}"
            )
        each: Any = filters[reason]
        movable = _movable(each)
        if argument not in movable:
            can = f"can be: {', '.join(movable)}" if movable else "none can: run the filters again"
            raise FilterError(
                f"rethreshold: {name!r} cannot be moved without judging anew; of {reason} {can}"
            )
        if reason in RECORDED:
            _check_recorded(each, name, value)
        changed = {argument: tuple(value) if isinstance(value, list) else value}
        if argument in _EITHER and set(_EITHER) <= set(movable):
            changed = dict.fromkeys(_EITHER) | changed  # two ways to say what goes
        if getattr(each, "floor", None) is None and reason in RECORDED:
            changed["floor"] = _floor(each)
        filters[reason] = dataclasses.replace(each, **changed)
    return list(filters.values())


def _movable(each: Any) -> list[str]:
    """Return the arguments that can be changed without judging anew."""
    fields = (
        [one.name for one in dataclasses.fields(each)] if dataclasses.is_dataclass(each) else []
    )
    ours = isinstance(each, FILTERS.get(each.reason, ()))
    if ours and each.reason in ANEW:
        return fields
    if ours and each.reason in RECORDED:
        return [RECORDED[each.reason][0]]
    drops = getattr(each, "drops", None)
    wanted = (_LIMITS[drops], "share") if drops in _LIMITS else ()
    return [name for name in wanted if name in fields]


def _floor(each: Any) -> float:
    argument, step = RECORDED[each.reason]
    least = 0.05 if each.reason == "contamination" else 0.01
    return float(max(getattr(each, argument) - step, least) if each.floor is None else each.floor)


def _check_recorded(each: Any, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FilterError(f"rethreshold: {name} is {value!r}; it must be a number, such as 0.9")
    if value < _floor(each):
        raise FilterError(
            f"rethreshold: {name} is {value!r}, and matches are recorded down to {_floor(each):g} only; "
            f"stay at or above that, or run the filters again with a lower `floor`"
        )


def _judge(rows: Rows, each: Any, old: Any, own: pd.DataFrame, reached: Flags) -> Judgement:
    if each.reason in ANEW and type(each).__module__.startswith("filters."):
        judgement: Judgement = each.judge(rows)
        return judgement
    matches = _read(rows, own)
    scores = rows.frame[f"score_{each.reason}"].to_numpy(dtype=np.float64)
    threshold = own["threshold"].iloc[0] if len(own) else math.nan
    if each == old and np.array_equal(reached, rows.alive):
        dropped = rows.frame["reason"].to_numpy(dtype=object) == each.reason
        return Judgement(
            scores=scores, dropped=dropped, threshold=float(threshold), matches=matches
        )
    if each.reason in ("near_duplicate", "semantic_duplicate"):
        return _from_edges(rows, each, old, matches)
    if each.reason in RECORDED:
        return _from_scores(rows, each, matches)
    others = not np.array_equal(reached, rows.alive)
    limit = getattr(each, _LIMITS.get(getattr(each, "drops", ""), ""), None)
    share = getattr(each, "share", None)
    if limit is None and share is not None:
        limit = score_at(scores[rows.alive & ~np.isnan(scores)], share)
    if limit is not None and not (others and each.reason in _LEARNED):
        return _from_limit(rows, each, scores, limit)
    raise FilterError(
        f"rethreshold: other rows reach {each.reason} than before, and what it makes of them is not "
        "recorded; run the filters again"
    )


def _read(rows: Rows, own: pd.DataFrame) -> Matches:
    """Return recorded lines by position."""
    places = {one: place for place, one in enumerate(rows.ids)}
    nulls = own["related_id"].isna().to_numpy()
    elsewhere = None
    related = np.full(len(own), -1, dtype=np.int64)
    if "related_set" in own.columns and own["related_set"].notna().any():
        elsewhere = list(zip(own["related_set"].tolist(), own["related_id"].tolist(), strict=True))
    else:
        there = np.flatnonzero(~nulls)
        related[there] = [places[one] for one in own["related_id"].iloc[there]]
    return Matches(
        row=np.array([places[one] for one in own["id"]], dtype=np.int64),
        related=related,
        score=own["score"].to_numpy(dtype=np.float64),
        verdict=own["verdict"].to_numpy(dtype=object).copy(),
        elsewhere=elsewhere,
    )


def _from_edges(rows: Rows, each: Any, old: Any, matches: Matches) -> Judgement:
    """Decide duplicates again from the pairs that were written down."""
    crowded = np.bincount(matches.row, minlength=1) >= _LINES
    if crowded.any():
        raise FilterError(
            f"rethreshold: {each.reason} recorded {_LINES} matches of row "
            f"{rows.ids[int(np.argmax(crowded))]!r}, and there may be more; run the filters again"
        )
    inputs = texts(rows, "input", each.reason)
    semantic = each.reason == "semantic_duplicate"
    equal = matches.score >= 1
    if semantic:  # there rows are one unit only if text and vector are the same
        pairs = zip(matches.row.tolist(), matches.related.tolist(), strict=True)
        equal &= np.array([inputs[one] == inputs[two] for one, two in pairs], dtype=bool)
    keys = join(matches.row[equal], matches.related[equal], len(rows))
    units = form_units(rows, keys, same_label=each.same_label)
    one, two = units.unit[matches.row], units.unit[matches.related]
    worse, better = np.maximum(one, two), np.minimum(one, two)
    _, once = np.unique(worse * (len(units.rows) + 1) + better, return_index=True)
    once = once[worse[once] != better[once]]
    found = Pairs(worse=worse[once], better=better[once], score=matches.score[once])

    def check(first: Ints, second: Ints) -> Flags:
        return same_meaning(inputs, first, second, each.overlap)

    judgement = judge_units(
        rows, units, lambda _: found, float(each.threshold), check if semantic else None
    )
    if semantic or each.threshold >= old.threshold:
        return judgement
    warning = (
        f"near_duplicate: the threshold was moved from {old.threshold:g} down to {each.threshold:g}, "
        "where pairs are recorded as far as they were met with; run the filters again to find all"
    )
    return dataclasses.replace(judgement, warnings=(*judgement.warnings, warning))


def _from_limit(rows: Rows, each: Any, scores: Floats, limit: float) -> Judgement:
    """Compare each row's own number with the new limit."""
    outside = scores < limit if each.drops == BELOW else scores > limit
    if getattr(each, "on_missing", "keep") == "drop":
        outside |= np.isnan(scores)
    dropped = rows.alive & outside
    return Judgement(
        scores=scores,
        dropped=dropped,
        threshold=float(limit),
        matches=drop_lines(np.flatnonzero(dropped), scores),
        drops=each.drops,
    )


def _from_scores(rows: Rows, each: Any, matches: Matches) -> Judgement:
    """Compare each row's own score with the new threshold."""
    threshold = float(getattr(each, RECORDED[each.reason][0]))
    scores = rows.frame[f"score_{each.reason}"].to_numpy(dtype=np.float64)
    # A line above its row's score is a pair that did not count.
    drops = (matches.score >= threshold) & (matches.score <= scores[matches.row])
    drops &= rows.alive[matches.row]
    if each.reason == "semantic_contamination" and matches.elsewhere is not None:
        drops &= _mean_the_same(rows, each, matches)
    return Judgement(
        scores=scores,
        dropped=rows.alive & (scores >= threshold),
        threshold=threshold,
        matches=dataclasses.replace(
            matches, verdict=np.where(drops, "drop", "keep").astype(object)
        ),
    )


def _mean_the_same(rows: Rows, each: Any, matches: Matches) -> Flags:
    for name in {name for name, _ in matches.elsewhere or ()}:
        if name not in rows.references:
            raise FilterError(
                f"rethreshold: {each.reason} has to read the texts of {name!r} again, and they are "
                "not there; pass them as references to result_from"
            )
    theirs = {
        (name, one): text
        for name, other in rows.references.items()
        for one, text in zip(other.ids, other.texts, strict=True)
    }
    mine = texts(rows, "input", each.reason)
    other = [theirs.get(twin, "") for twin in matches.elsewhere or ()]
    place = np.arange(len(other)) + len(mine)
    return same_meaning([*mine, *other], matches.row, place, each.overlap)
