"""The content-addressed store of exchanges: what was paid once is never paid again.

An exchange is addressed by what was asked: the teacher's identity, the path, every byte of the
canonical request body and the sample's index. A folder holds segments, one JSON object to a line,
appended to by one process each, so that processes need not wait for one another and a segment torn
by a kill or a full disk loses its last record at most. The lines can be read with any tool: they
are the log of everything the teacher was asked and said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from labelers.exchanges import (
    Exchange,
    canonical,
    exchange_key,
    line_key,
    read_line,
    stamp,
    write_line,
)

__all__ = ["Exchange", "Store", "StoreError", "canonical", "exchange_key", "segment_lock"]

_LENGTH_BITS = 32
_OFFSET_BITS = 48
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)


class StoreError(RuntimeError):
    """The store cannot be opened or written; what it holds already is safe."""


class Store:
    """Exchanges in a folder. A context manager; safe for several processes at once.

    Args:
        folder: Where the segments lie; made if absent.

    Raises:
        StoreError: If the folder cannot be made or read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._index: dict[bytes, int] = {}
        self._segments: list[Path] = []
        self._readers: list[int] = []
        self._scanned: list[int] = []
        self._writer: int | None = None
        self._written = 0
        self._lock: filelock.BaseFileLock | None = None
        self._segment = -1
        #: Complete lines that are not exchanges; they are passed over and left as they are.
        self.damaged = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.refresh()
        except OSError as error:
            raise StoreError(
                f"the store {self.folder} cannot be opened: {error.strerror}; name a folder that "
                "can be written to"
            ) from error

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: bytes) -> bool:
        return key in self._index

    def __iter__(self) -> Iterator[bytes]:
        """The keys of all stored exchanges, in the order in which each segment received them."""
        return iter(list(self._index))

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def refresh(self) -> None:
        """Read what other processes have appended since the last look."""
        known = set(self._segments)
        for path in sorted(self.folder.glob("exchanges-*.jsonl")):
            if path not in known:
                self._open_reader(path)
        for number in range(len(self._segments)):
            if number != self._segment:
                self._scan(number)

    def _open_reader(self, path: Path) -> int:
        self._readers.append(os.open(path, _READ_ONLY))
        self._segments.append(path)
        self._scanned.append(0)
        return len(self._segments) - 1

    def _scan(self, number: int) -> None:
        """Index the complete lines of a segment; a torn last line stays unread."""
        with open(self._segments[number], "rb") as file:
            if not os.path.sameopenfile(file.fileno(), self._readers[number]):
                self._begin_anew(number)
            file.seek(self._scanned[number])
            offset = self._scanned[number]
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._remember(line, number, offset)
                offset += len(line)
            self._scanned[number] = offset

    def _begin_anew(self, number: int) -> None:
        """Forget a segment that was rewritten under its name, and read the new file from now on."""
        shift = _OFFSET_BITS + _LENGTH_BITS
        gone = [key for key, place in self._index.items() if place >> shift == number]
        for key in gone:
            del self._index[key]
        os.close(self._readers[number])
        self._readers[number] = os.open(self._segments[number], _READ_ONLY)
        self._scanned[number] = 0

    def _remember(self, line: bytes, number: int, offset: int) -> None:
        key = line_key(line)
        if key is None:
            self.damaged += 1
            return
        # One integer instead of a tuple: a hundred thousand entries then take some 15 MB.
        place = (number << (_OFFSET_BITS + _LENGTH_BITS)) | (offset << _LENGTH_BITS) | len(line)
        # The later line wins: where the earlier was found damaged, it has been paid for again.
        self._index[key] = place

    def _read(self, key: bytes) -> dict[str, Any] | None:
        place = self._index.get(key)
        if place is None:
            return None
        length = place & ((1 << _LENGTH_BITS) - 1)
        offset = (place >> _LENGTH_BITS) & ((1 << _OFFSET_BITS) - 1)
        line = _pread(self._readers[place >> (_OFFSET_BITS + _LENGTH_BITS)], length, offset)
        record = read_line(line)
        if record is None:
            # A line damaged on disk is as good as absent: it is asked again, and counted.
            self.damaged += 1
            del self._index[key]
        return record

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The stored response body for ``key``, parsed, or None."""
        record = self._read(key)
        return None if record is None else record["response"]

    def read(self, key: bytes) -> Exchange | None:
        """The stored exchange for ``key``, or None."""
        record = self._read(key)
        return None if record is None else Exchange(**record)

    def exchanges(self) -> Iterator[Exchange]:
        """Every stored exchange, read one at a time in the order of the keys."""
        for key in self:
            exchange = self.read(key)
            if exchange is not None:
                yield exchange

    def lines(self) -> Iterator[tuple[Path, bytes]]:
        """Every complete line on disk with its segment.

        Unlike :meth:`exchanges`, it has the damaged lines, and also those whose request was paid
        for again, by two processes at once for instance.
        """
        for path in list(self._segments):
            with open(path, "rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield path, line

    def put(
        self,
        key: bytes,
        *,
        identity: bytes,
        path: str,
        request: bytes,
        response: bytes,
        sample: int = 0,
        run: str = "",
        seconds: float | None = None,
        time: str = "",
    ) -> None:
        """Append an exchange; on return it survives the process's being killed.

        Args:
            key: From :func:`exchange_key`.
            identity: The teacher's identity as canonical JSON.
            path: The path below the API's root.
            request: Canonical request body.
            response: Response body: valid JSON.
            sample: The sample's index that ``key`` was made with.
            run: The name of the run that asked; no part of the key.
            seconds: How long the answer took; no part of the key.
            time: When it was answered, as :attr:`Exchange.time` has it; now by default.

        Raises:
            StoreError: If it cannot be written, for instance because the disk is full.
            ValueError: If ``run`` or ``path`` holds what JSON cannot carry.
        """
        line = write_line(
            key, identity=identity, path=path, request=request, response=response, sample=sample,
            run=run, seconds=seconds, time=time or stamp(),
        )  # fmt: skip
        self._append(line)

    def _append(self, line: bytes) -> None:
        try:
            if self._writer is None:
                self._open_writer()
            assert self._writer is not None
            done = 0
            while done < len(line):
                done += os.write(self._writer, line[done:])
        except OSError as error:
            self._undo_torn_write()
            raise StoreError(
                f"the store {self.folder} cannot be written: {error.strerror}; the "
                f"{len(self._index)} answers in it are safe: make room and run the same command "
                "again"
            ) from error
        self._remember(line, self._segment, self._written)
        self._written += len(line)

    def _undo_torn_write(self) -> None:
        if self._writer is not None:
            os.ftruncate(self._writer, self._written)

    def _open_writer(self) -> None:
        """Take the first segment that no other process writes to, or begin a new one."""
        number = 0
        while True:
            number += 1
            path = self.folder / f"exchanges-{number:04d}.jsonl"
            lock = segment_lock(path)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            break
        self._lock = lock
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
        writer = os.open(path, flags, 0o644)
        self._segment = (
            self._segments.index(path) if path in self._segments else self._open_reader(path)
        )
        self._scan(self._segment)
        # What follows the last complete line was torn by a kill: the next record must not join it.
        self._written = self._scanned[self._segment]
        os.ftruncate(writer, self._written)
        self._writer = writer

    def close(self) -> None:
        """Flush to disk and let other processes append to this one's segment."""
        if self._writer is not None:
            os.fsync(self._writer)
            os.close(self._writer)
            self._scanned[self._segment] = self._written
            self._writer = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        for reader in self._readers:
            os.close(reader)
        self._readers.clear()
        self._segments.clear()
        self._scanned.clear()
        self._index.clear()
        self._segment = -1


def segment_lock(path: Path) -> filelock.BaseFileLock:
    """The lock that the one writer of a segment holds."""
    # Taken by the thread that labels, released by the one that closes.
    return filelock.FileLock(f"{path}.lock", thread_local=False)


def _pread(reader: int, length: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(reader, length, offset)
    os.lseek(reader, offset, os.SEEK_SET)
    return os.read(reader, length)
