"""The labeling stage: one teacher, several merged, or a cheap one before a dear one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import labelers
from curate.demonstrations import choose_demonstrations
from curate.exceptions import CurateError
from curate.gold import nearest_gold
from curate.recipe import Recipe
from curate.recipe_teachers import (
    AskedSection,
    CascadeSection,
    EnsembleSection,
    MemberSection,
    RecordedSection,
)
from curate.splits import normalised
from curate.tables import read_log
from curate.teachers import build_teacher
from labelers.votes import same_answer

if TYPE_CHECKING:
    import datasets
    import pandas as pd

#: Receives the stage's name and an event: ``done``, ``total`` and whatever else the stage tells.
OnProgress = Callable[[str, Mapping[str, Any]], None]

_MORE_BUDGET = "Raise teacher.budget, and run the same command again: nothing is paid twice"
_OTHER_PROMPT = (
    "See to the task's instruction and labels, or to the teacher: `curate label RECIPE --dry-run` shows "
    "what it is asked, and `curate log list` what it said"
)


def label_rows(
    examples: pd.DataFrame,
    recipe: Recipe,
    *,
    base: Path,
    store: Path,
    on_progress: OnProgress,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Label all rows; gold is taken away before and put back after.

    Args:
        examples: The rows.
        recipe: The recipe.
        base: The recipe's folder.
        store: Folder of the exchanges.
        on_progress: Receives the stage's events.

    Returns:
        The rows with the label columns, and what the run report says of the stage.

    Raises:
        CurateError: If no row was labelled.
        labelers.TeacherError: If a teacher cannot be asked.
    """
    stage = _Stage(examples, recipe, base, store, on_progress)
    section = recipe.teacher
    if isinstance(section, EnsembleSection):
        labelled = stage.ensemble(section)
    elif isinstance(section, CascadeSection):
        labelled = stage.cascade(section)
    else:
        labelled = stage.one(section, recipe.task.task())
    frame = labelled.to_pandas()
    frame.insert(list(examples.columns).index("gold"), "gold", examples["gold"].to_numpy())
    errors = frame["error"].dropna()
    if len(errors) == len(frame):
        spent = errors.str.startswith("budget:").all()
        raise CurateError(
            f"no row of {len(frame)} was labelled; the first error is: {errors.iloc[0]}. "
            + (_MORE_BUDGET if spent else _OTHER_PROMPT)
        )
    kinds = Counter(error.split(":", 1)[0] for error in errors)
    others = [error for error in errors if not error.startswith("budget:")]
    if others:
        rows = "1 row has" if len(others) == 1 else f"{len(others)} rows have"
        stage.notes.append(f"{rows} no label; the first error: {others[0]}")
    if kinds["budget"]:
        stage.notes.append(
            f"{kinds['budget']} rows were not asked, because the budget is spent: raise teacher.budget and "
            "run the same command again; nothing is paid twice"
        )
    return frame, {
        "rows": len(frame),
        "labelled": int(frame["label"].notna().sum()),
        "rationales": int(frame["rationale"].notna().sum()),
        "errors": dict(kinds),
        **stage.totals(),
        "teacher": str(frame["teacher"].iloc[0]),
        **stage.facts,
        "notes": stage.notes,
    }


class _Stage:
    """What the calls of :func:`labelers.label` in one stage share, and what they add up to."""

    def __init__(
        self,
        examples: pd.DataFrame,
        recipe: Recipe,
        base: Path,
        store: Path,
        on_progress: OnProgress,
    ) -> None:
        self.examples = examples
        self.recipe = recipe
        self.base = base
        self.store = store
        self.on_progress = on_progress
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        self._calls: list[labelers.Progress] = []

    def totals(self) -> dict[str, Any]:
        """What all calls took together."""
        calls = self._calls
        costs = [call.cost_usd for call in calls if call.cost_usd is not None]
        return {
            "asked": sum(call.asked for call in calls),
            "from_store": sum(call.reused for call in calls),
            "prompt_tokens": sum(call.prompt_tokens for call in calls),
            "completion_tokens": sum(call.completion_tokens for call in calls),
            "cost_usd": sum(costs) if costs else None,
            "unfinished": sum(call.unfinished for call in calls),
        }

    def one(
        self,
        section: AskedSection | RecordedSection,
        task: labelers.Task,
        places: list[int] | None = None,
    ) -> datasets.Dataset:
        """Label all rows, or those at ``places``, with one teacher."""
        examples = self.examples if places is None else self.examples.iloc[places]
        rows = examples.drop(columns=["gold"]).reset_index(drop=True)
        last: list[labelers.Progress] = []

        def tell(progress: labelers.Progress) -> None:
            last[:] = [progress]
            self.on_progress("label", vars(progress))

        if isinstance(section, RecordedSection):
            outputs = _recorded_outputs(examples, section, self.base)
            labelled = labelers.label_recorded(
                rows, task, outputs, teacher=section.name, on_progress=tell
            )
        else:
            labelled = self._asked(section, task, rows, tell)
        self._calls += last
        self.notes += [note for call in last for note in call.notes]
        if isinstance(section, AskedSection):
            labelled = self._calibrated(labelled, section, examples, task)
        return labelled

    def _asked(
        self,
        section: AskedSection,
        task: labelers.Task,
        rows: pd.DataFrame,
        tell: Callable[[labelers.Progress], None],
    ) -> datasets.Dataset:
        recipe = self.recipe
        teacher = build_teacher(
            section,
            base=self.base,
            store=self.store,
            on_asset=lambda event: self.on_progress("assets", event),
        )
        limits = labelers.Limits(**section.limits.model_dump())
        if (attempts := getattr(section, "attempts", None)) is not None:
            limits = dataclasses.replace(limits, attempts=attempts)
        budget = section.budget
        task, shown, note = choose_demonstrations(
            self.examples, section, task, teacher, recipe,
            base=self.base, store=self.store, limits=limits, on_progress=self.on_progress,
        )  # fmt: skip
        self.notes += [note] if note else []
        privacy = recipe.privacy
        return labelers.label(
            rows,
            task,
            teacher,
            mode=section.mode,
            probabilities=section.probabilities,
            samples=section.samples,
            temperature=section.temperature,
            vote=section.vote,
            rationales=section.rationales,
            calibration=(
                section.calibration if section.calibration in ("batch", "contextual") else None
            ),
            demonstrations=shown,
            redact=privacy.redaction().redact if privacy else None,
            keep_reasoning=section.keep_reasoning,
            store=self.store,
            limits=limits,
            budget=labelers.Budget(**budget.model_dump()) if budget else None,
            run=recipe.name,
            max_tokens=section.max_tokens,
            max_rationale_tokens=section.max_rationale_tokens,
            on_progress=tell,
        )

    def _calibrated(
        self,
        labelled: datasets.Dataset,
        section: AskedSection,
        examples: pd.DataFrame,
        task: labelers.Task,
    ) -> datasets.Dataset:
        """Fit temperature or isotonic calibration on train gold, and say what it changed on test."""
        method = section.calibration
        if method not in ("temperature", "isotonic"):
            return labelled
        calibrated, report = labelers.calibrate(
            labelled,
            [
                nearest_gold(g, said)
                for g, said in zip(examples["gold"], labelled["label"], strict=True)
            ],
            method=method,
            labels=task.labels,
            fit_on=(examples["split"] == "train").tolist(),
            seed=self.recipe.seed,
        )
        self.notes.append(f"calibration: {report}")
        self.facts.setdefault("calibration", []).append(
            {
                "method": report.method,
                "fitted": report.fitted,
                "judged": report.judged,
                "before": dataclasses.asdict(report.before),
                "after": dataclasses.asdict(report.after),
            }
        )
        return calibrated

    def ensemble(self, section: EnsembleSection) -> datasets.Dataset:
        """Label with every member, each asked in its own words, and merge."""
        copies = [
            self.one(member.teacher, member_task(self.recipe, member)) for member in section.members
        ]
        for copy in copies:
            self._tell_of_failures(copy)
        merged = labelers.merge(
            copies,
            weights=[member.weight for member in section.members],
            labels=self.recipe.task.task().labels,
            how=section.vote,
        )
        agreements = [a for a in merged["agreement"] if a is not None]
        mean = sum(agreements) / len(agreements) if agreements else 0.0
        split = sum(
            len({same_answer(v) for v in votes if v is not None}) > 1 for votes in merged["votes"]
        )
        self.facts["ensemble"] = {"agreement": mean, "disagreed": split}
        self.notes.append(
            f"{len(copies)} teachers: they disagree on {split} of {len(agreements)} rows; the mean agreement "
            f"is {mean:.3f}"
        )
        return merged

    def _tell_of_failures(self, labelled: datasets.Dataset) -> None:
        """Note the rows without a label of one of several teachers: another's label hides them."""
        errors = [error for error in labelled["error"] if error is not None]
        if errors:
            self.notes.append(
                f"{labelled['teacher'][0]} gave no label for {len(errors)} of {len(labelled)} rows; the "
                f"first error: {errors[0]}"
            )

    def cascade(self, section: CascadeSection) -> datasets.Dataset:
        """Label with the cheap teacher, and with the dear one where that is not sure."""
        task = self.recipe.task.task()
        cheap = self.one(section.cheap, task)
        asked = labelers.needs_dear(cheap, section.threshold)
        if not asked:
            self.notes.append(
                f"cascade: the cheap teacher was sure of every row (threshold {section.threshold})"
            )
            return cheap
        dear = self.one(section.dear, task, asked)
        self._tell_of_failures(dear)
        gold = [g if isinstance(g, str | list) else None for g in self.examples["gold"]]
        report = labelers.report_cascade(cheap, dear, asked, gold)
        self.facts["cascade"] = _plain(dataclasses.asdict(report))
        self.notes.append(_cascade_note(report))
        return labelers.merge_cascade(cheap, dear, asked)


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _cascade_note(report: labelers.CascadeReport) -> str:
    words = [f"cascade: the dear teacher was asked {report.asked} of {report.rows} rows"]
    if report.tokens_all_dear:
        share = report.tokens / report.tokens_all_dear
        words.append(
            f"both took {report.tokens:,} tokens, {share:.0%} of what the dear one would take for all rows"
        )
    if report.saved_usd is not None and report.all_dear_usd is not None:
        words.append(f"{report.saved_usd:.4f} of {report.all_dear_usd:.4f} US dollars saved")
    if report.cheap.value is not None and report.cascade.value is not None:
        words.append(
            f"right on {report.cascade.value:.1%} of {report.cascade.rows} rows with gold, the cheap teacher "
            f"alone on {report.cheap.value:.1%}"
        )
    return "; ".join(words)


def member_task(recipe: Recipe, member: MemberSection) -> labelers.Task:
    """The recipe's task in a member's own words."""
    task = recipe.task.task()
    changes: dict[str, Any] = {}
    if member.instruction is not None:
        changes["instruction"] = member.instruction
    if member.answer_name is not None:
        changes["answer_name"] = member.answer_name
    if member.demonstrations is not None:
        changes["demonstrations"] = tuple(d.demonstration() for d in member.demonstrations)
    return dataclasses.replace(task, **changes)


def _recorded_outputs(examples: pd.DataFrame, section: RecordedSection, base: Path) -> list[Any]:
    if section.column is not None:
        if section.column not in examples.columns:
            raise CurateError(
                f"teacher.column names {section.column!r}, which the data lacks; it has "
                f"{', '.join(examples.columns)}"
            )
        return list(examples[section.column])
    assert section.log is not None
    by_id, by_prompt = read_log(base / section.log)
    by_text = {normalised(prompt): response for prompt, response in by_prompt.items()}
    return [
        by_id.get(i, by_text.get(normalised(text)))
        for i, text in zip(examples["id"], examples["input"], strict=True)
    ]
