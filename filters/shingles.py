"""Words, shingles, MinHash proposals and exact Jaccard similarities.

Texts are normalised first: Unicode NFKC, lower case, apostrophes out, punctuation and white space
dropped. A sign or operator before a number stays with it (`-5`, `/4`), as do symbols (`+`, `$`,
emoji), because they carry meaning. Scripts written without spaces are split into characters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from filters.rows import Floats, Ints

if TYPE_CHECKING:
    import polars as pl

Hashes = NDArray[np.uint64]

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = "|".join(
    [
        rf"[{_UNSPACED}]",
        r"[-−*/^⁄]\p{N}+",  # a sign or operator belongs to its number
        r"[.,:]\p{N}+",  # so does what follows a decimal point: 1.5 is not 15
        rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+",
        r"\p{S}",
    ]
)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def split_words(texts: Sequence[str]) -> pl.Series:
    """Return the normalised words of each text, a polars list column of length n.

    A text of nothing but punctuation or white space is one word: itself, stripped.
    """
    import polars as pl

    raw = pl.Series("text", texts, dtype=pl.String)
    words = (
        raw.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all("['’ʼ`´\ufe0f\u200d]", "")
        .str.replace_all(r"([-−*/^⁄])\s+(\p{N})", "$1$2")
        .str.extract_all(_WORD)
    )
    frame = pl.DataFrame({"raw": raw, "words": words})
    whole = pl.concat_list(pl.col("raw").str.strip_chars())
    return frame.select(
        pl.when(pl.col("words").list.len() == 0).then(whole).otherwise(pl.col("words"))
    ).to_series()


def normalise(texts: Sequence[str]) -> list[str]:
    """Return each text's normalised words joined by spaces: what "exactly equal" compares."""
    joined: list[str] = split_words(texts).list.join(" ").to_list()
    return joined


@dataclass(frozen=True, kw_only=True)
class ShingleSets:
    """The shingles of n texts.

    `hashes` (64-bit, stable across machines and versions) are laid end to end, row i's from
    `offsets[i]` to `offsets[i + 1]`; `matrix` is the same as a sparse 0/1 matrix (n, distinct
    shingles); `keys` has one number per text, equal where the sets are equal, shape (n,).
    """

    hashes: Hashes
    offsets: Ints
    matrix: Any
    keys: Hashes


def shingle(fields: Sequence[Sequence[str]], lengths: Sequence[int]) -> ShingleSets:
    """Cut texts into runs of words.

    Args:
        fields: One list of n texts per field; a shingle never spans two fields, and the same
            words in two fields are different shingles.
        lengths: How many words a shingle has; (1, 2) takes words and pairs of neighbours. A text
            with fewer words than the shortest length is one shingle.
    """
    count = len(fields[0])
    parts = [_shingle_field(texts, lengths, salt) for salt, texts in enumerate(fields)]
    hashes = np.concatenate([part[0] for part in parts])
    row = np.concatenate([part[1] for part in parts])
    place = np.argsort(row, kind="stable")
    hashes, row = hashes[place], row[place]
    offsets = np.searchsorted(row, np.arange(count + 1)).astype(np.int64)
    matrix, distinct = _matrix(hashes, offsets)
    # A sum does not depend on the order, so equal sets have equal keys.
    scrambled = _mix(distinct[matrix.indices])
    keys = np.add.reduceat(scrambled, matrix.indptr[:-1]) if len(scrambled) else scrambled
    return ShingleSets(hashes=hashes, offsets=offsets, matrix=matrix, keys=keys)


def _shingle_field(texts: Sequence[str], lengths: Sequence[int], salt: int) -> tuple[Hashes, Ints]:
    """Return (hash, row) of every shingle of one field, repeats included."""
    words = split_words(texts)
    counts = words.list.len().to_numpy().astype(np.int64)
    hashed = _hash_words(words.explode())
    row = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    found_hashes, found_rows = [], []
    for length in range(1, max(lengths) + 1):
        if length not in lengths and length >= min(lengths):
            continue
        # Below the shortest length only texts of exactly that many words count: whole texts.
        starts = np.arange(max(len(hashed) - length + 1, 0))
        inside = row[starts] == row[starts + length - 1]
        if length < min(lengths):
            inside &= counts[row[starts]] == length
        starts = starts[inside]
        run = np.full(len(starts), salt * 1_000 + length, dtype=np.uint64)
        for step in range(length):
            run = _mix(run * _MULTIPLIER + hashed[starts + step])
        found_hashes.append(run)
        found_rows.append(row[starts])
    return np.concatenate(found_hashes), np.concatenate(found_rows)


def _hash_words(words: pl.Series) -> Hashes:
    """Hash each word with BLAKE2b, each distinct word once."""
    import pandas as pd

    codes, distinct = pd.factorize(words.to_numpy().astype(object))
    digests = b"".join(
        hashlib.blake2b(str(word).encode(), digest_size=8).digest() for word in distinct
    )
    table = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    hashed: Hashes = table[codes]
    return hashed


def _mix(values: Hashes) -> Hashes:
    """Scramble 64-bit numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def _matrix(hashes: Hashes, offsets: Ints) -> tuple[Any, Hashes]:
    """Return the sparse 0/1 matrix (n, distinct) and the hash that each of its columns stands for."""
    import pandas as pd
    from scipy.sparse import csr_matrix

    codes, distinct = pd.factorize(hashes, sort=True)
    shape = (len(offsets) - 1, max(len(distinct), 1))
    matrix = csr_matrix((np.ones(len(codes), dtype=np.int32), codes, offsets), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix, distinct


def jaccard(sets: ShingleSets, first: Ints, second: Ints, floor: float) -> Floats:
    """Return the exact Jaccard similarity |A and B| / |A or B| of pairs of texts, shape (pairs,).

    Pairs whose sizes alone put them below `floor` are given 0 without being compared.
    """
    sizes = np.diff(sets.matrix.indptr).astype(np.int64)
    small = np.minimum(sizes[first], sizes[second])
    large = np.maximum(sizes[first], sizes[second])
    scores = np.zeros(len(first))
    todo = np.flatnonzero(small >= floor * large)
    # Chunks of about four million entries keep the working memory near 100 MB.
    costs = np.cumsum(small[todo] + large[todo]) // 4_000_000
    for chunk in np.split(todo, np.flatnonzero(np.diff(costs)) + 1):
        if not len(chunk):
            continue
        left, right = sets.matrix[first[chunk]], sets.matrix[second[chunk]]
        shared = np.asarray(left.multiply(right).sum(axis=1)).ravel()
        scores[chunk] = shared / (small[chunk] + large[chunk] - shared)
    return scores
