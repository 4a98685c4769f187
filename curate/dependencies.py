"""What answers depend on in a recipe: a change of anything else asks nobody anew."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from curate.recipe_teachers import (
    WITHOUT_EFFECT_ON_ANSWERS,
    LlamaCppSection,
    RecordedSection,
    VLLMSection,
)
from curate.references import files_mark


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
