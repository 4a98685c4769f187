"""Which rows the teacher should be asked about next, from a run and a pool of rows without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filters
from curate.exceptions import CurateError
from curate.filter_command import find_run
from curate.generation import load_pool
from curate.recipe_filters import OnProgress, Texts
from curate.splits import normalised
from curate.table_batches import RowWriter
from curate.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

#: Rows that failed for these reasons would be answered another time; others would fail again.
_UNASKED = ("budget", "server")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What `curate next` chose; `left_out` counts rows of the pool that were no candidates, by reason."""

    output: Path
    rows: int
    candidates: int
    clusters: int
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        others = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
        return (
            f"{self.rows} of {self.candidates} rows without a label, from {self.clusters} clusters"
            f"{f'; left out: {others}' if others else ''}\nnext rows: {self.output}"
        )


def choose_next(
    run: Path,
    rows: int,
    *,
    pool: Path | None = None,
    output: Path | None = None,
    store: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Chosen:
    """Choose the rows to label next and write them, as their file has them, the most wanted first.

    Args:
        run: Folder of a complete run, or a recipe whose rows have been labelled.
        rows: How many.
        pool: A file of rows without labels; by default the run's train rows that were not asked.
        output: The file to write.
        store: Folder whose ``embeddings`` are used; by default ``.curate`` beside the recipe.
        on_progress: Receives the events of ``assets`` and ``embed``.

    Raises:
        CurateError: If there is no embedder, no run, or no row without a label.
        SourceError: If the pool does not fit the recipe.
    """
    import pandas as pd

    folder, recipe, base = find_run(run, (), None)
    output = output if output is not None else folder.path / "next.jsonl"
    writer = RowWriter(output)
    if output.exists() and not (pool is None and output.name == "next.jsonl"):
        raise CurateError(
            f"{output} is there already: delete it, or name another file with --output"
        )
    if recipe.embedder is None:
        raise CurateError(
            "the recipe has no embedder, and rows are chosen by their embeddings: name one, such as "
            "`embedder: all-minilm-l6-v2`"
        )
    labeled = folder.read_table("labeled.parquet")
    train = labeled[labeled["split"] == "train"].reset_index(drop=True)
    known = train[train["label"].notna()]
    table, candidates, left_out = (
        _unasked(train) if pool is None else _from_pool(pool, labeled, recipe)
    )
    both = pd.concat([known[["input"]], candidates[["input"]]], ignore_index=True)
    cache = (store if store is not None else base / ".curate") / "embeddings"
    tell = on_progress or (lambda stage, event: None)
    vectors = Texts(recipe.embedder, base, cache, tell)(both["input"].tolist())
    clusters = filters.cluster(vectors, seed=recipe.seed).labels
    places = filters.next_to_label(
        vectors,
        clusters,
        [number < len(known) for number in range(len(both))],
        rows,
        confidence=[*known["confidence"].astype(float), *[float("nan")] * len(candidates)],
    )
    chosen = candidates.iloc[places - len(known)]
    with writer:
        writer.write(table.loc[chosen.index])
    return Chosen(
        output=output,
        rows=len(chosen),
        candidates=len(candidates),
        clusters=len(set(clusters[places].tolist())),
        left_out=left_out,
    )


def _unasked(train: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The run's own rows that another request may label."""
    failed = train["label"].isna()
    kinds = train["error"].astype(object).where(train["error"].notna(), "").str.partition(":")[0]
    open_ = failed & kinds.isin(["", *_UNASKED])
    if not open_.any():
        raise CurateError(
            f"of the run's {len(train)} train rows none is left to be asked: name a file of rows without "
            "labels with --pool"
        )
    rows = train[open_]
    own = [name for name in rows.columns if name in ("id", "input", "group", "source")]
    return rows[own], rows, {"with an error that would come again": int((failed & ~open_).sum())}


def _from_pool(
    pool: Path, labeled: pd.DataFrame, recipe: Recipe
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The pool as its file has it, and those of its rows that the run does not have, both by position."""
    place = str(pool.expanduser().resolve())
    found = load_pool(place, recipe.data, recipe.task.task(), folder=Path.cwd())
    texts = found["input"].map(normalised)
    held = labeled["split"] != "train"
    in_test = texts.isin(_texts(labeled[held])) | (
        found["group"].notna() & found["group"].isin(labeled.loc[held, "group"].dropna())
    )
    in_train = ~in_test & texts.isin(_texts(labeled[~held]))
    repeated = ~in_test & ~in_train & texts.duplicated()
    new = found[~(in_test | in_train | repeated)]
    if new.empty:
        raise CurateError(
            f"of the {len(found)} rows of {pool} none is new: {int(in_train.sum())} are in train already, "
            f"{int(in_test.sum())} in test, {int(repeated.sum())} stand there twice; name another file"
        )
    counts = {
        "in train already": int(in_train.sum()),
        "in test": int(in_test.sum()),
        "twice": int(repeated.sum()),
    }
    return read_table(place, encoding=recipe.data.encoding), new, counts


def _texts(rows: pd.DataFrame) -> Sequence[str]:
    return sorted(set(rows["input"].map(normalised)))
