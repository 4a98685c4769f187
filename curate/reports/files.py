"""Read what the report shows from a finished run folder, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curate.exceptions import CurateError

__all__ = ["LONGEST_OPENING", "ReportError", "RunFiles", "read_json", "read_run", "read_texts"]

LONGEST_OPENING = 241  # characters: one more than the map shows of a text

# What is read of each table: a column's type, or None for the type that the file has (gold is a
# string or a list of references), or an expression. A row's text may hold a megabyte: where only
# its beginning is shown, no more is kept.
_CURATED = {
    "id": pl.String,
    "split": pl.String,
    "input": pl.col("input").cast(pl.String).str.head(LONGEST_OPENING),
    "label": pl.String,
    "confidence": pl.Float64,
    "keep": pl.Boolean,
    "reason": pl.String,
    "cluster": pl.Int64,
    "map_x": pl.Float64,
    "map_y": pl.Float64,
    "source": pl.String,
    "review": pl.String,
    "suspect_rank": pl.Int64,
    "suspect_opinion": pl.String,
    "suspect_opinion_probability": pl.Float64,
    "suspect_label_probability": pl.Float64,
}
_LABELED = {
    "id": pl.String,
    "gold": None,
    "split": pl.String,
    "label": pl.String,
    "confidence": pl.Float64,
    "rationale": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cost_usd": pl.Float64,
}
_DECISIONS = {
    "id": pl.String,
    "filter": pl.String,
    "score": pl.Float64,
    "threshold": pl.Float64,
    "related_id": pl.String,
    "related_set": pl.String,
    "verdict": pl.String,
}
_PREDICTIONS = {
    "id": pl.String,
    "gold": None,
    "group": pl.String,
    "system": pl.String,
    "prediction": pl.String,
    "confidence": pl.Float64,
    "correct": pl.Boolean,
}
# The parts of run.json that the report reads: what each has to be, and what its members.
_SHAPES: dict[str, tuple[type, type]] = {
    "stages": (dict, dict),
    "metrics": (dict, dict),
    "recipe": (dict, object),
    "balance": (dict, dict),
    "versions": (dict, object),
    "machine": (dict, object),
    "funnel": (list, dict),
    "goal": (list, dict),
    "notes": (list, str),
}
_REMEDY = "Write the run again with `curate run recipe.yaml`; finished stages are not repeated."


class ReportError(CurateError):
    """The run folder cannot be read, or its report not written; says which file and what to do."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds. A missing optional file is an empty table or dictionary."""

    path: Path
    run: dict[str, Any]
    history: dict[str, Any]
    curated: pl.DataFrame
    labeled: pl.DataFrame
    decisions: pl.DataFrame
    predictions: pl.DataFrame

    def stage(self, name: str) -> dict[str, Any]:
        """The entry of stage ``name`` in run.json; empty where the stage did not run."""
        found: dict[str, Any] = self.run["stages"].get(name, {})
        return found

    def has_human_labels(self) -> bool:
        """Whether the test rows are judged by human labels, and not by the teacher's own.

        Where the data has no gold at all, the predictions' reference is the teacher's label.
        """
        test = self.labeled.filter(pl.col("split") == "test")
        return test.is_empty() or test["gold"].null_count() < test.height


def read_run(path: Path) -> RunFiles:
    """Read the run folder at ``path``.

    Raises:
        ReportError: The folder or its run.json is missing, or a file in it cannot be read.
    """
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise ReportError(
            f"The run folder {path} {what}. Make one with `curate run recipe.yaml`, "
            "or name the folder of a finished run."
        )
    if not (path / "run.json").exists():
        raise ReportError(
            f"{path} has no run.json: it is not a run folder, or its run has not finished. "
            f"{_REMEDY}"
        )
    run = read_json(path / "run.json")
    for name, (shape, member) in _SHAPES.items():
        value = run.get(name)
        run[name] = value = shape() if value is None else value
        members = value.values() if isinstance(value, dict) else value
        if not isinstance(value, shape) or not all(isinstance(one, member) for one in members):
            kind: dict[Any, str] = {dict: "object", list: "list", str: "text"}
            inside = "" if member is object else f" of {kind[member]}s"
            raise ReportError(
                f"{path / 'run.json'}: {name!r} is {value!r:.60}, but a JSON {kind[shape]}{inside} "
                f"was expected. {_REMEDY}"
            )
    history = path / "student" / "history.json"
    return RunFiles(
        path=path,
        run=run,
        history=read_json(history) if history.exists() else {},
        # Validation rows may stand there too: they take part in no filter.
        curated=_read_table(path / "curated.parquet", _CURATED).filter(
            pl.col("split").fill_null("train") == "train"
        ),
        labeled=_read_table(path / "labeled.parquet", _LABELED),
        decisions=_read_table(path / "decisions.parquet", _DECISIONS),
        predictions=_read_table(path / "predictions.parquet", _PREDICTIONS),
    )


def read_texts(files: RunFiles, ids: Collection[str]) -> dict[str, str]:
    """The input text of each of ``ids``, from examples.parquet or the file that still has it."""
    texts: dict[str, str] = {}
    for name in ("predictions", "curated", "labeled", "examples"):
        missing = [one for one in ids if one not in texts]
        if not missing:
            break
        table = _read_table(
            files.path / f"{name}.parquet", {"id": pl.String, "input": pl.String}, only=missing
        )
        found = table.drop_nulls().iter_rows()
        texts.update(dict(found))
    return texts


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of the run.

    Raises:
        ReportError: The file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path} cannot be read: {error}. {_REMEDY}") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path} holds {content!r:.60}, not an object. {_REMEDY}")
    return content


def _read_table(
    path: Path, columns: Mapping[str, Any], *, only: Collection[str] | None = None
) -> pl.DataFrame:
    """The named columns of a Parquet file, null where it has none; empty where there is no file."""
    if not path.exists():
        return pl.DataFrame(schema={name: _type(kind) for name, kind in columns.items()})
    try:
        table = pl.scan_parquet(path)
        present = set(table.collect_schema().names())
        if only is not None:
            table = table.filter(pl.col("id").cast(pl.String).is_in(list(only)))
        wanted = [
            _column(name, kind) if name in present else pl.lit(None, _type(kind)).alias(name)
            for name, kind in columns.items()
        ]
        return table.select(wanted).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReportError(f"{path} cannot be read: {reason}. {_REMEDY}") from error


def _type(kind: Any) -> Any:
    return pl.String if kind is None or isinstance(kind, pl.Expr) else kind


def _column(name: str, kind: Any) -> pl.Expr:
    if isinstance(kind, pl.Expr):
        return kind
    return pl.col(name) if kind is None else pl.col(name).cast(kind)
