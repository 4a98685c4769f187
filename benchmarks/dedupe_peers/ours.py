"""`filters.apply` with the two filters as they are; argv[3] "unlabelled" leaves the labels out."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pandas as pd
import polars  # noqa: F401  (imported beforehand, as with the others)
import rensa  # noqa: F401
import scipy.sparse  # noqa: F401
from measuring import measure

import filters


def dedupe(rows: pd.DataFrame) -> pd.Series:
    if "unlabelled" in sys.argv[3:]:
        rows = rows.drop(columns="label")
    result = filters.apply(rows, [filters.ExactDuplicate(), filters.NearDuplicate()])
    return result.frame["keep"]


filters.apply  # noqa: B018  (loads the module)
if __name__ == "__main__":
    measure(dedupe, {name: version(name) for name in ("polars", "rensa", "numpy")})
