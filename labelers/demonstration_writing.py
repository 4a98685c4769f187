"""Has the teacher write demonstrations: why a human's label is right, for examples that have one.

Rationalization (Zelikman et al., 2022, STaR): the teacher is shown the right answer and asked for the
reason. The reason is kept only if the teacher, given it without the answer, then answers right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from labelers.answers import read_answer, read_rationale
from labelers.asking import Asker
from labelers.budget import Budget
from labelers.columns import read_column, require_columns, to_dataset
from labelers.concurrency import each, run_sync
from labelers.equations import same_value
from labelers.limits import Limits
from labelers.prompts import ANSWER_MARKER, build_request
from labelers.rows import Row, read_rows
from labelers.store import Store
from labelers.tasks import Demonstration, Task, TaskError, plain
from labelers.teachers import RowError, Teacher

if TYPE_CHECKING:
    import datasets
    import pandas as pd

#: Examples tried for each demonstration wanted; a teacher that fails on all of these is too weak.
_TRIES = 4
#: Takes personal data out of a text, and counts it by kind.
Redact = Callable[[str], tuple[str, Mapping[str, int]]]


@dataclass(frozen=True)
class Written:
    """What :func:`write_demonstrations` brought.

    Attributes:
        demonstrations: Those kept, ``written`` set.
        tried: Examples that were tried.
        failures: Why the others were not kept, by reason: how many.
    """

    demonstrations: tuple[Demonstration, ...]
    tried: int
    failures: dict[str, int]


def write_demonstrations(
    dataset: datasets.Dataset | pd.DataFrame,
    task: Task,
    teacher: Teacher,
    *,
    wanted: int = 8,
    redact: Redact | None = None,
    store: Store | str | PathLike[str] = ".curate",
    limits: Limits | None = None,
    budget: Budget | None = None,
    run: str = "",
    max_tokens: int = 256,
    seed: int = 0,
) -> Written:
    """Have the teacher write demonstrations for examples with gold.

    This is the one place where a teacher sees gold: give train rows only. What it writes bears
    ``written=True``.

    Args:
        dataset: Train rows with ``gold`` and what :func:`labelers.label` needs.
        task: The task; its own demonstrations are shown while the others are written.
        teacher: Who writes.
        wanted: Demonstrations to keep; up to four times as many examples are tried. Labels take turns.
        redact: Applied to each input before it is sent. A demonstration holds the redacted input, since it
            is sent with every row.
        store: Where exchanges are kept.
        limits: Attempts and back-off.
        budget: The most that may be spent.
        run: The run's name.
        max_tokens: Most tokens of a rationale.
        seed: Draws the examples.

    Raises:
        TaskError: If there is no gold, or a row of the split ``test`` is among the rows.
        TeacherError: If no request can succeed.
    """
    data = to_dataset(dataset)
    require_columns(data, ("gold",))
    if "split" in data.column_names and "test" in read_column(data, "split"):
        raise TaskError(
            "rows of the split 'test' are among those to be shown with their gold: leave them out"
        )
    gold = read_column(data, "gold")
    rows = read_rows(data.remove_columns("gold"), task)
    usable = [
        (row, label)
        for row, label in zip(rows, gold, strict=True)
        if isinstance(label, str) and (row.choices is None or label in row.choices)
    ]
    if not usable:
        raise TaskError("no row has a gold label that its choices allow: demonstrations need some")
    tried = _in_turns(usable, wanted * _TRIES, seed)
    with ExitStack() as stack:
        opened = store if isinstance(store, Store) else stack.enter_context(Store(store))
        asker = Asker(teacher, opened, limits or Limits(), budget, run)
        return run_sync(_write(asker, task, tried, wanted, max_tokens, redact))


def _in_turns(usable: Sequence[tuple[Row, str]], most: int, seed: int) -> list[tuple[Row, str]]:
    """Examples in random order, label after label, so that each label gets its share."""
    by_label: dict[str, list[tuple[Row, str]]] = {}
    for row, label in random.Random(seed).sample(usable, len(usable)):
        # In a task with choices per row labels do not recur: all examples take turns as one.
        by_label.setdefault(label if row.choices else "", []).append((row, label))
    turns: list[tuple[Row, str]] = []
    for place in range(max(map(len, by_label.values()))):
        turns += [examples[place] for examples in by_label.values() if place < len(examples)]
    return turns[:most]


async def _write(
    asker: Asker,
    task: Task,
    tried: Sequence[tuple[Row, str]],
    wanted: int,
    max_tokens: int,
    redact: Redact | None,
) -> Written:
    results: dict[int, Demonstration | str] = {}
    # In rounds, so that what is kept does not depend on which answer comes first.
    begun = 0
    try:
        while begun < len(tried) and _kept(results) < wanted:
            places = range(begun, min(begun + wanted - _kept(results), len(tried)))
            begun = places.stop

            async def one(i: int) -> None:
                try:
                    row, gold = tried[i]
                    if redact is not None:
                        row = replace(row, shown=redact(row.input)[0])
                    results[i] = await _one(asker, task, row, gold, max_tokens)
                except RowError as error:
                    results[i] = error.kind

            await each(list(places), one, concurrency=asker.teacher.concurrency)
    finally:
        await asker.close()
    demonstrations = [r for i in sorted(results) if isinstance(r := results[i], Demonstration)]
    failures: dict[str, int] = {}
    for result in results.values():
        if isinstance(result, str):
            failures[result] = failures.get(result, 0) + 1
    return Written(tuple(demonstrations[:wanted]), begun, failures)


def _kept(results: dict[int, Any]) -> int:
    return sum(isinstance(result, Demonstration) for result in results.values())


async def _one(
    asker: Asker, task: Task, row: Row, gold: str, max_tokens: int
) -> Demonstration | str:
    """One rationale, if it leads to the right answer; else why not."""
    teacher = asker.teacher
    how: dict[str, Any] = {"api": teacher.api, "model": teacher.model, "choices": row.choices}
    reply = await asker.ask(
        build_request(task, row.shown, kind="rationale", label=gold, max_tokens=max_tokens, **how)
    )
    rationale = read_rationale(reply.text).rationale
    if rationale is None or reply.finish_reason == "length":
        return "no_rationale"
    # Without demonstrations that lack a rationale, which this kind of question cannot show.
    shown = [each for each in task.demonstrations if each.rationale]
    if teacher.prefill:
        request = build_request(
            task, row.shown, kind="cot", prefix=f" {rationale} {ANSWER_MARKER}", demonstrations=shown,
            max_tokens=32, **how,
        )  # fmt: skip
    else:
        asked = f"{row.shown}\nThink of this: {rationale}"
        request = build_request(
            task, asked, kind="cot", demonstrations=shown, max_tokens=max_tokens, **how
        )
    answer = await asker.ask(request)
    text = f"{ANSWER_MARKER}{answer.text}" if teacher.prefill else answer.text
    said = read_answer(text, task, row.choices).label
    if said is None:
        return "unread"
    if said != gold and plain(said) != plain(gold) and not same_value(said, gold):
        return "wrong_answer"
    return Demonstration(
        input=row.shown,
        label=gold,
        rationale=rationale,
        choices=row.choices if task.choices else None,
        written=True,
    )
