"""``curate next``: the command line of :mod:`curate.next_rows`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("next")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(1), required=True, help="How many rows to choose.")
@click.option(
    "--pool", type=click.Path(path_type=Path), metavar="FILE",
    help="Rows without labels to choose from. [default: the run's own rows that were not asked]",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Where they go: .csv, .tsv, .jsonl or .parquet. [default: next.jsonl in the run folder]",
)  # fmt: skip
@click.option(
    "--store", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where embeddings are kept. [default: .curate beside the recipe]",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show no progress.")
def next_rows(
    run: Path, rows: int, pool: Path | None, output: Path | None, store: Path | None, quiet: bool
) -> None:
    """Choose the rows that the teacher should label next.

    RUN is the folder of a complete run, or a recipe whose rows have been labelled. Clusters of which
    many rows have no label, or of whose labels the teacher is not sure, get more of the rows; in each,
    those least like any labelled row come first. Nobody is asked.
    """
    from curate.chatter import quiet_libraries
    from curate.next_rows import choose_next
    from curate.progress import ProgressDisplay

    quiet_libraries()
    with ProgressDisplay(quiet=quiet) as display:
        found = choose_next(run, rows, pool=pool, output=output, store=store, on_progress=display)
    click.echo(str(found))
