"""Try filters on a user's own rows, in which known changes are planted."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from filters.arguments import FilterError, check_number
from filters.frames import as_frame, check_filters, has_label, read_ids, read_labels
from filters.planting import KINDS
from filters.rows import Filter, OnProgress
from filters.shingles import normalise
from filters.trials import GRIDS, LEAKS, TWINS, Encode, Trial, make_table

_NOT_TESTED = {"rebalance": "it balances groups", "select": "it keeps to a budget"}
_LEAST_WORDS = 5


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A threshold that catches what it should on a sample it was not chosen on.

    `value` is None if no threshold that was tried does. `caught` and `lost` are the shares on the fresh
    sample, by kind.
    """

    filter: str
    argument: str
    value: float | None
    now: float
    caught: Mapping[str, float]
    lost: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What filters make of changes planted in a sample of the rows; `str` of it is a table.

    Attributes:
        table: One line per filter, threshold and kind of change: `filter`, `threshold`, `now` (whether it
            is the threshold that was given), `kind`, `wanted` ("drop" or "keep"), `planted`, `dropped`
            (rows), `share`, and `own`, the share of the sample's own rows that go at this threshold
            when nothing is planted.
        suggestions: Thresholds that hold the recall on a fresh planted sample.
        notes: What was not tested, and why.
        rows: How many rows were sampled.
        recall: The recall that was asked for.
    """

    table: pd.DataFrame
    suggestions: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    rows: int
    recall: float

    def __str__(self) -> str:
        lines = [f"{self.rows} of your rows, with changes planted: share dropped"]
        for reason, part in self.table.groupby("filter", sort=False):
            wide = part.pivot_table(index="threshold", columns="kind", values="share", sort=False)
            kinds = [kind for kind in KINDS if kind in wide.columns]
            head = [f"{kind}{'*' if KINDS[kind] == 'keep' else ''}" for kind in kinds]
            lines += ["", str(reason)]
            lines.append("  " + "".join(f"{word:>12}" for word in ["threshold", *head, "own rows"]))
            own = part.groupby("threshold")["own"].first()
            now = set(part.loc[part["now"], "threshold"])
            for threshold in sorted(set(part["threshold"])):
                cells = [f"{wide.loc[threshold, kind]:.3f}" for kind in kinds]
                mark = ">" if threshold in now else " "
                cells = [f"{threshold:g}", *cells, f"{own.loc[threshold]:.3f}"]
                lines.append(f"{mark} " + "".join(f"{cell:>12}" for cell in cells))
        if len(self.table):
            lines += ["", "* must stay; > the threshold now"]
        lines += ["", *map(self._suggest, self.suggestions)] if self.suggestions else []
        return "\n".join([*lines, *self.notes])

    def _suggest(self, one: Suggestion) -> str:
        name = f"{one.filter}.{one.argument}"
        if one.value is None:
            return (
                f"{name}: no threshold tried catches {self.recall:.0%} of {', '.join(one.caught)}"
            )
        caught = ", ".join(f"{kind} {share:.3f}" for kind, share in one.caught.items())
        lost = ", ".join(f"{kind} {share:.3f}" for kind, share in one.lost.items())
        lost = f"; lost: {lost}" if lost else ""
        return (
            f"{name}: {one.value:g} (now {one.now:g}) holds {self.recall:.0%} on a fresh sample: "
            f"{caught}{lost}"
        )


def self_test(
    dataset: Any,
    filters: Sequence[Filter],
    *,
    encode: Encode | None = None,
    seed: int = 0,
    sample: int = 500,
    recall: float = 0.97,
    catch: Sequence[str] = ("edit", "edits", "truncated"),
    on_progress: OnProgress | None = None,
) -> SelfTest:
    """Plant changes in a sample of rows and see which of them each filter drops, alone.

    Twins are planted beside their origins, one kind at a time. For a duplicate filter one is
    caught if not both stay; a contrast is lost if it, or an origin that stays without it, goes. For
    contamination the origins are the other set and the twins are the rows. Flipped labels are
    planted in place, in a fifth of the rows. For the filters in `GRIDS` many thresholds are tried.

    A suggested threshold is the highest that catches the share `recall` of each kind in `catch`, on
    the sample and then, as proof, on rows and changes that it was not chosen on; if it fails there,
    the next lower one is held against a further sample.

    Args:
        dataset: Rows as `apply` takes them.
        filters: The filters, as they would run.
        encode: Turns texts into vectors, shape (n, d); without it filters that need some are not
            tested.
        seed: Seed of samples and changes.
        sample: At most so many rows; those of at least five words, no two with the same text.
        recall: The share to be caught; in (0, 1].
        catch: Kinds of `filters.planting.KINDS` that a suggested threshold has to catch.
        on_progress: Called with {"stage", "done", "total"}.

    Raises:
        FilterError: Rows or arguments that cannot be worked with.
    """
    check_filters(filters, [])
    check_number("self_test", "sample", sample, low=2, whole=True, remedy="500 serves most")
    check_number("self_test", "recall", recall, low=0, high=1, open_low=True, remedy="try 0.97")
    unknown = [kind for kind in catch if KINDS.get(kind) != "drop" or kind == "label_flip"]
    if unknown:
        raise FilterError(
            f"self_test: catch names {unknown[0]!r}; allowed are edit, edits, truncated, reworded"
        )
    pool = _pool(dataset, seed)
    trial = Trial(pool=pool, encode=encode, seed=seed, sample=sample)
    tables, suggestions, notes = [], [], []
    for number, each in enumerate(filters):
        if on_progress is not None:
            on_progress({"stage": "self_test", "done": number, "total": len(filters)})
        if each.reason in _NOT_TESTED:
            notes.append(f"{each.reason} was not tested: {_NOT_TESTED[each.reason]}")
            continue
        try:
            table = trial.table(each, 0)
            tables.append(table)
            if each.reason in (*TWINS, *LEAKS) and each.reason in GRIDS and len(table):
                suggestions.append(_suggest(trial, each, table, recall, catch))
        except FilterError as error:
            notes.append(f"{each.reason} was not tested: {error}")
    return SelfTest(
        table=pd.concat(tables, ignore_index=True) if tables else make_table([]),
        suggestions=tuple(suggestions),
        notes=tuple(notes),
        rows=min(len(pool), sample),
        recall=recall,
    )


def _pool(dataset: Any, seed: int) -> pd.DataFrame:
    """Return the rows that may be sampled, shuffled independently of their order."""
    frame = as_frame(dataset)
    ids, labels = read_ids(frame), read_labels(frame)
    if "input" not in frame.columns:
        raise FilterError("self_test: there is no column 'input'; add it")
    frame = frame.drop(columns=["review"], errors="ignore")[has_label(frame, labels)]
    frame = frame[
        [isinstance(text, str) and len(text.split()) >= _LEAST_WORDS for text in frame["input"]]
    ]
    frame = frame.sort_values("id", ignore_index=True)
    if len(frame):
        frame = frame[~pd.Series(normalise(frame["input"].tolist())).duplicated().to_numpy()]
    if len(frame) < 2:
        raise FilterError(
            f"self_test: of {len(ids)} rows {len(frame)} are labelled, different from the others and of at "
            f"least {_LEAST_WORDS} words; at least 2 are needed"
        )
    order = list(range(len(frame)))
    random.Random(f"{seed} pool").shuffle(order)
    return frame.iloc[order].reset_index(drop=True)


def _suggest(
    trial: Trial, each: Any, table: pd.DataFrame, recall: float, catch: Sequence[str]
) -> Suggestion:
    argument = GRIDS[each.reason][0]
    now = float(getattr(each, argument))
    caught = _shares(table, now, "drop")
    for number, threshold in enumerate(sorted(set(table["threshold"]), reverse=True), start=1):
        if not _holds(table, threshold, recall, catch):
            continue
        fresh = trial.table(each, number)
        if _holds(fresh, threshold, recall, catch):
            return Suggestion(
                filter=each.reason, argument=argument, value=threshold, now=now,
                caught=_shares(fresh, threshold, "drop"), lost=_shares(fresh, threshold, "keep"),
            )  # fmt: skip
    caught = {kind: share for kind, share in caught.items() if kind in catch}
    return Suggestion(
        filter=each.reason, argument=argument, value=None, now=now, caught=caught, lost={}
    )


def _shares(table: pd.DataFrame, threshold: float, wanted: str) -> dict[str, float]:
    lines = table[(table["threshold"] == threshold) & (table["wanted"] == wanted)]
    return {str(line["kind"]): float(line["share"]) for line in lines.to_dict("records")}


def _holds(table: pd.DataFrame, threshold: float, recall: float, catch: Sequence[str]) -> bool:
    shares = _shares(table, threshold, "drop")
    there = [shares[kind] for kind in catch if kind in shares]
    return bool(there) and min(there) >= recall
