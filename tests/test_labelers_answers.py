"""Reading: by rule, never a crash, never a guess."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers import Task
from labelers.answer_rules import Equation, JsonField, Number, Pattern
from labelers.answers import read_answer, read_rationale, split_thinking

TONE = Task(
    instruction="Judge the tone.",
    template="Snippet: {{ text }}",
    labels=("positive", "negative"),
    answer_name="Sentiment",
)
DEGREES = Task(instruction="Judge the tone.", labels=("very", "very positive", "negative"))
STARS = Task(instruction="Count the stars.", labels=("1", "2", "10"))
QUIZ = Task(instruction="Answer.", template="{{ question }}", choices="choices")
OPTIONS = ("bank", "library", "book store", "mall", "new york")
FREE = Task(instruction="Translate into French.")


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
        ("It shines.\nSentiment: Positive", "positive", "It shines."),
        ("It shines.\n**Sentiment:** positive", "positive", "It shines."),
        ("I think that the answer is positive.", "positive", "I think that"),
        ("It shines. \\boxed{positive} is what I say.", "positive", "It shines."),
        ("It shines. <answer>\nPositive\n</answer>", "positive", "It shines."),
        ("Dull. The answer is negative. The answer is correct as it is dull.", "negative", "Dull."),
        ("The answer is positive, which rules out negative.", "positive", None),
        ("The answer is positive. Wait, the answer is negative.", "negative", None),
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
        ("So the answer is (e), not (a) or (b).", "new york"),
        ("So the answer is (b) library, unlike a bank.", "library"),
        ("So the answer is (b), where people read; a bank (a) has no books.", "library"),
        ("The answer is **B**.", "library"),
        ("**Answer: B) library**", "library"),
        ("Answer: [b] library", "library"),
        ("Answer: B - library", "library"),
        ("The correct option is (d).", "mall"),
        ("The best choice is option D.", "mall"),
        ("The answer is b, because people read there.", "library"),
        ("Hence \\(\\boxed{\\text{B}}\\).", "library"),
        ("<answer>B</answer>", "library"),
        ("The answer is the library.", "library"),
        ("The answer is a bank.", "bank"),
        ("So the answer is (a). Wait, actually the answer is (b).", "library"),
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
        (TONE, "At first the answer is positive. So the answer is neutral."),
        (TONE, "The answer is positive. Actually, negative."),
        (TONE, "The wrong answer is positive."),
        (TONE, "It is open whether the answer is positive."),
        (QUIZ, "The answer is A) or B)."),
        (QUIZ, "A. or B."),
        (QUIZ, "The answer is (a) because of money or (b) because of books."),
        (QUIZ, "The answer is (a) bank. No, (b) library."),
        (QUIZ, "So the answer is one of these four."),
        (QUIZ, "None of the above. So the answer is none of them."),
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


@pytest.mark.parametrize(
    ("task", "text", "label"),
    [
        (QUIZ, "So the answer is either (b) library or (a) bank.", "library"),
        (QUIZ, "So the answer is (a) bank, (b) library, or (d) mall.", "bank"),
        (QUIZ, "So the answer is (a) mall.", "bank"),
        (QUIZ, "(a) or (b)", "bank"),
        (QUIZ, "So the answer is (b).", "library"),
        (TONE, "So the answer is either negative or positive.", "negative"),
        (TONE, "positive or negative", "positive"),
        # What takes an answer back, denies it or names none is no second label beside it.
        (QUIZ, "The answer is (a) bank. No, (b) library.", None),
        (TONE, "The answer is not positive or negative.", None),
        (QUIZ, "So the answer is one of these four.", None),
        (QUIZ, "So the answer is (f) or (a).", None),
    ],
)
def test_a_task_may_declare_that_of_two_labels_the_first_counts(
    task: Task, text: str, label: str | None
) -> None:
    declared = replace(task, on_two="first")
    assert read_answer(text, declared, declared.labels or OPTIONS).label == label


def test_options_that_differ_only_in_case_are_told_apart_by_letter_alone() -> None:
    task = Task(instruction="Answer.", template="{{ question }}", choices="choices")
    assert read_answer("So the answer is (b).", task, ("US", "us")).label == "us"
    assert read_answer("So the answer is Us!", task, ("US", "us")).label is None
    assert read_answer(
        "So the answer is (e) bridge.", task, ("a", "b", "c", "bridge", "bridge")
    ).label
    assert read_answer("So the answer is bridge.", task, ("bridge", "bridge")).label == "bridge"


# -------------------------------------------------------------------------------- stops and thinking


def test_an_answer_ends_at_the_task_s_own_stops() -> None:
    task = replace(TONE, stop=("###", "Text:"))
    text = "It shines. So the answer is positive.\n### Text: dull. So the answer is negative."
    assert read_answer(text, task, task.labels).label == "positive"
    assert read_answer(text, TONE, TONE.labels).label == "negative"
    assert read_answer("### positive", task, task.labels).problem == "the answer is empty"


@pytest.mark.parametrize("token", ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "\n\nUser: thanks"])
def test_an_answer_ends_where_the_teacher_s_turn_does(token: str) -> None:
    text = f"So the answer is positive.{token} So the answer is negative."
    assert read_answer(text, TONE, TONE.labels).label == "positive"


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("positive", None, "positive"),
        (" positive\n", None, " positive\n"),
        ("<think>It shines.</think>\n\npositive", "It shines.", "positive"),
        ("<thinking>It shines.</thinking>positive", "It shines.", "positive"),
        ("<Reasoning>\nIt shines.\n</Reasoning>positive", "It shines.", "positive"),
        ("It shines.\n</think>\npositive", "It shines.", "positive"),
        ("<think>It shines, so the answer is posi", "It shines, so the answer is posi", ""),
        ("Well. <think>It shines", "Well. It shines", ""),
        ("<think>a <think>b</think> c</think>positive", "a b c", "positive"),
        ("<think></think>positive", None, "positive"),
        ("<think>One.</think>positive<think>Two.</think>", "One.Two.", "positive"),
    ],
)
def test_what_a_reasoning_teacher_thought_is_set_aside(
    text: str, thought: str | None, answer: str
) -> None:
    assert split_thinking(text) == (thought, answer)


def test_an_answer_that_is_only_thought_is_unread_and_the_thought_is_quoted() -> None:
    reading = read_answer("<think>So the answer is positive.", TONE, TONE.labels)
    assert reading.label is None
    assert reading.problem == (
        "the teacher thought, and gave no answer: 'So the answer is positive.'"
    )
    both = read_answer("<think>The answer is negative?</think>positive", TONE, TONE.labels)
    assert (both.label, both.rationale, both.reasoning) == (
        "positive", None, "The answer is negative?"
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- rules


def by(rule: Number | Equation | Pattern | JsonField, **settings: Any) -> Task:
    return Task(instruction="Solve it.", answer=rule, **settings)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He eats 2 of 7. So the answer is 5 apples.", "5"),
        ("So the answer is $1,200.50.", "1200.5"),
        ("So the answer is US$1,000,000.00.", "1000000"),
        ("So the answer is \u22123.", "-3"),
        ("So the answer is -$3.", "-3"),
        ("So the answer is 50%.", "50"),
        ("So the answer is 6 * 7 = 42.", "42"),
        ("So the answer is 5, because 2 + 3 = 5.", "5"),
        ("So the answer is 5, not 6.", "5"),
        ("So the answer is 5. I hope this answer is helpful.", "5"),
        ("So the answer is 3. Wait, the answer is 4.", "4"),
        ("So the answer is **5** apples.", "5"),
        ("So the answer is 5.5km.", "5.5"),
        ("So the answer is 1e3.", "1000"),
        ("So the answer is .50", "0.5"),
        ("So the answer is -0.", "0"),
        ("So the answer is 007.", "7"),
        ("First 2, then 3.\n#### 1,234", "1234"),
        ("\\(\\boxed{-3}\\)", "-3"),
        ("<answer>42</answer>", "42"),
        ("42", "42"),
        ("5 apples", "5"),
        ("$42$", "42"),
    ],
)
def test_a_number_is_read_and_written_plainly(text: str, number: str) -> None:
    assert read_answer(text, by(Number()), None).label == number


@pytest.mark.parametrize(
    "text",
    [
        "So the answer is five.", "At first the answer is 4. So the answer is five.",
        "So the answer is 5 or 6.", "So the answer is 5-6.", "So the answer is between 5 and 6.",
        "So the answer is at least 5.", "So the answer is < 5.", "So the answer is 3/4.",
        "So the answer is 12:30.", "So the answer is 2020-01-05.", "So the answer is 1.2.3.",
        "So the answer is 12,5.", "So the answer is 1 200.", "So the answer is 1_000.",
        "So the answer is 1.2 million.", "So the answer is 5k.", "So the answer is 5x.",
        "So the answer is 5 * n.", "So the answer is 2\\sqrt{3}.", "So the answer is \\frac{1}{2}.",
        "So the answer is 10^6.", "So the answer is - 5.", "So the answer is +-5.",
        "So the answer is not 5.", "So the answer is 5. No, 6.", "So the answer is the 5th.",
        "So the answer is x2.", "So the answer is 1e999.", "So the answer is " + "9" * 99,
        "He has 3 left.", "3 apples\n5 pears", "12:30", "So the answer is \uff15.", "",
    ],
)  # fmt: skip
def test_what_is_not_one_plain_number_is_unread_and_quoted(text: str) -> None:
    reading = read_answer(text, by(Number()), None)
    assert reading.label is None
    assert " ".join(text.split()) in (reading.problem or "").replace("\\\\", "\\")


def test_a_number_cut_off_is_unread() -> None:
    assert read_answer("So the answer is 12", by(Number()), None, cut_off=True).label is None
    assert read_answer("So the answer is 12.", by(Number()), None, cut_off=True).label == "12"
    cut = read_answer("So the answer is (8 - 3", by(Equation()), None, cut_off=True)
    assert cut.label is None
    assert read_answer("So the answer is 8 - 3", by(Equation()), None, cut_off=True).label is None


def test_a_number_is_matched_to_the_label_of_its_value() -> None:
    task = by(Number(), labels=("1", "2", "1,000"))
    for text, label in (("So the answer is 2.0 stars.", "2"), ("1000", "1,000"), ("3", None)):
        assert read_answer(text, task, task.labels).label == label


@pytest.mark.parametrize(
    ("text", "equation"),
    [
        ("So the answer is (8.0 - 3.0).", "8 - 3"),
        ("So the answer is (8.0 - 3.0) = 5.0.", "8 - 3"),
        ("So the answer is 5 = (8 - 3).", "8 - 3"),
        ("So the answer is 10 / 3 = 3.33.", "10 / 3"),
        ("The answer is (102 * 11) - 8.", "102 * 11 - 8"),
        ("The answer is 8 - (3 - 1) apples.", "8 - (3 - 1)"),
        ("The answer is 3 x 4 = 12.", "3 * 4"),
        ("The answer is x = 10 \u00d7 4.", "10 * 4"),
        ("The answer is $5 + $3 = $8.", "5 + 3"),
        ("The answer is **8 - 3**.", "8 - 3"),
        ("The answer is \\boxed{8 \\times 3}.", "8 * 3"),
        ("The answer is 42.", "42"),
        ("( 84.0 / 2.0 )", "84 / 2"),
    ],
)
def test_an_equation_is_read_and_written_in_one_way(text: str, equation: str) -> None:
    assert read_answer(text, by(Equation()), None).label == equation


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (5 + x).", "The answer is 5 x.", "The answer is 2(3 + 4).",
        "The answer is 8 - 3 * apples.", "The answer is (8 - 3) and (7 - 2).",
        "The answer is 8 - 3 or 3 - 8.", "The answer is (8 - 3.", "The answer is 2**9.",
        "The answer is 2^9.", "The answer is 8 / (3 - 3).", "The answer is (8 - 3) = 6.",
        "The answer is 20% of 50.", "The answer is __import__('os').getcwd().",
        "__import__('os').getcwd()", "The answer is 8 - 3. No, 3 - 8.", "8 - 3\n5 * 2", "",
    ],
)  # fmt: skip
def test_what_is_not_one_equation_is_unread(text: str) -> None:
    reading = read_answer(text, by(Equation()), None)
    assert (reading.label, reading.problem is None) == (None, False)


def test_a_pattern_finds_the_answer_by_its_group() -> None:
    scored = by(Pattern(pattern=r"(?i)score: *(\d+)"))
    assert read_answer("Fine. Score: 7 of 9", scored, None).label == "7"
    assert read_answer("Score: 7, I repeat, score: 7", scored, None).label == "7"
    twice = read_answer("Score: 7? Score: 8", scored, None)
    assert twice.label is None
    assert "finds '7' and '8'" in (twice.problem or "")
    assert read_answer("Score: 7? Score: 8", replace(scored, on_two="first"), None).label == "7"
    assert "finds nothing" in (read_answer("Fine.", scored, None).problem or "")
    assert read_answer("Score: 7", scored, None, cut_off=True).label is None
    named = by(Pattern(pattern=r"(is|was) (?P<answer>\w+)"), labels=TONE.labels)
    assert read_answer("It was Positive.", named, TONE.labels).label == "positive"
    assert "'red' is no label" in (read_answer("It is red.", named, TONE.labels).problem or "")
    lettered = by(Pattern(pattern=r"=> (\S+)"), choices="choices")
    assert read_answer("=> (b)", lettered, OPTIONS).label == "library"


def test_no_pattern_can_stall_on_an_answer() -> None:
    task = by(Pattern(pattern=r"((?:a+)+)$"))  # exponential for an engine that backtracks
    assert read_answer("a" * 90_000 + "b", task, None).label is None
    assert "100001 characters" in (read_answer("a" * 100_001, task, None).problem or "")


@pytest.mark.parametrize(
    ("text", "label", "rationale"),
    [
        ('{"tone": {"label": "Positive"}, "why": "It shines."}', "positive", "It shines."),
        ('Sure!\n```json\n{"tone": {"label": "negative."}}\n```\nBye', "negative", None),
        ('In {braces}: {"tone": {"label": "negative"}, "why": 3}', "negative", "3"),
        ('[{"tone": {"label": "negative"}}]', "negative", None),
        ('{"tone": {"label": "positive"}} {"tone": {"label": "negative"}}', "positive", None),
        ('{"tone": {"label": "positive"}', None, None),
        ('{"a": {"tone": {"label": "positive"}}, "b"', None, None),
        ('{"tone": {"label": "positive", "label": "negative"}}', None, None),
        ('{"tone": {"label": null}}', None, None),
        ('{"tone": {"label": ["positive"]}}', None, None),
        ('{"tone": {"label": "neutral"}}', None, None),
        ('{"tone": "positive"}', None, None),
        ('{"tone": {"label": "positive"}, "n": NaN}', None, None),
        ('{"tone": {"label": "positive"}, "n": 1e99999999999999999999}', None, None),
        ("positive", None, None),
    ],
)
def test_a_json_field_is_read(text: str, label: str | None, rationale: str | None) -> None:
    task = by(JsonField(field="tone.label", rationale="why"), labels=TONE.labels)
    reading = read_answer(text, task, task.labels)
    assert (reading.label, reading.rationale) == (label, rationale)
    assert (reading.problem is None) == (label is not None)


def test_a_json_value_becomes_a_label_as_json_writes_it() -> None:
    task = by(JsonField(field="answers.0"))
    for value, label in (
        ("true", "true"),
        ("5.0", "5"),
        ("1e3", "1000"),
        ('" le chien "', "le chien"),
    ):
        assert read_answer(f'{{"answers": [{value}]}}', task, None).label == label
    lettered = by(JsonField(field="answer"), choices="choices")
    assert read_answer('{"answer": "B"}', lettered, OPTIONS).label == "library"
    assert "has ['label']" in (read_answer('{"label": 1}', task, None).problem or "")
    assert "broken" in (read_answer('{"a":' * 9_000, task, None).problem or "")


def test_half_a_character_is_replaced_and_does_not_end_in_the_store_s_traceback() -> None:
    assert read_answer("le chien \ud83d", FREE, None).label == "le chien \ufffd"
    assert read_answer("\ud83d\ude00", FREE, None).label == "\U0001f600"
