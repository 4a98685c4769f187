"""The floor: equal texts in lower case without punctuation, nothing near."""

from __future__ import annotations

from importlib.metadata import version

import pandas as pd
import polars as pl
from measuring import measure


def dedupe(rows: pd.DataFrame) -> list[bool]:
    texts = pl.Series(rows["input"].array.__arrow_array__(), dtype=pl.String)
    plain = texts.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    return plain.is_first_distinct().to_list()


if __name__ == "__main__":
    measure(dedupe, {"polars": version("polars")})
