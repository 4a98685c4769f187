"""Rebalance: no label and no cluster may speak too loudly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from filters.arguments import FilterError, as_names, check_choice, check_number
from filters.rows import Flags, Floats, Ints, Judgement, Rows, column, drop_lines

Target: TypeAlias = float | Floats  # a ratio, or a share for each group

Methods = ("cap", "weight", "oversample")


@dataclass(frozen=True, kw_only=True)
class Rebalance:
    """Bring labels, clusters or any other groups of rows nearer to one size.

    For each column in `by` the promise is: no group counts more than a ratio times the typical
    group, which is the lower median of the groups' sizes (with two labels, the smaller one). Put
    it last, so that it sees the rows that would be trained on.

    Args:
        by: Columns whose values are the groups, the one that matters most first. "cluster" needs
            clusters to be given to `apply`.
        method: How the promise is kept.
            "cap" drops the excess of too large a group, the least confident rows first. With a
            teacher that is sometimes wrong this is best for a small training set, although
            rows are lost: the excess of a label that the teacher favours is where it errs most.
            "weight" keeps every row and gives those of a large group less weight in the loss
            (column `weight`, mean 1).
            "oversample" keeps every row and repeats those of small groups, the most confident
            first (column `copies`), until the largest is at most the ratio times each, as far as
            `maximum_copies` allows.
        shares: Wanted shares in place of a ratio, by column and value, such as
            {"label": {"positive": 0.5, "negative": 0.5}}. Every value of the column needs a share
            above 0; they are scaled to sum to 1. "cap" then drops what is above the largest set
            of those shares that the rows allow, "weight" brings the sums of weights to the shares
            and "oversample" the sums of copies, each within its limit.
        label_ratio: The ratio for the column "label"; at least 1.
        group_ratio: The ratio for every other column; at least 1.
        maximum_loss: "cap" drops at most this share of the rows it is given; in [0, 1].
        maximum_weight: "weight" lets no row count more than this many times another; at least 1.
        maximum_copies: "oversample" repeats no row more often than this; at least 1.

    The score is, by method: the row's place in its group, best first, divided by the places there
    are (the row is dropped if that is above the threshold of 1; the highest of all columns); the
    weight; the number of copies.
    """

    reason: ClassVar[str] = "rebalance"
    by: Sequence[str] = ("label", "cluster")
    method: str = "cap"
    shares: Mapping[str, Mapping[str, float]] | None = None
    label_ratio: float = 1.5
    group_ratio: float = 3.0
    maximum_loss: float = 0.5
    maximum_weight: float = 4.0
    maximum_copies: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", as_names(self.reason, "by", self.by))
        check_choice(self.reason, "method", self.method, Methods)
        _check_shares(self.shares, self.by)
        for name, remedy in (
            ("label_ratio", "1.5 is a place to start"),
            ("group_ratio", "3 is a place to start"),
            ("maximum_weight", "try 4"),
        ):
            check_number(self.reason, name, getattr(self, name), low=1, remedy=remedy)
        check_number(
            self.reason, "maximum_loss", self.maximum_loss, low=0, high=1, remedy="try 0.5"
        )
        check_number(
            self.reason, "maximum_copies", self.maximum_copies, low=1, whole=True, remedy="try 4"
        )

    def judge(self, rows: Rows) -> Judgement:
        """Balance the rows still alive, one column after the other."""
        groups = [_groups(rows, name) for name in self.by]
        targets = [
            _wanted(rows, name, group, self.shares[name])
            if self.shares and name in self.shares
            else float(self.label_ratio if name == "label" else self.group_ratio)
            for name, group in zip(self.by, groups, strict=True)
        ]
        if self.method == "cap":
            return self._cap(rows, groups, targets)
        weights, copies = np.ones(len(rows)), np.ones(len(rows), dtype=np.int64)
        if rows.alive.any() and self.method == "weight":
            weights[rows.alive] = _weigh(
                [group[rows.alive] for group in groups], targets, self.maximum_weight
            )
        elif rows.alive.any():
            copies = _repeat(rows, groups, targets, self.maximum_copies)
        return Judgement(
            scores=weights if self.method == "weight" else copies.astype(np.float64),
            dropped=np.zeros(len(rows), dtype=bool),
            threshold=None,
            matches=drop_lines(np.empty(0, dtype=np.int64), weights),
            weights=weights,
            copies=copies,
        )

    def _cap(self, rows: Rows, groups: list[Ints], targets: list[Target]) -> Judgement:
        alive = rows.alive.copy()
        scores = np.zeros(len(rows))
        budget = int(self.maximum_loss * alive.sum())
        for group, target in zip(groups, targets, strict=True):
            places = _places(rows.order, group, alive)
            sizes = np.bincount(group[alive], minlength=int(group.max(initial=0)) + 1)
            if isinstance(target, float):
                ceilings = np.full(len(sizes), _ceiling(sizes, target, budget))
            else:
                ceilings = _ceilings(sizes, target, budget)
            scores = np.maximum(scores, places / ceilings[group])
            over: Flags = alive & (places > ceilings[group])
            alive &= ~over
            budget -= int(over.sum())
        dropped = rows.alive & ~alive
        return Judgement(
            scores=scores,
            dropped=dropped,
            threshold=1.0,
            matches=drop_lines(np.flatnonzero(dropped), scores),
        )


def _groups(rows: Rows, name: str) -> Ints:
    """Return a group number per row; nulls are a group of their own."""
    import pandas as pd

    if name == "cluster" and name not in rows.frame.columns:
        raise FilterError(
            "rebalance: by names 'cluster' and there are no clusters; pass "
            "clusters=filters.cluster(embeddings).labels to apply, or leave it out of `by`"
        )
    values = column(rows.frame, name, "rebalance")
    try:
        codes, _ = pd.factorize(values, use_na_sentinel=False)
    except TypeError as error:
        raise FilterError(
            f"rebalance: column {name!r} holds values that cannot be grouped ({error}); name a "
            "column of words or whole numbers in `by`"
        ) from error
    return np.asarray(codes, dtype=np.int64)


def _check_shares(shares: object, by: Sequence[str]) -> None:
    if shares is None:
        return
    wanted = "write for example {label: {positive: 0.5, negative: 0.5}}"
    if not isinstance(shares, Mapping) or not shares:
        raise FilterError(
            f"rebalance: shares is {shares!r}; it must be shares by column and value; {wanted}"
        )
    for name, values in shares.items():
        if name not in by:
            raise FilterError(
                f"rebalance: shares names {name!r}, which is not in `by` ({', '.join(by)}); add it there"
            )
        if not isinstance(values, Mapping) or not values:
            raise FilterError(
                f"rebalance: shares of {name!r} is {values!r}; it must be a share for each value; {wanted}"
            )
        for value, share in values.items():
            check_number(
                "rebalance", f"shares.{name}.{value}", share, low=0, open_low=True,
                remedy="drop unwanted rows before instead",
            )  # fmt: skip


def _wanted(rows: Rows, name: str, group: Ints, shares: Mapping[str, float]) -> Floats:
    """Return the wanted share of each group number, summing to 1 over the groups alive."""
    values = column(rows.frame, name, "rebalance").tolist()
    wanted = np.zeros(int(group.max(initial=-1)) + 1)
    given = {str(value): float(share) for value, share in shares.items()}
    for number, place in zip(*np.unique(group[rows.alive], return_index=True), strict=True):
        value = values[int(np.flatnonzero(rows.alive)[place])]
        if str(value) not in given:
            raise FilterError(
                f"rebalance: shares of {name!r} lacks the value {value!r}, which rows have; it names "
                f"{', '.join(map(repr, given))}; give it a share, or drop such rows before"
            )
        wanted[number] = given[str(value)]
    return np.asarray(wanted / max(wanted.sum(), 1e-300))


def _ceilings(sizes: Ints, shares: Floats, budget: int) -> Ints:
    """Return the most rows each group may keep: shares of one whole, losing at most `budget`."""
    ceilings = np.maximum(sizes, 1)
    there = (sizes > 0) & (shares > 0)
    if not there.any():
        return ceilings
    # The largest whole that no group falls short of, then the least that keeps to the budget.
    whole = float((sizes[there] / shares[there]).min())
    if np.maximum(sizes - np.floor(shares * whole + 1e-9), 0)[there].sum() > budget:
        low, high = whole, float((sizes[there] / shares[there]).max())
        for _ in range(60):
            middle = (low + high) / 2
            lost = np.maximum(sizes - np.floor(shares * middle + 1e-9), 0)[there].sum()
            low, high = (middle, high) if lost > budget else (low, middle)
        whole = high
    ceilings[there] = np.maximum(np.floor(shares[there] * whole + 1e-9), 1).astype(np.int64)
    return ceilings


def _typical(sizes: Floats | Ints) -> float:
    """Return the lower median of the sizes that are not 0."""
    present = np.sort(sizes[sizes > 0])
    return float(present[(len(present) - 1) // 2])


def _ceiling(sizes: Ints, ratio: float, budget: int) -> int:
    """Return the most rows a group may keep, raised until at most `budget` rows are lost."""
    if not sizes.sum():
        return 1
    ceiling = max(int(ratio * _typical(sizes)), 1)
    while np.maximum(sizes - ceiling, 0).sum() > budget:
        over = sizes[sizes > ceiling]
        # The least step that could pay for what is missing; at least one row per group.
        missing = int((over - ceiling).sum()) - budget
        ceiling += max(missing // len(over), 1)
    return ceiling


def _places(order: Ints, group: Ints, alive: Flags) -> Ints:
    """Return each row's place in its group, from 1; a row already gone comes after those alive."""
    sizes = np.bincount(group[alive], minlength=group.max(initial=0) + 1)
    places = sizes[group] + 1
    living = order[alive[order]]
    by_group = living[np.argsort(group[living], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    places[by_group] = np.arange(len(by_group)) - starts[group[by_group]] + 1
    return places


def _weigh(groups: list[Ints], targets: list[Target], most: float) -> Floats:
    """Scale down heavy groups, column by column, until every column keeps its promise.

    This is raking (Deming and Stephan 1940), with one-sided targets for ratios. Weights lie within a factor
    of `most` of one another, which goes before the promise, and have mean 1.
    """
    weights = np.ones(len(groups[0]))
    for _ in range(20):
        before = weights
        for group, target in zip(groups, targets, strict=True):
            sizes = np.bincount(group, weights=weights)
            if isinstance(target, float):
                allowed = target * _typical(sizes)
                factors = np.minimum(1.0, allowed / np.where(sizes > 0, sizes, 1))
            else:
                factors = target[: len(sizes)] * sizes.sum() / np.where(sizes > 0, sizes, 1)
            weights = weights * factors[group]
        weights = np.maximum(weights, weights.max() / most)
        if np.allclose(weights, before, rtol=1e-6):
            break
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _repeat(rows: Rows, groups: list[Ints], targets: list[Target], most: int) -> Ints:
    """Return copies per row, raising small groups column by column, the best rows first."""
    copies = np.ones(len(rows), dtype=np.int64)
    for group, target in zip(groups, targets, strict=True):
        held = np.bincount(group, weights=copies * rows.alive).astype(np.int64)
        if isinstance(target, float):
            wanted = np.full(len(held), math.ceil(held.max() / target))
        else:
            whole = (held / np.where(target > 0, target, np.inf)).max()
            wanted = np.round(target * whole).astype(np.int64)
        for number in np.flatnonzero((held > 0) & (held < wanted)):
            members = rows.order[(group[rows.order] == number) & rows.alive[rows.order]]
            lacking = wanted[number] - held[number]
            for _ in range(most - 1):
                more = members[copies[members] < most][:lacking]
                copies[more] += 1
                lacking -= len(more)
    return copies
