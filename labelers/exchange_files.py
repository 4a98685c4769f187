"""Takes the store's exchanges out into a JSONL file, and into a store again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from labelers.exchange_log import (
    EVERYTHING,
    LogError,
    Selection,
    answered_text,
    row_prompt,
    select,
)
from labelers.exchanges import Exchange, canonical, exchange_key, stamp
from labelers.store import Store

#: What an exported line must hold to be imported, by type.
_NEEDED = {
    "key": str,
    "time": str,
    "teacher": dict,
    "path": str,
    "request": dict,
    "raw_response": dict,
}
_SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Imported:
    """How many exchanges were ``added``, and how many the store had already (``known``)."""

    added: int
    known: int


def as_record(exchange: Exchange) -> dict[str, Any]:
    """An exchange as a line of the export has it.

    ``prompt`` and ``response`` are texts: the row's part of the request, and the answer. ``request``
    and ``raw_response`` are the whole bodies.
    """
    return {
        "key": exchange.key,
        "time": exchange.time,
        "run": exchange.run,
        "sample": exchange.sample,
        "seconds": exchange.seconds,
        "teacher": dict(exchange.teacher),
        "path": exchange.path,
        "prompt": row_prompt(exchange),
        "response": answered_text(exchange),
        "request": exchange.request,
        "raw_response": exchange.response,
    }


def export_exchanges(
    store: Store,
    file: str | os.PathLike[str],
    selection: Selection = EVERYTHING,
    *,
    sample: int | None = None,
) -> int:
    """Write the exchanges that are meant to a JSONL file, one a line, and return their number.

    The file can be imported into a store, and serves as the log of a recorded teacher.

    Args:
        store: Where they are.
        file: Written anew; a file of that name is replaced when all is written.
        selection: Which are meant.
        sample: Only the answers with this index among repetitions of one request.

    Raises:
        LogError: If the file cannot be written.
    """
    path, written = Path(file), 0
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as lines:
            for exchange in select(store, selection):
                if sample is None or exchange.sample == sample:
                    lines.write(orjson.dumps(as_record(exchange)) + b"\n")
                    written += 1
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise LogError(
            f"{path} cannot be written: {error.strerror or error}; name another file, or make room"
        ) from error
    return written


def import_exchanges(store: Store, file: str | os.PathLike[str]) -> Imported:
    """Take the exchanges of an exported file into a store; what it holds already is left as it is.

    Every line is checked before the first is written: each key is computed anew from the teacher's
    identity, path, request and sample.

    Raises:
        LogError: If the file cannot be read, or naming the lines that are no exported exchanges.
        StoreError: If the store cannot be written.
    """
    path = Path(file)
    problems = []
    for number, line in _numbered(path):
        try:
            _exchange(line)
        except LogError as error:
            problems.append(f"{path}:{number}: {error}")
            if len(problems) == _SHOWN_ERRORS:
                break
    if problems:
        raise LogError("\n".join([*problems, "nothing was imported: correct the file"]))
    added = known = 0
    for _, line in _numbered(path):
        exchange = _exchange(line)
        key = bytes.fromhex(exchange.key)
        if store.get(key) is not None:
            known += 1
            continue
        store.put(
            key,
            identity=canonical(exchange.teacher),
            path=exchange.path,
            request=canonical(exchange.request),
            response=orjson.dumps(exchange.response),
            sample=exchange.sample,
            run=exchange.run,
            seconds=exchange.seconds,
            time=exchange.time,
        )
        added += 1
    return Imported(added, known)


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that hold something, numbered from 1."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror or error}") from error


def _exchange(line: bytes) -> Exchange:
    """The exchange of an exported line, checked."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise LogError(f"this line is not JSON ({error}): {line[:60]!r}") from error
    if not isinstance(record, dict):
        raise LogError(f"a JSON object is needed, not {line[:60]!r}")
    for name, kind in _NEEDED.items():
        if name not in record:
            raise LogError(
                f"the key {name!r} is missing: lines come from `curate log export`; a log of prompts and "
                "responses alone is used as it is, with `teacher: {engine: recorded, log: FILE}`"
            )
        if not isinstance(record[name], kind):
            raise LogError(f"{name} is {_short(record[name])}, which is not of the right type")
    exchange = Exchange(
        record["key"],
        _time(record["time"]),
        record["teacher"],
        record["path"],
        record["request"],
        _response(record["raw_response"]),
        _sample(record.get("sample", 0)),
        _run(record.get("run", "")),
        _seconds(record.get("seconds")),
    )
    identity, body = canonical(exchange.teacher), canonical(exchange.request)
    key = exchange_key(identity, exchange.path, body, exchange.sample).hex()
    if key != exchange.key:
        raise LogError(
            f"the key is {_short(exchange.key)}, but teacher, path, request and sample give {key!r}: one "
            "of them was changed"
        )
    return exchange


def _time(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise LogError(f"time is {_short(value)}: a date and time with its zone is needed")
    return stamp(moment)


def _response(value: dict[str, Any]) -> dict[str, Any]:
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    holder = choice.get("message", choice) if isinstance(choice, dict) else None
    if not isinstance(holder, dict) or not {"content", "text"} & set(holder):
        raise LogError(f"raw_response holds no answer: {_short(value)}")
    return value


def _sample(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise LogError(f"sample is {_short(value)}: a whole number from 0 on is needed")
    return value


def _run(value: Any) -> str:
    if not isinstance(value, str):
        raise LogError(f"run is {_short(value)}: a text is needed")
    return value


def _seconds(value: Any) -> float | None:
    if value is None or (isinstance(value, int | float) and value >= 0):
        return value
    raise LogError(f"seconds is {_short(value)}: a number from 0 on, or null, is needed")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
