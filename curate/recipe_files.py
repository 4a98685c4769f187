"""A recipe's file: its values, where each key stands, and values set over it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from curate.exceptions import RecipeError


class _Loader(yaml.SafeLoader):
    """YAML as people write numbers: ``3e-4`` is one, as in YAML 1.2 and not in 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)

#: Where each key stands, for messages: ``("student", "epochs")`` to ``recipe.yaml:30``.
Places = dict[tuple[str, ...], str]


def read_recipe(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Places]:
    """The values of a recipe's file as they are written, unchecked.

    Raises:
        RecipeError: If the file cannot be read, is not YAML, or gives a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"the recipe {path} cannot be read: {error.strerror}; `curate init {path}` writes one"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"the recipe {path} is not UTF-8 at byte {error.start}: save it as UTF-8"
        ) from error
    places: Places = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        _find_places(node, (), path, places, set())
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{where}: this is not YAML: {error.problem}") from error
    except RecipeError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path}: this is not YAML: {reason}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no recipe; `curate init` writes one to begin with")
    return values, places


def _find_places(
    node: yaml.Node | None, prefix: tuple[str, ...], path: Path, places: Places, seen: set[int]
) -> None:
    """Note the line of every key and list item, and refuse a key that is given twice.

    YAML readers keep the last of two equal keys and say nothing; a recipe must not.
    """
    if node is None or id(node) in seen:
        return
    seen.add(id(node))  # an alias may point at what holds it
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*prefix, str(key.value))
            if here in places:
                raise RecipeError(
                    f"{path}:{key.start_mark.line + 1}: the key {'.'.join(here)!r} is given twice "
                    f"(first on line {places[here].rpartition(':')[2]}): keep one"
                )
            places[here] = f"{path}:{key.start_mark.line + 1}"
            _find_places(value, here, path, places, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            here = (*prefix, str(number))
            places[here] = f"{path}:{value.start_mark.line + 1}"
            _find_places(value, here, path, places, seen)


def set_value(values: dict[str, Any], places: Places, override: str) -> None:
    """Change one value, as ``--set`` does, and note that it stands there now.

    Args:
        values: Values of a recipe; changed in place.
        places: Changed in place.
        override: ``key=value`` with a dotted key and a YAML value; a filter's argument is reached by
            the filter's name (``filters.near_duplicate.threshold=0.7``).

    Raises:
        RecipeError: If it is not written so, or there is no such place.
    """
    key, separator, text = override.partition("=")
    shown = f"{key}=…" if may_be_secret(key) else override
    said = f"--set {shown!r}"
    if not separator or not key.strip():
        raise RecipeError(f"{said}: write key=value, such as student.epochs=1")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{said}: the value is not YAML: {reason}") from error
    *parents, last = key.strip().split(".")
    place: Any = values
    path: tuple[str, ...] = ()
    for part in parents:
        written = isinstance(place, dict) and part in place
        place, step = _descend(place, part, ".".join(parents), said)
        path = (*path, step)
        if not written:
            places[path] = said
    if not isinstance(place, dict):
        raise RecipeError(f"{said}: {'.'.join(parents)} holds no keys to be set")
    place[last] = value
    for known in [p for p in places if p[: len(path) + 1] == (*path, last)]:
        del places[known]
    places[(*path, last)] = said


def _descend(place: Any, part: str, parents: str, said: str) -> tuple[Any, str]:
    """What lies under ``part``, made where it is absent, and the part's key or number."""
    if isinstance(place, dict):
        if place.get(part) is None:
            place[part] = {}
        return place[part], part
    if not isinstance(place, list):
        raise RecipeError(f"{said}: {parents} holds no keys to be set")
    for i, entry in enumerate(place):
        if entry == part:
            place[i] = {part: {}}
            return place[i][part], str(i)
        if isinstance(entry, dict) and part in entry:
            entry[part] = {} if entry[part] is None else entry[part]
            return entry[part], str(i)
    if part.isdecimal() and int(part) < len(place):
        return place[int(part)], part
    raise RecipeError(f"{said}: the recipe has no {part!r} there to be changed")


#: Keys that count tokens and hold none.
_COUNTS = frozenset(
    {"tokens", "max_tokens", "max_rationale_tokens", "max_input_tokens", "tokens_per_minute"}
)


def may_be_secret(key: str) -> bool:
    """Whether the value under a key may be a secret, which no message quotes."""
    last = key.rpartition(".")[2].lower()
    if last in _COUNTS:
        return False
    return any(word in last for word in ("key", "token", "secret", "password", "url"))
