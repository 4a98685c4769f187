"""What labeling a dataset would ask, cost and take, told before anything is sent."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from labelers.concurrency import run_sync
from labelers.exchange_log import request_turns
from labelers.labeling import check_fit, prepared
from labelers.labeling_run import Calibration, LabelingRun, Mode, Redact
from labelers.limits import Limits
from labelers.listening import Explaining, Listener, Measured, PhaseQuote
from labelers.prices import prices_of
from labelers.prompts import Request
from labelers.row_answers import RowAnswer
from labelers.row_asking import SAMPLING_TEMPERATURE, Probabilities, VoteRule
from labelers.rows import read_rows, refuse_clash
from labelers.store import Store
from labelers.tasks import Task
from labelers.teachers import Prices, RowError, Teacher, TeacherError
from labelers.token_counts import CountText, TokenCounter

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from labelers.demonstrations import Demonstrations


@dataclass(frozen=True)
class Quote:
    """What a labeling run would ask, cost and take. Nothing was sent to find it out.

    Attributes:
        rows: Rows of the dataset.
        teacher: The teacher's name.
        label: The phase that finds labels.
        rationale: The phase that asks why, at most: rows that get no label are not explained.
        counted_by: How prompt tokens were counted: ``tokenizer ...`` or ``estimated ...``.
        measured_on: Stored answers of this teacher that the expectation and the rate were read off.
        prices: Prices of the teacher's tokens, or None.
        prices_from: Where they come from, with the date of a table, or ``no prices``.
        rate: Answers a second in the newest run by this teacher; None if never measured.
        prompts: The first prompts that would be sent, in full.
        notes: What else is to be known of the figures.
    """

    rows: int
    teacher: str
    label: PhaseQuote
    rationale: PhaseQuote
    counted_by: str
    measured_on: int
    prices: Prices | None
    prices_from: str
    rate: float | None
    prompts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def to_ask(self) -> int:
        """Requests that would be sent, at most."""
        return self.label.to_ask + self.rationale.to_ask

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of what would be sent, at most."""
        return self.label.prompt_tokens + self.rationale.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Completion tokens, at most."""
        return self.label.completion_tokens + self.rationale.completion_tokens

    @property
    def expected_completion_tokens(self) -> int | None:
        """Completion tokens by what was measured; None where a phase was never measured."""
        label = self.label.expected_completion_tokens
        rationale = self.rationale.expected_completion_tokens
        return None if label is None or rationale is None else label + rationale

    @property
    def cost_usd(self) -> float | None:
        """Cost in US dollars, at most; None without prices."""
        return self.prices.cost(self.prompt_tokens, self.completion_tokens) if self.prices else None

    @property
    def expected_cost_usd(self) -> float | None:
        """Cost with the completion tokens expected; None without prices or measurement."""
        expected = self.expected_completion_tokens
        if self.prices is None or expected is None:
            return None
        return self.prices.cost(self.prompt_tokens, expected)

    @property
    def batch_cost_usd(self) -> float | None:
        """Cost through a provider's batch endpoint, at most: half, as these endpoints charge."""
        return None if self.cost_usd is None else self.cost_usd / 2

    @property
    def seconds(self) -> float | None:
        """How long it would take at the rate measured; None if never measured."""
        return self.to_ask / self.rate if self.rate else None


def quote(
    dataset: datasets.Dataset | pd.DataFrame,
    task: Task,
    teacher: Teacher,
    *,
    store: Store | str | PathLike[str] = ".curate",
    mode: Mode = "score",
    probabilities: Probabilities = "logprobs",
    samples: int = 1,
    temperature: float | None = None,
    vote: VoteRule = "majority",
    rationales: bool | int = True,
    calibration: Calibration | None = "batch",
    demonstrations: Demonstrations | None = None,
    redact: Redact | None = None,
    max_tokens: int = 256,
    max_rationale_tokens: int = 64,
    tokenizer: CountText | str | PathLike[str] | None = None,
    show: int = 3,
) -> Quote:
    """Tell what :func:`labelers.label` would ask with the same arguments. Nothing is sent or written.

    The labeling loop itself builds the requests and looks them up in the store; what it does not find
    there is counted instead of asked.

    Args:
        dataset: As for :func:`labelers.label`, and so are the arguments not named here.
        task: What is asked.
        teacher: Who would be asked; it is not started.
        store: Where exchanges are kept: an open store, or a folder, which need not exist.
        tokenizer: Counts a text's tokens: a function, or the path of a ``tokenizer.json``. By default
            they are estimated from the text's length.
        show: Prompts to be shown in full.

    Raises:
        TaskError: If the task does not fit the dataset or the mode, or there is no such tokenizer.
        TeacherError: If the teacher cannot do what is asked of it.
    """
    check_fit(task, teacher, mode, probabilities, samples, vote, calibration)
    rows = prepared(read_rows(dataset, task), demonstrations)
    refuse_clash(dataset)
    if temperature is None:
        temperature = SAMPLING_TEMPERATURE if samples > 1 else 0.0
    with ExitStack() as stack:
        opened = _opened(store, stack)
        counter = TokenCounter(tokenizer)
        measured = Measured.of(teacher, opened)
        listener = Listener(teacher, opened, Limits(), counter=counter, show=show)
        asking = Explaining(
            task=task, teacher=teacher, asker=listener, probabilities=probabilities, samples=samples,
            temperature=temperature, vote=vote, max_tokens=max_tokens, rationales=int(rationales),
            max_rationale_tokens=max_rationale_tokens, keep_reasoning=False,
        )  # fmt: skip
        run = LabelingRun(task, teacher, rows, opened, None)
        run.redact(redact)
        run.asking = asking
        notes = run_sync(_listen(run, mode, calibration))
    prices, prices_from = prices_of(teacher)
    return Quote(
        len(rows), teacher.name, listener.label.quote(measured), listener.rationale.quote(measured),
        counter.name, measured.answers, prices, prices_from, measured.rate,
        tuple(map(prompt_text, listener.shown)), tuple(notes),
    )  # fmt: skip


def _opened(store: Store | str | PathLike[str], stack: ExitStack) -> Store:
    if isinstance(store, Store):
        store.refresh()
        return store
    if not Path(store).is_dir():
        # No folder is made for a run that may never be.
        store = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(Store(store))


async def _listen(run: LabelingRun, mode: Mode, calibration: Calibration | None) -> list[str]:
    """Have the loop go through all rows, and then ask why of those whose label is not known yet."""
    notes = [note for note in run.notes if note.startswith("redacted")]
    asking, listener = run.asking, run.asking.asker
    assert isinstance(listener, Listener)
    try:
        await run.all(mode, calibration)
    except TeacherError:
        if calibration != "contextual":
            raise
        # What contextual calibration asks first is not in the store.
        listener.forget()
        notes.append("three more requests for contextual calibration are not counted")
        await run.all(mode, None)
    if mode == "score" and asking.rationales:
        for row, answer in zip(run.rows, run.answers, strict=True):
            if row.split != "test" and answer.label is None:
                # Which label it will be is not known: at most the longest.
                longest = max(row.choices or ("",), key=len)
                with suppress(RowError):
                    await asking.explain(row, RowAnswer(label=longest))
    begun_alike = mode == "score" and asking.probabilities == "logprobs" and run.teacher.prefill
    if begun_alike and listener.label.settings:
        notes.append(
            "labels that begin alike take a further short request per row, not counted here"
        )
    return notes


def prompt_text(request: Request) -> str:
    """A request as a person reads it: a completion's text, or a chat's messages under their roles."""
    turns = request_turns(request.body)
    if "messages" not in request.body:
        return turns[0][1]
    return "\n\n".join(f"[{role}]\n{text}" for role, text in turns)
