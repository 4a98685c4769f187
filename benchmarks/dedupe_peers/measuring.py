"""What every deduper of the benchmark shares: it reads the texts, is timed, and says which rows stay.

Only pandas, because each runs in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable

import pandas as pd


def _cpu() -> float:
    """Seconds of processor time of this process and of the ended ones that it started."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        for usage in (resource.getrusage(who),)
    )


def measure(dedupe: Callable[[pd.DataFrame], Iterable[bool]], versions: dict[str, str]) -> None:
    """Run a deduper on the Parquet file argv[1]; write flags and figures to argv[2].

    What is timed begins with the rows in memory, imports done, and ends with one flag per row.
    """
    rows = pd.read_parquet(sys.argv[1], columns=["id", "input", "label"])
    unit = 1e9 if sys.platform == "darwin" else 1e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    begun, worked = time.perf_counter(), _cpu()
    keep = list(map(bool, dedupe(rows)))
    found = {
        "wall": time.perf_counter() - begun,
        "cpu": _cpu() - worked,
        "before": before,
        "peak": max(
            resource.getrusage(who).ru_maxrss / unit
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ),
        "versions": versions,
    }
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump({**found, "keep": "".join("01"[flag] for flag in keep)}, file)
