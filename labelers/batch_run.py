"""The batches of one labeling run: requests are gathered, sent as files, followed and handed out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labelers.batch_files import (
    LINE_FRAME,
    Asked,
    Line,
    name_requests,
    read_outcome,
    split,
    write_requests,
)
from labelers.batch_journal import BatchJournal, BatchRecord
from labelers.batch_provider import BatchProvider, BatchState
from labelers.teachers import RetryableError, RowError, TeacherError

if TYPE_CHECKING:
    from labelers.batches import OpenAIBatch

_SLOWER = 1.3
#: Looks at a batch that is completed and does not name its files yet.
_LOOKS_FOR_FILES = 5
#: Batches in which a request may remain unanswered before the labeling loop is told.
_ROUNDS = 3
#: A file that does not fit the provider's queue is halved that often; then there is only waiting.
_HALVINGS = 6
_LONGEST_QUEUE_PAUSE = 600.0
_QUEUE_REFUSALS = 150


@dataclass(eq=False)
class _Batch:
    """A batch and who waits for it in this process, by custom id."""

    record: BatchRecord
    waiting: dict[str, Asked] = field(default_factory=dict)
    lines: dict[str, Line] | None = None
    task: asyncio.Task[None] | None = None
    #: Batches of this run that had left the provider's queue when this one was made.
    departures: int = 0


class _QueueFullError(Exception):
    """The provider has too many tokens enqueued to take this batch now."""


class BatchRun:
    """What is under way between ``start`` and ``close`` of an :class:`labelers.OpenAIBatch`.

    Args:
        settings: The teacher, for its settings.
        journal: Held by this process.
        provider: The provider's endpoints.
        given: Custom ids by token that this object has handed out before; added to.
        since: What was stored by others from then on counts as not stored.
    """

    def __init__(
        self,
        settings: OpenAIBatch,
        journal: BatchJournal,
        provider: BatchProvider,
        given: dict[str, set[str]],
        since: float,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._provider = provider
        self._given = given
        self._pending: list[Asked] = []
        self._pending_bytes = 0
        self._gathered = 0
        self._gathering: asyncio.Task[None] | None = None
        self._batches: dict[str, _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._returned: list[Asked] = []
        self._settling: asyncio.Task[None] | None = None
        self._under_way: set[str] = set()
        self._departures = 0
        self._one_left = asyncio.Event()
        self._squeezing = asyncio.Lock()
        #: Lines of known batches that nobody waits for yet, by the request's digest.
        self._free: dict[str, list[tuple[BatchRecord, str]]] = {}
        for record in journal.records.values():
            for custom_id in record.free(since):
                if custom_id not in given.get(record.token, ()):
                    digest = custom_id.partition("-")[0]
                    self._free.setdefault(digest, []).append((record, custom_id))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Stop following batches; they go on at the provider."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settle()

    # ---------------------------------------------------------------------------------- gathering

    def gather(self, asked: Asked) -> None:
        """Add a request to those that go out together."""
        self._pending.append(asked)
        self._pending_bytes += len(asked.body) + LINE_FRAME
        self._gathered += 1
        full = len(self._pending) >= self._settings.most_requests
        if full or self._pending_bytes >= self._settings.most_bytes:
            self._hand_over()
        elif self._gathering is None:
            self._gathering = self._begin(self._wait_for_quiet())

    async def _wait_for_quiet(self) -> None:
        seen = -1
        while seen != self._gathered:
            seen = self._gathered
            await self._settings.sleep(self._settings.gather_for)
        self._gathering = None
        self._hand_over()

    def _hand_over(self) -> None:
        """Find what was gathered in known batches, and make new ones of the rest."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        try:
            self._launch(self._attach(pending))
        except Exception as error:  # the journal cannot be written, for instance
            _fail(pending, error)

    def _attach(self, pending: Sequence[Asked]) -> list[Asked]:
        """Let requests wait for the batches that hold them already; return the others."""
        fresh: list[Asked] = []
        equals: dict[str, list[Asked]] = {}
        for asked in pending:
            equals.setdefault(asked.digest, []).append(asked)
        found: dict[str, _Batch] = {}
        for digest, equal in equals.items():
            free = [
                place
                for place in self._free.pop(digest, ())
                if place[0].closed not in ("failed", "abandoned")
            ]
            # Equal requests are samples. The first of them were answered and stored first, so those
            # that are asked again are the last.
            places = free[-len(equal) :]
            if earlier := free[: -len(equal)]:
                self._free[digest] = earlier
            fresh += equal[len(places) :]
            for asked, (record, custom_id) in zip(equal, places, strict=False):
                batch = self._batches.setdefault(record.token, _Batch(record))
                batch.waiting[custom_id] = asked
                found[record.token] = batch
        for batch in found.values():
            if batch.lines is not None:
                self._hand_out(batch, batch.lines)
            elif batch.task is None:
                batch.task = self._begin(self._carry(batch, None))
        return fresh

    def _launch(self, asked: Sequence[Asked]) -> None:
        settings = self._settings
        for part in split(asked, settings.most_requests, settings.most_bytes):
            batch, content = self._write_down(part)
            batch.task = self._begin(self._carry(batch, content))

    def _write_down(self, part: Sequence[Asked]) -> tuple[_Batch, bytes]:
        """Journal the intent of a batch; returned with the content of its file."""
        waiting = name_requests(part)
        content = write_requests(waiting)
        record = self._journal.begin(part[0].path, list(waiting), content)
        batch = self._batches[record.token] = _Batch(record, waiting, departures=self._departures)
        return batch, content

    # ---------------------------------------------------------------------------- one batch's life

    async def _carry(self, batch: _Batch, content: bytes | None) -> None:
        """See a batch through and answer all who wait for it, if only with the error."""
        try:
            try:
                await self._see_through(batch, content)
            except _QueueFullError as full:
                await self._squeeze(batch, str(full))
        except Exception as error:
            _fail(batch.waiting.values(), error)

    async def _see_through(self, batch: _Batch, content: bytes | None) -> None:
        """Make a batch, or take up one of the journal (``content`` None); wait; hand out."""
        record = batch.record
        if record.batch_id is None:
            if content is None and not await self._adopt(batch):
                return
            if content is not None:
                await self._make(record, content)
        state = await self._follow(record)
        if state.status == "failed":
            self._journal.note(record, "closed", why="failed")
            words = (
                "; ".join(words or code for code, words in state.errors) or "it does not say why"
            )
            if state.queue_full:
                raise _QueueFullError(words)
            raise TeacherError(
                f"the provider refused batch {state.id} of {len(record.requests)} requests, and nothing of "
                f"it was paid for: correct what it names, and run the same command again. {words[:400]}"
            )
        self._departures += 1
        batch.lines = await self._provider.lines(state)
        self._hand_out(batch, batch.lines)

    async def _make(self, record: BatchRecord, content: bytes) -> None:
        file_id = await self._provider.upload(f"{record.token}.jsonl", content)
        self._journal.note(record, "file", id=file_id)
        batch_id = await self._provider.create(
            file_id, record.path, record.token, since=record.created, look_first=False
        )
        self._journal.note(record, "batch", id=batch_id)

    async def _adopt(self, batch: _Batch) -> bool:
        """Find out what became of a batch whose making was cut short; False if nothing did.

        It is made from its uploaded file only if all that is in it is still wanted.
        """
        record = batch.record
        batch_id = await self._provider.find(record.token, since=record.created)
        all_wanted = len(batch.waiting) == len(record.requests)
        if batch_id is None and record.file_id is not None and all_wanted:
            batch_id = await self._provider.create(
                record.file_id, record.path, record.token, since=record.created, look_first=False
            )
        if batch_id is None:
            self._journal.note(record, "closed", why="abandoned")
            self._launch(list(batch.waiting.values()))
            batch.waiting = {}
            return False
        self._journal.note(record, "batch", id=batch_id)
        return True

    async def _follow(self, record: BatchRecord) -> BatchState:
        """Look after a batch, ever less often, until nothing more will come of it."""
        assert record.batch_id is not None
        settings, pause, without_files = self._settings, self._settings.poll_every, 0
        self._under_way.add(record.token)
        try:
            while True:
                state = await self._provider.look(record.batch_id)
                if settings.on_batch is not None:
                    settings.on_batch(state.news())
                without_files += state.without_files
                if state.finished and not (
                    state.without_files and without_files < _LOOKS_FOR_FILES
                ):
                    return state
                await settings.sleep(pause)
                pause = min(pause * _SLOWER, settings.longest_poll)
        finally:
            self._under_way.discard(record.token)
            self._one_left.set()

    async def _squeeze(self, batch: _Batch, words: str) -> None:
        """Send what did not fit the provider's queue when there is room, or in ever smaller parts."""
        async with self._squeezing:
            parts, refusals = deque([list(batch.waiting.values())]), 1
            while parts:
                if refusals and batch.departures == self._departures:
                    await self._await_room(parts, refusals, words)
                batch, content = self._write_down(parts.popleft())
                try:
                    await self._see_through(batch, content)
                    refusals = 0
                except _QueueFullError as full:
                    parts.appendleft(list(batch.waiting.values()))
                    refusals, words = refusals + 1, str(full)

    async def _await_room(self, parts: deque[list[Asked]], refusals: int, words: str) -> None:
        if refusals >= _QUEUE_REFUSALS:
            raise TeacherError(
                f"the provider's queue has been full for long: wait until other batches of the account "
                f"have ended, and run the same command again. {words[:400]}"
            )
        if self._under_way:
            self._one_left.clear()
            await self._one_left.wait()
        elif refusals <= _HALVINGS and len(parts[0]) > 1:
            part = parts.popleft()
            middle = (len(part) + 1) // 2
            parts.extendleft((part[middle:], part[:middle]))
        else:
            await self._settings.sleep(min(_LONGEST_QUEUE_PAUSE, 15.0 * refusals))

    # ------------------------------------------------------------------------------------ answers

    def _hand_out(self, batch: _Batch, lines: dict[str, Line]) -> None:
        given = self._given.setdefault(batch.record.token, set())
        waiting, batch.waiting = batch.waiting, {}
        for custom_id, asked in waiting.items():
            line = lines.pop(custom_id, None)
            given.add(custom_id)
            if asked.answer.done():  # cancelled
                continue
            asked.places.append((batch.record, custom_id))
            try:
                asked.answer.set_result(read_outcome(self._settings.teacher, asked.path, line))
            except RetryableError as error:
                self._leave_unanswered(asked, error)
            except Exception as error:
                asked.answer.set_exception(error)

    def _leave_unanswered(self, asked: Asked, error: RetryableError) -> None:
        asked.rounds += 1
        if self._settings.fallback:
            asked.answer.set_result(None)
        elif asked.rounds < _ROUNDS:
            self.gather(asked)
        else:
            asked.answer.set_exception(error)

    def note_returned(self, asked: Asked) -> None:
        """Remember that the labeling loop has a request's answer and is about to store it."""
        if asked.places:
            self._returned.append(asked)
            if self._settling is None:
                self._settling = self._begin(self._settle_soon())

    async def _settle_soon(self) -> None:
        await self._settings.sleep(self._settings.gather_for)
        self._settling = None
        with suppress(TeacherError):  # Its batch stays open, which costs nothing.
            self._settle()

    def _settle(self) -> None:
        """Journal which answers are stored, and close the batches that have no others.

        The labeling loop stores an answer before it awaits anything; where that failed, so did the task.
        """
        returned, self._returned = self._returned, []
        taken: dict[str, list[str]] = {}
        for asked in returned:
            task = asked.task
            if task is not None and task.done() and _broke_off(task):
                continue
            for record, custom_id in asked.places:
                taken.setdefault(record.token, []).append(custom_id)
        for token, names in taken.items():
            record = self._journal.records[token]
            if len(record.taken.keys() | names) == len(record.requests):
                self._journal.note(record, "closed", why="done")
            else:
                self._journal.note(record, "taken", requests=names)


def _fail(asked: Iterable[Asked], error: Exception) -> None:
    for one in asked:
        if not one.answer.done():
            one.answer.set_exception(error)


def _broke_off(task: asyncio.Task[Any]) -> bool:
    """Whether a task ended before it could store its answer; that a row has an error is an answer."""
    if task.cancelled():
        return True
    error = task.exception()
    return error is not None and not isinstance(error, RowError)
