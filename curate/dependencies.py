"""What answers depend on in a recipe: a change of anything else asks nobody anew."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import filters
from curate.recipe import Recipe
from curate.recipe_filters import filters_of
from curate.recipe_teachers import (
    WITHOUT_EFFECT_ON_ANSWERS,
    LlamaCppSection,
    RecordedSection,
    VLLMSection,
)
from curate.references import encoders_of, files_mark


def answers_depend_on(section: BaseModel, base: Path) -> dict[str, Any]:
    """A section's values that change answers, as plain JSON values, with the marks of its files.

    Speed, patience, prices and addresses are left out, in the section and in those inside it.

    Args:
        section: A teacher's section, or one that holds teachers.
        base: The recipe's folder.
    """
    values: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if name in WITHOUT_EFFECT_ON_ANSWERS:
            continue
        if isinstance(value, BaseModel):
            value = answers_depend_on(value, base)
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            value = [answers_depend_on(each, base) for each in value]
        values[name] = value
    if isinstance(section, LlamaCppSection | VLLMSection):
        values["files"] = files_mark(section.model, "teacher", base)
    if isinstance(section, RecordedSection) and section.log:
        log = base / section.log
        values["log_sha256"] = sha256(log.read_bytes()).hexdigest() if log.exists() else None
    return values


def filters_depend_on(recipe: Recipe, base: Path) -> list[Any]:
    """What decides about rows besides the rows themselves, as plain JSON values.

    Names are those of the recipe, and files are told by their contents: no path of this machine is
    among them.

    Args:
        recipe: The recipe.
        base: The recipe's folder.
    """
    fitted = [each.fitted for each in filters_of(recipe) if isinstance(each, filters.Ensemble)]
    files = [name for name in (recipe.data.review, *fitted) if name is not None]
    files += recipe.data.references.values()
    models = [name for name in (recipe.embedder, *encoders_of(recipe)) if name is not None]
    return [
        filters.policy(filters_of(recipe)),
        [(name, _content(base / Path(name).expanduser())) for name in files],
        list(recipe.data.references),
        [(name, files_mark(name, "embedder", base)) for name in models],
        recipe.seed,
        _scores_depend_on(recipe, base),
    ]


def _content(path: Path) -> str | None:
    """Hash of a file; None where the name is no file's."""
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _scores_depend_on(recipe: Recipe, base: Path) -> list[Any]:
    section, found = recipe.scores, list[Any]()
    if section is None:
        return found
    if section.out_of_fold is not None:
        student = recipe.student
        found.append(section.out_of_fold.model_dump(mode="json"))
        found.append([student.model_dump(mode="json"), files_mark(student.model, "student", base)])
        found.append([recipe.task.labels, recipe.task.template])
    if section.judge is not None:
        judge = section.judge.teacher or next(iter(recipe.teacher.asked()))
        found.append(section.judge.model_dump(mode="json", exclude={"teacher"}))
        found.append([answers_depend_on(judge, base), recipe.task.instruction])
        found.append(recipe.privacy.model_dump(mode="json") if recipe.privacy else None)
    if section.perplexity is not None:
        found.append(section.perplexity.model_dump(mode="json"))
        found.append(files_mark(section.perplexity.model, "student", base))
    return found
