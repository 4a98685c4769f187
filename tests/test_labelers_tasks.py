"""Tasks, templates, and the requests that are made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers import Demonstration, Task, TaskError
from labelers.answer_rules import Equation, JsonField, Number, Pattern
from labelers.prompts import build_request
from labelers.store import canonical, exchange_key

SENTIMENT = Task(
    instruction="Decide whether a product review is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
    demonstrations=(
        Demonstration(
            input="Review: The strap broke on day two.",
            rationale="A part that breaks at once is a complaint.",
            label="negative",
        ),
        Demonstration(input="Review: I love the sharp screen.", label="positive"),
    ),
)
QUIZ = Task(
    instruction="Answer the question.",
    template="{{ question }}\nAnswer Choices:\n{{ options | letters }}",
    choices="options",
    demonstrations=(
        Demonstration(
            input="Where do fish live?\nAnswer Choices:\n(a) pond\n(b) tree",
            rationale="Fish live in water.",
            label="pond",
            choices=("pond", "tree"),
        ),
    ),
)


def request(task: Task = SENTIMENT, text: str = "Review: It works.", **how: Any) -> dict[str, Any]:
    settings = {"kind": "score", "api": "chat", "model": "m", "max_tokens": 8, **how}
    return build_request(task, text, choices=settings.pop("choices", task.labels), **settings).body


# ---------------------------------------------------------------------------------------- templates


def test_a_template_renders_the_columns_it_names() -> None:
    assert SENTIMENT.render({"text": "The strap broke.", "stars": 1}) == "Review: The strap broke."
    assert SENTIMENT.columns == {"text"}


def test_the_letters_filter_writes_options_as_lettered_lines() -> None:
    row = {"question": "Where do cars park?", "options": ["park", "garage", "sea"]}
    assert QUIZ.render(row) == (
        "Where do cars park?\nAnswer Choices:\n(a) park\n(b) garage\n(c) sea"
    )
    assert QUIZ.columns == {"question", "options"}


def test_markup_in_a_text_is_left_as_it_is() -> None:
    row = {"text": "5 < 6 & <b>bold</b> {{ not_a_column }}"}
    assert SENTIMENT.render(row) == "Review: 5 < 6 & <b>bold</b> {{ not_a_column }}"


def test_a_column_that_the_data_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(TaskError, match=r"'text' is undefined.*\['body', 'stars'\]"):
        SENTIMENT.render({"body": "It works.", "stars": 5})


def test_a_null_is_not_rendered_as_the_word_none() -> None:
    with pytest.raises(TaskError, match="null"):
        SENTIMENT.render({"id": "r7", "text": None})
    with_default = Task(instruction="Judge it.", template="{{ title or 'No title' }}: {{ text }}")
    assert with_default.render({"title": None, "text": "Fine."}) == "No title: Fine."


@pytest.mark.parametrize(
    "template",
    [
        "{{ text.__class__ }}",
        "{{ text.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__init__.__globals__ }}",
        "{{ words.append('more') }}",
        "{% include '/etc/passwd' %}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ '{2}'.format(text) }}",
        "{{ range(1000000000) | list }}",
        "{{ 1 / 0 }}",
        "{{ text | round }}",
    ],
)
def test_a_template_can_neither_reach_out_nor_end_in_a_foreign_traceback(template: str) -> None:
    task = Task(instruction="Judge it.", template=template)
    with pytest.raises(TaskError):
        task.render({"id": "r1", "text": "It works.", "words": ["It", "works"]})


# -------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": " "}, "instruction is empty"),
        ({"template": "{{ text"}, "does not parse"),
        ({"template": "{{ text | shout }}"}, "does not parse"),
        ({"labels": ("positive",)}, "at least two"),
        ({"labels": ("positive", " ")}, "empty label"),
        ({"labels": ("Positive", "positive ")}, "read as the same"),
        ({"labels": ("good", "good.")}, "read as the same"),
        ({"labels": ("*", "**")}, "nothing but punctuation"),
        ({"choices": "options"}, "both labels"),
        ({"labels": ("yes", "no")}, "demonstration 1 has label 'negative'"),
        ({"labels": None, "choices": "options"}, "demonstration 1 has no choices"),
        (
            {
                "labels": tuple(f"class {i}" for i in range(27)),
                "answer_form": "letter",
                "demonstrations": (),
            },
            "27 labels",
        ),
    ],
)
def test_a_task_that_cannot_be_asked_is_refused(change: dict[str, Any], message: str) -> None:
    settings = {name: getattr(SENTIMENT, name) for name in SENTIMENT.__dataclass_fields__}
    with pytest.raises(TaskError, match=message):
        Task(**{**settings, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("a good\nreview", "a bad one")}, "line break"),
        ({"stop": "###"}, r"task.stop is '###': a tuple"),
        ({"stop": ["###"]}, r"task.stop is \['###'\]: a tuple"),
        ({"stop": ("###", "")}, "task.stop holds ''"),
        ({"stop": ("tiv",)}, "part of the label 'positive'"),
        ({"on_two": "last"}, "task.on_two is 'last': `unread` and `first`"),
        ({"answer": "number"}, "task.answer: 'number' is no rule: Number"),
        ({"answer": Number}, "is no rule: Number"),
        ({"answer": Number()}, "task.answer: the label 'positive' is no number"),
        ({"answer": Number(), "labels": ("1", "1.0")}, "'1' and '1.0' are the same number"),
        ({"answer": Number(), "answer_form": "letter"}, "options that have letters"),
        ({"answer": Number(), "labels": None, "choices": "options"}, "options that have letters"),
        ({"answer": Equation()}, "equations are free text"),
        ({"answer": JsonField(field="")}, "the field '' has an empty part"),
        ({"answer": JsonField(field="a..b")}, r"the field 'a\.\.b' has an empty part"),
        ({"answer": JsonField(field="a", rationale=".")}, r"the field '\.' has an empty part"),
        ({"answer": Pattern(pattern="")}, "the pattern is ''"),
        ({"answer": Pattern(pattern="(" * 1001)}, "1001 characters"),
        ({"answer": Pattern(pattern="(a")}, r"the pattern '\(a' is no regular expression: missing"),
        ({"answer": Pattern(pattern="a")}, "the pattern 'a' has 0 groups"),
        ({"answer": Pattern(pattern="(a)(b)")}, r"has 2 groups: .*\(\?P<answer>"),
        ({"answer": Pattern(pattern="()" * 9 + "(?P<answer>a)")}, "in group 10"),
        ({"answer": Pattern(pattern=r"(a)(?=b)")}, "cannot be matched in linear time"),
        ({"answer": Pattern(pattern=r"(?P<answer>a)\1")}, "cannot be matched in linear time"),
    ],
)
def test_a_task_whose_answers_cannot_be_read_is_refused(
    change: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"instruction": "Judge it.", "labels": ("positive", "negative")}
    with pytest.raises(TaskError, match=message):
        Task(**{**settings, **change})


def test_the_rules_that_fit_a_task_are_taken() -> None:
    for answer in (Number(), Equation(), Pattern(pattern="(a)"), JsonField(field="a.0")):
        assert Task(instruction="Judge it.", answer=answer).answer == answer
    for answer in (Pattern(pattern="(?P<answer>a)(b)"), JsonField(field="a")):
        assert Task(instruction="Judge it.", choices="options", answer=answer).closed
    assert Task(instruction="Count.", labels=("1", "2"), answer=Number()).labels == ("1", "2")


# ------------------------------------------------------------------------------------------ prompts


def test_a_chat_shows_each_demonstration_as_a_turn() -> None:
    assert request()["messages"] == [
        {
            "role": "system",
            "content": "Decide whether a product review is positive or negative.\n"
            "Answer with nothing but one of these labels: positive, negative.",
        },
        {"role": "user", "content": "Review: The strap broke on day two."},
        {"role": "assistant", "content": "negative"},
        {"role": "user", "content": "Review: I love the sharp screen."},
        {"role": "assistant", "content": "positive"},
        {"role": "user", "content": "Review: It works."},
    ]


def test_a_completion_is_one_text_that_ends_where_the_label_begins() -> None:
    body = request(api="completions", max_tokens=1)
    assert body["prompt"] == (
        "Decide whether a product review is positive or negative.\n\n"
        "Review: The strap broke on day two.\nLabel: negative\n\n"
        "Review: I love the sharp screen.\nLabel: positive\n\n"
        "Review: It works.\nLabel:"
    )
    assert body["logprobs"] == 20
    assert "messages" not in body


def test_a_rationale_is_asked_for_given_the_label_and_shown_only_where_there_is_one() -> None:
    body = request(kind="rationale", api="completions", label="positive")
    assert body["prompt"] == (
        "Decide whether a product review is positive or negative.\n\n"
        "Review: The strap broke on day two.\nLabel: negative\n"
        "Why: A part that breaks at once is a complaint.\n\n"
        "Review: It works.\nLabel: positive\nWhy:"
    )
    assert "logprobs" not in body


def test_a_chain_of_thought_ends_in_the_label_and_by_letter_where_options_differ() -> None:
    body = request(QUIZ, "Where do cars park?", kind="cot", choices=("sea", "garage"))
    assert body["messages"][2]["content"] == "Fish live in water. So the answer is (a) pond."
    assert "the letter of one option" in body["messages"][0]["content"]
    scored = request(QUIZ, "Where do cars park?", api="completions", choices=("sea", "garage"))
    assert scored["prompt"].endswith("(b) tree\nLabel: (a) pond\n\nWhere do cars park?\nLabel: (")


def test_a_demonstration_without_a_rationale_cannot_show_a_chain_of_thought() -> None:
    with pytest.raises(TaskError, match=r"I love the sharp screen.*no rationale"):
        request(kind="cot")


# ---------------------------------------------------------------------------------------- addresses

WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(text=WORDS, again=WORDS)
def test_equal_texts_make_equal_requests_and_no_others_do(text: str, again: str) -> None:
    task = Task(instruction="Judge it.", template="Review: {{ text }}", labels=("good", "bad"))
    assert task.render({"text": text}) == f"Review: {text}"
    keys = [
        exchange_key(b"{}", "completions", canonical(request(task, task.render({"text": t}))))
        for t in (text, again, text)
    ]
    assert keys[0] == keys[2]
    assert (keys[0] == keys[1]) == (text == again)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(WORDS, JSON, max_size=4)


@given(first=BODIES, second=BODIES)
def test_canonical_bytes_are_equal_exactly_where_the_bodies_are(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    # Python holds True == 1; as JSON text they differ, and so they must here.
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (canonical(first) == canonical(second)) == same
    assert canonical(dict(reversed(first.items()))) == canonical(first)
    assert json.loads(canonical(first)) == first


def test_whatever_changes_the_answer_changes_the_address() -> None:
    def key(identity: str = '{"model":"m"}', sample: int = 0, **how: Any) -> bytes:
        body = canonical(request(**how))
        return exchange_key(identity.encode(), "chat/completions", body, sample)

    other = Task(instruction="Say what the buyer felt.", labels=("positive", "negative"))
    keys = [
        key(),
        key(identity='{"model":"m","revision":"2"}'),
        key(sample=1),
        key(temperature=0.7),
        key(model="m2"),
        key(task=other),
        key(text="Review: It works!"),
        key(max_tokens=9),
        key(top_logprobs=5),
        key(kind="rationale", label="positive"),
        key(kind="rationale", label="negative"),
        exchange_key(b'{"model":"m"}', "completions", canonical(request())),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_half_a_surrogate_pair_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        canonical(request(text="Review: \ud83d it broke."))


def test_labels_given_as_one_text_are_not_read_letter_by_letter() -> None:
    with pytest.raises(TaskError, match=r"task\.labels is 'abc': give a tuple of texts"):
        Task(instruction="Decide.", labels="abc")  # type: ignore[arg-type]
