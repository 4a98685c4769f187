"""A run's recipe as others may read it: short, without secrets and without folders of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from curate.export_rows import without_folders
from curate.recipe import parse_recipe
from curate.recipe_files import may_be_secret

#: Keys that name a variable, a count or a habit, never a secret.
_HARMLESS = frozenset({"api_key_env", "keep_reasoning"})
_ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|file:)")


def shareable_recipe(resolved: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A resolved recipe as YAML without what equals a default, and what was changed, by key.

    Values under keys that may hold secrets, servers' URLs included, are left out; absolute paths are
    cut to the file's name, which a recipe reads beside itself.
    """
    changed: list[str] = []
    shared = _shared(_short(resolved), (), changed)
    return yaml.safe_dump(shared, sort_keys=False, allow_unicode=True, width=100), changed


def _short(resolved: Mapping[str, Any]) -> dict[str, Any]:
    # Checking `privacy` loads a search for personal data that nothing here needs, or that is not here.
    rest = {key: value for key, value in resolved.items() if key != "privacy"}
    privacy = resolved.get("privacy")
    try:
        values = parse_recipe(rest).model_dump(mode="json", exclude_defaults=True)
        if privacy is not None:
            values["privacy"] = {key: each for key, each in privacy.items() if each is not None}
    except ValueError:
        values = dict(resolved)  # by another version of the toolkit: in full, as it was
    if "filters" in values:
        values["filters"] = [
            {name: arguments} if arguments else name for name, arguments in written_filters(values)
        ]
    return values


def written_filters(recipe: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The filters of a recipe with the arguments written, in whichever way that writes them."""
    pairs: list[tuple[str, dict[str, Any]]] = []
    for written in recipe.get("filters") or ():
        if isinstance(written, str):
            pairs.append((written, {}))
        elif isinstance(written, Mapping):
            pairs += [(str(name), dict(arguments or {})) for name, arguments in written.items()]
        else:
            pairs.append((str(written[0]), dict(written[1] or {})))
    return pairs


def _shared(value: Any, path: tuple[str, ...], changed: list[str]) -> Any:
    if isinstance(value, Mapping):
        kept = {}
        for key, each in value.items():
            place = (*path, str(key))
            if _secret(str(key), each) and path[:1] != ("task",):
                changed.append(f"{'.'.join(place)}: left out")
            else:
                kept[key] = _shared(each, place, changed)
        return kept
    if isinstance(value, list):
        return [_shared(each, (*path, str(n)), changed) for n, each in enumerate(value)]
    if isinstance(value, str) and path[:1] != ("task",):
        name = _name(value)
        if name != value:
            changed.append(f"{'.'.join(path)}: only the name, without its folder")
        return name
    return value


def _secret(key: str, value: Any) -> bool:
    if key in _HARMLESS or value is None or isinstance(value, bool | int | float):
        return False
    return may_be_secret(key)


def _name(value: str) -> str:
    """A path's last part where it is absolute, a URL without credentials and query, or the text."""
    if _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1] or value
    if "://" in value:
        return re.sub(r"//[^/@]*@", "//", value).partition("?")[0]
    return without_folders(value)
