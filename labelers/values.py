"""Values in answers: a number, what a pattern finds, a field of a JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from labelers.answer_rules import JsonField
from labelers.equations import plain_number
from labelers.sentences import REACH, UnreadError, clause, correction, sentence

#: Most digits of a number before or behind its point, powers of ten included.
MOST_DIGITS = 60
#: The longest text, in characters, in which a pattern or a JSON object is looked for.
LONGEST_TEXT = 100_000
#: Opening brackets that are tried as the beginning of a JSON object.
_MOST_OBJECTS = 100

#: A minus; the ASCII one first, as it must stand in a character class.
_MINUS = "-\u2212\u2013"
_NUMBER = re.compile(
    rf"(?P<sign>[{_MINUS}+]?)(?P<currency>[$€£¥₹]?)(?P<inner>[{_MINUS}+]?)"
    r"(?P<digits>\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?P<power>[eE][+-]?\d{1,3}(?![\w.]))?",
    re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+", re.ASCII)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)
#: Behind a number: a sign that it is part of something else, such as 3/4, 12:30, 5-6, 5 million, 5x.
_GOES_ON = re.compile(
    rf"[.,:/^*_]\s*\d|\s*[{_MINUS}\u2014+*/^×·÷]\s*\d|[*/^]\w|\s*[{_MINUS}+*/^×·÷]\s+[a-z]\b|[xynkm]\b"
    r"|\s*(?:hundred|thousand|million|billion|trillion|dozen|bn)\b",
    re.ASCII | re.IGNORECASE,
)
#: What makes of a number another one, or only a bound of it.
_NOT_PLAIN = re.compile(r"\\[dt]?frac|sqrt|√|π|\\?\bpi\b|\blog\b|\^|∞", re.IGNORECASE)
_BOUND = re.compile(
    r"\b(?:(?:less|fewer|more|greater|larger|smaller|higher|lower) than|at least|at most|up to|over"
    r"|under|below|above|between|neither|either)\b|[<>≤≥]",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    rf"^[\s\"'`*_(=]*{_NUMBER.pattern}\s*(?:[%€£¥₹$]|°\w?)?"
    r"(?:[ \t]*[^\W\d]+(?:[ \t]+[^\W\d]+){0,2})?[\s\"'`*_).!]*$",
    re.ASCII,
)
_DIGIT = re.compile(r"\d", re.ASCII)
_LOOSE_MINUS = re.compile(rf"(?:^|[\s(\[])[{_MINUS}]\s+$")
#: Stands around what a pattern finds; it is taken out of the text before.
_FENCE = "\ue000"


def canonical_number(text: str) -> str | None:
    """``text`` as plain digits ("1,200.50" is ``1200.5``), or None where it is not one number."""
    found = _NUMBER.fullmatch(text.strip())
    return _canonical(found) if found else None


def _canonical(found: re.Match[str]) -> str | None:
    digits, sign = found["digits"], found["sign"] + found["inner"]
    if len(sign) > 1 or not _GROUPED.fullmatch(digits):
        return None
    value = Decimal(digits.replace(",", "") + (found["power"] or ""))
    if len(digits) > MOST_DIGITS or abs(value.adjusted()) > MOST_DIGITS:
        return None
    # Unicode's minus and the dash that is typed for it count as a minus.
    return plain_number(-value if sign and sign in _MINUS else value)


def read_number(answer: str, cut_off: bool, *, first: bool = False) -> str | None:
    """The number that the first clause of ``answer`` gives, in plain digits.

    Args:
        answer: What stands behind "the answer is".
        cut_off: Whether the text was cut off at its end.
        first: Whether the first of two numbers counts.

    Returns:
        None where the clause holds no digit.

    Raises:
        UnreadError: If it holds digits and does not give one number.
    """
    near, _, further = clause(answer)
    # "6 * 7 = 42": the result is the answer.
    result = re.split(r"[=≈]", near)[-1]
    if not _DIGIT.search(sentence(answer)):
        return None
    numbers = _numbers(result)
    if not numbers or _NOT_PLAIN.search(result) or _is_bound(result, first):
        raise UnreadError(f"{sentence(answer).strip()!r} gives no plain number")
    if len(set(numbers)) > 1 and not first:
        raise UnreadError(f"it gives the numbers {' and '.join(dict.fromkeys(numbers))}")
    if cut_off and not further.strip():
        raise UnreadError("it may go on where it was cut off")
    taken_back = correction(further)
    if taken_back is not None and set(_numbers(taken_back)) - set(numbers):
        raise UnreadError("it takes its answer back")
    return numbers[0]


def read_whole_number(body: str, cut_off: bool, *, first: bool = False) -> str | None:
    """The number that the whole of ``body`` is, but for a unit of up to three words.

    Raises:
        UnreadError: As for :func:`read_number`.
    """
    line, _, more = body.strip().partition("\n")
    if not _WHOLE.match(line[:REACH]) or _DIGIT.search(more):
        return None
    return read_number(line if more else body, cut_off, first=first)


def _is_bound(text: str, first: bool) -> bool:
    found = _BOUND.search(text)
    return found is not None and not (first and found.group().lower() in ("either", "between"))


def _numbers(text: str) -> list[str]:
    """All numbers of ``text`` in plain digits.

    Raises:
        UnreadError: If digits in it are part of something else: a date, a time, a range, a fraction.
    """
    numbers = []
    for found in _NUMBER.finditer(text):
        before = text[max(0, found.start() - 12) : found.start()]
        named = before[-1:].isalpha() and not found["currency"]
        if named or before.endswith("_") or _ORDINAL.match(text, found.end()):
            continue
        number = _canonical(found)
        if (
            number is None
            or _LOOSE_MINUS.search(before)
            or before[-1:].isdigit()
            or _GOES_ON.match(text, found.end())
        ):
            raise UnreadError(f"{text.strip()!r} gives no plain number")
        numbers.append(number)
    return numbers


def match_number(number: str | None, labels: Sequence[str]) -> str | None:
    """The label of that value, or None."""
    if number is None:
        return None
    return next((label for label in labels if canonical_number(label) == number), None)


def answer_group(pattern: str) -> int:
    """The number of the group that holds the answer."""
    return re.compile(pattern).groupindex.get("answer", 1)


def pattern_finds(text: str, pattern: str) -> list[str]:
    """What the pattern's answer group holds in each of its matches, empty ones left out.

    The matching is RE2's, in linear time (Cox, 2007, *Regular Expression Matching Can Be Simple And
    Fast*), through Arrow.

    Raises:
        ValueError: If RE2 does not know the pattern.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    replaced = pc.replace_substring_regex(
        pa.scalar(text.replace(_FENCE, "\ufffd")),
        pattern=pattern,
        replacement=f"{_FENCE}\\{answer_group(pattern)}{_FENCE}",
    ).as_py()
    return [found.strip() for found in replaced.split(_FENCE)[1::2] if found.strip()]


def read_pattern(body: str, pattern: str, cut_off: bool, *, first: bool = False) -> str:
    """What the pattern finds in ``body``.

    Raises:
        UnreadError: If it finds nothing, or two things, or something at the end of a text that was cut off.
    """
    if len(body) > LONGEST_TEXT:
        raise UnreadError(f"it has {len(body)} characters, and at most {LONGEST_TEXT} are searched")
    found = pattern_finds(body, pattern)
    if not found:
        raise UnreadError(f"the pattern {pattern!r} finds nothing")
    if len(set(found)) > 1 and not first:
        raise UnreadError(f"the pattern {pattern!r} finds {found[0]!r} and {found[-1]!r}")
    if cut_off and body.rstrip().endswith(found[0]):
        raise UnreadError("it may go on where it was cut off")
    return found[0]


@dataclass(frozen=True)
class JsonAnswer:
    """A field's value as text, and the rationale that stands beside it."""

    value: str
    rationale: str | None


def read_json(body: str, rule: JsonField) -> JsonAnswer:
    """The field that ``rule`` names in the first JSON object of ``body``.

    Raises:
        UnreadError: If there is no object, it is broken or cut off, or the field is absent or no value.
    """
    value = _as_text(_descend(_first_object(body), rule.field))
    if value is None:
        raise UnreadError(
            f"the JSON field {rule.field!r} is neither a text nor a number nor true or false"
        )
    rationale = None
    if rule.rationale is not None:
        try:
            rationale = _as_text(_descend(_first_object(body), rule.rationale))
        except UnreadError:
            rationale = None
    return JsonAnswer(value, rationale)


def _first_object(body: str) -> dict[str, Any]:
    if len(body) > LONGEST_TEXT:
        raise UnreadError(f"it has {len(body)} characters, and at most {LONGEST_TEXT} are searched")
    decoder = json.JSONDecoder(
        object_pairs_hook=_without_twins, parse_float=_decimal, parse_constant=_refuse_constant
    )
    start = -1
    for _ in range(_MOST_OBJECTS):
        start = body.find("{", start + 1)
        if start < 0:
            break
        if not re.match(r'\{\s*["}]', body[start : start + 200]):
            continue  # a brace in prose or in code
        try:
            found, _ = decoder.raw_decode(body, start)
        except (ValueError, RecursionError) as error:
            # What stands inside a broken object is not looked at: it is not the answer's first level.
            raise UnreadError(f"its JSON object is broken or cut off: {error}") from error
        assert isinstance(found, dict)
        return found
    raise UnreadError("it holds no JSON object")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands in it twice")
    return found


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except ArithmeticError as error:
        raise ValueError("a number in it is too large") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _descend(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif (
            isinstance(value, list)
            and part.isascii()
            and part.isdigit()
            and int(part[:9]) < len(value)
        ):
            value = value[int(part)]
        else:
            names = list(value)[:20] if isinstance(value, dict) else type(value).__name__
            raise UnreadError(
                f"the JSON has no field {path!r}: where {part!r} should be it has {names}"
            )
    return value


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int):
        value = Decimal(value)
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= MOST_DIGITS:
        return plain_number(value)
    return None
