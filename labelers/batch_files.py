"""The files of the Batch API: requests in, answers out, one JSON object to a line."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from labelers.batch_journal import BatchRecord
from labelers.openai_api import _CONTEXT_WORDS, _RETRYABLE_STATUS, OpenAICompatible
from labelers.teachers import RetryableError, RowError, TeacherError

#: Bytes of a line beside the request's body, at most.
LINE_FRAME = 160


@dataclass(eq=False, slots=True)
class Asked:
    """One request on its way. The answer None says that it is to be asked directly.

    ``digest`` names path and body; ``task`` is the one that waits; ``rounds`` counts the batches that
    left it unanswered; ``places`` are its places in batches, to be noted there once it is stored.
    """

    digest: str
    path: str
    body: bytes
    answer: asyncio.Future[bytes | None]
    task: asyncio.Task[Any] | None
    rounds: int = 0
    places: list[tuple[BatchRecord, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Line:
    """The answer to one request of a batch: an HTTP status (0 if it was never sent on) and JSON."""

    status: int
    body: bytes


def split(asked: Sequence[Asked], most_requests: int, most_bytes: int) -> list[list[Asked]]:
    """Requests in files: one path to a file, within the limits of count and size."""
    by_path: dict[str, list[Asked]] = {}
    for one in asked:
        by_path.setdefault(one.path, []).append(one)
    parts: list[list[Asked]] = []
    for members in by_path.values():
        size = most_bytes
        for one in members:
            more = len(one.body) + LINE_FRAME
            if size + more > most_bytes or len(parts[-1]) >= most_requests:
                parts.append([])
                size = 0
            parts[-1].append(one)
            size += more
    return parts


def name_requests(part: Sequence[Asked]) -> dict[str, Asked]:
    """A custom id for each: its digest, and a number where equal requests (samples) follow."""
    counts: dict[str, int] = {}
    names: dict[str, Asked] = {}
    for asked in part:
        number = counts[asked.digest] = counts.get(asked.digest, 0) + 1
        names[asked.digest if number == 1 else f"{asked.digest}-{number}"] = asked
    return names


def write_requests(names: dict[str, Asked]) -> bytes:
    """The content of a file of requests."""
    return b"".join(
        b'{"custom_id":"%b","method":"POST","url":"/v1/%b","body":%b}\n'
        % (custom_id.encode(), asked.path.encode(), asked.body)
        for custom_id, asked in names.items()
    )


def read_lines(content: bytes) -> dict[str, Line]:
    """The answers in a file of answers or of errors, by custom id.

    Raises:
        ValueError: If it is no such file, or was cut off.
    """
    lines: dict[str, Line] = {}
    for raw in io.BytesIO(content):
        if not raw.strip():
            continue
        try:
            parsed = orjson.loads(raw)
            response = parsed.get("response")
            # Without a response it was never sent on: batch_expired, batch_cancelled, request_timeout.
            lines[str(parsed["custom_id"])] = (
                Line(int(response["status_code"]), _compact(response.get("body")))
                if response
                else Line(0, _compact({"error": parsed.get("error")}))
            )
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{error!r} in {raw[:80]!r}") from error
    return lines


def _compact(body: Any) -> bytes:
    """JSON in no more memory than it needs: orjson's own bytes keep the whole buffer, 4 kB or more.

    A full batch is 50,000 of them.
    """
    return memoryview(orjson.dumps(body)).tobytes()


def read_outcome(teacher: OpenAICompatible, path: str, line: Line | None) -> bytes:
    """The answer's body, where a line of a batch carries one.

    Raises:
        RowError: If the request can never be answered.
        RetryableError: If it was not answered this time: overload, expiry, no line at all.
        TeacherError: If no request can be answered.
    """
    if line is None:
        raise RetryableError("the batch ended without an answer to this request")
    if line.status == 200:
        body = orjson.loads(line.body)
        if isinstance(body, dict) and body.get("choices"):
            teacher.check(body)
            return line.body
    words = teacher._message(line.body)
    if line.status == 200:
        raise RetryableError(f"the answer holds no choices: {words}")
    message = f"HTTP {line.status}: {words}"
    if line.status in (401, 403):
        raise teacher._refused(line.status, line.body)
    if line.status == 402:
        raise TeacherError(
            f"the account has no money left ({message}): add credit and run it again"
        )
    if line.status == 404:
        raise TeacherError(
            f"the requests of a batch to {path} are answered with {message}: check teacher.model and "
            "teacher.api"
        )
    if line.status < 400 or line.status in _RETRYABLE_STATUS:
        raise RetryableError(message if line.status else words)
    if any(word in message.lower() for word in _CONTEXT_WORDS):
        raise RowError(message, kind="context_length")
    raise RowError(message)
