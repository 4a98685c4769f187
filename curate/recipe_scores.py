"""The recipe's section ``scores``: numbers that a model gives the rows before the filters judge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from curate.recipe_teachers import AskedTeacher, Section

#: The column that each part of the section writes.
COLUMNS = {"out_of_fold": "student_probs", "judge": "judge", "perplexity": "perplexity"}


class OutOfFoldSection(Section):
    """Students that never saw a row's label say how probable each label is."""

    folds: Annotated[int, Field(ge=2, le=20)] = 3
    epochs: Annotated[int, Field(ge=1)] | None = None


class JudgeSection(Section):
    """A teacher is asked of each labelled row whether its label is right."""

    teacher: AskedTeacher | None = None
    instruction: Annotated[str, Field(min_length=1)] = (
        "Somebody was given a task and answered it. Decide whether the answer is right. "
        "Say yes if it is, and no if it is wrong or the reason given does not lead to it."
    )
    rationales: bool = True


class PerplexitySection(Section):
    """A causal language model says how much each text surprises it."""

    model: Annotated[str, Field(min_length=1)]
    fields: Annotated[list[str], Field(min_length=1, default_factory=lambda: ["input"])]
    max_tokens: Annotated[int, Field(ge=8)] = 512


class ScoresSection(Section):
    """Which scores are computed; each is written to a column that filters can name."""

    out_of_fold: OutOfFoldSection | None = None
    judge: JudgeSection | None = None
    perplexity: PerplexitySection | None = None

    def columns(self) -> list[str]:
        """The columns that will be there."""
        return [column for part, column in COLUMNS.items() if getattr(self, part) is not None]
