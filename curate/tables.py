"""Reads a table from wherever it lies, every column as it is.

A source is a file (CSV, TSV, JSONL, JSON, Parquet; text also gzipped), a folder of such files, a
built-in data set, a Hub data set, or a pandas or `datasets` object in memory.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.paper_data import PAPER_DATA, read_paper_data

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
SUFFIXES = (*_TEXT_SUFFIXES, ".parquet", *(f"{suffix}.gz" for suffix in _TEXT_SUFFIXES))
_KINDS = ".csv, .tsv, .jsonl, .ndjson, .json (each also with .gz) or .parquet"
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
        return _flat(source)
    if hasattr(source, "to_pandas"):
        return _flat(_with_class_names(source.to_pandas(), getattr(source, "features", None)))
    if not isinstance(source, (str, os.PathLike)):
        kind = type(source).__name__
        remedy = (
            "pass one split, such as dataset['train']"
            if "Dict" in kind
            else ("pass a path, a pandas DataFrame or a datasets.Dataset")
        )
        raise SourceError(f"a {kind} is no table: {remedy}")
    name = os.fspath(source)
    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path, encoding)
    if path.exists():
        return _read_file(path, encoding)
    if name in _built_in():
        from curate import assets

        return assets.load_data(name)
    if name.partition("@")[0] in PAPER_DATA:
        return _read_paper(name, split)
    if _HUB_ID.match(name) and not name.endswith(SUFFIXES) and not path.parent.exists():
        return _read_hub(name, split)
    raise SourceError(_not_found(name, path))


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Names as text, and a named index as the columns that it was before."""
    frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
    frame.columns = [str(name) for name in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise SourceError(f"two columns are named {repeated[0]!r}: rename one")
    return frame


def _with_class_names(frame: pd.DataFrame, features: Any) -> pd.DataFrame:
    """The names of class labels in place of their numbers; -1 is how a hub marks an absent one."""
    import pandas as pd

    for column, feature in (features or {}).items():
        if type(feature).__name__ == "ClassLabel":
            named = [
                None if is_null(v) or v < 0 else feature.int2str(int(v)) for v in frame[column]
            ]
            frame[column] = pd.Series(named, index=frame.index, dtype=object)
    return frame


def _built_in() -> list[str]:
    from curate.offline_data import data_names

    return list(data_names())


def _not_found(name: str, path: Path) -> str:
    near = []
    if path.parent.is_dir():
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    hint = f": did you mean {path.parent / near[0]}?" if near else ""
    return (
        f"the data {name!r} is neither a file nor a folder{hint}; it may be the path of a "
        f"file ({_KINDS}), a folder of these, a Hub id such as org/name, one of the built-in data "
        f"sets {', '.join(_built_in())}, or one of {', '.join(PAPER_DATA)} from the Hub"
    )


def _read_folder(folder: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    files = sorted(p for p in folder.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())
    if not files:
        raise SourceError(f"the folder {folder} holds no {_KINDS} file")
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

    name = path.name.lower().removesuffix(".gz")
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty: it holds no rows")
        if name.endswith((".csv", ".tsv")):
            frame = _read_csv(path, "\t" if name.endswith(".tsv") else ",", encoding)
        elif name.endswith((".jsonl", ".ndjson")):
            frame = _read_jsonl(path, encoding)
        elif name.endswith(".json"):
            frame = _read_json(path, encoding)
        elif path.name.lower().endswith(".parquet"):
            frame = _flat(pd.read_parquet(path))
        else:
            raise SourceError(f"{path} is of no known kind: name it {_KINDS}")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, ImportError) as error:
        if isinstance(error, CurateError):
            raise
        raise SourceError(f"{path} cannot be parsed: {error}") from error
    if len(frame) == 0:
        raise SourceError(f"{path} holds no rows")
    return frame


def _text(path: Path, encoding: str) -> str:
    """A file's text, without a byte order mark.

    The encoding's own error is the reader's to correct, so it says where: file and line.
    """
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error) as error:
            raise SourceError(
                f"{path} cannot be read: it is cut off or damaged ({error})"
            ) from error
    try:
        plain = codecs.lookup(encoding).name == "utf-8"
        return content.decode("utf-8-sig" if plain else encoding)
    except LookupError as error:
        raise SourceError(
            f"data.encoding is {encoding!r}, which is no text encoding that Python knows"
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SourceError(
            f"{path}:{line}: this is not {encoding}: byte {content[error.start]:#04x} at offset "
            f"{error.start} cannot be decoded; set data.encoding (for example latin-1), or save the file "
            "as UTF-8"
        ) from error


def _read_csv(path: Path, separator: str, encoding: str) -> pd.DataFrame:
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
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas takes the first cells for row names then, and every cell stands one column off.
        raise SourceError(
            f"{path}: its rows have more cells than the header: name every column, and put cells "
            "that hold the separator in quotes"
        )
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
    reference, _, wanted = name.partition("@")
    repository, _, config = reference.partition(":")
    return _load_hub(name, repository, config or None, split=wanted or split)


def _read_paper(name: str, split: str) -> pd.DataFrame:
    short, _, wanted = name.partition("@")
    splits = PAPER_DATA[short].splits
    if (wanted or split) not in splits:
        raise SourceError(
            f"the data set {name!r} has the splits {', '.join(splits)}: name one of them, {short}@test"
        )
    return read_paper_data(short, wanted or split, partial(_load_hub, name))


def _load_hub(
    name: str,
    repository: str,
    config: str | None = None,
    *,
    split: str,
    revision: str | None = None,
) -> pd.DataFrame:
    import datasets

    try:
        loaded = datasets.load_dataset(repository, config, split=split, revision=revision)
    except Exception as error:
        # The library raises dozens of kinds here, network errors of three stacks among them.
        raise SourceError(
            f"the Hub data set {name!r} could not be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); check the name, `:config`, `@split` "
            "and the network, or name a file"
        ) from error
    return _with_class_names(loaded.to_pandas(), loaded.features)


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
    by_id: dict[str, str] = {}
    by_prompt: dict[str, str] = {}
    for name, found in (("id", by_id), ("prompt", by_prompt)):
        if name in columns:
            for i, (key, response) in enumerate(zip(frame[name], frame["response"], strict=True)):
                if not is_null(key) and not is_null(response):
                    _take_response(found, str(key), response, f"{path}, row {i + 1}")
    return by_id, by_prompt


def _take_response(found: dict[str, str], key: str, response: Any, place: str) -> None:
    if not isinstance(response, (str, int, float)):
        raise SourceError(f"{place}: the response is {str(response)[:80]!r}: a text is needed")
    if found.setdefault(key, str(response)) != str(response):
        raise SourceError(
            f"{place}: {key[:80]!r} stands in an earlier row with another response: keep one"
        )


def is_null(value: Any) -> bool:
    """Whether a cell is empty: None, not-a-number, or one of pandas' own nulls."""
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def holds_text_alone(source: Any) -> bool:
    """Whether the cells of a source can be nothing but text: a .csv or .tsv file, or a folder with one."""
    if not isinstance(source, str):
        return False
    path = Path(source).expanduser()
    names = [each.name for each in path.rglob("*")] if path.is_dir() else [path.name]
    return any(name.removesuffix(".gz").endswith((".csv", ".tsv")) for name in names)


def read_options(value: Any) -> list[str] | None:
    """A cell's list of options, which text formats hold as JSON; None if it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if is_null(value) or isinstance(value, (str, Mapping)):
        return None
    try:
        return [str(option) for option in value]
    except TypeError:
        return None
