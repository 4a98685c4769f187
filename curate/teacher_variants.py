"""The variants of a recipe's task and teacher that ``curate teacher`` compares."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from curate.exceptions import CurateError, RecipeError
from curate.gold import references_of
from curate.recipe import Recipe, parse_recipe
from curate.recipe_files import _Loader, may_be_secret
from curate.recipe_trials import BASE, check_key
from curate.sources import _rendered
from curate.splits import normalised

if TYPE_CHECKING:
    import pandas as pd

#: A longer value does not become part of a variant's name.
_LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to ask.

    Attributes:
        name: What tables call it.
        changes: Values by dotted key that are set over the recipe's.
        recipe: The recipe with them; None where they do not fit it.
        problem: Why they do not.
    """

    name: str
    changes: Mapping[str, Any]
    recipe: Recipe | None
    problem: str = ""

    @property
    def overrides(self) -> list[str]:
        """The changes as ``--set`` takes them."""
        return [override(key, value) for key, value in self.changes.items()]


def override(key: str, value: Any) -> str:
    """``key=value`` as ``--set`` takes it, as plain as the value allows."""
    if isinstance(value, str):
        try:
            if yaml.load(value, Loader=_Loader) == value:
                return f"{key}={value}"
        except (yaml.YAMLError, ValueError):
            pass
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def read_vary(given: str) -> tuple[str, list[Any]]:
    """The key and the values of one ``--vary KEY=V1,V2``.

    Values are YAML, between commas or as one list in brackets; a text with a comma stands in quotes.

    Raises:
        CurateError: If it is not written so, or the key may not be varied.
    """
    key, _, text = given.partition("=")
    key = key.strip()
    shown = f"{key}=…" if may_be_secret(key) else given
    if not key or not text.strip():
        raise CurateError(
            f"--vary {shown!r}: write a key and its values, such as teacher.mode=score,cot"
        )
    try:
        check_key(key)
        values = [yaml.load(part, Loader=_Loader) for part in _parts(text)]
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        remedy = (
            "; values are YAML, and a text with a comma or a colon stands in quotes"
            if isinstance(error, yaml.YAMLError)
            else ""
        )
        raise CurateError(f"--vary {shown!r}: {reason}{remedy}") from error
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values:
        raise CurateError(f"--vary {shown!r}: there is no value in the list")
    return key, list(values)


def _parts(text: str) -> list[str]:
    """What stands between the commas that are in no quotes and no brackets."""
    parts, depth, quote, before = [""], 0, "", ","
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and before in ",[{:":
            quote = character  # elsewhere it is an apostrophe
        elif character in "[{" and (depth or before == ","):
            depth += 1
        elif character in "]}" and depth:
            depth -= 1
        elif character == "," and not depth:
            parts.append("")
            before = character
            continue
        parts[-1] += character
        if not character.isspace():
            before = character
    return parts


def make_variants(
    values: Mapping[str, Any],
    base: Recipe,
    *,
    overrides: Sequence[str] = (),
    vary: Sequence[str] = (),
) -> tuple[list[Variant], list[str]]:
    """All variants, the recipe as it is first.

    Args:
        values: The recipe's values, unchecked.
        base: The recipe, checked, with the overrides.
        overrides: What is set for all variants.
        vary: ``KEY=V1,V2`` texts; each value changes one key.

    Returns:
        The variants, and notes on those left out because they are equal to another.

    Raises:
        CurateError: If a key may not be varied, or two variants have one name.
    """
    named = dict(base.trials.variants) if base.trials else {}
    for name, changes in _varied(vary):
        if name in named:
            raise CurateError(
                f"two variants are called {name!r}: rename the one under trials.variants, or give --vary "
                "each value once"
            )
        named[name] = changes
    bare = {key: value for key, value in values.items() if key != "trials"}
    variants = [Variant(name=BASE, changes={}, recipe=base)]
    notes = []
    for name, changes in named.items():
        variant = _variant(name, changes, bare, overrides)
        twin = next((other for other in variants if _same(other.recipe, variant.recipe)), None)
        if twin is not None:
            what = "what the recipe says" if twin.name == BASE else f"the same as {twin.name}"
            notes.append(f"{name} is {what} and was left out")
            continue
        variants.append(variant)
    return variants, notes


def _varied(vary: Sequence[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    numbers: dict[str, int] = {}
    for given in vary:
        key, values = read_vary(given)
        for value in values:
            text = override(key, value)
            hidden = isinstance(value, str) and may_be_secret(key)
            if isinstance(value, list | dict) or hidden or len(text) > _LONGEST_NAME:
                numbers[key] = numbers.get(key, 0) + 1
                text = f"{key} {numbers[key]}"
            yield text, {key: value}


def _variant(
    name: str, changes: Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str]
) -> Variant:
    try:
        recipe = parse_recipe(
            values,
            where="recipe",
            overrides=[*overrides, *(override(key, value) for key, value in changes.items())],
        )
    except RecipeError as error:
        return Variant(name=name, changes=changes, recipe=None, problem=str(error))
    return Variant(name=name, changes=changes, recipe=recipe)


def _same(one: Recipe | None, other: Recipe | None) -> bool:
    if one is None or other is None:
        return False
    return one.task == other.task and one.teacher == other.teacher


# ----------------------------------------------------------------------------------- the rows it sees


def demonstrated(variants: Iterable[Variant]) -> set[str]:
    """Inputs that some variant shows the teacher with their answers, as they are compared."""
    found = set()
    for variant in variants:
        if variant.recipe is not None:
            teacher = variant.recipe.teacher
            shown = [
                variant.recipe.task.demonstrations,
                *(member.demonstrations or [] for member in getattr(teacher, "members", ())),
            ]
            found |= {normalised(each.input) for group in shown for each in group}
    return found


def fit_rows(rows: pd.DataFrame, recipe: Recipe, base: Recipe) -> pd.DataFrame:
    """The rows as a variant's task shows them: its own template and label set.

    Ids, splits and gold stay those of the recipe as it is.

    Raises:
        CurateError: If gold is not among the variant's labels, or its template names an absent column.
    """
    import pandas as pd

    task = recipe.task
    rows = rows.reset_index(drop=True)
    if task.labels != base.task.labels:
        said = {label for gold in rows["gold"] for label in references_of(gold)}
        if task.labels is not None and (strange := said - set(task.labels)):
            raise CurateError(
                f"task.labels lacks {sorted(strange)[0]!r}, which gold says of a row: keep the labels of the "
                "data"
            )
        rows["choices"] = pd.Series([task.labels] * len(rows), dtype=object)
    if task.template != base.task.template:
        rows["input"] = pd.Series(_inputs(rows, recipe), dtype=object)
    return rows


def _inputs(rows: pd.DataFrame, recipe: Recipe) -> list[str]:
    task = recipe.task.task()
    columns = {}
    for name in sorted(task.columns):
        column = "choices" if name == task.choices else name
        if column not in rows.columns:
            raise CurateError(
                f"task.template names the column {name!r}, which the rows lack; they have "
                f"{', '.join(rows.columns)}"
            )
        columns[name] = rows[column].tolist()
    return [
        _rendered({name: column[i] for name, column in columns.items()}, task, f"row {id_!r}")
        for i, id_ in enumerate(rows["id"])
    ]
