"""A teacher behind a provider's Batch API: half the price, an answer within a day, no row lost.

The labeling loop asks as it asks any teacher. Here its requests are gathered until no more come,
uploaded as files, and answered when the provider is done. Every step is in a journal before it is
taken (:mod:`labelers.batch_journal`), so that a run that was killed finds its batches again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelers.batch_files import Asked
from labelers.batch_journal import BatchJournal, journal_folder
from labelers.batch_provider import BatchProvider, Sleep
from labelers.batch_run import BatchRun
from labelers.openai_api import OpenAICompatible
from labelers.prompts import Api
from labelers.store import canonical
from labelers.structured import Dialect
from labelers.teachers import Prices, RowError, TeacherError

OnBatch = Callable[[Mapping[str, Any]], None]

_LONGEST_TURN_PAUSE = 10.0


@dataclass(kw_only=True)
class OpenAIBatch:
    """A model behind the Batch API of OpenAI or of a server that offers the same endpoints.

    One object serves one labeling run at a time. A second process that asks the same model through
    the same journal waits until the first has ended, and then reads the answers of its batches.

    Args:
        teacher: The model, its server and key. Its identity is this teacher's too, so that answers
            from batches and direct ones share the store.
        journal: Folder in which batches are written down before they are made. Keep it as long as
            the store, beside it.
        concurrency: Requests that the labeling loop hands over at once.
        most_requests: Most requests of one file (OpenAI allows 50,000).
        most_bytes: Most bytes of one file (OpenAI allows 200 MB).
        gather_for: A file is closed when no request has come for that many seconds.
        poll_every: Seconds until a batch is first looked after; the pause grows by 30 % each time.
        longest_poll: Longest pause between two looks.
        longest_turn: Most seconds to wait for another process to let go of the journal.
        fallback: Whether requests that a batch leaves unanswered (expired, overloaded) are asked
            directly, at the full price. If not they go into further batches.
        discount: What a token costs in a batch, as a share of the teacher's price.
        prices: Prices in a batch. Default: the teacher's, times ``discount``.
        on_batch: Called whenever a batch was looked after, with ``batch``, ``status``, ``total``,
            ``completed`` and ``failed``; and with ``status`` ``waiting`` and a ``message`` while
            another process has the journal.
        sleep: Waits that many seconds.
    """

    teacher: OpenAICompatible
    journal: str | os.PathLike[str] = ".curate/batches"
    concurrency: int = 50_000
    most_requests: int = 50_000
    most_bytes: int = 200_000_000
    gather_for: float = 0.5
    poll_every: float = 5.0
    longest_poll: float = 60.0
    longest_turn: float = 48 * 3600.0
    fallback: bool = True
    discount: float = 0.5
    prices: Prices | None = None
    on_batch: OnBatch | None = field(default=None, repr=False)
    sleep: Sleep = field(default=asyncio.sleep, repr=False)
    #: Requests that were asked directly, at the full price, because a batch left them unanswered.
    fallbacks: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("concurrency", "most_requests", "most_bytes"):
            if getattr(self, name) < 1:
                raise TeacherError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0.0 < self.discount <= 1.0:
            raise TeacherError(
                f"discount is {self.discount}: it is the share of the price that a batch costs, above "
                "0 and at most 1"
            )
        if self.prices is None and (full := self.teacher.prices) is not None:
            self.prices = Prices(full.prompt * self.discount, full.completion * self.discount)
        identity = canonical(dict(self.teacher.identity)).decode()
        self._journal = BatchJournal(
            journal_folder(self.journal, self.model, identity, self.teacher.base_url)
        )
        # Answers that others take from here on may be missing in our caller's view of the store.
        self._since = time.time()
        self._given: dict[str, set[str]] = {}
        self._directly: set[str] = set()
        self._provider: BatchProvider | None = None
        self._run: BatchRun | None = None

    @property
    def name(self) -> str:
        """As the wrapped teacher is called."""
        return self.teacher.name

    @property
    def model(self) -> str:
        """The wrapped teacher's model."""
        return self.teacher.model

    @property
    def api(self) -> Api:
        """The wrapped teacher's API."""
        return self.teacher.api

    @property
    def prefill(self) -> bool:
        """As the wrapped teacher."""
        return self.teacher.prefill

    @property
    def top_logprobs(self) -> int:
        """As the wrapped teacher."""
        return self.teacher.top_logprobs

    @property
    def identity(self) -> Mapping[str, str]:
        """The wrapped teacher's identity: a batch asks the same weights."""
        return self.teacher.identity

    @property
    def dialect(self) -> Dialect | None:
        """As the wrapped teacher."""
        return self.teacher.dialect

    @property
    def first_window(self) -> int:
        """Requests to be sent before any is answered: all, for there is no need to feel the way."""
        return self.concurrency

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """As the wrapped teacher."""
        return self.teacher.adapt(body)

    async def start(self) -> None:
        """Check the server, take the journal and read which batches are under way.

        Raises:
            TeacherError: If the server refuses, or another process keeps the journal too long.
        """
        if self._run is not None:
            raise TeacherError(
                f"this OpenAIBatch of {self.name} serves a run already: give each run an object of its "
                "own, with a journal of its own, or let one end before the next"
            )
        await self.teacher.start()
        try:
            await self._take_turn()
            self._provider = BatchProvider(self.teacher, self.sleep)
            self._run = BatchRun(self, self._journal, self._provider, self._given, self._since)
            self._direct_turns = asyncio.Semaphore(max(1, self.teacher.concurrency))
        except BaseException:
            await self.close()
            raise

    async def _take_turn(self) -> None:
        waited, pause = 0.0, 1.0
        while not self._journal.acquire():
            if self._journal.held_here:
                raise TeacherError(
                    f"another OpenAIBatch of {self.name} in this process has {self._journal.folder}: "
                    "use one object after the other, or one journal for each"
                )
            holder = self._journal.holder()
            if waited >= self.longest_turn:
                raise TeacherError(
                    f"process {holder} still has {self._journal.folder} after {waited:.0f} seconds: wait "
                    "until it ends, and run the same command again"
                )
            message = (
                f"process {holder} has batches of {self.name} under way: waiting for it to end"
            )
            if self.on_batch is not None:
                self.on_batch({"status": "waiting", "message": message})
            await self.sleep(pause)
            waited, pause = waited + pause, min(_LONGEST_TURN_PAUSE, pause * 2)

    async def send(self, path: str, body: bytes) -> bytes:
        """See :class:`labelers.teachers.Teacher`; the answer may take a day."""
        run = self._run
        assert run is not None, "send() before start()"
        digest = hashlib.sha256(path.encode() + b"\0" + body).hexdigest()[:32]
        if digest in self._directly:
            return await self._ask_directly(path, body)
        loop = asyncio.get_running_loop()
        asked = Asked(digest, path, body, loop.create_future(), asyncio.current_task())
        run.gather(asked)
        try:
            answer = await asked.answer
            if answer is None:
                self._directly.add(digest)
                answer = await self._ask_directly(path, body)
        except RowError:
            run.note_returned(asked)  # That the row has an error is its answer.
            raise
        run.note_returned(asked)
        return answer

    async def _ask_directly(self, path: str, body: bytes) -> bytes:
        async with self._direct_turns:
            answer = await self.teacher.send(path, body)
        self.fallbacks += 1
        return answer

    async def close(self) -> None:
        """Let go of the journal and the connections. Batches under way go on at the provider.

        Raises:
            TeacherError: If the journal cannot be written.
        """
        run, self._run = self._run, None
        provider, self._provider = self._provider, None
        try:
            if run is not None:
                await run.close()
        finally:
            self._journal.release()
            if provider is not None:
                await provider.close()
            await self.teacher.close()
