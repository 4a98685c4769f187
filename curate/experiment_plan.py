"""Which experiments there are: keys and values checked before anything runs, and what they would ask."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

import filters
from curate.ablation_source import Source
from curate.exceptions import CurateError, RecipeError
from curate.recipe import Recipe, StudentSection, parse_recipe
from curate.recipe_checks import nearest
from curate.recipe_files import _Loader, set_value
from curate.references import check_models
from curate.teacher_variants import _parts, override

BASE = "base"
#: Sections on which the teacher's answers depend, and those on which its rows are filtered again.
ASKED = ("task", "teacher", "generate", "privacy", "scores")
FILTERED = ("filters", "embedder")
_REFUSED = {
    "name": "it names the run",
    "data": "all experiments answer the same validation rows",
    "trials": "it belongs to `curate teacher`",
    "seed": "all experiments are run with the same seeds: give them with --seeds",
    "task.labels": "all experiments are judged by the same labels",
    "task.choices": "all experiments are judged by the same labels",
    "task.goal": "no training depends on it",
    "task.metrics": "no training depends on it",
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A recipe that differs from the base in what is to be tried.

    Attributes:
        name: What tables call it.
        changes: Values by dotted key; none for the base.
        recipe: The recipe with them, checked.
    """

    name: str
    changes: Mapping[str, Any]
    recipe: Recipe

    def differs(self, base: Recipe, sections: Sequence[str]) -> bool:
        """Whether it says something else than the base in one of the sections."""
        mine, other = self.recipe.resolved(), base.resolved()
        return any(mine[name] != other[name] for name in sections)


def make_experiments(
    source: Source, vary: Sequence[str], *, grid: bool
) -> tuple[list[Experiment], list[str]]:
    """The base and all experiments, each checked in full, and notes on those left out.

    Args:
        source: The recipe and its run.
        vary: ``KEY=V1,V2`` texts. A filter's argument is reached by the filter's name
            (``filters.near_duplicate.threshold``), and ``filters.near_duplicate=off`` leaves it out.
        grid: All combinations of values instead of one change each.

    Raises:
        CurateError, RecipeError: If a key or a value cannot be; nothing has run then.
    """
    chosen: dict[str, list[Any]] = {}
    for given in vary:
        key, values = _read_vary(given)
        _check_key(key, source.recipe)
        chosen.setdefault(key, []).extend(values)
    changes: list[dict[str, Any]]
    if grid:
        changes = [
            dict(zip(chosen, combination, strict=True))
            for combination in itertools.product(*chosen.values())
        ]
    else:
        changes = [{key: value} for key, values in chosen.items() for value in values]
    found = [Experiment(name=BASE, changes={}, recipe=source.recipe)]
    notes = []
    for change in changes:
        name = ", ".join(_shown(key, value) for key, value in change.items())
        recipe = _changed(source, change)
        twin = next((e for e in found if e.recipe.resolved() == recipe.resolved()), None)
        if twin is not None:
            what = "what the recipe says" if twin.name == BASE else f"the same as {twin.name}"
            notes.append(f"{name} is {what} and was left out")
        else:
            check_models(recipe, source.base)
            found.append(Experiment(name=name, changes=change, recipe=recipe))
    if len(found) == 1:
        raise CurateError(
            f"no value of --vary differs from the recipe ({'; '.join(notes)}): give others"
        )
    return found, notes


def _read_vary(given: str) -> tuple[str, list[Any]]:
    key, _, text = given.partition("=")
    if not key.strip() or not text.strip():
        raise CurateError(
            f"--vary {given!r}: write a key and its values, such as student.alpha=0.3,0.5"
        )
    try:
        values = [yaml.load(part, Loader=_Loader) for part in _parts(text)]
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise CurateError(
            f"--vary {given!r}: {reason}; values are YAML, and a text with a comma or a colon stands in "
            "quotes"
        ) from error
    return key.strip(), values


def _check_key(key: str, recipe: Recipe) -> None:
    """Refuse a key that is not in a recipe, naming near ones, or that cannot be tried."""
    top, *rest = key.split(".")
    if top not in Recipe.model_fields:
        raise CurateError(
            f"--vary {key}: a recipe has no {top!r}{nearest(top, Recipe.model_fields)}"
        )
    for refused, why in _REFUSED.items():
        if key == refused or key.startswith(f"{refused}."):
            raise CurateError(f"--vary {key}: this cannot be varied, since {why}")
    if top == "student":
        if not rest or rest[0] not in StudentSection.model_fields:
            known = [f"student.{name}" for name in StudentSection.model_fields]
            raise CurateError(f"--vary {key}: there is no such key{nearest(key, known)}")
    elif top == "filters":
        _check_filter(key, rest, recipe)
    elif top not in (*ASKED, *FILTERED):
        raise CurateError(
            f"--vary {key}: keys under {', '.join(('student', *FILTERED, *ASKED))} can be varied"
        )


def _check_filter(key: str, rest: Sequence[str], recipe: Recipe) -> None:
    names = [name for name, _ in recipe.filters]
    if not rest or rest[0] not in names:
        asked = rest[0] if rest else ""
        if asked in filters.FILTERS:
            raise CurateError(
                f"--vary {key}: the recipe has no filter {asked!r}: add it to the recipe's filters, and "
                f"leave it out with --vary filters.{asked}=off; there are {', '.join(names) or 'none'}"
            )
        raise CurateError(
            f"--vary {key}: the recipe has no filter {asked!r}{nearest(asked, names) if names else ''}"
        )
    known = [f.name for f in dataclasses.fields(filters.FILTERS[rest[0]])]
    if len(rest) > 1 and rest[1] not in known:
        raise CurateError(
            f"--vary {key}: the filter {rest[0]} has no argument {rest[1]!r}{nearest(rest[1], known)}"
        )


def _shown(key: str, value: Any) -> str:
    text = f"{key}=off" if _leaves_out(key, value) else override(key, value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _leaves_out(key: str, value: Any) -> bool:
    return key.startswith("filters.") and key.count(".") == 1 and value is False


def _changed(source: Source, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with the changes, checked."""
    values, places = copy.deepcopy(dict(source.values)), dict(source.places)
    try:
        for given in source.overrides:
            set_value(values, places, given)
        for key, value in changes.items():
            if _leaves_out(key, value):
                name = key.partition(".")[2]
                values["filters"] = [
                    e
                    for e in values["filters"]
                    if e != name and not (isinstance(e, dict) and name in e)
                ]
            elif key.startswith("filters.") and key.count(".") == 1:
                raise CurateError(
                    f"--vary {key}: give an argument of the filter ({key}.threshold), or {key}=off to "
                    "leave it out"
                )
            else:
                set_value(values, places, override(key, value))
        return parse_recipe(values, places=places)
    except RecipeError as error:
        raise RecipeError(str(error).replace("--set", "--vary")) from error


def ask_leave(source: Source, experiments: Sequence[Experiment], yes: bool) -> None:
    """Quote the experiments that would ask the teacher, and refuse them without consent.

    Raises:
        CurateError: If some would, and ``yes`` is not set.
    """
    if yes:
        return
    quotes = []
    for each in experiments:
        if each.differs(source.recipe, ASKED):
            asked, lines = _quote(source, each.recipe)
            if asked:
                quotes.append("\n".join([f"{each.name}:", *(f"  {line}" for line in lines)]))
    if quotes:
        raise CurateError(
            f"{len(quotes)} of {len(experiments) - 1} experiments ask the teacher, about train and "
            "test rows:\n" + "\n".join(quotes) + "\nnothing was sent: add --yes to let them"
        )


def _quote(source: Source, recipe: Recipe) -> tuple[bool, list[str]]:
    """Whether a recipe's teacher would be asked anything, and a quote of it."""
    from curate import dry_run
    from curate.recipe_teachers import LlamaCppSection, RecordedSection, VLLMSection
    from curate.sources import load_examples

    if recipe.generate is not None:
        return True, ["new rows are to be written first, which cannot be quoted"]
    if recipe.scores is not None and recipe.scores.judge is not None:
        return True, ["a judge is to be asked about every labelled row, which cannot be quoted"]
    examples = load_examples(
        recipe.data, recipe.task.task(), folder=source.base, seed=recipe.seed,
        separator=recipe.task.separator,
        keep_columns=tuple(recipe.teacher.columns()),
    )  # fmt: skip
    lines: list[str] = []
    asked = False
    for section, task, note in dry_run._asked(recipe):
        if isinstance(section, RecordedSection):
            continue
        found, notes = dry_run._quote(
            examples, recipe, task, section, base=source.base, store=source.store
        )
        free = isinstance(section, (LlamaCppSection, VLLMSection)) and found.prices is None
        asked = asked or bool(found.to_ask)
        lines += dry_run.quote_lines(
            dataclasses.replace(found, prompts=()), free=free, notes=[*note, *notes]
        )
    return asked, lines
