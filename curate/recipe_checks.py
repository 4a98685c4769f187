"""What the sections of a recipe must agree on, found before anything costs money."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import labelers
from curate.filter_findings import Finding, find_in_filters, nearest
from curate.recipe_metrics import find_metric_mistakes
from curate.recipe_teachers import CascadeSection

__all__ = ["Finding", "answer_rule", "find_disagreements", "nearest", "read_answer_rule"]

if TYPE_CHECKING:
    from curate.recipe import Recipe, StudentSection
    from curate.recipe_teachers import AskedSection


def find_disagreements(recipe: Recipe) -> list[Finding]:
    """Everything that is wrong with a recipe whose sections are each well-formed."""
    findings = [
        *_demonstrations(recipe),
        *_teacher_and_student(recipe),
        *find_metric_mistakes(recipe),
        *_generation(recipe),
        *_privacy(recipe),
        *find_in_filters(recipe),
        *_scores(recipe),
    ]
    task = recipe.task
    try:
        # Without the demonstrations, each of which has been looked at with its line.
        bare = labelers.Task(
            instruction=task.instruction,
            template=task.template,
            labels=None if task.labels is None else tuple(task.labels),
            choices=task.choices,
            answer_form=task.answer_form,
        )
        findings += _columns(recipe, bare)
        if not findings:
            task.task()
    except labelers.TaskError as error:
        findings.append((("task",), str(error)))
    return findings


def _demonstrations(recipe: Recipe) -> Iterator[Finding]:
    for i, demonstration in enumerate(recipe.task.demonstrations):
        key = ("task", "demonstrations", str(i))
        if recipe.task.choices and not demonstration.choices:
            yield (
                key,
                f"{'.'.join(key)} has no choices, and the task's options differ from row to row: add "
                "`choices: [...]` to it",
            )
        allowed = demonstration.choices if recipe.task.choices else recipe.task.labels
        if allowed and demonstration.label not in allowed:
            yield (
                (*key, "label"),
                f"{'.'.join(key)}.label is {demonstration.label!r}, which is not one of {allowed}: "
                "correct the label or add it to the set",
            )
        if any(t.mode == "cot" for t in recipe.teacher.asked()) and demonstration.rationale is None:
            yield (
                key,
                f"{'.'.join(key)} has no rationale, and teacher.mode is 'cot', which shows one in each: "
                "add it, or set teacher.mode to score",
            )


def _teacher_and_student(recipe: Recipe) -> Iterator[Finding]:
    task, student = recipe.task, recipe.student
    closed = task.labels is not None or task.choices is not None
    if isinstance(recipe.teacher, CascadeSection):
        cheap = recipe.teacher.cheap
        if cheap.mode == "cot" and cheap.samples == 1:
            yield (
                ("teacher", "cheap", "mode"),
                "teacher.cheap.mode is 'cot' with one sample, which gives no confidence: every row would go "
                "to the dear teacher as well. Set mode score, or draw several samples",
            )
    teachers = list(recipe.teacher.asked())
    for teacher in teachers:
        yield from _asked(recipe, teacher, closed)
    if closed:
        yield from _vote(recipe)
    yield from _objective(student, teachers, closed)
    if recipe.data.gold is None:
        for key, asked in (("with_gold", student.with_gold), ("target", student.target == "gold")):
            if asked:
                yield (
                    ("student", key),
                    f"student.{key} is {'true' if key == 'with_gold' else repr('gold')}, and data.gold is "
                    "not set: name the human label's column there",
                )


def _objective(
    student: StudentSection, teachers: Sequence[AskedSection], closed: bool
) -> Iterator[Finding]:
    """What the student's objective needs of the teacher and of its own section."""
    name, white_box = student.objective, student.white_box
    learns_rationales = ("multitask", "rationale_then_label", "rationale_as_input")
    if (
        name in learns_rationales
        and teachers
        and not any(t.mode == "cot" or t.rationales for t in teachers)
    ):
        yield (
            ("teacher", "rationales"),
            f"student.objective is {name!r}, which learns from rationales, and "
            "teacher.rationales is false: set it to true, or student.objective to label",
        )
    if name == "rationale_as_input" and teachers and not any(t.mode == "cot" for t in teachers):
        yield (
            ("student", "objective"),
            "student.objective is 'rationale_as_input', which reads rationales of test rows too, and in "
            "mode score the teacher writes none for them: set teacher.mode to cot",
        )
    if name == "soft_label" and not closed:
        yield (
            ("student", "objective"),
            "student.objective is 'soft_label', which needs task.labels or task.choices, and the task has "
            "neither: set it to label",
        )
    if name == "white_box" and white_box is None:
        yield (
            ("student", "objective"),
            "student.objective is 'white_box', and student.white_box names no teacher: set "
            "student.white_box.teacher to the folder or Hub id of a larger T5",
        )
    if white_box and white_box.on_policy and (white_box.cached or white_box.train_teacher):
        other = "cached" if white_box.cached else "train_teacher"
        yield (
            ("student", "white_box", "on_policy"),
            f"student.white_box.on_policy is {white_box.on_policy}, where the teacher judges what the "
            f"student has just written, and {other} is true: set one of them to its default",
        )
    if white_box and white_box.cached and white_box.train_teacher:
        yield (
            ("student", "white_box", "cached"),
            "student.white_box.cached and train_teacher are both true, and what changes cannot be kept: "
            "set one of them to false",
        )


def _asked(recipe: Recipe, teacher: AskedSection, closed: bool) -> Iterator[Finding]:
    """What one teacher's settings say against one another or against the task."""
    score = teacher.mode == "score"
    if score and not closed:
        yield (
            ("teacher", "mode"),
            "teacher.mode is 'score', which needs task.labels or task.choices, and the task has "
            "neither: set teacher.mode to cot",
        )
    if score and (teacher.samples > 1) != (teacher.probabilities == "votes"):
        yield (
            ("teacher", "samples"),
            f"teacher.samples is {teacher.samples} and teacher.probabilities is {teacher.probabilities!r}: "
            "in mode score several samples are drawn by `probabilities: votes`, which needs at least 2",
        )
    if teacher.samples > 1 and teacher.temperature == 0:
        yield (
            ("teacher", "temperature"),
            f"teacher.temperature is 0 and teacher.samples is {teacher.samples}: the same answer would be "
            "paid for so many times; raise the temperature (0.7), or draw one",
        )
    if teacher.calibration in ("temperature", "isotonic") and recipe.data.gold is None:
        yield (
            ("teacher", "calibration"),
            f"teacher.calibration is {teacher.calibration!r}, which is fitted on human labels, and data.gold "
            "is not set: name their column there, or use batch",
        )
    if teacher.budget is not None and teacher.budget.usd is not None and not _has_prices(teacher):
        yield (
            ("teacher", "budget", "usd"),
            f"teacher.budget.usd is {teacher.budget.usd}, and the teacher has no prices: give teacher.prices "
            "in US dollars per million tokens, or a budget in tokens",
        )
    shown = teacher.demonstrations
    if shown.written and recipe.data.gold is None:
        yield (
            ("teacher", "demonstrations", "written"),
            "teacher.demonstrations.written has the teacher explain human labels, and data.gold is not set: "
            "name their column there",
        )
    if shown.choose == "similar" and recipe.embedder is None:
        yield (
            ("teacher", "demonstrations", "choose"),
            "teacher.demonstrations.choose is 'similar', which needs embeddings, and embedder is null: name "
            "an embedder, or choose random",
        )
    most = len(recipe.task.demonstrations) + shown.written
    if shown.choose != "fixed" and most < shown.shots:
        yield (
            ("teacher", "demonstrations", "shots"),
            f"teacher.demonstrations.shots is {shown.shots}, and there are {most} demonstrations to choose "
            "from: give more under task.demonstrations, or show fewer",
        )


def _vote(recipe: Recipe) -> Iterator[Finding]:
    """A vote by probability needs every member's, and would fail when all are paid for."""
    from curate.recipe_teachers import EnsembleSection, RecordedSection

    ensemble = recipe.teacher
    if not isinstance(ensemble, EnsembleSection) or ensemble.vote != "probability":
        return
    for i, member in enumerate(ensemble.members):
        teacher = member.teacher
        if isinstance(teacher, RecordedSection):
            why = "is recorded"
        elif teacher.mode == "cot" and teacher.samples == 1:
            why = "says one chain of thought (mode cot, samples 1)"
        else:
            continue
        yield (
            ("teacher", "members", str(i)),
            f"teacher.members.{i} {why}, which has no probabilities, and teacher.vote is 'probability', "
            "which needs them of every member: set teacher.vote to majority",
        )


def _has_prices(teacher: AskedSection) -> bool:
    from curate.recipe_teachers import OpenAISection

    if teacher.prices is not None:
        return True
    # OpenAI's own models have prices in a built-in table.
    return (
        isinstance(teacher, OpenAISection)
        and teacher.base_url is None
        and labelers.known_prices(teacher.model) is not None
    )


def _columns(recipe: Recipe, task: labelers.Task) -> Iterator[Finding]:
    data = recipe.data
    read = task.columns
    if data.gold is not None and data.gold in read:
        key = "choices" if data.gold == task.choices else "template"
        yield (
            ("task", key),
            f"task.{key} reads the column {data.gold!r}, which is data.gold: the teacher and the student "
            "would be shown the answer; take it out",
        )
    yield from _recorded(recipe, read)
    named = [("data.gold", data.gold), ("data.group", data.group), ("data.id", data.id)]
    named += [("teacher.column", column) for column in recipe.teacher.columns()]
    named += [("task.template", name) for name in sorted(read)]
    for key, name in named:
        if name is not None and name in data.ignore:
            yield (
                ("data", "ignore"),
                f"data.ignore leaves out the column {name!r}, which {key} names: take it off the list",
            )


def _recorded(recipe: Recipe, read: Collection[str]) -> Iterator[Finding]:
    for column in recipe.teacher.columns():
        if column == recipe.data.gold:
            yield (
                ("teacher", "column"),
                f"teacher.column names {column!r}, which is data.gold: the human labels would pass for the "
                "teacher's; name the column of what the teacher said",
            )
        elif column in read:
            yield (
                ("teacher", "column"),
                f"teacher.column names {column!r}, which task.template reads: the student would be shown the "
                "answer; take it out of the template",
            )


def _generation(recipe: Recipe) -> Iterator[Finding]:
    """What is to be generated must be a label, and there must be somebody who can write it."""
    wanted = recipe.generate
    if wanted is None:
        return
    labels = recipe.task.labels
    if labels is None:
        yield (
            ("generate",),
            "generate writes rows for a label, and the task has no task.labels: leave it out",
        )
        return
    for label in wanted.labels:
        if label not in labels:
            yield (
                ("generate", "labels", label),
                f"generate.labels names {label!r}{nearest(label, labels)}",
            )
    if wanted.teacher is None and len(list(recipe.teacher.asked())) != 1:
        yield (
            ("generate", "teacher"),
            f"generate needs one teacher who writes, and teacher.engine is {recipe.teacher.engine!r}: name "
            "one under generate.teacher",
        )
    if wanted.per_cluster and recipe.embedder is None:
        yield (
            ("generate", "per_cluster"),
            "generate.per_cluster needs embeddings, and embedder is null: name an embedder",
        )


def _privacy(recipe: Recipe) -> Iterator[Finding]:
    if recipe.privacy is not None:
        try:
            recipe.privacy.redaction()
        except labelers.PrivacyError as error:
            yield ("privacy",), f"privacy: {error}"


def read_answer_rule(value: Any) -> Any:
    """Check how the recipe says an answer is read: ``number``, ``equation``, ``{regex: …}``, ``{json: …}``.

    Raises:
        ValueError: If it is none of these.
    """
    if value is not None:
        answer_rule(value)
    return value


def answer_rule(value: Any) -> labelers.AnswerRule | None:
    """The rule that a recipe's ``task.answer`` names.

    Raises:
        ValueError: If there is none of this form, or its pattern or field cannot be used.
    """
    if value is None:
        return None
    if value in ("number", "equation"):
        return labelers.Number() if value == "number" else labelers.Equation()
    if isinstance(value, Mapping) and len(value) == 1:
        (form, said), *_ = value.items()
        if form in ("regex", "json") and isinstance(said, str):
            return (
                labelers.Pattern(pattern=said)
                if form == "regex"
                else labelers.JsonField(field=said)
            )
    raise ValueError("must be number, equation, {regex: pattern} or {json: field}")


def _scores(recipe: Recipe) -> Iterator[Finding]:
    """Scores that need a label set, or somebody to ask."""
    section, task = recipe.scores, recipe.task
    if section is None:
        return
    if section.out_of_fold is not None and task.labels is None and task.choices is None:
        yield (
            ("scores", "out_of_fold"),
            "scores.out_of_fold needs a label set, and the task has neither labels nor choices: leave it out",
        )
    if (
        section.judge is not None
        and section.judge.teacher is None
        and not [*recipe.teacher.asked()]
    ):
        yield (
            ("scores", "judge", "teacher"),
            f"scores.judge needs somebody to ask, and teacher.engine is {recipe.teacher.engine!r}: name one "
            "under scores.judge.teacher",
        )
    judge = section.judge.teacher if section.judge is not None else None
    if (
        judge is not None
        and judge.budget is not None
        and judge.budget.usd
        and not _has_prices(judge)
    ):
        yield (
            ("scores", "judge", "teacher", "budget", "usd"),
            f"scores.judge.teacher.budget.usd is {judge.budget.usd}, and the judge has no prices: give its "
            "prices in US dollars per million tokens, or a budget in tokens",
        )
    for name in section.perplexity.fields if section.perplexity is not None else ():
        if name == "gold":
            yield (
                ("scores", "perplexity", "fields"),
                "scores.perplexity.fields names 'gold', which filters never see: name input, label or "
                "rationale",
            )
