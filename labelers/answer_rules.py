"""How an answer that is more than a label's name is read: a number, an equation, a pattern, JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Number:
    """The answer is a number: the one behind "the answer is".

    Thousands separators ("1,200"), currency signs, a percent sign, a sign (Unicode's minus too) and
    words behind it ("5 apples") are understood; behind an equals sign it is the result that counts
    ("6 * 7 = 42"). The label is the number in plain digits: ``1200``, ``-3.5``. Unread are two numbers,
    ranges, fractions, dates, times, a decimal comma and numbers written in words. In a task with
    ``labels``, which must be numbers then, the label of the same value is meant.
    """


@dataclass(frozen=True, kw_only=True)
class Equation:
    """The answer is an arithmetic expression, such as ``(8.0 - 3.0)`` or ``(8 - 3) = 5``.

    It holds numbers, ``+ - * /``, signs and brackets, is parsed, and never evaluated as code. The
    label is its canonical text (``8 - 3``); :func:`labelers.equations.equation_value` gives its value.
    Unread are expressions with a variable, a power, a division by zero, or a result that is wrong.
    """


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """The answer is what a regular expression finds.

    It is matched in time linear in the text, so no answer can stall a run: by RE2, whose syntax is that
    of Python's ``re`` without look-around and backreferences, and whose ``\\d``, ``\\w`` and ``\\b`` are
    ASCII. Where it matches several times, all must say the same. With a closed label set, what it
    finds must be a label, or an option's letter.

    Args:
        pattern: A regular expression with one group, or with one that is named ``answer``.
    """

    pattern: str


@dataclass(frozen=True, kw_only=True)
class JsonField:
    """The answer is a field of the first JSON object in the text, also of one inside a code fence.

    With a closed label set its value must be a label, or an option's letter. A number becomes a label in
    plain digits, true and false become ``true`` and ``false``; null, lists and objects are unread.

    Args:
        field: The field's name; dots lead into nested objects (``result.label``) and, as numbers from 0,
            into lists (``answers.0``).
        rationale: The field that holds the rationale, if any, written likewise.
    """

    field: str
    rationale: str | None = None


AnswerRule = Number | Equation | Pattern | JsonField
