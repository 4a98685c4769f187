"""Gold: what people say of a row, one label or several references, of which each is as good."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from curate.tables import SourceError, is_null

__all__ = [
    "check_gold",
    "first_gold",
    "in_one_shape",
    "nearest_gold",
    "plain_text",
    "read_gold",
    "references_of",
    "shown_gold",
]

#: How a JSON list of texts begins; one of numbers may well be an answer.
_JSON_LIST = re.compile(r'\s*\[\s*"')


def read_gold(
    value: Any, place: str, *, separator: str | None = None, as_json: bool = False
) -> str | list[str] | None:
    """A cell of the column that ``data.gold`` names: a text, a list of references, or None.

    Args:
        value: The cell.
        place: Where it stands, for messages.
        separator: The task's: then a list is one answer that is a set, and is joined to one text.
        as_json: Whether the source holds nothing but text, so that a list stands there as JSON.

    Raises:
        SourceError: For what is neither a label nor a list of labels.
    """
    if as_json and isinstance(value, str) and _JSON_LIST.match(value):
        value = _from_json(value, place)
    if isinstance(value, str) or not hasattr(value, "__len__"):
        text = plain_text(value)
        return None if text is None or not text.strip() else text
    if isinstance(value, bytes) or not isinstance(value, Iterable) or hasattr(value, "keys"):
        raise SourceError(
            f"{place} is {str(value)[:80]!r}: a label is needed, or a list of them, each right"
        )
    found = list(dict.fromkeys(_reference(each, place) for each in value))
    if separator is not None:
        return _as_set(found, separator, place)
    return found or None


def _from_json(text: str, place: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{place} is {text[:80]!r}, which begins as a JSON list of references and is none ({error.msg} "
            f"at character {error.pos + 1}): correct it; a text that is no list can stand in a .jsonl file"
        ) from error
    return found


def _reference(value: Any, place: str) -> str:
    text = None if hasattr(value, "__len__") and not isinstance(value, str) else plain_text(value)
    if text is None or not text.strip():
        raise SourceError(
            f"{place} is a list with {str(value)[:80]!r} in it: each reference must be a text that is not "
            "empty; correct or remove it"
        )
    return text


def _as_set(labels: Sequence[str], separator: str, place: str) -> str | None:
    for label in labels:
        if separator in label:
            raise SourceError(
                f"{place} has the label {label!r}, in which task.separator {separator!r} stands: it would be "
                "taken for several; name another separator"
            )
    return separator.join(labels) or None


def plain_text(value: Any) -> str | None:
    """A cell as text, 2.0 as "2"; None where it is null."""
    if is_null(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def check_gold(gold: Any, allowed: Sequence[str] | None, place: str) -> None:
    """Refuse gold outside a closed label set.

    Raises:
        SourceError: For the first label, or the first of several references, that is not in it.
    """
    for label in references_of(gold):
        if allowed is not None and label not in allowed:
            said = f"has the reference {label!r}" if isinstance(gold, list) else f"is {label!r}"
            raise SourceError(
                f"{place} {said}, which is not one of {list(allowed)}: correct the row or add the label to "
                "task.labels"
            )


def in_one_shape(golds: Sequence[Any]) -> list[Any]:
    """Texts where no row has several references, else lists throughout: a column is of one kind."""
    if any(isinstance(gold, list) and len(gold) > 1 for gold in golds):
        return [references_of(gold) or None for gold in golds]
    return [first_gold(gold) for gold in golds]


def references_of(gold: Any) -> list[str]:
    """All that is right in a row, as a list; empty where people said nothing."""
    if isinstance(gold, list):
        return gold
    return [gold] if isinstance(gold, str) else []


def first_gold(gold: Any) -> str | None:
    """The human label; of several references the first, which is the one to be learned."""
    return next(iter(references_of(gold)), None)


def nearest_gold(gold: Any, said: Any) -> str | None:
    """The reference that was answered, else the first: what an answer is held against as one label."""
    return said if isinstance(said, str) and said in references_of(gold) else first_gold(gold)


def shown_gold(gold: Any) -> str:
    """Gold on one line: several references with a stroke between them."""
    return " / ".join(references_of(gold))
