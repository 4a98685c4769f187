"""`filters.dedupe_batches`: the same with shingles on the disk; the rows come from the file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import polars  # noqa: F401
import rensa  # noqa: F401
import scipy.sparse  # noqa: F401
from measuring import measure
from pyarrow.parquet import ParquetFile

from filters import dedupe_batches


def batches() -> Iterator[pd.DataFrame]:
    for batch in ParquetFile(sys.argv[1]).iter_batches(20_000, columns=["id", "input", "label"]):
        yield batch.to_pandas()


def dedupe(_: pd.DataFrame) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return dedupe_batches(batches(), Path(folder) / "d.parquet", folder=Path(folder)).keep


if __name__ == "__main__":
    # Nothing of the file is held in memory beforehand.
    pd.read_parquet = lambda *_, **__: pd.DataFrame()  # type: ignore[assignment]
    measure(dedupe, {name: version(name) for name in ("polars", "rensa", "numpy")})
