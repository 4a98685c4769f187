"""Runs the many questions of a labeling run at once, and from code that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def each(
    items: Sequence[T], work: Callable[[T], Awaitable[None]], *, concurrency: int
) -> None:
    """Run ``work`` over ``items`` with that many under way; the first exception ends it all."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(max(1, min(concurrency, len(items))))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also from within a notebook's running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    loop = asyncio.new_event_loop()

    def work() -> T:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(coroutine)

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result()
    except KeyboardInterrupt:
        # It is the thread that waits which is interrupted; the one that works must be told.
        with suppress(RuntimeError):  # its loop may just have ended
            loop.call_soon_threadsafe(_cancel_all, loop)
        raise
    finally:
        pool.shutdown()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
