"""Do generated rows help? 200 new rows for the demo's rarer class, written by the demo's own teacher.

    python benchmarks/generation.py --output runs/generation --store recipes/.curate

The demo's rows are labelled (free if its store is there), new rows are written for the class that the teacher
gave to fewer train rows, labelled with the demo's prompt, filtered with the demo's filters, and two students
are trained on labels alone: without them and with them. Both are judged on the same human-rated test rows.
What was asked is in the store and finished students are in the output folder: after an interruption the same
command goes on. The report is written to benchmarks/results/generation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import processor

import labelers
import student
from curate.generation import add_generated, generate_rows, share_kept
from curate.recipe import Recipe, load_recipe
from curate.references import resolve_model
from curate.run_facts import _versions
from curate.sources import load_examples
from curate.stages import filter_rows, train_student
from labelers.generation_agreement import agreement

REPORT = Path(__file__).parent / "results" / "generation.md"
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


def judge(
    name: str, labelled: pd.DataFrame, recipe: Recipe, folder: Path, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """Filter, train and judge the student, and TF-IDF beside it.

    Returns:
        Metrics, which test rows each was right on, and what became of the generated rows.
    """
    base = RECIPE.parent
    recipe = recipe.model_copy(
        update={"seed": seed, "student": recipe.student.model_copy(update={"objective": "label"})}
    )
    curated, _, _ = filter_rows(labelled, recipe, base=base, cache=folder / "embeddings")
    kept = curated[curated["keep"].astype(bool) & (curated["split"] == "train")]
    test = labelled[(labelled["split"] == "test") & labelled["gold"].notna()]
    inputs = test["input"].tolist()
    target = folder / f"{name}-{seed}"
    notes = folder / f"{name}-{seed}.json"
    if not notes.exists():
        begun = time.perf_counter()
        info = train_student(curated, recipe, output=target, base=base)
        info["seconds"] = time.perf_counter() - begun
        notes.write_text(json.dumps(info), encoding="utf-8")
    info = json.loads(notes.read_text(encoding="utf-8"))
    labels = recipe.task.labels
    baseline = student.tfidf(
        kept["input"].tolist(), kept["label"].tolist(), inputs, labels=labels
    ).predictions
    answers = {
        "student": list(
            student.predict(target, inputs, choices=[list(labels or ())] * len(test))["prediction"]
        ),
        "tfidf": list(baseline or []),
    }
    facts: dict[str, Any] = {
        "rows": info["rows"],
        "steps": info["steps"],
        "seconds": info["seconds"],
        "balance": {str(k): int(v) for k, v in kept["label"].value_counts().items()},
        "n": len(test),
    }
    gold = test["gold"].tolist()
    for system, said in answers.items():
        metrics = student.evaluate(gold, said, labels=labels, groups=test["group"].tolist(), seed=0)
        facts[system] = {key: metrics[key] for key in ("accuracy", "macro_f1", "per_class")}
    right = {system: np.array(said) == np.array(gold) for system, said in answers.items()}
    return facts, right, share_kept(curated)


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


def interval_of(metric: dict[str, float], name: str = "value") -> str:
    return f"{metric[name]:.1%} ({metric['low']:.1%} to {metric['high']:.1%})"


def counts_of(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def report(facts: dict[str, Any], options: argparse.Namespace) -> str:
    """The page of results."""
    made, agreed, runs = facts["generation"], facts["agreement"], facts["students"]
    rejected = (
        ", ".join(f"{count} {reason}" for reason, count in made["rejected"].items()) or "none"
    )
    seconds = [f"{run[name]['seconds']:.0f}" for run in runs for name in ("without", "with")]
    judged = runs[0]["with"]["n"]
    labels = counts_of(facts["labels"])
    table = {
        "rows wanted, taken": f"{made['wanted']}, {made['accepted']}",
        "answers judged": made["requests"],
        "rejected": rejected,
        "labelled as intended": f"{agreed['agreed']} of {agreed['labelled']}: {interval_of(agreed, 'share')}",
        "median confidence of their labels, and of other train rows": (
            f"{facts['confidence']['generated']:.2f}, {facts['confidence']['others']:.2f}"
        ),
        "labels of original train rows that would change if the batch calibration were fitted on "
        "generated rows too": f"{facts['labels_bent']} of {sum(facts['labels'].values())}",
    }
    lines = [
        "# Generated rows: do 200 more of the rarer class help the demo's student?",
        "",
        f"The demo's teacher gives its train rows the labels {labels}. The same teacher, a weak "
        f"one of 135 million parameters, wrote rows for `{next(iter(made['by_label']))}`, seeded by its "
        "own labels, and labelled them with the demo's prompt.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in table.items()),
        "",
        "## The students",
        "",
        "| seed | training set | rows | by label | steps | system | accuracy | macro F1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for system in ("student", "tfidf"):
            for name in ("without", "with"):
                one, got = run[name], run[name][system]
                lines.append(
                    f"| {run['seed']} | {name} generated rows | {one['rows']} "
                    f"| {counts_of(one['balance'])} | {one['steps']} | {system} "
                    f"| {interval_of(got['accuracy'])} | {interval_of(got['macro_f1'])} |"
                )
    lines += [
        "",
        f"The teacher on the same {judged} human-rated test rows: {interval_of(facts['teacher_accuracy'])}.",
        "",
    ]
    for run in runs:
        kept = run["kept"]
        for system, (change, low, high) in run["change"].items():
            lines.append(
                f"- seed {run['seed']}, {system}: with generated rows {100 * change:+.1f} points of accuracy "
                f"({100 * low:+.1f} to {100 * high:+.1f}, paired): "
                + ("no effect is shown" if low <= 0 <= high else "more than chance explains")
            )
        lines += [
            f"- the demo's filters kept {kept['kept']} of {kept['rows']} generated rows (dropped: "
            f"{counts_of(kept['dropped'])}), which are {kept['of_training_set']:.1%} of the training set; of "
            f"the other train rows they kept {kept['others']['share']:.1%}",
        ]
    lines += [
        "",
        "## A dozen of the rows, drawn at random",
        "",
        *(f"- {row['label']} ({row['confidence']}): {row['input']}" for row in facts["samples"]),
        "",
        "## How it was measured",
        "",
        "- rows, prompt, filters and student: `recipes/demo.yaml`, but for the student's objective, which is "
        "`label` (no rationales), to save time",
        "- in brackets: 95 % intervals; Wilson's for the labels as intended, else bootstrapped over whole "
        "reviews",
        "- more rows are more steps at the same number of epochs: what the students differ in is both",
        "- the generated rows are calibrated by the rule fitted on the original train rows",
        f"- writing took {made['seconds']:.0f} s with one thread ({made['asked']} answers asked, "
        f"{made['reused']} in the store), training {', '.join(seconds)} s with {facts['threads']}, on a "
        "machine busy with other work",
        f"- machine: {facts['machine']}, {facts['cores']} cores, no GPU",
        f"- versions: {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}",
        f"- date: {facts['date']}",
        f"- command: `python benchmarks/generation.py --rows {options.rows} --seeds {options.seeds}`",
    ]
    return "\n".join(lines) + "\n"


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
        "machine": processor(),
        "date": date.today().isoformat(),
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
    notes = options.output / "writing.json"
    if not notes.exists():
        notes.write_text(json.dumps(facts["generation"]), encoding="utf-8")
    facts["generation"] = json.loads(notes.read_text(encoding="utf-8"))
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
    groups = test["group"].tolist()
    for seed in [int(s) for s in options.seeds.split(",")]:
        without, right, _ = judge("without", labelled, recipe, options.output, seed)
        with_, right_with, share = judge("with", relabelled, recipe, options.output, seed)
        change = {name: paired_interval(right[name], right_with[name], groups) for name in right}
        facts["students"].append(
            {"seed": seed, "without": without, "with": with_, "kept": share, "change": change}
        )
    (options.output / "generation.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    REPORT.write_text(report(facts, options), encoding="utf-8")


if __name__ == "__main__":
    main()
