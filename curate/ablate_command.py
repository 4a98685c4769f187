"""``curate ablate``: what more labels bring, and what one change at a time is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from curate.ablations import Ablation

_NONE = "–"


def _numbers(kind: type, example: str) -> Any:
    """A callback that reads numbers between commas."""

    def read(context: click.Context, option: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r}: write numbers, such as {example}") from None

    return read


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--fractions", metavar="P,P,…", callback=_numbers(float, "10,25,50,100"),
    help="Percents of the training rows to train on. [default: 10,25,50,75,100]",
)  # fmt: skip
@click.option(
    "--seeds", metavar="N,N,…", callback=_numbers(int, "0,1,2"),
    help="Train with each of these seeds. [default: three, from the recipe's on]",
)  # fmt: skip
@click.option(
    "--objective", "objectives", multiple=True, metavar="NAME",
    help="Train with this objective. [default: the recipe's]",
)  # fmt: skip
@click.option(
    "--student", "students", multiple=True, metavar="MODEL",
    help="Train this student. [default: the recipe's]",
)  # fmt: skip
@click.option(
    "--same", type=click.Choice(["epochs", "steps"]), default="epochs", show_default=True,
    help="What all sizes are trained for equally.",
)  # fmt: skip
@click.option(
    "--vary", multiple=True, metavar="KEY=V1,V2,…",
    help="Change one key of the recipe instead; each value is an experiment.",
)  # fmt: skip
@click.option("--grid", is_flag=True, help="Try all combinations of the values of --vary.")
@click.option("--yes", is_flag=True, help="Let experiments ask the teacher.")
@click.option(
    "--log-to", multiple=True, metavar="NAME", help="Log experiments to wandb or mlflow, too."
)
@click.option(
    "--validation", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.2,
    show_default=True, metavar="SHARE",
    help="Part of the train rows to judge by, where the data has no validation rows.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Train so many students side by side.",
)  # fmt: skip
@click.option("--keep-students", is_flag=True, help="Keep all students' weights.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Change one value of the recipe, throughout.",
)  # fmt: skip
@click.option(
    "--run", type=click.Path(path_type=Path), metavar="FOLDER",
    help="The run whose rows are used. [default: runs/<name>]",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where results and finished students go. [default: ablation in the run's folder]",
)  # fmt: skip
@click.option(
    "--store", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where teacher exchanges are kept. [default: .curate beside the recipe]",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show no progress.")
def ablate(recipe: Path, quiet: bool, fractions: tuple[float, ...] | None, **options: Any) -> None:
    """Say what more labels bring, or what one change is worth."""
    import curate
    from curate.chatter import quiet_libraries
    from curate.progress import ProgressDisplay

    if fractions is not None:
        if not all(0 < percent <= 100 for percent in fractions) or max(fractions) <= 1:
            raise click.UsageError("--fractions are percents up to 100: write 25 for a quarter")
        options["fractions"] = tuple(percent / 100 for percent in fractions)
    quiet_libraries()
    with ProgressDisplay(quiet=quiet) as display:
        found = curate.ablate(recipe, on_progress=display, **options)
    click.echo("\n".join(shown(found)))


def shown(found: Ablation) -> Iterator[str]:
    """What was found, as a person reads it; the answer comes last."""
    facts = found.facts
    yield from _curves(facts) if found.page is not None else _experiments(facts)
    for note in found.notes:
        yield f"note: {note}"
    for name, problem in found.problems.items():
        yield f"not there: {name}: {problem}"
    if found.page is not None:
        yield f"\ncells: {found.folder / 'cells.csv'}\npage:  {found.page}"
    else:
        yield f"\nexperiments: {found.folder / 'experiments.sqlite'}"
    yield f"\n{found.verdict}"


def _curves(facts: Mapping[str, Any]) -> Iterator[str]:
    from curate.results import aligned

    metric = facts["metric"]
    head = (
        "student", "objective", "part", "rows", "labels", "seeds", f"{metric}, validation",
        "95 % interval", "test", "95 % interval", "seconds",
    )  # fmt: skip
    yield aligned([head, *(_point(point, metric) for point in facts["points"])])
    yield ""
    for name, values in facts["rivals"]["validation"].items():
        test = facts["rivals"]["test"]
        end = f", {test[name][metric]:.1%} on test" if test else ""
        yield f"{name}: {values[metric]:.1%} on validation{end}"
    yield ""
    yield from facts["forecast"]


def _point(point: Mapping[str, Any], metric: str) -> Sequence[str]:
    there, test = point["validation"][metric], (point["test"] or {}).get(metric)
    return (
        point["model"],
        point["objective"],
        f"{point['fraction']:.0%}",
        f"{point['rows']:,}",
        f"{point['labels']:,}",
        str(len(point["seeds"])),
        f"{there['value']:.1%}",
        f"{there['low']:.1%} to {there['high']:.1%}",
        _NONE if test is None else f"{test['value']:.1%}",
        _NONE if test is None else f"{test['low']:.1%} to {test['high']:.1%}",
        f"{point['seconds']:,.0f}",
    )


def _experiments(facts: Mapping[str, Any]) -> Iterator[str]:
    from curate.results import aligned

    rows = [row for row in facts["experiments"] if row.get("value") is not None]
    if not rows:
        return
    head = (
        "experiment", rows[0]["metric"], "95 % interval", "against base", "95 % interval",
        "p", "", "rows", "label tokens", "label USD", "seconds",
    )  # fmt: skip
    yield f"{facts['validation_rows']:,} validation rows; test was not read\n"
    yield aligned([head, *map(_experiment, rows)])
    for row in facts["experiments"]:
        if row.get("problem"):
            yield f"not judged: {row['experiment']}: {row['problem']}"


def _experiment(row: Mapping[str, Any]) -> Sequence[str]:
    compared = row.get("difference") is not None
    cost = row["cost_usd"]
    return (
        row["experiment"],
        f"{row['value']:.1%}",
        f"{row['low']:.1%} to {row['high']:.1%}",
        f"{row['difference']:+.1%}" if compared else _NONE,
        f"{row['difference_low']:+.1%} to {row['difference_high']:+.1%}" if compared else _NONE,
        f"{row['p_holm']:.2g}" if compared else _NONE,
        row["verdict"] if compared else "",
        f"{row['rows']:,}",
        f"{row['prompt_tokens'] + row['completion_tokens']:,}",
        _NONE if cost is None else f"{cost:,.4g}",
        f"{row['seconds']:,.0f}",
    )
