"""Rules with a reason each: refusals, template residue, personal data, echoes, repetition.

The phrases are English; marks of chat templates, personal data, echoes and repetition are found in
any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filters.arguments import FilterError, as_names, check_number
from filters.limits import (
    ABOVE,
    add_known,
    as_texts,
    check_fields,
    drop_above,
    read_field,
    score_fields,
)
from filters.personal_data import KINDS, count_personal_data
from filters.rows import Floats, Judgement, Rows
from filters.words import split_words

_REFUSALS = (
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|virtual assistant)\b",
    r"^\W*i(?:['’]m| am) (?:sorry|afraid)\b[^.!?]{0,60}\b(?:can ?not|can['’]t|unable|not able|won['’]t)\b",
    r"^\W*(?:sorry,? (?:but )?)?(?:i|we) (?:can ?not|can['’]t|won['’]t|am unable to|['’]m unable to|"
    r"am not able to|['’]m not able to|must decline to) "
    r"(?:assist|help|comply|answer|provide|fulfil|complete|continue|determine|do that|engage|classify|label)",
    r"\bi (?:do not|don['’]t) have (?:access to|the ability to|enough (?:information|context) to)\b",
    r"\b(?:goes|is) against my (?:guidelines|policy|policies|programming)\b",
)
# Marks of chat templates, which no person writes.
_MARKS = (
    r"\{\{[^{}]*\}\}|\{%[^{}]*%\}",
    r"\[/?INST\]|<</?SYS>>",
    r"<\|[^|<>\s]{1,40}\|>",
    r"</s>|<(?:extra_id|unused)_?\d+>|<(?:bos|eos|pad|unk)>",
    r"\[(?:insert|your|add|enter)\b[^\]\n]{0,60}\]",
    r"\{(?:input|text|question|label|answer|choices|rationale)\}",
    r"^\s*#{2,4} ?(?:instruction|input|response|question|answer)\s*:?\s*$",
)
# Scaffolding of prompts: left over in an answer, but ordinary in an input.
_SCAFFOLDING = (
    r"\bso the (?:final )?answer is\b",
    r"^\s*answer choices\s*:",
    r"^\s*(?:q|question|user|human|assistant|system)\s*:",
    r"</?think>",
)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Drop rows in which the teacher refuses; the score is how many phrases say so.

    A phrase such as "I cannot" counts only where a refusal begins with it: "I cannot recommend
    this phone" is a review.

    Args:
        maximum: Rows with more findings are dropped; at least 0.
        patterns: Further regular expressions, read without regard to case.
        fields: Text columns; nulls are passed over.
    """

    reason: ClassVar[str] = "refusal"
    drops = ABOVE
    maximum: int = 0
    patterns: Sequence[str] = ()
    fields: Sequence[str] = ("rationale", "label")

    def __post_init__(self) -> None:
        _check_findings(self, self.reason, self.maximum, self.patterns, self.fields)

    def judge(self, rows: Rows) -> Judgement:
        """Count the phrases of refusal in every row."""
        found = _counter((*_REFUSALS, *self.patterns))
        scores = score_fields(rows, self.fields, self.reason, found, add_known)
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class Residue:
    """Drop rows with remains of a template: `{{`, `[INST]`, `<|im_end|>`, "So the answer is".

    The score is the number of findings. Words of a prompt's scaffolding ("Answer Choices:", "Q:")
    are looked for in labels and rationales only, as an input may well contain them.

    Args:
        maximum: Rows with more findings are dropped; at least 0.
        patterns: Further regular expressions, read without regard to case.
        fields: Text columns; nulls are passed over.
    """

    reason: ClassVar[str] = "residue"
    drops = ABOVE
    maximum: int = 0
    patterns: Sequence[str] = ()
    fields: Sequence[str] = ("input", "rationale", "label")

    def __post_init__(self) -> None:
        _check_findings(self, self.reason, self.maximum, self.patterns, self.fields)

    def judge(self, rows: Rows) -> Judgement:
        """Count the remains in every row."""
        answers = [name for name in self.fields if name in ("label", "rationale")]
        others = [name for name in self.fields if name not in answers]
        marks = (*_MARKS, *self.patterns)
        in_answers = _counter((*marks, *_SCAFFOLDING))
        scores = add_known(
            score_fields(rows, answers, self.reason, in_answers, add_known),
            score_fields(rows, others, self.reason, _counter(marks), add_known),
        )
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """Drop rows with e-mail addresses, telephone numbers, IBANs or card numbers.

    The score is the number of findings. Patterns and check digits find these, not names or
    addresses: for those, see what replaces personal data before rows are sent to a teacher.

    Args:
        maximum: Rows with more findings are dropped; at least 0.
        kinds: Which to look for: "email", "phone", "iban", "card".
        fields: Text columns; nulls are passed over.
    """

    reason: ClassVar[str] = "personal_data"
    drops = ABOVE
    maximum: int = 0
    kinds: Sequence[str] = KINDS
    fields: Sequence[str] = ("input", "rationale")

    def __post_init__(self) -> None:
        _check_findings(self, self.reason, self.maximum, (), self.fields)
        kinds = as_names(self.reason, "kinds", self.kinds)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise FilterError(
                f"{self.reason}: kinds names {unknown[0]!r}; the kinds are {', '.join(KINDS)}; "
                "take it out"
            )
        object.__setattr__(self, "kinds", kinds)

    def judge(self, rows: Rows) -> Judgement:
        """Count the findings in every row."""

        def count(found: list[str]) -> Floats:
            return np.array([count_personal_data(text, self.kinds) for text in found], np.float64)

        scores = score_fields(rows, self.fields, self.reason, count, add_known)
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class Echo:
    """Drop rows whose rationale repeats the prompt.

    The score is the share of the rationale's runs of `run` words that occur in the input or in the
    instruction; a rationale of fewer words is one run. NaN where there is no rationale.

    Args:
        maximum: Rows with a higher score are dropped; in [0, 1].
        run: Words per run; at least 1.
        instruction: What the teacher was told besides the input, if its repetition is to count.
        fields: Text columns that are checked; nulls are passed over.
    """

    reason: ClassVar[str] = "echo"
    drops = ABOVE
    maximum: float = 0.8
    run: int = 5
    instruction: str = ""
    fields: Sequence[str] = ("rationale",)

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, high=1, remedy="try 0.8")
        check_number(self.reason, "run", self.run, low=1, whole=True, remedy="try 5")
        if not isinstance(self.instruction, str):
            raise FilterError(f"{self.reason}: instruction is {self.instruction!r}; write a text")
        object.__setattr__(self, "fields", check_fields(self.reason, self.fields))

    def judge(self, rows: Rows) -> Judgement:
        """Compare every rationale with what the teacher was shown."""
        inputs, _ = read_field(rows, "input", self.reason)
        told = split_words([self.instruction]).to_list()[0]
        shown = split_words(inputs).to_list()

        def share(found: list[str]) -> Floats:
            said = split_words(found).to_list()
            pairs = zip(said, shown, strict=True)
            return np.array([contained(one, (other, told), self.run) for one, other in pairs])

        scores = score_fields(rows, self.fields, self.reason, share, np.fmax)
        return drop_above(rows, scores, self.maximum)


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Drop rows that go round in circles.

    The score is the share of a text's runs of three words that occurred before in it (as in Rae
    et al. 2021, Gopher, appendix A1), in the field where it is highest; texts of fewer than twelve
    words score 0.

    Args:
        maximum: Rows with a higher score are dropped; in [0, 1].
        fields: Text columns; nulls are passed over.
    """

    reason: ClassVar[str] = "repetition"
    drops = ABOVE
    maximum: float = 0.5
    fields: Sequence[str] = ("input", "rationale")

    def __post_init__(self) -> None:
        check_number(self.reason, "maximum", self.maximum, low=0, high=1, remedy="try 0.5")
        object.__setattr__(self, "fields", check_fields(self.reason, self.fields))

    def judge(self, rows: Rows) -> Judgement:
        """Count every row's repeated runs of words."""

        def share(found: list[str]) -> Floats:
            return np.array([_repeated(words) for words in split_words(found).to_list()], float)

        scores = score_fields(rows, self.fields, self.reason, share, np.fmax)
        return drop_above(rows, scores, self.maximum)


def contained(words: Sequence[str], others: Iterable[Sequence[str]], run: int) -> float:
    """Return the share of a text's runs of `run` words that occur in any of the other texts."""
    length = min(run, len(words))
    known = {one for other in others for one in _runs(other, length)}
    said = _runs(words, length)
    return sum(one in known for one in said) / len(said) if said else np.nan


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _repeated(words: Sequence[str]) -> float:
    if len(words) < 12:
        return 0.0
    runs = _runs(words, 3)
    return 1 - len(set(runs)) / len(runs)


def _counter(patterns: Sequence[str]) -> Callable[[list[str]], Floats]:
    """Return what counts the matches of regular expressions in each text."""
    compiled = [re.compile(each, re.IGNORECASE | re.MULTILINE) for each in patterns]

    def count(found: list[str]) -> Floats:
        counts = [sum(len(each.findall(text)) for each in compiled) for text in found]
        return np.array(counts, dtype=np.float64)

    return count


def _check_findings(
    owner: object, reason: str, maximum: object, patterns: object, fields: object
) -> None:
    """Check what filters that count findings have in common, and store it in its final form."""
    check_number(reason, "maximum", maximum, low=0, whole=True, remedy="0 forgives nothing")
    if hasattr(owner, "patterns"):
        listed = as_texts(reason, "patterns", patterns)
        for each in listed:
            try:
                re.compile(each)
            except re.error as error:
                raise FilterError(
                    f"{reason}: patterns holds {each!r}, which is no regular expression ({error}); "
                    "put a backslash before signs that are meant as such"
                ) from error
        object.__setattr__(owner, "patterns", listed)
    object.__setattr__(owner, "fields", check_fields(reason, fields))
