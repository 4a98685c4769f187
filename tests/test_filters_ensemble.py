"""One score out of several: fitted to a few checked rows, or by mean rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, run

from filters import Confidence, Ensemble, FilterError, FittedScore, Margin, TooLong, fit_score
from filters.ensemble_scores import reliability


def scored(count: int = 400) -> tuple[pd.DataFrame, list[bool]]:
    """Rows of which one score knows much, one a little and one nothing."""
    rng = np.random.default_rng(0)
    right = rng.random(count) < 0.7
    rows = frame(
        [f"Text {number}." for number in range(count)],
        score_much=(right + rng.normal(0, 0.5, count)).tolist(),
        score_little=(rng.normal(0, 2.0, count) - right).tolist(),
        score_nothing=rng.normal(0, 1, count).tolist(),
    )
    return rows, right.tolist()


NAMES = ["score_much", "score_little", "score_nothing"]


def test_a_fit_to_few_rows_tells_the_others_apart() -> None:
    rows, right = scored()
    told: list[bool | None] = [*right[:150], *[None] * 250]
    found = fit_score(rows, NAMES, told)
    probability = found.apply(rows)[150:]
    best = np.argsort(-probability)[:125]
    assert np.mean(np.array(right[150:])[best]) > 0.92
    assert found.weights[0] > 0 > found.weights[1]
    assert abs(found.weights[2]) < abs(found.weights[1])
    assert found.rows == 150
    assert sum(each.rows for each in found.bins) == 150
    assert found.calibration_error < 0.12
    assert abs(probability.mean() - np.mean(right[150:])) < 0.05


def test_what_is_not_told_is_not_used() -> None:
    rows, right = scored()
    told: list[bool | None] = [*right[:150], *[None] * 250]
    twisted = rows.copy()
    twisted.loc[150:, NAMES] = 99.0
    assert fit_score(rows, NAMES, told) == fit_score(twisted, NAMES, told)
    shuffled = np.random.default_rng(1).permutation(400)
    mixed = fit_score(rows.iloc[shuffled], NAMES, [told[place] for place in shuffled])
    assert mixed == fit_score(rows, NAMES, told)


def test_a_missing_score_counts_as_the_mean() -> None:
    rows, right = scored()
    found = fit_score(rows, NAMES, right)
    one = rows.iloc[[0]].assign(score_much=np.nan, score_little=np.nan, score_nothing=np.nan)
    mean = rows.iloc[[0]].assign(**dict(zip(NAMES, found.means, strict=True)))
    assert found.apply(one) == pytest.approx(found.apply(mean))


def test_a_fitted_score_is_saved_as_json(tmp_path: Path) -> None:
    rows, right = scored()
    found = fit_score(rows, NAMES, right)
    found.save(tmp_path / "fitted.json")
    assert FittedScore.load(tmp_path / "fitted.json") == found
    assert json.loads((tmp_path / "fitted.json").read_text())["scores"] == NAMES


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "bins": 3}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(FilterError, match=r"other.json: no fitted score can be read from it"):
        FittedScore.load(tmp_path / "other.json")
    with pytest.raises(FilterError, match="no fitted score can be read"):
        FittedScore.load(tmp_path / "nowhere.json")


def test_bins_hold_equally_many_rows() -> None:
    found = reliability(np.linspace(0, 1, 25), np.array([0.0] * 12 + [1.0] * 13))
    assert [each.rows for each in found] == [3] * 5 + [2] * 5
    assert [each.right for each in found][:4] == [0] * 4
    assert found[0].low == 0
    assert found[-1].high == 1
    assert [each.predicted for each in found] == sorted(each.predicted for each in found)


@pytest.mark.parametrize(
    ("names", "right", "message"),
    [
        (NAMES, [True] * 3, "right has 3 entries and there are 400 rows"),
        (NAMES, [True] * 400, "400 rows are known to be right and 0 to be wrong; at least 10"),
        (NAMES, [None] * 400, "0 rows are known to be right"),
        (NAMES, ["yes"] * 400, r"right\[0\] is 'yes'; it must be True, False or None"),
        (["score_none"], [True, False] * 200, "there is no column 'score_none'"),
        (["input"], [True, False] * 200, "score 'input' holds something that is no number"),
    ],
)
def test_what_cannot_be_fitted_is_said(names: list[str], right: list[Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        fit_score(scored()[0], names, right)


def judged() -> pd.DataFrame:
    return frame(
        ["One.", "Two.", "Three words here.", "Four."],
        confidence=[0.9, 0.2, 0.8, None],
        label_probs=[[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.99, 0.01]],
    )


def test_mean_ranks_turn_every_score_the_right_way() -> None:
    chosen = (Confidence(minimum=0), Margin(minimum=0), TooLong(maximum=99))
    found = run(judged(), *chosen, Ensemble(share=0.25)).frame
    # Ranks by confidence 3, 1, 2 of 3; by margin 3, 1, 2, 4 of 4; the long text comes last.
    confidence = np.array([2.5 / 3, 0.5 / 3, 1.5 / 3, 0.5])
    margin = np.array([2.5, 0.5, 1.5, 3.5]) / 4
    length = np.array([2.5, 2.5, 0.5, 2.5]) / 4
    expected = (confidence + margin + length) / 3
    assert found["score_ensemble"].to_numpy() == pytest.approx(expected)
    assert found["id"][~found["keep"]].tolist() == ["r1"]


def test_only_the_scores_named_are_combined() -> None:
    chosen = (Confidence(minimum=0), Margin(minimum=0), TooLong(maximum=99))
    found = run(judged(), *chosen, Ensemble(scores=["margin"], minimum=0.5))
    assert kept(found) == {"r0", "r3"}
    with pytest.raises(FilterError, match="names 'entropy'; of the filters before this one"):
        run(judged(), *chosen, Ensemble(scores=["entropy"]))
    with pytest.raises(FilterError, match="no filter before this one has a score to combine"):
        run(judged(), Ensemble())


def test_a_fitted_file_decides_by_what_filters_just_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.6
    rows = frame(
        [f"Text {number}." for number in range(200)],
        confidence=np.clip(0.5 + 0.3 * (right - 0.5) + rng.normal(0, 0.1, 200), 0, 1).tolist(),
    )
    before = run(rows, Confidence(minimum=0))
    path = tmp_path / "fitted.json"
    fit_score(before.frame, ["score_confidence"], right.tolist()).save(path)
    found = run(rows, Confidence(minimum=0), Ensemble(fitted=str(path)))
    expected = FittedScore.load(path).apply(before.frame)
    assert found.frame["score_ensemble"].to_numpy() == pytest.approx(expected)
    assert (found.frame["keep"] == (expected >= 0.5)).all()
    assert (found.frame["keep"].to_numpy() == right).mean() > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minimum": 0.1, "share": 0.1}, "minimum is 0.1 and share is 0.1"),
        ({"fitted": 3}, "fitted is 3; it must be the path of a file"),
        ({"fitted": "x.json", "scores": ["margin"]}, "leave `scores` out"),
        ({"scores": [1]}, r"scores is \[1\]; it must be a list of texts"),
    ],
)
def test_arguments_are_checked_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        Ensemble(**arguments)
