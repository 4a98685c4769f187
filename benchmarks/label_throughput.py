"""How fast labeling is beside the clients that people would use instead.

A server that does not think answers each client's requests after a fixed time, so that what is measured
is the client. Every client runs in a process of its own, with the same rows, prompt and number of
requests in flight; ``labelers.label()`` and a bare aiohttp loop take turns, the other clients come in
between. Writes benchmarks/results/label_throughput.md.

    python benchmarks/label_throughput.py --peer curator=/venvs/curator/bin/python \\
        --peer distilabel=/venvs/distilabel/bin/python

A peer without a Python to run it is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import throughput_rows

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "label_throughput.md"
OURS, BARE = "labelers.label()", "bare aiohttp loop"
#: Each client's script and what it is called in the tables; a peer's option is the key.
PEERS = {
    "openai": ("openai_sdk.py", "openai SDK loop"),
    "curator": ("bespokelabs_curator.py", "bespokelabs-curator"),
    "distilabel": ("distilabel_pipeline.py", "distilabel"),
}
LIMIT = 600.0  # Seconds that one client may take.


@dataclass
class Settings:
    """What is measured, and where the clients find their data."""

    folder: Path
    in_flight: int
    pairs: int
    pythons: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """One client's run, as it measured itself; ``served`` is what the server counted."""

    rows: int
    seconds: float
    cpu: float
    labelled: int
    imported: float
    loaded: float
    peak: float
    versions: dict[str, str]
    served: int

    @property
    def rate(self) -> float:
        """Rows per second, from the call to its return."""
        return self.rows / self.seconds


@contextmanager
def server(latency: float) -> Iterator[str]:
    """A server in a process of its own; its URL."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "throughput_server.py"), "--latency", str(latency)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


def served(url: str) -> int:
    with urllib.request.urlopen(f"{url}/count") as answer:
        return int(json.loads(answer.read())["served"])


def run(settings: Settings, python: str, script: str, url: str, rows: int) -> Run:
    """Run one client to its end.

    Raises:
        RuntimeError: If it fails or takes too long; with the end of what it wrote.
    """
    scratch = Path(tempfile.mkdtemp(dir=settings.folder))
    result, log = scratch / "result.json", scratch / "log.txt"
    work = scratch / "work"
    work.mkdir()
    before = served(url)
    command = [
        python, str(HERE / "throughput_peers" / script), "--url", url, "--data", str(settings.folder),
        "--rows", str(rows), "--in-flight", str(settings.in_flight), "--scratch", str(work),
        "--result", str(result),
    ]  # fmt: skip
    paths = {"PYTHONPATH": str(HERE.parent)} if script == "ours.py" else {}
    try:
        with open(log, "wb") as output:
            subprocess.run(
                command, stdout=output, stderr=output, timeout=LIMIT, check=True, cwd=work,
                env={**os.environ, **paths},
            )  # fmt: skip
        measured = json.loads(result.read_text(encoding="utf-8"))
    except (subprocess.SubprocessError, OSError) as error:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-300:]
        raise RuntimeError(f"{script} failed ({type(error).__name__}): {end}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Run(rows=rows, served=served(url) - before, **measured)


def compare(settings: Settings, latency: float, rows: int, peer_runs: int) -> dict[str, list[Run]]:
    """All clients against one server: ours and the bare loop in turn, the peers in between."""
    runs: dict[str, list[Run]] = {}

    def measure(name: str, python: str, script: str) -> None:
        done = run(settings, python, script, url, rows)
        runs.setdefault(name, []).append(done)
        print(f"{latency * 1000:.0f} ms  {name:20} {done.rate:8.0f} rows/s", flush=True)

    with server(latency) as url:
        for number in range(settings.pairs):
            pair = [(OURS, "ours.py"), (BARE, "bare_aiohttp.py")]
            for name, script in pair if number % 2 == 0 else pair[::-1]:
                measure(name, sys.executable, script)
            if number >= peer_runs:
                continue
            for peer, (script, name) in PEERS.items():
                if peer in settings.left_out:
                    continue
                try:
                    measure(name, settings.pythons[peer], script)
                except RuntimeError as error:
                    settings.left_out[peer] = str(error)
                    print(error, flush=True)
    return runs


def spread(values: list[float], form: str = ",.0f") -> str:
    """Median, and smallest to largest in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def ratios(runs: dict[str, list[Run]]) -> list[float]:
    """Ours to the bare loop's, pair by pair, in percent."""
    return [100 * a.rate / b.rate for a, b in zip(runs[OURS], runs[BARE], strict=True)]


def table(runs: dict[str, list[Run]]) -> Iterator[str]:
    yield (
        "| client | runs | rows/s | % of the bare loop | CPU, ms per row | MB beyond imports "
        "| rows answered |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|"
    bare = statistics.median(one.rate for one in runs[BARE])
    for name, done in sorted(runs.items(), key=lambda each: -max(r.rate for r in each[1])):
        share = (
            spread(ratios(runs), ".0f")
            if name == OURS
            else f"{100 * statistics.median(r.rate for r in done) / bare:.0f}"
        )
        answered = sum(r.labelled for r in done) / sum(r.rows for r in done)
        yield (
            f"| {name} | {len(done)} | {spread([r.rate for r in done])} | {share} "
            f"| {spread([1000 * r.cpu / r.rows for r in done], '.2f')} "
            f"| {max(r.peak - r.imported for r in done):.0f} | {100 * answered:.1f} % |"
        )


def verdict(figure: float, target: str, met: bool, unit: str) -> str:
    return f"{figure:.3g} {unit}, target {target}: {'met' if met else '**missed**'}"


def targets(slow: dict[str, list[Run]], fast: dict[str, list[Run]], large: Run) -> Iterator[str]:
    cpu = statistics.median(1000 * r.cpu / r.rows for r in slow[OURS] + fast[OURS])
    memory = large.peak - large.imported
    for what, figure, target, met, unit in (
        ("Of the bare loop at 50 ms", r := statistics.median(ratios(slow)), "≥ 90 %", r >= 90, "%"),
        ("Of the bare loop at 0 ms", r := statistics.median(ratios(fast)), "≥ 40 %", r >= 40, "%"),
        ("Processor time per row", cpu, "≤ 0.5 ms", cpu <= 0.5, "ms"),
        (f"Memory for {large.rows:,} rows", memory, "< 250 MB", memory < 250, "MB beyond imports"),
    ):
        yield f"- {what}: {verdict(figure, target, met, unit)}"


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, no GPU used, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def write_result(
    settings: Settings, slow: dict[str, list[Run]], fast: dict[str, list[Run]], large: Run,
    size: int, loads: list[float],
) -> None:  # fmt: skip
    versions: dict[str, str] = {}
    for one in [one for each in (*slow.values(), *fast.values()) for one in each]:
        versions |= one.versions
    rows = [slow[OURS][0].rows, fast[OURS][0].rows]
    lines = [
        "# Labeling throughput",
        "",
        f"Measured on {datetime.date.today().isoformat()} by `make benchmark-labeling`: {machine()}.",
        "Versions: " + ", ".join(f"{name} {said}" for name, said in sorted(versions.items())) + ".",
        f"Load average at the start, between the parts and at the end: "
        f"{', '.join(f'{load:.1f}' for load in loads)}; the server takes its share of the same cores.",
        "",
        f"Every client asks the same chat completions ({size:,} bytes each: seven worked examples with "
        f"chains of thought, a question of some 15 words, five options) with {settings.in_flight} in "
        "flight, in a process of its own, from a server that answers after a fixed time with some 60 words. "
        "`labelers.label()` reads the dataset, renders the template, journals each exchange in a store on "
        "disk that is empty at first, reads the answers and returns the labelled dataset: all that is timed. "
        "The bare loop posts bytes that are made beforehand and parses the JSON. "
        "Medians, and smallest to largest in brackets; the percentages of `labelers.label()` are of pairs "
        "of runs one after the other. Imports are not timed; processes that a client starts are counted.",
        "",
        "## Targets",
        "",
        *targets(slow, fast, large),
        "",
        f"## 50 ms latency, {rows[0]:,} rows",
        "",
        *table(slow),
        "",
        f"64 in flight at 50 ms can give {settings.in_flight / 0.05:,.0f} rows/s at most.",
        "",
        f"## 0 ms latency, {rows[1]:,} rows",
        "",
        *table(fast),
        "",
        f"## {large.rows:,} rows",
        "",
        f"`labelers.label()` at 0 ms: {large.rate:,.0f} rows/s, {1000 * large.cpu / large.rows:.2f} ms CPU "
        f"per row. Resident memory: {large.imported:.0f} MB after the imports, {large.loaded:.0f} MB with "
        f"the dataset built, {large.peak:.0f} MB at the peak: {large.peak - large.imported:.0f} MB beyond "
        f"imports, {large.peak - large.loaded:.0f} MB beyond the dataset. {large.labelled:,} rows labelled "
        f"with {large.served:,} requests.",
        "",
    ]  # fmt: skip
    for peer, why in settings.left_out.items():
        lines += [f"Left out: {PEERS[peer][1]}: {why}", ""]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines), encoding="utf-8")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON",
        help=f"the Python of a peer's environment; NAME is one of {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument("--rows", type=int, default=2000, help="at 50 ms")
    parser.add_argument("--fast-rows", type=int, default=5000, help="at 0 ms")
    parser.add_argument("--many-rows", type=int, default=100_000, help="for the peak of memory")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--peer-runs", type=int, default=2, help="at 50 ms")
    args = parser.parse_args(arguments)
    args.pythons = {"openai": sys.executable}
    for peer in args.peer:
        name, _, python = peer.partition("=")
        if name not in PEERS or not Path(python).exists():
            parser.error(
                f"--peer is {peer!r}: NAME=PYTHON, NAME one of {', '.join(PEERS)}, PYTHON a file"
            )
        # Not resolved: an environment is known by the link that its Python is.
        args.pythons[name] = str(Path(python).absolute())
    return args


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    left_out: dict[str, str] = {
        peer: f"no environment was given (--peer {peer}=PYTHON)"
        for peer in PEERS
        if peer not in args.pythons
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), args.in_flight, args.pairs, args.pythons, left_out)
        ready = max(args.rows, args.fast_rows)
        size = throughput_rows.write(settings.folder, max(ready, args.many_rows), ready)
        loads = [os.getloadavg()[0]]
        slow = compare(settings, 0.05, args.rows, args.peer_runs)
        loads.append(os.getloadavg()[0])
        fast = compare(settings, 0.0, args.fast_rows, 0)
        loads.append(os.getloadavg()[0])
        with server(0.0) as url:
            large = run(settings, sys.executable, "ours.py", url, args.many_rows)
        loads.append(os.getloadavg()[0])
        write_result(settings, slow, fast, large, size, loads)
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
