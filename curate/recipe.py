"""The recipe: one file says task, data, teacher, filters and student.

A recipe is checked in full before anything costs money; every finding names file, line, key, value
and remedy.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

import filters
import labelers
from curate.exceptions import RecipeError
from curate.filter_findings import nearest, read_filter
from curate.recipe_checks import answer_rule, find_disagreements, read_answer_rule
from curate.recipe_files import Places, may_be_secret, read_recipe, set_value
from curate.recipe_metrics import METRIC_NAMES, MetricName
from curate.recipe_scores import JudgeSection, PerplexitySection, ScoresSection
from curate.recipe_teachers import (
    ENGINES,
    AskedTeacher,
    BudgetSection,
    DemonstrationSection,
    LimitsSection,
    MemberSection,
    PricesSection,
    Section,
    TeacherSection,
)
from curate.recipe_trials import TrialsSection


class TaskSection(Section):
    """What is to be decided, how a row is shown, and what counts as good enough."""

    instruction: str
    template: str = "{{ text }}"
    labels: list[str] | None = None
    choices: str | None = None
    demonstrations: list[DemonstrationSection] = Field(default_factory=list)
    answer_name: Annotated[str, Field(min_length=1)] = "Label"
    answer_form: Literal["text", "letter"] | None = None
    answer: Annotated[Any, AfterValidator(read_answer_rule)] = None
    stop: list[str] = Field(default_factory=list)
    on_two: Literal["unread", "first"] = "unread"
    metrics: Annotated[list[MetricName], Field(min_length=1)] = Field(
        default=["accuracy", "macro_f1"]
    )
    separator: Annotated[str, Field(min_length=1)] | None = None
    goal: dict[MetricName, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)

    def task(self) -> labelers.Task:
        """The section as the task that labelers and sources work with."""
        return labelers.Task(
            instruction=self.instruction,
            template=self.template,
            labels=tuple(self.labels) if self.labels is not None else None,
            choices=self.choices,
            demonstrations=tuple(each.demonstration() for each in self.demonstrations),
            answer_name=self.answer_name,
            answer_form=self.answer_form,
            answer=answer_rule(self.answer),
            stop=tuple(self.stop),
            on_two=self.on_two,
        )


class DataSection(Section):
    """Where rows come from and which columns mean what. See docs/data.md."""

    train: str
    test: str | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    gold: str | None = None
    group: str | None = None
    id: str | None = None
    ignore: list[str] = Field(default_factory=list)
    encoding: str = "utf-8"
    limit: Annotated[int, Field(ge=1)] | None = None
    test_limit: Annotated[int, Field(ge=1)] | None = None
    max_characters: Annotated[int, Field(ge=1)] = 100_000
    overlap: Literal["error", "drop"] = "error"
    pool: str | None = None
    keep_twins_together: bool = False
    review: str | None = None
    references: dict[str, str] = Field(default_factory=dict)


class GenerateSection(Section):
    """New rows that a teacher writes for the training set; see :func:`labelers.generate`."""

    labels: dict[str, Annotated[int, Field(ge=1)]]
    teacher: AskedTeacher | None = None
    per_cluster: bool = False
    attributes: dict[str, list[str]] = Field(default_factory=dict)
    shots: Annotated[int, Field(ge=1, le=64)] = 3
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.9
    max_tokens: Annotated[int, Field(ge=1)] = 96
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.7
    max_requests: Annotated[int, Field(ge=1)] | None = None


class PrivacySection(Section):
    """Personal data that is replaced before anything is sent; see :class:`labelers.Redaction`."""

    entities: list[str] | None = None
    regions: list[str] | None = None
    model: str | None = None

    def redaction(self) -> labelers.Redaction:
        """The section as labelers work with it.

        Raises:
            labelers.PrivacyError: If an entity is unknown or what it needs is not installed.
        """
        given = {"entities": self.entities, "regions": self.regions}
        chosen = {name: tuple(value) for name, value in given.items() if value is not None}
        return labelers.Redaction(model=self.model, **chosen)


class LoraSection(Section):
    """Low-rank adapters in place of all weights; ``alpha`` is twice the rank where it is not given."""

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class WhiteBoxSection(Section):
    """A larger T5 whose token probabilities the student learns; see :class:`student.WhiteBox`."""

    teacher: str
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    on_policy: Annotated[float, Field(ge=0, le=1)] = 0.0
    cached: bool = False
    top_k: Annotated[int, Field(ge=1)] = 64
    train_teacher: bool = False


class StudentSection(Section):
    """The student and how it is trained; see :func:`student.train`, which has the same options."""

    model: str = "flan-t5-small"
    objective: Literal[
        "multitask",
        "label",
        "rationale_then_label",
        "rationale_as_input",
        "soft_label",
        "white_box",
    ] = "multitask"
    target: Literal["label", "gold"] = "label"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] | None = None
    shared_encoder: bool = False
    white_box: WhiteBoxSection | None = None
    label_prefix: str | None = None
    rationale_prefix: str = "[rationale] "
    answer_marker: str = "So the answer is:"
    rationale_marker: str = "Rationale:"
    epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 16
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    curriculum: Literal["confidence"] | None = None
    lora: LoraSection | None = None
    load_in_4bit: bool = False
    max_input_tokens: Annotated[int, Field(ge=8)] = 512
    max_label_tokens: Annotated[int, Field(ge=2)] = 64
    max_rationale_tokens: Annotated[int, Field(ge=2)] = 128
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=0)] | None = None
    report_to: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    with_gold: bool = False


class Recipe(Section):
    """A whole recipe, checked.

    ``filters`` holds (name, arguments) pairs in the order in which they judge. Without an
    ``embedder`` there are no clusters and no map.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    task: TaskSection
    data: DataSection
    teacher: TeacherSection
    filters: list[Annotated[tuple[str, dict[str, Any]], BeforeValidator(read_filter)]] = Field(
        default_factory=list
    )
    embedder: str | None = "all-minilm-l6-v2"
    student: StudentSection = StudentSection()
    generate: GenerateSection | None = None
    privacy: PrivacySection | None = None
    trials: TrialsSection | None = None
    scores: ScoresSection | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def built_filters(self) -> list[Any]:
        """The filters as :func:`filters.apply` takes them."""
        return [filters.FILTERS[name](**arguments) for name, arguments in self.filters]

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON values."""
        return self.model_dump(mode="json")

    def sha256(self) -> str:
        """Hash of the resolved recipe."""
        text = json.dumps(self.resolved(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file.
        overrides: ``key=value`` pairs with dotted keys, as given to ``--set``: values are YAML, and
            a filter's argument is reached by the filter's name (``filters.near_duplicate.threshold``).

    Raises:
        RecipeError: With every finding, one to a line.
    """
    values, places = read_recipe(path)
    return parse_recipe(values, where=str(path), places=places, overrides=overrides)


def parse_recipe(
    values: Mapping[str, Any],
    *,
    where: str = "recipe",
    places: Places | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Check a recipe given as a mapping.

    Args:
        values: The recipe's values; left as they are.
        where: What messages call the recipe.
        places: Where its keys stand.
        overrides: As for :func:`load_recipe`.

    Raises:
        RecipeError: With every finding, one to a line.
    """
    if isinstance(overrides, str):
        raise RecipeError(
            f"overrides is {overrides!r}: give a list of such texts, as in [{overrides!r}]"
            if not may_be_secret(overrides.partition("=")[0])
            else "overrides is one text: give a list of texts, such as ['student.epochs=1']"
        )
    changed, places = copy.deepcopy(dict(values)), dict(places or {})
    for override in overrides:
        set_value(changed, places, override)
    try:
        recipe = Recipe.model_validate(changed)
    except pydantic.ValidationError as error:
        found = [_describe(e) for e in error.errors()]
    else:
        found = find_disagreements(recipe)
        if not found:
            return recipe
    messages = [f"{_place(path, where, places)}: {message}" for path, message in found]
    raise RecipeError("\n".join(dict.fromkeys(messages)))


def _place(path: tuple[str, ...], where: str, places: Places) -> str:
    """Where a key stands, or else the nearest key above it that is written."""
    above = (path[:n] for n in range(len(path), 0, -1))
    return next((places[key] for key in above if key in places), where)


#: Words for what pydantic says in its own.
_WORDS = {
    "string_type": "must be a text: write it in quotes",
    "model_type": "must be keys and values",
    "model_attributes_type": "must be keys and values",
    "dict_type": "must be keys and values",
    "string_pattern_mismatch": "may hold letters, digits, dots, dashes and underscores only, and begins "
    "with a letter or digit: the run folder bears it",
}


def _describe(error: Any) -> tuple[tuple[str, ...], str]:
    """One of pydantic's errors as the path of its key and a message."""
    path = tuple(str(part) for part in error["loc"] if part not in ENGINES)
    key, value = ".".join(path), error["input"]
    if error["type"] == "extra_forbidden":
        shown = _shown(path, value)
        return (
            path,
            f"unknown key {key!r} (value {shown}){nearest(path[-1], _known_keys(error['loc']))}",
        )
    if error["type"] == "missing":
        return path, f"the key {key!r} is missing; `curate init` writes a commented example"
    if error["type"] == "union_tag_not_found":
        return path, f"teacher.engine is missing: known are {', '.join(ENGINES)}"
    if error["type"] == "union_tag_invalid":
        engine = value.get("engine")
        return (*path, "engine"), f"teacher.engine is {engine!r}{nearest(str(engine), ENGINES)}"
    if path[-1] == "[key]":
        *parents, metric, _ = path
        known = nearest(metric, METRIC_NAMES)
        return path[:-1], f"{'.'.join(parents)}: unknown metric {metric!r}{known}"
    said = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return path, f"{key} is {_shown(path, value)}: {_WORDS.get(error['type'], said)}"


def _shown(path: tuple[str, ...], value: Any) -> str:
    """A value as a message may quote it: short, and never what may be a secret."""
    if may_be_secret(path[-1]):
        return "not shown here"
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _known_keys(place: Sequence[Any]) -> list[str]:
    """The keys that the section at this place of a recipe has."""
    section: type[BaseModel] = Recipe
    for part in place[:-1]:
        section = _SECTIONS.get(str(part), section)
    return list(section.model_fields)


_SECTIONS: dict[str, type[BaseModel]] = {
    **ENGINES,
    "task": TaskSection,
    "demonstrations": DemonstrationSection,
    "data": DataSection,
    "student": StudentSection,
    "lora": LoraSection,
    "white_box": WhiteBoxSection,
    "generate": GenerateSection,
    "privacy": PrivacySection,
    "trials": TrialsSection,
    "scores": ScoresSection,
    "judge": JudgeSection,
    "perplexity": PerplexitySection,
    "prices": PricesSection,
    "budget": BudgetSection,
    "limits": LimitsSection,
    "members": MemberSection,
}
