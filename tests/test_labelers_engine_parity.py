"""The assertions that hold for every engine, against llama.cpp in-process and a server that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
import teacher_server
from engine_parity import (
    CHECKS,
    REVIEWS,
    SENTIMENT,
    Abilities,
    Check,
    agreement,
    choices_are_held,
    labels_of,
)
from scripted_teacher import ScriptedTeacher

from curate import assets
from labelers import LlamaCpp, OpenAICompatible, TeacherError, label

Api = Literal["chat", "completions"]
APIS: tuple[Api, ...] = ("completions", "chat")
CONTEXT = 256
#: Held to a list by a grammar alone over completions, and by a schema too in chats.
ABILITIES = {
    "completions": Abilities(context=CONTEXT, dialects=("llama.cpp",), prompt_logprobs=False),
    "chat": Abilities(
        context=CONTEXT, dialects=("llama.cpp", "json_schema"), prompt_logprobs=False
    ),
}


def llama_cpp(slots: int = 2) -> LlamaCpp:
    gguf = assets.resolve("smollm2-135m", "teacher")
    return LlamaCpp(model_path=gguf, threads=1, slots=slots, context=CONTEXT)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCpp]:
    teacher = llama_cpp()
    asyncio.run(teacher.start())
    yield teacher
    asyncio.run(teacher.close())


@pytest.mark.integration
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("api", APIS)
def test_llama_cpp(engine: LlamaCpp, api: Api, check: Check) -> None:
    engine.api = api
    print(asyncio.run(check(engine, ABILITIES[api])))


@pytest.mark.integration
def test_llama_cpp_labels_alike_in_two_batches_and_one(tmp_path: Path) -> None:
    texts = REVIEWS[:12]
    together = labels_of(llama_cpp(), tmp_path / "a", texts)
    alone = labels_of(llama_cpp(slots=1), tmp_path / "b", texts)
    assert agreement(together, alone) >= 0.98
    assert set(together) == set(SENTIMENT.labels or ())


@pytest.mark.integration
@pytest.mark.parametrize("api", APIS)
def test_a_server_that_ignores_constraints_is_found_out(api: Api) -> None:
    nothing = Abilities(context=10**6, dialects=(), prompt_logprobs=False)

    async def run(base_url: str) -> None:
        teacher = OpenAICompatible(model=teacher_server.MODEL, base_url=base_url, api=api)
        await teacher.start()
        try:
            print(await choices_are_held(teacher, nothing))
        finally:
            await teacher.close()

    with teacher_server.running() as server:
        asyncio.run(run(server.base_url))


@pytest.mark.parametrize("api", APIS)
def test_a_teacher_without_probabilities_is_refused_before_the_first_request(
    api: Api, tmp_path: Path
) -> None:
    teacher = ScriptedTeacher(lambda body: {}, api=api, top_logprobs=0)
    with pytest.raises(
        TeacherError, match="needs token probabilities, which scripted does not give"
    ):
        label(pd.DataFrame({"text": ["It broke."]}), SENTIMENT, teacher, store=tmp_path)
    assert (teacher.starts, teacher.seen) == (0, [])
