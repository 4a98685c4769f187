"""The command line. Every command parses, calls the verb of the same name, and prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from curate.ablate_command import ablate
from curate.compare_command import compare_runs
from curate.dedupe_command import dedupe
from curate.errors_command import errors
from curate.export_command import export
from curate.next_command import next_rows
from curate.review_command import review
from curate.student_export_command import export_student
from curate.teacher_command import teacher
from curate.teacher_log import log

if TYPE_CHECKING:
    from curate.pipeline import Run

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns the packages' own errors into one message and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("\nstopped; the same command goes on from here", err=True)
            sys.exit(130)
        except (ValueError, RuntimeError) as error:
            if not _is_ours(error):
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


def _is_ours(error: BaseException) -> bool:
    """Whether an error was written for the user: only then is its text enough."""
    home = type(error).__module__.partition(".")[0]
    return home in ("curate", "labelers", "filters", "student")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="curate-distill", prog_name="curate")
def main() -> None:
    """From raw text and a teacher to a curated training set and a small T5 student."""


def _recipe_options(command: F) -> F:
    for option in reversed(
        (
            click.argument("recipe", type=click.Path(path_type=Path)),
            click.option(
                "--set", "overrides", multiple=True, metavar="KEY=VALUE",
                help="Change one value of the recipe, such as student.epochs=1.",
            ),
            click.option(
                "--output", type=click.Path(path_type=Path), metavar="FOLDER",
                help="The run folder. [default: runs/<name>]",
            ),
            click.option(
                "--store", type=click.Path(path_type=Path), metavar="FOLDER",
                help="Where teacher exchanges are kept. [default: .curate beside the recipe]",
            ),
            click.option("--quiet", is_flag=True, help="Show no progress."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _do(verb: str, recipe: Path, quiet: bool, **options: Any) -> Run:
    import curate
    from curate.chatter import quiet_libraries
    from curate.progress import ProgressDisplay

    quiet_libraries()
    with ProgressDisplay(quiet=quiet) as display:
        done: Run = getattr(curate, verb)(recipe, on_progress=display, **options)
    return done


@main.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("recipe.yaml"))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(path: Path, force: bool) -> None:
    """Write a commented recipe that runs as it is."""
    import curate

    written = curate.init(path, force=force)
    click.echo(f"{written} written; next: curate run {written}")


@main.command()
@_recipe_options
@click.option(
    "--seeds", metavar="N,N,…",
    help="Run once for each seed, in FOLDER/seed-N, and print medians.",
)  # fmt: skip
def run(recipe: Path, quiet: bool, seeds: str | None, **options: Any) -> None:
    """Do everything: read, label, filter, train, evaluate, report."""
    if seeds is not None:
        _run_seeds(recipe, quiet, seeds, options)
        return
    done = _do("run", recipe, quiet, **options)
    _print_run(done)
    click.echo(f"student: {done.student}\nreport:  {done.report}")


def _run_seeds(recipe: Path, quiet: bool, seeds: str, options: dict[str, Any]) -> None:
    from curate.recipe import load_recipe
    from curate.results import median_table

    numbers = [s.strip() for s in seeds.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise click.BadParameter(
            f"{seeds!r}: write whole numbers, such as 0,1,2", param_hint="--seeds"
        )
    overrides = tuple(options.pop("overrides"))
    name = load_recipe(recipe, overrides=overrides).name
    root = options.pop("output") or Path("runs") / name
    runs = []
    for number in numbers:
        chosen = (*overrides, f"seed={number}")
        runs.append(
            _do("run", recipe, quiet, output=root / f"seed-{number}", overrides=chosen, **options)
        )
        _print_run(runs[-1])
    click.echo(median_table([done.metrics for done in runs]))


@main.command()
@_recipe_options
@click.option(
    "--dry-run", is_flag=True,
    help="Show three prompts, and quote requests, tokens, cost and time; send nothing.",
)  # fmt: skip
def label(recipe: Path, quiet: bool, dry_run: bool, **options: Any) -> None:
    """Read the data and have the teacher label it."""
    if dry_run:
        _quote(recipe, options)
        return
    done = _do("label", recipe, quiet, **options)
    click.echo(f"labelled rows: {done.folder / 'labeled.parquet'}")


def _quote(recipe: Path, options: dict[str, Any]) -> None:
    from curate import dry_run
    from curate.chatter import quiet_libraries

    quiet_libraries()
    click.echo(dry_run.dry_run(recipe, overrides=options["overrides"], store=options["store"]))


@main.command()
@_recipe_options
@click.option("--explain", metavar="ID", help="Say why a row of the run is kept or dropped.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="FILTER.ARG=VALUE",
    help="Say what another threshold would change; nothing is computed anew or written.",
)
@click.option(
    "--diff",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Say which rows another run decides otherwise.",
)
@click.option(
    "--self-test", is_flag=True,
    help="Plant changes in a sample of the rows and show what each filter makes of them.",
)  # fmt: skip
def filter(
    recipe: Path, quiet: bool, explain: str | None, thresholds: Sequence[str], diff: Path | None,
    self_test: bool, **options: Any,
) -> None:  # fmt: skip
    """Go on to the curated training set, or look into the decisions of a run.

    With one of --explain, --threshold and --diff nothing is run: what is asked is read off the run's
    files, and RECIPE may also be the folder of a complete run. --self-test needs labelled rows.
    """
    if explain is not None or thresholds or diff is not None or self_test:
        _look(recipe, quiet, explain, thresholds, diff, self_test, options)
        return
    done = _do("filter", recipe, quiet, **options)
    click.echo(
        f"curated rows: {done.folder / 'curated.parquet'}\nevidence:     {done.folder / 'decisions.parquet'}"
    )


def _look(
    recipe: Path, quiet: bool, explain: str | None, thresholds: Sequence[str], diff: Path | None,
    self_test: bool, options: dict[str, Any],
) -> None:  # fmt: skip
    from curate import filter_command
    from curate.chatter import quiet_libraries
    from curate.progress import ProgressDisplay

    quiet_libraries()
    place: dict[str, Any] = {"overrides": options["overrides"], "output": options["output"]}
    if explain is not None or thresholds or diff is not None:
        click.echo(
            filter_command.look(recipe, explain=explain, thresholds=thresholds, diff=diff, **place)
        )
    if self_test:
        with ProgressDisplay(quiet=quiet) as display:
            found = filter_command.self_test(
                recipe, store=options["store"], on_progress=display, **place
            )
        click.echo(str(found))


@main.command()
@_recipe_options
def train(recipe: Path, quiet: bool, **options: Any) -> None:
    """Go on to the trained student."""
    done = _do("train", recipe, quiet, **options)
    click.echo(f"student: {done.student}")


@main.command()
@_recipe_options
def evaluate(recipe: Path, quiet: bool, **options: Any) -> None:
    """Go on to metrics on the test rows."""
    _print_run(_do("evaluate", recipe, quiet, **options))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write the HTML report of a complete run folder anew."""
    import curate

    click.echo(f"report: {curate.report(run)}")


@main.command()
@click.option(
    "--model", required=True, help="The folder or Hub id of a student, or of an export of it."
)
@click.option(
    "--file", "file", type=click.Path(path_type=Path), help="Predict the rows of a file instead."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write .csv, .jsonl or .parquet.")
@click.option(
    "--method", type=click.Choice(["auto", "score", "generate"]), default="auto", show_default=True,
    help="Give every label a probability, or write the answer; auto scores where there are labels.",
)  # fmt: skip
@click.option(
    "--num-beams", type=click.IntRange(1), default=1, show_default=True, help="Of generate."
)
@click.option(
    "--abstain-below", type=float, metavar="CONFIDENCE",
    help="Give no answer where the confidence is lower.",
)  # fmt: skip
@click.argument("texts", nargs=-1)
def predict(
    model: str, file: Path | None, output: Path | None, texts: Sequence[str], **options: Any
) -> None:
    """Answer texts, or the rows of a file, with a student."""
    import curate
    from curate.chatter import quiet_libraries

    if bool(texts) == (file is not None):
        raise click.UsageError("give either texts or --file")
    quiet_libraries()
    data = file if file is not None else list(texts)
    answers = curate.predict(model, data, output=output, **options)
    if output is not None:
        click.echo(f"{len(answers)} predictions: {output}")
        return
    for row in answers.to_dict("records"):
        sure = row["confidence"]
        sure_text = "" if sure is None or sure != sure else f"  {sure:.3f}"
        said = f"(no answer: {row['error']})" if row["error"] else row["prediction"]
        click.echo(f"{said}{sure_text}  {' '.join(str(row.get('input', '')).split())[:100]}")


main.add_command(ablate)
main.add_command(compare_runs)
main.add_command(dedupe)
main.add_command(errors)
main.add_command(export)
export.add_command(export_student)
main.add_command(log)
main.add_command(next_rows)
main.add_command(review)
main.add_command(teacher)


def _print_run(done: Run) -> None:
    from curate.results import result_table

    click.echo(result_table(done.metrics, done.shown))
    click.echo(done.verdict)
