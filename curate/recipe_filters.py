"""A recipe's filters: what other sections know is filled in, and then what only this machine knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
from curate.references import resolve_model

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

OnProgress = Callable[[str, Mapping[str, Any]], None]


def filters_of(recipe: Recipe) -> list[Any]:
    """The recipe's filters, with arguments that it leaves out taken from its other sections.

    `echo` learns the task's instruction, `unknown_label` and `other_choice` its labels, `copied` the
    rationales that the teachers are shown, and filters with an encoder the recipe's embedder.
    They hold names as the recipe has them and no path of this machine: their hash is the run's policy.
    """
    return [_filled(recipe, name, arguments) for name, arguments in recipe.filters]


def _filled(recipe: Recipe, name: str, arguments: Mapping[str, Any]) -> Any:
    task, kind = recipe.task, filters.FILTERS[name]
    known: dict[str, Any] = {}
    if name == "echo":
        known["instruction"] = task.instruction
    elif name in ("unknown_label", "other_choice") and task.labels and not task.choices:
        known["labels"] = tuple(task.labels)
    elif name == "copied":
        known["demonstrations"] = tuple(dict.fromkeys(_shown_rationales(recipe)))
    if _has_encoder(kind) and task.choices is not None and recipe.embedder is not None:
        known["encoder"] = recipe.embedder
    return kind(**(known | dict(arguments)))


def _has_encoder(kind: Any) -> bool:
    return any(one.name == "encoder" for one in dataclasses.fields(kind))


def _shown_rationales(recipe: Recipe) -> Iterator[str]:
    """Rationales in demonstrations, those of single members of an ensemble included."""
    from curate.recipe_teachers import EnsembleSection

    shown = list(recipe.task.demonstrations)
    if isinstance(recipe.teacher, EnsembleSection):
        for member in recipe.teacher.members:
            shown += member.demonstrations or []
    yield from (each.rationale for each in shown if each.rationale and each.rationale.strip())


@dataclass(frozen=True)
class Texts:
    """Encodes texts with a model that the recipe names, once ever: vectors are cached in the store.

    The model is fetched when the first text is to be encoded.
    """

    name: str
    base: Path
    cache: Path
    on_progress: OnProgress
    _path: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self, texts: Sequence[str]) -> Any:
        """Vectors of length 1, shape (n, d).

        Raises:
            curate.assets.AssetError, filters.EmbeddingError: If the model cannot be had or used.
        """
        if not self._path:
            fetching = lambda event: self.on_progress("assets", event)  # noqa: E731
            self._path.append(resolve_model(self.name, "embedder", self.base, fetching))
        telling = lambda event: self.on_progress("embed", event)  # noqa: E731
        return filters.embed(list(texts), self._path[0], cache=self.cache, on_progress=telling)


def ready(chosen: Sequence[Any], *, base: Path, cache: Path, on_progress: OnProgress) -> list[Any]:
    """The filters as they run on this machine: encoders that encode, and files where they lie.

    Args:
        chosen: From :func:`filters_of`.
        base: The recipe's folder.
        cache: Folder of cached embeddings.
        on_progress: Receives the events of ``assets`` and ``embed``.
    """
    return [_ready(each, base, cache, on_progress) for each in chosen]


def _ready(each: Any, base: Path, cache: Path, on_progress: OnProgress) -> Any:
    changes: dict[str, Any] = {}
    if isinstance(getattr(each, "encoder", None), str):
        changes["encoder"] = Texts(each.encoder, base, cache, on_progress)
    if isinstance(each, filters.Ensemble) and each.fitted is not None:
        changes["fitted"] = str(base / Path(each.fitted).expanduser())
    return dataclasses.replace(each, **changes) if changes else each


def judges_by_vectors(each: Any) -> bool:
    """Whether a filter learns which label fits a row, from vectors where there are any."""
    return isinstance(each, filters.LabelNoise) and each.probabilities is None


def one_label_set(rows: pd.DataFrame) -> bool:
    """Whether all rows have the same choices, or none have any."""
    sets = {tuple(sorted(each)) for each in rows["choices"] if each is not None and len(each)}
    return len(sets) <= 1
