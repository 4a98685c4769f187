"""Which worked examples a row is shown: the task's own, drawn at random, or the most similar ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

from labelers.tasks import Demonstration, TaskError

#: Texts to vectors, shape (texts, dimensions): ``filters.embed`` or any encoder's ``encode``.
Encode = Callable[[Sequence[str]], Any]


class Demonstrations(Protocol):
    """Chooses worked examples for each text of a batch."""

    def choose(self, texts: Sequence[str]) -> list[tuple[Demonstration, ...]]:
        """The demonstrations of each text, in the order in which they are shown."""
        ...


def _check(pool: Sequence[Demonstration], shots: int) -> None:
    if not 1 <= shots <= len(pool):
        raise TaskError(
            f"{shots} demonstrations a row are wanted of a pool of {len(pool)}: 1 to {len(pool)} are possible"
        )


@dataclass(frozen=True, kw_only=True)
class RandomDemonstrations:
    """Demonstrations drawn at random for each row; the same row always draws the same ones.

    Args:
        pool: What is drawn from. A row that is itself in the pool is never shown its own answer.
        shots: How many each row is shown.
        seed: Another seed draws others.

    Raises:
        TaskError: If the pool is smaller than ``shots``.
    """

    pool: tuple[Demonstration, ...]
    shots: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.pool, self.shots)

    def choose(self, texts: Sequence[str]) -> list[tuple[Demonstration, ...]]:
        """See :class:`Demonstrations`. By the text's hash, so that no row depends on another."""
        chosen = []
        for text in texts:
            digest = sha256(b"%d\0" % self.seed + text.encode("utf-8", "replace")).digest()
            others = [each for each in self.pool if each.input != text]
            source = random.Random(digest)
            chosen.append(tuple(source.sample(others, min(self.shots, len(others)))))
        return chosen


@dataclass(frozen=True, kw_only=True)
class SimilarDemonstrations:
    """The pool's most similar demonstrations for each row (Liu et al., 2022), the most similar last.

    Args:
        pool: What is chosen from. A row that is itself in the pool is never shown its own answer.
        encode: The encoder; vectors need not be normalised.
        shots: How many each row is shown.

    Raises:
        TaskError: If the pool is smaller than ``shots``.
    """

    pool: tuple[Demonstration, ...]
    encode: Encode
    shots: int = 4

    def __post_init__(self) -> None:
        _check(self.pool, self.shots)

    def choose(self, texts: Sequence[str]) -> list[tuple[Demonstration, ...]]:
        """See :class:`Demonstrations`.

        Raises:
            TaskError: If the encoder does not give one vector per text.
        """
        if not texts:
            return []
        ours = self._vectors([each.input for each in self.pool])
        inputs = np.array([each.input for each in self.pool], dtype=object)
        chosen = []
        for start in range(0, len(texts), 1024):
            block = texts[start : start + 1024]
            near = self._vectors(block) @ ours.T
            for text, similarities in zip(block, near, strict=True):
                similarities = np.where(inputs == text, -np.inf, similarities)
                order = np.argsort(-similarities, kind="stable")[: self.shots]
                # The nearest stands next to the question, where it weighs most.
                chosen.append(tuple(self.pool[i] for i in order[::-1] if similarities[i] > -np.inf))
        return chosen

    def _vectors(self, texts: Sequence[str]) -> Any:
        vectors = np.asarray(self.encode(list(texts)), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise TaskError(
                f"the encoder gave an array of shape {vectors.shape} for {len(texts)} texts: one finite "
                "vector a text is needed"
            )
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
