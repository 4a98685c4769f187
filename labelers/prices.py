"""What hosted models cost, as far as it is known here: a small table with its date."""

from __future__ import annotations

from labelers.openai_api import DEFAULT_BASE_URL
from labelers.teachers import Prices, Teacher

#: The month in which the table was right.
PRICES_AS_OF = "2025-06"
#: Where the table's prices come from, in the words of a quote.
TABLE = f"by OpenAI's list of {PRICES_AS_OF}: give teacher.prices if they have changed"

#: US dollars per million prompt and completion tokens, without discounts for cached prompts or batches.
_OPENAI = {
    "gpt-4o": Prices(2.50, 10.00),
    "gpt-4o-mini": Prices(0.15, 0.60),
    "gpt-4.1": Prices(2.00, 8.00),
    "gpt-4.1-mini": Prices(0.40, 1.60),
    "gpt-4.1-nano": Prices(0.10, 0.40),
    "o3": Prices(2.00, 8.00),
    "o4-mini": Prices(1.10, 4.40),
}
#: Dated names of the same models. Others, such as the first gpt-4o, cost something else.
_SNAPSHOTS = {
    "gpt-4o-2024-08-06": "gpt-4o",
    "gpt-4o-2024-11-20": "gpt-4o",
    "gpt-4o-mini-2024-07-18": "gpt-4o-mini",
    "gpt-4.1-2025-04-14": "gpt-4.1",
    "gpt-4.1-mini-2025-04-14": "gpt-4.1-mini",
    "gpt-4.1-nano-2025-04-14": "gpt-4.1-nano",
    "o3-2025-04-16": "o3",
    "o4-mini-2025-04-16": "o4-mini",
}


def known_prices(model: str) -> Prices | None:
    """What OpenAI asked for a model in :data:`PRICES_AS_OF`; None for a model not in the table."""
    return _OPENAI.get(_SNAPSHOTS.get(model, model))


def prices_of(teacher: Teacher) -> tuple[Prices | None, str]:
    """A teacher's prices and where they come from: its own, or the table's for OpenAI's own URL."""
    if teacher.prices is not None:
        return teacher.prices, "as given"
    if str(getattr(teacher, "base_url", "")).rstrip("/") == DEFAULT_BASE_URL:
        prices = known_prices(teacher.model)
        if prices is not None:
            return prices, TABLE
    return None, "no prices"
