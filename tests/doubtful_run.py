"""A made-up run whose filters met everything that the report shows of them, for tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from run_folder_example import Row, change_run, make_run

#: Rows that label_noise dropped, and rows that it only suspects, the most suspect first.
DROPPED_SUSPECTS = ("r0003", "r0005", "r0007")
KEPT_SUSPECTS = ("r0010", "r0012")
#: (train row, its twin, filter, score, threshold)
LEAKS = (
    ("r0020", "t0330", "contamination", 0.93, 0.5),
    ("r0021", "t0331", "contamination", 0.52, 0.5),
)
MEANT_ALIKE = (("r0030", "r0031", "semantic_duplicate", 0.962, 0.95),)
REVIEWED = {"r0040": "drop", "r0041": "accept", "r0042": "relabel"}


def make_doubtful_run(run: Path) -> Path:
    """Write a run folder with leaks, twins by meaning, suspected labels, verdicts and savings."""
    make_run(run)
    curated = {row["id"]: row for row in pl.read_parquet(run / "curated.parquet").to_dicts()}
    edges = pl.read_parquet(run / "decisions.parquet").to_dicts()
    gone = {one: name for one, _, name, _, _ in (*LEAKS, *MEANT_ALIKE)}
    gone |= dict.fromkeys(DROPPED_SUSPECTS, "label_noise")
    gone |= {one: "review" for one, verdict in REVIEWED.items() if verdict == "drop"}
    stay = {*KEPT_SUSPECTS, "r0031", "r0041", "r0042"}
    edges = [edge for edge in edges if edge["id"] not in {*gone, *stay}]
    for one, row in curated.items():
        row["review"] = REVIEWED.get(one)
        if one in gone or one in stay:
            row["label"] = row["label"] or "positive"
            row["keep"], row["reason"] = one in stay, gone.get(one)
        row |= _opinion(one, row)
    for one, twin, name, score, threshold in (*LEAKS, *MEANT_ALIKE):
        edges.append(_edge(one, name, score, threshold, twin))
    edges += [_edge(one, "label_noise", 0.05, 0.2, None) for one in DROPPED_SUSPECTS]
    rows = list(curated.values())
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(run / "curated.parquet")
    pl.DataFrame(edges, infer_schema_length=None).write_parquet(run / "decisions.parquet")
    change_run(run, lambda content: _tell(content, rows, edges))
    return run


def _edge(one: str, name: str, score: float, threshold: float, twin: str | None) -> Row:
    return {
        "id": one,
        "filter": name,
        "score": score,
        "threshold": threshold,
        "related_id": twin,
        "verdict": "drop",
    }


def _opinion(one: str, row: Row) -> Row:
    ranked = [*DROPPED_SUSPECTS, *KEPT_SUSPECTS]
    rank = ranked.index(one) + 1 if one in ranked else None
    label = row["label"] or "positive"
    other = "negative" if label == "positive" else "positive"
    sure = 0.99 - 0.02 * (rank or 0)
    return {
        "suspect_rank": rank,
        "suspect_opinion": other if rank else label,
        "suspect_opinion_probability": sure,
        "suspect_label_probability": 1 - sure if rank else sure,
    }


def _tell(content: dict[str, Any], rows: list[Row], edges: list[Row]) -> None:
    """Bring run.json up to date with the rows."""
    dropped = Counter(row["reason"] for row in rows if not row["keep"])
    kept = sum(row["keep"] for row in rows)
    order = ["unlabelled", "review", "contamination", "exact_duplicate", "near_duplicate"]
    order += ["semantic_duplicate", "confidence", "label_noise", "rebalance"]
    left, funnel = len(rows), [{"stage": "train rows read", "rows": len(rows)}]
    for reason in order:
        left -= dropped[reason]
        name = "labelled" if reason == "unlabelled" else f"after {reason}"
        funnel.append({"stage": name, "rows": left})
    by_label: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["label"] is not None:
            counts = by_label.setdefault(row["label"], {"rows": 0, "kept": 0})
            counts["rows"] += 1
            name = "kept" if row["keep"] else row["reason"]
            counts[name] = counts.get(name, 0) + 1
    content["funnel"] = [*funnel, {"stage": "training set", "rows": kept}]
    content["stages"]["labeled"] |= {"cost_usd": 0.5}
    content["stages"]["curated"] |= {
        "kept": kept,
        "dropped": dict(dropped),
        "drops": {"label": by_label},
        "policy": "0123456789abcdef" * 4,
        "conflicts": sum(edge["verdict"] == "conflict" for edge in edges),
        "deduped": 48,
        "reviewed": dict(Counter(REVIEWED.values())),
        "suspects": {
            "by": "label_noise",
            "judged": 300,
            "rows": len(DROPPED_SUSPECTS) + len(KEPT_SUSPECTS),
            "dropped": len(DROPPED_SUSPECTS),
            "note": None,
        },
    }
