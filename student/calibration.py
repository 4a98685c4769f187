"""Whether confidence means what it says: reliability bins, calibration error, Brier score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from student.errors import InputError

__all__ = ["brier", "expected_calibration_error", "reliability"]


def reliability(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> list[dict[str, Any]]:
    """Return equal-width bins of confidence with their mean confidence and accuracy.

    Each is {"low", "high", "count", "confidence", "accuracy"}; the last two are null when empty.
    """
    values, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if values.shape != correct.shape or values.ndim != 1 or bins < 1:
        raise InputError(
            f"{values.size} confidences, {correct.size} answers and {bins} bins; give one "
            "confidence per answer and at least one bin"
        )
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise InputError("a confidence is null or outside 0 to 1; give probabilities")
    place = np.minimum((values * bins).astype(int), bins - 1)
    found = []
    for i in range(bins):
        inside = place == i
        count = int(inside.sum())
        found.append(
            {
                "low": i / bins,
                "high": (i + 1) / bins,
                "count": count,
                "confidence": float(values[inside].mean()) if count else None,
                "accuracy": float(correct[inside].mean()) if count else None,
            }
        )
    return found


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> float:
    """Return sum_b n_b / n |accuracy_b - confidence_b| over equal-width bins (Guo et al. 2017)."""
    if len(confidences) == 0:
        raise InputError("no confidences to calibrate against")
    found = [b for b in reliability(confidences, right, bins=bins) if b["count"]]
    gaps = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in found)
    return float(gaps / len(confidences))


def brier(
    label_probs: Sequence[Sequence[float]], choices: Sequence[Sequence[str]], gold: Sequence[str]
) -> float:
    """Return the mean over rows of sum_k (p_k - [choice_k is gold])**2, from 0 to 2 (Brier 1950).

    `label_probs` and `choices` are aligned, row by row.
    """
    if not len(label_probs) == len(choices) == len(gold) > 0:
        raise InputError("label_probs, choices and gold must have the same length, at least 1")
    total = 0.0
    for probabilities, options, answer in zip(label_probs, choices, gold, strict=True):
        if len(probabilities) != len(options):
            raise InputError(f"{len(probabilities)} probabilities for {len(options)} choices")
        hits = (float(option == answer) for option in options)
        total += sum((p - hit) ** 2 for p, hit in zip(probabilities, hits, strict=True))
        total += float(answer not in options)  # what was not offered has probability 0
    return total / len(gold)
