"""Turn a large teacher model and a pile of text into a curated training set and a T5 student.

The commands of ``curate`` have functions here, most of the same name::

    import curate

    run = curate.run("recipe.yaml")
    print(run.verdict, run.metrics["student"]["accuracy"])
    curate.predict(run.student, ["The strap broke on day two."])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.ablations import Ablation, ablate
    from curate.beginnings import init
    from curate.compare_command import compare
    from curate.errors import ErrorAnalysis, analyse_errors
    from curate.exceptions import CurateError
    from curate.exports import SetExport, export_set
    from curate.next_rows import choose_next
    from curate.pipeline import Run, evaluate, filter, label, report, run, train
    from curate.prediction import predict
    from curate.recipe import Recipe, load_recipe
    from curate.review_command import write_review
    from curate.student_exports import ExportedStudent, export_student
    from curate.teacher_trials import Trials, teacher

__all__ = [
    "Ablation",
    "CurateError",
    "ErrorAnalysis",
    "ExportedStudent",
    "Recipe",
    "Run",
    "SetExport",
    "Trials",
    "ablate",
    "analyse_errors",
    "choose_next",
    "compare",
    "evaluate",
    "export_set",
    "export_student",
    "filter",
    "init",
    "label",
    "load_recipe",
    "predict",
    "report",
    "run",
    "teacher",
    "train",
    "write_review",
]

_HOMES = {
    "Ablation": "ablations",
    "ablate": "ablations",
    "CurateError": "exceptions",
    "ErrorAnalysis": "errors",
    "analyse_errors": "errors",
    "choose_next": "next_rows",
    "compare": "compare_command",
    "write_review": "review_command",
    "ExportedStudent": "student_exports",
    "export_student": "student_exports",
    "SetExport": "exports",
    "export_set": "exports",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "init": "beginnings",
    "predict": "prediction",
    "Trials": "teacher_trials",
    "teacher": "teacher_trials",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used, so that `import curate` and `curate --help` answer at once.
    if name not in __all__:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"curate.{_HOMES.get(name, 'pipeline')}"), name)
