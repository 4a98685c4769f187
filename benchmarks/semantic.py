"""What the semantic stage costs per million rows, with a sentence encoder and with a static embedder.

Generated reviews, the corpus of `dedupe.py`: many are edits and paraphrases of others. For each
embedder: texts encoded a second, k-means and the search for near pairs on the larger set, and how much of
what the encoder proposes the static one proposes too. Writes benchmarks/results/semantic.md.

    python benchmarks/semantic.py
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dedupe_corpus import make_corpus
from machine import processor

import filters
from curate.assets import resolve

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "semantic.md"
SLOW = 3_000  # texts that the encoder encodes; the static one encodes all


def timed(work: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def proposed(vectors: np.ndarray, least: float) -> set[tuple[int, int]]:
    """Pairs of rows with at least that cosine."""
    cosines = np.triu(vectors @ vectors.T, 1)
    return {(int(a), int(b)) for a, b in zip(*np.nonzero(cosines >= least), strict=True)}


def stage(rows: pd.DataFrame, vectors: np.ndarray) -> tuple[float, float, int]:
    """Seconds of k-means and of the filter, and the rows dropped."""
    clusters, grouping = timed(lambda: filters.cluster(vectors, seed=0))
    chain = [filters.ExactDuplicate(), filters.SemanticDuplicate()]
    result, judging = timed(
        lambda: filters.apply(rows, chain, embeddings=vectors, clusters=clusters.labels)
    )
    return grouping, judging, int((result.frame["reason"] == "semantic_duplicate").sum())


def measure(rows: int) -> list[str]:
    torch.set_num_threads(2)
    encoder = resolve("minilm", "embedder")
    work = Path(tempfile.mkdtemp())
    _, made = timed(lambda: filters.distil_static(encoder, work / "static"))
    corpus = make_corpus(rows).drop_duplicates("input").reset_index(drop=True)
    texts = corpus["input"].tolist()
    near = make_corpus(SLOW, seed=1)["input"].drop_duplicates().tolist()
    filters.embed(texts[:64], encoder)  # loading is no part of the rate
    filters.embed(texts[:64], work / "static")
    slow, seconds = timed(lambda: filters.embed(near, encoder))
    fast, _ = timed(lambda: filters.embed(near, work / "static"))
    all_fast, fast_seconds = timed(lambda: filters.embed(texts, work / "static"))
    grouping, judging, dropped = stage(corpus, all_fast)
    shutil.rmtree(work)
    rates = len(near) / seconds, len(texts) / fast_seconds
    per_million = [1e6 / rate for rate in rates]
    lines = [
        "| embedder | texts/s | encoding a million |",
        "|---|---:|---:|",
        f"| all-MiniLM-L6-v2 | {rates[0]:,.0f} | {per_million[0] / 3600:.1f} h |",
        f"| static, made of it in {made:.0f} s | {rates[1]:,.0f} | {per_million[1]:.0f} s |",
        "",
        f"With the static vectors, {len(texts):,} generated reviews of which no two are equal: k-means "
        f"{grouping:.0f} s, `semantic_duplicate` {judging:.0f} s, {dropped:,} rows dropped. On this "
        "corpus, whose texts are all alike, the search grows nearly with the square of the rows (94,679 "
        "rows: 127 s in another run), so a million is not to be read off.",
        "",
        f"Of the pairs of {len(near):,} generated reviews that the encoder proposes at a cosine, the "
        "share that the static one proposes at another (in brackets: how many pairs it proposes):",
        "",
        "| encoder at least | pairs | static ≥ 0.95 | static ≥ 0.90 | static ≥ 0.80 |",
        "|---:|---:|---:|---:|---:|",
    ]
    static = {least: proposed(fast, least) for least in (0.95, 0.9, 0.8)}
    for least in (0.95, 0.9, 0.85):
        pairs = proposed(slow, least)
        cells = [
            f"{len(pairs & found) / max(len(pairs), 1):.3f} ({len(found):,})"
            for found in static.values()
        ]
        lines.append(f"| {least} | {len(pairs):,} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    lines = measure(options.rows)
    versions = ", ".join(
        f"{n} {metadata.version(n)}" for n in ("torch", "sentence-transformers", "scikit-learn")
    )
    page = [
        "# What the semantic stage costs",
        "",
        *lines,
        "",
        "## How this was measured",
        "",
        f"- machine: {processor()}, 2 threads, beside other work",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- date: {options.date}",
        f"- command: `python benchmarks/semantic.py --rows {options.rows}`",
    ]
    options.output.write_text("\n".join(page) + "\n", encoding="utf-8")
    print("\n".join(lines), file=sys.stderr)


if __name__ == "__main__":
    main()
