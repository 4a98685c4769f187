"""Properties of reading, for any text, any label set and every rule."""

from __future__ import annotations

import ast
import json
import string
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from labelers import Task
from labelers.answer_rules import AnswerRule, Equation, JsonField, Number, Pattern
from labelers.answers import read_answer, read_rationale, split_thinking
from labelers.equations import equation_value
from labelers.prompts import ANSWER_MARKER, answer_text
from labelers.tasks import TaskError, plain

LABELS = ("positive", "negative", "very positive")
STARS = ("1", "2", "10")
OPTIONS = ("bank", "river bank", "book store", "mall", "mall")

CLOSED = Task(instruction="Judge.", template="Review: {{ text }}", labels=LABELS, stop=("###",))
QUIZ = Task(instruction="Answer.", choices="choices")
FREE = Task(instruction="Translate.")
FREE_RULES: tuple[AnswerRule, ...] = (
    Number(),
    Equation(),
    Pattern(pattern=r"answer is (\w+)"),
    Pattern(pattern=r"(?i)(\w+)\W+(?P<answer>[-\w ]*)"),
    JsonField(field="label", rationale="why"),
    JsonField(field="a.0.b"),
)
TASKS: list[tuple[Task, tuple[str, ...] | None]] = [
    (CLOSED, LABELS),
    (replace(CLOSED, on_two="first"), LABELS),
    (replace(CLOSED, answer_form="letter"), LABELS),
    (QUIZ, OPTIONS),
    (replace(QUIZ, on_two="first"), OPTIONS),
    (replace(QUIZ, answer_form="text"), OPTIONS),
    (FREE, None),
    (Task(instruction="Count.", labels=STARS, answer=Number()), STARS),
]
TASKS += [(replace(FREE, answer=rule), None) for rule in FREE_RULES]
TASKS += [(replace(FREE, answer=rule, on_two="first"), None) for rule in FREE_RULES]
TASKS += [(replace(CLOSED, answer=rule), LABELS) for rule in FREE_RULES[2:]]
TASKS += [(replace(QUIZ, answer=rule), OPTIONS) for rule in FREE_RULES[2:]]

PIECES = st.sampled_from(
    [
        "So the answer is ", "Label:", "answer: ", "**Answer**: ", "\\boxed{", "}", "#### ", "<answer>",
        "</answer>", "<think>", "</think>", "###", "\n\nQ:", "\n\nReview:", "\n", ". ", "(a)", "(b) ",
        "B.", "**C**", "[d]", "(f)", "either ", " or ", " and ", "not ", "because ", "No, ", "Wait, ",
        "positive", "Negative", "very ", "bank", "river bank", "mall", "the ", "1", "2", "10", "1,200",
        "-3.5", "$", "%", "=", " + ", "*", "/", "(", ")", "{", '{"label": "', '"positive"', '"}', "[",
        '{"a": [{"b": 1}]}', '"why": ', "\u2212", "\u017f", "\u212a", "\u0130", "\uff15", "\x00",
        "\ud800", "\ue000", "__import__('os')",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=14).map("".join) | st.text()


@given(text=TEXTS, cut_off=st.booleans(), which=st.sampled_from(TASKS))
def test_reading_never_raises_and_never_invents(
    text: str, cut_off: bool, which: tuple[Task, tuple[str, ...] | None]
) -> None:
    task, choices = which
    reading = read_answer(text, task, choices, cut_off=cut_off)
    assert (reading.label is None) == bool(reading.problem)
    for said in (reading.label, reading.rationale, reading.problem, reading.reasoning):
        assert said is None or said.encode()
    if reading.label is None:
        return
    if choices is not None:
        assert reading.label in choices
        letter = string.ascii_lowercase[choices.index(reading.label)]
        assert (
            plain(reading.label) in text.casefold()
            or (task.form == "letter" and letter in text.lower())
            or isinstance(task.answer, Number)
        )
    if isinstance(task.answer, Equation):
        assert equation_value(reading.label) is not None
    if isinstance(task.answer, Number):
        assert reading.label in (choices or ()) or float(reading.label) == equation_value(
            reading.label
        )


@given(text=TEXTS)
def test_thinking_is_split_without_loss_of_what_is_no_tag(text: str) -> None:
    thought, answer = split_thinking(text)
    read_rationale(text)
    if thought is None and "think>" not in text:
        assert answer == text
    assert "<think>" not in answer
    # What stays is in the text, in its order.
    assert len(answer) + len(thought or "") <= len(text)


@given(text=TEXTS)
def test_nothing_is_run_as_code(text: str) -> None:
    for code in ("__import__('os').getcwd()", "open('x')", "exit()", "(lambda: 1)()"):
        reading = read_answer(
            f"{text} So the answer is {code}", replace(FREE, answer=Equation()), None
        )
        if reading.label is not None:
            # It was read from elsewhere in the text, and is arithmetic to Python's own parser too.
            assert not any(
                isinstance(node, (ast.Call, ast.Name, ast.Attribute))
                for node in ast.walk(ast.parse(reading.label, mode="eval"))
            )


# ------------------------------------------------------------------------- what is asked is read back

ONE_LINE = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12
)
WORDS = st.sampled_from(
    ["not", "no", "yes", "the", "a", "b", "A.", "(b)", "or", "either", "answer", "the answer is no",
     "So the answer is yes", "c++", "c", "1", "-1", "1.5", "1,000", "because", "No.", "x-y",
     "I", "İ", "ß", "SS"]
)  # fmt: skip
NAMES = st.lists(WORDS | ONE_LINE | st.lists(WORDS, min_size=2, max_size=3).map(" ".join), min_size=2,
                 max_size=6)  # fmt: skip


@given(
    names=NAMES,
    form=st.sampled_from(["text", "letter"]),
    rationale=st.sampled_from(["", "It shines. "]),
)
def test_a_label_rendered_as_it_is_asked_for_is_read_back(
    names: list[str], form: str, rationale: str
) -> None:
    try:
        task = Task(instruction="Judge.", labels=tuple(names), answer_form=form)  # type: ignore[arg-type]
    except TaskError:
        return
    for label in names:
        written = answer_text(task, label, task.labels)
        assert read_answer(written, task, task.labels).label == label
        shown = f"{rationale}{ANSWER_MARKER} {written}."
        assert read_answer(shown, task, task.labels).label == label


@given(options=st.lists(ONE_LINE.filter(str.strip), min_size=2, max_size=26))
def test_an_option_of_any_text_is_read_back_by_its_letter(options: list[str]) -> None:
    for option in options:
        written = answer_text(QUIZ, option, options)
        assert read_answer(written, QUIZ, options).label == option
        shown = f"It shines. {ANSWER_MARKER} {written}."
        assert read_answer(shown, QUIZ, options).label == option


@given(text=st.text(max_size=30), label=st.sampled_from(LABELS))
def test_a_json_answer_is_read_back_whatever_stands_around_it(text: str, label: str) -> None:
    task = replace(CLOSED, answer=JsonField(field="label", rationale="why"))
    around = "".join(c for c in text if c not in "{<#\n\ud800" and c.isprintable())
    said = json.dumps({"why": f"It shines {text}", "label": label})
    reading = read_answer(f"{around} ```json\n{said}\n``` {around}", task, LABELS)
    assert "###" in text or "<" in text or reading.label == label
