"""datasketch's MinHashLSH, runs of three words, 0.5: a row that has a match before it goes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import pandas as pd
from datasketch import MinHash, MinHashLSH
from measuring import measure


def _runs(texts: list[str]) -> Iterator[list[bytes]]:
    for text in texts:
        words = text.lower().split()
        yield [" ".join(words[i : i + 3]).encode() for i in range(max(len(words) - 2, 1))]


def dedupe(rows: pd.DataFrame) -> list[bool]:
    index = MinHashLSH(threshold=0.5, num_perm=128)
    keep = []
    for number, signature in enumerate(
        MinHash.generator(_runs(rows["input"].tolist()), num_perm=128)
    ):
        found = bool(index.query(signature))
        keep.append(not found)
        if not found:
            index.insert(number, signature, check_duplication=False)
    return keep


if __name__ == "__main__":
    measure(dedupe, {"datasketch": version("datasketch")})
