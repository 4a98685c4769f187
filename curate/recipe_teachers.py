"""The recipe's section ``teacher``: who is asked, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

import labelers


class Section(BaseModel):
    """A part of a recipe: an unknown key is an error, and nothing is converted on the quiet."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=False)


class DemonstrationSection(Section):
    """One worked example; see :class:`labelers.Demonstration`."""

    input: str
    label: str
    rationale: str | None = None
    choices: list[str] | None = None

    def demonstration(self) -> labelers.Demonstration:
        """The section as labelers work with it."""
        return labelers.Demonstration(
            input=self.input,
            label=self.label,
            rationale=self.rationale,
            choices=tuple(self.choices) if self.choices else None,
        )


class PricesSection(Section):
    """US dollars per million tokens."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]

    def prices(self) -> labelers.Prices:
        """The section as labelers work with it."""
        return labelers.Prices(self.prompt, self.completion)


class BudgetSection(Section):
    """The most that labeling may cost, restarts included; see :class:`labelers.Budget`."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    usd: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> BudgetSection:
        if self.tokens is None and self.usd is None:
            raise ValueError("give `tokens`, `usd` or both")
        return self


class LimitsSection(Section):
    """How hard a teacher is pressed; see :class:`labelers.Limits`."""

    attempts: Annotated[int, Field(ge=1)] = 6
    backoff: Annotated[float, Field(ge=0)] = 0.5
    longest_backoff: Annotated[float, Field(ge=0)] = 30.0
    longest_pause: Annotated[float, Field(ge=0)] = 900.0
    give_up_after: Annotated[int, Field(ge=1)] = 12
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None


class ShownSection(Section):
    """Which worked examples a row is shown, where not all of the task's."""

    choose: Literal["fixed", "random", "similar"] = "fixed"
    shots: Annotated[int, Field(ge=1, le=64)] = 4
    written: Annotated[int, Field(ge=0, le=1000)] = 0


def _count(value: Any) -> Any:
    """``true`` and ``false`` as one and none."""
    return int(value) if isinstance(value, bool) else value


class AskedSection(Section):
    """What all teachers that can be asked have in common; see :func:`labelers.label`."""

    mode: Literal["score", "cot"] = "score"
    probabilities: Literal["logprobs", "scoring", "constrained", "votes"] = "logprobs"
    samples: Annotated[int, Field(ge=1, le=256)] = 1
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    vote: Literal["majority", "probability"] = "majority"
    rationales: Annotated[int, BeforeValidator(_count), Field(ge=0, le=16)] = 1
    calibration: Literal["batch", "contextual", "temperature", "isotonic"] | None = "batch"
    keep_reasoning: bool = False
    demonstrations: ShownSection = ShownSection()
    max_tokens: Annotated[int, Field(ge=1)] = 256
    max_rationale_tokens: Annotated[int, Field(ge=1)] = 48
    budget: BudgetSection | None = None
    limits: LimitsSection = LimitsSection()
    prices: PricesSection | None = None

    def asked(self) -> Iterator[AskedSection]:
        """The teachers that can be asked: this one."""
        yield self

    def columns(self) -> Iterator[str]:
        """Columns of the data that hold what a teacher said: none."""
        yield from ()


class LlamaCppSection(AskedSection):
    """A GGUF model in this process."""

    engine: Literal["llama.cpp"]
    model: str
    api: Literal["chat", "completions"] = "completions"
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    context: Annotated[int, Field(ge=256)] = 2048
    threads: Annotated[int, Field(ge=1)] | None = None


class VLLMSection(AskedSection):
    """A model run by vLLM in this process."""

    engine: Literal["vllm"]
    model: str
    api: Literal["chat", "completions"] = "chat"
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 256
    context: Annotated[int, Field(ge=256)] | None = None
    dtype: str = "auto"
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    revision: str | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 20
    engine_args: dict[str, Any] = {}


class OpenAISection(AskedSection):
    """A model behind an OpenAI-compatible server, or behind several."""

    engine: Literal["openai"]
    model: str
    base_url: Any = None
    api_key_env: str | None = None
    api: Literal["chat", "completions"] = "chat"
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 64
    revision: str | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 20
    extra: dict[str, Any] = {}
    reasoning: bool = False
    structured: Literal["vllm", "json_schema", "llama.cpp"] | None = None
    connect_timeout: Annotated[float, Field(gt=0)] = 10.0
    read_timeout: Annotated[float, Field(gt=0)] = 600.0
    total_timeout: Annotated[float, Field(gt=0)] | None = None
    batch: bool = False
    attempts: Annotated[int, Field(ge=1)] | None = None

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str | None) -> str | None:
        # A key pasted where its variable's name belongs would end up in run folders.
        letters = (value or "A").replace("_", "")
        if not (letters.isalnum() and letters.isascii() and letters.upper() == letters):
            raise ValueError(
                "must be the name of an environment variable in capital letters, such as "
                "OPENAI_API_KEY, never the key itself"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _holds_no_password(cls, value: Any) -> Any:
        urls = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(url, str) for url in urls):
            raise ValueError("must be a server's URL, or a list of the URLs of several")
        if any("@" in urlsplit(url).netloc for url in urls):
            raise ValueError(
                "must hold no name and password, which would be kept with every run: put the key "
                "into an environment variable and its name into api_key_env"
            )
        if isinstance(value, list) and not value:
            raise ValueError("is an empty list: give at least one server's URL")
        return value

    @model_validator(mode="after")
    def _fits_a_batch(self) -> OpenAISection:
        if not self.batch:
            return self
        if isinstance(self.base_url, list):
            raise ValueError("`batch: true` goes to one provider: give a single base_url")
        if self.limits.requests_per_minute or self.limits.tokens_per_minute:
            raise ValueError(
                "`batch: true` hands over everything at once: leave out limits.requests_per_minute and "
                "limits.tokens_per_minute"
            )
        return self

    @property
    def urls(self) -> list[str]:
        """The servers' URLs; one empty text for the default."""
        if isinstance(self.base_url, list):
            return self.base_url
        return [self.base_url or ""]


class RecordedSection(Section):
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

    def asked(self) -> Iterator[AskedSection]:
        """The teachers that can be asked: none."""
        yield from ()

    def columns(self) -> Iterator[str]:
        """Columns of the data that hold what a teacher said."""
        if self.column is not None:
            yield self.column


OneTeacher = Annotated[
    LlamaCppSection | VLLMSection | OpenAISection | RecordedSection, Field(discriminator="engine")
]
AskedTeacher = Annotated[
    LlamaCppSection | VLLMSection | OpenAISection, Field(discriminator="engine")
]


class MemberSection(Section):
    """One teacher of an ensemble, its weight, and what it is asked in place of the task's own words."""

    teacher: OneTeacher
    weight: Annotated[float, Field(gt=0)] = 1.0
    instruction: str | None = None
    answer_name: Annotated[str, Field(min_length=1)] | None = None
    demonstrations: list[DemonstrationSection] | None = None


class EnsembleSection(Section):
    """Several teachers whose labels are merged to one soft label."""

    engine: Literal["ensemble"]
    members: Annotated[list[MemberSection], Field(min_length=2)]
    vote: Literal["majority", "probability"] = "probability"

    def asked(self) -> Iterator[AskedSection]:
        """The teachers that can be asked."""
        for member in self.members:
            yield from member.teacher.asked()

    def columns(self) -> Iterator[str]:
        """Columns of the data that hold what a teacher said."""
        for member in self.members:
            yield from member.teacher.columns()


class CascadeSection(Section):
    """A cheap teacher for every row, and a dear one for the rows of which it is not sure."""

    engine: Literal["cascade"]
    cheap: AskedTeacher
    dear: AskedTeacher
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8

    def asked(self) -> Iterator[AskedSection]:
        """The teachers that can be asked: both."""
        yield self.cheap
        yield self.dear

    def columns(self) -> Iterator[str]:
        """Columns of the data that hold what a teacher said: none."""
        yield from ()


TeacherSection = Annotated[
    LlamaCppSection
    | VLLMSection
    | OpenAISection
    | RecordedSection
    | EnsembleSection
    | CascadeSection,
    Field(discriminator="engine"),
]
ENGINES: dict[str, type[BaseModel]] = {
    "llama.cpp": LlamaCppSection,
    "vllm": VLLMSection,
    "openai": OpenAISection,
    "recorded": RecordedSection,
    "ensemble": EnsembleSection,
    "cascade": CascadeSection,
}
#: Keys that change how fast, how dear or how patiently a teacher is asked, and no answer.
WITHOUT_EFFECT_ON_ANSWERS = frozenset(
    {
        "concurrency", "threads", "slots", "attempts", "prices", "limits", "budget", "batch",
        "connect_timeout", "read_timeout", "total_timeout", "base_url", "api_key_env",
    }
)  # fmt: skip
