"""What a data-scale ablation comes to: scored points, fits, tables and the page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.ablation_answers import Rivals, answer_buyer, describe_forecast
from curate.ablation_cells import Bench, Cell, read_answers
from curate.ablation_curves import Point, learn
from curate.ablation_rows import Ground
from curate.ablation_scores import Judge, Scores, make_judge, score_points
from curate.ablation_source import Source
from curate.gold import references_of
from curate.recipe import Recipe
from curate.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

#: A cell with fewer optimizer steps was, for all that is known, only trained too briefly.
_FEW_STEPS = 20


def conclude(
    source: Source,
    ground: Ground,
    bench: Bench,
    folder: RunFolder,
    cells: Sequence[Cell],
    test: pd.DataFrame,
    notes: list[str],
    problems: Mapping[str, str],
) -> dict[str, Any]:
    """Score, fit and answer; write the tables, the page and ``ablation.json``, whose content is returned."""
    import pandas as pd

    from curate.ablation_page import write_page

    recipe = source.recipe
    judges = {"validation": make_judge(ground.validation, recipe)}
    if len(test):
        judges["test"] = make_judge(test, recipe)
    ids = {"validation": ground.validation["id"].tolist(), "test": test["id"].tolist()}
    answers = {
        split: [read_answers(bench, cell, split, ids[split]) for cell in cells] for split in judges
    }
    points = _points(bench, cells, ground, judges, answers)
    metric = judges["validation"].metrics()[0]
    learning, compared = learn(points, metric, source.costs, ground.labelled)
    rivals = Rivals(
        validation=_rivals(ground, ground.validation, judges["validation"], recipe),
        test=_rivals(ground, test, judges["test"], recipe) if len(test) else None,
        reference=ground.reference,
    )
    notes += _step_notes(points)
    if ground.reference != "gold":
        notes.append(
            "The validation rows have no human labels: scores are agreement with the teacher, not correctness"
        )
    verdict = answer_buyer(learning, rivals, recipe, metric)
    forecast = describe_forecast(learning, compared)
    table = pd.DataFrame(_cell_rows(bench, cells, judges, answers))
    folder.write_table("cells.parquet", table)
    folder.write_text("cells.csv", table.to_csv(index=False))
    facts: dict[str, Any] = {
        "name": recipe.name,
        "metric": metric,
        "goal": dict(recipe.task.goal),
        "reference": ground.reference,
        "training_rows": len(ground.training),
        "validation_rows": len(ground.validation),
        "test_rows": len(test),
        "labels_per_training_row": ground.labelled,
        "costs_per_label": dataclasses.asdict(source.costs),
        "rivals": {"validation": rivals.validation, "test": rivals.test},
        "points": [point.facts() for point in points],
        "curves": [each.facts() for each in learning],
        "held_out": None if compared is None else dataclasses.asdict(compared),
        "forecast": forecast,
        "verdict": verdict,
        "notes": notes,
        "problems": dict(problems),
    }
    folder.write_text("ablation.json", json.dumps(facts, indent=1, ensure_ascii=False))
    write_page(folder, facts, learning, table)
    return facts


def _points(
    bench: Bench,
    cells: Sequence[Cell],
    ground: Ground,
    judges: Mapping[str, Judge],
    answers: Mapping[str, Sequence[list[str | None]]],
) -> list[Point]:
    """Cells that differ in their seeds alone, scored together."""
    places: dict[tuple[str, str, float], list[int]] = {}
    for i, cell in enumerate(cells):
        facts = cell.facts
        places.setdefault((facts["model"], facts["objective"], facts["fraction"]), []).append(i)
    scores: dict[str, dict[tuple[str, str, float], dict[str, Scores]]] = {}
    for split, judge in judges.items():
        scores[split] = {key: {} for key in places}
        # One curve at a time: what seeds change is pooled over its sizes.
        for curve in dict.fromkeys(key[:2] for key in places):
            keys = [key for key in places if key[:2] == curve]
            said = [[answers[split][i] for i in places[key]] for key in keys]
            for metric in judge.metrics():
                for key, found in zip(keys, score_points(judge, said, metric), strict=True):
                    scores[split][key][metric] = found
    points = []
    for key, mine in places.items():
        records = [bench.record(cells[i]) or {} for i in mine]
        rows = round(sum(r["rows"] for r in records) / len(records))
        steps = [r["trained"].get("steps") for r in records]
        points.append(
            Point(
                model=key[0],
                objective=key[1],
                fraction=key[2],
                parameters=records[0].get("parameters"),
                rows=rows,
                labels=round(rows * ground.labelled),
                seeds=tuple(cells[i].facts["seed"] for i in mine),
                steps=min((s for s in steps if s is not None), default=None),
                seconds=round(sum(r["seconds"] for r in records), 2),
                validation=scores["validation"][key],
                test=scores["test"][key] if "test" in scores else None,
            )
        )
    return points


def _rivals(
    ground: Ground, rows: pd.DataFrame, judge: Judge, recipe: Recipe
) -> dict[str, dict[str, float]]:
    """Teacher, most frequent label and TF-IDF, trained on all training rows, on the same rows."""
    import student

    column = "gold" if recipe.student.target == "gold" else "label"
    labels = [references_of(each)[0] for each in ground.training[column]]
    inputs = rows["input"].tolist()
    common: dict[str, Any] = {"labels": recipe.task.labels}
    if recipe.task.choices is not None:
        common = {"choices": [list(c) for c in rows["choices"]]}
    said: dict[str, Sequence[str | None] | None] = {
        "teacher": [s if isinstance(s, str) else None for s in rows["label"]],
        "majority": student.majority(labels, len(rows), **common).predictions,
        "tfidf": student.tfidf(
            ground.training["input"].tolist(), labels, inputs, **common
        ).predictions,
    }
    known = {name: answers for name, answers in said.items() if answers is not None}
    scores = {m: score_points(judge, [[a] for a in known.values()], m) for m in judge.metrics()}
    return {name: {m: each[i].mean for m, each in scores.items()} for i, name in enumerate(known)}


def _step_notes(points: Sequence[Point]) -> list[str]:
    few = [p for p in points if p.steps is not None and p.steps < _FEW_STEPS]
    if not few:
        return []
    worst = min(few, key=lambda p: p.steps or 0)
    return [
        f"The smallest sets were trained in few steps ({worst.steps} at {worst.fraction:.0%}): part of what "
        "they lack may be training and not labels; --same steps trains all sizes equally long"
    ]


def _cell_rows(
    bench: Bench,
    cells: Sequence[Cell],
    judges: Mapping[str, Judge],
    answers: Mapping[str, Sequence[list[str | None]]],
) -> list[dict[str, Any]]:
    """One row per cell: what it is, what it took, and its scores with intervals over rows."""
    table = []
    for cell in cells:
        record = bench.record(cell) or {}
        table.append(
            {
                **cell.facts, "rows": record["rows"], "parameters": record["parameters"],
                "epochs": record["trained"].get("epochs"), "steps": record["trained"].get("steps"),
                "train_seconds": record["train_seconds"], "seconds": record["seconds"],
            }
        )  # fmt: skip
    for split, judge in judges.items():
        for metric in judge.metrics():
            # Each on its own: a cell has one seed.
            scores = score_points(judge, [[said] for said in answers[split]], metric)
            for row, found in zip(table, scores, strict=True):
                row[f"{split}_{metric}"] = found.mean
                row[f"{split}_{metric}_low"], row[f"{split}_{metric}_high"] = found.low, found.high
    return [{**r, "folder": bench.place(c).name} for r, c in zip(table, cells, strict=True)]
