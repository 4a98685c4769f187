"""Takes personal data out of a text before it is sent to a teacher.

What is found is found by the recognisers of presidio-analyzer: patterns with the checks that belong to
them (Luhn's for cards, the checksum of an IBAN, the numbering plans of telephone numbers). They run one
by one, without presidio's language engine, so no model is downloaded and nothing leaves the process. A
person's name has no pattern: names need a spaCy pipeline, which the user names.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labelers.teachers import RowError

#: Entity: presidio's recogniser, and the least score at which a match counts. A match that passed its
#: checksum scores 1; a URL scores 0.6 only where it begins with http(s)://, else "great.it" were one.
_RECOGNISERS: dict[str, tuple[str, float]] = {
    "EMAIL_ADDRESS": ("EmailRecognizer", 0.5),
    "PHONE_NUMBER": ("PhoneRecognizer", 0.4),
    "CREDIT_CARD": ("CreditCardRecognizer", 1.0),
    "IBAN_CODE": ("IbanRecognizer", 1.0),
    "IP_ADDRESS": ("IpRecognizer", 0.6),
    "MAC_ADDRESS": ("MacAddressRecognizer", 0.6),
    "CRYPTO": ("CryptoRecognizer", 1.0),
    "URL": ("UrlRecognizer", 0.6),
    "US_SSN": ("UsSsnRecognizer", 0.5),
}
#: Entities that need a spaCy pipeline, and what such pipelines call them.
_NAMED = {
    "PERSON": {"PERSON", "PER"},
    "LOCATION": {"GPE", "LOC", "FAC"},
    "ORGANIZATION": {"ORG"},
}
#: Written in several ways, with the same letters and digits.
_NUMBERS = {"PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "MAC_ADDRESS"}

DEFAULT_ENTITIES = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS")
DEFAULT_REGIONS = ("US", "CA", "GB", "DE", "FR", "IN", "BR", "IL")

#: Start, end, entity.
_Span = tuple[int, int, str]


class PrivacyError(ValueError):
    """Redaction cannot be done as it is set up: an unknown entity, or a package that is missing."""


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """Which personal data is replaced, and by what means.

    Args:
        entities: What to replace: ``EMAIL_ADDRESS``, ``PHONE_NUMBER``, ``CREDIT_CARD``, ``IBAN_CODE``,
            ``IP_ADDRESS``, ``MAC_ADDRESS``, ``CRYPTO`` (Bitcoin addresses), ``URL`` (with http or
            https), ``US_SSN``; with ``model`` also ``PERSON``, ``LOCATION``, ``ORGANIZATION``.
        regions: Countries (ISO 3166, two letters) whose telephone numbers are known without their
            international prefix. Numbers that begin with + are found whatever the country.
        model: Name or folder of an installed spaCy pipeline with named entities, or None.

    Raises:
        PrivacyError: If an entity or region is unknown, an entity needs a model that is not named,
            or the extra ``privacy`` or the model is not installed.
    """

    entities: tuple[str, ...] = DEFAULT_ENTITIES
    regions: tuple[str, ...] = DEFAULT_REGIONS
    model: str | None = None

    def __post_init__(self) -> None:
        # Recipes bring lists.
        object.__setattr__(self, "entities", tuple(self.entities))
        object.__setattr__(self, "regions", tuple(self.regions))
        allowed = [*_RECOGNISERS, *_NAMED]
        if not self.entities:
            raise PrivacyError(f"privacy.entities is empty: choose among {', '.join(allowed)}")
        for entity in self.entities:
            if entity not in allowed:
                raise PrivacyError(
                    f"privacy.entities holds {entity!r}: choose among {', '.join(allowed)}"
                )
            if entity in _NAMED and self.model is None:
                raise PrivacyError(
                    f"privacy.entities holds {entity!r}, which no pattern finds: name an installed spaCy "
                    "pipeline in privacy.model, such as en_core_web_sm, or remove it"
                )
        # Loaded now, so that what is missing is told before the first row is read.
        _ = self._recognisers, self._pipeline

    @cached_property
    def _recognisers(self) -> list[tuple[str, Any, float]]:
        chosen = [entity for entity in self.entities if entity in _RECOGNISERS]
        if not chosen:
            return []
        try:
            import phonenumbers
            from presidio_analyzer import predefined_recognizers
        except ImportError as error:
            raise PrivacyError(
                "redaction needs presidio-analyzer, which is not installed: run "
                "`pip install 'curate-distill[privacy]'`"
            ) from error
        unknown = [r for r in self.regions if r not in phonenumbers.SUPPORTED_REGIONS]
        if unknown:
            raise PrivacyError(
                f"privacy.regions holds {unknown[0]!r}: ISO codes of two capital letters are allowed, "
                "such as US or DE"
            )
        found = []
        for entity in chosen:
            name, least = _RECOGNISERS[entity]
            kind = getattr(predefined_recognizers, name)
            extra = {"supported_regions": self.regions} if entity == "PHONE_NUMBER" else {}
            recogniser = kind(**extra)
            if entity == "EMAIL_ADDRESS":
                # Its check of the domain would fetch a list of public suffixes over the network, and let
                # pass an address within a company (jane@corp.internal).
                recogniser.validate_result = lambda text: None
            found.append((entity, recogniser, least))
        return found

    @cached_property
    def _pipeline(self) -> Any:
        wanted = [entity for entity in self.entities if entity in _NAMED]
        if not wanted:
            return None
        try:
            import spacy
        except ImportError as error:
            raise PrivacyError(
                "privacy.model needs spaCy, which is not installed: run "
                "`pip install 'curate-distill[privacy]'`"
            ) from error
        assert self.model is not None
        try:
            return spacy.load(self.model)
        except OSError as error:
            raise PrivacyError(
                f"privacy.model is {self.model!r}, and spaCy finds no such pipeline: install it with "
                f"`python -m spacy download {self.model}`, or name its folder"
            ) from error

    def redact(self, text: str) -> tuple[str, Counter[str]]:
        """Replace what is found by placeholders such as ``<EMAIL_ADDRESS_1>``.

        Within the text, one value has one number and two values have two, so that the text keeps its
        sense. A text that was redacted before comes back as it is.

        Returns:
            The text with placeholders, and how many places were replaced, by entity.

        Raises:
            RowError: If a pattern did not come to an end in time; the text is then not to be sent.
        """
        spans = _merged([*self._patterns(text), *self._names(text)])
        if not spans:
            return text, Counter()
        numbers = _numbers_taken(text)
        given: dict[tuple[str, str], str] = {}
        counts: Counter[str] = Counter()
        parts = []
        at = 0
        for start, end, entity in spans:
            value = text[start:end].casefold()
            if entity in _NUMBERS:
                value = "".join(character for character in value if character.isalnum())
            if (entity, value) not in given:
                numbers[entity] += 1
                given[entity, value] = f"<{entity}_{numbers[entity]}>"
            parts += [text[at:start], given[entity, value]]
            counts[entity] += 1
            at = end
        return "".join([*parts, text[at:]]), counts

    def _patterns(self, text: str) -> list[_Span]:
        spans = []
        for entity, recogniser, least in self._recognisers:
            begun = time.monotonic()
            for match in recogniser.analyze(text, [entity]):
                if match.score >= least:
                    spans.append(_trimmed(text, match.start, match.end, entity))
            if time.monotonic() - begun >= _pattern_timeout():
                # Presidio passes over a pattern that takes too long, with a line in the log.
                raise RowError(
                    f"looking for {entity} in a text of {len(text):,} characters took too long, so it is "
                    "not known to be free of it: shorten the row",
                    kind="redaction",
                )
        return spans

    def _names(self, text: str) -> list[_Span]:
        if self._pipeline is None:
            return []
        entity_of = {
            label: entity
            for entity, labels in _NAMED.items()
            if entity in self.entities
            for label in labels
        }
        return [
            (found.start_char, found.end_char, entity_of[found.label_])
            for found in self._pipeline(text).ents
            if found.label_ in entity_of
        ]


def _pattern_timeout() -> float:
    from presidio_analyzer.pattern_recognizer import REGEX_TIMEOUT_SECONDS

    return float(REGEX_TIMEOUT_SECONDS)


def _trimmed(text: str, start: int, end: int, entity: str) -> _Span:
    """Without the quotes and the full stop that a URL's pattern takes along."""
    if entity == "URL":
        value = text[start:end]
        start += len(value) - len(value.lstrip("\"'"))
        end -= len(value) - len(value.rstrip("\"'.,;:!?"))
    return start, end, entity


def _merged(spans: Sequence[_Span]) -> list[_Span]:
    """Overlapping finds as one, of the longest's kind: no part of any of them may stay."""
    merged: list[_Span] = []
    longest = 0
    for start, end, entity in sorted(spans):
        if merged and start < merged[-1][1]:
            before = merged[-1]
            if end - start > longest:
                longest, kind = end - start, entity
            else:
                kind = before[2]
            merged[-1] = (before[0], max(before[1], end), kind)
        else:
            merged.append((start, end, entity))
            longest = end - start
    return merged


def _numbers_taken(text: str) -> Counter[str]:
    """The highest number of each placeholder that stands in the text already."""
    taken: Counter[str] = Counter()
    for entity, number in re.findall(r"<([A-Z_]+)_(\d+)>", text):
        taken[entity] = max(taken[entity], int(number))
    return taken
