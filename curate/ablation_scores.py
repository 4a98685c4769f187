"""Scores of cells on the same validation rows: means over seeds, with intervals over seeds and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.recipe import Recipe
from curate.scoring import shown_metrics

Floats = NDArray[np.float64]

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Tally:
    """A metric's statistics: ``sums`` of each group, (groups, k), and ``value`` of (m, k) sums, (m,)."""

    sums: Floats
    value: Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The rows that answers are held against.

    Attributes:
        reference: What is taken as right, per row.
        recipe: Says which labels and which metrics there are.
        places: The number of each row's group, 0 up; rows of a group are drawn together.
        seed: Draws the resamples.
    """

    reference: Sequence[Any]
    recipe: Recipe
    places: NDArray[np.int64]
    seed: int

    def metrics(self) -> tuple[str, ...]:
        """The task's metrics that are shares and need answers alone; the first is the headline."""
        import student

        closed = {"labels": self.recipe.task.labels is not None, "same": True, None: True}
        found = [
            name
            for name in shown_metrics(self.recipe)
            if (metric := student.METRICS[name]).is_share
            and not metric.less_is_better
            and closed.get(metric.needs, False)
        ]
        return tuple(dict.fromkeys([*found, "accuracy"]))

    def _statistics(self, metric: str, said: Sequence[str | None]) -> Any:
        import labelers
        import student
        from student.row_statistics import Answers

        answers = Answers(
            gold=list(self.reference),
            predictions=list(said),
            labels=self.recipe.task.labels,
            same=labelers.same_value,
            separator=self.recipe.task.separator,
        )
        return student.METRICS[metric].statistics(answers)

    def row_scores(self, said: Sequence[str | None]) -> Floats:
        """Each answer's score, of which the mean is compared: whether it is right, 0 or 1.

        For a free text it is right if it equals the reference after folding case and spaces or, where the
        task's headline says ``value``, if it has the same value.
        """
        free = self.recipe.task.labels is None and self.recipe.task.choices is None
        metric = "accuracy"
        if free:
            metric = "value" if self.metrics()[0] == "value" else "exact_match"
        rows: Floats = self._statistics(metric, said).rows[:, 0]
        return rows

    def tallies(self, metric: str, said: Sequence[str | None]) -> Tally:
        """What a metric is made of, summed over each group."""
        statistics = self._statistics(metric, said)
        sums = np.zeros((int(self.places.max()) + 1, statistics.rows.shape[1]))
        np.add.at(sums, self.places, statistics.rows)
        return Tally(sums=sums, value=statistics.value)

    def resample(self, tallies: Sequence[Tally], draws: int = RESAMPLES) -> Floats:
        """Scores of several systems on the same resamples of whole groups; shape (draws, systems).

        The bootstrap of Efron (1979) over groups, which for rows of no group are single rows.
        """
        groups = int(self.places.max()) + 1
        random = np.random.default_rng(self.seed)
        stacked = np.concatenate([each.sums for each in tallies], axis=1)
        parts: list[Floats] = []
        height = max(1, 4_000_000 // groups)
        for start in range(0, draws, height):
            number = min(height, draws - start)
            picks = random.integers(0, groups, size=(number, groups))
            counts = np.stack([np.bincount(pick, minlength=groups) for pick in picks])
            parts.append(counts @ stacked)
        sums, at = np.concatenate(parts), 0
        columns = []
        for each in tallies:
            columns.append(each.value(sums[:, at : at + each.sums.shape[1]]))
            at += each.sums.shape[1]
        return np.stack(columns, axis=1)


def make_judge(rows: Any, recipe: Recipe) -> Judge:
    """The judge over rows with ``id``, ``group`` and ``reference``."""
    units = rows["group"].where(rows["group"].notna(), "row " + rows["id"].astype(str))
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    places = np.array([numbers[unit] for unit in units], dtype=np.int64)
    return Judge(
        reference=rows["reference"].tolist(), recipe=recipe, places=places, seed=recipe.seed
    )


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A metric of systems that differ in their seeds alone.

    Attributes:
        values: Score of each seed.
        mean: Their mean.
        low: Lower end of its 95 % interval, over seeds and rows; over rows alone with one seed.
        high: Upper end.
        error: Its standard error, of both kinds.
        draws: The mean on resampled rows, with what other seeds would change where there are several.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    error: float
    draws: Floats

    def facts(self) -> dict[str, float]:
        """Value and interval as JSON."""
        return {"value": self.mean, "low": self.low, "high": self.high}


def score_points(
    judge: Judge, points: Sequence[Sequence[Sequence[str | None]]], metric: str
) -> list[Scores]:
    """Score points of one curve: the answers of each seed of each point.

    The variance of a point's mean is that over rows (bootstrap of whole groups, all seeds on the same
    draws) plus that over seeds, s^2 / S. With few seeds s^2 is poorly known: each point's is averaged
    with the mean of all points. The interval is Student's t with the degrees of freedom of Welch and
    Satterthwaite.
    """
    flat = [judge.tallies(metric, said) for seeds in points for said in seeds]
    drawn = judge.resample(flat)
    values = [float(each.value(each.sums.sum(axis=0)[None])[0]) for each in flat]
    sizes = [len(seeds) for seeds in points]
    ends = np.cumsum([0, *sizes])
    by_point = [values[i:j] for i, j in pairwise(ends)]
    spreads = [float(np.var(v, ddof=1)) if len(v) > 1 else None for v in by_point]
    known = [s for s in spreads if s is not None]
    pooled = float(np.mean(known)) if known else 0.0
    freedom = max(1.0, sum(len(v) - 1 for v in by_point if len(v) > 1) / 2)
    found = []
    random = np.random.default_rng([judge.seed, 1])
    for i, seeds in enumerate(by_point):
        rows = drawn[:, ends[i] : ends[i + 1]].mean(axis=1)
        own = spreads[i]
        by_seed = (pooled if own is None else (own + pooled) / 2) / len(seeds)
        mean = float(np.mean(seeds))
        noise = random.normal(0.0, np.sqrt(by_seed), size=len(rows)) if by_seed else 0.0
        error = float(np.sqrt(rows.var() + by_seed))
        half = _t_quantile(float(rows.var()), int(judge.places.max()), by_seed, freedom) * error
        found.append(
            Scores(
                values=tuple(seeds), mean=mean, error=error, draws=rows + noise,
                low=max(0.0, mean - half), high=min(1.0, mean + half),
            )
        )  # fmt: skip
    return found


def _t_quantile(by_rows: float, row_freedom: int, by_seed: float, seed_freedom: float) -> float:
    """Student's 97.5 % point with Welch and Satterthwaite's degrees of freedom of a sum of variances."""
    from scipy import stats

    total = by_rows + by_seed
    if total <= 0:
        return 1.96
    parts = by_rows**2 / max(row_freedom, 1) + by_seed**2 / seed_freedom
    return float(stats.t.ppf(0.975, max(1.0, total**2 / parts)))


def compare_paired(
    judge: Judge,
    one: Sequence[Sequence[str | None]],
    other: Sequence[Sequence[str | None]],
) -> dict[str, float]:
    """How much more often one system is right than another, seed by seed on the same rows.

    The p-value is that of the paired permutation test over groups (all seeds of a group change sign
    together); with several seeds it is at least that of a t test whose variance is that over rows plus
    that over the seeds' differences, so that a lucky seed alone shows nothing.

    Returns:
        ``value``, ``low``, ``high`` (95 %, bootstrap over groups, widened by the seeds) and ``p``.
    """
    from scipy import stats

    from curate.teacher_scores import difference

    rights = [(judge.row_scores(a), judge.row_scores(b)) for a, b in zip(one, other, strict=True)]
    left = np.concatenate([a for a, _ in rights])
    right = np.concatenate([b for _, b in rights])
    groups: list[Any] = [int(place) for place in judge.places] * len(rights)
    found = difference(left, right, groups, judge.seed)
    if len(rights) < 2:
        return found
    each = [float(a.mean() - b.mean()) for a, b in rights]
    by_seed = float(np.var(each, ddof=1)) / len(each)
    by_rows = ((found["high"] - found["low"]) / (2 * 1.96)) ** 2
    if by_seed <= 0:
        return found
    freedom = (by_rows + by_seed) ** 2 / (
        by_rows**2 / max(int(judge.places.max()), 1) + by_seed**2 / (len(each) - 1)
    )
    error = float(np.sqrt(by_rows + by_seed))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(found["value"]) / error, freedom))
    return {
        "value": found["value"],
        "low": min(found["low"], found["value"] - half),
        "high": max(found["high"], found["value"] + half),
        "p": max(found["p"], p),
    }
