"""datatrove's four MinHash steps in one process: 5-word runs, 14 bands of 8, as FineWeb had them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import version

import pandas as pd
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from measuring import measure


def dedupe(rows: pd.DataFrame) -> list[bool]:
    config = MinhashConfig()

    def documents() -> Iterator[Document]:
        for number, text in enumerate(rows["input"].tolist()):
            yield Document(text=text, id=str(number))

    with tempfile.TemporaryDirectory() as folder:
        signatures, buckets, removed = (f"{folder}/{name}" for name in "sbr")
        MinhashDedupSignature(signatures, config).run(documents(), 0, 1)
        for band in range(config.num_buckets):
            MinhashDedupBuckets(signatures, buckets, config=config).run(
                None, band, config.num_buckets
            )
        MinhashDedupCluster(buckets, removed, config=config).run(None, 0, 1)
        kept = {int(one.id) for one in MinhashDedupFilter(removed).run(documents(), 0, 1)}
    return [number in kept for number in range(len(rows))]


if __name__ == "__main__":
    measure(dedupe, {"datatrove": version("datatrove")})
