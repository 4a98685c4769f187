"""The log of experiments: one table in SQLite and Parquet, and other trackers where they are asked for."""

from __future__ import annotations

import importlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from curate.exceptions import CurateError
from curate.recipe import Recipe
from curate.run_folder import RunFolder, fingerprint

#: Columns of the table, in order, and their types in SQLite.
COLUMNS = {
    "experiment": "TEXT", "changes": "TEXT", "base_sha256": "TEXT", "recipe_sha256": "TEXT",
    "seeds": "TEXT", "rows": "INTEGER", "metric": "TEXT", "value": "REAL", "low": "REAL",
    "high": "REAL", "metrics": "TEXT", "difference": "REAL",
    "difference_low": "REAL", "difference_high": "REAL", "p": "REAL", "p_holm": "REAL",
    "compared": "INTEGER", "verdict": "TEXT", "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER", "cost_usd": "REAL", "seconds": "REAL", "problem": "TEXT",
}  # fmt: skip
_FILE = "experiments.sqlite"
_NUMBERS = (
    "value", "low", "high", "difference", "p", "p_holm", "rows", "seconds",
    "prompt_tokens", "completion_tokens", "cost_usd",
)  # fmt: skip


def write_log(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows into ``experiments.sqlite`` and write all that are there to ``experiments.parquet``.

    An experiment of the same base, changes and seeds takes the place of the older one; ``at`` says when it
    was last judged.

    Raises:
        CurateError: If the file cannot be written, or is not such a table.
    """
    import pandas as pd

    at = datetime.now(UTC).isoformat(timespec="seconds")
    names = ["key", "at", *COLUMNS]
    try:
        with closing(sqlite3.connect(folder.path / _FILE)) as base, base:
            kinds = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            base.execute(
                f"CREATE TABLE IF NOT EXISTS experiments (key TEXT PRIMARY KEY, at TEXT, {kinds})"
            )
            for row in rows:
                key = fingerprint(
                    row.get("base_sha256"), row.get("changes"), row.get("seeds"), row["experiment"]
                )
                values = [_plain(row.get(name)) for name in COLUMNS]
                marks = ", ".join("?" * len(names))
                base.execute(
                    f"INSERT OR REPLACE INTO experiments ({', '.join(names)}) VALUES ({marks})",
                    [key, at, *values],
                )
            found = base.execute(
                f"SELECT {', '.join(names)} FROM experiments ORDER BY at, rowid"
            ).fetchall()
    except sqlite3.Error as error:
        raise CurateError(
            f"{folder.path / _FILE} cannot be written ({error}): move it away, and run again; no student is "
            "trained anew"
        ) from error
    folder.write_table("experiments.parquet", pd.DataFrame(found, columns=names))


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


# -------------------------------------------------------------------------------------- other trackers


def check_trackers(names: Sequence[str]) -> None:
    """See that the trackers are known and installed, before anything runs.

    Raises:
        CurateError: If one is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise CurateError(f"--log-to {name}: {' and '.join(TRACKERS)} are known")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise CurateError(
                f"--log-to {name}: the package is not installed: pip install {name}"
            ) from error


def log_to_trackers(
    names: Sequence[str], recipe: Recipe, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Log each experiment as a run of its own: its changes, its numbers, what it cost."""
    for name in names:
        module = importlib.import_module(name)
        for row in rows:
            changes = {key: _plain(value) for key, value in (row.get("changes") or {}).items()}
            numbers = {n: row[n] for n in _NUMBERS if isinstance(row.get(n), int | float)}
            TRACKERS[name](module, recipe.name, row, changes, numbers)


def _wandb(module: Any, project: str, row: Mapping[str, Any], changes: Any, numbers: Any) -> None:
    config = {**changes, "recipe_sha256": row.get("recipe_sha256"), "verdict": row.get("verdict")}
    run = module.init(project=project, name=row["experiment"], config=config, reinit=True)
    run.log(numbers)
    run.finish()


def _mlflow(module: Any, project: str, row: Mapping[str, Any], changes: Any, numbers: Any) -> None:
    module.set_experiment(project)
    with module.start_run(run_name=row["experiment"]):
        module.log_params(changes)
        module.log_metrics(numbers)
        tags = {"recipe_sha256": row.get("recipe_sha256"), "verdict": row.get("verdict")}
        module.set_tags({key: value for key, value in tags.items() if value is not None})


TRACKERS: Mapping[str, Callable[..., None]] = {"wandb": _wandb, "mlflow": _mlflow}
