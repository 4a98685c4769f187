"""Duplicates at scale: speed, memory, and what is found and lost, beside other dedupers.

    python benchmarks/dedupe.py --peer datasketch=/venvs/datasketch/bin/python \\
        --peer datatrove=/venvs/datatrove/bin/python --peer semhash=/venvs/semhash/bin/python \\
        --static-model /models/static

Every deduper runs in a process of its own on the corpora of dedupe_corpus.py, with its usual settings, and
says which rows stay. A peer without a Python to run it is left out, and so is what would take hours. Writes
benchmarks/results/dedupe.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dedupe_corpus
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "dedupe.md"
DATA = HERE.parents[1] / "shared" / "data"
FOUND = ("exact", "case", "small", "tenth", "truncated", "paraphrase")
#: name: (script, Python's option, further arguments, largest corpus in rows)
SYSTEMS: dict[str, tuple[str, str | None, tuple[str, ...], int]] = {
    "filters.apply": ("ours.py", None, (), 1_000_000),
    "filters.apply, no labels": ("ours.py", None, ("unlabelled",), 1_000_000),
    "filters.dedupe_batches": ("ours_batches.py", None, (), 10_000_000),
    "polars, equal texts only": ("polars_exact.py", None, (), 1_000_000),
    "rensa, stream": ("rensa_stream.py", None, (), 1_000_000),
    "datasketch, stream": ("datasketch_stream.py", "datasketch", (), 100_000),
    "datatrove": ("datatrove_minhash.py", "datatrove", (), 100_000),
    "semhash, static model": ("semhash_static.py", "semhash", ("STATIC",), 100_000),
}
DIVIDER = "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
HEADER = (
    "| | wall s | CPU s | peak GB | exact | case | 1–2 words | 10 % of words | truncated | paraphrase "
    "| precision | contrast lost | groups lost |"
)


def run(
    name: str, corpus: Path, pythons: Mapping[str, str], static: Path | None, work: Path
) -> dict[str, Any] | None:
    """Run one deduper in a process of its own; None where it cannot be run."""
    script, option, arguments, _ = SYSTEMS[name]
    python = sys.executable if option is None else pythons.get(option)
    if python is None or ("STATIC" in arguments and static is None):
        return None
    arguments = tuple(str(static) if each == "STATIC" else each for each in arguments)
    answer = work / "answer.json"
    answer.unlink(missing_ok=True)
    load = os.getloadavg()[0]
    command = [python, str(HERE / "dedupe_peers" / script), str(corpus), str(answer), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(answer.read_text("utf-8"))
    found["keep"] = np.frombuffer(found["keep"].encode(), dtype=np.uint8) == ord("1")
    found["load"] = load
    print(
        f"{name}: {len(found['keep']):,} rows, {found['wall']:.1f} s, load {load:.1f}", flush=True
    )
    return found


def judge(rows: pd.DataFrame, keep: np.ndarray) -> dict[str, float]:
    """Say what of the planted is found, and what is lost.

    A planted row is found unless both it and its base stay; precision is the share of the dropped
    rows that have a like row of the same group and label; a group or contrast row is lost if no
    row of its group and label stays.
    """
    rows = rows.assign(keep=keep)
    key = ["group", "label"]
    sizes = rows.groupby(key)["keep"].agg(["size", "sum"])
    bases = rows[rows["kind"].isin(["base", "contrast"])]
    found: dict[str, float] = {}
    for kind in FOUND:
        planted = rows[rows["kind"] == kind]
        if len(planted):
            pairs = planted.merge(bases, on=key, suffixes=("", "_base"))
            found[kind] = 1 - float((pairs["keep"] & pairs["keep_base"]).mean())
    dropped = sizes.loc[pd.MultiIndex.from_frame(rows.loc[~rows["keep"], key])]
    found["precision"] = float((dropped["size"] > 1).mean()) if len(dropped) else float("nan")
    contrast = sizes.loc[pd.MultiIndex.from_frame(rows.loc[rows["kind"] == "contrast", key])]
    found["contrast"] = float((contrast["sum"] == 0).mean()) if len(contrast) else float("nan")
    found["groups"] = int((sizes["sum"] == 0).sum())
    return found


def line(name: str, figures: Mapping[str, Any], found: Mapping[str, float]) -> str:
    """One line of a table."""
    shares = [f"{found[kind]:.3f}" if kind in found else "–" for kind in FOUND]
    return (
        f"| {name} | {figures['wall']:.1f} | {figures['cpu']:.1f} | {figures['peak']:.2f} | "
        f"{' | '.join(shares)} | {found['precision']:.4f} | {found['contrast']:.1%} | "
        f"{found['groups']:,} |"
    )


def table(rows: int, chosen: argparse.Namespace, work: Path) -> Iterator[str]:
    """Run everything that can be run on a corpus of so many rows."""
    corpus = work / f"corpus-{rows}.parquet"
    if not corpus.exists():
        dedupe_corpus.make_corpus(rows).to_parquet(corpus, index=False)
    frame = pd.read_parquet(corpus, columns=["kind", "group", "label"])
    yield from (HEADER, DIVIDER)
    for name, (_, option, _, most) in SYSTEMS.items():
        if rows > most:
            continue
        quiet(chosen.load, chosen.wait)
        figures = run(name, corpus, chosen.pythons, chosen.static_model, work)
        if figures is None:
            yield (
                f"| {name} | not run: no environment named with --peer {option}=PYTHON |"
                + " |" * 11
            )
            continue
        chosen.versions |= figures["versions"]
        chosen.loads.append(figures["load"])
        yield line(name, figures, judge(frame, figures["keep"]))


def quiet(most: float, seconds: float) -> None:
    """Wait until the machine is idle, but not for ever."""
    until = time.monotonic() + seconds
    while os.getloadavg()[0] > most and time.monotonic() < until:
        time.sleep(5)


def curve(chosen: argparse.Namespace, work: Path) -> Iterator[str]:
    """Time and memory of `dedupe_batches` against rows."""
    yield "| rows | wall s | CPU s | peak GB | groups lost | 10 % of words found |"
    yield "|---:|---:|---:|---:|---:|---:|"
    points = []
    for rows in chosen.curve:
        corpus = work / f"corpus-{rows}.parquet"
        if not corpus.exists():
            dedupe_corpus.make_corpus(rows).to_parquet(corpus, index=False)
        quiet(chosen.load, chosen.wait)
        figures = run("filters.dedupe_batches", corpus, {}, None, work)
        assert figures is not None
        found = judge(pd.read_parquet(corpus, columns=["kind", "group", "label"]), figures["keep"])
        points.append((rows, figures["wall"], figures["peak"]))
        chosen.loads.append(figures["load"])
        yield (
            f"| {rows:,} | {figures['wall']:.1f} | {figures['cpu']:.1f} | {figures['peak']:.2f} | "
            f"{found['groups']:,} | {found['tenth']:.3f} |"
        )
    if len(points) > 1:
        (fewer, first, low), (more, last, high) = points[-2:]
        scale = 1e6 / (more - fewer)
        yield ""
        yield (
            f"From {fewer:,} to {more:,} rows each further million takes {(last - first) * scale:.0f} s and "
            f"{(high - low) * scale:.2f} GB; on that line ten million would take "
            f"{(last + (1e7 - more) / 1e6 * (last - first) * scale) / 60:.0f} minutes and "
            f"{high + (1e7 - more) / 1e6 * (high - low) * scale:.1f} GB (not measured)."
        )


def real(work: Path) -> Iterator[str]:
    """Plant the same changes in real texts; settings as they were on the corpus above."""
    yield HEADER
    yield DIVIDER
    for name, texts, labels in _real_texts():
        frame = dedupe_corpus.plant(texts, labels)
        corpus = work / "real.parquet"
        frame.to_parquet(corpus, index=False)
        for system in ("filters.apply", "rensa, stream"):
            figures = run(system, corpus, {}, None, work)
            assert figures is not None
            yield line(
                f"{name} ({len(frame):,} rows), {system}", figures, judge(frame, figures["keep"])
            )
            if system == "filters.apply":
                words = frame["input"].str.split().str.len()
                long = (words.groupby(frame["group"]).transform("max") >= 16).to_numpy()
                found = judge(frame[long], figures["keep"][long])
                yield line("… of these, texts of 16 words or more", figures, found)


def _real_texts() -> Iterator[tuple[str, list[str], list[str]]]:
    from curate import assets
    from curate.exceptions import CurateError

    for name in ("vader-movies", "vader-products", "vader-editorials", "vader-tweets"):
        try:
            found = assets.load_data(name).drop_duplicates("text")
        except (CurateError, OSError) as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        yield name, found["text"].tolist(), found["sentiment"].fillna("mixed").tolist()
    path = DATA / "cqa_train.jsonl.gz"
    if not path.exists():
        print(f"{path} is not there: left out", flush=True)
        return
    rows = pd.read_json(path, lines=True)
    said = rows["teacher_output"].str.split("Q:").str[0].str.strip()
    rows = rows.assign(said=said).drop_duplicates("said")
    letters = rows["said"].str.extract(r"answer is \((\w)\)")[0].fillna("none")
    yield "CQA rationales of PaLM", rows["said"].tolist(), letters.tolist()


def incremental(work: Path, rows: int = 100_000, step: int = 10_000) -> Iterator[str]:
    """Add a corpus to an index in steps, reopening it each time."""
    import shutil

    from filters import NearIndex

    corpus = pd.read_parquet(work / f"corpus-{rows}.parquet")
    folder = work / "index"
    shutil.rmtree(folder, ignore_errors=True)
    taken, keep = [], np.ones(rows, dtype=bool)
    for start in range(0, rows, step):
        part = corpus[start : start + step]
        begun = time.perf_counter()
        with NearIndex(folder) as index:
            found = index.add(*(part[name].tolist() for name in ("id", "input", "label")))
        taken.append(time.perf_counter() - begun)
        twins = set(found.loc[found["verdict"] == "drop", "id"])
        keep[start : start + step] = ~part["id"].isin(twins)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    judged = judge(corpus, keep)
    yield (
        f"{rows:,} rows added {step:,} at a time, the index reopened each time: {taken[0]:.1f} s for "
        f"the first, {taken[-1]:.1f} s for the last {step:,}, {sum(taken):.1f} s in all; "
        f"{size / keep.sum():,.0f} bytes on the disk per row that stays. Found: {judged['small']:.3f} of "
        f"1–2 words, {judged['tenth']:.3f} of 10 %, {judged['truncated']:.3f} truncated; groups lost "
        f"{judged['groups']}, contrast lost {judged['contrast']:.1%}."
    )


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 2**30:.0f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--curve", type=int, nargs="*", default=[250_000, 1_000_000, 3_000_000])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--static-model", type=Path, help="for semhash: see dedupe_static_model.py")
    parser.add_argument(
        "--load", type=float, default=1.0, help="wait until the load is below this,"
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, help="but no longer than so many seconds"
    )
    parser.add_argument("--work", type=Path, help="where corpora are kept; by default nowhere")
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args()
    chosen.pythons = dict(each.split("=", 1) for each in chosen.peer)
    chosen.versions, chosen.loads = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        work = chosen.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        parts = ["# Duplicates at scale\n"]
        for rows in chosen.rows:
            parts += [f"\n## {rows:,} rows\n", *table(rows, chosen, work)]
        if chosen.curve:
            parts += ["\n## Time and memory of `filters.dedupe_batches`\n", *curve(chosen, work)]
        if 100_000 in chosen.rows:
            parts += ["\n## An index that is added to\n", *incremental(work)]
        parts += ["\n## Real texts, settings as above\n", *real(work)]
    given = " ".join(f"--peer {name}=…" for name in chosen.pythons)
    versions = ", ".join(f"{name} {number}" for name, number in sorted(chosen.versions.items()))
    parts += [
        "\n## How this was measured\n",
        f"- machine: {os.cpu_count()} cores, {_memory()}, {platform.machine()}, {platform.system()}",
        f"- load average before the runs: {min(chosen.loads, default=0):.1f} to "
        f"{max(chosen.loads, default=0):.1f}",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- date: {datetime.date.today()}",
        f"- command: `python benchmarks/dedupe.py {given}`",
    ]
    chosen.output.write_text("\n".join(parts) + "\n", encoding="utf-8")
    print(f"written: {chosen.output}")


if __name__ == "__main__":
    main()
