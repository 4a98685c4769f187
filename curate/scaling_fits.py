"""Learning curves: a saturating power law, two baselines, and a test of all three by prediction.

The law is score(n) = 1 - (a + b * n^-c), that is error(n) = a + b * n^-c with a >= 0, b >= 0 and
0.05 <= c <= 3 (Cortes et al. 1993, "Learning curves: asymptotic values and rate of convergence"; Hestness
et al. 2017, "Deep learning scaling is predictable, empirically"). The two baselines are "no more gain", the
score of the largest set so far, and "log-linear", a straight line over ln n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The ways to foretell a score, in the order in which they are shown.
METHODS = ("power law", "no more gain", "log-linear")
#: With fewer points than the law has parameters there is nothing to fit.
LEAST_POINTS = 3
_EXPONENTS = np.geomspace(0.05, 3.0, 90)
# Few points do not pin three parameters: ln c is drawn weakly to ln 0.5, with a standard deviation of 1.
_USUAL_EXPONENT, _PRIOR_WIDTH = 0.5, 1.0
#: No score is known better than this, however alike its resamples are.
_LEAST_ERROR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One student's scores over growing training sets.

    Attributes:
        rows: Training rows of each point, growing; shape (k,).
        scores: Mean score of each point, 0 to 1; shape (k,).
        errors: Their standard errors; shape (k,).
        draws: Resampled scores, all points of a draw together; shape (draws, k).
    """

    rows: tuple[int, ...]
    scores: Floats
    errors: Floats
    draws: Floats

    def first(self, points: int) -> Curve:
        """The curve up to its first so many points."""
        return Curve(
            rows=self.rows[:points],
            scores=self.scores[:points],
            errors=self.errors[:points],
            draws=self.draws[:, :points],
        )


@dataclass(frozen=True, kw_only=True)
class Laws:
    """Fitted power laws, one per curve that was given: arrays of shape (m,).

    ``b`` is the error beyond the floor ``a`` at ``unit`` rows, so that its size says something:
    error(n) = a + b * (n / unit)^-c.
    """

    a: Floats
    b: Floats
    c: Floats
    unit: float

    def score(self, rows: float) -> Floats:
        """The score at so many rows; shape (m,)."""
        return 1.0 - (self.a + self.b * (rows / self.unit) ** -self.c)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What one method foretells of a score: the value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A known point that was foretold from smaller ones.

    ``forecasts`` and ``draws`` are by method: from the scores, and from each resample of them; ``told`` is
    what the point's own resamples say. ``points`` counts the points that were fitted.
    """

    rows: int
    points: int
    observed: float
    error: float
    forecasts: dict[str, Forecast]
    draws: dict[str, Floats]
    told: Floats

    def miss(self, method: str) -> float:
        """How far the method was off, 0 to 1."""
        return abs(self.forecasts[method].value - self.observed)


def fit_laws(
    rows: Sequence[int], scores: Floats, errors: Floats, *, usual: Floats | None = None
) -> Laws:
    """Fit the power law to each row of ``scores`` by weighted least squares.

    For each exponent of a fine grid the best a and b are found exactly under their bounds, so that no
    start can be a bad one; of all exponents the best is taken.

    Args:
        rows: Training rows of the points; shape (k,), k >= 3.
        scores: Scores, 0 to 1; shape (m, k).
        errors: Standard errors of the points; shape (k,).
        usual: What ln c is drawn to, by curve; shape (m,). By default ln 0.5 for all.

    Raises:
        ValueError: With fewer than three points.
    """
    if len(rows) < LEAST_POINTS:
        raise ValueError(f"{len(rows)} points: a power law needs at least {LEAST_POINTS}")
    unit = float(max(rows))
    weights = 1.0 / np.maximum(errors, _LEAST_ERROR) ** 2
    x = (np.asarray(rows, dtype=float) / unit)[None, :] ** -_EXPONENTS[:, None]  # (exponents, k)
    e = 1.0 - np.atleast_2d(scores)  # (m, k)
    total, wx, wxx = weights.sum(), x @ weights, (x * x) @ weights
    we, wxe = e @ weights, e @ (x * weights).T  # (m,), (m, exponents)
    spread = np.maximum(total * wxx - wx**2, 1e-12)
    b = (total * wxe - we[:, None] * wx) / spread
    a = (we[:, None] - b * wx) / total
    # Where a bound is crossed the best lies on one of the two edges.
    on_a = np.maximum(wxe / wxx, 0.0)
    edge_a = _misfit(np.zeros_like(on_a), on_a, x, e, weights)
    flat = np.broadcast_to(np.clip(we[:, None] / total, 0.0, None), on_a.shape)
    edge_b = _misfit(flat, np.zeros_like(on_a), x, e, weights)
    outside = (a < 0) | (b < 0)
    a = np.where(outside, np.where(edge_a <= edge_b, 0.0, flat), a)
    b = np.where(outside, np.where(edge_a <= edge_b, on_a, 0.0), b)
    centres = np.full(len(e), np.log(_USUAL_EXPONENT)) if usual is None else usual
    prior = ((np.log(_EXPONENTS)[None, :] - centres[:, None]) / _PRIOR_WIDTH) ** 2
    best = (_misfit(a, b, x, e, weights) + prior).argmin(axis=1)
    each = np.arange(len(e))
    return Laws(a=a[each, best], b=b[each, best], c=_EXPONENTS[best], unit=unit)


def _misfit(a: Floats, b: Floats, x: Floats, e: Floats, weights: Floats) -> Floats:
    """Chi-square of each curve under each exponent; shape (m, exponents)."""
    found = np.zeros_like(a)
    for k, weight in enumerate(weights):
        found += weight * (e[:, k : k + 1] - a - b * x[:, k]) ** 2
    return found


def _lines(rows: Sequence[int], scores: Floats, errors: Floats, at: float) -> Floats:
    """What straight lines over ln n, fitted by weighted least squares, say at ``at`` rows."""
    weights = 1.0 / np.maximum(errors, _LEAST_ERROR) ** 2
    x, y = np.log(np.asarray(rows, dtype=float)), np.atleast_2d(scores)
    middle = (weights @ x) / weights.sum()
    mean = y @ weights / weights.sum()
    slope = (y - mean[:, None]) @ (weights * (x - middle)) / (weights @ (x - middle) ** 2)
    found: Floats = np.clip(mean + slope * (np.log(at) - middle), 0.0, 1.0)
    return found


def fit_draws(curve: Curve) -> Laws:
    """The law of the curve itself, and then one of each of its resamples.

    What ln c is drawn to is itself resampled, so that an interval holds what the points do not tell of c
    (randomize, then optimize: Bardsley et al. 2014).
    """
    random = np.random.default_rng(len(curve.draws))
    usual = np.log(_USUAL_EXPONENT) + _PRIOR_WIDTH * random.standard_normal(len(curve.draws))
    both = np.vstack([curve.scores[None, :], curve.draws])
    centres = np.concatenate([[np.log(_USUAL_EXPONENT)], usual])
    return fit_laws(curve.rows, both, curve.errors, usual=centres)


def foretell(curve: Curve, at: float) -> tuple[dict[str, Forecast], dict[str, Floats]]:
    """Every method's forecast of the score at ``at`` rows, with its 95 % interval, and its resamples."""
    both = np.vstack([curve.scores[None, :], curve.draws])
    found = {
        "power law": fit_draws(curve).score(at),
        "no more gain": both[:, -1],
        "log-linear": _lines(curve.rows, both, curve.errors, at),
    }
    return {name: _forecast(values) for name, values in found.items()}, {
        name: values[1:] for name, values in found.items()
    }


def foretell_gain(curve: Curve, at: float) -> dict[str, Forecast]:
    """What every method foretells that ``at`` rows bring over the largest set of the curve."""
    both = np.vstack([curve.scores[None, :], curve.draws])
    now = float(curve.rows[-1])
    laws = fit_draws(curve)
    line = _lines(curve.rows, both, curve.errors, at) - _lines(curve.rows, both, curve.errors, now)
    gains = {
        "power law": laws.score(at) - laws.score(now),
        "no more gain": np.zeros(len(both)),
        "log-linear": line,
    }
    return {name: _forecast(values) for name, values in gains.items()}


def _forecast(values: Floats) -> Forecast:
    """The first value is that of the curve itself, the rest are of its resamples."""
    low, high = np.quantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0],) * 2
    return Forecast(value=float(values[0]), low=float(low), high=float(high))


def try_forecasts(curve: Curve) -> list[Trial]:
    """Foretell the largest one, and from fewer points the largest two, from the smaller ones.

    Of k points the last is foretold from k - 1, and where that leaves at least three the last two from
    k - 2. Empty with fewer than four points.
    """
    trials = []
    for held in (1, 2):
        known = len(curve.rows) - held
        if known < LEAST_POINTS:
            break
        for place in range(known, len(curve.rows)):
            forecasts, draws = foretell(curve.first(known), curve.rows[place])
            trials.append(
                Trial(
                    rows=curve.rows[place],
                    points=known,
                    observed=float(curve.scores[place]),
                    error=float(curve.errors[place]),
                    forecasts=forecasts,
                    draws=draws,
                    told=curve.draws[:, place],
                )
            )
    return trials


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How the methods did on all trials together.

    Attributes:
        misses: Mean absolute error by method, 0 to 1.
        beats: Whether the power law was nearer than both baselines.
        share: Share of the resamples in which it was.
        best: The method with the smallest error; of equal ones the plainest.
        trials: How many points were foretold.
    """

    misses: dict[str, float]
    beats: bool
    share: float
    best: str
    trials: int


def compare_methods(trials: Sequence[Trial]) -> Comparison | None:
    """Mean errors of the three methods; None without a trial."""
    if not trials:
        return None
    misses = {name: float(np.mean([t.miss(name) for t in trials])) for name in METHODS}
    drawn = {
        name: np.mean([np.abs(t.draws[name] - t.told) for t in trials], axis=0) for name in METHODS
    }
    rivals = np.minimum(drawn["no more gain"], drawn["log-linear"])
    plainest = ("no more gain", "log-linear", "power law")
    best = min(plainest, key=lambda name: round(misses[name], 9))
    return Comparison(
        misses=misses,
        beats=best == "power law",
        share=float(np.mean(drawn["power law"] < rivals)),
        best=best,
        trials=len(trials),
    )


def rows_for(curve: Curve, target: float) -> float | None:
    """At how many rows the fitted law reaches a score; None where its ceiling lies below it."""
    law = fit_laws(curve.rows, curve.scores[None, :], curve.errors)
    a, b, c = float(law.a[0]), float(law.b[0]), float(law.c[0])
    room = (1.0 - target) - a
    if room <= 0 or b <= 0:
        return None if b > 0 or room < 0 else float(curve.rows[0])
    return float(law.unit * (b / room) ** (1.0 / c))
