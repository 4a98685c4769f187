"""What the options of `train` may be; checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from student.curriculum import CURRICULA
from student.errors import InputError
from student.objectives import OBJECTIVES
from student.schedules import SCHEDULES

__all__ = ["ALLOWED", "NEUTRAL", "check_options"]


def _whole(minimum: int) -> Callable[[Any], bool]:
    return lambda value: _is(value, Integral) and value >= minimum


def _number(allowed: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda value: _is(value, Real) and allowed(value)


def _is(value: Any, kind: type) -> bool:
    """Say whether it is such a number, numpy's too; true and false are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "objective": (lambda v: v in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}"),
    "schedule": (lambda v: v in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "alpha": (_number(lambda v: 0 <= v <= 1), "between 0 and 1"),
    "soft_weight": (_number(lambda v: 0 <= v <= 1), "between 0 and 1"),
    "temperature": (
        lambda v: v is None or _number(lambda t: t > 0)(v),
        "null (1 for soft_label, 2 for white_box) or above 0",
    ),
    "shared_encoder": (lambda v: type(v) is bool, "true or false"),
    "epochs": (_whole(1), "a whole number, at least 1"),
    "batch_size": (_whole(1), "a whole number, at least 1"),
    "gradient_accumulation": (_whole(1), "a whole number, at least 1"),
    "learning_rate": (_number(lambda v: 0 < v < 1), "above 0 and below 1"),
    "warmup_ratio": (_number(lambda v: 0 <= v <= 1), "between 0 and 1"),
    "weight_decay": (_number(lambda v: v >= 0), "at least 0"),
    "max_gradient_norm": (_number(lambda v: v > 0), "above 0"),
    "max_input_tokens": (_whole(8), "a whole number, at least 8"),
    "max_label_tokens": (_whole(2), "a whole number, at least 2"),
    "max_rationale_tokens": (_whole(2), "a whole number, at least 2"),
    "validation_fraction": (_number(lambda v: 0 <= v < 1), "from 0 to below 1"),
    "early_stopping": (lambda v: v is None or _whole(1)(v), "null or a whole number, at least 1"),
    "curriculum": (lambda v: v is None or v in CURRICULA, f"null or {', '.join(CURRICULA)}"),
    "lora": (lambda v: v is None or isinstance(v, Mapping), "null or settings such as {'rank': 8}"),
    "load_in_4bit": (lambda v: type(v) is bool, "true or false"),
    "checkpoint_every": (
        lambda v: v is None or _whole(0)(v),
        "null (every five minutes) or a whole number of steps, 0 for never",
    ),
    "resume": (lambda v: v == "auto" or type(v) is bool, "'auto', true or false"),
    "seed": (_whole(0), "a whole number, at least 0"),
}
"""Of each option that is a plain value: whether a value is allowed, and what is, in words."""

NEUTRAL = ("checkpoint_every", "resume")
"""Options that do not change what is learnt: a checkpoint may be taken up with others of them."""


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, numbers as Python's own, which JSON can hold.

    Raises `InputError` for the first one whose value is not allowed.
    """
    for name, (allowed, words) in ALLOWED.items():
        if not allowed(options[name]):
            raise InputError(f"{name}={options[name]!r}; it must be {words}")
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    if _is(value, Integral):
        return int(value)
    return float(value) if _is(value, Real) else value
