"""Training rows: read from a dataset, checked, and parted into training and validation."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from student.errors import InputError

__all__ = ["Example", "blank_rows_notes", "read_examples", "shared_labels", "split_validation"]

BLANK = ("blank input", "blank label")
"""Reasons to leave a row out that hint at a mistake in the data, rather than at a choice."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training row, read and checked."""

    input: str
    target: str
    rationale: str | None = None
    choices: tuple[str, ...] | None = None
    label_probs: tuple[Any, ...] | None = None
    weight: float = 1.0
    copies: int = 1
    group: str | None = None
    confidence: float | None = None
    split: str = "train"
    id: str | None = None


def read_examples(data: object, *, target: str = "label") -> tuple[list[Example], dict[str, int]]:
    """Read training rows from a pandas DataFrame, a `datasets.Dataset` or an iterable of dicts.

    Columns used: `input` and the target column (`label`, the teacher's, or `gold`), and where they
    exist `rationale`, `choices`, `label_probs`, `weight`, `copies`, `group`, `split`, `keep`, `id`.
    Returns the examples and a count of the rows left out, by reason: `test split`, `not kept`
    (`keep` is false), `no label`, `blank input` and `blank label` (a text of white space or nothing),
    `weight or copies zero`.
    Raises `InputError` for a missing column, a bad value (with its row), or when nothing is left.
    """
    if target not in ("label", "gold"):
        raise InputError(f"target={target!r} is not known; allowed: 'label' (teacher's), 'gold'")
    examples: list[Example] = []
    reasons = ("test split", "not kept", "no label", *BLANK, "weight or copies zero")
    left_out = dict.fromkeys(reasons, 0)
    rows = 0
    for rows, row in enumerate(_rows(data), start=1):
        if rows == 1:
            missing = [name for name in ("input", target) if name not in row]
            if missing:
                raise InputError(
                    f"the data has no column {missing[0]!r}; it has {', '.join(map(str, row))}"
                )
        _check_cells(row, rows - 1)
        reason = _why_left_out(row, target)
        if reason is not None:
            left_out[reason] += 1
            continue
        examples.append(_example(row, rows - 1, target))
        if min(examples[-1].weight, examples[-1].copies) == 0:
            examples.pop()
            left_out["weight or copies zero"] += 1
    if not any(example.split == "train" for example in examples):
        raise InputError(_nothing_left(rows, left_out, target))
    return examples, {reason: count for reason, count in left_out.items() if count}


def split_validation(
    examples: Sequence[Example], fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Part training from validation rows; rows of one group, or of equal input, stay together."""
    given = [example for example in examples if example.split == "validation"]
    training = [example for example in examples if example.split != "validation"]
    if given or fraction == 0:
        return training, given
    by_group: dict[str, list[Example]] = {}
    units = _units(training)
    for unit, example in zip(units, training, strict=True):
        by_group.setdefault(unit, []).append(example)
    names = sorted(by_group)
    random.Random(seed).shuffle(names)
    wanted, taken = fraction * len(training), set()
    count = 0
    for name in names:
        if count + len(by_group[name]) / 2 <= wanted:  # never more than half a group too many
            taken.add(name)
            count += len(by_group[name])
    if not 0 < count < len(training):
        raise InputError(
            f"validation_fraction={fraction} cannot be carved out of {len(training)} rows in "
            f"{len(names)} groups; give rows with split='validation', or set it to 0"
        )
    held = [example for name in names if name in taken for example in by_group[name]]
    return [e for unit, e in zip(units, training, strict=True) if unit not in taken], held


def _units(examples: Sequence[Example]) -> list[str]:
    """Name each row's unit: rows of one group or with one input share it, chains followed."""
    parent = list(range(len(examples)))
    first: dict[tuple[str, str], int] = {}

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    for place, example in enumerate(examples):
        keys = [("input", example.input), *([("group", example.group)] if example.group else [])]
        for key in keys:
            low, high = sorted((root(place), root(first.setdefault(key, place))))
            parent[high] = low
    names: dict[int, str] = {}
    for place, example in enumerate(examples):
        own = example.group or example.input
        names[root(place)] = min(names.get(root(place), own), own)
    return [names[root(place)] for place in range(len(examples))]


def shared_labels(examples: Sequence[Example], labels: Sequence[str] | None) -> list[str] | None:
    """Return the one label set of all rows, or None; every target must be among its choices."""
    sets = {example.choices for example in examples}
    shared = list(dict.fromkeys(labels)) if labels is not None else None
    if labels is None and len(sets) == 1:
        only = sets.pop()
        shared = list(only) if only else None
    for example in examples:
        allowed = shared if shared is not None else example.choices
        if allowed is not None and example.target not in allowed:
            raise InputError(
                f"the label {example.target!r} of the row {example.input[:60]!r} is not among "
                f"{list(allowed)}; correct the row or the label set"
            )
    return shared


def _rows(data: Any) -> Iterable[Mapping[str, Any]]:
    if hasattr(data, "iter_rows"):  # polars
        named: Iterable[Mapping[str, Any]] = data.iter_rows(named=True)
        return named
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        rows: Iterable[Mapping[str, Any]] = data.to_dict("records")
        return rows
    if isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise InputError(
            f"data is a {type(data).__name__}; give a pandas DataFrame, a datasets.Dataset or a "
            "list of dicts"
        )
    return data


def _check_cells(row: Mapping[str, Any], number: int) -> None:
    """A word that is taken for another would train on rows that were to be left out."""
    split, keep = row.get("split"), row.get("keep")
    if not _is_null(split) and split not in ("train", "validation", "test"):
        raise InputError(
            f"row {number}: split is {split!r}; it must be 'train', 'validation', 'test' or null"
        )
    if isinstance(keep, str):
        raise InputError(f"row {number}: keep is the text {keep!r}; give true, false or null")


def _why_left_out(row: Mapping[str, Any], target: str) -> str | None:
    if row.get("split") == "test":
        return "test split"
    if not _is_null(row.get("keep")) and not row["keep"]:
        return "not kept"
    if _is_null(row.get(target)):
        return "no label"
    for column, reason in zip(("input", target), BLANK, strict=True):
        value: Any = row.get(column)
        first = next(iter(value), None) if _is_list(value) else value
        if isinstance(first, str) and not first.strip():
            return reason
    return None


def blank_rows_notes(left_out: Mapping[str, int], target: str) -> list[str]:
    """Return a sentence for a person on each kind of blank rows that were left out."""
    said = []
    for reason, column in zip(BLANK, ("input", target), strict=True):
        count = left_out.get(reason, 0)
        row, has, was = ("row", "has", "was") if count == 1 else ("rows", "have", "were")
        if count:
            said.append(
                f"{count} {row} {has} an empty or blank {column} and {was} not trained on: fill the "
                f"column, or remove the {row}"
            )
    return said


def _example(row: Mapping[str, Any], number: int, target: str) -> Example:
    weight, copies = _count(row, "weight", number), _count(row, "copies", number)
    if copies != int(copies):
        raise InputError(f"row {number}: copies is {copies!r}; it must be a whole number")
    choices: Any = row.get("choices")
    if isinstance(choices, str):
        raise InputError(
            f"row {number}: choices is the text {choices!r}; it must be a list of texts"
        )
    rationale, group, name = row.get("rationale"), row.get("group"), row.get("id")
    confidence = row.get("confidence")  # looked at only by the curriculum
    soft: Any = row.get("label_probs")  # looked at only by the objective that learns from it
    return Example(
        input=_text(row, "input", number),
        target=_first_text(row, target, number),
        rationale=None if _is_null(rationale) else _text(row, "rationale", number).strip() or None,
        choices=None if _is_null(choices) else tuple(choices),
        label_probs=None if _is_null(soft) else tuple(soft) if _is_list(soft) else (soft,),
        weight=weight,
        copies=int(copies),
        group=None if _is_null(group) else str(group),
        confidence=float(confidence) if isinstance(confidence, Real) else None,
        split="validation" if row.get("split") == "validation" else "train",
        id=None if _is_null(name) else str(name),
    )


def _text(row: Mapping[str, Any], column: str, number: int) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise InputError(f"row {number}: {column} is {value!r}; it must be a text")
    return value


def _first_text(row: Mapping[str, Any], column: str, number: int) -> str:
    """Return the text there; of several references the first, which is the one to be written."""
    value: Any = row.get(column)
    several = list(value) if _is_list(value) else []
    return _text({column: several[0]} if several else row, column, number)


def _count(row: Mapping[str, Any], column: str, number: int) -> float:
    value = row.get(column)
    if _is_null(value):
        return 1.0
    found = float(value) if isinstance(value, Real) else math.nan
    if not (math.isfinite(found) and found >= 0):
        raise InputError(f"row {number}: {column} is {value!r}; it must be a number, 0 or more")
    return found


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def _is_null(value: object) -> bool:
    """Say whether a cell is empty: None, NaN or pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)


def _nothing_left(rows: int, left_out: Mapping[str, int], target: str) -> str:
    if rows == 0:
        return "the training data has no rows"
    if left_out["no label"] + left_out["blank label"] == rows:
        other = "label" if target == "gold" else "gold"
        return (
            f"all {rows} rows have an empty {target!r} column; label them first, or train on the "
            f"other column with target={other!r}"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    fill = "fill in the blank texts, " if any(left_out[reason] for reason in BLANK) else ""
    return (
        f"no training row is left of {rows} ({reasons or 'all are validation rows'}); {fill}"
        "loosen the filters or give more data"
    )
