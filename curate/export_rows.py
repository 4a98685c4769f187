"""The rows of a run that leave it: the training set, and the validation and test rows beside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filters
from curate.exceptions import CurateError
from curate.recipe import Recipe, load_recipe
from curate.run_facts import run_facts
from curate.run_folder import RunError, RunFolder

SPLITS = ("train", "validation", "test")

#: What training needs of a row, in the order in which it is written.
SLIM = (
    *("id", "input", "choices", "label", "rationale", "label_probs", "label_source", "confidence"),
    *("gold", "group", "source", "cluster", "weight", "copies"),
)


@dataclass(frozen=True, kw_only=True)
class CuratedSet:
    """What a run curated.

    Attributes:
        facts: What run.json says; for a run that was not evaluated, the same without metrics.
        splits: Every column of the rows of each split that has some, as Arrow tables: ``train`` (the
            kept train rows), ``validation`` (the kept ones), ``test`` (all).
        asked: Sums over all labelled rows: ``rows``, ``labelled``, ``prompt_tokens``,
            ``completion_tokens`` and ``cost_usd`` (None where no row has a price).
        reviewed: Train rows by a person's verdict.
    """

    facts: Mapping[str, Any]
    splits: Mapping[str, Any]
    asked: Mapping[str, Any]
    reviewed: Mapping[str, int]


def read_set(folder: Path, recipe: Path | None = None) -> CuratedSet:
    """Read the curated set of a run folder.

    Args:
        folder: The run folder.
        recipe: The recipe, of a run that has no run.json yet; must be the one that it was filtered by.

    Raises:
        CurateError: If the folder holds no filtered run, its files do not belong together, or no
            train row was kept.
    """
    if not folder.is_dir():
        raise CurateError(
            f"{folder} is no run folder: name one, such as runs/demo; `curate run recipe.yaml` makes one"
        )
    run = RunFolder(folder)
    with _unchanging(run):
        curated, labeled = (_read(folder / f"{name}.parquet") for name in ("curated", "labeled"))
        facts = _facts(run, recipe)
    _check_match(folder, curated, labeled)
    import pyarrow.compute as pc

    # A row that a person accepted may have no label; nothing can be learned from it.
    labelled = pc.and_(pc.fill_null(curated["keep"], False), pc.is_valid(curated["label"]))
    kept = curated.filter(labelled)
    train = kept.filter(pc.equal(kept["split"], "train"))
    if not train.num_rows:
        dropped = facts["stages"]["curated"].get("dropped", {})
        reasons = (
            ", ".join(f"{reason} dropped {n}" for reason, n in dropped.items()) or "see reason"
        )
        raise CurateError(
            f"no train row of {folder} was kept ({reasons}): loosen the filters and run `curate filter` again"
        )
    found = {
        "train": train,
        "validation": kept.filter(pc.equal(kept["split"], "validation")),
        "test": _alone(labeled.filter(pc.equal(labeled["split"], "test"))),
    }
    there = {split: table for split, table in found.items() if table.num_rows}
    return CuratedSet(
        facts=facts, splits=_alike(there), asked=_asked(labeled), reviewed=_reviewed(curated)
    )


@contextmanager
def _unchanging(run: RunFolder) -> Iterator[None]:
    """Hold the folder while it is read, unless it is one that nobody can write to."""
    if os.access(run.path, os.W_OK):
        with run.locked():
            yield
    else:
        yield


def _read(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).replace_schema_metadata(None)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is not there: `curate filter` writes it, and `curate run` does all"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{path} cannot be read ({reason}): delete it, and the stage that writes it runs again"
        ) from error


def _facts(run: RunFolder, recipe: Path | None) -> dict[str, Any]:
    path = run.path / "run.json"
    if path.exists():
        if recipe is not None:
            raise CurateError(f"{path} holds the recipe of this run: leave --recipe out")
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            _ = facts["name"], facts["recipe"]["task"], facts["stages"]["labeled"]
            _ = facts["stages"]["curated"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(
                f"{path} cannot be read ({error}): run `curate evaluate` again"
            ) from error
        return facts
    if recipe is None:
        raise CurateError(
            f"{path} is not there, so the run was not evaluated: run `curate run`, or name with --recipe "
            "the recipe that its rows were filtered by"
        )
    return _unfinished(run, load_recipe(recipe))


def _unfinished(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """What is known of a run that stopped after its filters."""
    infos = {name: record["info"] for name, record in run.stages().items()}
    for stage in ("labeled", "curated"):
        if stage not in infos:
            raise RunError(f"{run.path} has no finished stage {stage!r}: run `curate filter` again")
    policy = infos["curated"].get("policy")
    if policy != filters.policy_hash(recipe.built_filters()):
        raise CurateError(
            f"the filters of recipe {recipe.name!r} are not those that {run.path} was filtered by: run "
            "`curate filter` again, or name the other recipe"
        )
    curated = run.read_table("curated.parquet")
    return run_facts(recipe, stages=infos, curated=curated, metrics={}, goal=[], verdict="")


def _check_match(folder: Path, curated: Any, labeled: Any) -> None:
    """See that the curated rows are made of these labelled rows, not of former ones."""
    for name, table in (("curated", curated), ("labeled", labeled)):
        absent = {"id", "input", "split", "label"} - set(table.column_names)
        absent |= {"keep"} - set(table.column_names) if name == "curated" else set()
        if absent:
            raise RunError(
                f"{folder / name}.parquet has no column {sorted(absent)[0]!r}: run `curate filter` again"
            )
    said = dict(zip(column_of(labeled, "id"), column_of(labeled, "label"), strict=True))
    by_people = column_of(curated, "label_source")
    ids, labels = column_of(curated, "id"), column_of(curated, "label")
    splits = zip(said, column_of(labeled, "split"), strict=False)
    judged = set(ids)
    other = [row for row, split in splits if split == "train" and row not in judged]
    for row, label, source in zip(ids, labels, by_people, strict=True):
        if row not in said or (said[row] != label and source != "review"):
            other.append(row)
    if other:
        raise RunError(
            f"row {other[0]!r} of {folder / 'curated.parquet'} is not as labeled.parquet has it: the rows "
            "were labelled anew since; run `curate filter` again"
        )


def column_of(table: Any, name: str) -> list[Any]:
    """A column's values; nulls where there is no such column."""
    if name not in table.column_names:
        return [None] * table.num_rows
    values: list[Any] = table[name].to_pylist()
    return values


def _alone(test: Any) -> Any:
    """Test rows with the weight and copies of a row that is neither."""
    import pyarrow as pa

    for name, value in (("weight", pa.scalar(1.0)), ("copies", pa.scalar(1))):
        if name not in test.column_names:
            test = test.append_column(name, pa.repeat(value, test.num_rows))
    return test


def _alike(splits: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with the same columns, of the same types; what a split lacks is null there."""
    import pyarrow as pa

    plain = {split: _plain(table) for split, table in splits.items()}
    schemas = [table.schema for table in plain.values()]
    try:
        merged = pa.unify_schemas(schemas, promote_options="permissive")
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CurateError(
            f"a column has values of another kind in test than in train ({reason}): name it in data.ignore "
            "of the recipe, and run again"
        ) from error
    schema = pa.schema(
        [pa.field(f.name, _usual(f.name) if pa.types.is_null(f.type) else f.type) for f in merged]
    )
    done = {}
    for split, table in plain.items():
        for field in schema:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        done[split] = table.select(schema.names).cast(schema)
    return done


def _usual(name: str) -> Any:
    import pyarrow as pa

    if name in ("choices", "label_probs"):
        return pa.list_(pa.string() if name == "choices" else pa.float64())
    numeric = name in ("confidence", "cost_usd", "off_label_mass", "agreement", "weight")
    return pa.float64() if numeric or name.startswith("score_") else pa.string()


def _plain(table: Any) -> Any:
    """The table without types that only pandas tells apart, and without folders in names."""
    import pyarrow as pa

    fields = [pa.field(field.name, _small(field.type)) for field in table.schema]
    table = table.cast(pa.schema(fields))
    for name in ("source", "teacher"):
        if name in table.column_names:
            known = {
                value: without_folders(value) for value in set(column_of(table, name)) if value
            }
            column = pa.array([known.get(value) for value in column_of(table, name)], pa.string())
            table = table.set_column(table.column_names.index(name), name, column)
    return table


def _small(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return _small(kind.value_type)
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_small(kind.value_type))
    return kind


def without_folders(text: str) -> str:
    """A text in which absolute paths are cut to their last part, so that no folder of ours shows."""
    return re.sub(
        r"(?<![\w:/.~])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\,;:'\"`]+)+[/\\]([^\s/\\,;:'\"`]+)",
        r"\1",
        text,
    )


def _asked(labeled: Any) -> dict[str, Any]:
    sums: dict[str, Any] = {"rows": labeled.num_rows}
    sums["labelled"] = sum(label is not None for label in column_of(labeled, "label"))
    for name in ("prompt_tokens", "completion_tokens", "cost_usd"):
        values = [
            value for value in column_of(labeled, name) if value is not None and value == value
        ]
        sums[name] = sum(values) if values else None
    return sums


def _reviewed(curated: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for verdict in column_of(curated, "review"):
        if verdict is not None:
            counts[verdict] = counts.get(verdict, 0) + 1
    return dict(sorted(counts.items()))


def rows_of(table: Any, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table as mappings, read in batches."""
    chosen = table if columns is None else table.select(columns)
    for batch in chosen.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
