"""How good a variant's labels are, what they cost, how two variants differ, and which is picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import labelers
from curate.gold import references_of
from curate.recipe import Recipe
from labelers.tasks import plain

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of row errors that mean: the teacher answered, and no label could be read of it.
UNREAD = ("unread", "truncated", "off_label", "ambiguous")
#: Below this a difference is not put down to chance.
SIGNIFICANT = 0.05
_RESAMPLES, _FLIPS = 2000, 9999


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more often one variant is right than another on the same rows.

    Attributes:
        value: Difference of the accuracies, -1 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Probability of a difference as large, either way, if the two were alike.
        p_holm: The same, after Holm's correction for the number of variants.
        verdict: ``better``, ``worse`` or ``not shown``, by ``p_holm`` below 0.05.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str


@dataclass(kw_only=True)
class Judged:
    """A variant's labels, held against gold, and what they took.

    ``right`` has a value per row; a row without a label is wrong. Rates are shares of the rows.
    ``calibration_error`` is over the rows with a label and a confidence, ``brier`` over those with label
    probabilities; both are None for free text. Costs and tokens are those of the labels alone, asked now
    or taken from the store; ``cost_usd`` is for 1,000 rows and None without prices, and ``free`` says that
    nobody is paid. ``seconds`` and ``rate`` (answers a second) are None where nothing was asked anew.
    """

    name: str
    right: NDArray[np.bool_]
    accuracy: dict[str, float]
    macro_f1: float | None
    unread: float
    failed: float
    errors: dict[str, int]
    calibration_error: float | None
    brier: float | None
    confidence: float | None
    tokens: float
    requests: float
    cost_usd: float | None
    free: bool
    asked: int
    from_store: int
    seconds: float | None
    rate: float | None
    notes: list[str]
    difference: Difference | None = None

    def facts(self) -> dict[str, Any]:
        """What is known of it, as plain JSON values."""
        kept = {key: value for key, value in vars(self).items() if key not in ("right", "free")}
        difference = asdict(self.difference) if self.difference else None
        return {**kept, "rows": len(self.right), "difference": difference}


def judge(
    name: str, labelled: pd.DataFrame, recipe: Recipe, info: Mapping[str, Any], seconds: float
) -> Judged:
    """Hold a variant's labelled rows against their gold.

    Args:
        name: The variant's name.
        labelled: Rows with gold, in the order in which all variants have them, and the label columns.
        recipe: The variant's recipe.
        info: What :func:`curate.labeling.label_rows` reports.
        seconds: How long labeling took.
    """
    import student

    gold = labelled["gold"].tolist()
    said: list[str | None] = [s if isinstance(s, str) else None for s in labelled["label"]]
    right = are_right(said, gold, recipe)
    # As two words, so that an answer of any kind has the interval of the result table.
    low, high = student.bootstrap_interval(
        "accuracy", ["right"] * len(gold), ["right" if r else None for r in right],
        groups=labelled["group"].tolist(), seed=recipe.seed,
    )  # fmt: skip
    labels = recipe.task.labels
    kinds = Counter(
        e.split(":", 1)[0] for e in labelled["error"] if isinstance(e, str)
    )  # one kind a row
    unread = sum(kinds[kind] for kind in UNREAD)
    rows, requests = len(labelled), info["asked"] + info["from_store"]
    costs = labelled["cost_usd"].astype(float)
    tokens = labelled[["prompt_tokens", "completion_tokens"]].fillna(0).to_numpy().sum()
    asked = info["asked"]
    return Judged(
        name=name,
        right=right,
        accuracy={"value": float(right.mean()), "low": low, "high": high},
        macro_f1=student.macro_f1(gold, said, labels=labels) if labels else None,
        unread=unread / rows,
        failed=(kinds.total() - unread) / rows,
        errors=dict(kinds),
        **_calibration(labelled, said, right),
        tokens=float(tokens) / rows,
        requests=requests / rows,
        cost_usd=None if costs.isna().any() else float(costs.mean() * 1000),
        free=not any(section.engine == "openai" for section in _asked(recipe)),
        asked=asked,
        from_store=info["from_store"],
        seconds=round(seconds, 2) if asked else None,
        rate=asked / seconds if asked and seconds > 0 else None,
        notes=list(info["notes"]),
    )


def _asked(recipe: Recipe) -> list[Any]:
    return list(recipe.teacher.asked())


def are_right(
    said: Sequence[str | None], gold: Sequence[str | list[str]], recipe: Recipe
) -> NDArray[np.bool_]:
    """Which answers are right; where gold is a list of references, by any of them.

    A label must be the gold one. A free text counts by its letters, without case and without
    punctuation at its edges; a number or an equation also by its value.
    """
    task = recipe.task
    closed = task.labels is not None or task.choices is not None
    valued = task.answer in ("number", "equation")

    def fits(label: str, known: str) -> bool:
        if closed:
            return label == known
        if task.separator is not None:
            one, two = (
                {plain(part) for part in text.split(task.separator) if part.strip()}
                for text in (label, known)
            )
            return one == two
        return plain(label) == plain(known) or (valued and labelers.same_value(label, known))

    pairs = zip(said, gold, strict=True)
    return np.array(
        [s is not None and any(fits(s, known) for known in references_of(g)) for s, g in pairs],
        dtype=bool,
    )


def _calibration(
    labelled: pd.DataFrame, said: Sequence[str | None], right: NDArray[np.bool_]
) -> dict[str, Any]:
    """Calibration error, Brier score and mean confidence, where the teacher gives probabilities."""
    closed = labelled["choices"].notna().to_numpy()
    sure = labelled["confidence"].astype(float).to_numpy()
    told = closed & ~np.isnan(sure) & np.array([s is not None for s in said])
    # Rounding can leave a probability just beyond 1.
    confidences = np.clip(sure[told], 0.0, 1.0)
    # Of several references the likeliest one counts, as for all else.
    known = [
        (
            list(map(float, probabilities)),
            max(
                map(list(choices).index, references_of(gold)),
                key=lambda place: probabilities[place],
            ),
        )
        for probabilities, choices, gold in zip(
            labelled["label_probs"], labelled["choices"], labelled["gold"], strict=True
        )
        if probabilities is not None and choices is not None
    ]
    return {
        "confidence": float(confidences.mean()) if told.any() else None,
        "calibration_error": (
            labelers.calibration_error(confidences.tolist(), right[told].tolist())
            if told.any()
            else None
        ),
        "brier": labelers.brier([p for p, _ in known], [g for _, g in known]) if known else None,
    }


# ---------------------------------------------------------------------------------------- differences


def compare(judged: Sequence[Judged], base: Judged, groups: Sequence[Any], seed: int) -> None:
    """Give every other variant its difference from the base, p-values corrected by Holm (1979)."""
    others = [each for each in judged if each is not base]
    found = [difference(each.right, base.right, groups, seed) for each in others]
    adjusted = holm([each["p"] for each in found])
    for other, values, p in zip(others, found, adjusted, strict=True):
        verdict = "not shown"
        if p < SIGNIFICANT:
            verdict = "better" if values["value"] > 0 else "worse"
        other.difference = Difference(**values, p_holm=p, verdict=verdict)


def difference(
    right: NDArray[np.bool_], other: NDArray[np.bool_], groups: Sequence[Any], seed: int
) -> dict[str, float]:
    """How much more often ``right`` is true, with a 95 % interval and a two-sided p-value.

    The interval is the percentile bootstrap's over whole groups (Efron, 1979). The p-value is that of
    the paired permutation test (Pitman, 1937): were the two alike, each group's difference could as well
    have the other sign.

    Args:
        right: Whether the one is right, per row.
        other: The same of the other.
        groups: Each row's group; None for a row on its own.
        seed: Draws both.
    """
    # Not `student`'s paired bootstrap: its p, which goes with the interval of any metric, is a share of
    # 1,000 draws, never below 0.002, and Holm's factor would make "not shown" of all of 25 variants. A
    # difference of means, as here, has a test of its own, whose p is as fine as there are flips.
    names = [
        ("row", i) if g is None or g != g else ("group", g) for i, g in enumerate(groups)
    ]  # NaN is None
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    places = [numbers[name] for name in names]
    sums = np.bincount(places, weights=right.astype(float) - other.astype(float))
    sizes = np.bincount(places).astype(float)
    value = float(sums.sum() / sizes.sum())
    random = np.random.default_rng(seed)

    def drawn(height: int) -> NDArray[np.float64]:
        picks = random.integers(0, len(sums), size=(height, len(sums)))
        shares: NDArray[np.float64] = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
        return shares

    low, high = np.quantile(_in_parts(drawn, _RESAMPLES, len(sums)), [0.025, 0.975])
    differing = sums[sums != 0]

    def flipped(height: int) -> NDArray[np.float64]:
        signs = random.integers(0, 2, size=(height, len(differing))) * 2.0 - 1.0
        totals: NDArray[np.float64] = np.abs(signs @ differing)
        return totals

    p = 1.0
    if len(differing):
        chance = _in_parts(flipped, _FLIPS, len(differing))
        p = float((1 + (chance >= abs(sums.sum()) - 1e-9).sum()) / (1 + _FLIPS))
    return {"value": value, "low": float(low), "high": float(high), "p": p}


def _in_parts(
    draw: Callable[[int], NDArray[np.float64]], times: int, width: int
) -> NDArray[np.float64]:
    """So many draws, not all in memory at once."""
    height = max(1, 2_000_000 // width)
    return np.concatenate([draw(min(height, times - start)) for start in range(0, times, height)])


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down rule (1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


# ---------------------------------------------------------------------------------------------- choice


def choose(
    judged: Sequence[Judged], rule: str, within: float, groups: Sequence[Any], seed: int
) -> Judged:
    """The variant that the rule picks.

    ``best``: of those whose accuracy is within ``within`` of the highest, and not significantly lower, the
    cheapest. ``cheapest``: of those within ``within``, significantly lower or not, the cheapest. Of equally
    cheap ones (to two digits) the one with fewer unread rows, then the more accurate, then the first.
    """
    top = max(judged, key=lambda each: each.accuracy["value"])
    near = [j for j in judged if top.accuracy["value"] - j.accuracy["value"] <= within + 1e-9]
    if rule == "best":
        others = [each for each in near if each is not top]
        found = [difference(each.right, top.right, groups, seed) for each in others]
        worse = holm([each["p"] for each in found])
        near = [top, *(j for j, p in zip(others, worse, strict=True) if p >= SIGNIFICANT)]
        near.sort(key=lambda each: [j.name for j in judged].index(each.name))
    price = _prices(near)
    keys = [(price[i], each.unread, -each.accuracy["value"], i) for i, each in enumerate(near)]
    return near[keys.index(min(keys))]


def _prices(judged: Sequence[Judged]) -> list[float]:
    """What is compared for cheapness: cost, or tokens, or requests, whichever is known and tells."""
    costs = [0.0 if each.cost_usd is None and each.free else each.cost_usd for each in judged]
    known = [cost for cost in costs if cost is not None]
    tokens, requests = [each.tokens for each in judged], [each.requests for each in judged]
    told = next(
        (amounts for amounts in (known, tokens) if len(amounts) == len(judged) and any(amounts)),
        requests,
    )
    return [_digits(amount) for amount in told]


def _digits(amount: float) -> float:
    return float(f"{amount:.2g}")
