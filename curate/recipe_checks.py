"""What the sections of a recipe must agree on, found before anything costs money."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import filters
import labelers

if TYPE_CHECKING:
    from curate.recipe import Recipe

#: The path of a key, and what is wrong with it.
Finding = tuple[tuple[str, ...], str]


def find_disagreements(recipe: Recipe) -> list[Finding]:
    """Everything that is wrong with a recipe whose sections are each well-formed."""
    findings = [*_demonstrations(recipe), *_teacher_and_student(recipe), *_filters(recipe)]
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
        if recipe.teacher.engine == "recorded":
            continue
        if recipe.teacher.mode == "cot" and demonstration.rationale is None:
            yield (
                key,
                f"{'.'.join(key)} has no rationale, and teacher.mode is 'cot', which shows one in each: "
                "add it, or set teacher.mode to score",
            )


def _teacher_and_student(recipe: Recipe) -> Iterator[Finding]:
    task, teacher, student = recipe.task, recipe.teacher, recipe.student
    closed = task.labels is not None or task.choices is not None
    if teacher.engine != "recorded" and teacher.mode == "score":
        if not closed:
            yield (
                ("teacher", "mode"),
                "teacher.mode is 'score', which needs task.labels or task.choices, and the task has "
                "neither: set teacher.mode to cot",
            )
        if student.objective == "multitask" and not teacher.rationales:
            yield (
                ("teacher", "rationales"),
                "student.objective is 'multitask', which learns from rationales, and "
                "teacher.rationales is false: set it to true, or student.objective to label",
            )
    if "macro_f1" in task.goal and task.labels is None:
        yield (
            ("task", "goal", "macro_f1"),
            "task.goal.macro_f1 needs one label set, task.labels: set a goal for accuracy instead",
        )
    if recipe.data.gold is None:
        for key, asked in (("with_gold", student.with_gold), ("target", student.target == "gold")):
            if asked:
                yield (
                    ("student", key),
                    f"student.{key} is {'true' if key == 'with_gold' else repr('gold')}, and data.gold is "
                    "not set: name the human label's column there",
                )


def _columns(recipe: Recipe, task: labelers.Task) -> Iterator[Finding]:
    data, teacher = recipe.data, recipe.teacher
    read = task.columns
    if data.gold is not None and data.gold in read:
        key = "choices" if data.gold == task.choices else "template"
        yield (
            ("task", key),
            f"task.{key} reads the column {data.gold!r}, which is data.gold: the teacher and the student "
            "would be shown the answer; take it out",
        )
    column = teacher.column if teacher.engine == "recorded" else None
    if column is not None and column == data.gold:
        yield (
            ("teacher", "column"),
            f"teacher.column names {column!r}, which is data.gold: the human labels would pass for the "
            "teacher's; name the column of what the teacher said",
        )
    elif column is not None and column in read:
        yield (
            ("teacher", "column"),
            f"teacher.column names {column!r}, which task.template reads: the student would be shown the "
            "answer; take it out of the template",
        )
    named = [("data.gold", data.gold), ("data.group", data.group), ("data.id", data.id)]
    named += [("teacher.column", column), *(("task.template", name) for name in sorted(read))]
    for key, name in named:
        if name is not None and name in data.ignore:
            yield (
                ("data", "ignore"),
                f"data.ignore leaves out the column {name!r}, which {key} names: take it off the list",
            )


def _filters(recipe: Recipe) -> Iterator[Finding]:
    seen = set()
    for i, (name, arguments) in enumerate(recipe.filters):
        key = ("filters", str(i))
        if name in seen:
            yield key, f"filters.{i}: {name} is there already: each filter may be there once"
        seen.add(name)
        if recipe.embedder is None and needs_embeddings(filters.FILTERS[name](**arguments)):
            yield (
                key,
                f"filters.{i}: {name} needs embeddings, and embedder is null: name an embedder, or leave "
                "the filter out",
            )


def needs_embeddings(chosen: Any) -> bool:
    """Whether a filter cannot do without embeddings, or the clusters made from them."""
    return isinstance(chosen, filters.SemanticDuplicate) or "cluster" in getattr(chosen, "by", ())


def read_filter(entry: Any) -> tuple[str, dict[str, Any]]:
    """A filter's name and arguments out of one entry of a recipe's list.

    Raises:
        ValueError: If there is no such filter or argument, or a value is not allowed.
    """
    if isinstance(entry, str):
        name, arguments = entry, dict[str, Any]()
    elif isinstance(entry, Mapping) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        arguments = {} if arguments is None else arguments
    elif isinstance(entry, (tuple, list)) and len(entry) == 2:
        name, arguments = entry
    else:
        raise ValueError("must be a filter's name, or `name: {argument: value}`")
    if name not in filters.FILTERS:
        raise ValueError(f"no filter has this name{nearest(str(name), filters.FILTERS)}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {name} are {arguments!r}: write {{argument: value}}")
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    known = [field.name for field in dataclasses.fields(filters.FILTERS[name])]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}{nearest(str(argument), known)}")
    try:
        filters.FILTERS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from error
    return str(name), dict(arguments)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about a wrong word: the nearest right one, or else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(names)}"
