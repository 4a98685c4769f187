"""``curate export student``: a run's student in a format that runs faster or elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from curate.student_exports import ExportedStudent


@click.command("student")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Choice(["ctranslate2", "onnx", "transformers"]),
    default="ctranslate2", show_default=True,
    help="CTranslate2 is the fast one on a CPU; transformers is a plain folder.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where it goes. [default: RUN/export/student-FORMAT]",
)  # fmt: skip
@click.option(
    "--quantization", type=click.Choice(["int8", "float32"]), default="int8", show_default=True,
    help="Of CTranslate2: how weights are stored.",
)  # fmt: skip
@click.option(
    "--rows", type=click.Path(path_type=Path), metavar="FILE",
    help="Hold both against each other on these rows. [default: the run's]",
)  # fmt: skip
@click.option("--gold", metavar="COLUMN", help="Column of FILE that holds the human label.")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), default=0.98, show_default=True,
    help="Least share of rows on which both must answer alike.",
)  # fmt: skip
@click.option(
    "--max-accuracy-drop", type=click.FloatRange(0, 1), default=0.01, show_default=True,
    help="Most that accuracy may fall, as a share.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show no progress.")
def export_student(run: Path, output: Path | None, quiet: bool, **options: Any) -> None:
    """Write the student in another format, if it answers as before.

    RUN may also be a student's folder; then give --rows. Where the answers differ by more than the
    bounds, nothing is written but a report of why.
    """
    import curate
    from curate.chatter import quiet_libraries
    from curate.progress import ProgressDisplay

    quiet_libraries()
    with ProgressDisplay(quiet=quiet) as display:
        done = curate.export_student(run, output, on_progress=display, **options)
    click.echo("\n".join(shown(done)))


def shown(done: ExportedStudent) -> list[str]:
    """What the command prints: the gate, a table of what both take, and the place."""
    from curate.results import aligned

    report, lines = done.report, []
    if not report["checked"]:
        lines.append("not compared with the student: its runtime is not installed here")
    else:
        lines.append(
            f"{report['agreement']:.1%} of its answers are the student's, on {done.rows} "
            f"({report['rows']}); at least {report['min_agreement']:.1%} is asked for"
        )
    if report.get("accuracy") is not None:
        lines.append(
            f"accuracy {report['accuracy']:.1%}, the student's {report['accuracy_of_original']:.1%}"
        )
    head = ("", "rows/s", "one row, median", "p95", "memory", "on disk")
    rows = [head]
    for name, taken in done.speed.items():
        rows.append(
            (
                name, f"{taken['rows_per_second']:,.0f}", f"{taken['latency_p50_ms']:.1f} ms",
                f"{taken['latency_p95_ms']:.1f} ms", f"{taken['peak_memory_mb']:,.0f} MB",
                f"{taken['size_on_disk_mb']:.1f} MB",
            )
        )  # fmt: skip
    return [*lines, aligned(rows), f"export: {done.folder}"]
