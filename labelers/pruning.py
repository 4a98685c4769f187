"""Takes exchanges out of a store for good, and damaged lines with them."""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from labelers.exchange_log import EVERYTHING, LogError, Selection
from labelers.exchanges import Exchange, read_line
from labelers.store import Store, StoreError, segment_lock


@dataclass(frozen=True)
class Pruned:
    """What went, or would go.

    Attributes:
        exchanges: Exchanges taken out.
        damaged: Damaged lines taken out.
        kept: Exchanges that stay.
        bytes: Bytes freed.
    """

    exchanges: int
    damaged: int
    kept: int
    bytes: int


#: (segment, number of the line in it)
_Place = tuple[Path, int]


def prune(
    store: Store,
    selection: Selection = EVERYTHING,
    *,
    damaged: bool = False,
    keep_last: int | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Take exchanges out of a store. What is taken out is paid for again when it is asked again.

    Each segment is rewritten beside itself and then replaced, so that a kill leaves it whole, as it
    was or as it will be.

    Args:
        store: Where they are. Other processes may read it meanwhile; none may write.
        selection: Which are meant. Where it names nothing, all are meant if ``keep_last`` is given,
            and none if only ``damaged`` is.
        damaged: Whether damaged lines go, too.
        keep_last: Of those meant, so many of the newest stay.
        dry_run: Only tell what would go.

    Raises:
        LogError: If nothing is named at all, or ``keep_last`` is negative.
        StoreError: If a process writes to the store, or a segment cannot be rewritten; those that
            were not rewritten are as they were.
    """
    if keep_last is not None and keep_last < 0:
        raise LogError(f"keep_last is {keep_last}: 0 or more exchanges can be kept")
    by_selection = selection != EVERYTHING or keep_last is not None
    if not by_selection and not damaged:
        raise LogError(
            "nothing is named that is to go: give --before, --teacher, --run, --damaged or --keep-last"
        )
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(_sole_writer(store))
        store.refresh()
        chosen = selection if by_selection else None
        spared = _newest(store, selection, keep_last) if keep_last else set()
        gone: dict[Path, set[int]] = {}
        counts = {"exchanges": 0, "damaged": 0, "kept": 0, "bytes": 0}
        for (path, number), line, exchange in _places(store):
            if exchange is None:
                goes, kind = damaged, "damaged"
            else:
                meant = chosen is not None and chosen.takes(exchange)
                goes, kind = meant and (path, number) not in spared, "exchanges"
            if goes:
                gone.setdefault(path, set()).add(number)
                counts[kind] += 1
                counts["bytes"] += len(line)
            else:
                counts["kept"] += exchange is not None
        if not dry_run:
            for path, numbers in gone.items():
                _rewrite(path, numbers)
            store.refresh()
    return Pruned(**counts)


def _places(store: Store) -> Iterator[tuple[_Place, bytes, Exchange | None]]:
    last, number = None, -1
    for path, line in store.lines():
        number = number + 1 if path == last else 0
        last = path
        fields = read_line(line)
        yield (path, number), line, None if fields is None else Exchange(**fields)


def _newest(store: Store, selection: Selection, count: int) -> set[_Place]:
    meant = (
        (exchange.time, place)
        for place, _, exchange in _places(store)
        if exchange is not None and selection.takes(exchange)
    )
    return {place for _, place in heapq.nlargest(count, meant)}


@contextmanager
def _sole_writer(store: Store) -> Iterator[None]:
    """Hold the locks of all segments: nobody appends to what is being rewritten."""
    with ExitStack() as stack:
        for path in sorted(store.folder.glob("exchanges-*.jsonl")):
            try:
                stack.enter_context(segment_lock(path).acquire(timeout=0))
            except filelock.Timeout as error:
                raise StoreError(
                    f"the store {store.folder} is being written to ({path.name}): wait until that run "
                    "has ended, or stop it; nothing was taken out"
                ) from error
        yield


def _rewrite(path: Path, gone: set[int]) -> None:
    """Write a segment anew without those lines, and without what a kill tore at its end."""
    part = path.with_name(f"{path.name}.part")
    try:
        with path.open("rb") as old, part.open("wb") as new:
            for number, line in enumerate(old):
                if number not in gone and line.endswith(b"\n"):
                    new.write(line)
            new.flush()
            os.fsync(new.fileno())
        shutil.copymode(path, part)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise StoreError(
            f"{path} cannot be rewritten: {error.strerror or error}; it is as it was: make room and "
            "prune again"
        ) from error
