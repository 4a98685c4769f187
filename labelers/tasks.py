"""What the teacher is asked: instruction, template, label set and demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from labelers.answer_rules import AnswerRule
from labelers.rule_checks import rule_problem

AnswerForm = Literal["text", "letter"]
OnTwo = Literal["unread", "first"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
EDGES = " \t\r\n\"'`*_.,;:!()[]"


class TaskError(ValueError):
    """A task that cannot be asked as it is written, or a row that its template cannot render."""


def plain(text: str) -> str:
    """What labels and answers are compared by: no case, no punctuation at the edges."""
    return text.strip(EDGES).casefold()


def _letters(choices: Sequence[str]) -> str:
    """Render options one to a line, as in CommonsenseQA: ``(a) bank`` and so on."""
    return "\n".join(
        f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
    )


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("a value that it prints is null; write {{ column or 'a default' }}")
    return value


def _environment() -> ImmutableSandboxedEnvironment:
    # Templates come from recipes that people share, so they run sandboxed: no attribute with an
    # underscore, no mutation, and a name that is not a column is an error instead of an empty text.
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, finalize=_not_null
    )
    environment.filters["letters"] = _letters
    return environment


_ENVIRONMENT = _environment()


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """One worked example shown to the teacher (few-shot).

    ``input`` is written as the template would render it. ``choices`` is needed only where the
    task's options differ from row to row. ``written`` says that the rationale is the teacher's, who was
    shown the right answer (:func:`labelers.write_demonstrations`).
    """

    input: str
    label: str
    rationale: str | None = None
    choices: tuple[str, ...] | None = None
    written: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labeling task.

    Args:
        instruction: What to decide, in one or two sentences.
        template: Jinja2 template over a row's columns; its result is the ``input`` that teacher
            and student both read. The filter ``letters`` renders options as ``(a) ...`` lines.
        labels: The closed label set, or None.
        choices: Name of the column that holds each row's own options, or None. With neither
            ``labels`` nor ``choices`` the answer is free text.
        demonstrations: Worked examples, in the order in which they are shown.
        answer_name: What the answer is called in prompts ("Sentiment", "Topic"): a name that fits helps
            small teachers.
        answer_form: Whether the teacher names a label by its text or by a letter. By default the
            text for a label set and the letter for per-row choices.
        answer: How an answer is read that is more than a label's name: ``Number()``, ``Equation()``,
            ``Pattern(...)`` or ``JsonField(...)``. None reads labels by name, and free text as it is.
        stop: Texts at which an answer ends, in addition to those at which teachers are known to run
            on into another example.
        on_two: What an answer is that names two labels beside each other ("(a) or (b)"): ``unread``,
            or the ``first`` of them.

    Raises:
        TaskError: If the template does not parse, both ``labels`` and ``choices`` are given, a
            label is empty or listed twice, a demonstration's label is not allowed, or ``answer``,
            ``stop`` or ``on_two`` cannot be read by.
    """

    instruction: str
    template: str = "{{ text }}"
    labels: tuple[str, ...] | None = None
    choices: str | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    answer_name: str = "Label"
    answer_form: AnswerForm | None = None
    answer: AnswerRule | None = None
    stop: tuple[str, ...] = ()
    on_two: OnTwo = "unread"

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise TaskError("task.instruction is empty: say in a sentence what is to be decided")
        if self.labels is not None and self.choices is not None:
            raise TaskError(
                f"task has both labels {list(self.labels)} and choices {self.choices!r}: keep "
                "`labels` for one fixed set, `choices` for a column of options per row"
            )
        if isinstance(self.labels, str):
            # It would be taken for the set of its letters.
            raise TaskError(
                f"task.labels is {self.labels!r}: give a tuple of texts, one for each label"
            )
        if self.labels is not None:
            _check_labels(self.labels, self.form)
        try:
            _ = self._compiled_template
        except jinja2.TemplateSyntaxError as error:
            raise TaskError(
                f"task.template {self.template!r} does not parse: {error.message}; columns are "
                "written {{ name }}"
            ) from error
        self._check_reading()
        for number, demonstration in enumerate(self.demonstrations, 1):
            self._check_demonstration(number, demonstration)

    def _check_reading(self) -> None:
        if self.answer is not None:
            problem = rule_problem(
                self.answer,
                self.labels,
                per_row=self.choices is not None,
                letters=self.form == "letter",
            )
            if problem:
                raise TaskError(f"task.answer: {problem}")
        if self.on_two not in get_args(OnTwo):
            raise TaskError(f"task.on_two is {self.on_two!r}: `unread` and `first` are allowed")
        stops: object = self.stop
        if not isinstance(stops, tuple):
            raise TaskError(f'task.stop is {stops!r}: a tuple of texts is needed, ("###",)')
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise TaskError(f"task.stop holds {stop!r}: every stop is a text that is not empty")
            for label in self.labels or ():
                if stop in label:
                    raise TaskError(
                        f"task.stop holds {stop!r}, which is part of the label {label!r}: an answer with "
                        "that label would always be cut; choose another stop"
                    )

    def _check_demonstration(self, number: int, demonstration: Demonstration) -> None:
        if self.choices is not None and not demonstration.choices:
            raise TaskError(
                f"demonstration {number} has no choices, but the task's options differ per row: "
                "add `choices: [...]` to it"
            )
        allowed = self.labels if self.labels is not None else demonstration.choices
        if allowed is not None and demonstration.label not in allowed:
            raise TaskError(
                f"demonstration {number} has label {demonstration.label!r}, which is not one of "
                f"{list(allowed)}: correct the label or add it to the set"
            )

    @cached_property
    def _compiled_template(self) -> jinja2.Template:
        return _ENVIRONMENT.from_string(self.template)

    @cached_property
    def columns(self) -> frozenset[str]:
        """Names of the columns that the template reads."""
        names = meta.find_undeclared_variables(_ENVIRONMENT.parse(self.template))
        return frozenset(names) | ({self.choices} if self.choices else frozenset())

    @property
    def closed(self) -> bool:
        """Whether answers come from a label set or from per-row choices."""
        return self.labels is not None or self.choices is not None

    @property
    def form(self) -> AnswerForm:
        """How the teacher names a label: by its text or by its letter."""
        return self.answer_form or ("letter" if self.choices is not None else "text")

    def render(self, row: Mapping[str, Any]) -> str:
        """Render one row's ``input``.

        Raises:
            TaskError: If the template names a column that the row lacks, or fails on its value.
        """
        try:
            return self._compiled_template.render(row)
        except jinja2.UndefinedError as error:
            raise TaskError(
                f"task.template names a column that the data lacks: {error.message}; the columns "
                f"are {sorted(row)}"
            ) from error
        except (
            jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError
        ) as error:  # fmt: skip
            raise TaskError(f"task.template failed: {error}") from error


def _check_labels(labels: tuple[str, ...], form: AnswerForm) -> None:
    if len(labels) < 2:
        raise TaskError(f"task.labels is {list(labels)}: a label set needs at least two labels")
    if form == "letter" and len(labels) > len(LETTERS):
        raise TaskError(
            f"task.labels holds {len(labels)} labels, and there are {len(LETTERS)} letters: leave "
            "answer_form at `text`"
        )
    seen: dict[str, str] = {}
    for label in labels:
        if not label.strip():
            raise TaskError("task.labels holds an empty label: give every label a name")
        if len(label.strip().splitlines()) > 1:
            raise TaskError(
                f"task.labels holds {label!r}, which has a line break: write it on one line"
            )
        read = plain(label)
        if not read:
            raise TaskError(f"task.labels holds {label!r}, nothing but punctuation: use a word")
        # Case and punctuation at the edges are no part of an answer: labels must differ in more.
        twin = seen.setdefault(read, label)
        if twin is not label:
            raise TaskError(
                f"task.labels holds {twin!r} and {label!r}, which read as the same label"
            )
