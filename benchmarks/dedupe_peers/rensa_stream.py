"""rensa's streaming deduper on words, at its usual threshold of 0.8; nothing is verified."""

from __future__ import annotations

from importlib.metadata import version

import pandas as pd
from measuring import measure
from rensa import RMinHash, RMinHashDeduplicator


def dedupe(rows: pd.DataFrame) -> list[bool]:
    seen = RMinHashDeduplicator(0.8, 128, True, 16)
    keep = []
    for number, text in enumerate(rows["input"].tolist()):
        signature = RMinHash(128, 42)
        signature.update(text.lower().split())
        keep.append(seen.add(str(number), signature))
    return keep


if __name__ == "__main__":
    measure(dedupe, {"rensa": version("rensa")})
