"""Do generated rows help? 200 new rows for the demo's rarer class, written by the demo's own teacher.

    python benchmarks/generation.py --output runs/generation --store recipes/.curate

The demo's rows are labelled (free if its store is there), new rows are written for the class that the teacher
gave to fewer train rows, labelled with the demo's prompt, filtered with the demo's filters, and two students
are trained on labels alone: without them and with them. Both are judged on the same human-rated test rows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import labelers
import student
from curate.generation import add_generated, generate_rows, share_kept
from curate.recipe import Recipe, load_recipe
from curate.references import resolve_model
from curate.run_facts import _versions
from curate.sources import load_examples
from curate.stages import filter_rows, train_student
from labelers.generation_agreement import agreement

RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def label_all(rows: pd.DataFrame, recipe: Recipe, teacher: Any, store: Path) -> pd.DataFrame:
    """Labels with the demo's prompt and calibration, without rationales."""
    blind = rows.drop(columns=[c for c in ("gold",) if c in rows.columns])
    # The calibration is fitted on rows that are not test rows. Rows of one intended class would bend it for
    # all others, so that they are passed as test rows here: calibrated by the rule, and no part of it.
    apart = blind.assign(split=blind["split"].where(blind["source"] != "generated", "test"))
    labelled = labelers.label(
        apart, recipe.task.task(), teacher, mode="score", rationales=False, store=store
    ).to_pandas()
    labelled["split"] = rows["split"].to_numpy()
    labelled.insert(list(rows.columns).index("gold"), "gold", rows["gold"].to_numpy())
    return labelled


def bent_by(
    rows: pd.DataFrame, labelled: pd.DataFrame, recipe: Recipe, teacher: Any, store: Path
) -> int:
    """Original train rows whose label would change if the calibration were fitted on generated rows too."""
    together = labelers.label(
        rows.drop(columns=["gold"]),
        recipe.task.task(),
        teacher,
        mode="score",
        rationales=False,
        store=store,
    ).to_pandas()
    original = ((rows["source"] != "generated") & (rows["split"] == "train")).to_numpy()
    return int((together["label"] != labelled["label"])[original].sum())


def judge_student(
    name: str, labelled: pd.DataFrame, recipe: Recipe, folder: Path, seed: int
) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    """Filter, train and judge; metrics, which test rows were right, and what became of generated rows."""
    base = RECIPE.parent
    recipe = recipe.model_copy(
        update={"seed": seed, "student": recipe.student.model_copy(update={"objective": "label"})}
    )
    cache = folder / "embeddings"
    curated, _, _ = filter_rows(labelled, recipe, base=base, cache=cache)
    begun = time.perf_counter()
    target = folder / f"{name}-{seed}"
    info = train_student(curated, recipe, output=target, base=base)
    seconds = time.perf_counter() - begun
    test = labelled[(labelled["split"] == "test") & labelled["gold"].notna()]
    said = student.predict(
        target, test["input"].tolist(), choices=[list(c) for c in test["choices"]]
    )["prediction"]
    gold = test["gold"].tolist()
    metrics = student.evaluate(
        gold, said.tolist(), labels=recipe.task.labels, groups=test["group"].tolist(), seed=0
    )
    kept = curated[curated["keep"].astype(bool) & (curated["split"] == "train")]
    facts = {
        "rows": info["rows"],
        "steps": info["steps"],
        "seconds": seconds,
        "accuracy": metrics["accuracy"],
        "macro_f1": metrics["macro_f1"],
        "per_class": metrics["per_class"],
        "balance": {str(k): int(v) for k, v in kept["label"].value_counts().items()},
        "n": len(test),
    }
    return facts, (said.to_numpy() == np.array(gold)), share_kept(curated)


def paired_interval(
    first: np.ndarray, second: np.ndarray, groups: list[str]
) -> tuple[float, float, float]:
    """Mean of second - first, and its 95 % bootstrap interval over whole groups."""
    names, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, weights=second.astype(float) - first.astype(float))
    sizes = np.bincount(codes)
    draws = np.random.default_rng(0).integers(len(names), size=(10_000, len(names)))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/generation"))
    parser.add_argument("--store", type=Path, default=RECIPE.parent / ".curate")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--teacher-threads", type=int, default=1)  # they spin where cores are busy
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(RECIPE)
    task = recipe.task.task()
    examples = load_examples(recipe.data, task, folder=RECIPE.parent, seed=recipe.seed)
    teacher = labelers.LlamaCpp(
        model_path=resolve_model(recipe.teacher.model, "teacher", RECIPE.parent),  # type: ignore[union-attr]
        name="smollm2-135m",
        threads=options.teacher_threads,
    )
    facts: dict[str, Any] = {
        "versions": _versions(),
        "cores": os.cpu_count(),
        "threads": options.threads,
    }

    labelled = label_all(examples, recipe, teacher, options.store)
    counts = labelled.loc[labelled["split"] == "train", "label"].value_counts()
    rarer = str(counts.idxmin())
    facts["labels"] = {str(k): int(v) for k, v in counts.items()}
    print(
        f"teacher labels of {int(counts.sum())} train rows: {facts['labels']}; rarer: {rarer}",
        flush=True,
    )

    begun = time.perf_counter()
    written, facts["generation"] = generate_rows(
        examples,
        task,
        teacher,
        labels={rarer: options.rows},
        labelled=labelled,
        store=options.store,
    )
    facts["generation"]["seconds"] = time.perf_counter() - begun
    print(json.dumps(facts["generation"], indent=1), flush=True)

    both = add_generated(examples, written)
    relabelled = label_all(both, recipe, teacher, options.store)
    new = relabelled[relabelled["source"] == "generated"]
    facts["agreement"] = vars(agreement(written, new))
    facts["labels_bent"] = bent_by(both, relabelled, recipe, teacher, options.store)
    facts["confidence"] = {
        "generated": float(new["confidence"].median()),
        "others": float(labelled.loc[labelled["split"] == "train", "confidence"].median()),
    }
    facts["samples"] = [
        {"input": row["input"], "label": row["label"], "confidence": round(row["confidence"], 2)}
        for _, row in new.sample(12, random_state=0).iterrows()
    ]
    print(json.dumps({k: facts[k] for k in ("agreement", "labels_bent", "confidence")}), flush=True)
    relabelled.to_parquet(options.output / "labeled.parquet")

    test = labelled[(labelled["split"] == "test") & labelled["gold"].notna()]
    facts["teacher_accuracy"] = student.evaluate(
        test["gold"].tolist(),
        test["label"].tolist(),
        labels=task.labels,
        groups=test["group"].tolist(),
        seed=0,
    )["accuracy"]
    facts["students"] = []
    for seed in [int(s) for s in options.seeds.split(",")]:
        without, right_without, _ = judge_student("without", labelled, recipe, options.output, seed)
        with_, right_with, share = judge_student("with", relabelled, recipe, options.output, seed)
        change = paired_interval(right_without, right_with, test["group"].tolist())
        facts["students"].append(
            {"seed": seed, "without": without, "with": with_, "kept": share, "change": change}
        )
        print(json.dumps(facts["students"][-1]), flush=True)
        (options.output / "generation.json").write_text(
            json.dumps(facts, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
