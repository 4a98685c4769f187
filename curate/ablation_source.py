"""What an ablation starts from: a recipe, the rows of its run, and what their labels cost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.recipe import Recipe, parse_recipe
from curate.recipe_files import Places, read_recipe
from curate.references import check_models
from curate.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

RecipeLike = str | os.PathLike[str] | Mapping[str, Any] | Recipe


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the teacher took for one train row of the run, as far as it is known.

    Attributes:
        usd: US dollars; None without prices.
        tokens: Prompt and completion tokens; None where they are not counted.
        seconds: Of waiting, at the run's own pace; None where its answers came from the store.
    """

    usd: float | None
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A recipe and its run, read.

    Attributes:
        recipe: The recipe, checked, with the overrides.
        base: The recipe's folder.
        path: The recipe's file; None for a recipe in memory.
        store: Folder of the teacher's exchanges.
        run: The run's folder.
        curated: Its train and validation rows with the filters' verdicts.
        costs: What its labels took.
        notes: What is to be known of it.
    """

    recipe: Recipe
    values: Mapping[str, Any]
    places: Places
    overrides: Sequence[str]
    base: Path
    path: Path | None
    store: Path
    run: RunFolder
    curated: pd.DataFrame
    costs: Costs
    notes: Sequence[str]

    def changed(self, *overrides: str) -> Recipe:
        """The recipe with more values set over it.

        Raises:
            RecipeError: If it does not pass the checks.
        """
        return parse_recipe(
            self.values, places=self.places, overrides=[*self.overrides, *overrides]
        )

    def test_rows(self) -> pd.DataFrame:
        """The labelled test rows, with a column ``reference``: gold, or else the teacher's label."""
        labeled = self.run.read_table("labeled.parquet")
        test = labeled[labeled["split"] == "test"]
        name = "gold" if test["gold"].notna().any() else "label"
        test = test[test[name].notna()].reset_index(drop=True)
        return test.assign(reference=test[name])


def open_source(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    run: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Source:
    """Read a recipe and the curated rows of its run. Nothing is asked, filtered or trained.

    Raises:
        CurateError: If the run has no curated rows.
        RecipeError: If the recipe is not good.
    """
    path = None
    values: Mapping[str, Any]
    places: Places = {}
    base = Path.cwd()
    if isinstance(recipe, Recipe):
        # As a file writes filters, so that a value of one can be set over it by the filter's name.
        values = recipe.resolved() | {"filters": [{n: dict(a)} for n, a in recipe.filters]}
    elif isinstance(recipe, Mapping):
        values = recipe
    else:
        path = Path(recipe)
        values, places = read_recipe(path)
        base = path.resolve().parent
    checked = parse_recipe(values, places=places, overrides=overrides)
    check_models(checked, base)
    folder = RunFolder(run if run is not None else Path("runs") / checked.name)
    if not (folder.path / "curated.parquet").exists():
        said = path if path is not None else "RECIPE"
        raise CurateError(
            f"{folder.path} holds no curated rows: `curate filter {said} --output {folder.path}` makes them, "
            "which may ask the teacher; an ablation does not. A run elsewhere is named with --run"
        )
    curated = folder.read_table("curated.parquet")
    return Source(
        recipe=checked,
        values=values,
        places=places,
        overrides=tuple(overrides),
        base=base,
        path=path,
        store=Path(store) if store is not None else base / ".curate",
        run=folder,
        curated=curated,
        costs=_costs(curated, folder),
        notes=_differences(checked, folder),
    )


def _costs(curated: pd.DataFrame, run: RunFolder) -> Costs:
    train = curated[curated["split"] == "train"]

    def mean(*columns: str) -> float | None:
        there = [c for c in columns if c in train.columns]
        if not there or train[there].isna().all(axis=None):
            return None
        return float(train[there].fillna(0).to_numpy(dtype=float).sum() / len(train))

    usd = mean("cost_usd") if train["cost_usd"].notna().all() else None
    told = run.stages().get("labeled", {}).get("info", {})
    rows, asked = told.get("rows") or 0, told.get("asked") or 0
    # A pace counts only where most answers were asked for in that run.
    paced = rows and asked >= 0.9 * (asked + (told.get("from_store") or 0))
    return Costs(
        usd=usd,
        tokens=mean("prompt_tokens", "completion_tokens") or None,
        seconds=told["seconds"] / rows if paced and told.get("seconds") else None,
    )


def _differences(recipe: Recipe, run: RunFolder) -> list[str]:
    """Sections in which the run's own recipe says something else: its rows are used all the same."""
    try:
        before = json.loads((run.path / "run.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    now = recipe.resolved()
    found = [
        name
        for name in ("task", "data", "teacher", "filters", "embedder", "generate", "privacy")
        if _differ(_settled(before, name), _settled(now, name))
    ]
    if not found:
        return []
    return [
        f"the run in {run.path} was made with another {', '.join(found)}: its rows are used as they are; "
        f"`curate filter` with this recipe brings them up to date"
    ]


def _differ(before: Any, now: Any) -> bool:
    """Whether two sections say different things of the keys that both have: newer keys have defaults."""
    if isinstance(before, dict) and isinstance(now, dict):
        return any(_differ(before[key], now[key]) for key in before.keys() & now.keys())
    return bool(before != now)


def _settled(recipe: Mapping[str, Any], name: str) -> Any:
    """A section as it affects the rows; an absent one is null."""
    section = recipe.get(name)
    if name == "task" and isinstance(section, dict):
        return {k: v for k, v in section.items() if k not in ("metrics", "goal")}
    return section
