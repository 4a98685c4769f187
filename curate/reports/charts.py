"""Inline SVG charts for the report: small functions from numbers to markup.

Two kinds. Bars and intervals stretch with their table cell (positions in percent, no text inside),
the number standing beside them as ordinary text. Plots with axes have a fixed ``viewBox`` and scale
as a whole. Colours come from the page's style sheet through classes, so that they follow the
reader's light, dark or print setting; nothing here carries a colour or a ``style`` attribute.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = [
    "Line",
    "ReliabilityCurve",
    "element",
    "interval",
    "interval_axis",
    "plot_histogram",
    "plot_lines",
    "plot_reliability",
    "share_bar",
    "ticks",
]

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, _WIDTH - 14, 12, _HEIGHT - 46


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: ``style`` is a class of the style sheet; ``markers`` draws its points too."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    markers: bool = False


@dataclass(frozen=True, kw_only=True)
class ReliabilityCurve:
    """Bins of (mean confidence, share right, low, high, rows), each in 0..1 but the rows."""

    name: str
    style: str
    bins: Sequence[tuple[float, float, float, float, int]]


def element(tag: str, content: str | Iterable[str] = "", /, **attributes: object) -> Markup:
    """One SVG element. ``style`` names its class and ``_`` stands for ``-``; values are escaped.

    ``content`` is markup, or several pieces of it, or plain text, which is escaped.
    """
    pairs = Markup("").join(
        Markup(' {}="{}"').format("class" if key == "style" else key.replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    inside = escape(content) if isinstance(content, str) else Markup("").join(content)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, pairs, inside)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= span / about * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def share_bar(*shares: tuple[float, str]) -> Markup:
    """One horizontal bar of segments, each (share of the full width, class), laid end to end.

    Hidden from screen readers: the cell beside it says the number.
    """
    parts, start = [], 0.0
    for share, style in shares:
        width = min(max(share, 0.0), 1.0 - start)
        if share > 0:
            # A count above nought stays visible, however small.
            wide = _percent(max(width, 0.003))
            parts.append(element("rect", x=_percent(start), width=wide, height="100%", style=style))
        start += width
    return element("svg", parts, style="bar", aria_hidden="true", focusable="false")


def interval(
    value: float,
    low: float,
    high: float,
    *,
    scale: tuple[float, float],
    style: str,
    target: float | None = None,
) -> Markup:
    """A dot with its interval on a scale that all rows of the table share, and the goal's line."""

    def upright(x: float, name: str) -> Markup:
        at = _percent((x - scale[0]) / (scale[1] - scale[0]))
        return element("line", x1=at, x2=at, y1="0", y2="100%", style=name)

    def place(x: float) -> str:
        return _percent((x - scale[0]) / (scale[1] - scale[0]))

    parts = [upright(tick, "grid") for tick in ticks(*scale)]
    if target is not None:
        parts.append(upright(target, "goal"))
    ends = {"x1": place(low), "x2": place(high)}
    parts.append(element("line", **ends, y1="50%", y2="50%", style="whisker"))
    parts.append(element("circle", cx=place(value), cy="50%", r=6, style="dot"))
    return element("svg", parts, style=f"interval {style}", aria_hidden="true", focusable="false")


def interval_axis(scale: tuple[float, float]) -> Markup:
    """The tick labels, in percent, of the scale that :func:`interval` draws on."""
    parts = []
    for tick in ticks(*scale):
        share = (tick - scale[0]) / (scale[1] - scale[0])
        side = "start" if share < 0.03 else "end" if share > 0.97 else "middle"
        text = f"{100 * tick:.0f}%"
        parts.append(element("text", text, x=_percent(share), y="75%", text_anchor=side))
    return element("svg", parts, style="interval-axis", aria_hidden="true", focusable="false")


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """A plot's scales: data in the ``x`` and ``y`` ranges to places between the axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        share = (value - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    def py(self, value: float) -> float:
        share = (value - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)


def _tick_text(value: float) -> str:
    """A number short enough for an axis: 0.0004 -> ``4e-4``."""
    if 0 < abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,g}"


def _axes(frame: _Frame, x_label: str, y_label: str, *, y_percent: bool = False) -> list[Markup]:
    parts = []
    for tick in ticks(*frame.y):
        y = frame.py(tick)
        text = f"{100 * tick:.0f}%" if y_percent else _tick_text(tick)
        parts.append(element("line", style="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
        parts.append(element("text", text, x=_LEFT - 7, y=round(y + 4, 1), text_anchor="end"))
    for tick in ticks(*frame.x):
        x = frame.px(tick)
        parts.append(element("line", style="axis", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 4))
        parts.append(element("text", _tick_text(tick), x=x, y=_BOTTOM + 18, text_anchor="middle"))
    parts.append(element("line", style="axis", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM))
    across, up = (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2
    named = {"style": "axis-label", "text_anchor": "middle"}
    parts.append(element("text", x_label, x=across, y=_HEIGHT - 8, **named))
    parts.append(element("text", y_label, transform=f"translate(13 {up}) rotate(-90)", **named))
    return parts


def _plot(title: str, description: str, parts: Iterable[str]) -> Markup:
    """The outer element: readers hear the title, then the sentence that says what is to be seen."""
    heard = f"{title}. {description}"
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return element("svg", parts, style="plot", viewBox=box, role="img", aria_label=heard)


def _marker(x: float, y: float, style: str, size: float = 4.5) -> Markup:
    """Square for a student, circle for others: colour is never the only difference."""
    if "student" in style:
        side, corner = round(1.8 * size, 1), 0.9 * size
        left, top = round(x - corner, 1), round(y - corner, 1)
        return element("rect", x=left, y=top, width=side, height=side, style="dot")
    return element("circle", cx=x, cy=y, r=round(size, 1), style="dot")


def plot_lines(
    lines: Sequence[Line],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    percent: bool = False,
) -> Markup:
    """Curves over one x axis; the y axis starts at nought unless ``y_range`` says otherwise.

    A point above ``y_range`` is drawn at its upper edge.
    """
    points = [point for line in lines for point in line.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    frame = _Frame(x=(min(xs), max(xs)), y=y_range or (0.0, max(max(ys) * 1.05, 1e-9)))
    parts = _axes(frame, x_label, y_label, y_percent=percent)
    for line in lines:
        places = [(frame.px(x), frame.py(min(y, frame.y[1]))) for x, y in line.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        drawn = [element("polyline", style="line", points=path)]
        if line.markers:
            drawn += [_marker(x, y, line.style) for x, y in places]
        parts.append(element("g", drawn, style=line.style))
    return _plot(title, description, parts)


def plot_histogram(
    bins: Sequence[tuple[float, float, int, int]],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    threshold: float | None = None,
) -> Markup:
    """Stacked columns of (from, to, kept, dropped) and, where given, the line of a threshold."""
    top = max((kept + dropped for _, _, kept, dropped in bins), default=0)
    frame = _Frame(x=(bins[0][0], bins[-1][1]), y=(0.0, max(top * 1.08, 1.0)))
    parts = _axes(frame, x_label, y_label)
    for low, high, kept, dropped in bins:
        x, wide = round(frame.px(low) + 0.6, 1), round(frame.px(high) - frame.px(low) - 1.2, 1)
        for bottom, rows, style in ((0, kept, "kept"), (kept, dropped, "dropped")):
            if rows:
                y, tall = frame.py(bottom + rows), frame.py(bottom) - frame.py(bottom + rows)
                said = [element("title", f"{low:.3g} to {high:.3g}: {rows:,} {style}")]
                box = {"x": x, "y": y, "width": wide, "height": round(tall, 1)}
                parts.append(element("rect", said, style=style, **box))
    if threshold is not None and frame.x[0] < threshold < frame.x[1]:
        x = frame.px(threshold)
        parts.append(element("line", style="goal", x1=x, x2=x, y1=_TOP, y2=_BOTTOM))
        text = f"minimum {threshold:g}"
        parts.append(element("text", text, style="goal-label", x=x + 6, y=_TOP + 10))
    return _plot(title, description, parts)


def plot_reliability(
    curves: Sequence[ReliabilityCurve], *, low: float, title: str, description: str
) -> Markup:
    """Share right against confidence, with the diagonal of perfect calibration.

    ``low`` is where the confidence axis starts (0, or 0.5 where two labels allow no less). A
    marker's area grows with its bin's rows; the thin line is the bin's interval.
    """
    lowest = min((right for curve in curves for _, right, *_ in curve.bins), default=0.0)
    frame = _Frame(x=(low, 1.0), y=(max(0.0, min(low, math.floor(lowest * 10) / 10)), 1.0))
    parts = _axes(frame, "confidence", "share right", y_percent=True)
    ends = {"x1": frame.px(low), "y1": frame.py(low), "x2": frame.px(1), "y2": frame.py(1)}
    parts.append(element("line", style="ideal", **ends))
    most = max((b[4] for curve in curves for b in curve.bins), default=1)
    for curve in curves:
        places = [(frame.px(b[0]), frame.py(b[1])) for b in curve.bins]
        path = " ".join(f"{x},{y}" for x, y in places)
        drawn = [element("polyline", style="line", points=path)]
        for (x, y), (_, _, lower, upper, rows) in zip(places, curve.bins, strict=True):
            # An interval may reach below the axis: it ends there.
            tall = {"y1": frame.py(max(lower, frame.y[0])), "y2": frame.py(upper)}
            drawn.append(element("line", style="whisker thin", x1=x, x2=x, **tall))
            drawn.append(_marker(x, y, curve.style, 2.5 + 4 * math.sqrt(rows / most)))
        parts.append(element("g", drawn, style=curve.style))
    return _plot(title, description, parts)
