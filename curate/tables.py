"""Reads a table from wherever it lies, every column as it is.

A source is a file (CSV, TSV, JSONL, JSON, Parquet), a folder of such files, a built-in data set, a
Hub data set, or a pandas or `datasets` object in memory.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w.\[\]:%+-]+)?$")


class SourceError(CurateError):
    """Data that cannot be read, or that does not fit the task."""


def read_table(
    source: str | os.PathLike[str] | pd.DataFrame | datasets.Dataset,
    *,
    encoding: str = "utf-8",
    split: str = "train",
) -> pd.DataFrame:
    """Read a source as it is, every column kept.

    Args:
        source: A path, the name of a built-in data set, a Hub id (``org/name``, with ``:config`` and
            ``@split`` where needed), or an object in memory.
        encoding: Of text files.
        split: Split of a Hub data set where the source names none.

    Raises:
        SourceError: Naming the file and, where there is one, the line.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True)
    if hasattr(source, "to_pandas"):
        frame: pd.DataFrame = source.to_pandas()
        return frame
    name = os.fspath(source)
    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path, encoding)
    if path.exists():
        return _read_file(path, encoding)
    if name in _built_in():
        from curate import assets

        return assets.load_data(name)
    if _HUB_ID.match(name) and not name.endswith(SUFFIXES) and not path.parent.exists():
        return _read_hub(name, split)
    raise SourceError(_not_found(name, path))


def _built_in() -> list[str]:
    from curate.offline_data import data_names

    return list(data_names())


def _not_found(name: str, path: Path) -> str:
    near = []
    if path.parent.is_dir():
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    hint = f": did you mean {path.parent / near[0]}?" if near else ""
    return (
        f"the data {name!r} is neither a file nor a folder{hint}; it may be a path to a "
        f"{', '.join(SUFFIXES)} file, a folder of these, a Hub id such as org/name, or one of the "
        f"built-in data sets {', '.join(_built_in())}"
    )


def _read_folder(folder: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    files = sorted(p for p in folder.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())
    if not files:
        raise SourceError(f"the folder {folder} holds no {', '.join(SUFFIXES)} file")
    frames = [_read_file(file, encoding) for file in files]
    first = set(frames[0].columns)
    for file, frame in zip(files, frames, strict=True):
        if set(frame.columns) != first:
            different = sorted(set(frame.columns) ^ first)
            raise SourceError(
                f"{file} and {files[0]} have different columns ({', '.join(map(str, different))} in one "
                "only): give the files of a folder the same columns"
            )
    return pd.concat(frames, ignore_index=True)


def _read_file(path: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    name = path.name.lower()
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty: it holds no rows")
        if name.endswith((".csv", ".tsv")):
            frame = _read_csv(path, "\t" if name.endswith(".tsv") else ",", encoding)
        elif name.endswith((".jsonl", ".ndjson")):
            frame = _read_jsonl(path, encoding)
        elif name.endswith(".json"):
            frame = _read_json(path, encoding)
        elif name.endswith(".parquet"):
            frame = pd.read_parquet(path)
        else:
            raise SourceError(f"{path} is of no known kind: name it {', '.join(SUFFIXES)}")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not {encoding}: byte {error.object[error.start]:#04x} at offset {error.start} "
            "cannot be decoded; set data.encoding (for example latin-1), or save the file as UTF-8"
        ) from error
    except LookupError as error:
        raise SourceError(f"data.encoding is {encoding!r}, which Python does not know") from error
    except (ValueError, ImportError) as error:
        if isinstance(error, CurateError):
            raise
        raise SourceError(f"{path} cannot be parsed: {error}") from error
    if len(frame) == 0:
        raise SourceError(f"{path} holds no rows")
    return frame


def _text(path: Path, encoding: str) -> str:
    return path.read_bytes().decode(encoding if encoding != "utf-8" else "utf-8-sig")


def _read_csv(path: Path, separator: str, encoding: str) -> pd.DataFrame:
    import io

    import pandas as pd

    # Every cell stays the text it is: "NA" may be a word, and "007" a label. An empty cell is null.
    text = _text(path, encoding)
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, na_values=[""]
        )
    except pd.errors.EmptyDataError:
        raise SourceError(f"{path} is empty: it holds no rows") from None
    except pd.errors.ParserError as error:
        raise SourceError(
            f"{path} cannot be parsed: {error}; check its quotes and separators"
        ) from error
    return frame.astype(object).where(frame.notna(), None)


def _read_jsonl(path: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    records = []
    for number, line in enumerate(_text(path, encoding).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(
                f"{path}:{number}: this line is not JSON ({error.msg} at column {error.colno}): {line[:80]!r}"
            ) from error
        if not isinstance(record, dict):
            raise SourceError(f"{path}:{number}: a JSON object is needed, not {line[:80]!r}")
        records.append(record)
    return pd.DataFrame(records, dtype=object)


def _read_json(path: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    try:
        values = json.loads(_text(path, encoding))
    except json.JSONDecodeError as error:
        raise SourceError(f"{path}:{error.lineno}: this is not JSON ({error.msg})") from error
    if isinstance(values, dict) and len(values) == 1:
        values = next(iter(values.values()))
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise SourceError(
            f"{path} must hold a list of objects, one a row; JSON lines belong in a .jsonl file"
        )
    return pd.DataFrame(values, dtype=object)


def _read_hub(name: str, split: str) -> pd.DataFrame:
    import datasets

    reference, _, wanted = name.partition("@")
    repository, _, config = reference.partition(":")
    try:
        loaded = datasets.load_dataset(repository, config or None, split=wanted or split)
    except Exception as error:
        # The library raises dozens of kinds here, network errors of three stacks among them.
        raise SourceError(
            f"the Hub data set {name!r} could not be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); check the name, `:config`, `@split` "
            "and the network, or name a file"
        ) from error
    frame: pd.DataFrame = loaded.to_pandas()
    for column, feature in loaded.features.items():
        if isinstance(feature, datasets.ClassLabel):
            frame[column] = [
                None if v is None or v < 0 else feature.int2str(int(v)) for v in frame[column]
            ]
    return frame


def read_log(path: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Read a JSONL log of a teacher that already ran: ``response`` by ``id`` and by ``prompt``.

    Raises:
        SourceError: If a line is not JSON or lacks what is needed.
    """
    if not path.exists():
        raise SourceError(f"the log {path} does not exist: correct teacher.log")
    frame = _read_file(path, "utf-8")
    columns = set(frame.columns)
    if "response" not in columns or not columns & {"id", "prompt"}:
        raise SourceError(
            f"{path} has the keys {', '.join(sorted(columns))}: each line needs `response`, and `prompt` "
            "or `id`"
        )
    by: list[dict[str, str]] = []
    for key in ("id", "prompt"):
        values = frame[key] if key in columns else [None] * len(frame)
        by.append(
            {
                str(k): str(v)
                for k, v in zip(values, frame["response"], strict=True)
                if not is_null(k) and not is_null(v)
            }
        )
    return by[0], by[1]


def is_null(value: Any) -> bool:
    """Whether a cell is empty: None or not-a-number."""
    return value is None or (isinstance(value, float) and math.isnan(value))
