"""New rows where text is scarce: the teacher writes inputs, which are labelled later like any other row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import TYPE_CHECKING

from labelers.asking import Asker
from labelers.budget import Budget
from labelers.concurrency import run_sync
from labelers.generation_results import Generation
from labelers.generation_rounds import Redact, Rounds
from labelers.generation_seeds import plan_cells, read_seeds
from labelers.limits import Limits
from labelers.novelty import Forbidden, Nearness, words
from labelers.progress import OnProgress
from labelers.store import Store
from labelers.tasks import Task, TaskError
from labelers.teachers import Teacher

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_SHORTEST_WORDS = 3
_LONGEST_FACTOR = 2
_REQUESTS_PER_ROW = 4


def generate(
    task: Task,
    teacher: Teacher,
    *,
    seeds: datasets.Dataset | pd.DataFrame,
    wanted: Mapping[str, int] | int,
    per_cluster: bool = False,
    attributes: Mapping[str, Sequence[str]] | None = None,
    shots: int = 3,
    temperature: float = 0.9,
    max_tokens: int = 96,
    near_duplicate: float = 0.7,
    max_requests: int | None = None,
    forbidden: Sequence[str] = (),
    seeded_by: str = "label",
    redact: Redact | None = None,
    store: Store | str | PathLike[str] = ".curate",
    limits: Limits | None = None,
    budget: Budget | None = None,
    run: str = "",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Generation:
    """Have the teacher write new inputs, one a request, and keep those that are new.

    The rows have no label yet: ``generated_for`` says which one was intended, and labeling them with
    another prompt or teacher tells whether it came out so (:func:`agreement`). Texts are judged in the
    order of their requests, so equal arguments give equal rows, and a second run asks nothing.

    Args:
        task: What the inputs are for. Its options must not differ from row to row.
        teacher: Who writes.
        seeds: Train rows to be like: ``input`` and ``label``; ``id`` and ``cluster`` where present. A
            row without a label is not shown, but nothing near to it is taken either. The task's
            demonstrations fill up where a label has fewer seeds than are shown.
        wanted: New rows by label, or one number for each label; for free text a number in all.
        per_cluster: Divide a label's rows evenly over the clusters of the seeds, and show seeds of one
            cluster at a time. A cluster without rows of the label shows its other rows, with their labels.
        attributes: What texts may vary in, such as ``{"tone": ["angry", "dry"]}``: each request draws one
            value of each.
        shots: Seeds shown in a request.
        temperature: Sampling temperature.
        max_tokens: Most tokens of one text; one that is cut off is rejected.
        near_duplicate: Jaccard similarity of words from which a text is too near to a seed or to a text
            taken before.
        max_requests: Most requests; by default four for each row wanted.
        forbidden: Texts that no row may be near to, such as all test inputs. They are only compared with,
            as hashes, and never shown to the teacher.
        seeded_by: Where the seeds' labels come from, ``gold`` or ``label``; it is written into the rows
            (null for free text, where no label is shown).
        redact: Takes personal data out of the seeds before they are shown.
        store: Where exchanges are kept: an open store or a folder.
        limits: Attempts, back-off and ceilings.
        budget: The most that may be spent under this run's name, restarts included.
        run: The run's name, in the store's lines and of the budget's ledger.
        seed: Of the draws.
        on_progress: Called with a snapshot after each answer.

    Returns:
        Rows with ``id`` (hash of the text), ``input``, ``source`` ("generated"), ``split`` ("train"),
        ``generated_for``, ``generated_from`` (ids of the seeds shown), ``generated_attributes`` (JSON),
        ``generated_cluster``, ``generated_by`` (the teacher), ``generated_key`` (of the exchange in the
        store) and ``seeded_by``; the rejected texts; and the report.

    Raises:
        TaskError: If an argument is out of range, a seed is a test row, or a label has no seed.
        TeacherError: If no request can succeed. What was answered before is in the store.
        StoreError: If the store cannot be written.
    """
    if not 0 < near_duplicate <= 1:
        raise TaskError(f"near_duplicate is {near_duplicate}: above 0 and up to 1 is allowed")
    _check_range("temperature", temperature, 0, 5)
    _check_range("shots", shots, 1, 64)
    _check_range("max_tokens", max_tokens, 1, 100_000)
    if max_requests is not None:
        _check_range("max_requests", max_requests, 1, 10_000_000)
    if seeded_by not in ("gold", "label"):
        raise TaskError(f"seeded_by is {seeded_by!r}: choose 'gold' or 'label'")
    pool = read_seeds(seeds, task, clusters=per_cluster)
    cells = plan_cells(pool, task, wanted, per_cluster=per_cluster, max_requests=max_requests,
                       requests_per_row=_REQUESTS_PER_ROW)  # fmt: skip
    known = Nearness(near_duplicate)
    for row in pool.everything:
        known.add(row.id, row.text)
    plain = [pool.frame.within(text) for text in forbidden]
    with ExitStack() as stack:
        opened = store if isinstance(store, Store) else stack.enter_context(Store(store))
        opened.refresh()
        writing = Rounds(
            task=task,
            teacher=teacher,
            frame=pool.frame,
            cells=cells,
            variety=_checked_attributes(attributes or {}),
            shots=shots,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            seeded_by=seeded_by,
            redact=redact,
            known=known,
            banned=Forbidden(plain, near_duplicate),
            longest=_LONGEST_FACTOR * max(len(words(row.text)) for row in pool.everything),
            shortest=min(_SHORTEST_WORDS, *(len(words(row.text)) for row in pool.everything)),
            asker=Asker(teacher, opened, limits or Limits(), budget, run),
            on_progress=on_progress,
        )
        run_sync(writing.all())
    return writing.result()


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise TaskError(f"{name} is {value}: {least} to {most} is allowed")


def _checked_attributes(attributes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    for name, values in attributes.items():
        if isinstance(values, str) or not values or not all(isinstance(v, str) for v in values):
            raise TaskError(
                f"attributes[{name!r}] is {values!r}: give a list of at least one text, such as "
                "['angry', 'dry']"
            )
    return {name: list(values) for name, values in attributes.items()}
