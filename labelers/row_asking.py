"""The questions that are put about one row, and what each of its answers says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from labelers.answers import Reading, read_answer, read_rationale
from labelers.asking import Asker
from labelers.probabilities import (
    OPENING,
    LabelDistribution,
    ProbabilityError,
    constrained_labels,
    label_mass,
    read_positions,
)
from labelers.prompt_scores import read_prompt_score, scored_labels
from labelers.prompts import Kind, Turn, answer_text, build_request, demonstration_turns
from labelers.replies import Reply
from labelers.row_answers import RowAnswer
from labelers.rows import Row
from labelers.structured import constrained_text, structured_choice
from labelers.tasks import LETTERS, Task
from labelers.teachers import Constraining, RowError, Teacher, TeacherError
from labelers.votes import same_answer, tally

Probabilities = Literal["logprobs", "scoring", "constrained", "votes"]
VoteRule = Literal["majority", "probability"]

#: Shared mass smaller than this is not worth a request of its own; it counts as off-label.
_SHARED_MINIMUM = 0.005
#: Above this, shared mass that cannot be resolved makes the distribution unknown.
_SHARED_MAXIMUM = 0.05
_LABEL_MASS_MINIMUM = 1e-3
_LONGEST_LABEL_TOKENS = 8
#: Tokens of a short answer that is read as text: a label of many words, and a few around it.
_SHORT_ANSWER_TOKENS = 32
#: At which several samples are drawn where the user names no temperature.
SAMPLING_TEMPERATURE = 0.7


@dataclass(kw_only=True)
class RowAsker:
    """Asks one teacher about rows, one at a time, as the settings of a run say."""

    task: Task
    teacher: Teacher
    asker: Asker
    probabilities: Probabilities
    samples: int
    temperature: float
    vote: VoteRule
    max_tokens: int
    rationales: int
    max_rationale_tokens: int
    keep_reasoning: bool
    _turns: dict[Kind, list[Turn]] = field(default_factory=dict)

    async def _ask(
        self, row: Row, answer: RowAnswer, kind: Kind, *, sample: int = 0, **how: Any
    ) -> Reply:
        turns = self._turns.get(kind) if row.demonstrations is None else None
        if turns is None:
            turns = demonstration_turns(self.task, kind, row.demonstrations)
            if row.demonstrations is None:
                self._turns[kind] = turns
        request = build_request(
            self.task,
            row.shown,
            kind=kind,
            api=self.teacher.api,
            model=self.teacher.model,
            choices=row.choices,
            turns=turns,
            **how,
        )
        reply = await self.asker.ask(request, sample=sample)
        answer.count(*reply.tokens)
        return reply

    # --- a label out of free text

    async def chain_of_thought(self, row: Row, answer: RowAnswer) -> None:
        """Ask for a rationale that ends in a label, once or several times."""
        weighted = self.vote == "probability" and self.samples > 1
        replies = await _together(
            self._ask(
                row, answer, "cot", sample=sample, max_tokens=self.max_tokens,
                temperature=self.temperature, token_logprobs=weighted,
            )
            for sample in range(self.samples)
        )  # fmt: skip
        self._take(row, answer, replies, self.max_tokens, weighted)

    async def short_answers(self, row: Row, answer: RowAnswer) -> None:
        """Ask for the label alone, several times, and count votes."""
        replies = await _together(
            self._ask(
                row, answer, "score", sample=sample, max_tokens=_SHORT_ANSWER_TOKENS,
                temperature=self.temperature, top_logprobs=0,
            )
            for sample in range(self.samples)
        )  # fmt: skip
        self._take(row, answer, replies, _SHORT_ANSWER_TOKENS, False)

    def _take(
        self, row: Row, answer: RowAnswer, replies: Sequence[Reply], most: int, weighted: bool
    ) -> None:
        readings = [self._read(row, reply, most) for reply in replies]
        if self.samples == 1:
            answer.take(readings[0])
            answer.take_from(replies[0].finish_reason, replies[0].key)
            return
        result = tally(
            [reading.label for reading in readings],
            choices=row.choices,
            weights=[_sequence_probability(reply) for reply in replies] if weighted else None,
        )
        answer.votes = list(result.votes)
        answer.agreement = result.agreement
        if result.label is None:
            problems = "; ".join(sorted({r.problem for r in readings if r.problem}))
            answer.error = f"{result.problem}{f' ({problems[:400]})' if problems else ''}"
            answer.take_from(replies[0].finish_reason, replies[0].key)
            return
        won = same_answer(result.label)
        winners = [
            i for i, r in enumerate(readings) if r.label is not None and same_answer(r.label) == won
        ]
        first = winners[0]
        answer.take_from(replies[first].finish_reason, replies[first].key)
        answer.take(readings[first])
        answer.label, answer.confidence = result.label, result.confidence
        if result.label_probs is not None:
            answer.label_probs = list(result.label_probs)
            answer.label_source = "votes"
        answer.rationales = [r for i in winners if (r := readings[i].rationale) is not None]

    def _read(self, row: Row, reply: Reply, most: int) -> Reading:
        cut_off = reply.finish_reason == "length"
        reading = read_answer(reply.text, self.task, row.choices, cut_off=cut_off)
        # A rule of the task's own knows what is complete; other free text may go on.
        free = row.choices is None and self.task.answer is None
        if cut_off and (reading.label is None or free):
            thought = ", all of it thinking" if reply.reasoning and not reply.text else ""
            counted = reply.tokens[1]
            return Reading(
                None,
                problem=f"truncated: the answer was cut off after {counted or most} tokens{thought}, "
                f"before it was complete: raise max_tokens ({most}) or the context; it began "
                f"{(reply.text or reply.reasoning or '')[:120]!r}",
            )
        if self.keep_reasoning and reply.reasoning and reading.label is not None:
            return Reading(reading.label, " ".join(reply.reasoning.split()))
        return reading

    # --- a distribution over labels

    async def score(self, row: Row, answer: RowAnswer) -> None:
        """Find the probability of each label, in the way that the run was told."""
        assert row.choices is not None
        names = (
            [LETTERS[i] for i in range(len(row.choices))]
            if self.task.form == "letter"
            else list(row.choices)
        )
        if self.probabilities == "scoring":
            await self._score_each(row, answer)
        elif self.probabilities == "constrained":
            await self._constrained(row, answer, names)
        else:
            await self._first_tokens(row, answer, names)

    async def _first_tokens(self, row: Row, answer: RowAnswer, names: list[str]) -> None:
        assert row.choices is not None
        most = 1 if self.teacher.prefill else _LONGEST_LABEL_TOKENS
        reply = await self._ask(
            row, answer, "score", max_tokens=most, top_logprobs=self.teacher.top_logprobs
        )
        answer.take_from(reply.finish_reason, reply.key)
        masses, unresolved = await self._masses(row, answer, reply, names)
        total = sum(masses)
        if unresolved > _SHARED_MAXIMUM:
            raise RowError(
                f"labels that begin alike cannot be told apart over this API ({unresolved:.0%} of the "
                "probability is undecided): use `api: completions`, or answer_form: letter",
                kind="ambiguous",
            )
        if total < _LABEL_MASS_MINIMUM:
            raise RowError(
                f"the teacher names none of {names}; it began with {reply.text[:60]!r}",
                kind="off_label",
            )
        answer.label_probs = [mass / total for mass in masses]
        answer.label_source = "logprobs"
        answer.off_label_mass = max(0.0, 1.0 - total)
        answer.take_likeliest(row.choices)

    async def _masses(
        self,
        row: Row,
        answer: RowAnswer,
        reply: Reply,
        names: list[str],
        given: str = "",
        scale: float = 1.0,
        depth: int = 1,
    ) -> tuple[list[float], float]:
        """Mass per label and mass left undecided, following beginnings that labels share."""
        try:
            positions = read_positions(reply.choice, asked=self.teacher.top_logprobs)
            found = label_mass(positions, names, given=given)
        except ProbabilityError as error:
            raise RowError(str(error), kind="no_logprobs") from error
        if (hidden := found.unreadable * scale) > _SHARED_MAXIMUM:
            raise RowError(
                f"up to {hidden:.0%} of the probability is on parts of characters, which the server shows "
                f"as empty text, and labels such as {max(names, key=len)!r} may begin with them: use "
                "answer_form: letter, or labels in plain ASCII",
                kind="ambiguous",
            )
        masses = [mass * scale for mass in found.masses]
        unresolved = 0.0
        for shared in found.shared:
            weight = shared.mass * scale
            if not self.teacher.prefill:
                # White space or a quote says nothing of any label: it is off-label, not undecided.
                unresolved += weight if shared.prefix.strip(OPENING) else 0.0
            elif depth == _LONGEST_LABEL_TOKENS:
                unresolved += weight
            elif weight >= _SHARED_MINIMUM:
                further = await self._ask(
                    row, answer, "score", max_tokens=1, prefix=shared.prefix,
                    top_logprobs=self.teacher.top_logprobs,
                )  # fmt: skip
                more, left = await self._masses(
                    row, answer, further, names, shared.prefix, weight, depth + 1
                )
                masses = [a + b for a, b in zip(masses, more, strict=True)]
                unresolved += left
        return masses, unresolved

    async def _score_each(self, row: Row, answer: RowAnswer) -> None:
        """Have every label's whole text scored as the end of the prompt."""
        assert row.choices is not None
        endings = [self._ending(label, row.choices) for label in row.choices]
        replies = await _together(
            self._ask(row, answer, "score", max_tokens=1, prefix=ending, score_prompt=True)
            for ending in endings
        )
        answer.take_from(replies[0].finish_reason, replies[0].key)
        try:
            scores = [
                read_prompt_score(reply.choice, ending=ending)
                for reply, ending in zip(replies, endings, strict=True)
            ]
            found = scored_labels(scores, [ending.strip() for ending in endings])
        except ProbabilityError as error:
            if any("prompt_logprobs" in reply.choice for reply in replies):
                raise RowError(str(error), kind="no_logprobs") from error
            raise TeacherError(
                f"{self.teacher.name} was asked to score a prompt's tokens and did not ({error}): use a vLLM "
                "server or engine, or probabilities: logprobs"
            ) from error
        self._take_distribution(row, answer, found)

    def _ending(self, label: str, choices: Sequence[str]) -> str:
        # By letter the prompt ends in an open bracket, and the letter follows it.
        if self.task.form == "letter":
            return LETTERS[list(choices).index(label)]
        return " " + label

    async def _constrained(self, row: Row, answer: RowAnswer, names: list[str]) -> None:
        """Let the teacher write nothing but a label."""
        assert row.choices is not None
        assert isinstance(self.teacher, Constraining)
        said = [answer_text(self.task, label, row.choices) for label in row.choices]
        dialect = self.teacher.dialect
        assert dialect is not None
        # In JSON the label is not what the answer begins with: it is read, and has no distribution.
        scored = dialect != "json_schema" and self.teacher.top_logprobs > 0
        texts = names if self.task.form == "letter" else said
        # A completion goes on after "Label:" with a space, or after an open bracket with the letter.
        opening = " " if self.teacher.api == "completions" and self.task.form == "text" else ""
        reply = await self._ask(
            row, answer, "score", max_tokens=_SHORT_ANSWER_TOKENS,
            structured=structured_choice(texts, dialect, opening=opening),
            top_logprobs=self.teacher.top_logprobs if scored else 0,
        )  # fmt: skip
        answer.take_from(reply.finish_reason, reply.key)
        written = (constrained_text(reply.text, dialect) or "").strip()
        if written not in texts:
            raise RowError(
                f"the answer was constrained to {texts} and is {reply.text[:120]!r}: the server did not heed "
                "the constraint",
                kind="constraint",
            )
        answer.label, answer.label_source = row.choices[texts.index(written)], "constrained"
        if not scored:
            return
        try:
            positions = read_positions(reply.choice, asked=self.teacher.top_logprobs)
            self._take_distribution(row, answer, constrained_labels(positions, names))
        except ProbabilityError as error:
            raise RowError(str(error), kind="no_logprobs") from error

    def _take_distribution(self, row: Row, answer: RowAnswer, found: LabelDistribution) -> None:
        assert row.choices is not None
        answer.label_probs = list(found.label_probs)
        answer.label_source = found.label_source
        answer.off_label_mass = found.off_label_mass
        answer.take_likeliest(row.choices)

    # --- why

    async def explain(self, row: Row, answer: RowAnswer) -> None:
        """Ask why the label is right, once or several times."""
        several = self.rationales > 1
        replies = await _together(
            self._ask(
                row, answer, "rationale", sample=sample, label=answer.label,
                max_tokens=self.max_rationale_tokens,
                temperature=(self.temperature or SAMPLING_TEMPERATURE) if several else 0.0,
            )
            for sample in range(self.rationales)
        )  # fmt: skip
        found = []
        for reply in replies:
            text = reply.text
            if reply.finish_reason == "length":
                # Of a rationale that was cut off, the whole sentences are kept.
                text = text[: max(text.rfind(mark) for mark in (".", "!", "?")) + 1]
            if (rationale := read_rationale(text).rationale) and rationale not in found:
                found.append(rationale)
        answer.rationale = found[0] if found else None
        if several:
            answer.rationales = found


def _sequence_probability(reply: Reply) -> float:
    """exp of the mean token log-probability: the weight of a vote (Wang et al., 2022, normalised)."""
    logprobs = reply.choice.get("logprobs") or {}
    content = logprobs.get("content")
    values = (
        [entry.get("logprob") for entry in content]
        if isinstance(content, list)
        else logprobs.get("token_logprobs") or []
    )
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if not numbers:
        raise RowError(
            "the answer carries no log-probabilities, which a vote by probability needs: use vote: majority",
            kind="no_logprobs",
        )
    # Above 0 even where exp underflows: a vote of no weight is no vote.
    return max(math.exp(sum(numbers) / len(numbers)), 1e-300)


async def _together(questions: Iterable[Coroutine[Any, Any, Reply]]) -> list[Reply]:
    """Ask several questions at once; where one fails, the others are still waited for and stored."""
    asked = list(questions)
    if len(asked) == 1:
        return [await asked[0]]
    results = await asyncio.gather(*asked, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
