"""The recipe's section ``trials``: variants of task and teacher that ``curate teacher`` compares."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from curate.recipe_teachers import OpenAISection, Section

#: The variant that changes nothing.
BASE = "base"
#: Fewer rows than these tell no variant from another.
LEAST_ROWS = 20


def check_key(key: str) -> None:
    """See that a variant may change this key.

    Raises:
        ValueError: If it is not part of task or teacher, or says what the data is.
    """
    section = key.partition(".")[0]
    if section not in ("task", "teacher"):
        raise ValueError(
            f"a variant changes {key!r}: only keys under task and teacher can be tried, since all variants "
            "answer the same rows; change others with --set"
        )
    if key == "task.choices":
        raise ValueError(
            "a variant changes 'task.choices', which says what the data is: change it with --set, for all "
            "variants"
        )


def _check_changes(changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        check_key(key)
        _refuse_secrets(key, value)
    return changes


def _refuse_secrets(key: str, value: Any) -> None:
    """The recipe is kept with every run: what it may not hold, its variants may not hold either."""
    last = key.rpartition(".")[2]
    if isinstance(value, dict):
        for inner, held in value.items():
            _refuse_secrets(str(inner), held)
    elif isinstance(value, list) and last != "base_url":
        for held in value:
            _refuse_secrets(key, held)
    elif last == "api_key_env" and isinstance(value, str):
        OpenAISection._names_a_variable(value)
    elif last == "base_url":
        OpenAISection._holds_no_password(value)


def _check_names(variants: dict[str, Any]) -> dict[str, Any]:
    if BASE in variants:
        raise ValueError(
            f"the name {BASE!r} belongs to the recipe as it is, which is always compared: name the variant "
            "otherwise"
        )
    return variants


class TrialsSection(Section):
    """Variants, on how many rows they are compared, and the rule that picks one; see docs/teacher.md."""

    rows: Annotated[int, Field(ge=LEAST_ROWS)] = 200
    rule: Literal["best", "cheapest"] = "best"
    within: Annotated[float, Field(ge=0, le=1)] = 0.01
    variants: Annotated[
        dict[str, Annotated[dict[str, Any], AfterValidator(_check_changes)]],
        AfterValidator(_check_names),
    ] = Field(default_factory=dict)
