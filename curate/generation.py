"""Rows beyond those of the data: a pool without labels, and inputs that the teacher writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import labelers
from curate.exceptions import CurateError
from curate.gold import first_gold
from curate.sources import _beside, _examples, _refuse_what_cannot_be_written, _with_made_ids
from curate.splits import normalised
from curate.tables import SourceError, read_table
from labelers.generation import generate

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import DataSection

#: What generated rows are called in the column ``source``.
GENERATED = "generated"


def load_pool(source: Any, data: DataSection, task: labelers.Task, *, folder: Path) -> pd.DataFrame:
    """Read rows without labels, to be trained on, into the house's columns.

    Args:
        source: Path, Hub name or object in memory, as for ``data.train``.
        data: The recipe's section. A gold column in the pool is not read.
        task: Renders the inputs.
        folder: Relative paths start here.

    Raises:
        SourceError: For the first thing that does not fit, naming source, row and remedy.
    """
    place = _beside(source, folder) if isinstance(source, str) else source
    table = read_table(place, encoding=data.encoding, split="train")
    names = set(table.columns)
    hidden = {data.gold} & names - {None}
    blind = data.model_copy(
        update={
            "gold": None,
            "ignore": [*data.ignore, *hidden],
            "group": data.group if data.group in names else None,
            "id": data.id if data.id in names else None,
        }
    )
    label = source if isinstance(source, str) else "pool"
    frame = _examples(table, blind, task, "train", label, ())
    frame["id"] = _with_made_ids(frame)
    return frame


def add_pool(examples: pd.DataFrame, pool: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Put a pool's rows among the train rows, without those that are there already.

    Rows whose text, case and spacing apart, or whose group is among the test or validation rows stay out,
    for they would be trained on and tested on; rows whose text is in train or twice in the pool too.

    Args:
        examples: Rows from :func:`curate.sources.load_examples`.
        pool: Rows from :func:`load_pool`.

    Returns:
        All rows, and the counts ``rows``, ``added``, ``in_train``, ``in_test`` and ``repeated``.

    Raises:
        SourceError: If an id stands in both.
    """
    held = examples[examples["split"] != "train"]
    held_texts, held_groups = _texts(held), set(held["group"].dropna())
    texts = pool["input"].map(normalised)
    in_test = texts.isin(held_texts) | (pool["group"].notna() & pool["group"].isin(held_groups))
    in_train = ~in_test & texts.isin(_texts(examples[examples["split"] == "train"]))
    repeated = ~in_test & ~in_train & texts.duplicated()
    new = pool[~(in_test | in_train | repeated)].assign(split="train", gold=None)
    clash = sorted(set(new["id"]) & set(examples["id"]))
    if clash:
        raise SourceError(
            f"the id {clash[0]!r} stands in the pool and in the data, for different texts: give the pool ids "
            "of its own, or add the id column to data.ignore to have ids made from the text"
        )
    counts = {
        "rows": len(pool),
        "added": len(new),
        "in_train": int(in_train.sum()),
        "in_test": int(in_test.sum()),
        "repeated": int(repeated.sum()),
    }
    return _below(examples, new), counts


def _texts(frame: pd.DataFrame) -> set[str]:
    return set(frame["input"].map(normalised))


def _below(examples: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Both as one, with the columns of both; what one of them lacks is null there."""
    import pandas as pd

    order = [*examples.columns, *(name for name in new.columns if name not in examples.columns)]
    whole = {}
    for name in order:
        parts = [
            part[name] if name in part.columns else pd.Series([None] * len(part), dtype=object)
            for part in (examples, new)
        ]
        if parts[0].dtype != parts[1].dtype:
            parts = [p.astype(object).where(p.notna(), None) for p in parts]
        whole[name] = pd.concat(parts, ignore_index=True)
    frame = pd.DataFrame(whole)
    _refuse_what_cannot_be_written(frame)
    return frame


def seed_rows(
    examples: pd.DataFrame,
    task: labelers.Task,
    labelled: pd.DataFrame | None = None,
    clusters: Mapping[str, int] | None = None,
) -> tuple[pd.DataFrame, str]:
    """The train rows that the teacher is shown, and where their labels are from.

    With ``labelled``, the result of a first labeling pass, the label is the teacher's. Without it, it is the
    train rows' gold, which is then shown to the teacher on purpose: the rows written say so in
    ``seeded_by``. Rows without a label stay in, to be compared with; so do rows that were generated
    before, for a text is not to be a copy of a copy.

    Returns:
        Rows with id, input, split, label and, where given, cluster; and ``label`` or ``gold``.

    Raises:
        CurateError: If the task has a label set and no train row has a label, or a row has no cluster.
    """
    rows = examples[examples["split"] == "train"]
    if labelled is None:
        label, by = rows["gold"].map(first_gold), "gold"
    else:
        said = dict(zip(labelled["id"], labelled["label"], strict=True))
        label, by = rows["id"].map(said), "label"
    written = rows["source"] == GENERATED
    label = label.astype(object).where(label.notna() & ~written, None)
    if task.labels is None:
        rows, label = rows[~written], label[~written]  # free text: what is there is shown
    elif not label.notna().any():
        raise CurateError(
            f"none of the {len(rows)} train rows has a label to show the teacher: name data.gold, or have "
            "the rows labelled first"
        )
    seeds = rows[["id", "input", "split"]].assign(label=label)
    if clusters is not None:
        absent = [row for row in seeds["id"] if row not in clusters]
        if absent:
            raise CurateError(f"the train row {absent[0]!r} has no cluster: cluster all train rows")
        seeds = seeds.assign(cluster=[clusters[row] for row in seeds["id"]])
    return seeds.reset_index(drop=True), by


def generate_rows(
    examples: pd.DataFrame,
    task: labelers.Task,
    teacher: labelers.Teacher,
    *,
    labels: Mapping[str, int] | int,
    labelled: pd.DataFrame | None = None,
    clusters: Mapping[str, int] | None = None,
    attributes: Mapping[str, Sequence[str]] | None = None,
    **how: Any,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Have the teacher write train rows, and bring them into the columns of the examples.

    Args:
        examples: All rows. Train rows are shown; nothing near to a test or validation row is taken.
        task: What the rows are for.
        teacher: Who writes; another than labels, if wished.
        labels: New rows by label, or for each label.
        labelled: Rows of a first labeling pass (``id``, ``label``); without it train gold is shown.
        clusters: Cluster of each train row by id, to write per cluster.
        attributes: What texts may vary in.
        how: The further arguments of :func:`labelers.generate`: store, limits, temperature, …

    Returns:
        The new rows, with no gold and each a group of its own; and what the run report says of them,
        with the first rejected texts of each reason under ``examples_rejected``.

    Raises:
        CurateError: If there is nothing to show.
        labelers.TaskError: If an argument does not fit the task.
    """
    seeds, by = seed_rows(examples, task, labelled, clusters)
    held = examples.loc[examples["split"] != "train", "input"]
    result = generate(
        task,
        teacher,
        seeds=seeds,
        wanted=labels,
        per_cluster=clusters is not None,
        attributes=attributes,
        forbidden=held.tolist(),
        seeded_by=by,
        **how,
    )
    rows = result.dataset.to_pandas()
    rows["group"] = rows["id"]
    rows["gold"] = None
    rows["choices"] = [list(task.labels) if task.labels else None] * len(rows)
    first = ["id", "input", "choices", "gold", "split", "group", "source"]
    rows = rows[first + [name for name in rows.columns if name not in first]]
    rejected: dict[str, list[str]] = {}
    for rejection in result.rejections:
        shown = rejected.setdefault(rejection.reason, [])
        if len(shown) < 3:
            shown.append(rejection.text[:200])
    info = {**asdict(result.report), "seeded_by": by, "teacher": teacher.name}
    if short := sum(result.report.shortfall.values()):
        left_out = ", ".join(f"{n} {reason}" for reason, n in result.report.rejected.items())
        failed = rejected.get("error")
        left_out += f"; the first error: {failed[0]}" if failed else ""
        info["notes"] = [
            f"{short} of the {result.report.wanted} rows wanted were not had in {result.report.requests} "
            f"requests; left out: {left_out or 'none'}. generate.max_requests, attributes and temperature "
            "bring more"
        ]
    return rows, {**info, "examples_rejected": rejected}


def add_generated(examples: pd.DataFrame, generated: pd.DataFrame) -> pd.DataFrame:
    """Put generated rows below the others; they are train rows, whatever they say.

    Raises:
        CurateError: If one of them is not a train row, or its id is taken.
    """
    strays = generated[(generated["split"] != "train") | (generated["source"] != GENERATED)]
    if len(strays):
        first = strays.iloc[0]
        raise CurateError(
            f"the row {first['id']!r} is of the split {first['split']!r} and the source {first['source']!r}: "
            "generated rows are train rows of the source 'generated'"
        )
    taken = sorted(set(generated["id"]) & set(examples["id"]))
    if taken:
        raise CurateError(f"the generated row {taken[0]!r} is among the examples already")
    return _below(examples, generated)


def share_kept(curated: pd.DataFrame) -> dict[str, Any]:
    """What became of the generated rows under the filters.

    Args:
        curated: Train rows with ``source``, ``keep`` and ``reason``; ``generated_for`` and ``label``
            where present.

    Returns:
        ``rows``, ``kept``, ``share`` (None without generated rows), ``dropped`` by reason, ``by_label``
        (rows and kept by the label written for), ``others`` (rows, kept and share of all other train
        rows), and ``of_training_set``, the share of kept rows that were generated.
    """
    train = curated[curated["split"] == "train"] if "split" in curated.columns else curated
    keep = train["keep"].astype(bool)
    written = train["source"] == GENERATED
    mine = train[written]
    kept = int(keep[written].sum())
    by_label: dict[str, dict[str, int]] = {}
    if "generated_for" in mine.columns:
        for label, stays in zip(mine["generated_for"], keep[written], strict=True):
            counts = by_label.setdefault(label or "(none)", {"rows": 0, "kept": 0})
            counts["rows"] += 1
            counts["kept"] += bool(stays)
    rest, rest_kept = int((~written).sum()), int(keep[~written].sum())
    return {
        "rows": len(mine),
        "kept": kept,
        "share": kept / len(mine) if len(mine) else None,
        "dropped": dict(Counter(mine.loc[~keep[written], "reason"].fillna("(none)"))),
        "by_label": by_label,
        "others": {"rows": rest, "kept": rest_kept, "share": rest_kept / rest if rest else None},
        "of_training_set": kept / int(keep.sum()) if keep.any() else None,
    }
