"""The page of an ablation: one figure, one table, the forecast and what it missed by."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

from curate import reports
from curate.ablation_curves import Learning, Point
from curate.reports.charts import element, ticks
from curate.run_folder import RunFolder
from curate.scaling_fits import METHODS, fit_draws

if TYPE_CHECKING:
    import pandas as pd

_WIDTH, _HEIGHT = 860, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, _WIDTH - 150, 16, _HEIGHT - 50
_COLOURS = 8
_RIVALS = {"teacher": "teacher", "tfidf": "TF-IDF", "majority": "most frequent label"}

_STYLE = """
.wide { max-width: 1080px; margin: 0 auto; padding: 2.75rem 2rem 3rem; }
.band { fill: var(--c); opacity: .12; } .ahead { stroke-dasharray: 2 5; }
.seed { fill: var(--c); opacity: .45; } .rival { stroke: var(--c); stroke-width: 1.2; stroke-dasharray: 7 4; }
.narrow tbody th { white-space: nowrap; } .plot .rival-label { fill: var(--c); }
"""


def write_page(
    folder: RunFolder, facts: Mapping[str, Any], learning: Sequence[Learning], cells: pd.DataFrame
) -> Path:
    """Write ``ablation.html``: a page that fetches nothing."""
    style = (Path(reports.__file__).parent / "page.css").read_text("utf-8") + _STYLE
    metric = facts["metric"]
    shown = [c for c in cells.columns if not c.endswith(("_low", "_high")) and c != "folder"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rivals = facts["rivals"]
    trials = [
        {
            "student": f"{each.model}, {each.objective}", "rows": t.rows, "points": t.points,
            "observed": t.observed, "error": t.error, "forecasts": t.forecasts,
            "misses": {name: t.miss(name) for name in METHODS},
        }
        for each in learning for t in each.trials
    ]  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("ablation_page.html.j2").render(
        facts=facts,
        metric_name=metric_name(metric),
        figure=plot_curves(facts, learning),
        legend=_legend(learning),
        trials=trials,
        methods=METHODS,
        points=[_point_row(p, metric) for each in learning for p in each.points],
        rivals=[
            (
                name,
                (
                    rivals["validation"][key][metric],
                    rivals["test"][key][metric] if rivals["test"] else None,
                ),
            )
            for key, name in _RIVALS.items()
            if key in rivals["validation"]
        ],
        columns=shown,
        cells=[[_cell_text(v) for v in row] for row in cells[shown].itertuples(index=False)],
        pct=lambda value: f"{value:.1%}",
        style=Markup(style),
        style_hash=f"'sha256-{digest}'",
    )  # fmt: skip
    return folder.write_text("ablation.html", page)


def metric_name(metric: str) -> str:
    """A metric as a heading says it."""
    import student

    title = student.METRICS[metric].title
    return title[0].upper() + title[1:]


def _point_row(point: Point, metric: str) -> dict[str, Any]:
    return {
        "model": point.model, "objective": point.objective, "fraction": point.fraction,
        "rows": point.rows, "labels": point.labels, "seeds": point.seeds, "seconds": point.seconds,
        "validation": point.validation[metric].facts(),
        "test": point.test[metric].facts() if point.test is not None else None,
    }  # fmt: skip


def _cell_text(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _legend(learning: Sequence[Learning]) -> Markup:
    parts = []
    for i, each in enumerate(learning):
        line = element("line", style="line", x1=0, x2=26, y1=5, y2=5)
        dot = element("circle", style="dot", cx=13, cy=5, r=4.5)
        drawn = element(
            "svg", [line, dot], style=f"l{i % _COLOURS}", viewBox="0 0 26 10", aria_hidden="true"
        )
        parts.append(Markup("<li>{}{}, {}</li>").format(drawn, each.model, each.objective))
    return Markup("").join(parts)


# -------------------------------------------------------------------------------------------- figure


def plot_curves(facts: Mapping[str, Any], learning: Sequence[Learning]) -> Markup:
    """All students' curves with intervals, fits and forecasts, and lines for goal and rivals."""
    metric = facts["metric"]
    points = [p for each in learning for p in each.points]
    scores = [p.validation[metric] for p in points]
    levels = _levels(facts)
    ys = [
        *(s.low for s in scores), *(s.high for s in scores),
        *(v for s in scores for v in s.values), *(value for _, value, _ in levels),
    ]  # fmt: skip
    least, most = min(p.rows for p in points), max(p.rows for p in points)
    doubled = 2 * most if any(each.law for each in learning) else most
    low = max(0.0, math.floor((min(ys) - 0.02) * 20) / 20)
    high = min(1.0, math.ceil((max(ys) + 0.02) * 20) / 20)
    frame = _Scale(x=(least / 1.15, max(doubled, least + 1) * 1.12), y=(low, max(high, low + 0.1)))
    parts = [*_axes(frame, sorted({*(p.rows for p in points), doubled}), metric_name(metric))]
    parts += _level_lines(frame, levels)
    for i, each in enumerate(learning):
        parts.append(element("g", _student(frame, each, metric, doubled), style=f"l{i % _COLOURS}"))
    heard = f"{metric_name(metric)} by training rows. {facts['verdict']}"
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return element("svg", parts, style="plot", viewBox=box, role="img", aria_label=heard)


class _Scale:
    """Rows, logarithmic, and scores to places between the axes."""

    def __init__(self, *, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def px(self, rows: float) -> float:
        share = math.log(rows / self.x[0]) / math.log(self.x[1] / self.x[0])
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    def py(self, score: float) -> float:
        score = min(max(score, self.y[0]), self.y[1])
        return round(_BOTTOM - (score - self.y[0]) / (self.y[1] - self.y[0]) * (_BOTTOM - _TOP), 1)


def _axes(frame: _Scale, rows: Sequence[int], label: str) -> list[Markup]:
    parts = []
    for tick in ticks(*frame.y):
        y = frame.py(tick)
        parts.append(element("line", style="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
        parts.append(
            element("text", f"{100 * tick:.0f}%", x=_LEFT - 7, y=round(y + 4, 1), text_anchor="end")
        )
    last = -math.inf
    for number in rows:
        x = frame.px(number)
        parts.append(element("line", style="axis", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 4))
        if x - last > 42:
            parts.append(element("text", f"{number:,}", x=x, y=_BOTTOM + 18, text_anchor="middle"))
            last = x
    parts.append(element("line", style="axis", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM))
    named = {"style": "axis-label", "text_anchor": "middle"}
    parts.append(element("text", "training rows", x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 8, **named))
    up = (_TOP + _BOTTOM) / 2
    parts.append(element("text", label, transform=f"translate(13 {up}) rotate(-90)", **named))
    return parts


def _levels(facts: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Level lines: (name, score, class)."""
    metric = facts["metric"]
    found = []
    if metric in facts["goal"]:
        found.append((f"goal {facts['goal'][metric]:g}", float(facts["goal"][metric]), "goal"))
    styles = {"teacher": "s-teacher", "tfidf": "s-tfidf", "majority": "s-majority"}
    for key, name in _RIVALS.items():
        value = facts["rivals"]["validation"].get(key, {}).get(metric)
        if value is not None and not (key == "teacher" and facts["reference"] != "gold"):
            found.append((f"{name} {value:.1%}", value, styles[key]))
    return found


def _level_lines(frame: _Scale, levels: Sequence[tuple[str, float, str]]) -> list[Markup]:
    """The lines, their names at the right, moved apart where they would touch."""
    parts, lowest = [], math.inf
    for name, value, style in sorted(levels, key=lambda level: level[1]):
        y = frame.py(value)
        at = min(y + 4, lowest - 14)
        lowest = at
        if style == "goal":
            parts.append(element("line", style="goal", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
            parts.append(element("text", name, style="goal-label", x=_RIGHT + 6, y=round(at, 1)))
            continue
        drawn = [
            element("line", style="rival", x1=_LEFT, x2=_RIGHT, y1=y, y2=y),
            element("text", name, style="rival-label", x=_RIGHT + 6, y=round(at, 1)),
        ]
        parts.append(element("g", drawn, style=style))
    return parts


def _student(frame: _Scale, each: Learning, metric: str, doubled: int) -> list[Markup]:
    """One student: the fit with its band, the means with their intervals, and single seeds."""
    parts = []
    curve = each.curve
    if each.law is not None:
        grid = np.geomspace(curve.rows[0], doubled, 60)
        laws = fit_draws(curve)
        found = np.stack([laws.score(float(n)) for n in grid])
        low, high = np.quantile(found[:, 1:], [0.025, 0.975], axis=1)
        edge = [*zip(grid, high, strict=True), *zip(grid[::-1], low[::-1], strict=True)]
        parts.append(element("polygon", style="band", points=_path(frame, edge)))
        line = list(zip(grid, found[:, 0], strict=True))
        inside = [p for p in line if p[0] <= curve.rows[-1] * 1.001]
        ahead = [p for p in line if p[0] >= inside[-1][0]]
        parts.append(element("polyline", style="line", points=_path(frame, inside)))
        parts.append(element("polyline", style="line ahead", points=_path(frame, ahead)))
    for point in each.points:
        scores, x = point.validation[metric], frame.px(point.rows)
        ends = {"y1": frame.py(scores.low), "y2": frame.py(scores.high)}
        parts.append(element("line", style="whisker thin", x1=x, x2=x, **ends))
        if len(scores.values) > 1:
            parts += [
                element("circle", style="seed", cx=x, cy=frame.py(value), r=2.4)
                for value in scores.values
            ]
        said = f"{point.rows:,} rows: {scores.mean:.1%} ({scores.low:.1%} to {scores.high:.1%})"
        parts.append(
            element(
                "circle", [element("title", said)], style="dot", cx=x, cy=frame.py(scores.mean), r=5
            )
        )
    return parts


def _path(frame: _Scale, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{frame.px(x)},{frame.py(y)}" for x, y in points)
