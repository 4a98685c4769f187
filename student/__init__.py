"""Distil labels and rationales into a small T5 student, predict with it, and measure it.

Importing this package is cheap: torch and transformers load with the first function that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from student.abstention import choose_threshold, coverage_table
    from student.baselines import Baseline, majority, tfidf
    from student.batches import collate, encode
    from student.calibration import brier, expected_calibration_error, reliability
    from student.cards import model_card, write_card
    from student.comparisons import mcnemar
    from student.divergences import divergence
    from student.errors import CheckpointError, ExportError, InputError, StudentError, TrainingError
    from student.examples import read_examples
    from student.exports import Export, export
    from student.formatting import Formatting
    from student.measurements import measure, perplexity, reference_losses
    from student.metrics import (
        METRICS,
        Metric,
        accuracy,
        bootstrap_interval,
        compare,
        confusion_matrix,
        evaluate,
        exact_match,
        macro_f1,
        matthews,
        per_class,
        value_accuracy,
    )
    from student.objectives import label_only, multitask
    from student.prediction import Student, load, predict
    from student.rationales import write_rationales
    from student.set_metrics import micro_f1, set_macro_f1, subset_accuracy
    from student.smaller_students import shrink
    from student.soft_labels import soft_label
    from student.teacher_cache import cache_teacher, cached_teacher, example_keys
    from student.training import TrainingResult, train
    from student.white_box import WhiteBox, live_teacher, white_box_loss

__all__ = [
    "METRICS",
    "Baseline",
    "CheckpointError",
    "Export",
    "ExportError",
    "Formatting",
    "InputError",
    "Metric",
    "Student",
    "StudentError",
    "TrainingError",
    "TrainingResult",
    "WhiteBox",
    "accuracy",
    "bootstrap_interval",
    "brier",
    "cache_teacher",
    "cached_teacher",
    "choose_threshold",
    "collate",
    "compare",
    "confusion_matrix",
    "coverage_table",
    "divergence",
    "encode",
    "evaluate",
    "exact_match",
    "example_keys",
    "expected_calibration_error",
    "export",
    "label_only",
    "live_teacher",
    "load",
    "macro_f1",
    "majority",
    "matthews",
    "mcnemar",
    "measure",
    "micro_f1",
    "model_card",
    "multitask",
    "per_class",
    "perplexity",
    "predict",
    "read_examples",
    "reference_losses",
    "reliability",
    "set_macro_f1",
    "shrink",
    "soft_label",
    "subset_accuracy",
    "tfidf",
    "train",
    "value_accuracy",
    "white_box_loss",
    "write_card",
    "write_rationales",
]

_HOMES = {
    "student.baselines": ("Baseline", "majority", "tfidf"),
    "student.calibration": ("brier", "expected_calibration_error", "reliability"),
    "student.cards": ("model_card", "write_card"),
    "student.errors": (
        "CheckpointError",
        "ExportError",
        "InputError",
        "StudentError",
        "TrainingError",
    ),
    "student.abstention": ("choose_threshold", "coverage_table"),
    "student.comparisons": ("mcnemar",),
    "student.exports": ("Export", "export"),
    "student.measurements": ("measure", "perplexity", "reference_losses"),
    "student.metrics": (
        "METRICS",
        "Metric",
        "accuracy",
        "bootstrap_interval",
        "compare",
        "confusion_matrix",
        "evaluate",
        "exact_match",
        "macro_f1",
        "matthews",
        "per_class",
        "value_accuracy",
    ),
    "student.set_metrics": ("micro_f1", "set_macro_f1", "subset_accuracy"),
    "student.prediction": ("Student", "load", "predict"),
    "student.training": ("TrainingResult", "train"),
    "student.batches": ("collate", "encode"),
    "student.divergences": ("divergence",),
    "student.examples": ("read_examples",),
    "student.formatting": ("Formatting",),
    "student.objectives": ("label_only", "multitask"),
    "student.rationales": ("write_rationales",),
    "student.smaller_students": ("shrink",),
    "student.soft_labels": ("soft_label",),
    "student.teacher_cache": ("cache_teacher", "cached_teacher", "example_keys"),
    "student.white_box": ("WhiteBox", "live_teacher", "white_box_loss"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'student' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
