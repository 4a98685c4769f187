"""``curate teacher``: compare ways to ask the teacher, and pick one."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.gold import shown_gold

if TYPE_CHECKING:
    from curate.teacher_trials import Trials

_NONE = "–"
#: Characters of a row's text that are shown.
_SHOWN = 90


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--vary", multiple=True, metavar="KEY=V1,V2,…",
    help="Try these values of one key under task or teacher, each as a variant.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(20), metavar="N",
    help="Judge on so many train rows with gold. [default: trials.rows, or else 200]",
)  # fmt: skip
@click.option(
    "--rule", type=click.Choice(["best", "cheapest"]),
    help="How one is picked. [default: trials.rule, or else best]",
)  # fmt: skip
@click.option(
    "--within", type=click.FloatRange(0, 1), metavar="SHARE",
    help="Accuracy that may be given up for a cheaper variant. [default: trials.within, or else 0.01]",
)  # fmt: skip
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Change one value of the recipe, for all variants.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where the results go. [default: runs/<name>/teacher]",
)  # fmt: skip
@click.option(
    "--store", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where teacher exchanges are kept. [default: .curate beside the recipe]",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show no progress.")
def teacher(recipe: Path, quiet: bool, **options: Any) -> None:
    """Compare ways to ask the teacher, and pick one by rule."""
    import curate
    from curate.chatter import quiet_libraries
    from curate.progress import ProgressDisplay

    quiet_libraries()
    with ProgressDisplay(quiet=quiet) as display:
        trials = curate.teacher(recipe, on_progress=display, **options)
    click.echo("\n".join(shown(trials)))


def shown(trials: Trials) -> Iterator[str]:
    """What the trials found, as a person reads it."""
    from curate.results import aligned
    from curate.teacher_variants import override

    judged = [each for each in trials.variants if each["problem"] is None]
    yield f"{trials.rows:,} train rows with gold; test rows were not looked at\n"
    yield aligned([_RIGHT, *map(_right, judged)])
    yield ""
    yield aligned([_COST, *map(_cost, judged)])
    for each in trials.variants:
        if each["problem"] is not None:
            yield f"not judged: {each['name']}: {_words(each['problem'], 200)}"
    for each in trials.variants:
        changed = ", ".join(override(key, value) for key, value in each["changes"].items())
        if changed and changed != each["name"]:
            yield f"{each['name']} is {_words(changed, 200)}"
    yield from (f"note: {note}" for note in trials.notes)
    yield f"\n{trials.verdict}"
    if trials.overrides:
        words = " ".join(f"--set {shlex.quote(word)}" for word in trials.overrides)
        yield f"to label with it: {words}"
    if trials.wrong:
        yield f"\nwhere {trials.winner} is wrong, the surest first:"
        yield from map(_wrong, trials.wrong)
    if trials.disagreements:
        count = len(trials.disagreements)
        yield f"\n{count} rows on which variants disagree are in teacher-trials.json"
    yield f"results: {trials.folder}"


_RIGHT = (
    "variant", "accuracy", "95 % interval", "against base", "95 % interval", "p", "", "macro-F1",
    "unread", "errors",
)  # fmt: skip
_COST = (
    "variant", "calibration error", "Brier", "confidence", "tokens/row", "USD/1,000 rows", "asked",
    "from store", "answers/s",
)  # fmt: skip


def _right(each: Mapping[str, Any]) -> Sequence[str]:
    accuracy, found = each["accuracy"], each["difference"]
    return (
        each["name"],
        f"{accuracy['value']:.1%}",
        f"{accuracy['low']:.1%} to {accuracy['high']:.1%}",
        f"{found['value']:+.1%}" if found else _NONE,
        f"{found['low']:+.1%} to {found['high']:+.1%}" if found else _NONE,
        f"{found['p_holm']:.2g}" if found else _NONE,
        found["verdict"] if found else "",
        _share(each["macro_f1"]),
        _share(each["unread"]),
        _share(each["failed"]),
    )


def _cost(each: Mapping[str, Any]) -> Sequence[str]:
    return (
        each["name"],
        _number(each["calibration_error"]),
        _number(each["brier"]),
        _number(each["confidence"]),
        f"{each['tokens']:,.0f}",
        _NONE if each["cost_usd"] is None else f"{each['cost_usd']:,.4g}",
        f"{each['asked']:,}",
        f"{each['from_store']:,}",
        _NONE if each["rate"] is None else f"{each['rate']:,.3g}",
    )


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _wrong(row: Mapping[str, Any]) -> str:
    said = row["label"] if row["label"] is not None else row["error"] or "nothing"
    sure = "" if row["confidence"] is None else f" ({row['confidence']:.2f})"
    return (
        f"  gold {_words(shown_gold(row['gold']), 40)}, said {_words(said, 60)}{sure}: "
        f"{_words(row['input'], _SHOWN)}"
    )


def _words(text: str, width: int) -> str:
    """Text on one line, cut to a width, that cannot steer a terminal."""
    line = " ".join(text.split())
    line = "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in line)
    return line if len(line) <= width else line[: width - 1] + "…"
