"""Which batches were handed to a provider, written down before they exist: a crash loses none.

One file to a batch, one JSON object to a line, each flushed to the disk before the next step is taken:
``intent`` (what will be asked, and a token by which the provider's list shows whose batch it is), then
``file`` and ``batch`` (the provider's ids), then ``taken`` (answers that are stored) and ``closed``. No
request's text and no key is in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import orjson

from labelers.teachers import TeacherError

#: OpenAI deletes the files of a batch after 30 days; what is in them is asked again after that.
_KEPT_SECONDS = 31 * 86_400
#: Folders that this process holds.
_HELD: set[Path] = set()


@dataclass
class BatchRecord:
    """What is known of one batch.

    Attributes:
        token: Random; in the batch's metadata at the provider.
        path: Path below the API's root that all its requests go to.
        requests: Custom id of each request, in the file's order.
        sha256: Hash of the uploaded file.
        created: When the intent was written, in seconds since 1970.
        file_id: The provider's id of the uploaded file, once known.
        batch_id: The provider's id of the batch, once known.
        taken: When the answer to a custom id was known to be stored.
        closed: ``done``, ``failed`` or ``abandoned``; None while answers are to be had from it.
        closed_at: When it was closed.
    """

    token: str
    path: str
    requests: tuple[str, ...]
    sha256: str
    created: float
    file: Path
    file_id: str | None = None
    batch_id: str | None = None
    taken: dict[str, float] = field(default_factory=dict)
    closed: str | None = None
    closed_at: float = 0.0

    def free(self, since: float) -> list[str]:
        """Custom ids whose answers may be read from it: not stored before ``since`` by anyone."""
        if self.closed in ("failed", "abandoned") or (self.closed and self.closed_at < since):
            return []
        return [name for name in self.requests if self.taken.get(name, since) >= since]

    def learn(self, event: Mapping[str, Any]) -> None:
        """Take over one line of the file."""
        kind = event["event"]
        if kind == "file":
            self.file_id = str(event["id"])
        elif kind == "batch":
            self.batch_id = str(event["id"])
        elif kind == "taken":
            self.taken.update(dict.fromkeys(event["requests"], float(event["time"])))
        elif kind == "closed":
            self.closed, self.closed_at = str(event["why"]), float(event["time"])


def journal_folder(root: str | os.PathLike[str], model: str, *whose: str) -> Path:
    """The folder below ``root`` for one model at one server; ``whose`` tells equal names apart."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-.")[:60]
    digest = hashlib.sha256("\0".join((model, *whose)).encode()).hexdigest()
    return Path(root) / f"{name}-{digest[:8]}"


class BatchJournal:
    """The journal of one model's batches at one server, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, BatchRecord] = {}
        self._lock: filelock.BaseFileLock | None = None

    def acquire(self) -> bool:
        """Take the journal and read it; False while another holder has it.

        Raises:
            TeacherError: If the folder cannot be written or a file of it cannot be read.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(str(self.folder / "lock"), thread_local=False)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                return False
            self._lock = lock
            _HELD.add(self.folder.resolve())
            (self.folder / "holder").write_text(str(os.getpid()))
            self.records = {}
            for file in sorted(self.folder.glob("*.jsonl")):
                self._read(file)
        except OSError as error:
            self.release()
            raise self._unwritable(error) from error
        except BaseException:
            self.release()
            raise
        return True

    @property
    def held_here(self) -> bool:
        """Whether somebody in this very process has the journal: waiting for them would be for ever."""
        return self.folder.resolve() in _HELD

    def holder(self) -> int | None:
        """The process that has the journal, where that can be read."""
        try:
            return int((self.folder / "holder").read_text())
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Let other processes have the journal."""
        if self._lock is not None:
            _HELD.discard(self.folder.resolve())
            self._lock.release()
            self._lock = None

    def _read(self, file: Path) -> None:
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            file.unlink()  # Killed before the intent stood: nothing was sent.
            return
        if len(whole) < len(content):
            os.truncate(file, len(whole))
        try:
            intent, *events = [orjson.loads(line) for line in whole.splitlines()]
            record = BatchRecord(
                token=intent["token"],
                path=intent["path"],
                requests=tuple(intent["requests"]),
                sha256=intent["sha256"],
                created=float(intent["time"]),
                file=file,
            )
            for event in events:
                record.learn(event)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise TeacherError(
                f"{file} is damaged ({error}): it says which requests are in a batch that may be paid "
                "for. Mend it, or move it away to ask them again"
            ) from error
        if record.created < time.time() - _KEPT_SECONDS:
            file.unlink()
            return
        self.records[record.token] = record

    def begin(self, path: str, requests: Sequence[str], content: bytes) -> BatchRecord:
        """Write down that a batch is about to be made; on return that survives a crash.

        Raises:
            TeacherError: If it cannot be written.
        """
        now = time.time()
        token = secrets.token_hex(12)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        record = BatchRecord(
            token=token,
            path=path,
            requests=tuple(requests),
            sha256=hashlib.sha256(content).hexdigest(),
            created=now,
            file=self.folder / f"{stamp}-{token}.jsonl",
        )
        self._append(
            record,
            event="intent",
            token=token,
            path=path,
            sha256=record.sha256,
            requests=requests,
            new=True,
        )
        self.records[token] = record
        return record

    def note(self, record: BatchRecord, event: str, **fields: Any) -> None:
        """Append an event to a batch's file and to the record.

        Raises:
            TeacherError: If it cannot be written.
        """
        record.learn(self._append(record, event=event, **fields))

    def _append(self, record: BatchRecord, *, new: bool = False, **fields: Any) -> dict[str, Any]:
        event = {**fields, "time": record.created if new else time.time()}
        line = orjson.dumps(event) + b"\n"
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            writer = os.open(record.file, flags, 0o644)
            try:
                before = os.fstat(writer).st_size
                try:
                    done = 0
                    while done < len(line):
                        done += os.write(writer, line[done:])
                    os.fsync(writer)
                except OSError:
                    os.ftruncate(writer, before)
                    raise
            finally:
                os.close(writer)
            if new:
                _flush_folder(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error
        return event

    def _unwritable(self, error: OSError) -> TeacherError:
        return TeacherError(
            f"the journal of batches {self.folder} cannot be written: {error.strerror}; batches that "
            "were made are in it: make room, or name another folder, and run the same command again"
        )


def _flush_folder(folder: Path) -> None:
    """A new file's name must be on the disk as well as its content."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
