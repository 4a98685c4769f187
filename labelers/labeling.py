"""Runs a teacher over a dataset: one label a row, its probabilities, and a rationale."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from labelers.answers import read_answer, read_rationale
from labelers.asking import Asker, OnProgress, Progress, Reply, each, run_sync
from labelers.limits import Limits
from labelers.probabilities import (
    OPENING,
    BatchCalibration,
    ProbabilityError,
    label_mass,
    read_positions,
)
from labelers.prompts import Kind, build_request
from labelers.row_answers import RowAnswer
from labelers.rows import Row, as_dataset, read_rows, refuse_clash
from labelers.store import Store
from labelers.tasks import LETTERS, Task, TaskError
from labelers.teachers import RowError, Teacher, TeacherError

if TYPE_CHECKING:
    import datasets
    import pandas as pd

Mode = Literal["score", "cot"]

#: Below this many rows their mean distribution says more about the rows than about the teacher.
CALIBRATION_MINIMUM = 30
#: Shared mass smaller than this is not worth a request of its own; it counts as off-label.
_SHARED_MINIMUM = 0.005
#: Above this, shared mass that cannot be resolved makes the distribution unknown.
_SHARED_MAXIMUM = 0.05
_LABEL_MASS_MINIMUM = 1e-3
_LONGEST_LABEL_TOKENS = 8


def label(
    dataset: datasets.Dataset | pd.DataFrame,
    task: Task,
    teacher: Teacher,
    *,
    mode: Mode = "score",
    rationales: bool = True,
    calibration: Literal["batch"] | None = "batch",
    store: Store | str | PathLike[str] = ".curate",
    limits: Limits | None = None,
    max_tokens: int = 256,
    max_rationale_tokens: int = 64,
    on_progress: OnProgress | None = None,
) -> datasets.Dataset:
    """Label every row of a dataset with a teacher.

    Args:
        dataset: Rows with an ``input`` column, or with the columns that the task's template names;
            ``id``, ``choices`` and ``split`` are used where present. A gold column is never read.
        task: What is asked.
        teacher: Who is asked.
        mode: ``score`` reads the label's distribution off the answer's token probabilities, then
            asks for a rationale given the label; ``cot`` asks for a rationale that ends in a label.
        rationales: In mode ``score``, whether to ask for rationales at all. Rows whose ``split`` is
            ``test`` get none: they are labelled for comparison, not for training.
        calibration: ``batch`` divides the distributions by their mean over the rows that are not
            test rows (at least 30 of them; else it is left out and a note says so). None keeps them raw.
        store: Where exchanges are kept: an open store or a folder.
        limits: Attempts and back-off.
        max_tokens: Most tokens of a chain-of-thought answer.
        max_rationale_tokens: Most tokens of a rationale.
        on_progress: Called with a snapshot after each row.

    Returns:
        The dataset, every row and column as it was, with ``label``, ``rationale``, ``label_probs``
        (aligned with the row's choices), ``label_source``, ``off_label_mass``, ``confidence``,
        ``finish_reason``, ``teacher``, ``prompt_key``, ``prompt_tokens``, ``completion_tokens``,
        ``cost_usd`` and ``error``. A row without a label has its reason in ``error``.

    Raises:
        TaskError: If the task does not fit the dataset or the mode.
        TeacherError: If no request can succeed. What was answered before is in the store.
        StoreError: If the store cannot be written.
    """
    _check(mode, get_args(Mode), "mode")
    _check(calibration, ("batch", None), "calibration")
    if mode == "score" and not task.closed:
        raise TaskError(
            "mode `score` needs a closed label set, and the task has neither labels nor choices: "
            "use mode `cot`"
        )
    if mode == "score" and not teacher.top_logprobs:
        raise TeacherError(
            f"mode `score` needs token probabilities, which {teacher.name} does not give: use mode `cot`"
        )
    rows = read_rows(dataset, task)
    refuse_clash(dataset)
    with ExitStack() as stack:
        if isinstance(store, Store):
            opened = store
            opened.refresh()
        else:
            opened = stack.enter_context(Store(store))
        run = _Run(
            task, teacher, rows, opened, limits or Limits(), max_tokens, max_rationale_tokens,
            on_progress,
        )  # fmt: skip
        answers = run_sync(run.all(mode, rationales, calibration))
    return as_dataset(
        dataset, rows, [answer.columns(teacher.name, teacher.prices) for answer in answers]
    )


def _check(value: object, allowed: tuple[object, ...], name: str) -> None:
    if value not in allowed:
        raise TaskError(f"{name} is {value!r}: choose {' or '.join(map(repr, allowed))}")


class _Run:
    """One call of :func:`label`: the state that its steps share."""

    def __init__(
        self,
        task: Task,
        teacher: Teacher,
        rows: Sequence[Row],
        store: Store,
        limits: Limits,
        max_tokens: int,
        max_rationale_tokens: int,
        on_progress: OnProgress | None,
    ) -> None:
        self.task = task
        self.teacher = teacher
        self.rows = rows
        self.store = store
        self.limits = limits
        self.max_tokens = max_tokens
        self.max_rationale_tokens = max_rationale_tokens
        self.on_progress = on_progress
        self.answers = [RowAnswer() for _ in rows]
        self.notes: list[str] = []
        self.last: Progress | None = None
        self.without_rationale: list[str] = []

    async def all(self, mode: Mode, rationales: bool, calibration: str | None) -> list[RowAnswer]:
        self.asker = Asker(self.teacher, self.store, self.limits)
        try:
            everything = range(len(self.rows))
            if mode == "cot":
                await self._phase("label", everything, self._chain_of_thought)
            else:
                await self._phase("label", everything, self._score)
                if calibration == "batch":
                    self._calibrate()
                if rationales:
                    wanted = [
                        i
                        for i in everything
                        if self.rows[i].split != "test" and self.answers[i].label is not None
                    ]
                    await self._phase("rationale", wanted, self._explain)
        finally:
            await self.asker.close()
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
        if self.on_progress and self.last and self.notes:
            self.on_progress(replace(self.last, notes=tuple(self.notes)))

    async def _phase(self, phase: str, wanted: Collection[int], work: Any) -> None:
        done = failed = 0

        async def one(i: int) -> None:
            nonlocal done, failed
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
                self.last = self.asker.progress(phase, done, len(wanted), failed, self.notes)
                self.on_progress(self.last)

        if wanted:
            await each(list(wanted), one, concurrency=self.teacher.concurrency)

    async def _ask(self, row: Row, answer: RowAnswer, kind: Kind, **how: Any) -> Reply:
        request = build_request(
            self.task,
            row.input,
            kind=kind,
            api=self.teacher.api,
            model=self.teacher.model,
            choices=row.choices,
            top_logprobs=self.teacher.top_logprobs,
            **how,
        )
        reply = await self.asker.ask(request)
        answer.count(*reply.tokens)
        return reply

    async def _chain_of_thought(self, row: Row, answer: RowAnswer) -> None:
        reply = await self._ask(row, answer, "cot", max_tokens=self.max_tokens)
        answer.prompt_key = reply.key.hex()
        answer.finish_reason = reply.finish_reason
        cut_off = reply.finish_reason == "length"
        reading = read_answer(reply.text, self.task, row.choices, cut_off=cut_off)
        if cut_off and (reading.label is None or row.choices is None):
            answer.error = (
                f"truncated: the answer was cut at {self.max_tokens} tokens before it was complete: "
                f"{reply.text[:120]!r}"
            )
            return
        answer.take(reading)

    async def _score(self, row: Row, answer: RowAnswer) -> None:
        assert row.choices is not None
        names = (
            [LETTERS[i] for i in range(len(row.choices))]
            if self.task.form == "letter"
            else list(row.choices)
        )
        most = 1 if self.teacher.prefill else _LONGEST_LABEL_TOKENS
        reply = await self._ask(row, answer, "score", max_tokens=most)
        answer.prompt_key = reply.key.hex()
        answer.finish_reason = reply.finish_reason
        masses, unresolved = await self._masses(row, answer, reply, names)
        total = sum(masses)
        if unresolved > _SHARED_MAXIMUM:
            raise RowError(
                f"labels that begin alike cannot be told apart over this API ({unresolved:.0%} of the "
                "probability is undecided): use `api: completions`, or answer_form: letter",
                kind="ambiguous",
            )
        if total < _LABEL_MASS_MINIMUM:
            raise RowError(
                f"the teacher names none of {names}; it began with {reply.text[:60]!r}",
                kind="off_label",
            )
        answer.label_probs = [mass / total for mass in masses]
        answer.label_source = "logprobs"
        answer.off_label_mass = max(0.0, 1.0 - total)
        answer.take_likeliest(row.choices)

    async def _masses(
        self,
        row: Row,
        answer: RowAnswer,
        reply: Reply,
        names: list[str],
        given: str = "",
        scale: float = 1.0,
        depth: int = 1,
    ) -> tuple[list[float], float]:
        """Mass per label and mass left undecided, following beginnings that labels share."""
        try:
            positions = read_positions(reply.choice, asked=self.teacher.top_logprobs)
            found = label_mass(positions, names, given=given)
        except ProbabilityError as error:
            raise RowError(str(error), kind="no_logprobs") from error
        if (hidden := found.unreadable * scale) > _SHARED_MAXIMUM:
            raise RowError(
                f"up to {hidden:.0%} of the probability is on parts of characters, which the server shows "
                f"as empty text, and labels such as {max(names, key=len)!r} may begin with them: use "
                "answer_form: letter, or labels in plain ASCII",
                kind="ambiguous",
            )
        masses = [mass * scale for mass in found.masses]
        unresolved = 0.0
        for shared in found.shared:
            weight = shared.mass * scale
            if not self.teacher.prefill:
                # White space or a quote says nothing of any label: it is off-label, not undecided.
                unresolved += weight if shared.prefix.strip(OPENING) else 0.0
            elif depth == _LONGEST_LABEL_TOKENS:
                unresolved += weight
            elif weight >= _SHARED_MINIMUM:
                further = await self._ask(row, answer, "score", max_tokens=1, prefix=shared.prefix)
                more, left = await self._masses(
                    row, answer, further, names, shared.prefix, weight, depth + 1
                )
                masses = [a + b for a, b in zip(masses, more, strict=True)]
                unresolved += left
        return masses, unresolved

    def _calibrate(self) -> None:
        """Batch calibration among rows with equally many choices, fitted without test rows."""
        sizes: dict[int, list[int]] = {}
        for i, answer in enumerate(self.answers):
            if answer.label_probs is not None:
                sizes.setdefault(len(answer.label_probs), []).append(i)
        for size, members in sizes.items():
            fitted_on = [i for i in members if self.rows[i].split != "test"]
            if len(fitted_on) < CALIBRATION_MINIMUM:
                self.notes.append(
                    f"{len(members)} rows with {size} choices were not calibrated: "
                    f"{CALIBRATION_MINIMUM} rows are needed, {len(fitted_on)} are at hand"
                )
                continue
            rule = BatchCalibration.fit(np.array([self.answers[i].label_probs for i in fitted_on]))
            calibrated = rule.apply(np.array([self.answers[i].label_probs for i in members]))
            for i, probabilities in zip(members, calibrated.tolist(), strict=True):
                choices = self.rows[i].choices
                assert choices is not None
                self.answers[i].label_probs = probabilities
                self.answers[i].take_likeliest(choices)

    async def _explain(self, row: Row, answer: RowAnswer) -> None:
        reply = await self._ask(
            row, answer, "rationale", label=answer.label, max_tokens=self.max_rationale_tokens
        )
        text = reply.text
        if reply.finish_reason == "length":
            # The label stands; of a rationale that was cut off, the whole sentences are kept.
            text = text[: max(text.rfind(mark) for mark in (".", "!", "?")) + 1]
        answer.rationale = read_rationale(text).rationale
