"""Arithmetic: parsed by a grammar, with limits, never run as code."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers.equations import EquationError, equation_value, parse_equation, same_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("( 84.0 / 2.0 )", 42.0),
        ("(102 * 11) - 8", 1114.0),
        ("8 - 3 - 2", 3.0),
        ("8 - (3 - 2)", 7.0),
        ("16 / 4 / 2", 2.0),
        ("2 + 3 * 4", 14.0),
        ("-(3 + 4) * --2", -14.0),
        ("+5", 5.0),
        ("1,200 + .5", 1200.5),
        ("3 × 4 ÷ 2 − 1", 5.0),
        ("3 x 4", 12.0),
        ("8 - 3 = 5", 5.0),
        ("10 / 3 = 3.33", 10 / 3),
        ("0.1 + 0.2", 0.3),
        ("42", 42.0),
    ],
)
def test_the_value_of_an_expression(text: str, value: float) -> None:
    assert equation_value(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a number is missing"),
        ("()", "a number is missing before ')'"),
        ("8 -", "a number is missing at its end"),
        ("(8 - 3", "a closing bracket is missing"),
        ("8 - 3)", "no operator stands before ')'"),
        ("2(3 + 4)", "no operator stands before '('"),
        ("5 6", "no operator stands before '6'"),
        ("5 + x", "'x' is not arithmetic"),
        ("1.2.3", "not arithmetic"),
        ("12,34", "not arithmetic"),
        ("2 ** 9", "powers are not read"),
        ("2 ^ 9", "powers are not read"),
        ("9 // 2", "a number is missing before '/'"),
        ("8 / (3 - 3)", "it divides by zero"),
        ("8 - 3 = 6", "8 - 3 is not 6"),
        ("8 - 3 =", "a number is missing"),
        ("__import__('os').getcwd()", "is not arithmetic"),
        ("(lambda: 5)()", "is not arithmetic"),
        ("[5][0]", "is not arithmetic"),
        ("True", "is not arithmetic"),
        ("9" * 31, "more than 30 digits"),
        ("(" * 51 + "1" + ")" * 51, "more than 50 brackets"),
        ("1+" * 250 + "1", "501 characters, and at most 500"),
    ],
)
def test_what_is_no_arithmetic_has_no_value_and_says_why(text: str, problem: str) -> None:
    assert equation_value(text) is None
    with pytest.raises(EquationError) as raised:
        parse_equation(text)
    assert problem in str(raised.value)


def test_what_is_too_large_for_a_number_has_no_value() -> None:
    assert equation_value(" * ".join(["9" * 30] * 15)) is None
    assert not same_value(" * ".join(["9" * 30] * 15), "1")


def test_answers_are_compared_by_value() -> None:
    assert same_value("( 28.0 - 22.0 )", "28 - 22 = 6")
    assert same_value("84 / 2", 42)
    assert same_value("10 / 3", 3.3333333)
    assert not same_value("10 / 3", 3.33)
    assert same_value("10 / 3", 3.33, tolerance=0.01)
    assert same_value(0, "3 - 3")
    assert not same_value("28 - 22", "22 - 28")
    for nothing in (None, "", "some - 8", float("nan"), float("inf")):
        assert not same_value(nothing, nothing)


def test_the_canonical_text_keeps_brackets_only_where_they_count() -> None:
    assert parse_equation("((8.50)) / (2*(3))").text == "8.5 / (2 * 3)"
    assert parse_equation("(1 - 2) - 3").text == "1 - 2 - 3"
    assert parse_equation("1 - (2 - 3)").text == "1 - (2 - 3)"
    assert parse_equation("(1 + 2) * 3").text == "(1 + 2) * 3"
    assert parse_equation("-(2 * 3)").text == "-(2 * 3)"
    assert parse_equation("1,200.0").text == "1200"


# ---------------------------------------------------------------------- expressions by their trees

Tree = tuple[str, Fraction | None]


def _number(digits: str) -> Tree:
    return digits, Fraction(digits)


def _signed(tree: Tree) -> Tree:
    return f"-({tree[0]})", None if tree[1] is None else -tree[1]


def _combined(parts: tuple[Tree, str, Tree]) -> Tree:
    (left, one), sign, (right, other) = parts
    text = f"({left}) {sign} ({right})"
    if one is None or other is None or (sign == "/" and other == 0):
        return text, None
    # The expected value comes from Python's own operators on the tree, never from the text.
    match sign:
        case "+":
            return text, one + other
        case "-":
            return text, one - other
        case "*":
            return text, one * other
    return text, one / other


NUMBERS = st.decimals(0, 10_000, places=2).map(str).map(_number)
TREES = st.recursive(
    NUMBERS,
    lambda trees: (
        trees.map(_signed) | st.tuples(trees, st.sampled_from("+-*/"), trees).map(_combined)
    ),
    max_leaves=12,
)


@given(tree=TREES)
def test_the_value_is_what_python_calculates_on_the_tree(tree: Tree) -> None:
    text, value = tree
    if value is None:
        assert equation_value(text) is None
        return
    read = parse_equation(text)
    assert read.value == value
    # The canonical text means the same, and is its own canonical text.
    again = parse_equation(read.text)
    assert (again.value, again.text) == (value, read.text)
    assert same_value(text, float(value))


@given(text=st.text(alphabet="0123456789.,+-*/()= x^×−eE_'\"[]{}:;abc\n", max_size=60) | st.text())
def test_any_text_has_a_value_or_none_and_nothing_is_raised(text: str) -> None:
    value = equation_value(text)
    assert value is None or isinstance(value, float)
    if value is None:
        assert not same_value(text, text)
    else:
        assert same_value(text, text)
