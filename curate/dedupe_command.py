"""``curate dedupe``: drop repeats from raw text before a teacher is paid for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

    from filters import NearDuplicate

_ROWS = 20_000  # at a time
_USUAL = ("input", "text", "sentence", "content", "question")
_CHARACTERS = 4  # to a token, about, in English


@dataclass(kw_only=True)
class Deduped:
    """What became of a file's rows; `characters` are those of the rows that were dropped."""

    rows: int = 0
    kept: int = 0
    characters: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    conflicts: int = 0


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="OUT",
    help="Where the rows that stay go: .csv, .tsv, .jsonl or .parquet.",
)  # fmt: skip
@click.option(
    "--text", "text", multiple=True, metavar="COLUMN",
    help="The column to compare; repeat it to compare several. [default: input or text]",
)  # fmt: skip
@click.option("--id", "id_", metavar="COLUMN", help="The column that names a row. [default: id]")
@click.option("--label", metavar="COLUMN", help="Alike rows of different labels both stay.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True), default=0.7, show_default=True,
    help="Word overlap (Jaccard) from which on two texts are near duplicates.",
)  # fmt: skip
@click.option(
    "--index", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Also compare with all rows of earlier runs, kept in this folder.",
)  # fmt: skip
@click.option(
    "--prompt-tokens", type=click.IntRange(0), default=0, metavar="N",
    help="Tokens of instruction and demonstrations that each request carries.",
)  # fmt: skip
@click.option(
    "--price", type=click.FloatRange(0), metavar="USD", help="Of a million prompt tokens."
)
@click.option("--encoding", default="utf-8", show_default=True, help="Of text files.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
def dedupe(
    file: Path, output: Path, prompt_tokens: int, price: float | None, force: bool, **options: Any
) -> None:
    """Drop exact and near duplicates from FILE before labeling.

    The rows that stay go to OUT as they are; the evidence for every drop goes beside it, to
    OUT.decisions.parquet.
    """
    evidence = output.with_name(f"{output.name}.decisions.parquet")
    done = dedupe_file(file, output, evidence, force=force, **options)
    click.echo("\n".join(shown(done, prompt_tokens, price)))
    click.echo(f"rows that stay: {output}\nevidence:       {evidence}")


def dedupe_file(
    file: Path,
    output: Path,
    evidence: Path,
    *,
    text: Sequence[str] = (),
    id_: str | None = None,
    label: str | None = None,
    threshold: float = 0.7,
    index: Path | None = None,
    encoding: str = "utf-8",
    force: bool = False,
) -> Deduped:
    """Write the rows of a file that stay, and the evidence.

    The file is read twice, a batch at a time; with an index it is read once.

    Raises:
        CurateError: The file, a column or an option that cannot be worked with.
        filters.FilterError: Ids that repeat, or an index with other settings.
    """
    from curate.exceptions import CurateError
    from curate.table_batches import RowWriter
    from filters import NearDuplicate

    writer = RowWriter(output)
    for path in (output, evidence):
        if path.exists() and not force:
            raise CurateError(
                f"{path} is there already: name another output, or replace it with --force"
            )
    if file.exists() and output.exists() and file.samefile(output):
        raise CurateError(f"{output} is the file to read: name another output")
    if index is not None and len(text) > 1:
        raise CurateError("with --index one --text column can be compared, not several")
    reader = _Reader(file, tuple(text), id_, label, encoding)
    output.parent.mkdir(parents=True, exist_ok=True)
    near = NearDuplicate(threshold=threshold, fields=reader.fields())
    work = _with_index(reader, near, index, evidence) if index else _alone(reader, near, evidence)
    with writer as opened:
        return _write(work, opened)


@dataclass(frozen=True)
class _Reader:
    """Reads a file and shows its rows as the filters want them."""

    file: Path
    text: tuple[str, ...]
    id_: str | None
    label: str | None
    encoding: str

    def fields(self) -> list[str]:
        """The names under which the texts are compared."""
        return ["input", *(f"input {number}" for number in range(2, len(self.text) + 1))]

    def batches(self) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Yield rows as they are in the file, and as the filters want them."""
        from curate.exceptions import CurateError
        from curate.table_batches import read_batches

        done = 0
        for raw in read_batches(self.file, rows=_ROWS, encoding=self.encoding):
            yield raw, self._as_rows(raw, done)
            done += len(raw)
        if not done:
            raise CurateError(f"{self.file} holds no rows")

    def _as_rows(self, raw: pd.DataFrame, before: int) -> pd.DataFrame:
        import pandas as pd

        names = [f"{self.file.name}:{before + number}" for number in range(1, len(raw) + 1)]
        rows = pd.DataFrame({"id": pd.Series(names, dtype=object)})
        if self.id_ is not None or "id" in raw.columns:
            rows["id"] = self._column(raw, self.id_ or "id").map(str)
        for field_, name in zip(self.fields(), self._texts(raw), strict=True):
            rows[field_] = self._column(raw, name)
            self._check(rows[field_], name, names)
        if self.label is not None:
            rows["label"] = self._column(raw, self.label)
        return rows

    def _texts(self, raw: pd.DataFrame) -> tuple[str, ...]:
        from curate.exceptions import CurateError

        if self.text:
            return self.text
        for name in _USUAL:
            if name in raw.columns:
                return (name,)
        raise CurateError(
            f"{self.file} has the columns {', '.join(map(str, raw.columns))}: say with --text which "
            "one holds the text"
        )

    def _column(self, raw: pd.DataFrame, name: str) -> pd.Series:
        from curate.exceptions import CurateError

        if name not in raw.columns:
            raise CurateError(
                f"{self.file} has no column {name!r}: its columns are "
                f"{', '.join(map(str, raw.columns))}"
            )
        column: pd.Series = raw[name].reset_index(drop=True)
        return column

    def _check(self, column: pd.Series, name: str, names: Sequence[str]) -> None:
        from curate.exceptions import CurateError

        for place, value in zip(names, column.tolist(), strict=True):
            if not isinstance(value, str):
                raise CurateError(
                    f"{place}: {name} is {value!r}; every row needs a text: fill it in or leave the "
                    "row out"
                )


_Work = Iterator[tuple["pd.DataFrame", "pd.DataFrame", Any, "Deduped"]]


def _alone(reader: _Reader, near: NearDuplicate, evidence: Path) -> _Work:
    """Yield each batch with the rows that stay, after one reading to find the duplicates."""
    from filters.partitions import dedupe_batches

    found = dedupe_batches((rows for _, rows in reader.batches()), evidence, near=near)
    done = Deduped(dropped=found.counts["dropped"], conflicts=found.counts["conflicts"])
    start = 0
    for raw, rows in reader.batches():
        keep = found.keep[start : start + len(raw)]
        start += len(raw)
        yield raw, rows, keep, done


def _with_index(reader: _Reader, near: NearDuplicate, index: Path, evidence: Path) -> _Work:
    """Yield each batch with the rows that are new to the index."""
    from curate.table_batches import RowWriter
    from filters.near_index import NearIndex

    done = Deduped(dropped={near.reason: 0})
    with NearIndex(index, near) as opened, RowWriter(evidence) as lines:
        for raw, rows in reader.batches():
            labels = rows["label"].tolist() if "label" in rows.columns else None
            found = opened.add(rows["id"].tolist(), rows["input"].tolist(), labels)
            twins = set(found.loc[found["verdict"] == "drop", "id"])
            keep = (~rows["id"].isin(twins)).to_numpy(dtype=bool)
            done.dropped[near.reason] += len(twins)
            done.conflicts += int((found["verdict"] == "conflict").sum())
            found.insert(1, "filter", near.reason)
            lines.write(found.astype({"score": float, "threshold": float}))
            yield raw, rows, keep, done


def _write(work: _Work, writer: Any) -> Deduped:
    done = Deduped()
    for raw, rows, keep, done in work:
        writer.write(raw[keep])
        texts = rows.loc[~keep, [name for name in rows.columns if name.startswith("input")]]
        done.rows += len(raw)
        done.kept += int(keep.sum())
        done.characters += int(sum(texts[name].str.len().sum() for name in texts.columns))
    return done


def shown(done: Deduped, prompt_tokens: int, price: float | None) -> Iterator[str]:
    """What was found, as a person reads it."""
    gone = done.rows - done.kept
    yield f"{done.rows:,} rows read, {done.kept:,} stay ({done.kept / done.rows:.1%})"
    for reason, rows in done.dropped.items():
        yield f"  {reason}: {rows:,} dropped"
    if done.conflicts:
        pairs = "pair" if done.conflicts == 1 else "pairs"
        yield f"  {done.conflicts:,} {pairs} of alike texts with different labels stayed"
    tokens = done.characters // _CHARACTERS + gone * prompt_tokens
    money = f", {tokens * price / 1e6:,.2f} USD" if price is not None else ""
    noun = "row" if gone == 1 else "rows"
    yield (
        f"labeling the {gone:,} dropped {noun} would have cost about {tokens:,} prompt tokens{money} "
        f"(at {_CHARACTERS} characters a token)"
    )
