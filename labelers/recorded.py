"""Labels from what a teacher said before: recorded outputs instead of a teacher at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from labelers.answers import read_answer
from labelers.progress import Progress
from labelers.row_answers import RowAnswer
from labelers.rows import as_dataset, read_rows
from labelers.tasks import Task, TaskError

if TYPE_CHECKING:
    import datasets
    import pandas as pd


def _is_missing(output: object) -> bool:
    return output is None or type(output).__name__ == "NAType" or bool(output != output)


def label_recorded(
    dataset: datasets.Dataset | pd.DataFrame,
    task: Task,
    outputs: Sequence[object],
    *,
    teacher: str = "recorded",
    keep_reasoning: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> datasets.Dataset:
    """Label a dataset with what a teacher said before: black-box distillation, no teacher at hand.

    Args:
        dataset: As for :func:`labelers.label`.
        task: Says how an answer is read; its instruction and demonstrations are not used.
        outputs: One raw output per row (a label, or a chain of thought that ends in one), or None. Or
            one mapping per row with ``text``, and ``reasoning`` and ``finish_reason`` where they
            were recorded: an answer that ended for ``length`` is read as one that was cut off.
        teacher: Shown in the ``teacher`` column.
        keep_reasoning: Whether what a reasoning teacher thought becomes the rationale of rows whose
            answer gives none.
        on_progress: Called once, at the end.

    Returns:
        The dataset with the label columns. The column ``error`` says of every row without a label
        why: ``missing`` (no output), ``unread`` or ``truncated``, with the raw text.

    Raises:
        TaskError: If there are not as many outputs as rows, or a mapping has no ``text``.
    """
    rows = read_rows(dataset, task)
    if len(outputs) != len(rows):
        raise TaskError(f"{len(outputs)} recorded outputs were given for {len(rows)} rows")
    answers = []
    for number, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        answer = RowAnswer()
        text, reasoning, answer.finish_reason = _parts(output, number)
        if text is None:
            answer.error = "missing: no output was recorded for this row"
        else:
            cut_off = answer.finish_reason == "length"
            reading = read_answer(text, task, row.choices, cut_off=cut_off)
            unsure = reading.label is None or (row.choices is None and task.answer is None)
            if cut_off and unsure:
                answer.error = f"truncated: the answer was cut off before it was complete: {text!r}"
            else:
                answer.take(reading)
                if keep_reasoning and answer.label is not None and answer.rationale is None:
                    answer.rationale = reasoning or reading.reasoning
        answers.append(answer)
    if on_progress:
        failed = sum(answer.error is not None for answer in answers)
        on_progress(Progress("label", len(rows), len(rows), 0, 0, 0, failed, 0, 0, None))
    return as_dataset(dataset, rows, [answer.columns(teacher, None) for answer in answers])


def _parts(output: object, number: int) -> tuple[str | None, str | None, str | None]:
    """The text, reasoning and finish reason of a recorded output."""
    if _is_missing(output):
        return None, None, None
    if not isinstance(output, Mapping):
        return str(output), None, None
    if "text" not in output:
        raise TaskError(
            f"recorded output {number} has the fields {sorted(map(str, output))}: `text` is needed"
        )
    values = [
        None if _is_missing(value := output.get(name)) else str(value)
        for name in ("text", "reasoning", "finish_reason")
    ]
    return values[0], values[1], values[2]
