"""Distil labels and rationales into a small T5 student, predict with it, and measure it.

Importing this package is cheap: torch and transformers load with the first function that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from student.baselines import Baseline, majority, tfidf
    from student.calibration import brier, expected_calibration_error, reliability
    from student.cards import model_card, write_card
    from student.errors import CheckpointError, InputError, StudentError, TrainingError
    from student.metrics import (
        METRICS,
        accuracy,
        bootstrap_interval,
        confusion_matrix,
        evaluate,
        exact_match,
        macro_f1,
        per_class,
    )
    from student.prediction import Student, load, predict
    from student.training import TrainingResult, train

__all__ = [
    "METRICS",
    "Baseline",
    "CheckpointError",
    "InputError",
    "Student",
    "StudentError",
    "TrainingError",
    "TrainingResult",
    "accuracy",
    "bootstrap_interval",
    "brier",
    "confusion_matrix",
    "evaluate",
    "exact_match",
    "expected_calibration_error",
    "load",
    "macro_f1",
    "majority",
    "model_card",
    "per_class",
    "predict",
    "reliability",
    "tfidf",
    "train",
    "write_card",
]

_HOMES = {
    "student.baselines": ("Baseline", "majority", "tfidf"),
    "student.calibration": ("brier", "expected_calibration_error", "reliability"),
    "student.cards": ("model_card", "write_card"),
    "student.errors": ("CheckpointError", "InputError", "StudentError", "TrainingError"),
    "student.metrics": (
        "METRICS",
        "accuracy",
        "bootstrap_interval",
        "confusion_matrix",
        "evaluate",
        "exact_match",
        "macro_f1",
        "per_class",
    ),
    "student.prediction": ("Student", "load", "predict"),
    "student.training": ("TrainingResult", "train"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'student' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
