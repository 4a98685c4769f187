"""A static embedder, made once from a sentence-transformers model: a hundred times faster, and coarser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filters.arguments import FilterError, check_number

_TOKENS_AT_ONCE = 1_024
_FREQUENT = 1e-4


def distil_static(
    model: str | Path, output: str | Path, *, dimensions: int = 256, frequency: float = _FREQUENT
) -> Path:
    """Make an embedder that looks each token's vector up and takes their mean.

    Every token of the vocabulary goes through the model alone; the vectors are centred and turned onto
    their principal axes (as model2vec does, van Dongen and Tulkens 2024), and weighted down where the
    token is frequent: by a / (a + p), the smooth inverse frequency of Arora et al. (2017), with p by
    Zipf's law from the token's place in the vocabulary, whose order is nearly that of frequency.

    What is lost is word order and context: negations and small differences weigh little. It serves to
    propose neighbours among millions of rows, for clusters and for the map.

    Args:
        model: A sentence-transformers folder or Hub id whose first module is a transformer.
        output: The new folder; a sentence-transformers model that `embed` reads as any other.
        dimensions: Principal axes kept, at most the model's own width.
        frequency: The a above; higher values weigh frequent tokens less down.

    Returns:
        The folder.

    Raises:
        FilterError: An argument is wrong, the model has no token embeddings, or the folder is in use.
        filters.EmbeddingError: The model cannot be loaded.
    """
    from filters.embeddings import _load_model

    check_number("distil_static", "dimensions", dimensions, low=2, whole=True, remedy="try 256")
    check_number("distil_static", "frequency", frequency, low=0, remedy="try 1e-4")
    output = Path(output)
    if output.exists() and any(output.iterdir()):
        raise FilterError(f"distil_static: {output} is not empty; name another folder")
    loaded = _load_model(str(model), None)
    vectors = _token_vectors(loaded, str(model))
    vectors -= vectors.mean(axis=0)
    axes = np.linalg.svd(vectors, full_matrices=False)[2][:dimensions]
    share = 1 / np.arange(2, len(vectors) + 2)
    share /= share.sum()
    weights = (frequency / (frequency + share))[:, None] if frequency else 1.0
    _save(loaded.tokenizer, (vectors @ axes.T * weights).astype(np.float32), output)
    return output


def _token_vectors(loaded: Any, name: str) -> NDArray[np.float64]:
    """Every token between the model's own marks, through the whole model; shape (vocabulary, d)."""
    import torch

    transformer = getattr(loaded[0], "auto_model", None)
    tokenizer = loaded.tokenizer
    marks = getattr(tokenizer, "build_inputs_with_special_tokens", None)
    if transformer is None or not hasattr(tokenizer, "backend_tokenizer"):
        raise FilterError(
            f"distil_static: {name!r} is no transformer with a fast tokenizer; name one such as "
            "'sentence-transformers/all-MiniLM-L6-v2'"
        )
    around = marks([0]) if marks is not None else [0]
    place = around.index(0) if 0 in around else 0
    found = []
    with torch.inference_mode():
        for start in range(0, len(tokenizer), _TOKENS_AT_ONCE):
            tokens = range(start, min(start + _TOKENS_AT_ONCE, len(tokenizer)))
            ids = torch.tensor([[*around[:place], token, *around[place + 1 :]] for token in tokens])
            ids = ids.to(loaded.device)
            states = transformer(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
            found.append(states.float().mean(dim=1).cpu())
    return torch.cat(found).numpy().astype(np.float64)


def _save(tokenizer: Any, vectors: NDArray[np.float32], output: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    except ImportError:  # before version 5.2
        from sentence_transformers.models import Normalize, StaticEmbedding  # type: ignore

    static = StaticEmbedding(
        tokenizer.backend_tokenizer, embedding_weights=torch.from_numpy(vectors)
    )
    model = SentenceTransformer(modules=[static, Normalize()], device="cpu")
    model.save(str(output), create_model_card=False)
