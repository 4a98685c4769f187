"""Merges what several teachers said about the same rows into one soft label with its agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelers.columns import (
    RowsError,
    read_choices,
    read_column,
    replace_columns,
    require_columns,
    to_dataset,
)
from labelers.rows import LABEL_COLUMNS
from labelers.votes import How, Vote, check_weights, same_answer, tally

if TYPE_CHECKING:
    import datasets
    import pandas as pd

#: What must be equal, row by row, for two copies to be of the same rows.
_SAME = ("id", "input", "choices")
#: Label columns that a copy labelled by other means may lack.
_OPTIONAL = ("votes", "agreement", "rationales", "finish_reason", "prompt_key", "off_label_mass")


@dataclass(frozen=True)
class _Copy:
    """One teacher's answers, column by column."""

    name: str
    weight: float
    columns: dict[str, list[Any]]

    def says(self, name: str, row: int) -> Any:
        """A value, or None where the copy lacks the column."""
        return self.columns[name][row] if name in self.columns else None


def merge(
    labelled: Sequence[datasets.Dataset | pd.DataFrame],
    *,
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    how: How = "probability",
) -> datasets.Dataset:
    """Merge several teachers' labelled copies of the same rows.

    Each teacher has one vote in a row, its label; :func:`labelers.tally` counts them. A teacher that
    failed on a row has no vote in its label, and agrees with none. Free text is counted by majority,
    whatever ``how`` says.

    Args:
        labelled: One labelled copy of the rows per teacher, in the same order.
        weights: How much each teacher counts; by default all count 1.
        names: The teachers' names; by default what their column ``teacher`` says.
        labels: The label set, in the order of ``label_probs``, where rows have no ``choices``.
        how: ``probability`` takes the weighted mean of the distributions; every teacher must give
            one with its label. ``majority`` counts labels, and probabilities only break a tie.

    Returns:
        The first copy's rows with its label columns replaced. ``label``, ``label_probs`` and
        ``confidence`` are the merged ones and ``label_source`` is "ensemble". ``votes`` has each
        teacher's label in order and ``agreement`` the weighted share that says ``label``.
        ``rationale``, ``finish_reason`` and ``prompt_key`` are those of the most confident teacher
        that says ``label`` (for the rationale: that has one). ``off_label_mass`` is the weighted mean
        of those given. ``teacher`` is "a+b"; tokens and costs are summed, and a cost that is null
        counts as nothing. ``error`` is null unless no teacher labelled the row, or the vote is tied.

    Raises:
        RowsError: If there are fewer than two copies, or they are not of the same rows.
        VoteError: If weights do not fit, or ``how`` is ``probability`` and a label has none.
    """
    if len(labelled) < 2:
        raise RowsError(
            f"{len(labelled)} labelled copies were given: at least 2 are needed to merge"
        )
    if names is not None and len(names) != len(labelled):
        raise RowsError(f"{len(labelled)} copies came with {len(names)} names: give one for each")
    copies = [to_dataset(copy, f"copy {number}") for number, copy in enumerate(labelled, 1)]
    choices = _check_same(copies, labels)
    read = [
        _Copy(
            names[k] if names is not None else _name(copy, k),
            weight,
            {name: read_column(copy, name) for name in LABEL_COLUMNS if name in copy.column_names},
        )
        for k, (copy, weight) in enumerate(
            zip(copies, check_weights(weights, len(copies)), strict=True)
        )
    ]
    rows = [_merge_row(read, i, choices[i], how) for i in range(len(copies[0]))]
    return replace_columns(
        copies[0], {name: [row.get(name) for row in rows] for name in LABEL_COLUMNS}
    )


def _name(copy: datasets.Dataset, place: int) -> str:
    said = [name for name in read_column(copy, "teacher") if name]
    return said[0] if said else f"teacher {place + 1}"


def _check_same(
    copies: Sequence[datasets.Dataset], labels: Sequence[str] | None
) -> list[list[str] | None]:
    """Refuse copies that are not of the same rows; the rows' choices."""
    first = copies[0]
    choices: list[list[str] | None] = []
    for number, copy in enumerate(copies, 1):
        require_columns(copy, [n for n in LABEL_COLUMNS if n not in _OPTIONAL], f"copy {number}")
        if len(copy) != len(first):
            raise RowsError(
                f"copy {number} has {len(copy)} rows and copy 1 has {len(first)}: label the same rows"
            )
        for name in _SAME:
            if (name in copy.column_names) != (name in first.column_names):
                raise RowsError(f"copy {number} and copy 1 do not both have the column {name!r}")
            if name not in first.column_names or number == 1:
                continue
            pairs = zip(read_column(first, name), read_column(copy, name), strict=True)
            for i, (one, other) in enumerate(pairs):
                if one != other:
                    raise RowsError(
                        f"row {i} of copy {number} has the {name} {other!r}, and {one!r} in copy 1: merge "
                        "labels of the same rows in the same order"
                    )
        own = read_choices(copy, labels, f"copy {number}")
        choices = choices or own
    return choices


def _merge_row(
    copies: Sequence[_Copy], i: int, choices: Sequence[str] | None, how: How
) -> dict[str, Any]:
    vote = tally(
        [copy.says("label", i) for copy in copies],
        choices=choices,
        probabilities=[copy.says("label_probs", i) for copy in copies] if choices else None,
        how=how if choices else "majority",
        weights=[copy.weight for copy in copies],
    )
    agreeing = _agreeing(copies, i, vote, free=choices is None)
    best = agreeing[0] if agreeing else None
    explaining = [copy for copy in agreeing if copy.says("rationale", i)]
    costs = [cost for copy in copies if (cost := copy.says("cost_usd", i)) is not None]
    return {
        "label": vote.label,
        "rationale": explaining[0].says("rationale", i) if explaining else None,
        "rationales": [text for copy in agreeing for text in _rationales(copy, i)] or None,
        "label_probs": vote.label_probs,
        "label_source": "ensemble" if vote.label is not None else None,
        "off_label_mass": _off_label_mass(copies, i),
        "confidence": vote.confidence,
        "finish_reason": best.says("finish_reason", i) if best else None,
        "teacher": "+".join(copy.name for copy in copies),
        "prompt_key": best.says("prompt_key", i) if best else None,
        "prompt_tokens": sum(copy.says("prompt_tokens", i) or 0 for copy in copies),
        "completion_tokens": sum(copy.says("completion_tokens", i) or 0 for copy in copies),
        "cost_usd": sum(costs) if costs else None,
        "error": _error(copies, i, vote),
        "votes": list(vote.votes),
        "agreement": vote.agreement,
    }


def _agreeing(copies: Sequence[_Copy], i: int, vote: Vote, *, free: bool) -> list[_Copy]:
    """The copies that say the merged label, the most confident first."""
    if vote.label is None:
        return []
    wanted = same_answer(vote.label) if free else vote.label
    found = [
        copy
        for copy in copies
        if (said := copy.says("label", i)) is not None
        and (same_answer(said) if free else said) == wanted
    ]
    return sorted(found, key=lambda copy: -(copy.says("confidence", i) or 0.0))


def _rationales(copy: _Copy, i: int) -> list[str]:
    rationale = copy.says("rationale", i)
    return list(copy.says("rationales", i) or ([rationale] if rationale else []))


def _off_label_mass(copies: Sequence[_Copy], i: int) -> float | None:
    given = [
        (copy.weight, mass)
        for copy in copies
        if (mass := copy.says("off_label_mass", i)) is not None
    ]
    total = sum(weight for weight, _ in given)
    return sum(weight * mass for weight, mass in given) / total if given else None


def _error(copies: Sequence[_Copy], i: int, vote: Vote) -> str | None:
    """Why the merged row has no label: what each teacher failed by, or that they are even."""
    if vote.label is not None:
        return None
    if any(said is not None for said in vote.votes):
        return vote.problem
    reasons = [f"{copy.name}: {copy.says('error', i) or 'no label'}" for copy in copies]
    return "unlabelled: no teacher labelled the row; " + "; ".join(reasons)
