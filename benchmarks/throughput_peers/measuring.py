"""What every client of the throughput benchmark shares: its arguments, its clocks and its report.

Only the standard library, because each client runs in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

MODEL = "zero-think"
MAX_TOKENS = 256


def _memory() -> dict[str, float]:
    """Resident memory of this process now and at its highest, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1e6 if sys.platform == "darwin" else 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return {"now": peak, "peak": peak}
    kilobytes = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status.read_text()))
    return {"now": int(kilobytes["VmRSS"]) / 1e3, "peak": int(kilobytes["VmHWM"]) / 1e3}


def _cpu() -> float:
    """Seconds of processor time of this process and of the ended ones that it started."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        for usage in (resource.getrusage(who),)
    )


def arguments() -> argparse.Namespace:
    """What the benchmark tells a client."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="root of the API, ending in /v1")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the rows and requests"
    )
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder")
    parser.add_argument("--result", type=Path, required=True, help="the JSON file to be written")
    return parser.parse_args()


def read_bodies(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The requests that the rows stand for, one for each row."""
    with open(args.data / "requests.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(args.rows), file, strict=False)]


class Measured:
    """Clocks around the work; make it after the imports, enter it after the data are in memory."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.imported = _memory()["now"]

    def __enter__(self) -> Measured:
        with suppress(OSError):
            # The highest memory from now on (Linux): making the data took more than holding them.
            Path("/proc/self/clear_refs").write_text("5")
        self.loaded = _memory()["now"]
        self.cpu = _cpu()
        self.begun = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self.begun
        self.cpu = _cpu() - self.cpu
        self.peak = _memory()["peak"]

    def report(self, labelled: int, **versions: str) -> None:
        """Write what was measured; ``labelled`` is how many rows ended with an answer that was read."""
        told = {
            "seconds": self.seconds,
            "cpu": self.cpu,
            "labelled": labelled,
            "imported": self.imported,
            "loaded": self.loaded,
            "peak": self.peak,
            "versions": versions,
        }
        self.args.result.write_text(json.dumps(told), encoding="utf-8")
