"""Turn a large teacher model and a pile of text into a curated training set and a T5 student.

Every command of the ``curate`` command line has a function of the same name here::

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
    from curate.exceptions import CurateError
    from curate.exports import SetExport, export_set
    from curate.pipeline import Run, evaluate, filter, label, report, run, train
    from curate.prediction import predict
    from curate.recipe import Recipe, load_recipe
    from curate.student_exports import ExportedStudent, export_student
    from curate.teacher_trials import Trials, teacher

__all__ = [
    "Ablation",
    "CurateError",
    "ExportedStudent",
    "Recipe",
    "Run",
    "SetExport",
    "Trials",
    "ablate",
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
]

_HOMES = {
    "Ablation": "ablations",
    "ablate": "ablations",
    "CurateError": "exceptions",
    "compare": "compare_command",
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
