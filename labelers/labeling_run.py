"""The phases of labeling: what is asked of all rows first, what then, and what is told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from labelers.batches import OpenAIBatch
from labelers.calibrations import BatchCalibration, ContextualCalibration
from labelers.concurrency import each
from labelers.progress import OnProgress, Progress
from labelers.row_answers import RowAnswer
from labelers.row_asking import RowAsker
from labelers.rows import GENERATED, Row
from labelers.store import Store
from labelers.structured import probe
from labelers.tasks import Task
from labelers.teachers import Fleet, RowError, Teacher, TeacherError

Mode = Literal["score", "cot"]
Calibration = Literal["batch", "contextual"]
#: Takes personal data out of a text and counts, by kind, what it took out.
Redact = Callable[[str], tuple[str, Mapping[str, int]]]

#: Below this many rows their mean distribution says more about the rows than about the teacher.
CALIBRATION_MINIMUM = 30
#: Inputs that say nothing (Zhao et al., 2021): what the teacher makes of them is its bias.
_CONTENT_FREE = ("N/A", "[MASK]", "")


class LabelingRun:
    """One call of :func:`labelers.label`: the state that its phases share."""

    asking: RowAsker

    def __init__(
        self,
        task: Task,
        teacher: Teacher,
        rows: Sequence[Row],
        store: Store,
        on_progress: OnProgress | None,
    ) -> None:
        self.task = task
        self.teacher = teacher
        self.rows = rows
        self.store = store
        self.on_progress = on_progress
        self.answers = [RowAnswer() for _ in rows]
        self.notes: list[str] = []
        self.last: Progress | None = None
        self.without_rationale: list[str] = []
        self.contextual: ContextualCalibration | None = None

    def redact(self, redact: Redact | None) -> None:
        """Take personal data out of what is sent, and note how much of which kind it was."""
        if redact is None:
            return
        found: Counter[str] = Counter()
        touched = 0
        shown = []
        for row, answer in zip(self.rows, self.answers, strict=True):
            try:
                text, counts = redact(row.input)
            except RowError as error:
                # What cannot be redacted is not sent.
                answer.error = f"{error.kind}: {error}"
                text, counts = "", {}
            found.update(counts)
            touched += bool(counts)
            shown.append(replace(row, shown=text))
        self.rows = shown
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.most_common()) or "nothing"
        self.notes.append(f"redacted before sending, in {touched} of {len(shown)} rows: {kinds}")

    async def all(self, mode: Mode, calibration: Calibration | None) -> list[RowAnswer]:
        """Ask everything, phase after phase."""
        asking = self.asking
        try:
            everything = [i for i, answer in enumerate(self.answers) if answer.error is None]
            if mode == "cot":
                await self._phase("label", everything, asking.chain_of_thought)
            else:
                if calibration == "contextual":
                    await self._learn_bias()
                if asking.probabilities == "constrained":
                    asking.asker.on_start = _probe
                votes = asking.probabilities == "votes"
                await self._phase(
                    "label", everything, asking.short_answers if votes else asking.score
                )
                self._calibrate(calibration)
                if asking.rationales:
                    wanted = [
                        i
                        for i in everything
                        if self.rows[i].split != "test" and self.answers[i].label is not None
                    ]
                    await self._phase("rationale", wanted, asking.explain)
        finally:
            await asking.asker.close()
        self._conclude()
        return self.answers

    def _conclude(self) -> None:
        """Tell what is known only at the end."""
        if failures := self.without_rationale:
            rows = "1 row has" if len(failures) == 1 else f"{len(failures)} rows have"
            self.notes.append(f"{rows} no rationale; the first error: {failures[0]}")
        if damaged := self.store.damaged:
            lines = "1 damaged line" if damaged == 1 else f"{damaged} damaged lines"
            self.notes.append(f"{lines} of the store {self.store.folder} could not be used")
        if isinstance(self.teacher, OpenAIBatch) and (asked := self.teacher.fallbacks):
            self.notes.append(
                f"{asked} requests that their batch left open were asked directly, at full price"
            )
        if isinstance(self.teacher, Fleet):
            self.notes += [f"an endpoint was left out: {reason}" for reason in self.teacher.missing]
        unfinished = self._unfinished()
        if self.on_progress and self.last and (self.notes or unfinished):
            self.on_progress(replace(self.last, notes=tuple(self.notes), unfinished=unfinished))

    def _unfinished(self) -> int:
        """Rows that another run may get more of; whatever else failed is to fail again."""
        errors = [answer.error for answer in self.answers if answer.error is not None]
        return sum(
            error.startswith(("server:", "budget:")) for error in (*errors, *self.without_rationale)
        )

    def tell_of_pause(self, seconds: float) -> None:
        """Show that nothing happens because the server asked for it."""
        if self.on_progress and self.last:
            self.on_progress(replace(self.last, paused=seconds))

    async def _phase(self, phase: str, wanted: Collection[int], work: Any) -> None:
        done = failed = 0
        asker = self.asking.asker
        asker.to_come = len(wanted)

        async def one(i: int) -> None:
            nonlocal done, failed
            asker.to_come -= 1
            answer = self.answers[i]
            try:
                await work(self.rows[i], answer)
                failed += answer.error is not None
            except RowError as error:
                failed += 1
                if phase == "rationale":  # The label stands.
                    self.without_rationale.append(f"{error.kind}: {error}")
                else:
                    answer.error = f"{error.kind}: {error}"
            done += 1
            if self.on_progress:
                self.last = self.asking.asker.progress(phase, done, len(wanted), failed, self.notes)
                self.on_progress(self.last)

        if wanted:
            await each(list(wanted), one, concurrency=self.teacher.concurrency)

    async def _learn_bias(self) -> None:
        """What the teacher makes of inputs without content: its lean to one label or another."""
        distributions = []
        for text in _CONTENT_FREE:
            answer = RowAnswer()
            shown = text
            if "{" in self.task.template:
                # As the template would frame it, so that only the content is missing.
                shown = self.task.template[: self.task.template.index("{")] + text
            try:
                await self.asking.score(Row(shown, self.task.labels, None, shown), answer)
            except RowError as error:
                raise TeacherError(
                    f"calibration: contextual asks about inputs without content, and {shown!r} failed "
                    f"({error.kind}: {error}): see to that, or use calibration: batch"
                ) from error
            assert answer.label_probs is not None
            distributions.append(answer.label_probs)
        self.contextual = ContextualCalibration.fit(np.array(distributions))

    def _calibrate(self, calibration: Calibration | None) -> None:
        """Divide out the teacher's lean, among rows with equally many choices."""
        if calibration is None or self.asking.probabilities == "votes":
            return
        sizes: dict[int, list[int]] = {}
        for i, answer in enumerate(self.answers):
            if answer.label_probs is not None:
                sizes.setdefault(len(answer.label_probs), []).append(i)
        for size, members in sizes.items():
            rule = self.contextual or self._batch_calibration(size, members)
            if rule is None:
                continue
            calibrated = rule.apply(np.array([self.answers[i].label_probs for i in members]))
            for i, distribution in zip(members, calibrated.tolist(), strict=True):
                choices = self.rows[i].choices
                assert choices is not None
                self.answers[i].label_probs = distribution
                self.answers[i].take_likeliest(choices)

    def _batch_calibration(self, size: int, members: list[int]) -> BatchCalibration | None:
        """Fitted without test rows and rows that a teacher wrote; None, and a note, with too few others."""
        fitted_on = [i for i in members if self.rows[i].split not in ("test", GENERATED)]
        if len(fitted_on) < CALIBRATION_MINIMUM:
            self.notes.append(
                f"{len(members)} rows with {size} choices were not calibrated: "
                f"{CALIBRATION_MINIMUM} rows are needed, {len(fitted_on)} are at hand"
            )
            return None
        return BatchCalibration.fit(np.array([self.answers[i].label_probs for i in fitted_on]))


async def _probe(teacher: Teacher) -> None:
    """See that a teacher heeds constraints; a batch's question could take a day."""
    await probe(teacher.teacher if isinstance(teacher, OpenAIBatch) else teacher)
