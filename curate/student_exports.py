"""A run's student in a format that runs faster or elsewhere, held against the original."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.prediction import read_inputs
from curate.run_folder import RunFolder
from curate.tables import is_null, read_table

if TYPE_CHECKING:
    import pandas as pd

#: At most so many rows are predicted by both, and so many are timed.
MOST_ROWS, TIMED_ROWS = 500, 200


@dataclass(frozen=True, kw_only=True)
class ExportedStudent:
    """An exported student.

    Attributes:
        folder: The exported folder, which `predict` reads.
        report: What the gate found; see :class:`student.Export`.
        rows: Which rows both were held against each other on, in words.
        speed: What predicting takes, by ``student`` and ``export``; see :func:`student.measure`. The
            export is missing where its runtime is not installed.
    """

    folder: Path
    report: Mapping[str, Any]
    rows: str
    speed: Mapping[str, Mapping[str, Any]]


def export_student(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    to: str = "ctranslate2",
    rows: str | os.PathLike[str] | pd.DataFrame | None = None,
    gold: str | None = None,
    quantization: str = "int8",
    min_agreement: float = 0.98,
    max_accuracy_drop: float = 0.01,
    on_progress: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> ExportedStudent:
    """Export a student, if it then answers as before.

    Args:
        run: A run folder, or a student's folder.
        output: The exported folder; by default ``RUN/export/student-<format>``.
        to: ``ctranslate2``, ``onnx`` or ``transformers``.
        rows: Rows to hold both against each other on, with the columns that the student reads; by
            default the run's validation rows, or else its test rows, at most 500.
        gold: Column of ``rows`` that holds the human label.
        quantization: Of CTranslate2: ``int8`` or ``float32``.
        min_agreement: Least share of rows on which both must give the same answer.
        max_accuracy_drop: Most that accuracy may fall, as a share.
        on_progress: Receives the stage ``export`` and its events.

    Raises:
        CurateError: If there is no student, or there are no rows.
        student.ExportError: If the export answers otherwise. Only a report of why is left.
    """
    import student

    folder = Path(run)
    source = folder / "student" if (folder / "student").is_dir() else folder
    if not (source / "config.json").is_file():
        raise CurateError(
            f"{folder} is neither a run folder with a student nor a student's folder: `curate train` makes "
            "one"
        )
    if output is None:
        output = (folder if source != folder else folder.parent) / "export" / f"student-{to}"
    loaded = student.load(source)
    inputs, choices, golds, said, words = _rows(folder, loaded, rows, gold)
    tell = on_progress or (lambda stage, event: None)
    done = student.export(
        source,
        Path(output),
        to=to,
        inputs=inputs,
        gold=golds,
        choices=choices,
        rationales=said,
        quantization=quantization,
        min_agreement=min_agreement,
        max_accuracy_drop=max_accuracy_drop,
        on_progress=lambda event: tell("export", event),
    )
    timed = {"student": source} | ({"export": done.folder} if done.report["checked"] else {})
    speed = {
        name: student.measure(
            place,
            inputs[:TIMED_ROWS],
            choices=None if choices is None else choices[:TIMED_ROWS],
            rationales=None if said is None else said[:TIMED_ROWS],
            precision="fp32",
        )
        for name, place in timed.items()
    }
    return ExportedStudent(folder=done.folder, report=done.report, rows=words, speed=speed)


def _rows(
    folder: Path, loaded: Any, rows: Any, gold: str | None
) -> tuple[
    list[str], list[list[str]] | None, list[str | None] | None, list[str | None] | None, str
]:
    """Inputs, choices, gold and, for a student that reads them, rationales; and what rows these are."""
    if rows is not None:
        table = read_table(rows)
        words = f"{len(table)} rows given"
        if gold is not None and gold not in table.columns:
            names = ", ".join(map(str, table.columns))
            raise CurateError(f"--gold names the column {gold!r}, which the rows lack: {names}")
    elif (folder / "labeled.parquet").is_file():
        frame = RunFolder(folder).read_table("labeled.parquet")
        split = "validation" if (frame["split"] == "validation").any() else "test"
        table = frame[frame["split"] == split].reset_index(drop=True)
        words, gold = f"the run's {split} rows", "gold"
        if len(table) > MOST_ROWS:
            table = table.sample(MOST_ROWS, random_state=0).reset_index(drop=True)
            words = f"{MOST_ROWS} of {words}"
        # A run's rows are rendered already.
        choices = None if table["choices"].isna().any() else [list(c) for c in table["choices"]]
        own = choices if loaded.settings.get("choices_differ_by_row") else None
        return table["input"].tolist(), own, _golds(table, gold), _read(table, loaded), words
    else:
        raise CurateError(
            f"{folder} is a student without its run: name a file of rows with --rows, so that the export "
            "can be held against it"
        )
    inputs, choices = read_inputs(table, loaded)
    golds = None if gold is None else _golds(table, gold)
    return inputs, choices, golds, _read(table, loaded), words


def _golds(table: pd.DataFrame, column: str) -> list[str | None] | None:
    firsts = [next(iter(v), None) if isinstance(v, list) else v for v in table[column]]
    found = [None if is_null(value) else str(value) for value in firsts]
    return found if any(value is not None for value in found) else None


def _read(table: pd.DataFrame, loaded: Any) -> list[str | None] | None:
    """The rows' rationales, for a student that reads one with each text."""
    if loaded.formatting.rationale_in != "input":
        return None
    if "rationale" not in table.columns:
        raise CurateError(
            "this student reads a rationale with each text: the rows lack 'rationale'"
        )
    return [None if is_null(text) else str(text) for text in table["rationale"]]
