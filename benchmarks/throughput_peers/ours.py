"""The client under test: ``labelers.label()`` with its defaults and an empty store on disk."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import datasets
from measuring import MODEL, Measured, arguments

import labelers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from throughput_rows import make_task

args = arguments()
task = make_task()
teacher = labelers.OpenAICompatible(model=MODEL, base_url=args.url, concurrency=args.in_flight)
labelers.label  # noqa: B018  (names are imported when they are first used)
measured = Measured(args)
with open(args.data / "rows.jsonl", encoding="utf-8") as file:
    rows = [json.loads(line) for _, line in zip(range(args.rows), file, strict=False)]
dataset = datasets.Dataset.from_list(rows)
del rows
with measured:
    labelled = labelers.label(dataset, task, teacher, mode="cot", store=args.scratch / "store")
measured.report(
    sum(label is not None for label in labelled["label"]),
    aiohttp=metadata.version("aiohttp"),
    orjson=metadata.version("orjson"),
)
