"""Learning curves with a known truth: what the fit finds, how sure it is, and when it loses."""

from __future__ import annotations

import numpy as np
import pytest

from curate.scaling_fits import (
    Curve,
    compare_methods,
    fit_laws,
    foretell,
    foretell_gain,
    rows_for,
    try_forecasts,
)

ROWS = (100, 250, 500, 750, 1000)


def truth(rows: float, a: float, b: float, c: float) -> float:
    return float(1 - (a + b * rows**-c))


def curve(
    a: float, b: float, c: float, *, noise: float, seed: int = 0, rows: tuple[int, ...] = ROWS
) -> Curve:
    """Scores of a known law with noise of a known size, and resamples of the same size."""
    random = np.random.default_rng(seed)
    exact = np.array([truth(n, a, b, c) for n in rows])
    scores = exact + random.normal(0, noise, len(rows))
    draws = scores + random.normal(0, noise, (200, len(rows)))
    return Curve(rows=rows, scores=scores, errors=np.full(len(rows), max(noise, 1e-4)), draws=draws)


@pytest.mark.parametrize(("a", "b", "c"), [(0.1, 3.0, 0.6), (0.05, 1.0, 0.25), (0.0, 20.0, 1.0)])
def test_the_fit_finds_a_law_without_noise(a: float, b: float, c: float) -> None:
    known = curve(a, b, c, noise=0)
    found = fit_laws(ROWS, known.scores[None, :], known.errors)
    assert found.score(1000)[0] == pytest.approx(truth(1000, a, b, c), abs=5e-4)
    assert found.score(2000)[0] == pytest.approx(truth(2000, a, b, c), abs=2e-3)
    assert found.c[0] == pytest.approx(c, rel=0.15)


def test_the_bounds_of_the_law_hold_for_any_scores() -> None:
    random = np.random.default_rng(3)
    found = fit_laws(ROWS, random.uniform(0, 1, (300, 5)), np.full(5, 0.02))
    assert (found.a >= 0).all()
    assert (found.b >= 0).all()
    # The best under the bounds: no point near the one that was found does better.
    scores = random.uniform(0.3, 0.9, 5)
    best = fit_laws(ROWS, scores[None, :], np.full(5, 0.02))
    x = (np.array(ROWS) / 1000) ** -best.c[0]

    def misfit(a: float, b: float) -> float:
        return float((((1 - scores) - a - b * x) ** 2).sum())

    here = misfit(best.a[0], best.b[0])
    for step_a in (-0.01, 0, 0.01):
        for step_b in (-0.01, 0, 0.01):
            a, b = max(0.0, best.a[0] + step_a), max(0.0, best.b[0] + step_b)
            assert misfit(a, b) >= here - 1e-12


@pytest.mark.parametrize("law", [(0.1, 3.0, 0.6), (0.05, 1.0, 0.25), (0.2, 0.0, 0.5)])
def test_intervals_cover_what_the_next_doubling_brings(law: tuple[float, float, float]) -> None:
    gain = truth(2000, *law) - truth(1000, *law)
    hits = 0
    for seed in range(40):
        found = foretell_gain(curve(*law, noise=0.01, seed=seed), 2000)["power law"]
        hits += found.low - 1e-9 <= gain <= found.high
    assert hits >= 35


def test_a_law_that_holds_beats_both_baselines() -> None:
    trials = try_forecasts(curve(0.1, 3.0, 0.6, noise=0.002))
    assert [(t.rows, t.points) for t in trials] == [(1000, 4), (750, 3), (1000, 3)]
    found = compare_methods(trials)
    assert found is not None
    assert found.beats
    assert found.best == "power law"
    assert found.misses["power law"] < 0.5 * min(
        found.misses["no more gain"], found.misses["log-linear"]
    )
    assert found.share > 0.8


def test_where_nothing_is_gained_the_plainest_baseline_is_best() -> None:
    flat = compare_methods(try_forecasts(curve(0.2, 0.0, 0.5, noise=0)))
    assert flat is not None
    assert not flat.beats
    assert flat.best == "no more gain"


def test_where_a_line_holds_the_line_is_best() -> None:
    scores = 0.4 + 0.1 * np.log(np.array(ROWS) / 100)
    # Beyond the weights of the smaller points a line over ln n is foretold without any error.
    line = Curve(rows=ROWS, scores=scores, errors=np.full(5, 0.01), draws=np.tile(scores, (20, 1)))
    found = compare_methods(try_forecasts(line))
    assert found is not None
    assert found.best == "log-linear"
    assert found.misses["log-linear"] == pytest.approx(0, abs=1e-9)


def test_few_points_are_fitted_but_not_tried_and_fewer_are_refused() -> None:
    three = curve(0.1, 3.0, 0.6, noise=0.002, rows=(100, 500, 1000))
    assert try_forecasts(three) == []
    assert compare_methods([]) is None
    assert foretell(three, 2000)[0]["power law"].value > three.scores[-1]
    with pytest.raises(ValueError, match="2 points"):
        fit_laws((100, 200), np.array([[0.5, 0.6]]), np.array([0.1, 0.1]))


def test_how_many_rows_a_score_takes() -> None:
    known = curve(0.1, 3.0, 0.6, noise=0)
    assert rows_for(known, truth(3000, 0.1, 3.0, 0.6)) == pytest.approx(3000, rel=0.1)
    assert rows_for(known, 0.95) is None  # above the ceiling of 0.9
    assert rows_for(curve(0.2, 0.0, 0.5, noise=0), 0.9) is None
