"""Asks for new inputs in rounds, each for what is still missing, and judges what comes back."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from labelers.asking import Asker
from labelers.concurrency import each
from labelers.generation_prompts import (
    Frame,
    Seed,
    build_generation_request,
    echoes,
    read_generated,
)
from labelers.generation_results import Generation, GenerationReport, Rejection, as_dataset
from labelers.generation_seeds import Cell
from labelers.novelty import Forbidden, Nearness, is_text, words
from labelers.progress import OnProgress
from labelers.prompts import Request
from labelers.replies import Reply
from labelers.store import canonical
from labelers.tasks import Task
from labelers.teachers import RowError, Teacher

#: Takes a text and returns it without personal data, with what was replaced counted by kind.
Redact = Callable[[str], tuple[str, Mapping[str, int]]]


@dataclass
class Trial:
    """One request and what came of it."""

    cell: Cell
    shown: list[Seed]
    attributes: dict[str, str]
    request: Request | None = None
    sample: int = 0
    text: str | None = None
    finish_reason: str | None = None
    key: str | None = None
    error: str | None = None

    def take(self, reply: Reply) -> None:
        """Take over what the teacher wrote."""
        self.text, self.key = reply.text, reply.key.hex()
        self.finish_reason = reply.finish_reason

    @property
    def answered(self) -> bool:
        """Whether there is something to judge."""
        return self.text is not None or self.error is not None


@dataclass(kw_only=True)
class Rounds:
    """One call of :func:`labelers.generate`: the state that its rounds share."""

    task: Task
    teacher: Teacher
    frame: Frame
    cells: list[Cell]
    variety: dict[str, list[str]]
    shots: int
    temperature: float
    max_tokens: int
    seed: int
    seeded_by: str
    redact: Redact | None
    known: Nearness
    banned: Forbidden
    longest: int
    shortest: int
    asker: Asker
    on_progress: OnProgress | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    repeats: Counter[bytes] = field(default_factory=Counter)
    redacted: dict[str, tuple[str, Mapping[str, int]]] = field(default_factory=dict)

    async def all(self) -> None:
        """Ask for what is missing, in rounds, until nothing is or no request is left."""
        try:
            while trials := [self._trial(cell) for cell in self.cells for _ in range(cell.missing)]:
                await self._round(trials)
        finally:
            await self.asker.close()

    async def _round(self, trials: list[Trial]) -> None:
        judged = 0
        self.asker.to_come = len(trials)

        async def ask(trial: Trial) -> None:
            nonlocal judged
            self.asker.to_come -= 1
            try:
                if trial.request is not None:
                    trial.take(await self.asker.ask(trial.request, sample=trial.sample))
            except RowError as error:
                trial.error = f"{error.kind}: {error}"
            # In the order of the requests, whichever is answered first.
            while judged < len(trials) and trials[judged].answered:
                self._judge(trials[judged])
                judged += 1
            if self.on_progress:
                wanted = sum(cell.wanted for cell in self.cells)
                self.on_progress(
                    self.asker.progress("generate", len(self.rows), wanted, len(self.rejections))
                )

        await each(trials, ask, concurrency=self.teacher.concurrency)

    def _trial(self, cell: Cell) -> Trial:
        draw = random.Random(orjson.dumps([self.seed, cell.label, cell.cluster, cell.sent]))
        cell.sent += 1
        shown = cell.draw(self.shots, draw)
        attributes = {name: draw.choice(values) for name, values in self.variety.items()}
        trial = Trial(cell, shown, attributes)
        try:
            veiled = [self._veiled(row) for row in shown]
        except RowError as error:
            trial.error = f"{error.kind}: {error}"
            return trial
        request = build_generation_request(
            self.task,
            veiled,
            label=cell.label,
            attributes=attributes,
            frame=self.frame,
            api=self.teacher.api,
            model=self.teacher.model,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
        )
        # Equal requests, where seeds are few, are deliberate samples, each stored by its own.
        body = canonical(request.body)
        trial.request, trial.sample = request, self.repeats[body]
        self.repeats[body] += 1
        return trial

    def _veiled(self, row: Seed) -> Seed:
        if self.redact is None:
            return row
        if row.id not in self.redacted:
            self.redacted[row.id] = self.redact(row.text)
        return Seed(row.id, self.redacted[row.id][0], row.label)

    def _judge(self, trial: Trial) -> None:
        text = ""
        if trial.text is not None:
            text = read_generated(trial.text, self.task, self.frame, trial.shown)
        reason, related, similarity = self._fault(trial, text)
        if reason is not None:
            self.rejections.append(
                Rejection(
                    reason=reason,
                    text=trial.error or text,
                    label=trial.cell.label,
                    related_id=related,
                    similarity=similarity,
                    key=trial.key,
                )
            )
            return
        trial.cell.accepted += 1
        whole = self.frame.around(text)
        name = hashlib.sha256(whole.encode()).hexdigest()[:16]
        self.known.add(name, text)
        self.rows.append(
            {
                "id": name,
                "input": whole,
                "source": "generated",
                "split": "train",
                "generated_for": trial.cell.label,
                "generated_from": [row.id for row in trial.shown],
                "generated_attributes": orjson.dumps(trial.attributes).decode(),
                "generated_cluster": trial.cell.cluster,
                "generated_by": self.teacher.name,
                "generated_key": trial.key,
                "seeded_by": None if trial.cell.label is None else self.seeded_by,
            }
        )

    def _fault(self, trial: Trial, text: str) -> tuple[str | None, str | None, float | None]:
        """Why a text is not taken, the row it is near to, and how near."""
        if trial.error is not None:
            return "error", None, None
        if not text:
            return "empty", None, None
        if trial.finish_reason == "length":
            return "too_long", None, None
        if not is_text(text):
            return "not_text", None, None
        if echoes(text, self.task):
            return "echo", None, None
        size = len(words(text))
        if size < self.shortest:
            return "too_short", None, None
        if size > self.longest:
            return "too_long", None, None
        if (similarity := self.banned.similarity(text)) is not None:
            return "near_test", None, similarity
        if (near := self.known.nearest(text)) is not None:
            return "near_duplicate", *near
        return None, None, None

    def result(self) -> Generation:
        """The rows and the report."""
        asker = self.asker
        by_label: Counter[str] = Counter()
        by_cluster: Counter[int] = Counter()
        shortfall: Counter[str] = Counter()
        redacted: Counter[str] = Counter()
        for cell in self.cells:
            by_label[cell.label or "(none)"] += cell.accepted
            shortfall[cell.label or "(none)"] += cell.wanted - cell.accepted
            if cell.cluster is not None:
                by_cluster[cell.cluster] += cell.accepted
        for _, counts in self.redacted.values():
            redacted.update(counts)
        wanted = sum(cell.wanted for cell in self.cells)
        last = asker.progress("generate", len(self.rows), wanted, len(self.rejections))
        report = GenerationReport(
            wanted=wanted,
            accepted=len(self.rows),
            requests=len(self.rows) + len(self.rejections),
            asked=last.asked,
            reused=last.reused,
            rejected=dict(Counter(rejection.reason for rejection in self.rejections)),
            by_label=dict(by_label),
            by_cluster=dict(by_cluster),
            shortfall={label: missing for label, missing in shortfall.items() if missing},
            redacted=dict(redacted),
            prompt_tokens=last.prompt_tokens,
            completion_tokens=last.completion_tokens,
            cost_usd=last.cost_usd,
        )
        return Generation(
            dataset=as_dataset(self.rows), rejections=tuple(self.rejections), report=report
        )
