"""``curate review``: the rows of a run that a person should look at, in a file to be filled in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("id", "review", "label", "opinion", "opinion_probability", "why", "kept", "input"),
    *("twin", "twin_label", "twin_input"),
)
_LONGEST = 2000  # characters of a text: what is shown is for reading and is not read back
_READ = ("id", "input", "label", "keep", "reason", "review", "confidence")
# JSON lets these stand as they are, and yet many readers take them for the end of a line.
_LINE_ENDS = ("\x85", "\u2028", "\u2029")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What was written: lines in all, pairs in conflict, suspects, and verdicts carried over."""

    rows: int
    conflicts: int
    suspects: int
    left_out: int
    carried: int
    judged: bool


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("review.csv"), show_default=True,
    metavar="FILE", help="Where the rows go: .csv or .jsonl.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(0), default=200, show_default=True, metavar="N",
    help="List at most so many suspected rows, and as many conflicts; the worst come first.",
)  # fmt: skip
def review(run: Path, output: Path, limit: int) -> None:
    """List conflicts and suspected wrong labels of RUN in a file to fill in.

    A file with verdicts in it is never replaced.
    """
    done = write_review(run, output, limit=limit)
    click.echo(shown(done, output))


def write_review(run: Path, output: Path, *, limit: int = 200) -> Listed:
    """Write the rows of a run that a person should judge, one line each.

    These are both rows of a conflict, one after the other, the most alike first; rows whose label
    is suspected, the worst first; and rows with a verdict already, which stands in their line, so
    that the file takes the place of the one before. A row that is listed for two reasons has one
    line.

    Args:
        run: A run folder in which the filters have run.
        output: A .csv or .jsonl file, in the form that `filters.read_review` reads.
        limit: The most pairs in conflict, and the most suspected rows.

    Raises:
        CurateError: The run's files cannot be read, or the output holds what must not be lost.
    """
    from curate.exceptions import CurateError
    from curate.run_folder import RunFolder
    from curate.stages import edited_without_verdict

    check_output(output)
    folder = RunFolder(run)
    curated = folder.read_table("curated.parquet")
    decisions = folder.read_table("decisions.parquet")
    if "split" in curated.columns:
        curated = curated[curated["split"] == "train"]
    edited = edited_without_verdict(output, curated) if output.exists() else 0
    if edited:
        raise CurateError(
            f"{output} gives {edited} rows another label without a verdict, which would be lost: write "
            "relabel in their column review, or name another file with --output"
        )
    lines, done = list_rows(curated, decisions, limit=limit)
    text = _as_jsonl(lines) if output.suffix == ".jsonl" else _as_csv(lines)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CurateError(
            f"the folder of {output} cannot be made ({error.strerror}): name another file with --output"
        ) from error
    RunFolder(output.parent).write_text(output.name, text)
    return done


def check_output(output: Path) -> None:
    """See that nothing that a person wrote would be lost.

    Raises:
        CurateError: The file has another suffix, holds verdicts, or is there and is no review.
    """
    from curate.exceptions import CurateError
    from filters import FilterError, read_review

    if output.suffix not in (".csv", ".jsonl"):
        raise CurateError(f"{output}: a review is a .csv or .jsonl file; name one with --output")
    if not output.exists():
        return
    try:
        filled = len(read_review(output))
    except FilterError as error:
        raise CurateError(
            f"{output} is there already and cannot be read as a review: name another file with --output "
            f"({error})"
        ) from error
    if filled:
        raise CurateError(
            f"{output} holds {filled} verdicts, which would be lost: name another file with --output. "
            "Verdicts that the run was given with data.review stand in the new file too"
        )


def list_rows(
    curated: pd.DataFrame, decisions: pd.DataFrame, *, limit: int
) -> tuple[list[dict[str, Any]], Listed]:
    """Return the lines to be written, and how many of which kind there are."""
    from curate.suspects import OPINION, OPINION_PROBABILITY, RANK

    judged = RANK in curated.columns
    extra = [RANK, OPINION, OPINION_PROBABILITY] if judged else []
    columns = [name for name in (*_READ, *extra) if name in curated.columns]
    plain = curated[columns].astype(object).where(curated[columns].notna(), None)
    records: list[dict[str, Any]] = [
        dict(zip(columns, values, strict=True)) for values in plain.itertuples(index=False)
    ]
    rows = {row["id"]: row for row in records}
    lines: dict[str, dict[str, Any]] = {}
    pairs = _conflicts(decisions, rows)
    for pair in pairs[:limit]:
        for mine, other in (pair[:2], pair[1::-1]):
            line = _line(lines, rows[mine])
            line["why"].append(f"{pair[2]}: like {other}, which has another label")
            if not line["twin"]:
                line |= _twin(rows[other])
    suspects = sorted(
        (row for row in rows.values() if row.get(RANK) is not None), key=lambda row: row[RANK]
    )
    for row in suspects[:limit]:
        line = _line(lines, row)
        line["why"].append(f"suspected wrong label, number {int(row[RANK])}")
    carried = [row for row in rows.values() if row.get("review") is not None]
    for row in carried:
        if row["id"] not in lines:
            _line(lines, row)["why"].append("reviewed before")
    done = Listed(
        rows=len(lines),
        conflicts=len(pairs[:limit]),
        suspects=len(suspects[:limit]),
        left_out=len(pairs[limit:]) + len(suspects[limit:]),
        carried=len(carried),
        judged=judged,
    )
    return [line | {"why": "; ".join(line["why"])} for line in lines.values()], done


def _conflicts(
    decisions: pd.DataFrame, rows: Mapping[str, dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """(id, id, filter) of the pairs in conflict of which a row is kept, the most alike first."""
    edges = decisions[decisions["verdict"] == "conflict"]
    edges = edges.sort_values(["score", "id", "related_id"], ascending=[False, True, True])
    found: dict[frozenset[str], tuple[str, str, str]] = {}
    for one, other, name in edges[["id", "related_id", "filter"]].itertuples(index=False):
        if one in rows and other in rows and (rows[one]["keep"] or rows[other]["keep"]):
            found.setdefault(frozenset((one, other)), (one, other, name))
    return list(found.values())


def _line(lines: dict[str, dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's line, begun if it is not there yet."""
    from curate.suspects import OPINION, OPINION_PROBABILITY

    if row["id"] not in lines:
        sure = row.get(OPINION_PROBABILITY)
        lines[row["id"]] = dict.fromkeys(COLUMNS, "") | {
            "id": row["id"],
            "review": row.get("review") or "",
            "label": row.get("label") or "",
            "opinion": row.get(OPINION) or "",
            "opinion_probability": "" if sure is None else round(float(sure), 3),
            "why": [],
            "kept": "yes" if row["keep"] else f"no: {row['reason']}",
            "input": _shown(row["input"]),
        }
    return lines[row["id"]]


def _twin(row: Mapping[str, Any]) -> dict[str, Any]:
    label = row.get("label") or ""
    return {"twin": row["id"], "twin_label": label, "twin_input": _shown(row["input"])}


def _shown(text: str) -> str:
    """A text as a person reads it: cut where it is long, with a note, and without control codes."""
    from curate.reports.texts import clip

    return clip(text, _LONGEST)


def _as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    # A spreadsheet takes the file for UTF-8 only with a mark at its beginning.
    buffer.write("\ufeff")
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _as_jsonl(lines: Sequence[Mapping[str, Any]]) -> str:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    for mark in _LINE_ENDS:
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def shown(done: Listed, output: Path) -> str:
    """What was listed and what to do with it, as a person reads it."""
    pairs = "pair" if done.conflicts == 1 else "pairs"
    parts = [f"{done.conflicts:,} {pairs} in conflict", f"{done.suspects:,} suspected labels"]
    if done.carried:
        parts.append(f"{done.carried:,} verdicts carried over")
    said = [f"{done.rows:,} rows to review: {', '.join(parts)}"]
    if done.left_out:
        said.append(f"{done.left_out:,} more are left out; list them with a higher --limit")
    if not done.judged:
        said.append(
            "this run looked for no wrong labels: run `curate filter` on the recipe again, with an embedder"
        )
    if not done.rows:
        return "\n".join(said)
    said += [
        f"review file: {output}",
        "fill in the column `review`: accept, drop, or relabel with the new label in `label`; then run "
        f"the recipe with --set data.review={output.resolve()}",
    ]
    return "\n".join(said)
