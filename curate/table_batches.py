"""Reads a file batch by batch, so that it need not fit into memory, and writes rows the same way.

Parquet, JSONL, CSV and TSV are read in pieces; other files, and gzipped ones, are read whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.tables import SourceError, read_table

if TYPE_CHECKING:
    import pandas as pd

WRITABLE = (".csv", ".tsv", ".jsonl", ".parquet")


def read_batches(path: Path, *, rows: int, encoding: str = "utf-8") -> Iterator[pd.DataFrame]:
    """Yield a file's rows as frames of at most `rows` rows, every column as it is.

    Raises:
        SourceError: Naming the file and, where there is one, the line.
    """
    name = path.name.lower()
    if not path.is_file():
        # A folder or a name that is no file: the reader of tables knows what to say or do.
        yield from _slices(read_table(path, encoding=encoding), rows)
        return
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path, rows)
        elif name.endswith((".jsonl", ".ndjson")):
            yield from _jsonl(path, rows, encoding)
        elif name.endswith((".csv", ".tsv")):
            yield from _csv(path, "\t" if name.endswith(".tsv") else ",", rows, encoding)
        else:
            yield from _slices(read_table(path, encoding=encoding), rows)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not {encoding}: byte {error.object[error.start]:#04x} cannot be decoded; "
            "give --encoding (for example latin-1), or save the file as UTF-8"
        ) from error
    except LookupError as error:
        raise SourceError(
            f"the encoding is {encoding!r}, which is no text encoding that Python knows"
        ) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, CurateError):
            raise
        raise SourceError(f"{path} cannot be parsed: {error}") from error


def _slices(frame: pd.DataFrame, rows: int) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), rows):
        yield frame.iloc[start : start + rows].reset_index(drop=True)


def _parquet(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(rows):
            yield batch.to_pandas()


def _signed(encoding: str) -> str:
    """UTF-8 may begin with a byte order mark, which is no part of the text."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


def _jsonl(path: Path, rows: int, encoding: str) -> Iterator[pd.DataFrame]:
    import pandas as pd

    records: list[dict[str, Any]] = []
    with path.open(encoding=_signed(encoding), newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise SourceError(
                    f"{path}:{number}: this line is not JSON ({error.msg} at column {error.colno}): "
                    f"{line[:80]!r}"
                ) from error
            if not isinstance(record, dict):
                raise SourceError(f"{path}:{number}: a JSON object is needed, not {line[:80]!r}")
            records.append(record)
            if len(records) == rows:
                yield pd.DataFrame(records, dtype=object)
                records = []
    if records:
        yield pd.DataFrame(records, dtype=object)


def _csv(path: Path, separator: str, rows: int, encoding: str) -> Iterator[pd.DataFrame]:
    import pandas as pd

    if not path.stat().st_size:
        return
    # As `read_table` does: every cell stays the text it is, and an empty one is null.
    with pd.read_csv(
        path, sep=separator, dtype=str, keep_default_na=False, na_values=[""], chunksize=rows,
        encoding=_signed(encoding), index_col=False, on_bad_lines="error",
    ) as file:  # fmt: skip
        for frame in file:
            yield frame.astype(object).where(frame.notna(), None).reset_index(drop=True)


class RowWriter:
    """Writes frames to one file, which is there under its name only once it is complete."""

    def __init__(self, path: Path) -> None:
        self.suffix = path.suffix.lower()
        if self.suffix not in WRITABLE:
            raise CurateError(
                f"the output {path} ends in {path.suffix!r}; name it {', '.join(WRITABLE)}"
            )
        self.path = path
        self.draft = path.with_name(f".{path.name}.unfinished")
        self.begun = False
        self._parquet: Any = None

    def __enter__(self) -> RowWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.draft.unlink(missing_ok=True)
            self.draft.touch()
        except OSError as error:
            raise CurateError(
                f"the output {self.path} cannot be written ({error.strerror or error}): name another"
            ) from error
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Append rows."""
        if self.suffix == ".parquet":
            self._write_parquet(frame)
        elif self.suffix == ".jsonl":
            with self.draft.open("a", encoding="utf-8") as file:
                for record in frame.to_dict("records"):
                    file.write(json.dumps(record, ensure_ascii=False, default=_plain) + "\n")
        else:
            frame.to_csv(
                self.draft, mode="a", index=False, header=not self.begun, lineterminator="\n",
                sep="\t" if self.suffix == ".tsv" else ",",
            )  # fmt: skip
        self.begun = True

    def _write_parquet(self, frame: pd.DataFrame) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        schema = None if self._parquet is None else self._parquet.schema
        try:
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
            raise CurateError(
                f"the rows do not all have the same columns and types, which Parquet needs ({error}); "
                "write .jsonl instead"
            ) from error
        if self._parquet is None:
            self._parquet = parquet.ParquetWriter(self.draft, table.schema)
        self._parquet.write_table(table)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._parquet is not None:
            self._parquet.close()
        if kind is None:
            os.replace(self.draft, self.path)
        else:
            self.draft.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """What the JSON writer does not know: arrays and numbers of numpy, dates."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
