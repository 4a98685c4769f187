"""Runs a teacher over a dataset: one label a row, its probabilities, and a rationale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any, get_args

from labelers.answers import read_answer
from labelers.asking import Asker
from labelers.budget import Budget
from labelers.concurrency import run_sync
from labelers.demonstrations import Demonstrations
from labelers.equations import same_value
from labelers.labeling_run import Calibration, LabelingRun, Mode, Redact
from labelers.limits import Limits
from labelers.progress import OnProgress
from labelers.prompts import demonstrated
from labelers.row_answers import RowAnswer
from labelers.row_asking import SAMPLING_TEMPERATURE, Probabilities, RowAsker, VoteRule
from labelers.rows import Row, as_dataset, read_rows, refuse_clash
from labelers.store import Store
from labelers.tasks import Task, TaskError, plain
from labelers.teachers import Constraining, Teacher, TeacherError

if TYPE_CHECKING:
    import datasets
    import pandas as pd


def label(
    dataset: datasets.Dataset | pd.DataFrame,
    task: Task,
    teacher: Teacher,
    *,
    mode: Mode = "score",
    probabilities: Probabilities = "logprobs",
    samples: int = 1,
    temperature: float | None = None,
    vote: VoteRule = "majority",
    rationales: bool | int = True,
    calibration: Calibration | None = "batch",
    demonstrations: Demonstrations | None = None,
    redact: Redact | None = None,
    keep_reasoning: bool = False,
    store: Store | str | PathLike[str] = ".curate",
    limits: Limits | None = None,
    budget: Budget | None = None,
    run: str = "",
    max_tokens: int = 256,
    max_rationale_tokens: int = 64,
    on_progress: OnProgress | None = None,
) -> datasets.Dataset:
    """Label every row of a dataset with a teacher.

    Args:
        dataset: Rows with an ``input`` column, or with the columns that the task's template names;
            ``id``, ``choices`` and ``split`` are used where present. A gold column is never read.
        task: What is asked.
        teacher: Who is asked; a :class:`labelers.Fleet` for several endpoints of one model.
        mode: ``score`` finds each label's probability, then asks for a rationale given the label;
            ``cot`` asks for a rationale that ends in a label.
        probabilities: In mode ``score``, where they come from. ``logprobs``: the first tokens of a free
            answer. ``scoring``: each label's whole text is scored as the end of the prompt (vLLM).
            ``constrained``: the teacher can write nothing but a label; mass off the label set is
            then unknown.
            ``votes``: short answers are drawn several times and counted.
        samples: Answers drawn per row in mode ``cot`` and by ``votes`` (self-consistency, Wang et al.,
            2022). Each is stored by its own; more samples later cost only those that are new.
        temperature: Sampling temperature; by default 0, and 0.7 where several samples are drawn.
        vote: How samples are counted: each alike, or weighted by ``probability``: exp of the mean
            token log-probability.
        rationales: In mode ``score``, whether to ask for rationales, or how many per row. Rows whose
            ``split`` is ``test`` get none: they are labelled for comparison, not for training.
        calibration: In mode ``score``: ``batch`` divides the distributions by their mean over the rows that
            are not test rows (at least 30 of them; else it is left out and a note says so);
            ``contextual`` by what the teacher makes of inputs without content. None keeps them raw.
        demonstrations: Chooses worked examples per row, in place of the task's own.
        redact: Applied to each input before it is sent; the dataset keeps the input as it was.
        keep_reasoning: Whether what a reasoning teacher thought becomes the rationale (mode ``cot``).
        store: Where exchanges are kept: an open store or a folder.
        limits: Attempts, back-off and ceilings.
        budget: The most that may be spent under this run's name, restarts included. Rows that do not
            fit get the error ``budget``.
        run: The run's name, in the store's lines and of the budget's ledger.
        max_tokens: Most tokens of a chain-of-thought answer.
        max_rationale_tokens: Most tokens of a rationale.
        on_progress: Called with a snapshot after each row.

    Returns:
        The dataset, every row and column as it was, with ``label``, ``rationale``, ``label_probs``
        (aligned with the row's choices), ``label_source``, ``off_label_mass``, ``confidence``,
        ``finish_reason``, ``teacher``, ``prompt_key``, ``prompt_tokens``, ``completion_tokens``,
        ``cost_usd``, ``votes``, ``agreement``, ``rationales`` and ``error``. A row without a label has
        its reason in ``error``.

    Raises:
        TaskError: If the task does not fit the dataset or the mode.
        TeacherError: If no request can succeed. What was answered before is in the store.
        StoreError: If the store cannot be written.
    """
    _check(mode, get_args(Mode), "mode")
    _check(probabilities, get_args(Probabilities), "probabilities")
    _check(vote, get_args(VoteRule), "vote")
    _check(calibration, (*get_args(Calibration), None), "calibration")
    _check_counts(samples=samples, max_tokens=max_tokens, max_rationale_tokens=max_rationale_tokens)
    _check_counts(least=0, rationales=rationales)
    _check_settings(temperature, limits, budget)
    check_fit(task, teacher, mode, probabilities, samples, vote, calibration)
    rows = prepared(read_rows(dataset, task), demonstrations)
    refuse_clash(dataset)
    if temperature is None:
        temperature = SAMPLING_TEMPERATURE if samples > 1 else 0.0
    if samples > 1 and not temperature:
        raise TaskError(
            f"temperature is 0 and samples is {samples}: the same answer would be paid for so many times; "
            "raise the temperature, or draw one"
        )
    with ExitStack() as stack:
        if isinstance(store, Store):
            opened = store
            opened.refresh()
        else:
            opened = stack.enter_context(Store(store))
        labeling = LabelingRun(task, teacher, rows, opened, on_progress)
        labeling.redact(redact)
        asker = Asker(
            teacher, opened, limits or Limits(), budget, run, on_pause=labeling.tell_of_pause
        )
        labeling.asking = RowAsker(
            task=task,
            teacher=teacher,
            asker=asker,
            probabilities=probabilities,
            samples=samples,
            temperature=temperature,
            vote=vote,
            max_tokens=max_tokens,
            rationales=int(rationales),
            max_rationale_tokens=max_rationale_tokens,
            keep_reasoning=keep_reasoning,
        )
        answers = run_sync(labeling.all(mode, calibration))
    return as_dataset(dataset, rows, _columns(answers, teacher))


def _columns(answers: list[RowAnswer], teacher: Teacher) -> Iterator[dict[str, Any]]:
    """Each row's label columns; its answer is let go then, so that memory never holds all of both."""
    answers.reverse()
    while answers:
        yield answers.pop().columns(teacher.name, teacher.prices)


def _check(value: object, allowed: tuple[object, ...], name: str) -> None:
    if value not in allowed:
        raise TaskError(f"{name} is {value!r}: choose {' or '.join(map(repr, allowed))}")


def _check_counts(*, least: int = 1, **counts: object) -> None:
    for name, value in counts.items():
        if not isinstance(value, Integral):
            raise TaskError(f"{name} is {value!r}: it must be a whole number")
        if value < least:
            raise TaskError(f"{name} is {value}: it must be at least {least}")


def _check_settings(temperature: object, limits: object, budget: object) -> None:
    """Refuse what would fail, or be refused by the server, when rows have been asked already."""
    if temperature is not None and not (isinstance(temperature, int | float) and temperature >= 0):
        raise TaskError(f"temperature is {temperature!r}: it must be a number, 0 or more")
    if limits is not None and not isinstance(limits, Limits):
        raise TaskError(f"limits is {limits!r}: give labelers.Limits(...)")
    if budget is not None and not isinstance(budget, Budget):
        raise TaskError(f"budget is {budget!r}: give labelers.Budget(...)")


def check_fit(
    task: Task,
    teacher: Teacher,
    mode: Mode,
    probabilities: Probabilities,
    samples: int,
    vote: VoteRule,
    calibration: Calibration | None,
) -> None:
    """Refuse, before anything is asked, what the task or the teacher cannot do."""
    if vote == "probability" and not teacher.top_logprobs:
        raise TeacherError(
            f"a vote by probability needs token probabilities, which {teacher.name} does not give: use "
            "vote: majority"
        )
    if mode == "cot":
        _check_demonstrations(task)
        return
    if not task.closed:
        raise TaskError(
            "mode `score` needs a closed label set, and the task has neither labels nor choices: "
            "use mode `cot`"
        )
    if (samples > 1) != (probabilities == "votes"):
        raise TaskError(
            f"mode `score` with probabilities: {probabilities} and samples: {samples}: several samples are "
            "drawn by `probabilities: votes` or in mode `cot`, and votes need at least 2"
        )
    if probabilities == "logprobs" and not teacher.top_logprobs:
        raise TeacherError(
            f"mode `score` needs token probabilities, which {teacher.name} does not give: use mode `cot`"
        )
    if probabilities == "scoring" and teacher.api != "completions":
        raise TaskError(
            "probabilities: scoring continues a text, which the chat API cannot: use api: completions"
        )
    if probabilities == "constrained" and not (
        isinstance(teacher, Constraining) and teacher.dialect
    ):
        raise TeacherError(
            f"probabilities: constrained holds the teacher to the label set, and how {teacher.name} takes a "
            "constraint is not known: set its dialect (in a recipe, teacher.structured) to `vllm`, "
            "`json_schema` or `llama.cpp`"
        )
    if calibration == "contextual" and task.labels is None:
        raise TaskError(
            "calibration: contextual needs one label set for all rows, and this task's choices differ per "
            "row: use batch"
        )


def _check_demonstrations(task: Task) -> None:
    """Refuse a demonstration that shows an answer as none could be read."""
    for number, example in enumerate(task.demonstrations, 1):
        if example.rationale is None:
            continue  # Refused where it is to be shown.
        shown = demonstrated(task, example)
        said = read_answer(shown, task, example.choices or task.labels).label
        if said is None or (
            plain(said) != plain(example.label) and not same_value(said, example.label)
        ):
            raise TaskError(
                f"demonstration {number} shows the answer {shown[-200:]!r}, which would be read as "
                f"{said!r} and not as its label {example.label!r}: correct the rationale, the label or "
                "task.answer"
            )


def prepared(rows: list[Row], demonstrations: Demonstrations | None) -> list[Row]:
    """The rows, each with the demonstrations chosen for it."""
    if demonstrations is None:
        return rows
    chosen = demonstrations.choose([row.input for row in rows])
    return [replace(row, demonstrations=d) for row, d in zip(rows, chosen, strict=True)]
