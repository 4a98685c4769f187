"""What ``curate filter`` shows of a run's decisions without judging anything anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import filters
from curate.exceptions import CurateError
from curate.filter_checks import reference_sets
from curate.recipe import Recipe, load_recipe, parse_recipe
from curate.recipe_filters import Texts, filters_of, ready
from curate.run_folder import RunFolder
from curate.tables import SourceError


def look(
    recipe: Path,
    *,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    explain: str | None = None,
    diff: Path | None = None,
    thresholds: Sequence[str] = (),
) -> str:
    """Explain a row, or say what changes with other thresholds or against another run, as text.

    Args:
        recipe: A recipe that has been run, or the folder of a complete run.
        overrides: As for :func:`curate.filter`.
        output: The recipe's run folder, if not ``runs/<name>``.
        explain: The id of a row to explain, after ``thresholds`` have been moved.
        diff: Another run's folder, to compare with.
        thresholds: ``filter.argument=value`` pairs that are moved without computing anew.

    Raises:
        CurateError, filters.FilterError: If a file is missing, or something cannot be said from the
            files alone.
    """
    folder, checked, base = find_run(recipe, overrides, output)
    result = read_result(folder, checked, base)
    moved = filters.rethreshold(result, _read_changes(thresholds)) if thresholds else result
    blocks = []
    if thresholds:
        blocks += [str(filters.diff(result, moved)), *moved.warnings]
    if diff is not None:
        other = RunFolder(diff)
        theirs = read_result(other, _recipe_of(other), base)
        blocks.append(str(filters.diff(moved, theirs)))
    if explain is not None:
        blocks.append(str(filters.explain(moved, explain)))
    return "\n\n".join(blocks)


def find_run(
    recipe: Path, overrides: Sequence[str], output: Path | None
) -> tuple[RunFolder, Recipe, Path]:
    """A run's folder, its recipe, and the folder that the recipe's paths start at.

    Args:
        recipe: A recipe, or the folder of a complete run; of the latter, paths start at the working
            folder.
        overrides: As for :func:`curate.filter`; of no effect on a run's own recipe.
        output: The recipe's run folder, if not ``runs/<name>``.

    Raises:
        CurateError: If there is no such recipe or run.
    """
    if recipe.is_dir():
        if overrides or output is not None:
            raise CurateError(
                f"{recipe} is a run's folder and has its own recipe: --set and --output "
                "go with a recipe's file"
            )
        run = RunFolder(recipe)
        return run, _recipe_of(run), Path.cwd()
    checked = load_recipe(recipe, overrides=overrides)
    folder = output if output is not None else Path("runs") / checked.name
    return RunFolder(folder), checked, recipe.resolve().parent


def _recipe_of(run: RunFolder) -> Recipe:
    """The recipe that stands in a complete run's run.json."""
    path = run.path / "run.json"
    try:
        resolved = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    except FileNotFoundError as error:
        raise CurateError(
            f"{path} is not there, and with it the filters that ran: name a complete run's folder, or the "
            "recipe with --output"
        ) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CurateError(f"{path} cannot be read ({error}): run `curate run` again") from error
    return parse_recipe(resolved, where=str(path))


def read_result(run: RunFolder, recipe: Recipe, base: Path) -> filters.Result:
    """What the filters of a run decided, put together from its files.

    Sets of `data.references` that cannot be read any more are left out: their texts are not shown.

    Raises:
        CurateError: If the files are missing, or stem from other filters than the recipe's.
    """
    curated = run.read_table("curated.parquet")
    decisions = run.read_table("decisions.parquet")
    chosen = filters_of(recipe)
    rows = curated[curated["split"] == "train"].reset_index(drop=True)
    ran = {*decisions["filter"]} - {"unlabelled", "review"}
    ran |= {name for name in filters.FILTERS if f"score_{name}" in rows.columns}
    info = run.stages().get("curated", {}).get("info", {})
    recorded = info.get("policy", filters.policy_hash(chosen))
    if ran != {each.reason for each in chosen} or recorded != filters.policy_hash(chosen):
        raise CurateError(
            f"the filters that ran in {run.path} ({', '.join(sorted(ran)) or 'none'}) are not the recipe's, "
            "or not with the same arguments: run `curate filter` again"
        )
    labeled = run.read_table("labeled.parquet")
    try:
        references = reference_sets(labeled, recipe, base)
    except SourceError:
        bare = recipe.data.model_copy(update={"references": {}})
        references = reference_sets(labeled, recipe.model_copy(update={"data": bare}), base)
    return filters.result_from(
        rows,
        decisions,
        chosen,
        seed=recipe.seed,
        references=filters.read_references(references, {}),
    )


def _read_changes(thresholds: Sequence[str]) -> dict[str, Any]:
    changes = {}
    for written in thresholds:
        name, sign, value = written.partition("=")
        if not sign or "." not in name:
            raise CurateError(
                f"--threshold {written}: write filter.argument=value, such as near_duplicate.threshold=0.9"
            )
        try:
            changes[name.strip().removeprefix("filters.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or error
            raise CurateError(f"--threshold {written}: the value is no YAML ({problem})") from error
    return changes


def self_test(
    recipe: Path,
    *,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    store: Path | None = None,
    on_progress: Any = None,
) -> filters.SelfTest:
    """Plant changes in a sample of a run's labelled training rows and try the recipe's filters on them.

    Args:
        recipe: A recipe whose rows have been labelled, or the folder of a complete run.
        overrides: As for :func:`curate.filter`.
        output: The recipe's run folder, if not ``runs/<name>``.
        store: Folder of cached embeddings; by default ``.curate`` beside the recipe.
        on_progress: Receives each stage's events.

    Raises:
        CurateError, filters.FilterError: If there are no labelled rows, or too few.
    """
    folder, checked, base = find_run(recipe, overrides, output)
    labeled = folder.read_table("labeled.parquet")
    cache = (store if store is not None else base / ".curate") / "embeddings"
    tell = on_progress or (lambda stage, event: None)

    encode = None if checked.embedder is None else Texts(checked.embedder, base, cache, tell)
    return filters.self_test(
        labeled[labeled["split"] == "train"].drop(columns=["gold"]),
        ready(filters_of(checked), base=base, cache=cache, on_progress=tell),
        encode=encode,
        seed=checked.seed,
        on_progress=lambda event: tell("filter", event),
    )
