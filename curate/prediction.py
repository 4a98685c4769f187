"""Answers of a trained student to texts or to the rows of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.tables import read_table

if TYPE_CHECKING:
    import datasets
    import pandas as pd


def predict(
    model: str | os.PathLike[str],
    data: Sequence[str] | str | os.PathLike[str] | pd.DataFrame | datasets.Dataset,
    *,
    output: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Predict labels with a student.

    Args:
        model: The student's folder or Hub id.
        data: Texts as the task's template renders them, or a table (file, folder, Hub id or object
            in memory) with an ``input`` column or the columns of the template that the student was
            trained with; ``choices`` is read where labels differ from row to row.
        output: File to be written as well: ``.csv``, ``.jsonl`` or ``.parquet``.
        on_progress: Receives events with ``done`` and ``total``.

    Returns:
        The rows with ``prediction``, ``confidence`` and ``label_probs`` added; for texts, a column
        ``input`` before them.

    Raises:
        CurateError: If the file lacks the columns that are needed, or cannot be written.
    """
    import pandas as pd

    import student

    loaded = student.load(os.fspath(model))
    if isinstance(data, Sequence) and not isinstance(data, str):
        table = pd.DataFrame({"input": [_rendered(loaded, text) for text in data]})
    else:
        table = read_table(data)
    inputs = _inputs(table, loaded)
    choices = None
    if "choices" in table.columns:
        choices = [list(c) for c in table["choices"]]
    answers = student.predict(loaded, inputs, choices=choices, on_progress=on_progress)
    result = pd.concat(
        [table.drop(columns=[c for c in answers.columns if c in table.columns]), answers], axis=1
    )
    if output is not None:
        _write(result, Path(output))
    return result


def _template(loaded: Any) -> str | None:
    template: str | None = loaded.settings.get("template")
    return template


def _rendered(loaded: Any, text: str) -> str:
    """A bare text as the student saw texts in training, where its template has one column only."""
    import labelers

    template = _template(loaded)
    if template is None:
        return text
    task = labelers.Task(instruction="predict", template=template)
    if len(task.columns) != 1:
        return text
    return task.render({next(iter(task.columns)): text})


def _inputs(table: pd.DataFrame, loaded: Any) -> list[str]:
    import labelers

    if "input" in table.columns:
        return [str(value) for value in table["input"]]
    template = _template(loaded)
    if template is None:
        raise CurateError(
            f"the file has no column 'input'; its columns are {', '.join(map(str, table.columns))}: rename "
            "the text's column to input"
        )
    task = labelers.Task(instruction="predict", template=template)
    missing = sorted(task.columns - set(table.columns))
    if missing:
        raise CurateError(
            f"the student reads {template!r}, and the file lacks the column {missing[0]!r}; its columns "
            f"are {', '.join(map(str, table.columns))}"
        )
    columns = {name: table[name].tolist() for name in task.columns}
    return [task.render({n: c[i] for n, c in columns.items()}) for i in range(len(table))]


def _write(table: pd.DataFrame, path: Path) -> None:
    kind = path.suffix.lower()
    if kind not in (".csv", ".jsonl", ".parquet"):
        raise CurateError(f"--output {path}: name a .csv, .jsonl or .parquet file")
    temporary = path.with_name(f".{path.name}.part")
    try:
        if kind == ".csv":
            table.to_csv(temporary, index=False)
        elif kind == ".jsonl":
            table.to_json(temporary, orient="records", lines=True, force_ascii=False)
        else:
            table.to_parquet(temporary, index=False)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CurateError(f"{path} cannot be written: {error.strerror or error}") from error
