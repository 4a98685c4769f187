"""What is wrong with the filters of a recipe, found before anything costs money."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import filters

if TYPE_CHECKING:
    from curate.recipe import Recipe

#: The path of a key, and what is wrong with it.
Finding = tuple[tuple[str, ...], str]


def find_in_filters(recipe: Recipe) -> Iterator[Finding]:
    """What is wrong with a recipe's filters, each of which is well-formed."""
    seen = set()
    for i, (name, arguments) in enumerate(recipe.filters):
        key = ("filters", str(i))
        if name in seen:
            yield key, f"filters.{i}: {name} is there already: each filter may be there once"
        seen.add(name)
        chosen = filters.FILTERS[name](**arguments)
        if recipe.embedder is None and needs_embeddings(chosen):
            yield (
                key,
                f"filters.{i}: {name} needs embeddings, and embedder is null: name an embedder, or leave "
                "the filter out",
            )
        for finding in (_encoder(recipe, chosen), _label_set(recipe, chosen)):
            if finding is not None:
                yield key, f"filters.{i}: {finding}"
    for name in recipe.data.references:
        if name in ("train", "test", "validation"):
            yield (
                ("data", "references", name),
                f"data.references names a set {name!r}, which is what a split is called: give it another "
                "name",
            )
    for i, finding in _ensembles(recipe):
        yield ("filters", str(i)), f"filters.{i}: {finding}"


def _encoder(recipe: Recipe, chosen: Any) -> str | None:
    """What is wrong with a filter that compares texts with the choices of their own rows."""
    if recipe.task.choices is None or recipe.embedder is not None:
        return None
    if getattr(chosen, "encoder", "no field") is not None:
        return None
    if isinstance(chosen, filters.Unsupported):
        return (
            "unsupported compares rationales with each row's choices, and there is no encoder: name one, or "
            "an embedder"
        )
    if chosen.evidence in ("text", "both") and chosen.probabilities is None:
        return (
            f"label_noise has evidence {chosen.evidence!r}, which needs an encoder, and there is none: name "
            "one, or an embedder, or take rivals"
        )
    return None


def _label_set(recipe: Recipe, chosen: Any) -> str | None:
    """What is wrong with a filter on a label set that does not exist."""
    task = recipe.task
    if task.labels is None and task.choices is None:
        if isinstance(chosen, filters.UnknownLabel) and not chosen.labels:
            return (
                "unknown_label needs a set of labels, and the task has neither labels nor choices: give "
                "`labels`"
            )
        if isinstance(chosen, filters.Margin | filters.Entropy):
            return (
                f"{chosen.reason} needs label probabilities, which free text has none of: leave it out, or "
                "give the task labels"
            )
    return None


def _ensembles(recipe: Recipe) -> Iterator[tuple[int, str]]:
    """What is wrong with an ensemble's place, and with the scores that it names."""
    names = [name for name, _ in recipe.filters]
    for i, (name, arguments) in enumerate(recipe.filters):
        chosen = filters.FILTERS[name](**arguments)
        if not isinstance(chosen, filters.Ensemble) or chosen.fitted is not None:
            continue
        before = [n for n in names[:i] if hasattr(filters.FILTERS[n], "drops")]
        for wanted in chosen.scores:
            if wanted not in before:
                yield (
                    i,
                    f"ensemble names {wanted!r}; of the filters before it those with a score to combine are "
                    f"{', '.join(before) or 'none'}",
                )
        if not before:
            yield (
                i,
                "ensemble combines the scores of the filters before it, and none of them has one: put it "
                "after label_noise, confidence or others that judge by a threshold",
            )


def needs_embeddings(chosen: Any) -> bool:
    """Whether a filter cannot do without embeddings, or the clusters made from them."""
    if isinstance(chosen, filters.SemanticDuplicate | filters.SemanticContamination):
        return True
    if isinstance(chosen, filters.Select):
        return chosen.by not in ("random", "uncertainty")
    return "cluster" in getattr(chosen, "by", ())


def read_filter(entry: Any) -> tuple[str, dict[str, Any]]:
    """A filter's name and arguments out of one entry of a recipe's list.

    Raises:
        ValueError: If there is no such filter or argument, or a value is not allowed.
    """
    if isinstance(entry, str):
        name, arguments = entry, dict[str, Any]()
    elif isinstance(entry, Mapping) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        arguments = {} if arguments is None else arguments
    elif isinstance(entry, (tuple, list)) and len(entry) == 2:
        name, arguments = entry
    else:
        raise ValueError("must be a filter's name, or `name: {argument: value}`")
    if name not in filters.FILTERS:
        raise ValueError(f"no filter has this name{nearest(str(name), filters.FILTERS)}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {name} are {arguments!r}: write {{argument: value}}")
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    known = [field.name for field in dataclasses.fields(filters.FILTERS[name])]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}{nearest(str(argument), known)}")
    try:
        filters.FILTERS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from error
    return str(name), dict(arguments)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about a wrong word: the nearest right one, or else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(names)}"
