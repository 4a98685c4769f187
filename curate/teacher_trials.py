"""Compares ways to ask a teacher on the same train rows with gold, and picks one by rule."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError
from curate.recipe import Recipe, parse_recipe
from curate.recipe_files import Places, may_be_secret, read_recipe
from curate.recipe_trials import BASE, LEAST_ROWS, TrialsSection
from curate.run_folder import RunFolder
from curate.sources import load_examples
from curate.stages import OnProgress, no_progress
from curate.teacher_answers import Trial, draw_rows
from curate.teacher_scores import Judged, choose, compare
from curate.teacher_variants import Variant, demonstrated, make_variants

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_MOST_DISAGREEMENTS, _MOST_WRONG = 10, 5


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What :func:`teacher` found.

    Attributes:
        folder: Holds ``teacher-trials.json`` and ``teacher-trials.parquet``.
        rows: How many train rows with gold every variant was judged on.
        rule: The rule that picked the winner.
        within: How much accuracy may be given up for a cheaper variant.
        variants: One entry per variant in order, those that could not be judged included: ``name``,
            ``changes``, ``problem`` (None where it was judged), and else the figures of
            :class:`curate.teacher_scores.Judged`.
        winner: Name of the variant picked.
        overrides: The ``key=value`` pairs that bring it into the recipe; none for the base.
        verdict: In a sentence or two, what was picked and whether it is shown to be better.
        disagreements: At most ten rows on which variants say different things.
        wrong: At most five rows on which the winner is wrong, the surest first.
        notes: What else is to be known.
    """

    folder: Path
    rows: int
    rule: str
    within: float
    variants: Sequence[Mapping[str, Any]]
    winner: str
    overrides: Sequence[str]
    verdict: str
    disagreements: Sequence[Mapping[str, Any]]
    wrong: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    def table(self) -> pd.DataFrame:
        """One row per variant and example: id, variant, label, gold, right, confidence, error."""
        return RunFolder(self.folder).read_table("teacher-trials.parquet")


def teacher(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe,
    *,
    vary: Sequence[str] = (),
    rows: int | None = None,
    rule: str | None = None,
    within: float | None = None,
    overrides: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    train: pd.DataFrame | datasets.Dataset | None = None,
    test: pd.DataFrame | datasets.Dataset | None = None,
    on_progress: OnProgress | None = None,
) -> Trials:
    """Compare prompts, demonstrations, modes and teachers on train rows with gold, and pick one.

    Test rows are never looked at. All variants answer the same rows, through the shared store: the later
    labeling asks nothing again that is the same. See docs/teacher.md.

    Args:
        recipe: A recipe's path, or a recipe as a mapping or :class:`curate.Recipe`.
        vary: ``KEY=V1,V2`` texts; each value is one variant, beside those of the section ``trials``.
        rows: Train rows to judge on, in place of ``trials.rows``.
        rule: ``best`` or ``cheapest``, in place of ``trials.rule``.
        within: Accuracy, 0 to 1, that may be given up for a cheaper variant, in place of ``trials.within``.
        overrides: ``key=value`` pairs, set for all variants.
        output: Folder of the results; by default ``runs/<name>/teacher``.
        store: Folder of the teacher's exchanges; by default ``.curate`` beside the recipe.
        train: A pandas or `datasets` object in place of ``data.train``.
        test: The same in place of ``data.test``.
        on_progress: Receives each variant's events.

    Raises:
        CurateError: If there are fewer than 20 train rows with gold, or no variant could be judged.
        ValueError, RuntimeError: With a message that says what to do; see docs/errors.md.
    """
    values, places, base_folder = _read(recipe)
    base = parse_recipe(values, places=places, overrides=overrides)
    section = _section(base, rows, rule, within)
    variants, notes = make_variants(values, base, overrides=overrides, vary=vary)
    tell = on_progress or no_progress
    examples = load_examples(
        base.data, base.task.task(), folder=base_folder, seed=base.seed, train=train, test=test,
        separator=base.task.separator,
        keep_columns=tuple(
            dict.fromkeys(c for v in variants if v.recipe for c in v.recipe.teacher.columns())
        ),
    )  # fmt: skip
    chosen, others, told = draw_rows(examples, section.rows, demonstrated(variants))
    trial = Trial(
        base=base,
        rows=chosen,
        others=others,
        folder=base_folder,
        store=Path(store) if store is not None else base_folder / ".curate",
        tell=tell,
    )
    folder = RunFolder(output if output is not None else Path("runs") / base.name / "teacher")
    with folder.locked():
        for variant in variants:
            trial.run(variant)
        return _conclude(trial, variants, section, [*notes, *told], folder)


def _read(recipe: Any) -> tuple[dict[str, Any], Places, Path]:
    if isinstance(recipe, Recipe):
        return recipe.resolved(), {}, Path.cwd()
    if isinstance(recipe, Mapping):
        return dict(recipe), {}, Path.cwd()
    values, places = read_recipe(recipe)
    return values, places, Path(recipe).resolve().parent


def _section(
    base: Recipe, rows: int | None, rule: str | None, within: float | None
) -> TrialsSection:
    """The recipe's section, with what was given in its place."""
    section = base.trials or TrialsSection()
    if rows is not None and rows < LEAST_ROWS:
        raise CurateError(
            f"rows is {rows}: at least {LEAST_ROWS} are needed to tell one variant from another"
        )
    if rule not in (None, "best", "cheapest"):
        raise CurateError(f"rule is {rule!r}: best and cheapest are known")
    if within is not None and not 0 <= within <= 1:
        raise CurateError(f"within is {within}: a share of the rows is needed, such as 0.01")
    given = {"rows": rows, "rule": rule, "within": within}
    return section.model_copy(update={k: v for k, v in given.items() if v is not None})


# ---------------------------------------------------------------------------------------- conclusions


def _conclude(
    trial: Trial,
    variants: Sequence[Variant],
    section: TrialsSection,
    notes: list[str],
    folder: RunFolder,
) -> Trials:
    import pandas as pd

    judged = list(trial.judged.values())
    if not judged:
        first = next(iter(trial.problems.values()))
        raise CurateError(f"none of {len(variants)} variants could be judged; the first: {first}")
    groups, seed = trial.rows["group"].tolist(), trial.base.seed
    base = trial.judged.get(BASE)
    if base is not None:
        compare(judged, base, groups, seed)
    winner = choose(judged, section.rule, section.within, groups, seed)
    picked = next(v for v in variants if v.name == winner.name)
    trials = Trials(
        folder=folder.path,
        rows=len(trial.rows),
        rule=section.rule,
        within=section.within,
        variants=[_entry(variant, trial) for variant in variants],
        winner=winner.name,
        overrides=picked.overrides,
        verdict=_verdict(winner, base, judged, section),
        disagreements=_disagreements(trial),
        wrong=_wrong(trial.labelled[winner.name], winner),
        notes=notes,
    )
    tables = []
    for name, frame in trial.labelled.items():
        table = frame[["id", "label", "gold", "confidence", "error"]].copy()
        table.insert(1, "variant", name)
        table.insert(4, "right", trial.judged[name].right)
        tables.append(table)
    folder.write_table("teacher-trials.parquet", pd.concat(tables, ignore_index=True))
    facts = {key: value for key, value in vars(trials).items() if key != "folder"}
    facts |= {"name": trial.base.name, "ids": trial.rows["id"].tolist()}
    folder.write_text("teacher-trials.json", json.dumps(facts, indent=1, ensure_ascii=False))
    return trials


def _entry(variant: Variant, trial: Trial) -> dict[str, Any]:
    # Of what did not pass the recipe's checks nothing is kept that may be a secret.
    changes = {
        key: value
        for key, value in variant.changes.items()
        if variant.recipe is not None or not (isinstance(value, str | dict) and may_be_secret(key))
    }
    entry: dict[str, Any] = {"name": variant.name, "changes": changes, "problem": None}
    if variant.name in trial.problems:
        return entry | {"problem": trial.problems[variant.name]}
    return entry | trial.judged[variant.name].facts()


def _verdict(
    winner: Judged, base: Judged | None, judged: Sequence[Judged], section: TrialsSection
) -> str:
    rows = len(winner.right)
    picked = (
        f"{winner.name} is picked by the rule {section.rule!r} (within {section.within:g}), with an accuracy "
        f"of {winner.accuracy['value']:.1%} on {rows} train rows."
    )
    if base is None:
        return f"{picked} The recipe as it is could not be judged."
    others = [each.difference for each in judged if each.difference is not None]
    if not others:
        return f"{picked} Nothing else could be compared with it."
    found = winner.difference
    if found is not None and found.verdict == "better":
        return (
            f"{picked} It is better than the recipe as it is by {found.value:.1%} ({found.low:.1%} to "
            f"{found.high:.1%}; p = {found.p_holm:.2g} after Holm's correction)."
        )
    if found is not None and found.verdict == "worse":
        return f"{picked} It is less accurate than the recipe as it is, by {-found.value:.1%}, and cheaper."
    if any(each.verdict == "better" for each in others):
        who = "It" if found is None else "The recipe as it is"
        return f"{picked} {who} is less accurate than another variant, which costs more."
    hopeful = [each.p_holm for each in others if each.value > 0]
    why = (
        f"smallest p = {min(hopeful):.2g} after Holm's correction" if hopeful else "none did better"
    )
    return f"{picked} No variant is shown to be better than the recipe as it is, on {rows} rows ({why})."


def _disagreements(trial: Trial) -> list[dict[str, Any]]:
    """Rows on which the variants are most divided."""
    labels = {name: frame["label"].tolist() for name, frame in trial.labelled.items()}
    found = []
    for i, (id_, text, gold) in enumerate(
        zip(*(trial.rows[name] for name in ("id", "input", "gold")), strict=True)
    ):
        said = {name: _text(column[i]) for name, column in labels.items()}
        right = sum(bool(judged.right[i]) for judged in trial.judged.values())
        if len(set(said.values())) > 1:
            row = {"id": id_, "input": text, "gold": gold, "labels": said}
            found.append((abs(2 * right - len(said)), i, row))
    return [row for _, _, row in sorted(found, key=lambda each: each[:2])[:_MOST_DISAGREEMENTS]]


def _wrong(labelled: pd.DataFrame, winner: Judged) -> list[dict[str, Any]]:
    """Rows on which the winner is wrong, those of which it is surest first."""
    wrong = labelled[~winner.right].copy()
    wrong["sure"] = wrong["confidence"].astype(float)
    wrong = wrong.sort_values("sure", ascending=False, kind="stable").head(_MOST_WRONG)
    return [
        {
            "id": row["id"],
            "input": row["input"],
            "gold": row["gold"],
            "label": _text(row["label"]),
            "confidence": None if row["sure"] != row["sure"] else float(row["sure"]),
            "error": _text(row["error"]),
        }
        for _, row in wrong.iterrows()
    ]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
