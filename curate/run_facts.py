"""What run.json says of a run: the recipe, what each stage did, and how it ended."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
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


def _balance(curated: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Labelled train rows by label, before the filters and after."""
    labelled = curated[curated["label"].notna() & (curated["split"] == "train")]
    both = {"before": labelled, "after": labelled[labelled["keep"].astype(bool)]}
    return {
        when: {str(k): int(v) for k, v in rows["label"].value_counts().sort_index().items()}
        for when, rows in both.items()
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
