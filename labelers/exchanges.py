"""What one line of the store is: an exchange, its address, and how it is written and read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

#: Every line begins like this, so that its key is found without parsing it.
LINE_HEAD = b'{"key":"'
KEY_HEX = 32

#: What every line holds, by type, and what lines written by earlier versions lack.
_REQUIRED: dict[str, type] = {
    "key": str,
    "time": str,
    "teacher": dict,
    "path": str,
    "request": dict,
    "response": dict,
}
_ADDED = {"sample": int, "run": str, "seconds": int | float | None}
_TYPES: dict[str, Any] = _REQUIRED | _ADDED


@dataclass(frozen=True)
class Exchange:
    """One stored request and its answer, both as parsed JSON.

    ``time`` is that of the answer in UTC, as ISO 8601 writes it.
    """

    key: str
    time: str
    teacher: Mapping[str, str]
    path: str
    request: dict[str, Any]
    response: dict[str, Any]
    #: Index among deliberate repetitions of one request.
    sample: int = 0
    #: The name of the run that asked; empty where none was given.
    run: str = ""
    #: How long the answer took; None where that was not measured.
    seconds: float | None = None


def canonical(body: Mapping[str, Any]) -> bytes:
    """The one way in which a request is written: JSON, keys sorted, UTF-8, no spaces.

    The same bytes are hashed, sent and stored.

    Raises:
        ValueError: If the body holds what JSON cannot carry, such as half a surrogate pair.
    """
    try:
        # Copied, because orjson gives its buffer away with all the room it had reserved: many times
        # the body, for as long as the request waits.
        return memoryview(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).tobytes()
    except TypeError as error:
        raise ValueError(f"the request cannot be written as JSON: {error}") from error


def exchange_key(identity: bytes, path: str, body: bytes, sample: int = 0) -> bytes:
    """The 16-byte address of an exchange (SHA-256, truncated).

    Args:
        identity: The teacher's identity as canonical JSON.
        path: The path below the API's root.
        body: The canonical request body.
        sample: Index among deliberate repetitions of one request.
    """
    # JSON writes the null character as an escape: a raw one parts the fields beyond doubt.
    digest = hashlib.sha256(b"%d\0%b\0%b\0%b" % (sample, identity, path.encode(), body))
    return digest.digest()[: KEY_HEX // 2]


def stamp(moment: datetime | None = None) -> str:
    """A moment as lines hold it, now by default: UTC to the millisecond, so that texts sort by time."""
    return (moment or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


def write_line(
    key: bytes,
    *,
    identity: bytes,
    path: str,
    request: bytes,
    response: bytes,
    sample: int,
    run: str,
    seconds: float | None,
    time: str,
) -> bytes:
    """An exchange as one line; request, response and identity are JSON already."""
    # In valid JSON a raw line break stands only between tokens, where a space means the same.
    answer = response.replace(b"\n", b" ").replace(b"\r", b" ")
    told = canonical({"path": path, "run": run, "sample": sample, "seconds": seconds})
    return b'%b%b","time":"%b","teacher":%b,%b,"request":%b,"response":%b}\n' % (
        LINE_HEAD, key.hex().encode(), time.encode(), identity, told[1:-1], request, answer,
    )  # fmt: skip


def line_key(line: bytes) -> bytes | None:
    """The key of a complete line, unparsed; None if the line is no exchange's."""
    if not (line.startswith(LINE_HEAD) and line.endswith(b"}\n")):
        return None
    try:
        return bytes.fromhex(line[len(LINE_HEAD) : len(LINE_HEAD) + KEY_HEX].decode("ascii"))
    except ValueError:
        return None


def read_line(line: bytes) -> dict[str, Any] | None:
    """The fields of a line's :class:`Exchange`; None if the line is damaged."""
    try:
        record = orjson.loads(line)
        fields = {name: record[name] for name in _REQUIRED}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    fields |= {name: record[name] for name in _ADDED if name in record}
    for name, value in fields.items():
        if not isinstance(value, _TYPES[name]):
            return None
    return fields
