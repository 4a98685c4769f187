"""Embedding texts, and the cache of vectors."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import filters
from filters import EmbeddingError, FilterError, embed
from filters.embedding_cache import text_key


class Counting:
    """An encoder that counts letters, and remembers what it was asked."""

    name = "counting"

    def __init__(self, dimension: int = 4, fail_after: int | None = None) -> None:
        self.dimension = dimension
        self.fail_after = fail_after
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise KeyboardInterrupt
        self.calls.append(texts)
        counts = [[text.count(letter) + 1 for letter in "abcd"] for text in texts]
        return np.array(counts, dtype=np.float64)[:, : self.dimension]

    @property
    def encoded(self) -> list[str]:
        return [text for call in self.calls for text in call]


def test_vectors_are_float32_of_length_one_in_the_order_of_the_texts() -> None:
    vectors = embed(["abba", "a bad cab", "abba", ""], Counting())
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 4)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert vectors[0] == pytest.approx(np.array([3, 3, 1, 1]) / np.sqrt(20))
    assert (vectors[0] == vectors[2]).all()


def test_repeated_texts_are_encoded_once_and_the_longest_first() -> None:
    encoder = Counting()
    embed(["aa", "cccc", "aa", "bbb"], encoder)
    assert encoder.encoded == ["cccc", "bbb", "aa"]


def test_a_second_call_encodes_nothing(tmp_path: Path) -> None:
    texts = ["The battery lasts all day.", "مرحبا 😀", ""]
    first, second = Counting(), Counting()
    events: list[dict[str, Any]] = []
    one = embed(texts, first, cache=tmp_path)
    other = embed(
        [*reversed(texts), "new"],
        second,
        cache=tmp_path,
        on_progress=lambda event: events.append(dict(event)),
    )
    assert second.encoded == ["new"]
    assert (other[2::-1] == one).all()
    assert events == [
        {"stage": "embed", "done": 3, "total": 4, "encoded": 0, "cached": 3},
        {"stage": "embed", "done": 4, "total": 4, "encoded": 1, "cached": 3},
    ]


def test_models_do_not_share_vectors(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    second.name = "another"
    embed(["a"], first, cache=tmp_path)
    embed(["a"], second, cache=tmp_path)
    assert second.encoded == ["a"]


def test_a_run_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    texts = [f"text number {number:04d}" for number in range(100)]
    broken = Counting(fail_after=2)
    with pytest.raises(KeyboardInterrupt):
        embed(texts, broken, cache=tmp_path, batch_size=2)
    assert 0 < len(broken.encoded) < 100
    healthy = Counting()
    embed(texts, healthy, cache=tmp_path, batch_size=2)
    assert sorted(broken.encoded + healthy.encoded) == texts


KILLED = """
import os, signal, sys
import numpy as np
import filters

cache, log, most = sys.argv[1:]

class Mortal:
    name = "counting"
    encoded = 0

    def __call__(self, texts):
        # One line per text, there before the next text is begun, whatever becomes of the process.
        with open(log, "a", buffering=1) as lines:
            for text in texts:
                lines.write(text + "\\n")
                Mortal.encoded += 1
                if Mortal.encoded == int(most):
                    os.kill(os.getpid(), signal.SIGKILL)
        return np.array([[text.count(letter) + 1 for letter in "abcd0123"] for text in texts])

texts = [f"text number {number:04d}" for number in range(400)]
vectors = filters.embed(texts, Mortal(), cache=cache, batch_size=4)
assert vectors.shape == (400, 8)
"""


@pytest.mark.integration
def test_killed_again_and_again_no_text_is_encoded_twice_whose_vector_was_written(
    tmp_path: Path,
) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    texts = [f"text number {number:04d}" for number in range(400)]
    written: set[str] = set()
    begun = 0
    for most in (3, 90, 201, 10_000):
        arguments = [str(cache), str(log), str(most)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
        assert done.returncode == (0 if most > 400 else -signal.SIGKILL)
        lines = log.read_text("utf-8").splitlines()
        encoded, begun = lines[begun:], len(lines)
        assert not written & set(encoded), "what was on the disk is not encoded again"
        assert len(set(encoded)) == len(encoded)
        (folder,) = cache.rglob("keys.bin") if list(cache.rglob("keys.bin")) else (None,)
        known = folder.read_bytes() if folder else b""
        keys = {known[start : start + 16] for start in range(0, len(known), 16)}
        written = {text for text in texts if text_key(text) in keys}
        # Lost is no more than the batches under way: at most 16 of 4 texts.
        assert len(set(lines) - written) <= 64
    assert written == set(texts)
    encoder = Counting()
    assert embed(texts, encoder, cache=cache).shape == (400, 8)
    assert encoder.calls == []


@pytest.mark.parametrize("name", ["keys.bin", "vectors.f32"])
def test_a_cache_cut_at_any_byte_loses_only_the_torn_record(tmp_path: Path, name: str) -> None:
    texts = ["a", "bb", "ccc"]
    embed(texts, Counting(), cache=tmp_path)
    whole = embed(texts, Counting())
    (path,) = tmp_path.rglob(name)
    content = path.read_bytes()
    for cut in range(len(content) - len(content) // 3, len(content)):
        path.write_bytes(content[:cut])
        encoder = Counting()
        assert (embed(texts, encoder, cache=tmp_path) == whole).all()
        assert encoder.encoded == ["a"], "the longest first: a's record is the last"


def test_a_cache_of_another_dimension_is_refused(tmp_path: Path) -> None:
    embed(["a"], Counting(), cache=tmp_path)
    with pytest.raises(FilterError, match=r"holds vectors of 4 numbers .* now gives 3"):
        embed(["b"], Counting(dimension=3), cache=tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("a file in the way")
    with pytest.raises(FilterError, match=r"embedding cache .* on a disk with room"):
        embed(["a"], Counting(), cache=tmp_path)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(FilterError, match="No space left on device"):
            embed(["a"], Counting(), cache=tmp_path)
    encoder = Counting()
    embed(["a"], encoder, cache=tmp_path)
    assert encoder.encoded == ["a"]


def test_no_texts() -> None:
    encoder = Counting()
    assert embed([], encoder).shape == (0, 0)
    assert encoder.calls == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", None], "text number 1 is None"),
        ([3], "text number 0 is 3"),
        (["\ud83d"], "text number 0 holds half of a surrogate pair"),
    ],
)
def test_texts_that_are_none(texts: list[Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        embed(texts, Counting())


def named(found: Callable[[list[str]], Any]) -> Any:
    encoder = Counting()
    encoder.__class__ = type("Named", (Counting,), {"__call__": lambda _, texts: found(texts)})
    return encoder


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda texts: np.ones((len(texts) + 1, 2)), r"an array of shape \(3, 2\) for 2 texts"),
        (lambda texts: np.ones(len(texts)), r"an array of shape \(2,\)"),
        (lambda texts: np.full((len(texts), 2), np.nan), "not finite"),
    ],
)
def test_an_encoder_that_gives_no_embeddings(
    found: Callable[[list[str]], Any], message: str
) -> None:
    with pytest.raises(EmbeddingError, match=message):
        embed(["a", "b"], named(found))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 5}, "model is 5; it must be a folder, a Hub id, or a callable"),
        ({"model": lambda texts: texts}, "give the callable a name"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "int8"}, "precision is 'int8'; it must be one of 'auto', 'bf16', 'fp32'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        embed(["a"], **{"model": Counting(), **arguments})


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="it must be a sentence-transformers folder"):
        embed(["a"], tmp_path)


@pytest.fixture(scope="module")
def minilm() -> str:
    from curate import assets

    return str(assets.resolve("all-minilm-l6-v2", "embedder"))


FROM_HUB = """
import sys
import filters

print(filters.embed(["The battery lasts."], "acme/mini", cache=sys.argv[1]).shape)
try:
    filters.embed(["The battery lasts."], "acme/nothing")
except filters.EmbeddingError as error:
    print(error)
"""


@pytest.mark.integration
def test_a_hub_model_already_downloaded_is_cached_under_its_commit(
    minilm: str, tmp_path: Path
) -> None:
    model = tmp_path / "hub" / "models--acme--mini"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc123")
    (model / "snapshots").mkdir()
    (model / "snapshots" / "abc123").symlink_to(minilm)
    done = subprocess.run(
        [sys.executable, "-c", FROM_HUB, str(tmp_path)],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    shape, message = done.stdout.strip().splitlines()
    assert shape == "(1, 384)"
    assert message.startswith("embedder 'acme/nothing' could not be loaded (")
    (about,) = tmp_path.rglob("about.json")
    assert "acme/mini@abc123:" in about.read_text("utf-8")


@pytest.mark.integration
def test_a_real_model_places_a_paraphrase_near_and_the_check_guards_the_negation(
    minilm: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = [
        "The battery lasts all day.",
        "The battery lasts the whole day.",
        "The battery does not last all day.",
        "x" * 1_000_000,
    ]
    vectors = embed(texts, minilm, cache=tmp_path, precision="fp32")
    assert vectors.shape == (4, 384)
    cosines = vectors[0] @ vectors.T
    assert cosines[1] > 0.95 > cosines[2] > 0.8 > cosines[3]
    rows = {"id": ["r0", "r1", "r2", "r3"], "input": texts}
    import pandas as pd

    result = filters.apply(
        pd.DataFrame(rows), [filters.SemanticDuplicate(threshold=0.8)], embeddings=vectors
    )
    assert result.kept["id"].tolist() == ["r1", "r2", "r3"]
    lower = embed(texts[:3], minilm, precision="bf16")
    assert (lower * vectors[:3]).sum(axis=1) == pytest.approx(1, abs=1e-3)
    captured = capfd.readouterr()
    assert captured.out == captured.err == "", "no progress bars of other libraries"
