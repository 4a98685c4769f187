"""What run.json says of a run: the recipe, what each stage did, and how it ended."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

_PACKAGES = (
    *("torch", "transformers", "datasets", "sentence-transformers", "scikit-learn", "pandas"),
    *("polars", "rensa", "openai", "aiohttp", "xllamacpp"),
)


def run_facts(
    recipe: Recipe,
    *,
    stages: Mapping[str, Mapping[str, Any]],
    curated: pd.DataFrame,
    metrics: Mapping[str, Any],
    goal: Sequence[Mapping[str, Any]],
    verdict: str,
) -> dict[str, Any]:
    """The content of run.json, as plain JSON values; docs/run-folder.md explains it."""
    return {
        "name": recipe.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "curate_version": metadata.version("curate-distill"),
        "seed": recipe.seed,
        "recipe": recipe.resolved(),
        "recipe_sha256": recipe.sha256(),
        "stages": stages,
        "filters": _filters(recipe, stages["curated"]),
        "funnel": stages["curated"]["funnel"],
        "balance": _balance(curated),
        "metrics": metrics,
        "goal": goal,
        "verdict": verdict,
        "notes": [note for info in stages.values() for note in info.get("notes", [])],
        "versions": _versions(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "platform": platform.platform(terse=True),
        },
    }


def _filters(recipe: Recipe, curated: Mapping[str, Any]) -> dict[str, Any]:
    """What the filters did, in their order: the policy's hash, and the rows that each dropped.

    Rows without a label, and those that a person left out, go before all filters. What a run of
    an older version did not record is null.
    """
    dropped: Mapping[str, int] = curated["dropped"]
    before = [name for name in ("unlabelled", "review") if name in dropped]
    return {
        "policy": curated.get("policy"),
        "dropped": {
            name: dropped.get(name, 0)
            for name in (*before, *(each.reason for each in recipe.built_filters()))
        },
        "kept": curated["kept"],
        "conflicts": curated["conflicts"],
        "reviewed": curated.get("reviewed", {}),
        "notes": curated.get("notes", []),
    }


def _balance(curated: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Labelled train rows by label, before the filters and after.

    Where rows have weights or copies, `effective` is what the rows of a label count for together.
    """
    labelled = curated[curated["label"].notna() & (curated["split"] == "train")]
    kept = labelled[labelled["keep"].astype(bool)]
    counted: dict[str, dict[str, float]] = {
        when: {str(k): int(v) for k, v in rows["label"].value_counts().sort_index().items()}
        for when, rows in {"before": labelled, "after": kept}.items()
    }
    loads = kept["weight"] * kept["copies"]
    if (loads != 1).any():
        sums = loads.groupby(kept["label"]).sum()
        counted["effective"] = {str(k): round(float(v), 3) for k, v in sums.items()}
    return counted


def count_reviewed(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows have which verdict of a person; empty where none has been asked."""
    if "review" not in rows.columns:
        return {}
    return {str(k): int(v) for k, v in rows["review"].value_counts().sort_index().items()}


def rows_deduped(source: Path) -> int | None:
    """How many rows `curate dedupe` left out of a file; None where it did not write the file.

    It is read off the evidence that the command writes beside the file that it makes.
    """
    evidence = source.with_name(f"{source.name}.decisions.parquet")
    if not (source.is_file() and evidence.is_file()):
        return None
    import pandas as pd

    try:
        lines = pd.read_parquet(evidence, columns=["id", "verdict"])
    except (OSError, ValueError, KeyError):
        return None  # a file of somebody else's
    return int(lines.loc[lines["verdict"] == "drop", "id"].nunique())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
