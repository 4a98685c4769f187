"""Patterns of personal data, confirmed by check digits where there are any."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

KINDS = ("email", "phone", "iban", "card")

_EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
# With a country's prefix, with an area in brackets, or in the groups of North America; what is
# only a row of digits is more often a product number.
_PHONE = re.compile(
    r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,11}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})(?![\w-])"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\w.-])\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\w-])")


def count_personal_data(text: str, kinds: Sequence[str] = KINDS) -> int:
    """Return how many pieces of personal data of these kinds a text holds."""
    return sum(
        sum(confirm(match.group()) for match in pattern.finditer(text))
        for kind, (pattern, confirm) in _FINDERS.items()
        if kind in kinds
    )


def _valid_iban(found: str) -> bool:
    """Check an IBAN's remainder (ISO 13616: letters as numbers from 10, modulo 97 is 1)."""
    compact = found.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def _valid_card(found: str) -> bool:
    """Check a card number's last digit (ISO/IEC 7812, the Luhn algorithm)."""
    digits = [int(sign) for sign in found if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _always(found: str) -> bool:
    return bool(found)


_FINDERS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (_EMAIL, _always),
    "phone": (_PHONE, _always),
    "iban": (_IBAN, _valid_iban),
    "card": (_CARD, _valid_card),
}
