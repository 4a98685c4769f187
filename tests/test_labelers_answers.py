"""Reading: by rule, never a crash, never a guess."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers import Task
from labelers.answers import read_answer, read_rationale

TONE = Task(
    instruction="Judge the tone.", template="Snippet: {{ text }}", labels=("positive", "negative")
)
DEGREES = Task(instruction="Judge the tone.", labels=("very", "very positive", "negative"))
STARS = Task(instruction="Count the stars.", labels=("1", "2", "10"))
QUIZ = Task(instruction="Answer.", template="{{ question }}", choices="choices")
OPTIONS = ("bank", "library", "book store", "mall", "new york")
FREE = Task(instruction="Translate into French.")

RECORDED = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "label", "rationale"),
    [
        ("positive", "positive", None),
        (" **Negative**.", "negative", None),
        ("negative\nThe strap broke.", "negative", None),
        ("The strap broke. So the answer is negative.", "negative", "The strap broke."),
        ("It shines.\n\nTherefore, the final answer is: **Positive**", "positive", "It shines."),
        ("Label: negative", "negative", None),
        ("Bright. The answer is positive because it shines.", "positive", "Bright."),
        ("Bright. The answer is positive, not negative.", "positive", "Bright."),
        ("Bright. The answer is positive. I hope this answer is helpful.", "positive", "Bright."),
        ("The closest label is negative. So the answer is positive.", "positive", None),
    ],
)
def test_a_label_is_read_by_its_text(text: str, label: str, rationale: str | None) -> None:
    reading = read_answer(text, TONE, TONE.labels)
    assert (reading.label, reading.problem) == (label, None)
    if rationale is not None:
        assert reading.rationale == rationale


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Money is kept there. So the answer is (a) bank.", "bank"),
        ("So the answer is (B).", "library"),
        ("The answer is c) book store", "book store"),
        ("The answer is D: mall", "mall"),
        ("The answer is e", "new york"),
        ("The answer is b\nPeople read there.", "library"),
        ("(d)", "mall"),
        ("(d) mall", "mall"),
        ("D. mall", "mall"),
        # The letter decides where the text is misspelt or paraphrased.
        ("So the answer is (c) a bookstore.", "book store"),
        ("So the answer is book store.", "book store"),
        ("So the answer is (e) new york, not (a).", "new york"),
    ],
)
def test_an_option_is_read_by_its_letter_first(text: str, label: str) -> None:
    assert read_answer(text, QUIZ, OPTIONS).label == label


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (TONE, ""),
        (TONE, " \n "),
        (TONE, "The strap broke on day two."),
        (TONE, "So the answer is neutral."),
        (TONE, "So the answer is positively glowing."),
        (TONE, "So the answer is either positive or negative."),
        (TONE, "So the answer is positive or negative."),
        (TONE, "So the answer is positive/negative."),
        (TONE, "So the answer is positive, negative."),
        (TONE, "So the answer is negative to positive."),
        (TONE, "At first the answer is positive. In truth the answer is not positive."),
        (TONE, "positive or negative"),
        (TONE, "I would say positive, all in all."),
        (STARS, "So the answer is 1.5."),
        (STARS, "So the answer is 12."),
        (STARS, "So the answer is 1-2."),
        (QUIZ, "So the answer is either (a) bank or (b) library."),
        (QUIZ, "So the answer is (a) bank or (b) library."),
        (QUIZ, "So the answer is (a) bank, (b) library, or (d) mall."),
        (QUIZ, "So the answer is (a) or (b)."),
        (QUIZ, "So the answer is (a) mall."),
        (QUIZ, "So the answer is bank or mall."),
        (QUIZ, "So the answer is (a) bank and mall."),
        (QUIZ, "So the answer is (f) park."),
        (QUIZ, "At first the answer is (a) bank. So the answer is (f) park."),
        (QUIZ, "A: People read there, (b) I think."),
        (QUIZ, "A. The place where people read."),
        (QUIZ, "(a) is wrong."),
        (QUIZ, "So the answer is (ſ)."),
        (QUIZ, "So the answer is İ."),
    ],
)
def test_what_names_no_label_or_two_is_unread_and_quoted(task: Task, text: str) -> None:
    reading = read_answer(text, task, task.labels or OPTIONS)
    assert reading.label is None
    assert reading.problem is not None
    if text.strip():
        assert repr(" ".join(text.split())) in reading.problem


def test_the_longest_label_is_read_and_a_prefix_of_it_is_not() -> None:
    assert read_answer("The answer is very positive.", DEGREES, DEGREES.labels).label == (
        "very positive"
    )
    assert read_answer("The answer is very.", DEGREES, DEGREES.labels).label == "very"
    assert read_answer("The answer is 10.", STARS, STARS.labels).label == "10"
    assert read_answer("The answer is 1.", STARS, STARS.labels).label == "1"


@pytest.mark.parametrize(
    "begun", ["Q: Where do cars park?", "Snippet: It is dull.", "\n\nInput: x"]
)
def test_what_follows_when_the_teacher_runs_on_into_another_example_is_cut(begun: str) -> None:
    text = f"It shines. So the answer is positive.\n\n{begun}\nSo the answer is negative."
    reading = read_answer(text, TONE, TONE.labels)
    assert (reading.label, reading.rationale) == ("positive", "It shines.")


def test_an_answer_cut_off_inside_its_label_is_not_read() -> None:
    cut = "The buyer is glad. So the answer is very"
    assert read_answer(cut, DEGREES, DEGREES.labels, cut_off=True).label is None
    assert read_answer(cut + ".", DEGREES, DEGREES.labels, cut_off=True).label == "very"
    assert read_answer("So the answer is (c) boo", QUIZ, OPTIONS, cut_off=True).label == (
        "book store"
    )


def test_a_long_answer_is_quoted_from_both_ends() -> None:
    text = "First the buyer opens the box. " * 30 + "So the answer is either positive or negative."
    problem = read_answer(text, TONE, TONE.labels).problem or ""
    assert "First the buyer opens" in problem
    assert "So the answer is either positive or negative." in problem
    assert len(problem) < 600


def test_free_text_is_what_follows_the_marker_or_all_of_it() -> None:
    assert read_answer(" le chien \n", FREE, None).label == "le chien"
    reading = read_answer("A dog is a chien. So the answer is le chien.", FREE, None)
    assert (reading.label, reading.rationale) == ("le chien", "A dog is a chien.")
    empty = read_answer("A dog. So the answer is", FREE, None)
    assert empty.label is None
    assert "nothing follows" in (empty.problem or "")


def test_a_rationale_is_one_paragraph_on_one_line() -> None:
    text = " The strap broke,\nwhich is a complaint.\n\nReview: The next one"
    assert read_rationale(text).rationale == "The strap broke, which is a complaint."
    assert read_rationale(" \n\n ").problem == "the rationale is empty"


PIECES = st.sampled_from(
    ["So the answer is ", "Label:", "(a)", "(b) ", "B.", "positive", "Negative", "very ", " or ",
     "either ", "not ", "\n\nQ:", "\n", ". ", "bank", "book store", "(", "\u017f", "\u212a", "\u0130", "\x00"]
)  # fmt: skip
ANSWERS = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join) | st.text()


@given(text=ANSWERS, cut_off=st.booleans())
def test_reading_never_crashes_and_never_invents(text: str, cut_off: bool) -> None:
    for task, choices in ((TONE, TONE.labels), (DEGREES, DEGREES.labels), (QUIZ, OPTIONS)):
        assert choices is not None
        reading = read_answer(text, task, choices, cut_off=cut_off)
        assert (reading.label is None) == (reading.problem is not None)
        if reading.label is not None:
            assert reading.label in choices
            letter = "abcdefghijklmnopqrstuvwxyz"[choices.index(reading.label)]
            named = reading.label.casefold() in text.casefold()
            assert named or (task is QUIZ and letter in text.lower())
    free = read_answer(text, FREE, None)
    assert (free.label is None) == (free.problem is not None)
    read_rationale(text)


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded answers at {RECORDED}")
@pytest.mark.parametrize(("part", "right"), [("train", 0.753), ("test", 0.784)])
def test_recorded_answers_of_a_large_teacher_are_read(part: str, right: float) -> None:
    # Some 2.9 % name two options; taking the first of them would be right half the time.
    with gzip.open(RECORDED / f"cqa_{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    readings = [read_answer(row["teacher_output"], QUIZ, row["choices"]) for row in rows]
    hits = sum(r.label == row["answer"] for r, row in zip(readings, rows, strict=True))
    misses = sum(r.label is None for r in readings)
    print(f"\n{part}: {hits / len(rows):.4f} right, {misses} of {len(rows)} unread")
    assert hits / len(rows) >= right
    assert misses / len(rows) <= 0.03
