"""From scored cells to learning curves and forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curate.ablation_scores import Scores
from curate.ablation_source import Costs
from curate.scaling_fits import (
    LEAST_POINTS,
    METHODS,
    Comparison,
    Curve,
    Forecast,
    Trial,
    compare_methods,
    fit_laws,
    foretell_gain,
    try_forecasts,
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """All seeds of one student at one size of the training set.

    Attributes:
        objective: How it is trained.
        model: What it starts from.
        parameters: Its size; None where it is not known.
        fraction: Part of the training rows.
        rows: Training rows, the mean over the seeds.
        labels: Rows that the teacher had to label for them, rounded.
        seeds: The seeds that are there.
        steps: Fewest optimizer steps of a cell; None where they are not known.
        validation: Scores by metric.
        test: The same on test; None before it is read.
    """

    objective: str
    model: str
    parameters: int | None
    fraction: float
    rows: int
    labels: int
    seeds: tuple[int, ...]
    steps: int | None
    seconds: float
    validation: Mapping[str, Scores]
    test: Mapping[str, Scores] | None = None

    @property
    def student(self) -> tuple[str, str]:
        """What makes one curve: objective and model."""
        return self.objective, self.model

    def facts(self) -> dict[str, Any]:
        """The point as plain JSON values."""
        kept = {k: v for k, v in vars(self).items() if k not in ("validation", "test")}
        return {
            **kept,
            "seeds": list(self.seeds),
            "validation": {name: found.facts() for name, found in self.validation.items()},
            "test": None
            if self.test is None
            else {name: found.facts() for name, found in self.test.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """What twice as many labels should bring one student, and what they cost.

    ``gains`` is by method, in score; ``usd``, ``tokens`` and ``seconds`` are of the labels to be asked.
    """

    rows: int
    new_labels: int
    gains: Mapping[str, Forecast]
    usd: float | None
    tokens: float | None
    seconds: float | None

    def facts(self) -> dict[str, Any]:
        """It as plain JSON values."""
        return {**vars(self), "gains": {name: asdict(each) for name, each in self.gains.items()}}


@dataclass(frozen=True, kw_only=True)
class Learning:
    """One student's curve, its law, its trials on known points, and its next doubling."""

    objective: str
    model: str
    points: Sequence[Point]
    curve: Curve
    law: Mapping[str, float] | None
    trials: Sequence[Trial]
    doubling: Doubling | None

    def facts(self) -> dict[str, Any]:
        """It as plain JSON values."""
        return {
            "objective": self.objective,
            "model": self.model,
            "law": self.law,
            "trials": [
                {
                    "rows": t.rows, "from_points": t.points, "observed": t.observed,
                    "standard_error": t.error,
                    "forecasts": {n: asdict(f) for n, f in t.forecasts.items()},
                    "errors": {n: t.miss(n) for n in METHODS},
                }
                for t in self.trials
            ],
            "doubling": None if self.doubling is None else self.doubling.facts(),
        }  # fmt: skip


def learn(
    points: Sequence[Point], metric: str, costs: Costs, labelled: float
) -> tuple[list[Learning], Comparison | None]:
    """Fit each student's curve, and hold all fits against the baselines on points that are known.

    Args:
        points: All points.
        metric: What is foretold.
        costs: What a label takes.
        labelled: Rows to be labelled per training row.
    """
    import numpy as np

    found = []
    for student in dict.fromkeys(point.student for point in points):
        mine = sorted((p for p in points if p.student == student), key=lambda p: p.rows)
        scores = [p.validation[metric] for p in mine]
        curve = Curve(
            rows=tuple(p.rows for p in mine),
            scores=np.array([s.mean for s in scores]),
            errors=np.array([s.error for s in scores]),
            draws=np.stack([s.draws for s in scores], axis=1),
        )
        law, doubling = None, None
        if len(mine) >= LEAST_POINTS:
            fit = fit_laws(curve.rows, curve.scores[None, :], curve.errors)
            # b for n itself, as the formula is written.
            law = {
                "a": float(fit.a[0]),
                "b": float(fit.b[0] * fit.unit ** fit.c[0]),
                "c": float(fit.c[0]),
            }
            rows = mine[-1].rows
            new = round(rows * labelled)
            doubling = Doubling(
                rows=2 * rows,
                new_labels=new,
                gains=foretell_gain(curve, 2 * rows),
                usd=None if costs.usd is None else costs.usd * new,
                tokens=None if costs.tokens is None else costs.tokens * new,
                seconds=None if costs.seconds is None else costs.seconds * new,
            )
        found.append(
            Learning(
                objective=student[0], model=student[1], points=mine, curve=curve, law=law,
                trials=try_forecasts(curve), doubling=doubling,
            )
        )  # fmt: skip
    return found, compare_methods([trial for each in found for trial in each.trials])
