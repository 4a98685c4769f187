"""What ``curate filter`` shows of a run's decisions without judging anything anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import filters
from curate.exceptions import CurateError
from curate.recipe import Recipe, load_recipe, parse_recipe
from curate.run_folder import RunFolder
from curate.stages import reference_sets

if TYPE_CHECKING:
    pass


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
    folder, checked = _find_run(recipe, overrides, output)
    result = read_result(folder, checked)
    moved = filters.rethreshold(result, _read_changes(thresholds)) if thresholds else result
    blocks = []
    if thresholds:
        blocks += [str(filters.diff(result, moved)), *moved.warnings]
    if diff is not None:
        other = RunFolder(diff)
        theirs = read_result(other, _recipe_of(other))
        blocks.append(str(filters.diff(moved, theirs)))
    if explain is not None:
        blocks.append(str(filters.explain(moved, explain)))
    return "\n\n".join(blocks)


def _find_run(
    recipe: Path, overrides: Sequence[str], output: Path | None
) -> tuple[RunFolder, Recipe]:
    if recipe.is_dir():
        run = RunFolder(recipe)
        return run, _recipe_of(run)
    checked = load_recipe(recipe, overrides=overrides)
    return RunFolder(output if output is not None else Path("runs") / checked.name), checked


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


def read_result(run: RunFolder, recipe: Recipe) -> filters.Result:
    """What the filters of a run decided, put together from its files.

    Raises:
        CurateError: If the files are missing, or stem from other filters than the recipe's.
    """
    curated = run.read_table("curated.parquet")
    decisions = run.read_table("decisions.parquet")
    chosen = recipe.built_filters()
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
    references = reference_sets(run.read_table("labeled.parquet"))
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
        changes[name.strip().removeprefix("filters.")] = yaml.safe_load(value)
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
    from curate.references import resolve_model

    folder, checked = _find_run(recipe, overrides, output)
    labeled = folder.read_table("labeled.parquet")
    base = Path.cwd() if recipe.is_dir() else recipe.resolve().parent
    cache = (store if store is not None else base / ".curate") / "embeddings"
    tell = on_progress or (lambda stage, event: None)

    def encode(texts: Sequence[str]) -> Any:
        model = resolve_model(
            checked.embedder or "", "embedder", base, lambda event: tell("assets", event)
        )
        return filters.embed(
            list(texts), model, cache=cache, on_progress=lambda event: tell("embed", event)
        )

    return filters.self_test(
        labeled[labeled["split"] == "train"].drop(columns=["gold"]),
        checked.built_filters(),
        encode=None if checked.embedder is None else encode,
        seed=checked.seed,
        on_progress=lambda event: tell("filter", event),
    )
