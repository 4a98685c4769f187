"""What is wrong with the rule by which a task's answers are to be read, said before anything is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from labelers.answer_rules import Equation, JsonField, Number, Pattern
from labelers.values import answer_group, canonical_number, pattern_finds

#: Patterns longer than this are refused.
LONGEST_PATTERN = 1_000


def rule_problem(
    rule: object, labels: Sequence[str] | None, *, per_row: bool, letters: bool
) -> str | None:
    """What is wrong with a task's ``answer``, and what to write instead; None if nothing is.

    Args:
        rule: The value given.
        labels: The task's label set, if it has one.
        per_row: Whether each row has its own choices.
        letters: Whether answers are given by letter.
    """
    if isinstance(rule, Pattern):
        return _pattern_problem(rule.pattern)
    if isinstance(rule, JsonField):
        paths = [rule.field] if rule.rationale is None else [rule.field, rule.rationale]
        for path in paths:
            if not isinstance(path, str) or not all(part.strip() for part in path.split(".")):
                return f"the field {path!r} has an empty part: write `label` or `result.label`"
        return None
    if isinstance(rule, Equation):
        if labels is not None or per_row:
            return "equations are free text: leave out `answer`, or `labels` and `choices`"
        return None
    if isinstance(rule, Number):
        if per_row or (labels is not None and letters):
            return "options that have letters are read by them: leave out `answer`"
        return _number_labels_problem(labels or ())
    return f"{rule!r} is no rule: Number(), Equation(), Pattern(...) or JsonField(...) is one"


def _number_labels_problem(labels: Sequence[str]) -> str | None:
    seen: dict[str, str] = {}
    for label in labels:
        value = canonical_number(label)
        if value is None:
            return (
                f"the label {label!r} is no number: leave out `answer` to read labels by their text"
            )
        if seen.setdefault(value, label) != label:
            return f"the labels {seen[value]!r} and {label!r} are the same number: keep one"
    return None


def _pattern_problem(pattern: str) -> str | None:
    if not isinstance(pattern, str) or not pattern:
        return f"the pattern is {pattern!r}: write a regular expression with one group"
    if len(pattern) > LONGEST_PATTERN:
        return f"the pattern has {len(pattern)} characters: at most {LONGEST_PATTERN} are allowed"
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"the pattern {pattern!r} is no regular expression: {error}"
    if compiled.groups != 1 and "answer" not in compiled.groupindex:
        return (
            f"the pattern {pattern!r} has {compiled.groups} groups: put brackets around the answer, once, "
            "or name that group (?P<answer>...)"
        )
    if answer_group(pattern) > 9:
        return f"the pattern {pattern!r} has its answer in group {answer_group(pattern)}: at most 9"
    try:
        pattern_finds("", pattern)
    except ValueError as error:
        return (
            f"the pattern {pattern!r} cannot be matched in linear time: {error}; look-around and "
            "backreferences are not allowed"
        )
    return None
