"""One change at a time: experiments against the recipe as it is, on the same validation rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.ablation_cells import STUDENT, Bench, Cell, forget_students, read_answers, run_cells
from curate.ablation_room import jobs_that_fit
from curate.ablation_rows import Ground, trainable
from curate.ablation_scores import compare_paired, make_judge, score_points
from curate.ablation_source import Source
from curate.exceptions import CurateError
from curate.experiment_log import check_trackers, log_to_trackers, write_log
from curate.experiment_plan import (
    ASKED,
    BASE,
    FILTERED,
    Experiment,
    ask_leave,
    make_experiments,
)
from curate.recipe import Recipe
from curate.references import check_students
from curate.run_folder import RunFolder, fingerprint
from curate.teacher_scores import SIGNIFICANT, holm

if TYPE_CHECKING:
    import pandas as pd


def _rows_of(
    each: Experiment, source: Source, ground: Ground, bench: Bench
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """An experiment's curated rows, those it is trained on, and the validation rows as it shows them."""
    from curate.stages import filter_rows

    base = source.recipe
    if each.differs(base, ASKED):
        curated = _asked_rows(each, source, bench)
        shown = curated[curated["id"].isin(list(ground.validation["id"]))].set_index("id")
        absent = set(ground.validation["id"]) - set(shown.index)
        if absent:
            raise CurateError(
                f"{each.name}: {len(absent)} of {len(ground.validation)} validation rows have other ids with "
                f"this change, first {sorted(absent)[0]!r}: give data.id, so that rows keep theirs"
            )
        validation = ground.validation.assign(
            input=shown["input"].loc[ground.validation["id"]].tolist()
        )
    elif each.differs(base, FILTERED):
        curated, _, _ = filter_rows(
            source.run.read_table("labeled.parquet"),
            each.recipe,
            base=source.base,
            cache=source.store / "embeddings",
            on_progress=bench.tell,
        )
        validation = ground.validation
    else:
        curated, validation = source.curated, ground.validation
    return curated, trainable(curated, each.recipe, ground.held), validation


def _asked_rows(each: Experiment, source: Source, bench: Bench) -> pd.DataFrame:
    """The curated rows of a run of its own, which answers from the store what is there."""
    from curate.stage_order import Pipeline

    mark = fingerprint(each.recipe.resolved())[:16]
    run = RunFolder(bench.folder / "runs" / mark)
    pipeline = Pipeline(each.recipe, source.base, run, source.store, {}, bench.tell)
    with run.locked():
        pipeline.go("curated")
    return run.read_table("curated.parquet")


def run_experiments(
    source: Source,
    ground: Ground,
    bench: Bench,
    folder: RunFolder,
    *,
    vary: Sequence[str],
    grid: bool,
    yes: bool,
    log_to: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Train every experiment with every seed, compare each with the base, and log them all.

    Returns:
        ``facts``, ``verdict``, ``notes`` and ``problems`` of :class:`curate.ablations.Ablation`.
    """
    experiments, notes = make_experiments(source, vary, grid=grid)
    check_trackers(log_to)
    ask_leave(source, experiments, yes)
    if bench.trainer is STUDENT and any(e.differs(source.recipe, ASKED) for e in experiments):
        recipes = [each.recipe for each in experiments]
        check_students(recipes, source.base, lambda event: bench.tell("assets", event))
    notes = [*source.notes, *notes]
    problems: dict[str, str] = {}
    with folder.locked():
        cells: dict[str, list[Cell]] = {}
        rows: dict[str, dict[str, Any]] = {}
        for each in experiments:
            curated, training, validation = _rows_of(each, source, ground, bench)
            if not len(training):
                problems[each.name] = "no training row is left: loosen the filters"
                continue
            rows[each.name] = _row(each, source, curated, training, seeds)
            cells[each.name] = [
                Cell(
                    name=f"{each.name}, seed {seed}",
                    facts={"experiment": each.name, "seed": seed},
                    rows=training,
                    validation=validation,
                    recipe=each.recipe.model_copy(update={"seed": seed}),
                )
                for seed in seeds
            ]
        flat = [cell for mine in cells.values() for cell in mine]
        jobs, note = jobs_that_fit(
            bench.jobs, [cell.recipe.student.model for cell in flat], bench.base
        )
        notes += [note] if note else []
        problems |= run_cells(dataclasses.replace(bench, jobs=jobs), flat)
        if not bench.keep:
            forget_students(bench, flat)
        _judge(ground, bench, source.recipe, cells, rows, problems)
        table = list(rows.values())
        for name, problem in problems.items():
            if name not in rows and any(e.name == name for e in experiments):
                table.append({"experiment": name, "problem": problem})
        write_log(folder, table)
        log_to_trackers(log_to, source.recipe, table)
        verdict = _verdict(table, len(ground.validation), seeds)
        facts = {
            "name": source.recipe.name,
            "validation_rows": len(ground.validation),
            "reference": ground.reference,
            "seeds": list(seeds),
            "experiments": table,
            "verdict": verdict,
            "notes": notes,
            "problems": problems,
        }
        folder.write_text("experiments.json", json.dumps(facts, indent=1, ensure_ascii=False))
    return {"facts": facts, "verdict": verdict, "notes": notes, "problems": problems}


def _row(
    each: Experiment,
    source: Source,
    curated: pd.DataFrame,
    training: pd.DataFrame,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """What is known of an experiment before it is judged: identity, rows, and its labels' cost."""
    train = curated[curated["split"] == "train"]
    tokens = train[["prompt_tokens", "completion_tokens"]].fillna(0).sum()
    return {
        "experiment": each.name,
        "changes": dict(each.changes),
        "recipe_sha256": each.recipe.sha256(),
        "base_sha256": source.recipe.sha256(),
        "seeds": list(seeds),
        "rows": len(training),
        "prompt_tokens": int(tokens["prompt_tokens"]),
        "completion_tokens": int(tokens["completion_tokens"]),
        "cost_usd": float(train["cost_usd"].sum()) if train["cost_usd"].notna().all() else None,
        "problem": None,
    }


def _judge(
    ground: Ground,
    bench: Bench,
    recipe: Recipe,
    cells: Mapping[str, Sequence[Cell]],
    rows: dict[str, dict[str, Any]],
    problems: Mapping[str, str],
) -> None:
    """Score all experiments; give each its difference from the base, corrected by Holm (1979)."""
    judge = make_judge(ground.validation, recipe)
    metric = judge.metrics()[0]
    ids = ground.validation["id"].tolist()
    said = {}
    for name, mine in cells.items():
        records = [bench.record(cell) for cell in mine]
        if any(record is None for record in records):
            rows[name]["problem"] = next(problems[c.name] for c in mine if c.name in problems)
            continue
        said[name] = [read_answers(bench, cell, "validation", ids) for cell in mine]
        rows[name]["seconds"] = round(sum(r["seconds"] for r in records if r), 2)
    scored = {m: score_points(judge, list(said.values()), m) for m in judge.metrics()}
    for i, name in enumerate(said):
        found = scored[metric][i]
        rows[name] |= {"metric": metric, "value": found.mean, "low": found.low, "high": found.high}
        rows[name]["metrics"] = {m: each[i].mean for m, each in scored.items()}
    if BASE not in said:
        return
    others = [name for name in said if name != BASE]
    found_ = [compare_paired(judge, said[name], said[BASE]) for name in others]
    for name, values, p in zip(others, found_, holm([f["p"] for f in found_]), strict=True):
        verdict = "not shown"
        if p < SIGNIFICANT:
            verdict = "better" if values["value"] > 0 else "worse"
        rows[name] |= {
            "difference": values["value"], "difference_low": values["low"],
            "difference_high": values["high"], "p": values["p"], "p_holm": p,
            "compared": len(others), "verdict": verdict,
        }  # fmt: skip


def _verdict(table: Sequence[Mapping[str, Any]], validation: int, seeds: Sequence[int]) -> str:
    tried = [row for row in table if row.get("difference") is not None]
    if not tried:
        return "No experiment could be compared with the recipe as it is."
    on = f"{validation:,} validation rows and {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    shown = [row for row in tried if row["verdict"] != "not shown"]
    if not shown:
        least = min(row["p_holm"] for row in tried)
        which = (
            "The one change tried is not" if len(tried) == 1 else f"None of {len(tried)} changes is"
        )
        return (
            f"{which} shown to make a difference on {on} (smallest p = {least:.2g} after Holm's "
            "correction)."
        )
    changes = "1 change" if len(tried) == 1 else f"{len(tried)} changes"
    return f"Of {changes}, on {on}: " + "; ".join(_said(row) for row in shown) + "."


def _said(row: Mapping[str, Any]) -> str:
    return (
        f"{row['experiment']} is {row['verdict']} by {abs(row['difference']):.1%} "
        f"({row['difference_low']:+.1%} to {row['difference_high']:+.1%}, p = {row['p_holm']:.2g} after "
        "Holm's correction)"
    )
