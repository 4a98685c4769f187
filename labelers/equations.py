"""Arithmetic in answers: parsed by a grammar of its own, with limits, and never run as code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from labelers.sentences import UnreadError, clause, correction, sentence

#: The limits of what is parsed: characters, brackets within brackets, and digits of one number.
LONGEST, DEEPEST, MOST_DIGITS = 500, 50, 30

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d.,]*\d)|\.\d+"
_TOKEN = re.compile(rf"\s*(?:({_NUMBER})|(\*\*|[-+*/()^]))", re.ASCII)
_SPELLINGS = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "∕": "/"}
    | dict.fromkeys("$€£¥₹", " ")
)  # fmt: skip
_LATEX = {
    "\\times": "*",
    "\\cdot": "*",
    "\\div": "/",
    "\\(": " ",
    "\\)": " ",
    "\\[": " ",
    "\\]": " ",
}
_TIMES = re.compile(r"(?<=[\d)])(\s*)[xX](?=\s*[\d(.])", re.ASCII)
_OPENING = re.compile(r"^[\s\"'`_]*(\**)[\s\"'`]*(?:[A-Za-z]\s*=)?")
_ARITHMETIC = "0123456789 \t.,+-*/()=^"
_SPAN = re.compile(r"[\d\s.,+\-*/()=^]*", re.ASCII)
#: Behind an expression: a sign that it goes on in a way that is not read, such as "5 x" or "20 %".
_GOES_ON = re.compile(r"[\d+*=^%√]|^\s*[A-Za-z]\b|^[A-Za-z]|/\s*[A-Za-z]\b")
_SUM, _PRODUCT, _SIGNED, _ATOM = range(4)


class EquationError(ValueError):
    """A text that is not arithmetic, or too large, or has no value; the message says which."""


@dataclass(frozen=True)
class Expression:
    """An arithmetic expression: its canonical ``text`` and its exact ``value``.

    In the text numbers have no needless zeros, operators stand between spaces, and brackets are only
    where the order of operations needs them. ``calculates`` tells ``8 - 3`` from a mere number.
    """

    text: str
    value: Fraction
    calculates: bool = False
    binding: int = _ATOM

    def within(self, least: int) -> str:
        """The text as part of a larger expression, in brackets if it binds less than ``least``."""
        return self.text if self.binding >= least else f"({self.text})"


def equation_value(text: str) -> float | None:
    """The value of an arithmetic expression, or None where it is not one or has no value.

    Understood are numbers ("1,200", "3.5"), ``+ - * /`` (also × ÷ −), signs and brackets, and an
    equation whose sides agree ("8 - 3 = 5"). Fractions are exact until the end. At most 500
    characters, 50 brackets within one another and 30 digits in a number are read.

    Args:
        text: For instance ``"( 84.0 / 2.0 )"``.
    """
    try:
        return float(parse_equation(text).value)
    except (EquationError, OverflowError):
        return None


def same_value(
    one: str | float | None, other: str | float | None, *, tolerance: float = 1e-6
) -> bool:
    """Whether two answers, numbers or arithmetic expressions, have the same value.

    Args:
        one: A text, a number, or None for an unread answer.
        other: The same.
        tolerance: Relative difference that is allowed.

    Returns:
        False where either has no value.
    """
    values = []
    for answer in (one, other):
        value = equation_value(answer) if isinstance(answer, str) else answer
        if value is None or not math.isfinite(value):
            return False
        values.append(value)
    return math.isclose(values[0], values[1], rel_tol=tolerance, abs_tol=1e-9)


def parse_equation(text: str) -> Expression:
    """Parse an arithmetic expression, or an equation whose sides have the same value.

    Returns:
        The expression; of an equation, its first side that calculates something.

    Raises:
        EquationError: If the text is not arithmetic, exceeds the limits, divides by zero, or is an
            equation whose sides differ by more than rounding.
    """
    if len(text) > LONGEST:
        raise EquationError(f"it has {len(text)} characters, and at most {LONGEST} are read")
    written = _spelt_plainly(text).split("=")
    sides = [_Parser(side).parse() for side in written]
    for side in sides[1:]:
        if not _agree(sides[0], side):
            raise EquationError(f"{sides[0].text} is not {side.text}")
    return next((side for side in sides if side.calculates), sides[0])


def read_equation(answer: str, cut_off: bool) -> str | None:
    """The canonical text of the expression that ``answer`` begins with.

    Returns:
        None where the answer's first sentence holds no digit.

    Raises:
        UnreadError: If it holds digits and is not one expression.
    """
    near, _, further = clause(answer)
    if not any("0" <= character <= "9" for character in sentence(answer)):
        return None
    near = _spelt_plainly(near)
    opening = _OPENING.match(near)
    assert opening is not None
    span = _SPAN.match(near, opening.end())
    assert span is not None
    said = span.group().rstrip(" \t,.")
    rest = near[opening.end() + len(said) :]
    stars = opening.group(1)
    if stars and said.endswith(stars):
        said = said.removesuffix(stars)
    if _GOES_ON.search(rest):
        raise UnreadError(f"{near.strip()!r} is no arithmetic expression")
    if cut_off and not further.strip():
        raise UnreadError("it may go on where it was cut off")
    try:
        expression = parse_equation(said)
        float(expression.value)
    except (EquationError, OverflowError) as error:
        raise UnreadError(str(error)) from error
    taken_back = correction(further)
    if taken_back is not None and any(character.isdigit() for character in taken_back):
        raise UnreadError("it takes its answer back")
    return expression.text


def read_whole_equation(body: str, cut_off: bool) -> str | None:
    """The expression that the whole of ``body`` is; None where it is more than that.

    Raises:
        UnreadError: As for :func:`read_equation`.
    """
    line, _, more = body.strip().partition("\n")
    plain = _spelt_plainly(line)
    opening = _OPENING.match(plain)
    assert opening is not None
    if plain[opening.end() :].rstrip(" .*_`'\"").strip(_ARITHMETIC) or any(map(str.isdigit, more)):
        return None
    return read_equation(line if more else body, cut_off)


def _spelt_plainly(text: str) -> str:
    for written, plain in _LATEX.items():
        text = text.replace(written, plain)
    return _TIMES.sub(r"\1*", text.translate(_SPELLINGS))


def _agree(one: Expression, other: Expression) -> bool:
    """Whether two sides are equal to the digits that a bare number among them shows: 10 / 3 = 3.33."""
    shown = [len(s.text.partition(".")[2]) for s in (one, other) if not s.calculates]
    allowed = Fraction(1, 2 * 10 ** max(shown)) if shown else abs(one.value) / 10**9
    return abs(one.value - other.value) <= allowed


class _Parser:
    """A recursive-descent parser: sum = product {± product}, product = signed {*/ signed}."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.number = self.operator = ""
        self._advance()

    def parse(self) -> Expression:
        found = self._sum()
        if self.operator in ("**", "^"):
            raise EquationError("powers are not read")
        if self.number or self.operator:
            raise EquationError(f"no operator stands before {self.number or self.operator!r}")
        return found

    def _advance(self) -> None:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            left = self.text[self.at :].strip()
            if left:
                raise EquationError(f"{left[:20]!r} is not arithmetic")
            self.number = self.operator = ""
            return
        self.at = found.end()
        self.number, self.operator = found.group(1) or "", found.group(2) or ""

    def _sum(self) -> Expression:
        left = self._product()
        while (sign := self.operator) in ("+", "-"):
            self._advance()
            right = self._product()
            value = left.value + right.value if sign == "+" else left.value - right.value
            text = f"{left.within(_SUM)} {sign} {right.within(_PRODUCT)}"
            left = Expression(text, value, True, _SUM)
        return left

    def _product(self) -> Expression:
        left = self._signed()
        while (sign := self.operator) in ("*", "/"):
            self._advance()
            right = self._signed()
            if sign == "/" and right.value == 0:
                raise EquationError("it divides by zero")
            value = left.value * right.value if sign == "*" else left.value / right.value
            text = f"{left.within(_PRODUCT)} {sign} {right.within(_SIGNED)}"
            left = Expression(text, value, True, _PRODUCT)
        return left

    def _signed(self) -> Expression:
        negative = False
        while (sign := self.operator) in ("+", "-"):
            negative ^= sign == "-"
            self._advance()
        found = self._atom()
        if not negative or (found.value == 0 and not found.calculates):
            return found
        return Expression(f"-{found.within(_ATOM)}", -found.value, found.calculates, _SIGNED)

    def _atom(self) -> Expression:
        if self.number:
            digits = self.number.replace(",", "")
            if len(digits) > MOST_DIGITS:
                raise EquationError(f"{digits[:20]}... has more than {MOST_DIGITS} digits")
            self._advance()
            return Expression(plain_number(Decimal(digits)), Fraction(digits))
        if self.operator != "(":
            if self.operator in ("**", "^"):
                raise EquationError("powers are not read")
            raise EquationError(
                f"a number is missing {f'before {self.operator!r}' if self.operator else 'at its end'}"
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise EquationError(f"it has more than {DEEPEST} brackets within one another")
        self._advance()
        found = self._sum()
        if self.operator != ")":
            raise EquationError("a closing bracket is missing")
        self._advance()
        self.depth -= 1
        return found


def plain_number(value: Decimal) -> str:
    """A number in plain digits, without needless zeros: ``1200``, ``-3.5``, ``0``."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").removesuffix(".")
    return "0" if text in ("-0", "") else text
