"""Answers of a trained student to texts or to the rows of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.tables import is_null, read_options, read_table

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    import labelers


def predict(
    model: str | os.PathLike[str],
    data: Sequence[str] | str | os.PathLike[str] | pd.DataFrame | datasets.Dataset,
    *,
    output: str | os.PathLike[str] | None = None,
    method: str = "auto",
    num_beams: int = 1,
    abstain_below: float | None = None,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Predict labels with a student.

    Args:
        model: The folder or Hub id of a student, or of an export of it.
        data: Texts as the task's template renders them, or a table (file, folder, Hub id or object
            in memory) with the columns of the template that the student was trained with, or with a
            column ``input``; ``choices`` is read where labels differ from row to row, ``rationale``
            by a student that was trained to read it.
        output: File to be written as well: ``.csv``, ``.jsonl`` or ``.parquet``.
        method: ``score`` gives each label a probability, ``generate`` writes the answer, ``auto``
            scores where there are labels.
        num_beams: Beams of ``generate``; 1 is greedy.
        abstain_below: Answers of less confidence are left null.
        on_progress: Receives events with ``done`` and ``total``.

    Returns:
        The rows with ``prediction``, ``confidence``, ``label_probs`` and ``error`` (why there is no
        prediction) added; for texts, a column ``input`` before them.

    Raises:
        CurateError: If the file lacks the columns that are needed, or cannot be written.
    """
    import pandas as pd

    import student

    if output is not None:
        _check_output(Path(output))
    loaded = student.load(os.fspath(model))
    if isinstance(data, Sequence) and not isinstance(data, str):
        inputs, choices = [_rendered(loaded, text) for text in data], None
        table = pd.DataFrame({"input": inputs})
    else:
        table = read_table(data)
        inputs, choices = read_inputs(table, loaded)
    answers = student.predict(
        loaded,
        inputs,
        choices=choices,
        rationales=_rationales(table, loaded),
        method=method,
        num_beams=num_beams,
        abstain_below=abstain_below,
        on_progress=on_progress,
    )
    result = pd.concat(
        [table.drop(columns=[c for c in answers.columns if c in table.columns]), answers], axis=1
    )
    if output is not None:
        _write(result, Path(output))
    return result


def _task(loaded: Any) -> labelers.Task | None:
    """The task as far as a student remembers it: the template that rendered its inputs."""
    import labelers

    template = loaded.settings.get("template")
    return labelers.Task(instruction="predict", template=template) if template else None


def _rendered(loaded: Any, text: str) -> str:
    """A bare text as the student saw texts in training, where its template has one column only."""
    task = _task(loaded)
    if task is None or len(task.columns) != 1:
        return text
    return task.render({next(iter(task.columns)): text})


def read_inputs(table: pd.DataFrame, loaded: Any) -> tuple[list[str], list[list[str]] | None]:
    """Inputs, from the template's columns where they are all there, and each row's own options.

    Where options differ from row to row they stand in ``choices``, or in a column of the template.
    """
    task = _task(loaded)
    names = [str(name) for name in table.columns]
    if task is None or not task.columns <= set(names):
        if "input" not in names:
            wanted = sorted(task.columns - set(names)) if task else []
            lacks = f"the column {wanted[0]!r}" if wanted else "a column 'input'"
            reads = f"the student reads {task.template!r}, and " if task else ""
            raise CurateError(f"{reads}the data lacks {lacks}; its columns are {', '.join(names)}")
        task = None
    own_options = bool(loaded.settings.get("choices_differ_by_row"))
    columns = {name: table[name].tolist() for name in (sorted(task.columns) if task else ["input"])}
    inputs, choices = [], []
    for i in range(len(table)):
        row = {name: column[i] for name, column in columns.items()}
        if own_options:
            lists = {name: found for name, v in row.items() if (found := read_options(v))}
            row |= lists
            named = read_options(table["choices"][i]) if "choices" in names else None
            options = named or next(iter(lists.values()), None)
            if not options:
                raise CurateError(
                    f"row {i + 1}: this student chooses among each row's own options: a column 'choices' "
                    "must hold a list of options"
                )
            choices.append(options)
        inputs.append(_input(row, task, i))
    return inputs, choices if own_options else None


def _rationales(table: pd.DataFrame, loaded: Any) -> list[str | None] | None:
    """The column ``rationale``, for a student that reads it; else None."""
    if loaded.formatting.rationale_in != "input":
        return None
    if "rationale" not in table.columns:
        raise CurateError(
            "this student reads a rationale with every text: give rows with a column 'rationale', null "
            "where there is none"
        )
    return [text if isinstance(text, str) else None for text in table["rationale"]]


def _input(row: dict[str, Any], task: labelers.Task | None, i: int) -> str:
    """One row's input, rendered, or as it stands where there is no task."""
    from labelers import TaskError

    row = {name: None if is_null(value) or value == "" else value for name, value in row.items()}
    empty = [name for name, value in row.items() if value is None]
    try:
        text = task.render(row) if task else str(row["input"] or "")
    except TaskError as error:
        if not empty:
            raise CurateError(f"row {i + 1}: {error}") from error
        text = ""
    if not text.strip() or len(empty) == len(row):
        raise CurateError(
            f"row {i + 1}: the column {(empty or sorted(row))[0]!r} is null or empty: fill it in"
        )
    return text


def _check_output(path: Path) -> None:
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise CurateError(f"--output {path}: name a .csv, .jsonl or .parquet file")
    if not path.parent.is_dir():
        raise CurateError(f"--output {path}: {path.parent} is no folder: make it first")


def _write(table: pd.DataFrame, path: Path) -> None:
    kind = path.suffix.lower()
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
        raise CurateError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
