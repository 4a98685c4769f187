"""The rows that a teacher is shown when it writes new ones, and how many it is to write of each kind."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labelers.generation_prompts import Frame, Seed
from labelers.tasks import Task, TaskError

if TYPE_CHECKING:
    import datasets
    import pandas as pd


@dataclass(frozen=True)
class SeedPool:
    """Rows without the frame: what may be shown, and what is only compared with.

    Attributes:
        seeds: Rows with a label, or all rows where the task is free text.
        clusters: Their clusters.
        demonstrations: The task's demonstrations as seeds.
        others: Rows without a label; they are not shown.
        frame: What all inputs share.
    """

    seeds: list[Seed]
    clusters: list[int | None]
    demonstrations: list[Seed]
    others: list[Seed]
    frame: Frame

    @property
    def everything(self) -> list[Seed]:
        """All texts that a new one may not repeat."""
        return [*self.seeds, *self.demonstrations, *self.others]


@dataclass
class Cell:
    """One kind of row that is wanted: a label, within a cluster where rows are written per cluster.

    ``tiers`` are lists of seeds, the likest first; a later one is drawn from only where the earlier ones
    hold too few.
    """

    label: str | None
    cluster: int | None
    wanted: int
    cap: int
    tiers: list[list[Seed]]
    sent: int = field(default=0, init=False)
    accepted: int = field(default=0, init=False)

    @property
    def missing(self) -> int:
        """Requests to be made next: one for each missing row, as far as they are allowed."""
        return max(0, min(self.wanted - self.accepted, self.cap - self.sent))

    def draw(self, shots: int, source: random.Random) -> list[Seed]:
        """Seeds to be shown, the likest last, where they weigh most."""
        chosen: list[Seed] = []
        for tier in self.tiers:
            taken = {seed.id for seed in chosen}
            open_ = [seed for seed in tier if seed.id not in taken]
            chosen += source.sample(open_, min(len(open_), shots - len(chosen)))
        return chosen[::-1]


def read_seeds(seeds: datasets.Dataset | pd.DataFrame, task: Task, *, clusters: bool) -> SeedPool:
    """Read the rows that may be shown.

    Raises:
        TaskError: If a column is missing, a row is a test row, or a value is of the wrong kind.
    """
    if task.choices is not None:
        raise TaskError(
            f"the task takes each row's options from the column {task.choices!r}, and generated rows have an "
            "input only: generation needs a task with one label set, or free text"
        )
    frame_like: Any = seeds  # either kind may have this method, or not
    table: Any = frame_like.to_pandas() if hasattr(seeds, "to_pandas") else seeds
    needed = ["input", *(["label"] if task.labels is not None else [])]
    for name in [*needed, *(["cluster"] if clusters else [])]:
        if name not in table.columns:
            raise TaskError(
                f"the seeds lack the column {name!r}; they have {', '.join(map(str, table.columns))}"
            )
    if "split" in table.columns and (~table["split"].isin(["train"])).any():
        strange = table.loc[~table["split"].isin(["train"]), "split"].iloc[0]
        raise TaskError(
            f"the seeds hold rows of the split {strange!r}: show train rows only, or what is tested on "
            "would be written into what is trained on"
        )
    inputs = table["input"].tolist()
    for i, text in enumerate(inputs):
        if not isinstance(text, str) or not text.strip():
            raise TaskError(f"seed {i} has the input {text!r}, which is not text")
    labels = _labels(table, task)
    ids = (
        [str(v) for v in table["id"]]
        if "id" in table.columns
        else list(map(str, range(len(table))))
    )
    frame = Frame.of(task, [*inputs, *(shown.input for shown in task.demonstrations)])
    rows = [Seed(*row) for row in zip(ids, map(frame.within, inputs), labels, strict=True)]
    places = [int(v) for v in table["cluster"]] if clusters else [None] * len(rows)
    usable = [task.labels is None or row.label is not None for row in rows]
    return SeedPool(
        seeds=[row for row, shown in zip(rows, usable, strict=True) if shown],
        clusters=[place for place, shown in zip(places, usable, strict=True) if shown],
        demonstrations=[
            Seed(
                f"demonstration-{number}",
                frame.within(each.input),
                each.label if task.labels else None,
            )
            for number, each in enumerate(task.demonstrations, 1)
        ],
        others=[row for row, shown in zip(rows, usable, strict=True) if not shown],
        frame=frame,
    )


def _labels(table: Any, task: Task) -> list[str | None]:
    if task.labels is None:
        return [None] * len(table)
    labels = [label if isinstance(label, str) else None for label in table["label"]]
    for i, label in enumerate(labels):
        if label is not None and label not in task.labels:
            raise TaskError(
                f"seed {i} has the label {label!r}, which is not one of {list(task.labels)}: correct it, "
                "or leave it empty to have the row compared with and not shown"
            )
    return labels


def plan_cells(
    pool: SeedPool,
    task: Task,
    wanted: Mapping[str, int] | int,
    *,
    per_cluster: bool,
    max_requests: int | None,
    requests_per_row: int,
) -> list[Cell]:
    """What is to be written, cell by cell, and how many requests each may take.

    Raises:
        TaskError: If a label is unknown or has nothing to show, or a number is not positive.
    """
    clusters = sorted({c for c in pool.clusters if c is not None})
    if per_cluster and not clusters:
        raise TaskError("per_cluster needs seeds, and there are none: give rows with a cluster")
    cells = []
    for label, count in _counts(task, wanted).items():
        own = [seed for seed in pool.seeds if seed.label == label]
        spare = [seed for seed in pool.demonstrations if seed.label == label]
        if not own and not spare:
            raise TaskError(
                f"no seed has the label {label!r}, so there is nothing to show the teacher: add a train row "
                "or a demonstration with this label"
            )
        if not per_cluster:
            cells.append(Cell(label, None, count, 0, [own, spare]))
            continue
        for place, cluster in enumerate(clusters):
            here = [s for s, c in zip(pool.seeds, pool.clusters, strict=True) if c == cluster]
            likest = [seed for seed in here if seed.label == label]
            # An even share; what does not divide goes to the first clusters.
            share = count // len(clusters) + (place < count % len(clusters))
            if share:
                cells.append(Cell(label, cluster, share, 0, [likest, here, own, spare]))
    _allot(cells, max_requests, requests_per_row)
    return cells


def _counts(task: Task, wanted: Mapping[str, int] | int) -> dict[str | None, int]:
    counts: dict[str | None, int] = {}
    if isinstance(wanted, int):
        for label in task.labels or (None,):
            counts[label] = wanted
    elif task.labels is None:
        raise TaskError(
            f"wanted is {dict(wanted)!r}, but the task has no label set: give one number, such as 200"
        )
    else:
        counts.update(wanted)
    for label, count in counts.items():
        if task.labels is not None and label not in task.labels:
            raise TaskError(f"wanted names {label!r}, which is not one of {list(task.labels)}")
        if not isinstance(count, int) or count < 1:
            raise TaskError(
                f"{count!r} rows are wanted of {label!r}: a whole number above 0 is needed"
            )
    if not counts:
        raise TaskError("wanted is empty: name a label and a number, such as {'positive': 200}")
    return counts


def _allot(cells: Sequence[Cell], max_requests: int | None, requests_per_row: int) -> None:
    """Divide the requests in proportion to the rows wanted, so that no cell eats another's."""
    total = sum(cell.wanted for cell in cells)
    most = requests_per_row * total if max_requests is None else max_requests
    rows = 0
    for cell in cells:
        before = most * rows // total
        rows += cell.wanted
        cell.cap = most * rows // total - before
