"""``curate errors``: where a student is wrong, and a blind comparison with its teacher."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["errors"]


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--system", default="student", show_default=True, metavar="NAME",
    help="Whose errors: student, student-gold, tfidf or majority.",
)  # fmt: skip
@click.option("--by", multiple=True, metavar="COLUMN", help="Slice by this column, too.")
@click.option(
    "--blind", type=click.Path(path_type=Path), metavar="FILE",
    help="Write a CSV on which a person judges student and teacher without knowing which is which.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(min=1), default=50, show_default=True, metavar="N",
    help="At most so many rows for --blind.",
)  # fmt: skip
@click.option(
    "--judged", type=click.Path(path_type=Path), metavar="FILE", help="Read that CSV back."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As given to curate run."
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FOLDER",
    help="The recipe's run folder. [default: runs/<name>]",
)  # fmt: skip
@click.option(
    "--store", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where embeddings are kept. [default: .curate beside the recipe]",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show no progress.")
def errors(
    recipe: Path,
    system: str,
    by: tuple[str, ...],
    blind: Path | None,
    rows: int,
    judged: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    store: Path | None,
    quiet: bool,
) -> None:
    """Look into a student's errors on the test rows of a complete run.

    RECIPE is a recipe that has been run, or the folder of a complete run. What is shown is also
    written into that folder, as errors.json and errors.parquet.
    """
    from curate.blind_samples import read_blind_sample, write_blind_sample
    from curate.chatter import quiet_libraries
    from curate.error_rows import judged_rows
    from curate.errors import analyse_errors, write_analysis
    from curate.filter_command import find_run
    from curate.progress import ProgressDisplay

    if blind is not None and judged is not None:
        raise click.UsageError("--blind writes a file and --judged reads one: give one of them")
    quiet_libraries()
    folder, checked, _ = find_run(recipe, overrides, output)
    if judged is not None:
        click.echo(str(read_blind_sample(folder, judged)))
        return
    if blind is not None:
        found = judged_rows(folder, checked, system)
        written = write_blind_sample(
            folder, found, blind, size=rows, seed=checked.seed, system=system
        )
        click.echo(
            f"{blind} holds {written} rows on which {system} and teacher differ. Write 1, 2, both or neither "
            f"into the column `better`, then: curate errors {recipe} --judged {blind}"
        )
        return
    with ProgressDisplay(quiet=quiet) as display:
        analysis = analyse_errors(
            recipe, overrides=overrides, output=output, store=store, system=system, by=by,
            on_progress=display,
        )  # fmt: skip
    click.echo(str(analysis))
    for path in write_analysis(analysis, folder.path):
        click.echo(f"written: {path}", err=True)
