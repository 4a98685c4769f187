"""A person's verdicts on rows. They go before every filter."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from filters.arguments import FilterError
from filters.frames import as_frame, read_ids, text_column
from filters.rows import Flags, Objects, missing

VERDICTS = ("accept", "drop", "relabel")
_OPINIONS = ("label_probs", "rationale", "confidence", "off_label_mass", "agreement", "error")


def read_review(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read verdicts from a CSV or JSONL file.

    Each line has an `id`, a `verdict` ("accept", "drop" or "relabel") and, with "relabel", the
    new `label`; the column may also be called `review`. Other columns are left out, and so are
    lines without a verdict, so that a file of all rows may be filled in where needed.

    Returns:
        One row per verdict: `id`, `verdict`, `label` (null but with "relabel").

    Raises:
        FilterError: The file cannot be read, or a line of it. The message names the line.
    """
    path = Path(path)
    found: dict[str, tuple[str, str | None]] = {}
    for place, line in _read_lines(path):
        one = _read_line(line, f"{path}, {place}")
        if one is None:
            continue
        row, verdict, label = one
        if found.get(row, (verdict, label)) != (verdict, label):
            raise FilterError(
                f"{path}, {place}: {row!r} has two verdicts, {found[row][0]!r} before and "
                f"{verdict!r} here; leave one"
            )
        found[row] = (verdict, label)
    return pd.DataFrame(
        {
            "id": text_column(list(found)),
            "verdict": text_column([verdict for verdict, _ in found.values()]),
            "label": text_column([label for _, label in found.values()]),
        }
    )


def unmarked_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Labels on lines without a verdict, by id: where one is not the row's own, a word was forgotten."""
    path = Path(path)
    return {
        str(line["id"]): str(line["label"])
        for place, line in _read_lines(path)
        if line.get("id") and line.get("label") and _read_line(line, f"{path}, {place}") is None
    }


def _read_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix not in (".csv", ".jsonl"):
        raise FilterError(f"{path}: a review is a .csv or .jsonl file; rename or convert it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FilterError(f"{path}: the review cannot be read ({error})") from error
    if path.suffix == ".jsonl":
        for number, written in enumerate(text.splitlines(), start=1):
            if not written.strip():
                continue
            try:
                line = json.loads(written)
            except ValueError as error:
                raise FilterError(f"{path}, line {number}: it is no JSON ({error})") from error
            if not isinstance(line, dict):
                raise FilterError(f"{path}, line {number}: it is no object with id and verdict")
            yield f"line {number}", line
        return
    import csv
    import io

    reader = csv.DictReader(io.StringIO(text, newline=""))
    named = set(reader.fieldnames or [])
    if "id" not in named or not named & {"verdict", "review"}:
        raise FilterError(
            f"{path}: the columns are {', '.join(reader.fieldnames or []) or 'none'}; 'id' and "
            "'review' (or 'verdict') are needed"
            + ("; cells are separated by commas" if ";" in text.partition("\n")[0] else "")
        )
    for line in reader:
        yield f"line {reader.line_num}", line


def _read_line(line: Mapping[str, Any], place: str) -> tuple[str, str, str | None] | None:
    """Return (id, verdict, label) of one line; None without a verdict."""
    said = line.get("verdict", line.get("review"))
    if said is None or (isinstance(said, str) and not said.strip()):
        return None
    verdict = str(said).strip().lower()
    if verdict not in VERDICTS:
        raise FilterError(f"{place}: the verdict is {said!r}; allowed are {', '.join(VERDICTS)}")
    row, label = line.get("id"), line.get("label")
    if not isinstance(row, str) or not row:
        raise FilterError(f"{place}: the id is {row!r}; it must be the text that names a row")
    if verdict != "relabel":
        return row, verdict, None
    if not isinstance(label, str) or not label.strip():
        raise FilterError(
            f"{place}: {row!r} is to be relabelled and `label` is {label!r}; write one"
        )
    return row, verdict, label.strip()


def apply_review(frame: pd.DataFrame, review: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Write a person's verdicts into the column `review`, and new labels where they say so.

    A relabelled row gets the new label, `label_source` "review", and nothing of what the teacher
    thought of the old one: rationale, probabilities, confidence and error become null.

    Args:
        frame: Rows with an `id`; the caller's frame is left as it is.
        review: What `read_review` gives.

    Returns:
        The rows, and a sentence where verdicts name no row.

    Raises:
        FilterError: A new label that is not among the row's `choices`.
    """
    frame = as_frame(frame)
    places = {one: place for place, one in enumerate(read_ids(frame))}
    verdicts = np.full(len(frame), None, dtype=object)
    labels: dict[int, str] = {}
    unknown = []
    for line in review.astype(object).where(review.notna(), None).to_dict("records"):
        place = places.get(line["id"])
        if place is None:
            unknown.append(line["id"])
            continue
        verdicts[place] = line["verdict"]
        if line["verdict"] == "relabel":
            labels[place] = line["label"]
    frame["review"] = text_column(verdicts).array
    warnings = []
    if unknown:
        warnings.append(
            f"review: {len(unknown)} of {len(review)} verdicts name rows that are not there, first "
            f"{unknown[0]!r}; they change nothing"
        )
    return (_relabel(frame, labels) if labels else frame), warnings


def _relabel(frame: pd.DataFrame, labels: Mapping[int, str]) -> pd.DataFrame:
    if "choices" in frame.columns:
        for place, label in labels.items():
            choices = frame["choices"].iloc[place]
            allowed = [] if choices is None or isinstance(choices, float) else list(choices)
            if allowed and label not in allowed:
                raise FilterError(
                    f"review: {frame['id'].iloc[place]!r} is to be labelled {label!r}; its choices "
                    f"are {', '.join(map(repr, allowed))}; write one of them"
                )
    changed: dict[str, dict[int, str | None]]
    changed = {"label": {**labels}, "label_source": dict.fromkeys(labels, "review")}
    changed |= {name: dict.fromkeys(labels) for name in _OPINIONS if name in frame.columns}
    for name, values in changed.items():
        column = np.full(len(frame), None, dtype=object)
        if name in frame.columns:
            column[:] = frame[name].tolist()
        for place, value in values.items():
            column[place] = value
        frame[name] = pd.Series(column, index=frame.index, dtype=object)
        if name in ("confidence", "off_label_mass", "agreement"):
            frame[name] = pd.to_numeric(frame[name])
        elif name != "label_probs":
            frame[name] = text_column([None if pd.isna(v) else v for v in frame[name]]).array
    return frame


def read_verdicts(frame: pd.DataFrame, ids: Objects) -> tuple[Flags, Flags]:
    """Return which rows a person drops and which a person keeps, both of shape (n,).

    Raises:
        FilterError: The column `review` holds another word.
    """
    dropped, accepted = np.zeros(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    if "review" not in frame.columns:
        return dropped, accepted
    null = missing(frame["review"])
    for place, verdict in enumerate(frame["review"].tolist()):
        if null[place]:
            continue
        if verdict not in VERDICTS:
            raise FilterError(
                f"row {ids[place]!r}: review is {verdict!r}; this column holds a person's verdict, "
                f"one of {', '.join(VERDICTS)}, or null; if it means something else, rename it"
            )
        dropped[place], accepted[place] = verdict == "drop", verdict != "drop"
    return dropped, accepted
