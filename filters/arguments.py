"""The package's error, and the checks that every filter runs on its own arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real


class FilterError(ValueError):
    """An argument, a column or a row that no filter can work with.

    The message states the value, what was allowed and what to do next.
    """


def check_number(
    owner: str,
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    whole: bool = False,
    remedy: str,
) -> None:
    """Raise `FilterError` unless `value` is a finite number in [low, high], or (low, high]."""
    number = _as_number(value, whole)
    inside = low < number if open_low else low <= number
    if math.isfinite(number) and inside and number <= high:
        return
    wanted = "a whole number" if whole else "a number"
    bounds = []
    if low > -math.inf:
        bounds.append(f"above {low:g}" if open_low else f"at least {low:g}")
    if high < math.inf:
        bounds.append(f"at most {high:g}")
    allowed = " ".join([wanted, " and ".join(bounds)]).strip()
    raise FilterError(f"{owner}: {name} is {value!r}; it must be {allowed}; {remedy}")


def _as_number(value: object, whole: bool) -> float:
    """Return a number as a float, NaN if it is none (true and false are none)."""
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        return math.nan
    return float(value)


def check_choice(owner: str, name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise `FilterError` unless `value` is one of the words in `allowed`."""
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise FilterError(
            f"{owner}: {name} is {value!r}; it must be one of {words}; write {allowed[0]!r}"
        )


def check_flag(owner: str, name: str, value: object) -> None:
    """Raise `FilterError` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise FilterError(f"{owner}: {name} is {value!r}; it must be true or false")


def as_names(owner: str, name: str, value: object) -> tuple[str, ...]:
    """Return `value` (a column name or a list of them) as a tuple, or raise `FilterError`."""
    names = (value,) if isinstance(value, str) else value
    found = tuple(names) if isinstance(names, Iterable) else ()
    good = found and all(isinstance(item, str) and item for item in found)
    if not good or len(set(found)) != len(found):
        raise FilterError(
            f"{owner}: {name} is {value!r}; it must be a list of different column names, "
            "at least one; write for example ['input']"
        )
    return found


def as_set_names(owner: str, value: object) -> tuple[str, ...]:
    """Return `against` (names of sets, none for all) as a tuple, or raise `FilterError`."""
    names = (value,) if isinstance(value, str) else value
    found = tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(isinstance(item, str) and item for item in found) or len(set(found)) != len(found):
        raise FilterError(
            f"{owner}: against is {value!r}; it must be a list of different names of sets; "
            "leave it out to compare with all"
        )
    return tuple(str(item) for item in found)
