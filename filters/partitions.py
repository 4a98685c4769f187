"""Exact and near duplicates of sets larger than memory: rows come in batches, shingles lie on disk.

In memory stay some fifty bytes per row (hashes, labels, the order of worth) and the ids. The texts
are read once and forgotten. Shingles and signatures are files, read a piece at a time: the
signatures one band after the other, the shingles of the pairs that the bands propose.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from filters.arguments import FilterError
from filters.duplicates import ExactDuplicate, NearDuplicate, judge_equal, text_series
from filters.frames import read_ids, read_labels
from filters.rows import Flags, Ints, Judgement, Objects, OnProgress, Rows
from filters.shingles import ShingleSets, hash_texts, shingle
from filters.words import Hashes, mix

if TYPE_CHECKING:
    import polars as pl

_LINES = 200_000  # lines of evidence per row group


@dataclass(frozen=True, kw_only=True)
class Partitioned:
    """What became of the rows.

    Attributes:
        keep: True for the rows that stay, in the order in which they came, shape (n,).
        reasons: "exact_duplicate", "near_duplicate" or None per row, shape (n,).
        counts: {"rows", "kept", "dropped": {reason: rows}, "conflicts": lines}.
        decisions: The Parquet file with the evidence, columns as in `Result.decisions`.
    """

    keep: Flags
    reasons: Objects
    counts: dict[str, Any]
    decisions: Path


@dataclass
class _Columns:
    """What is kept in memory of the rows read so far, batch by batch."""

    ids: list[pl.Series] = field(default_factory=list)
    texts: list[Hashes] = field(default_factory=list)
    sets: list[Hashes] = field(default_factory=list)
    sizes: list[Ints] = field(default_factory=list)
    labels: list[Ints] = field(default_factory=list)
    confidence: list[np.ndarray[Any, np.dtype[np.float32]]] = field(default_factory=list)
    lengths: list[Ints] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    rows: int = 0


def dedupe_batches(
    batches: Iterable[pd.DataFrame],
    decisions: Path,
    *,
    exact: ExactDuplicate | None = None,
    near: NearDuplicate | None = None,
    folder: Path | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Partitioned:
    """Find exact and near duplicates among rows that come in batches.

    The outcome is that of `apply` with the two filters, with these differences: the choice among
    duplicates is by confidence, then length, then id; and two texts count as equal if 128 bits of
    hash are.

    Args:
        batches: Frames with a unique `id`, the text columns, and `label` and `confidence` if there
            are any.
        decisions: The Parquet file to write the evidence to, by a temporary name and a rename.
        exact: How to find exact duplicates; by default as `ExactDuplicate()` does. With other
            fields than `near` it is refused.
        near: How to find near duplicates; by default as `NearDuplicate()` does.
        folder: Where the working files go; by default a temporary folder. About 1.2 kB per
            row of 50 words; removed at the end.
        seed: Of the signatures.
        on_progress: Called with {"stage", "done", "total"}.

    Raises:
        FilterError: An id that is no text or stands there twice, or a text that is none.
    """
    near = NearDuplicate() if near is None else near
    exact = ExactDuplicate(fields=near.fields) if exact is None else exact
    if tuple(exact.fields) != tuple(near.fields):
        raise FilterError(
            f"dedupe_batches: exact reads {list(exact.fields)} and near {list(near.fields)}; both "
            "must read the same fields, since the texts are read once"
        )
    work = Path(tempfile.mkdtemp(prefix="dedupe-", dir=folder))
    try:
        columns = _read(batches, work / "hashes.bin", near, on_progress)
        return _judge(columns, work, decisions, exact, near, seed, on_progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _read(
    batches: Iterable[pd.DataFrame],
    hashes: Path,
    near: NearDuplicate,
    on_progress: OnProgress | None,
) -> _Columns:
    """Read all batches once; the shingles go to the file."""
    columns = _Columns()
    with hashes.open("wb") as file:
        for batch in batches:
            _read_batch(columns, batch, near, file)
            if on_progress is not None:
                on_progress({"stage": "reading", "done": columns.rows, "total": columns.rows})
    return columns


def _read_batch(columns: _Columns, batch: pd.DataFrame, near: NearDuplicate, file: Any) -> None:
    import polars as pl

    ids, labels = read_ids(batch), read_labels(batch)
    nothing = np.zeros(len(ids), dtype=bool)
    rows = Rows(frame=batch, ids=ids, alive=~nothing, order=np.arange(len(ids)))
    texts = [text_series(rows, name, near.reason) for name in near.fields]
    sets = shingle(texts, near.shingle)
    sets.hashes.tofile(file)
    equal = np.zeros(len(ids), dtype=np.uint64)
    for each in texts:
        equal = mix(equal + hash_texts(each))
    columns.ids.append(pl.Series(ids.tolist(), dtype=pl.String))
    columns.texts.append(equal)
    columns.sets.append(sets.keys)
    columns.sizes.append(np.diff(sets.offsets).astype(np.int32))
    columns.labels.append(_codes(columns.codes, labels, len(ids)))
    confidence = np.full(len(ids), -np.inf, dtype=np.float32)
    if "confidence" in batch.columns:
        numbers = pd.to_numeric(batch["confidence"], errors="coerce").to_numpy(np.float32)
        confidence = np.where(np.isnan(numbers), -np.inf, numbers).astype(np.float32)
    columns.confidence.append(confidence)
    columns.lengths.append(texts[0].str.len_chars().to_numpy().astype(np.int32))
    columns.rows += len(ids)


def _codes(known: dict[str, int], labels: Objects | None, count: int) -> Ints:
    """Return a number per label, the same in every batch; -1 for none."""
    if labels is None:
        return np.full(count, -1, dtype=np.int32)
    codes, distinct = pd.factorize(labels)
    numbers = [known.setdefault(str(label).strip(), len(known)) for label in distinct]
    return np.array([*numbers, -1], dtype=np.int64)[codes]


def _judge(
    columns: _Columns,
    work: Path,
    decisions: Path,
    exact: ExactDuplicate,
    near: NearDuplicate,
    seed: int,
    on_progress: OnProgress | None,
) -> Partitioned:
    """Let the two filters judge all rows at once."""
    ids = _join_ids(columns)
    rows = _as_rows(columns, ids, seed, on_progress)
    texts, keys = _join(columns.texts, np.uint64), _join(columns.sets, np.uint64)
    offsets = np.concatenate([[0], np.cumsum(_join(columns.sizes, np.int32), dtype=np.int64)])
    columns.texts.clear()
    columns.sets.clear()
    columns.sizes.clear()
    reasons = np.full(len(rows), None, dtype=object)
    with _Evidence(decisions, ids) as evidence:
        # Equal words and equal shingles: 128 bits in all, so that chance has no say.
        equal = pd.factorize(texts ^ mix(keys))[0].astype(np.int64)
        judgement = judge_equal(rows, equal, same_label=exact.same_label)
        reasons[judgement.dropped] = exact.reason
        evidence.write(exact.reason, judgement)
        alive = rows.alive & ~judgement.dropped
        del judgement, equal, texts
        if len(rows):
            order = rows.order[np.argsort(~alive[rows.order], kind="stable")]
            hashes = np.memmap(work / "hashes.bin", np.int64, "r", shape=(int(offsets[-1]),))
            sets = ShingleSets(hashes=hashes, offsets=offsets, keys=keys)
            judgement = near.judge_sets(replace(rows, alive=alive, order=order), sets, work)
            reasons[judgement.dropped] = near.reason
            evidence.write(near.reason, judgement)
    dropped = pd.Series(reasons, dtype=object).value_counts(sort=False)
    keep = np.array(pd.isna(reasons), dtype=bool)
    return Partitioned(
        keep=keep,
        reasons=reasons,
        counts={
            "rows": len(rows),
            "kept": int(keep.sum()),
            "dropped": {str(reason): int(number) for reason, number in dropped.items()},
            "conflicts": evidence.count_conflicts(),
        },
        decisions=decisions,
    )


def _join(parts: list[Any], kind: Any) -> Any:
    return np.concatenate([np.empty(0, dtype=kind), *parts])


def _join_ids(columns: _Columns) -> pl.Series:
    import polars as pl

    ids = pl.concat([pl.Series("id", [], dtype=pl.String), *columns.ids])
    if (repeated := ids.is_duplicated()).any():
        raise FilterError(
            f"dedupe_batches: the id {ids.filter(repeated)[0]!r} occurs more than once; ids must "
            "differ; number the rows or leave the repeats out"
        )
    return ids


def _as_rows(columns: _Columns, ids: pl.Series, seed: int, on_progress: OnProgress | None) -> Rows:
    """Return the rows without their texts: what is needed to judge known shingles."""
    count = len(ids)
    alphabetical = np.empty(count, dtype=np.int64)
    alphabetical[ids.arg_sort().to_numpy()] = np.arange(count)
    lengths, confidence = _join(columns.lengths, np.int32), _join(columns.confidence, np.float32)
    labels = None
    if columns.codes:
        named = np.array([*columns.codes, None], dtype=object)
        labels = named[_join(columns.labels, np.int64)]
    return Rows(
        frame=pd.DataFrame(index=pd.RangeIndex(count)),
        ids=np.full(count, None, dtype=object),
        alive=np.ones(count, dtype=bool),
        order=np.lexsort((alphabetical, -lengths, -confidence)),
        labels=labels,
        seed=seed,
        on_progress=on_progress,
    )


class _Evidence:
    """Writes the lines of decisions to a Parquet file; it is there only once it is complete."""

    def __init__(self, path: Path, ids: pl.Series) -> None:
        import pyarrow as pa

        self.path, self.ids = path, ids
        self.unfinished = path.with_name(f".{path.name}.unfinished")
        self.conflicts: list[Ints] = []
        text, number = pa.string(), pa.float64()
        self.schema = pa.schema(
            [("id", text), ("filter", text), ("score", number), ("threshold", number),
             ("related_id", text), ("verdict", text)]
        )  # fmt: skip

    def __enter__(self) -> _Evidence:
        from pyarrow.parquet import ParquetWriter

        self.writer = ParquetWriter(self.unfinished, self.schema)
        return self

    def write(self, reason: str, judgement: Judgement) -> None:
        """Write one filter's lines, by the position of the row, the highest score first."""
        import pyarrow as pa

        found = judgement.matches
        order = np.lexsort((found.related, -found.score, found.row))
        for start in range(0, len(order), _LINES):
            part = order[start : start + _LINES]
            self.writer.write_table(
                pa.table(
                    {
                        "id": self.ids.gather(found.row[part]).to_arrow().cast(pa.string()),
                        "filter": pa.array([reason] * len(part), pa.string()),
                        "score": found.score[part],
                        "threshold": np.full(len(part), judgement.threshold, dtype=np.float64),
                        "related_id": self.ids.gather(found.related[part])
                        .to_arrow()
                        .cast(pa.string()),
                        "verdict": pa.array(found.verdict[part], pa.string()),
                    },
                    schema=self.schema,
                )
            )
        line = found.verdict == "conflict"
        one, other = found.row[line], found.related[line]
        self.conflicts.append(np.minimum(one, other) * len(self.ids) + np.maximum(one, other))

    def count_conflicts(self) -> int:
        """Return how many different pairs of rows are in conflict."""
        return len(np.unique(_join(self.conflicts, np.int64)))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.writer.close()
        if kind is None:
            self.unfinished.replace(self.path)
        else:
            self.unfinished.unlink(missing_ok=True)
