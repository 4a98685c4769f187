"""What every engine must do alike, as assertions on a started teacher.

They run against llama.cpp in-process (``test_labelers_engine_parity.py``), a real vLLM server and vLLM's
offline engine (``vllm_on_cpu.py``). Where engines differ by nature, :class:`Abilities` says how, and what
one cannot do must end in an error that names it. Nothing here needs pytest.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from labelers import Demonstration, Limits, RowError, Task, Teacher, TeacherError, label
from labelers.structured import Dialect, constrained_text, probe, structured_choice

Body = dict[str, Any]

#: As a completion, even a small model goes on with it for sure.
COUNTING = "Count: 1, 2, 3, 4, 5, 6,"
ODD_TEXTS = (
    "I ❤️ it 🙂👍🏽",
    "质量很好，很喜欢。",
    "e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT} ñandú",
    "המוצר מצוין — أحببته",
    "null \\n \t <|im_end|> </s>",
)
ODD_CHOICES = ("🙂 日本語", "e\N{COMBINING ACUTE ACCENT} שלום", 'he said "no" \\ yes')


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """How an engine differs from the others.

    Attributes:
        context: Its context in tokens.
        dialects: The constraints that it obeys; any other must be refused or found out by the probe.
        prompt_logprobs: Whether it scores a given prompt.
    """

    context: int
    dialects: tuple[Dialect, ...]
    prompt_logprobs: bool


def request(teacher: Teacher, text: str, **fields: Any) -> Body:
    body: Body = {"model": teacher.model, "max_tokens": 24, "temperature": 0.0, **fields}
    if teacher.api == "chat":
        return {**body, "messages": [{"role": "user", "content": text}]}
    return {**body, "prompt": text}


async def send(teacher: Teacher, body: Body) -> Body:
    path = "chat/completions" if teacher.api == "chat" else "completions"
    answer: Body = orjson.loads(await teacher.send(path, orjson.dumps(body)))
    assert len(answer["choices"]) == 1, answer
    return answer


async def ask(teacher: Teacher, text: str, **fields: Any) -> Body:
    return await send(teacher, request(teacher, text, **fields))


def written(answer: Body) -> str:
    choice = answer["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    assert isinstance(text, str), answer
    return text


def positions(answer: Body) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """Token, its log-probability and the alternatives at each place, from either wire format."""
    logprobs = answer["choices"][0]["logprobs"]
    if "content" in logprobs:
        return [
            (e["token"], e["logprob"], [(t["token"], t["logprob"]) for t in e["top_logprobs"]])
            for e in logprobs["content"]
        ]
    columns = (logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"])
    return [(token, own, list(top.items())) for token, own, top in zip(*columns, strict=True)]


async def refusal(wanted: Awaitable[object]) -> str:
    """The words of the error that ends it."""
    try:
        result = await wanted
    except (RowError, TeacherError) as error:
        return str(error)
    raise AssertionError(f"no error, but {result!r}")


def assert_held(answer: Body, dialect: Dialect, allowed: Sequence[str]) -> None:
    """The answer is one of ``allowed``; JSON may also be cut off, but only in its white space."""
    text = written(answer)
    if answer["choices"][0]["finish_reason"] == "length" and dialect == "json_schema":
        begun = text.rstrip().replace("\n", "").replace("\t", "")
        whole = [json.dumps({"label": one}, ensure_ascii=False).replace(" ", "") for one in allowed]
        assert any(w.startswith(begun.replace(" ", "")) for w in whole), (dialect, answer)
        assert text != text.rstrip(), (dialect, answer)
    else:
        assert constrained_text(text, dialect) in allowed, (dialect, answer)


# ------------------------------------------------------------------------------------- assertions


async def stop_strings(teacher: Teacher, abilities: Abilities) -> str:
    """The answer ends before the stop string, and says that it stopped."""
    free = written(await ask(teacher, COUNTING))
    stop = next(free[i : i + 2] for i in range(3, len(free)) if free[i : i + 2] not in free[:i])
    answer = await ask(teacher, COUNTING, stop=["@@never@@", stop])
    text = written(answer)
    assert text == free[: free.index(stop)], f"{text!r} instead of {free!r} up to {stop!r}"
    assert answer["choices"][0]["finish_reason"] == "stop", answer
    return f"{free!r} cut before {stop!r}"


async def logprobs_are_sane(teacher: Teacher, abilities: Abilities) -> str:
    """As many alternatives as asked, each a log-probability, the greedy token the likeliest."""
    asked = 5
    fields = (
        {"logprobs": True, "top_logprobs": asked} if teacher.api == "chat" else {"logprobs": asked}
    )
    answer = await ask(teacher, "The capital of France is", max_tokens=4, **fields)
    places = positions(answer)
    assert len(places) == answer["usage"]["completion_tokens"] <= 4, answer
    for token, own, tops in places:
        assert all(value <= 0 for value in (own, *(value for _, value in tops))), (own, tops)
        # Tokens of equal text share an entry of a completion's mapping.
        assert asked - 1 <= len(tops) <= asked, tops
        assert sum(math.exp(value) for _, value in tops) <= 1 + 1e-3, tops
        assert token in [text for text, _ in tops], (token, tops)
        assert math.isclose(own, max(value for _, value in tops), abs_tol=1e-3), (token, own, tops)
    assert "".join(token for token, _, _ in places).startswith(written(answer)), answer
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    return f"{places[0][0]!r} {places[0][1]:.3f}, {asked} alternatives"


async def finish_reasons(teacher: Teacher, abilities: Abilities) -> str:
    """``length`` where the tokens run out, ``stop`` where the answer is complete."""
    answer = await ask(teacher, COUNTING, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length", answer
    assert answer["usage"]["completion_tokens"] == 3, answer
    found = ["length"]
    if abilities.dialects:
        dialect = abilities.dialects[0]
        one = structured_choice(["yes"], dialect)
        whole = await ask(teacher, "Say yes.", **one, max_tokens=64)
        assert constrained_text(written(whole), dialect) == "yes", whole
        assert whole["choices"][0]["finish_reason"] == "stop", whole
        found.append("stop")
    return " and ".join(found)


async def choices_are_held(teacher: Teacher, abilities: Abilities) -> str:
    """Only what is listed is answered; what the engine does not obey is found out."""
    for dialect in abilities.dialects:
        assert await probe(teacher, [dialect]) == dialect
        allowed = ["turquoise", "vermilion and more"]
        for text in ("The sky is blue. What colour is it?", "Name a fruit:"):
            fields = structured_choice(allowed, dialect)
            answer = await ask(teacher, text, **fields, max_tokens=96)
            assert_held(answer, dialect, allowed)
    refused: tuple[Dialect, ...] = ("vllm", "json_schema", "llama.cpp")
    others = [dialect for dialect in refused if dialect not in abilities.dialects]
    for dialect in others:
        said = await refusal(probe(teacher, [dialect], pause=0.0))
        assert next(iter(structured_choice(["x"], dialect))) in said, said
    return (
        f"obeyed {', '.join(abilities.dialects) or 'none'}; refused {', '.join(others) or 'none'}"
    )


async def overflow(teacher: Teacher, abilities: Abilities) -> str:
    """A prompt longer than the context fails alone; one that just fits does not."""
    long = "word " * (abilities.context * 2)
    results = await asyncio.gather(
        ask(teacher, long), ask(teacher, "Short."), return_exceptions=True
    )
    assert isinstance(results[0], RowError), results[0]
    assert results[0].kind == "context_length", results[0]
    assert str(abilities.context) in str(results[0]), results[0]
    assert isinstance(results[1], dict), results[1]
    # Prompt and answer share the context: what does not fit is cut, and says so.
    near = "word " * (abilities.context - 64)
    answer = await ask(teacher, near, max_tokens=500, stop=["@@never@@"])
    usage = answer["usage"]
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    assert total <= abilities.context + 1, usage
    if answer["choices"][0]["finish_reason"] == "length":
        assert total >= abilities.context - 1, usage
    return str(results[0])


async def unicode_survives(teacher: Teacher, abilities: Abilities) -> str:
    """Odd texts are read, answers are valid text, and an allowed odd answer comes back unchanged."""
    for text in ODD_TEXTS:
        answer = await ask(teacher, text, max_tokens=12)
        written(answer).encode("utf-8")  # No lone surrogates.
        assert answer["usage"]["prompt_tokens"] > 3, answer
    for dialect in abilities.dialects:
        for choice in ODD_CHOICES:
            fields = structured_choice([choice], dialect)
            answer = await ask(teacher, f"Say {choice}", **fields, max_tokens=120)
            assert_held(answer, dialect, [choice])
    return f"{len(ODD_TEXTS)} prompts, {len(ODD_CHOICES)} answers in {len(abilities.dialects)} dialects"


async def equal_requests(teacher: Teacher, abilities: Abilities) -> str:
    """Greedy decoding answers equally, and so does a seed.

    In a batch with others sums are rounded otherwise, and an answer may take another turn where two
    tokens are about equally likely: there only its beginning is held to be the same.
    """
    first, again = [written(await ask(teacher, COUNTING)) for _ in range(2)]
    assert first == again, (first, again)
    among = await asyncio.gather(
        ask(teacher, COUNTING), ask(teacher, "Name a fruit:"), ask(teacher, COUNTING)
    )
    for answer in (among[0], among[2]):
        assert written(answer)[:8] == first[:8], (first, among)
    seeded = [
        written(await ask(teacher, "My favourite", temperature=1.0, seed=seed))
        for seed in (7, 7, 8, 9, 10)
    ]
    assert seeded[0] == seeded[1], seeded
    assert len(set(seeded)) > 1, f"every seed gives {seeded[0]!r}"
    return f"{first!r} twice; seeds {len(set(seeded))} of 4 differ"


async def usage_is_counted(teacher: Teacher, abilities: Abilities) -> str:
    """Tokens are counted, and a longer prompt counts more."""
    short, long = await asyncio.gather(
        ask(teacher, "Name a fruit:", max_tokens=5),
        ask(teacher, "Name a fruit: " * 20, max_tokens=5),
    )
    for answer in (short, long):
        usage = answer["usage"]
        assert 0 < usage["completion_tokens"] <= 5, usage
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], usage
    assert long["usage"]["prompt_tokens"] >= short["usage"]["prompt_tokens"] + 19 * 3, long
    return f"{short['usage']['prompt_tokens']} and {long['usage']['prompt_tokens']} prompt tokens"


async def prompts_are_scored(teacher: Teacher, abilities: Abilities) -> str:
    """Each token of a given prompt has its log-probability, or the engine says that it cannot."""
    body = request(teacher, "The capital of France is Paris", prompt_logprobs=1, max_tokens=1)
    if not abilities.prompt_logprobs:
        said = await refusal(send(teacher, body))
        assert "prompt_logprobs" in said, said
        return f"refused: {said}"
    answer = await send(teacher, body)
    scores = answer.get("prompt_logprobs") or answer["choices"][0]["prompt_logprobs"]
    assert len(scores) == answer["usage"]["prompt_tokens"], answer
    assert [score is None for score in scores] == [True] + [False] * (len(scores) - 1), scores
    own = [next(iter(place.values())) for place in scores[1:]]
    assert all(value["logprob"] <= 0 and value["rank"] >= 1 for value in own), own
    text = "".join(value["decoded_token"] for value in own)
    assert "France is Paris" in text, text
    return f"{len(own)} tokens, the last {own[-1]['decoded_token']!r} {own[-1]['logprob']:.3f}"


Check = Callable[[Teacher, Abilities], Awaitable[str]]
CHECKS: tuple[Check, ...] = (
    stop_strings, logprobs_are_sane, finish_reasons, choices_are_held, overflow, unicode_survives,
    equal_requests, usage_is_counted, prompts_are_scored,
)  # fmt: skip


async def all_checks(teacher: Teacher, abilities: Abilities) -> list[tuple[str, str]]:
    """Run every assertion against a started teacher; name and finding of each."""
    return [(check.__name__, await check(teacher, abilities)) for check in CHECKS]


# --------------------------------------------------------------------------------------- labeling

SENTIMENT = Task(
    instruction="Decide whether a product review snippet is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
    demonstrations=(
        Demonstration(input="Review: The strap broke on day two.", label="negative"),
        Demonstration(input="Review: It has worked perfectly ever since.", label="positive"),
    ),
)
_PRAISE = ("works perfectly", "is beautiful", "was a great buy")
_BLAME = ("broke after a week", "is useless", "was a waste of money")
REVIEWS = [
    f"The {thing} {verdict}{end}"
    for thing, end in (
        ("camera", "."), ("battery", "!"), ("cable", ", I must say."), ("manual", " 🙂"), ("case", ".")
    )
    for verdict in (*_PRAISE, *_BLAME)
]  # fmt: skip


def labels_of(teacher: Teacher, store: Path, texts: Sequence[str] = REVIEWS) -> list[str | None]:
    """The rows' labels by ``labelers.label``, uncalibrated so that each row stands for itself."""
    rows = label(
        pd.DataFrame({"text": list(texts)}), SENTIMENT, teacher, rationales=False,
        calibration=None, store=store, limits=Limits(attempts=1),
    )  # fmt: skip
    assert not any(rows["error"]), rows["error"]
    return list(rows["label"])


def answers_of(teacher: Teacher) -> list[Body]:
    """Answers to a few requests, to be compared between engines that ought to write alike."""
    chat = teacher.api == "chat"
    scored = {"logprobs": True, "top_logprobs": 3} if chat else {"logprobs": 3}
    wanted = [
        request(teacher, COUNTING, max_tokens=8, **scored),
        request(teacher, COUNTING, max_tokens=8, stop=["1"]),
        request(teacher, "The sky is", prompt_logprobs=1, max_tokens=1),
        request(
            teacher, "Yes?", **structured_choice(["yes", "no"], "vllm"), max_tokens=8, **scored
        ),
    ]

    async def run() -> list[Body]:
        await teacher.start()
        try:
            return [await send(teacher, body) for body in wanted]
        finally:
            await teacher.close()

    return asyncio.run(run())


def assert_alike(one: Any, other: Any, where: str = "") -> None:
    """All that ``one`` says, ``other`` says as well; log-probabilities up to rounding."""
    if isinstance(one, dict):
        for key, value in one.items():
            if key in ("id", "created", "model"):
                continue
            assert key in other, f"{where}.{key} is missing in {other}"
            assert_alike(value, other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), (where, one, other)
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_alike(*pair, f"{where}[{number}]")
    elif isinstance(one, float) and isinstance(other, float):
        assert math.isclose(one, other, abs_tol=0.15), (where, one, other)
    else:
        assert one == other, (where, one, other)


def agreement(one: Sequence[str | None], other: Sequence[str | None]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def read_labels(path: Path) -> list[str | None]:
    labels: list[str | None] = json.loads(path.read_text())
    return labels
