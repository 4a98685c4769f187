"""Labels from what a teacher said before: recorded outputs instead of a teacher at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from labelers.answers import read_answer
from labelers.asking import Progress
from labelers.row_answers import RowAnswer
from labelers.rows import as_dataset, read_rows
from labelers.tasks import Task, TaskError

if TYPE_CHECKING:
    import datasets
    import pandas as pd


def _is_missing(output: object) -> bool:
    return output is None or type(output).__name__ == "NAType" or output != output


def label_recorded(
    dataset: datasets.Dataset | pd.DataFrame,
    task: Task,
    outputs: Sequence[object],
    *,
    teacher: str = "recorded",
    on_progress: Callable[[Progress], None] | None = None,
) -> datasets.Dataset:
    """Label a dataset with what a teacher said before: black-box distillation, no teacher at hand.

    Args:
        dataset: As for :func:`labelers.label`.
        task: Says how an answer is read; its instruction and demonstrations are not used.
        outputs: One raw output per row (a label, or a chain of thought that ends in
            one), or None.
        teacher: Shown in the ``teacher`` column.
        on_progress: Called once, at the end.

    Raises:
        TaskError: If there are not as many outputs as rows.
    """
    rows = read_rows(dataset, task)
    if len(outputs) != len(rows):
        raise TaskError(f"{len(outputs)} recorded outputs were given for {len(rows)} rows")
    answers = []
    for row, output in zip(rows, outputs, strict=True):
        answer = RowAnswer()
        if _is_missing(output):
            answer.error = "missing: no output was recorded for this row"
        else:
            answer.take(read_answer(str(output), task, row.choices))
        answers.append(answer)
    if on_progress:
        failed = sum(answer.error is not None for answer in answers)
        on_progress(Progress("label", len(rows), len(rows), 0, 0, 0, failed, 0, 0, None))
    return as_dataset(dataset, rows, [answer.columns(teacher, None) for answer in answers])
