"""What an ablation says in words: the next doubling, and the answer to whoever pays for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.ablation_curves import Doubling, Learning, Point
from curate.recipe import Recipe
from curate.scaling_fits import LEAST_POINTS, METHODS, Comparison, rows_for

#: Nearer than both baselines in fewer of the resamples is put down to chance.
_CLEAR = 0.8


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """What students are held against, on the validation rows: accuracy and macro-F1 by system."""

    validation: Mapping[str, Mapping[str, float]]
    test: Mapping[str, Mapping[str, float]] | None
    reference: str


def describe_forecast(learning: Sequence[Learning], compared: Comparison | None) -> list[str]:
    """What the next doubling should bring and cost, and how far such forecasts were off, in sentences."""
    lines = []
    trusted = compared.best if compared is not None else "power law"
    for each in learning:
        name = f"{each.model}, {each.objective}"
        if each.doubling is None:
            lines.append(
                f"{name}: {len(each.points)} sizes are too few for a fit; it needs {LEAST_POINTS}."
            )
            continue
        law = each.doubling.gains["power law"]
        said = (
            f"{name}: {each.doubling.new_labels:,} more labels (twice the training rows, "
            f"{each.doubling.rows:,}) should bring {law.value:+.1%} ({law.low:+.1%} to {law.high:+.1%}) by "
            f"the power law"
        )
        if trusted != "power law":
            other = each.doubling.gains[trusted]
            said += f", and {other.value:+.1%} by {trusted!r}, which foretold better here"
        lines.append(f"{said}; {_costs(each.doubling)}.")
    if compared is None:
        lines.append(
            "The fit was not tested: it needs four sizes, three to fit and one to be foretold."
        )
        return lines
    misses = ", ".join(f"{name} {compared.misses[name]:.1%}" for name in METHODS)
    resamples = f"{compared.share:.0%} of the resamples"
    if not compared.beats:
        verdict = (
            f"The power law did not beat the baselines: {compared.best!r} was nearest, so the power law's "
            f"forecast is not to be relied on (it was nearer than both in {resamples})"
        )
    elif compared.share < _CLEAR:
        verdict = (
            f"The power law was nearer than both baselines, though by no more than chance may do (in "
            f"{resamples})"
        )
    else:
        verdict = f"The power law beat both baselines (in {resamples})"
    times = "1 point" if compared.trials == 1 else f"{compared.trials} points"
    lines.append(
        f"Foretelling the largest sizes from the smaller ones ({times}) was off by: {misses}. {verdict}."
    )
    return lines


def _costs(doubling: Doubling) -> str:
    if doubling.usd is not None:
        said = f"they cost {doubling.usd:,.2f} USD" if doubling.usd >= 0.1 else (
            f"they cost {doubling.usd:.2g} USD"
        )  # fmt: skip
    elif doubling.tokens is not None:
        said = f"they take {doubling.tokens:,.0f} tokens of the teacher (no prices are known)"
    else:
        said = "what they cost is not known: the run counts neither dollars nor tokens"
    if doubling.seconds is not None and doubling.seconds >= 60:
        said += f"; {doubling.seconds / 60:,.0f} minutes at the run's pace"
    return said


def answer_buyer(learning: Sequence[Learning], rivals: Rivals, recipe: Recipe, metric: str) -> str:
    """The smallest student and the fewest labels that do, and whether the task looks distillable."""
    sentences = [_goal(learning, rivals, recipe)] if recipe.task.goal else [
        "No goal was set in the recipe (task.goal)."
    ]  # fmt: skip
    if rivals.reference == "gold":
        sentences.append(_teacher(learning, rivals, metric))
    sentences.append(_distillable(learning, rivals, metric))
    return " ".join(sentences)


def _ordered(learning: Sequence[Learning]) -> list[Point]:
    """Points, the smallest student first, and of one student the fewest labels first."""
    points = [(i, p) for i, each in enumerate(learning) for p in each.points]
    return [p for _, p in sorted(points, key=lambda x: (x[1].parameters or 0, x[1].rows, x[0]))]


def _holds(point: Point, learning: Sequence[Learning], good: Any) -> bool:
    """Whether a point and all larger ones of its student are good: one lucky size is not enough."""
    later = next(e for e in learning if (e.objective, e.model) == point.student).points
    return all(good(p) for p in later if p.rows >= point.rows)


def _goal(learning: Sequence[Learning], rivals: Rivals, recipe: Recipe) -> str:
    goal = {m: t for m, t in recipe.task.goal.items() if m in learning[0].points[0].validation}
    left = [m for m in recipe.task.goal if m not in goal]
    note = f" ({', '.join(left)} is not looked at here)" if left else ""
    if not goal:
        return f"The goal's metrics are not looked at here: {', '.join(left)}."
    words = " and ".join(f"{m} {t:g}" for m, t in goal.items())

    def good(point: Point) -> bool:
        return all(point.validation[m].mean >= t for m, t in goal.items())

    for point in _ordered(learning):
        if _holds(point, learning, good):
            sure = all(point.validation[m].low >= t for m, t in goal.items())
            who = (
                f"is reached by the smallest student, {_named(point)},"
                if point.parameters == _smallest(learning)
                else f"needs a larger student: {_named(point)} reaches it"
            )
            return (
                f"The goal ({words}){note} {who} from {point.labels:,} labels on ({point.fraction:.0%}, "
                f"{point.rows:,} training rows): {_scored(point, next(iter(goal)))}"
                f"{'' if sure else '; its interval reaches below the goal'}."
            )
    first = next(iter(goal))
    best = max(_ordered(learning), key=lambda p: p.validation[first].mean)
    return (
        f"No student holds the goal ({words}){note}; the best is {_named(best)} with "
        f"{_scored(best, first)}. {_reach(learning, best, goal[first])}"
    )


def _reach(learning: Sequence[Learning], best: Point, target: float) -> str:
    """Whether more labels would do, by the fitted law."""
    each = next(e for e in learning if (e.objective, e.model) == best.student)
    if each.law is None:
        return "With fewer than three sizes nothing can be said of more labels."
    needed = rows_for(each.curve, target)
    most = each.points[-1].rows
    if needed is None or needed > 100 * most:
        return "By the fitted law more labels of this kind alone do not bring it there."
    share = each.points[-1].labels / most
    return (
        f"By the fitted law it takes about {needed * share:,.0f} labels, {needed / most:.1f} times as "
        "many."
    )


def _smallest(learning: Sequence[Learning]) -> int | None:
    return _ordered(learning)[0].parameters


def _teacher(learning: Sequence[Learning], rivals: Rivals, metric: str) -> str:
    teacher = rivals.validation["teacher"][metric]

    def good(point: Point) -> bool:
        return point.validation[metric].mean > teacher

    for point in _ordered(learning):
        if _holds(point, learning, good):
            sure = (
                "the whole interval is above it"
                if point.validation[metric].low > teacher
                else "its interval reaches down to the teacher's, so that it is not shown to be better"
            )
            return (
                f"It takes {point.labels:,} labels for {_named(point)} to be above the teacher's {metric} of "
                f"{teacher:.1%} ({_scored(point, metric)}); {sure}."
            )
    best = max(_ordered(learning), key=lambda p: p.validation[metric].mean)
    return (
        f"No student stays above the teacher's {metric} of {teacher:.1%}; the best has "
        f"{best.validation[metric].mean:.1%} ({best.validation[metric].low:.1%} to "
        f"{best.validation[metric].high:.1%})."
    )


def _distillable(learning: Sequence[Learning], rivals: Rivals, metric: str) -> str:
    best = max(_ordered(learning), key=lambda p: p.validation[metric].mean)
    found = best.validation[metric]
    floor = rivals.validation.get("majority", {}).get(metric, 0.0)
    if found.low <= floor:
        return (
            f"The task does not look distillable with these: the best student ({found.mean:.1%}, "
            f"{found.low:.1%} to {found.high:.1%}) is not shown to be better than always "
            f"saying the most frequent label ({floor:.1%})."
        )
    top = rivals.validation["teacher"][metric] if rivals.reference == "gold" else 1.0
    if top <= floor:
        return (
            f"The teacher itself ({top:.1%}) is no better than the most frequent label ({floor:.1%}): see to "
            "the labels first."
        )
    share = (found.mean - floor) / (top - floor)
    how = "looks" if share >= 0.9 else "looks partly" if share >= 0.5 else "looks hardly"
    goalpost = "the teacher" if rivals.reference == "gold" else "full agreement"
    said = (
        f"The task {how} distillable: the best student has gone {min(share, 9.99):.0%} of the way from the "
        f"most frequent label ({floor:.1%}) to {goalpost} ({top:.1%})"
    )
    words = rivals.validation.get("tfidf", {}).get(metric)
    if words is not None and words >= found.mean:
        said += f", but TF-IDF with logistic regression does as well ({words:.1%})"
    return f"{said}."


def _named(point: Point) -> str:
    size = "" if point.parameters is None else f" ({_count(point.parameters)} parameters)"
    return f"{point.model}{size} with objective {point.objective}"


def _count(number: int) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.1f} B"
    return f"{number / 1e6:.0f} M" if number >= 1e6 else f"{number:,}"


def _scored(point: Point, metric: str) -> str:
    found = point.validation[metric]
    said = f"{metric} {found.mean:.1%} ({found.low:.1%} to {found.high:.1%}) on validation"
    if point.test is not None and metric in point.test:
        there = point.test[metric]
        said += f", {there.mean:.1%} ({there.low:.1%} to {there.high:.1%}) on test"
    return said
