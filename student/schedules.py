"""The learning rate of every step."""

from __future__ import annotations

import math

__all__ = ["SCHEDULES", "rate_at"]

SCHEDULES = ("linear", "cosine", "constant")


def rate_at(step: int, steps: int, peak: float, schedule: str, warmup_ratio: float) -> float:
    """Return the rate of step 1..steps: up to `peak` in a line, then as `schedule` says.

    With w = ceil(warmup_ratio * steps) warm-up steps, and after them f = (step - w) / (steps - w + 1),
    which is below 1 up to the last step:

        step <= w    peak * step / w
        "linear"     peak * (1 - f), from just below the peak
        "cosine"     peak * (1 + cos(pi f)) / 2   (Loshchilov & Hutter 2017, one period)
        "constant"   peak
    """
    warmup = math.ceil(warmup_ratio * steps)
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant":
        return peak
    share = (step - warmup) / (steps - warmup + 1)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * share)) / 2
    return peak * (1 - share)
