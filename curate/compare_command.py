"""``curate compare``: whether one run's student is better than another's, beyond chance."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.exceptions import CurateError
from curate.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


def compare(
    run: str | os.PathLike[str],
    other: str | os.PathLike[str],
    *,
    metric: str | None = None,
    system: str = "student",
) -> dict[str, Any]:
    """Hold a system of two runs against each other on the test rows that both answered.

    Args:
        run: A complete run folder.
        other: Another one, over the same test rows.
        metric: One of :data:`student.METRICS`; by default the first run's headline.
        system: ``student``, or another system of both.

    Returns:
        What :func:`student.compare` returns, with ``first`` the value of ``run`` and ``second`` that of
        ``other``.

    Raises:
        CurateError: If the folders share no test row, or differ in what gold is.
        student.InputError: If the metric is unknown or needs what the runs do not have.
    """
    from curate.recipe import parse_recipe
    from curate.scoring import compare_answers, shown_metrics

    folders = [Path(run), Path(other)]
    recipe = parse_recipe(_facts(folders[0])["recipe"], where=str(folders[0] / "run.json"))
    _facts(folders[1])
    first, second = _shared(_answers(folders[0], system), _answers(folders[1], system), folders)
    return compare_answers(metric or shown_metrics(recipe)[0], first, second, recipe)


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CurateError(
            f"{folder} is no complete run folder ({error}): `curate run` makes one"
        ) from error
    return facts


def _answers(folder: Path, system: str) -> pd.DataFrame:
    frame = RunFolder(folder).read_table("predictions.parquet")
    rows = frame[frame["system"] == system]
    if not len(rows):
        known = ", ".join(frame["system"].unique())
        raise CurateError(f"{folder} has no answers of {system!r}; it has {known}")
    return rows.set_index("id")


def _shared(
    first: pd.DataFrame, second: pd.DataFrame, folders: list[Path]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    ids = [i for i in first.index if i in second.index]
    if not ids:
        raise CurateError(
            f"{folders[0]} and {folders[1]} share no test row: compare runs over the same data and seed"
        )
    one, two = first.loc[ids], second.loc[ids]
    if one["gold"].tolist() != two["gold"].tolist():
        raise CurateError(
            f"{folders[0]} and {folders[1]} hold different gold labels for the same rows: they were not "
            "judged by the same data"
        )
    return one, two


@click.command("compare")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option("--metric", help="Such as macro_f1. [default: RUN's headline]")
@click.option("--system", default="student", show_default=True, help="Whose answers to compare.")
def compare_runs(run: Path, other: Path, metric: str | None, system: str) -> None:
    """Say whether RUN's student is better than OTHER's, beyond chance.

    Both on the same test rows: the difference with its paired bootstrap interval, and McNemar's test.
    """
    click.echo("\n".join(shown(compare(run, other, metric=metric, system=system), run, other)))


def shown(found: Mapping[str, Any], run: Path, other: Path) -> list[str]:
    """What the command prints."""
    from curate.results import aligned

    rows = [("run", found["metric"])]
    rows += [(str(run), f"{found['first']:.4f}"), (str(other), f"{found['second']:.4f}")]
    test = found["mcnemar"]
    sure = found["low"] > 0 or found["high"] < 0
    return [
        aligned(rows),
        f"difference {found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}), "
        f"p = {found['p']:.3f}, on {found['n']:,} rows: "
        + ("beyond chance" if sure else "may well be chance"),
        f"right where the other is wrong: {test['first_only']:,} and {test['second_only']:,} rows "
        f"(McNemar's exact test: p = {test['p']:.3f})",
    ]
