"""Does a rationale's arithmetic hold, and does it end in the label's value?"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filters.arguments import check_number
from filters.limits import ABOVE, drop_above, read_field
from filters.rows import Judgement, Rows

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_NUMBERS = re.compile(rf"(?<![\w.]){_NUMBER}")
# "12 + 3 = 15", "12 + 3 is $15"
_SUM = re.compile(
    rf"({_NUMBER}(?:\s*[-+*/×÷]\s*\$?{_NUMBER})+)\s*(?:=|is|equals)\s*[$€£]?\s*(-?{_NUMBER})"
)
_LONGEST = 200  # characters of an expression; deeper ones are no arithmetic of a person

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Drop rows whose rationale and label do not add up.

    For labels that are numbers or expressions such as "(84 / 2)". The score is the number of
    findings: a sum in the rationale that is false ("12 + 3 = 16"), each counting once; a last
    number of the rationale that is not the label's value; a number in the label that the input
    does not hold. NaN for labels that are no arithmetic.

    Args:
        maximum: Rows with more findings are dropped; at least 0.
    """

    reason: ClassVar[str] = "arithmetic"
    drops = ABOVE
    maximum: int = 0

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, whole=True, remedy="try 0")

    def judge(self, rows: Rows) -> Judgement:
        """Do every row's sums."""
        labels, _ = read_field(rows, "label", self.reason)
        rationales, _ = read_field(rows, "rationale", self.reason)
        inputs, _ = read_field(rows, "input", self.reason)
        scores = [count_findings(*each) for each in zip(labels, rationales, inputs, strict=True)]
        warnings: tuple[str, ...] = ()
        if rows.alive.any() and np.isnan(scores)[rows.alive].all():
            warnings = (
                f"{self.reason}: no label is a number or an expression, so none was dropped; "
                "leave the filter out",
            )
        return drop_above(rows, np.array(scores, np.float64), self.maximum, warnings=warnings)


def count_findings(label: str, rationale: str, shown: str) -> float:
    """Return how many things do not add up in a label and its rationale; NaN if none can."""
    value = evaluate(label)
    if value is None:
        return math.nan
    found = 0
    for left, right in _SUM.findall(rationale):
        result = evaluate(left)
        found += result is not None and not _same(result, right)
    said = _NUMBERS.findall(rationale)
    found += bool(said) and not _same(value, said[-1])
    if re.search(r"[-+*/]", label.strip().lstrip("-+")):
        known = {_read(one) for one in _NUMBERS.findall(shown)}
        found += sum(_read(one) not in known for one in _NUMBERS.findall(label))
    return float(found)


def evaluate(text: str) -> float | None:
    """Return the value of an expression of numbers, brackets and + - * /; None for anything else.

    The text is parsed and walked, never executed.
    """
    plain = text.replace("×", "*").replace("÷", "/")
    plain = re.sub(r"[,$€£]", "", plain).strip()
    if not plain or len(plain) > _LONGEST or re.search(r"[^\d\s.+\-*/()]", plain):
        return None
    # Python refuses numbers such as 007.
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)
    try:
        value = _walk(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    return value if math.isfinite(value) else None


def _walk(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _walk(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_walk(node.left), _walk(node.right))
    raise ValueError("not arithmetic")


def _read(number: str) -> float:
    return float(number.replace(",", ""))


def _same(value: float, said: str) -> bool:
    """Say whether a number is a value, rounded to as many places as it has."""
    places = len(said.partition(".")[2])
    return abs(value - _read(said)) <= 0.5 * math.pow(10, -places) + 1e-9 * abs(value)
