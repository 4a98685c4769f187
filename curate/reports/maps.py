"""The report's map: every train row a mark in the plane of its embedding, and the clusters' table."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import polars as pl
from markupsafe import Markup

from curate.reports.charts import element
from curate.reports.files import LONGEST_OPENING, RunFiles
from curate.reports.texts import clean, clip

__all__ = ["ClusterRow", "Map", "draw_map", "list_clusters"]

WIDTH, HEIGHT, _MARGIN = 900, 540, 26
_COLOURS = 7  # labels with a colour of their own; the rest share one
_MOST_LABELS = 40  # beyond, labels are free text, and colours would say nothing


@dataclass(frozen=True, kw_only=True)
class ClusterRow:
    """One cluster: its rows, how many stay, its words and its most frequent label."""

    cluster: int
    words: str
    size: int
    kept: int
    label: str


@dataclass(frozen=True, kw_only=True)
class Map:
    """The drawing, what the page's script reads on hover, and what the reader has to be told.

    ``before`` and ``after`` are small drawings of all rows and of those that are kept. ``labels``
    and ``reasons`` are (name, class) in the order of their colours, no labels for free text.
    ``data`` is plain JSON content: points are [x, y, id, text, label number, confidence, reason
    number or -1, cluster].
    """

    svg: Markup
    before: Markup
    after: Markup
    data: dict[str, Any]
    labels: list[tuple[str, str]]
    reasons: list[tuple[str, str]]
    shown: int
    total: int
    dropped: int


def list_clusters(files: RunFiles) -> list[ClusterRow]:
    """The clusters, largest first, as run.json has them or else counted from curated.parquet."""
    rows = files.curated.filter(pl.col("cluster").is_not_null())
    label = (
        rows.filter(pl.col("label").is_not_null())
        .group_by("cluster", "label")
        .len()
        .sort("cluster", "len", "label", descending=[False, True, False])
        .unique("cluster", keep="first", maintain_order=True)
    )
    share = dict(zip(label["cluster"], label.iter_rows(named=True), strict=True))
    labelled = Counter(rows.filter(pl.col("label").is_not_null())["cluster"])
    entries = files.stage("curated").get("clusters") or [
        {"cluster": number, "size": size, "kept": kept}
        for number, size, kept in rows.group_by("cluster")
        .agg(pl.len(), pl.col("keep").sum().alias("kept"))
        .iter_rows()
    ]
    found = []
    for entry in entries:
        number = entry["cluster"]
        most = share.get(number)
        text = f"{most['label']} ({100 * most['len'] / labelled[number]:.0f} %)" if most else "–"
        words = ", ".join(str(word) for word in entry.get("words") or [])
        found.append(
            ClusterRow(
                cluster=number,
                words=clip(words, 120) if words else "–",
                size=entry["size"],
                kept=entry["kept"],
                label=clip(text, 80),
            )
        )
    return sorted(found, key=lambda row: (-row.size, row.cluster))


def draw_map(files: RunFiles, clusters: Sequence[ClusterRow], most: int = 3000) -> Map | None:
    """The map of the train rows, a seeded sample of ``most`` where there are more; None without one."""
    table = files.curated.filter(pl.col("map_x").is_finite() & pl.col("map_y").is_finite())
    total = table.height
    if not total:
        return None
    if total > most:
        seed = files.run.get("seed")
        chosen = random.Random(seed if isinstance(seed, int) else 0).sample(range(total), most)
        table = table[sorted(chosen)]
    rows = table.rows(named=True)
    # Dropped rows lie under the kept ones.
    rows.sort(key=lambda row: row["keep"] is not False)
    ranked = [label for label, _ in Counter(row["label"] for row in rows).most_common() if label]
    free = len(ranked) > _MOST_LABELS
    numbers = {label: i for i, label in enumerate(ranked)}
    reasons = sorted({row["reason"] or "dropped" for row in rows if row["keep"] is False})
    places = _fit([(row["map_x"], row["map_y"]) for row in rows])
    marks, points = [], []
    styles: list[str] = []
    for row, (x, y) in zip(rows, places, strict=True):
        gone = row["keep"] is False
        number = numbers.get(row["label"], -1)
        # A label that is absent has the colour of those beyond the palette.
        style = f"l{_COLOURS if number < 0 else min(number, _COLOURS)}"
        styles.append(("f-dropped" if gone else "f-kept") if free else style)
        marks.append(_mark(x, y, styles[-1], gone))
        confidence, cluster = row["confidence"], row["cluster"]
        points.append(
            [
                *(x, y, row["id"], _opening(row["input"])),
                number,
                round(confidence, 3) if confidence is not None and isfinite(confidence) else None,
                reasons.index(row["reason"] or "dropped") if gone else -1,
                cluster,
            ]
        )
    words = {str(c.cluster): c.words for c in clusters}
    data = {
        "labels": [clip(name, 120) for name in ranked],
        "reasons": reasons,
        "words": words,
        "points": points,
    }
    names = [] if free else [(clip(name, 60), f"l{i}") for i, name in enumerate(ranked[:_COLOURS])]
    if names and len(ranked) > _COLOURS:
        names.append((f"{len(ranked) - _COLOURS} other labels", f"l{_COLOURS}"))
    dropped = sum(row["keep"] is False for row in rows)
    heard = f"Map of {len(rows):,} train rows by meaning, {dropped:,} of them dropped."
    svg = element(
        "svg",
        [*marks, *_captions(rows, places, clusters)],
        id="map",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{heard} The table of clusters below says the same in words.",
    )
    words_on_it = _captions(rows, places, clusters, most=7, scale=2.0)
    kept = [row["keep"] is not False for row in rows]
    small = [
        _small_map(
            [(style, place) for style, place, stays in zip(styles, places, kept, strict=True)
             if stays or not after],
            words_on_it,
            f"Map of {'the rows that are kept' if after else 'all rows'}.",
        )
        for after in (False, True)
    ]  # fmt: skip
    return Map(
        svg=svg,
        before=small[0],
        after=small[1],
        data=data,
        labels=names,
        reasons=[(clip(name, 60), f"l{i % _COLOURS}") for i, name in enumerate(reasons)],
        shown=len(rows),
        total=total,
        dropped=dropped,
    )


def _small_map(
    marks: Sequence[tuple[str, tuple[float, float]]], captions: Sequence[Markup], heard: str
) -> Markup:
    """A map of dots alone, one path for all dots of a colour, which keeps the page small."""
    dots: dict[str, list[str]] = {}
    for style, (x, y) in marks:
        dots.setdefault(style, []).append(f"M{x:.0f} {y:.0f}h0")
    paths = [
        element("path", style=f"dots {style}", d="".join(found))
        for style, found in sorted(dots.items())
    ]
    box = f"0 0 {WIDTH} {HEIGHT}"
    parts = [*paths, *captions]
    return element("svg", parts, style="small-map", viewBox=box, role="img", aria_label=heard)


def _opening(text: str | None) -> str:
    """The first characters of a row's text, of which the file's reader gives no more than that."""
    text = clean(text or "")
    return text if len(text) < LONGEST_OPENING else f"{text[: LONGEST_OPENING - 1].rstrip()} …"


def _fit(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Scale to the drawing, one scale for both axes so that distances stay comparable."""
    xs, ys = [x for x, _ in places], [y for _, y in places]
    wide, tall = max(xs) - min(xs), max(ys) - min(ys)
    scale = min(
        (WIDTH - 2 * _MARGIN) / (wide or 1e-9), (HEIGHT - 2 * _MARGIN) / (tall or 1e-9), 1e9
    )
    x0 = WIDTH / 2 - scale * (max(xs) + min(xs)) / 2
    y0 = HEIGHT / 2 + scale * (max(ys) + min(ys)) / 2
    return [(round(x0 + scale * x, 1), round(y0 - scale * y, 1)) for x, y in places]


def _mark(x: float, y: float, style: str, dropped: bool) -> Markup:
    """A dot for a row that stays, a cross for one that was dropped. Numbers only: no escaping."""
    if dropped:
        path = f"M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6"
        return Markup(f'<path class="p drop {style}" d="{path}"/>')
    return Markup(f'<circle class="p {style}" cx="{x}" cy="{y}" r="3.6"/>')


def _captions(
    rows: Sequence[dict[str, Any]],
    places: Sequence[tuple[float, float]],
    clusters: Sequence[ClusterRow],
    most: int = 12,
    scale: float = 1.0,
) -> list[Markup]:
    """The first words of the largest clusters, at their middle, leaving out what would collide.

    ``scale`` is how much larger than on the map the letters are drawn.
    """
    members: dict[int, list[tuple[float, float]]] = {}
    for row, place in zip(rows, places, strict=True):
        if row["cluster"] is not None:
            members.setdefault(row["cluster"], []).append(place)
    captions: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for cluster in clusters:
        found = members.get(cluster.cluster)
        if not found or cluster.words == "–" or len(captions) == most:
            continue
        text = ", ".join(cluster.words.split(", ")[:2])[:28]
        half = 4.4 * len(text) * scale
        x = min(max(statistics.median(p[0] for p in found), half), WIDTH - half)
        y = min(max(statistics.median(p[1] for p in found), 16.0 * scale), HEIGHT - 8.0)
        if any(abs(x - tx) < half + th and abs(y - ty) < 18 * scale for tx, ty, th in taken):
            continue
        taken.append((x, y, half))
        spot = {"x": round(x, 1), "y": round(y, 1)}
        captions.append(element("text", text, style="caption", text_anchor="middle", **spot))
    return captions
