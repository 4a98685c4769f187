"""Sentence embeddings: every distinct text encoded once, and never again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from filters.arguments import FilterError, check_choice, check_number
from filters.embedding_cache import append_vectors, model_folder, read_vectors, text_key
from filters.rows import OnProgress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]

_MOST_BATCHES = 16  # encoded between two writes to the cache, where writing takes longer
_WRITING = 0.05  # the share of the time that may go into writing
_CHARACTERS_PER_TOKEN = 64  # no tokenizer needs more text than this to fill its window
_STATIC_BATCH = 1_024
_MODEL_FILES = {".json", ".txt", ".safetensors", ".bin", ".model"}


class EmbeddingError(RuntimeError):
    """The embedder could not be loaded, or gave something that is no embedding."""


@runtime_checkable
class Encoder(Protocol):
    """A callable that turns texts into vectors; `name` identifies it in the cache."""

    name: str

    def __call__(self, texts: list[str]) -> NDArray[Any]:
        """Return one vector per text, shape (len(texts), d)."""
        ...


def embed(
    texts: Sequence[str],
    model: str | Path | Encoder,
    *,
    cache: str | Path | None = None,
    batch_size: int = 32,
    precision: str = "auto",
    on_progress: OnProgress | None = None,
) -> Vectors:
    """Encode texts with a sentence-transformers model.

    Repeated texts are encoded once, longest first, so that a batch holds texts of like length.
    Only as much of a text is read as fits the model's window.

    Args:
        texts: The texts; empty ones are allowed.
        model: A folder, a Hub id, or a callable `(list[str]) -> (n, d) array` with a `name`.
        cache: Folder for the vectors. They are kept per model content and precision. They are on
            the disk after every batch, or, where a batch is encoded faster than it is written,
            after up to 16: a run cut short, even by kill -9, goes on where it was and encodes
            nothing again but the texts of the batches whose vectors were not written yet.
        batch_size: Texts per batch.
        precision: "bf16", "fp32", or "auto": bf16 where the processor computes in it.
        on_progress: Called with {"stage": "embed", "done", "total", "encoded", "cached"}, counted
            in distinct texts.

    Returns:
        float32, shape (len(texts), d), each row of length 1 (a zero vector stays zero). With no
        texts the shape is (0, 0).

    Raises:
        FilterError: An argument is wrong, a text is null or not text, the cache cannot be used.
        EmbeddingError: The model cannot be loaded or gave something that is no embedding.
    """
    check_number("embed", "batch_size", batch_size, low=1, whole=True, remedy="32 serves most")
    check_choice("embed", "precision", precision, ("auto", "bf16", "fp32"))
    if not len(texts):
        return np.empty((0, 0), dtype=np.float32)
    keys = [_key(position, text) for position, text in enumerate(texts)]
    distinct = dict(zip(keys, texts, strict=True))
    identity, load = _identify(model, precision)
    folder = model_folder(Path(cache), identity) if cache is not None else None
    vectors: dict[bytes, Vectors] = {}
    if folder is not None:
        vectors.update(read_vectors(folder, list(distinct)))
    cached = len(vectors)
    todo = sorted(
        (key for key in distinct if key not in vectors), key=lambda k: (-len(distinct[k]), k)
    )

    def report(encoded: int) -> None:
        if on_progress is not None:
            done = cached + encoded
            counts = {"done": done, "total": len(distinct), "encoded": encoded, "cached": cached}
            on_progress({"stage": "embed", **counts})

    report(0)
    batches = _MOST_BATCHES if folder is None else 1
    encode: _Encode | None = None
    start = 0
    while start < len(todo):
        encode = encode or load(batch_size)  # a model that is not needed is not loaded
        chunk = todo[start : start + batches * batch_size]
        began = perf_counter()
        fresh = _checked(encode([distinct[key] for key in chunk]), len(chunk), identity)
        encoded = perf_counter()
        if folder is not None:
            append_vectors(folder, identity, chunk, fresh)
        if perf_counter() - encoded > _WRITING * (encoded - began):
            batches = min(2 * batches, _MOST_BATCHES)
        vectors.update(zip(chunk, fresh, strict=True))
        start += len(chunk)
        report(start)
    return np.stack([vectors[key] for key in keys]).astype(np.float32, copy=False)


_Encode = Callable[[list[str]], NDArray[Any]]


def _key(position: int, text: object) -> bytes:
    if not isinstance(text, str):
        raise FilterError(
            f"embed: text number {position} is {text!r}; it must be a string; "
            "leave the row out or fill it in"
        )
    try:
        return text_key(text)
    except UnicodeEncodeError as error:
        raise FilterError(
            f"embed: text number {position} holds half of a surrogate pair, which is no Unicode "
            "text; repair it with text.encode('utf-8', 'replace').decode()"
        ) from error


def _identify(model: str | Path | Encoder, precision: str) -> tuple[str, Callable[[int], _Encode]]:
    """Return what names the model's vectors in a cache, and how to load it when it is needed."""
    if isinstance(model, Encoder):
        return f"callable:{model.name}", lambda _: model
    if not isinstance(model, str | Path):
        raise FilterError(
            f"embed: model is {model!r}; it must be a folder, a Hub id, or a callable with a "
            "`name`; give the callable a name, which its vectors are cached under"
        )
    lower = precision == "bf16" or (precision == "auto" and _has_bfloat16())
    suffix = "bf16" if lower else "fp32"
    path = Path(model)
    if path.is_dir():
        return f"{_folder_hash(path)}:{suffix}", lambda size: _load(str(path), None, lower, size)
    found = _downloaded(str(model))
    if found is None:
        loaded = _load_model(str(model), None)  # this downloads it: now the commit is known
        name, commit = _downloaded(str(model)) or (str(model), "unknown")
        return f"{name}@{commit}:{suffix}", lambda size: _encoder(loaded, lower, size)
    name, commit = found
    # The commit goes along, so that what is loaded is what the cache is named after.
    return f"{name}@{commit}:{suffix}", lambda size: _load(name, commit, lower, size)


def _folder_hash(folder: Path) -> str:
    """Hash the files that make up a model."""
    if not (folder / "config.json").exists() and not (folder / "modules.json").exists():
        raise FilterError(
            f"embed: model is {str(folder)!r}; it must be a sentence-transformers folder, with a "
            "modules.json or config.json; check the path"
        )
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _MODEL_FILES:
            total.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _downloaded(model: str) -> tuple[str, str] | None:
    """Return the full name and the commit of a Hub model that is already on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    names = [model] if "/" in model else [f"sentence-transformers/{model}", model]
    for name in names:
        for file in ("modules.json", "config.json"):
            try:
                found = try_to_load_from_cache(name, file)
            except HFValidationError:
                continue
            if isinstance(found, str):
                return name, Path(found).parent.name
    return None


def _has_bfloat16() -> bool:
    """Say whether the processor that will run the model multiplies bf16 matrices natively."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # Emulated bf16 is slower than fp32, so "supported at all" is not enough on a CPU.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def _load(model: str, commit: str | None, lower: bool, batch_size: int) -> _Encode:
    return _encoder(_load_model(model, commit), lower, batch_size)


def _load_model(model: str, commit: str | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    with _quiet():
        try:
            return SentenceTransformer(model, revision=commit)
        except Exception as error:  # whatever a dependency raises, the user meets one sentence
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EmbeddingError(
                f"embedder {model!r} could not be loaded ({first}); give a sentence-transformers "
                "folder, or a Hub id such as 'BAAI/bge-small-en-v1.5' where a hub can be reached"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing its own progress bars."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _encoder(loaded: SentenceTransformer, lower: bool, batch_size: int) -> _Encode:
    static = type(loaded[0]).__name__ == "StaticEmbedding"
    if lower and not static:  # a table of vectors gains nothing by it
        loaded.bfloat16()
    window = loaded.max_seq_length or 512
    longest = None if static or window == float("inf") else int(window) * _CHARACTERS_PER_TOKEN
    batch_size = max(batch_size, _STATIC_BATCH) if static else batch_size

    def encode(texts: list[str]) -> NDArray[Any]:
        return np.asarray(
            loaded.encode(
                [text[:longest] for text in texts],
                batch_size=batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        )

    return encode


def _checked(found: NDArray[Any], count: int, identity: str) -> Vectors:
    """Return vectors of length 1, or raise if the encoder gave something else."""
    vectors = np.asarray(found, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
        raise EmbeddingError(
            f"embedder {identity!r} gave an array of shape {vectors.shape} for {count} texts; "
            f"it must give ({count}, d); check the callable"
        )
    if not np.isfinite(vectors).all():
        raise EmbeddingError(
            f"embedder {identity!r} gave numbers that are not finite; try precision='fp32'"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
