"""Between processes: which request another one is paying for at this moment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl

#: Places in the file, by key, stay below this one, which every process shares while it runs.
_PRESENCE = 2**62


class Claims:
    """Keeps processes that share a store from paying for one request at the same time.

    A request is claimed by a lock on one byte of a file, at a place given by its key (POSIX record
    locks). The system drops the locks of a process that is killed, so nothing is left to be tidied up.
    Two runs within one process do not exclude each other.

    Args:
        folder: The store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "claims.lock", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        _share(self._file, _PRESENCE)
        # One byte for each process that ever came: a grown file tells the others of this one.
        os.write(self._file, b".")
        self._arrivals = os.fstat(self._file).st_size
        self._company = True

    def take(self, key: bytes) -> bool:
        """Claim a request; False if another process has claimed it."""
        return _take(self._file, _place(key))

    def release(self, key: bytes) -> None:
        """Give a claim back: the request is answered and stored, or has failed."""
        _release(self._file, _place(key))

    def others_may_have_stored(self) -> bool:
        """Whether another process was there since this was asked last."""
        arrivals = os.fstat(self._file).st_size
        if arrivals != self._arrivals:
            self._arrivals, self._company = arrivals, True
        if not self._company:
            return False
        # Only where no other shares it can this process have the place for itself.
        self._company = not _take(self._file, _PRESENCE)
        _share(self._file, _PRESENCE)
        return True

    def close(self) -> None:
        """Give back all claims."""
        os.close(self._file)


def _place(key: bytes) -> int:
    return int.from_bytes(key[:8], "big") >> 2


# Without record locks every claim is granted, and two processes may both pay.
if sys.platform == "win32":

    def _take(file: int, place: int) -> bool:
        return place != _PRESENCE

    def _share(file: int, place: int) -> None:
        pass

    def _release(file: int, place: int) -> None:
        pass

else:

    def _take(file: int, place: int) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # The file system has no locks, or no more of them.
            return True
        return True

    def _share(file: int, place: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_SH, 1, place)

    def _release(file: int, place: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place)
