"""Words of texts, and a 64-bit hash of each: the same on every machine and in every version.

Texts are normalised first: Unicode NFKC, lower case, apostrophes out, punctuation and white space
dropped. A sign or operator before a number stays with it (`-5`, `/4`), as do symbols (`+`, `$`,
emoji), because they carry meaning. Scripts written without spaces are split into characters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from filters.rows import Ints

if TYPE_CHECKING:
    import polars as pl

Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

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
# Texts without any of these are cut byte by byte, several times faster, with the same outcome.
_SPECIAL = r"[^\t\n\r\x20-\x7e]|[.,:]['`]*[0-9]|[-*/^][\s'`]*[0-9]|[$+<=>^|~]"
_STEP = np.uint64(0x9E3779B97F4A7C15)
_BACK = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_CHUNK_ROWS = 4_096
_CHUNK_BYTES = 4_000_000


def as_series(texts: Sequence[str] | pl.Series) -> pl.Series:
    """Return texts as a polars column."""
    import polars as pl

    return texts if isinstance(texts, pl.Series) else pl.Series("text", texts, dtype=pl.String)


def split_words(texts: Sequence[str] | pl.Series) -> pl.Series:
    """Return the normalised words of each text, a polars list column of length n.

    A text of nothing but punctuation or white space is one word: itself, stripped.
    """
    import polars as pl

    raw = as_series(texts)
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


def normalise(texts: Sequence[str] | pl.Series) -> list[str]:
    """Return each text's normalised words joined by spaces: what "exactly equal" compares."""
    joined: list[str] = split_words(texts).list.join(" ").to_list()
    return joined


def chunks(texts: pl.Series) -> Iterator[slice]:
    """Yield slices of at most 4,096 rows and, save for a longer row, 4 MB of text."""
    ends = texts.str.len_bytes().fill_null(0).cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + _CHUNK_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + _CHUNK_ROWS)
        yield slice(start, stop)
        start = stop


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield function(item) for every item, in order, from as many threads as there are cores.

    Arrays let other threads run while they compute; four at most, since each needs working memory.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        yield from pool.map(function, items)


def hash_words(texts: pl.Series) -> tuple[Hashes, Ints]:
    """Return the hashes of all words, text after text, and how many each text has, shape (n,)."""
    plain = (~texts.str.contains(_SPECIAL) & texts.str.contains("[A-Za-z0-9]")).to_numpy()
    if plain.all():
        return _hash_plain(texts)
    if not plain.any():
        return _hash_others(texts)
    import polars as pl

    mask = pl.Series(plain)
    one, one_counts = _hash_plain(texts.filter(mask))
    other, other_counts = _hash_others(texts.filter(~mask))
    counts = np.empty(len(texts), dtype=np.int64)
    counts[plain], counts[~plain] = one_counts, other_counts
    hashes = np.empty(len(one) + len(other), dtype=np.uint64)
    from_plain = np.repeat(plain, counts)
    hashes[from_plain], hashes[~from_plain] = one, other
    return hashes, counts


def mix(values: Hashes) -> Hashes:
    """Scramble 64-bit numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def _hash_plain(texts: pl.Series) -> tuple[Hashes, Ints]:
    """Cut ASCII texts into runs of letters and digits, and hash these."""
    raw, ends = _bytes(texts)
    letters = _plain_table()[raw]
    quotes = letters == 1
    if quotes.any():
        gone = np.concatenate([[0], np.cumsum(quotes)])
        letters, ends = letters[~quotes], ends - gone[ends]
    inside = letters > 0
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    first = ends[:-1][ends[:-1] < len(letters)]  # a text begins a word, whatever stands before
    begins[first] |= inside[first]
    starts = np.flatnonzero(begins)
    counts = np.diff(np.searchsorted(starts, ends))
    # What is between two words adds nothing to the sum over the first.
    return _hash_spans(letters, starts, np.append(starts[1:], len(letters))), counts


def _hash_others(texts: pl.Series) -> tuple[Hashes, Ints]:
    words = split_words(texts)
    counts = words.list.len().to_numpy().astype(np.int64)
    raw, ends = _bytes(words.explode())
    return _hash_spans(raw, ends[:-1], ends[1:]), counts


def _hash_spans(raw: Bytes, starts: Ints, ends: Ints) -> Hashes:
    """Hash each span: the sum of (number of the byte) x step^(place), modulo 2^64, scrambled."""
    powers, backwards = _powers(1 << int(max(len(raw), 1) - 1).bit_length())
    sums = np.zeros(len(raw) + 1, dtype=np.uint64)
    np.cumsum(_byte_numbers()[raw] * powers[: len(raw)], out=sums[1:])
    starts_at = np.minimum(starts, max(len(raw) - 1, 0))
    return mix((sums[ends] - sums[starts]) * backwards[starts_at])


def _bytes(texts: pl.Series) -> tuple[Bytes, Ints]:
    """Return the UTF-8 bytes of all texts end to end, and where each ends, shape (n + 1,)."""
    import pyarrow as pa

    column = texts.to_arrow().cast(pa.large_string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, np.uint8)
    return raw[ends[0] : ends[-1]], ends - ends[0]


@lru_cache(maxsize=1)
def _plain_table() -> Bytes:
    """Return for every byte its lower-case letter or digit, 1 for apostrophes, else 0."""
    table = np.zeros(256, dtype=np.uint8)
    for character in range(256):
        if chr(character).isascii() and chr(character).isalnum():
            table[character] = ord(chr(character).lower())
    table[[ord("'"), ord("`")]] = 1
    return table


@lru_cache(maxsize=1)
def _byte_numbers() -> Hashes:
    numbers = mix(np.arange(1, 257, dtype=np.uint64) * _STEP)
    numbers[0] = 0
    return numbers


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    forth = np.full(count, _STEP)
    back = np.full(count, _BACK)
    forth[0] = back[0] = 1
    return np.cumprod(forth, dtype=np.uint64), np.cumprod(back, dtype=np.uint64)
