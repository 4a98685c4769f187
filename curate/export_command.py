"""``curate export``: what a run made, in the form that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def export() -> None:
    """Hand on what a run made, in the form that others read."""


@export.command("set")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format", "format", type=click.Choice(["parquet", "jsonl", "chat", "paper"]),
    default="parquet", show_default=True,
    help="Tables, JSON lines, messages for other trainers, or the files that the code of Distilling "
    "step-by-step reads.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where it goes. [default: RUN/export/FORMAT]",
)  # fmt: skip
@click.option(
    "--columns", type=click.Choice(["slim", "all"]), default="slim", show_default=True,
    help="Of parquet and jsonl: what training needs, or everything the run knows of a row.",
)  # fmt: skip
@click.option(
    "--answer", type=click.Choice(["label", "rationale"]), default="label", show_default=True,
    help="Of chat: what the assistant says, the label or the rationale and then the label.",
)  # fmt: skip
@click.option(
    "--dataset", type=click.Choice(["cqa", "svamp", "esnli", "anli1"]),
    help="Of paper: which of its loaders is to read the files. [default: one of your own]",
)  # fmt: skip
@click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE",
    help="The recipe of a run that was filtered and not yet evaluated.",
)  # fmt: skip
@click.option(
    "--push-to-hub", "push_to_hub", metavar="OWNER/NAME",
    help="Also upload it as a dataset of the Hugging Face Hub, private if not --public.",
)  # fmt: skip
@click.option("--public", is_flag=True, help="Let everybody see what is uploaded.")
@click.option(
    "--force", is_flag=True,
    help="Replace a former export that was edited by hand, and what the Hub holds by that name.",
)  # fmt: skip
def export_set(run: Path, output: Path | None, public: bool, **options: Any) -> None:
    """Write the curated training set of a run folder, with a dataset card."""
    import curate
    from curate.chatter import quiet_libraries

    quiet_libraries()
    if public and options["push_to_hub"] is None:
        raise click.UsageError("--public says how --push-to-hub uploads: give both")
    done = curate.export_set(run, output, private=not public, **options)
    for split, rows in done.rows.items():
        click.echo(f"{split}: {rows:,} rows")
    for warning in done.warnings:
        click.echo(f"note: {warning}")
    click.echo(f"training set: {done.folder}\ncard:         {done.card}")
    if done.url is not None:
        click.echo(f"on the hub:   {done.url}")
