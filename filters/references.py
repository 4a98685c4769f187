"""Read the other sets that rows are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from filters.arguments import FilterError
from filters.clusters import as_vectors
from filters.frames import as_frame, read_ids
from filters.rows import Reference, Rows, texts

if TYPE_CHECKING:
    import datasets

Texts: TypeAlias = "pd.DataFrame | datasets.Dataset | Sequence[str]"


def read_references(
    references: Mapping[str, Texts], embeddings: Mapping[str, ArrayLike]
) -> dict[str, Reference]:
    """Return the sets by name, each sorted by id so that its order does not matter.

    Raises:
        FilterError: A set without texts or with bad ids, or vectors that do not fit.
    """
    for name in embeddings:
        if name not in references:
            raise FilterError(
                f"apply: reference_embeddings names {name!r}, which references lacks; its sets are "
                f"{', '.join(map(repr, references)) or 'none'}; give both under one name"
            )
    return {str(name): _read_set(str(name), references[name], embeddings) for name in references}


def _read_set(name: str, given: Texts, embeddings: Mapping[str, ArrayLike]) -> Reference:
    if isinstance(given, str):
        raise FilterError(
            f"apply: references[{name!r}] is a text; it must be a frame or a list of texts"
        )
    frame = given if hasattr(given, "columns") or hasattr(given, "column_names") else None
    if frame is None:
        listed = list(given)
        frame = pd.DataFrame({"id": [str(place) for place in range(len(listed))], "input": listed})
    frame = as_frame(frame)
    try:
        ids = read_ids(frame)
        empty = np.zeros(len(frame), dtype=bool)
        reading = Rows(frame=frame, ids=ids, alive=empty, order=np.arange(len(frame)))
        found = texts(reading, "input", "apply")
    except FilterError as error:
        raise FilterError(f"references[{name!r}]: {error}") from error
    order = np.argsort(ids, kind="stable")
    vectors = None
    if name in embeddings:
        try:
            vectors = as_vectors(embeddings[name], len(frame))[order]
        except FilterError as error:
            raise FilterError(f"reference_embeddings[{name!r}]: {error}") from error
    return Reference(ids=ids[order], texts=[found[place] for place in order], embeddings=vectors)
