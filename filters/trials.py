"""Try a filter at many thresholds on rows in which changes are planted."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from filters.arguments import FilterError
from filters.decisions import apply
from filters.planting import KINDS, plant
from filters.rows import Filter, Flags
from filters.thresholds import keep_at

Encode: TypeAlias = Callable[[Sequence[str]], ArrayLike]
Kept: TypeAlias = dict[str, bool]

#: The thresholds that are tried, by filter.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "near_duplicate": ("threshold", tuple(round(0.4 + 0.05 * n, 2) for n in range(12))),
    "semantic_duplicate": ("threshold", (0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.98)),
    "contamination": ("containment", tuple(round(0.1 * n, 1) for n in range(1, 10))),
    "semantic_contamination": ("threshold", (0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.98)),
    "confidence": ("minimum", (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)),
    "margin": ("minimum", (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)),
    "agreement": ("minimum", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    "label_noise": ("minimum", (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)),
}
TWINS = ("exact_duplicate", "near_duplicate", "semantic_duplicate")
LEAKS = ("contamination", "semantic_contamination")
_FLIPPED = 0.2  # share of the sample whose labels are flipped in place


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The rows to sample from, and how."""

    pool: pd.DataFrame
    encode: Encode | None
    seed: int
    sample: int

    def rows(self, number: int) -> pd.DataFrame:
        """Return sample number `number`: fresh rows as long as there are any."""
        start = number * self.sample
        fresh = self.pool.iloc[start : start + self.sample]
        if len(fresh) >= min(self.sample, len(self.pool)) // 2:
            return fresh.reset_index(drop=True)
        return self.pool.sample(
            min(self.sample, len(self.pool)), random_state=self.seed + number
        ).reset_index(drop=True)

    def table(self, each: Filter, number: int) -> pd.DataFrame:
        """Try one filter at all its thresholds on all kinds of change."""
        rows = self.rows(number)
        labels = (
            sorted(str(one) for one in rows["label"].unique()) if "label" in rows.columns else []
        )
        lines: list[dict[str, Any]] = []
        alone: dict[float, Kept] = {}
        for kind, wanted in KINDS.items():
            if (kind == "label_flip") == (each.reason in (*TWINS, *LEAKS)):
                continue
            if each.reason in LEAKS and kind == "contrast":
                continue
            draw = random.Random(f"{self.seed} {number} {kind}")
            some = rows.iloc[: max(int(_FLIPPED * len(rows)), 1)] if kind == "label_flip" else rows
            planted = plant(some, kind, labels, draw)
            if not len(planted):
                continue
            if each.reason in LEAKS:
                tried = self._leak(each, rows, planted)
            else:
                alone = alone or dict(self._run(each, rows))
                tried = self._try(each, rows, planted, alone, in_place=kind == "label_flip")
            for threshold, dropped, own in tried:
                lines.append(
                    {
                        "filter": each.reason, "threshold": threshold,
                        "now": threshold == _threshold(each), "kind": kind, "wanted": wanted,
                        "planted": len(dropped), "dropped": int(dropped.sum()),
                        "share": float(dropped.mean()), "own": own,
                    }
                )  # fmt: skip
        return make_table(lines)

    def _try(
        self,
        each: Filter,
        rows: pd.DataFrame,
        planted: pd.DataFrame,
        alone: Mapping[float, Kept],
        *,
        in_place: bool,
    ) -> list[tuple[float, Flags, float]]:
        """Return (threshold, which plants go, share of own rows that go) for each threshold."""
        others = rows[~rows["id"].isin(set(planted["origin"]))] if in_place else rows
        both = pd.concat([others, planted.drop(columns=["origin"])], ignore_index=True)
        found = []
        for threshold, kept in self._run(each, both):
            before = alone[threshold]
            gone = np.array([not kept[one] for one in planted["id"]], dtype=bool)
            if each.reason in TWINS:
                origins = planted["origin"].tolist()
                gone |= np.array([before[one] and not kept[one] for one in origins], dtype=bool)
            found.append((threshold, gone, 1 - float(np.mean(list(before.values())))))
        return found

    def _leak(
        self, each: Filter, rows: pd.DataFrame, planted: pd.DataFrame
    ) -> list[tuple[float, Flags, float]]:
        """The same for a filter that holds rows against another set: half of the rows are that set."""
        half = set(rows["id"].iloc[: len(rows) // 2])
        leaks = planted[planted["origin"].isin(half)].drop(columns=["origin"])
        both = pd.concat([rows[~rows["id"].isin(half)], leaks], ignore_index=True)
        found = []
        for threshold, kept in self._run(each, both, rows[rows["id"].isin(half)]):
            gone = np.array([not kept.pop(one) for one in leaks["id"]], dtype=bool)
            found.append((threshold, gone, 1 - float(np.mean(list(kept.values())))))
        return found if len(leaks) else []

    def _run(
        self, each: Any, rows: pd.DataFrame, others: pd.DataFrame | None = None
    ) -> list[tuple[float, Kept]]:
        """Judge rows at every threshold of the grid, recording matches once."""
        given: dict[str, Any] = {"seed": self.seed}
        needs = self.encode is not None and each.reason.startswith("semantic")
        if self.encode is not None and (needs or each.reason not in (*TWINS, *LEAKS)):
            given["embeddings"] = self.encode(rows["input"].tolist())
        if others is not None:
            each = dataclasses.replace(each, against=())
            given["references"] = {"other": others}
            if needs and self.encode is not None:
                given["reference_embeddings"] = {"other": self.encode(others["input"].tolist())}
        ids = rows["id"].tolist()
        if each.reason not in GRIDS:
            keep = apply(rows, [each], **given).frame["keep"].to_numpy(dtype=bool)
            return [(_threshold(each), dict(zip(ids, keep.tolist(), strict=True)))]
        argument, grid = GRIDS[each.reason]
        own = getattr(each, argument)
        values = sorted({*grid, *(() if own is None else (float(own),))})
        names = [one.name for one in dataclasses.fields(each)]
        changed: dict[str, Any] = {argument: values[0]}
        changed |= {"floor": values[0]} if "floor" in names else {}
        changed |= {"share": None} if "share" in names else {}
        first = apply(rows, [dataclasses.replace(each, **changed)], **given)
        found = []
        for value in values:
            try:
                keep = keep_at(first, argument, value)
            except FilterError:  # a crowd of matches, not all of which are recorded
                higher = dataclasses.replace(each, **{argument: value, "floor": None})
                keep = apply(rows, [higher], **given).frame["keep"].to_numpy(dtype=bool)
            found.append((value, dict(zip(ids, keep.tolist(), strict=True))))
        return found


def _threshold(each: Any) -> float:
    """Return a filter's threshold, NaN-free: 1 where it has none to speak of."""
    for name in ("threshold", "containment", "minimum", "maximum"):
        value = getattr(each, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return 1.0


def make_table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the table of a self-test from its lines."""
    names = ["filter", "threshold", "now", "kind", "wanted", "planted", "dropped", "share", "own"]
    return pd.DataFrame(lines, columns=names)
