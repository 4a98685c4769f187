"""The recipe: one YAML file says task, data, teacher, filters and student.

The only module that knows YAML. A recipe is checked in full before anything costs money; every
finding names file, line, key, value and remedy.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

import filters
import labelers
from curate.exceptions import CurateError


class RecipeError(CurateError):
    """A recipe that cannot be run as it is written."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=False)


class DemonstrationSection(_Section):
    """One worked example; see :class:`labelers.Demonstration`."""

    input: str
    label: str
    rationale: str | None = None
    choices: list[str] | None = None


MetricName = Literal["accuracy", "macro_f1"]


class TaskSection(_Section):
    """What is to be decided, how a row is shown, and what counts as good enough."""

    instruction: str
    template: str = "{{ text }}"
    labels: list[str] | None = None
    choices: str | None = None
    demonstrations: list[DemonstrationSection] = []
    answer_name: Annotated[str, Field(min_length=1)] = "Label"
    answer_form: Literal["text", "letter"] | None = None
    metrics: list[MetricName] = ["accuracy", "macro_f1"]
    goal: dict[MetricName, Annotated[float, Field(ge=0, le=1)]] = {}

    def task(self) -> labelers.Task:
        """The section as the task that labelers and sources work with."""
        return labelers.Task(
            instruction=self.instruction,
            template=self.template,
            labels=tuple(self.labels) if self.labels is not None else None,
            choices=self.choices,
            demonstrations=tuple(
                labelers.Demonstration(
                    input=d.input,
                    label=d.label,
                    rationale=d.rationale,
                    choices=tuple(d.choices) if d.choices else None,
                )
                for d in self.demonstrations
            ),
            answer_name=self.answer_name,
            answer_form=self.answer_form,
        )


class DataSection(_Section):
    """Where rows come from and which columns mean what. See docs/data.md."""

    train: str
    test: str | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    gold: str | None = None
    group: str | None = None
    id: str | None = None
    ignore: list[str] = []
    encoding: str = "utf-8"
    limit: Annotated[int, Field(ge=1)] | None = None
    test_limit: Annotated[int, Field(ge=1)] | None = None
    max_characters: Annotated[int, Field(ge=1)] = 100_000
    overlap: Literal["error", "drop"] = "error"


class PricesSection(_Section):
    """US dollars per million tokens."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]


class _LabelingSection(_Section):
    mode: Literal["score", "cot"] = "score"
    rationales: bool = True
    calibration: Literal["batch"] | None = "batch"
    max_tokens: Annotated[int, Field(ge=1)] = 256
    max_rationale_tokens: Annotated[int, Field(ge=1)] = 48


class LlamaCppSection(_LabelingSection):
    """A GGUF model in this process."""

    engine: Literal["llama.cpp"]
    model: str
    api: Literal["chat", "completions"] = "completions"
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    context: Annotated[int, Field(ge=256)] = 2048
    threads: Annotated[int, Field(ge=1)] | None = None


class OpenAISection(_LabelingSection):
    """A model behind an OpenAI-compatible server."""

    engine: Literal["openai"]
    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    api: Literal["chat", "completions"] = "chat"
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 32
    revision: str | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 20
    prices: PricesSection | None = None
    attempts: Annotated[int, Field(ge=1)] = 6

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str | None) -> str | None:
        # A key pasted where its variable's name belongs would end up in run folders.
        if value is not None and not value.replace("_", "").isalnum():
            raise ValueError("must be the name of an environment variable, never the key itself")
        if value is not None and value.startswith("sk"):
            raise ValueError("must be the name of an environment variable, never the key itself")
        return value


class RecordedSection(_Section):
    """What a teacher said before: a column of the data, or a JSONL log beside it."""

    engine: Literal["recorded"]
    column: str | None = None
    log: str | None = None
    name: str = "recorded"

    @model_validator(mode="after")
    def _one_of_two(self) -> RecordedSection:
        if (self.column is None) == (self.log is None):
            raise ValueError(
                "give either `column`, which holds the outputs, or `log`, a JSONL file with "
                "`prompt` (or `id`) and `response`"
            )
        return self


TeacherSection = Annotated[
    LlamaCppSection | OpenAISection | RecordedSection, Field(discriminator="engine")
]


class StudentSection(_Section):
    """The student and how it is trained; see :func:`student.train`."""

    model: str = "flan-t5-small"
    objective: Literal["multitask", "label"] = "multitask"
    target: Literal["label", "gold"] = "label"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 16
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    max_input_tokens: Annotated[int, Field(ge=8)] = 512
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    with_gold: bool = False


class Recipe(_Section):
    """A whole recipe, checked.

    ``filters`` holds (name, arguments) pairs in the order in which they judge.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    task: TaskSection
    data: DataSection
    teacher: TeacherSection
    filters: list[tuple[str, dict[str, Any]]] = []
    embedder: str = "all-minilm-l6-v2"
    student: StudentSection = StudentSection()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @field_validator("filters", mode="before")
    @classmethod
    def _name_and_arguments(cls, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(
                "must be a list, such as [exact_duplicate, confidence: {minimum: 0.6}]"
            )
        return [_filter_entry(entry) for entry in value]

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


def _filter_entry(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        name, arguments = entry, dict[str, Any]()
    elif isinstance(entry, Mapping) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        arguments = {} if arguments is None else arguments
    elif isinstance(entry, (tuple, list)) and len(entry) == 2:
        name, arguments = entry
    else:
        raise ValueError(f"{entry!r} must be a filter's name, or `name: {{argument: value}}`")
    if name not in filters.FILTERS:
        raise ValueError(f"no filter is named {name!r}{_nearest(str(name), filters.FILTERS)}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {name} are {arguments!r}: write {{argument: value}}")
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    known = [f for f in filters.FILTERS[name].__dataclass_fields__ if not f.startswith("_")]
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}{_nearest(str(argument), known)}")
    try:
        filters.FILTERS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from error
    return str(name), dict(arguments)


def _nearest(word: str, known: Any) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(names)}"


def load_recipe(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file.
        overrides: ``key=value`` pairs with dotted keys, as given to ``--set``: values are YAML, and
            a filter's argument is reached by the filter's name (``filters.near_duplicate.threshold``).

    Raises:
        RecipeError: With every finding, one to a line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"the recipe {path} cannot be read: {error.strerror}; `curate init {path}` writes one"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"the recipe {path} is not UTF-8 at byte {error.start}: save it as UTF-8"
        ) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(node, path)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{where}: this is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: this is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no recipe; `curate init` writes one to begin with")
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, where=str(path), lines=_lines(node))


def parse_recipe(
    values: Mapping[str, Any],
    *,
    where: str = "recipe",
    lines: Mapping[tuple[str, ...], int] | None = None,
) -> Recipe:
    """Check a recipe given as a mapping.

    Raises:
        RecipeError: With every finding, one to a line.
    """
    try:
        recipe = Recipe.model_validate(dict(values))
    except pydantic.ValidationError as error:
        findings = [_finding(e, where, lines or {}) for e in error.errors()]
        raise RecipeError("\n".join(dict.fromkeys(findings))) from error
    try:
        recipe.task.task()
    except labelers.TaskError as error:
        raise RecipeError(f"{where}: {error}") from error
    _check_demonstrations(recipe, where)
    return recipe


def _check_demonstrations(recipe: Recipe, where: str) -> None:
    teacher = recipe.teacher
    if isinstance(teacher, RecordedSection):
        return
    if teacher.mode == "score" and not recipe.task.task().closed:
        raise RecipeError(
            f"{where}: teacher.mode is 'score', which needs task.labels or task.choices, and the task "
            "has neither: set teacher.mode to cot"
        )
    if teacher.mode == "cot":
        for number, demonstration in enumerate(recipe.task.demonstrations, 1):
            if demonstration.rationale is None:
                raise RecipeError(
                    f"{where}: task.demonstrations[{number - 1}] has no rationale, and teacher.mode is "
                    "'cot', which shows one in each: add it, or set teacher.mode to score"
                )


_UNION_TAGS = {"llama.cpp", "openai", "recorded"}


def _finding(error: Any, where: str, lines: Mapping[tuple[str, ...], int]) -> str:
    path = [str(part) for part in error["loc"] if part not in _UNION_TAGS]
    line = next(
        (lines[tuple(path[:n])] for n in range(len(path), 0, -1) if tuple(path[:n]) in lines), None
    )
    place = f"{where}:{line}" if line else where
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r} (value {_shown(error['input'])}){_nearest_key(path, error)}"
    if error["type"] == "missing":
        return f"{place}: the key {key!r} is missing; `curate init` writes a commented example"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (
            f"{place}: teacher.engine must be one of llama.cpp, openai, recorded; the teacher is "
            + _shown(error["input"])
        )
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {key} is {_shown(error['input'])}: {message}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _nearest_key(path: list[str], error: Any) -> str:
    section: Any = Recipe
    for part in path[:-1]:
        section = _SECTIONS.get(part, section)
    if part_of_teacher := (path[:1] == ["teacher"]):
        section = _TEACHERS.get(next((p for p in error["loc"] if p in _UNION_TAGS), ""), section)
    del part_of_teacher
    return _nearest(path[-1], section.model_fields)


_SECTIONS: dict[str, type[BaseModel]] = {
    "task": TaskSection,
    "demonstrations": DemonstrationSection,
    "data": DataSection,
    "student": StudentSection,
    "prices": PricesSection,
}
_TEACHERS: dict[str, type[BaseModel]] = {
    "llama.cpp": LlamaCppSection,
    "openai": OpenAISection,
    "recorded": RecordedSection,
}


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """YAML readers keep the last of two equal keys and say nothing; a recipe must not."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise RecipeError(
                    f"{path}:{line}: the key {key.value!r} is given twice (first on line "
                    f"{seen[key.value]}): keep one"
                )
            seen[key.value] = line
            _refuse_repeated_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value, path)


def _lines(node: yaml.Node | None, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """Line number of every key and list item, by its path."""
    found: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found[(*prefix, key.value)] = key.start_mark.line + 1
            found |= _lines(value, (*prefix, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            found[(*prefix, str(number))] = value.start_mark.line + 1
            found |= _lines(value, (*prefix, str(number)))
    return found


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"--set {override!r}: write key=value, such as student.epochs=1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not YAML: {error}") from error
    *parents, last = key.strip().split(".")
    place: Any = values
    for part in parents:
        place = _descend(place, part, override)
    if not isinstance(place, dict):
        raise RecipeError(f"--set {override!r}: {'.'.join(parents)} holds no keys to be set")
    place[last] = value


def _descend(place: Any, part: str, override: str) -> Any:
    if isinstance(place, dict):
        if place.get(part) is None:
            place[part] = {}
        return place[part]
    if isinstance(place, list):
        for i, entry in enumerate(place):
            if entry == part:
                place[i] = {part: {}}
                return place[i][part]
            if isinstance(entry, dict) and part in entry:
                entry[part] = {} if entry[part] is None else entry[part]
                return entry[part]
        if part.isdecimal() and int(part) < len(place):
            return place[int(part)]
    raise RecipeError(f"--set {override!r}: the recipe has no {part!r} there to be changed")
