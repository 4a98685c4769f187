"""vLLM's offline engine in this process: the assertions for every engine, and its own.

``tests/vllm_on_cpu.sh`` runs it in vLLM's environment, after ``tests/vllm_on_cpu.py`` has written down what
the server answered. The first thing that is not as it should be ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from pathlib import Path

import engine_parity as parity
from engine_parity import ask, refusal

from labelers.vllm_engine import VLLM

CONTEXT = 2048
ABILITIES = parity.Abilities(
    context=CONTEXT, dialects=("vllm", "json_schema"), prompt_logprobs=True
)
LEAST_AGREEMENT = 0.98


class Kept(VLLM):
    """Stays loaded over the end of a labeling run, to save the time."""

    async def close(self) -> None:
        pass


def engine(model: Path, kind: type[VLLM] = VLLM) -> VLLM:
    return kind(
        model=str(model), context=CONTEXT, dtype="bfloat16", engine_args={"enforce_eager": True}
    )


async def joins_and_leaves(teacher: VLLM) -> str:
    """A short request overtakes a long one that is under way, and one given up harms no other."""
    long = asyncio.create_task(ask(teacher, "Write a long story.", max_tokens=1500))
    await ask(teacher, "Name a fruit:", max_tokens=2)
    assert not long.done(), "the short request waited for the long one"
    long.cancel()
    assert isinstance(
        (await asyncio.gather(long, return_exceptions=True))[0], asyncio.CancelledError
    )
    started = time.perf_counter()
    await asyncio.gather(*(ask(teacher, f"Name {i} fruits:", max_tokens=8) for i in range(16)))
    together = time.perf_counter() - started
    started = time.perf_counter()
    for i in range(16, 20):
        await ask(teacher, f"Name {i} fruits:", max_tokens=8)
    alone = (time.perf_counter() - started) * 4
    assert together < alone, f"16 requests took {together:.2f} s at once and {alone:.2f} s in turn"
    return f"16 requests took {together:.2f} s at once, {alone:.2f} s in turn"


async def unknown_fields(teacher: VLLM) -> str:
    """A field that would be left out is an error that names it."""
    for field in ({"guided_choice": ["a"]}, {"n": 3}, {"structured_outputs": {"choices": ["a"]}}):
        said = await refusal(ask(teacher, "Hello", **field))
        assert any(word in said for word in (*field, "choices")), said
    return "guided_choice, n and a misspelt constraint are refused"


async def death(teacher: VLLM) -> str:
    """An engine that is killed ends its requests with an error, and can be started again."""
    long = asyncio.create_task(ask(teacher, "Write a long story.", max_tokens=1500))
    await ask(teacher, "Name a fruit:", max_tokens=2)
    for process in multiprocessing.active_children():
        process.kill()
    message = await refusal(asyncio.wait_for(long, 60))
    assert "has failed" in message, message
    assert await refusal(ask(teacher, "Name a fruit:")) == message
    await VLLM.close(teacher)
    await teacher.start()
    again = parity.written(await ask(teacher, "Name a fruit:", max_tokens=4))
    await VLLM.close(teacher)
    return f"{message[:90]}... then, started again: {again!r}"


def check(model: Path, work: Path) -> None:
    began = time.perf_counter()
    teacher = engine(model, Kept)
    asyncio.run(teacher.start())
    print(f"== vLLM's offline engine is up after {time.perf_counter() - began:.0f} s", flush=True)
    for api in ("completions", "chat"):
        teacher.api = api  # type: ignore[assignment]  # one of the two literals
        print(f"== offline engine, api {api}", flush=True)
        for name, finding in asyncio.run(parity.all_checks(teacher, ABILITIES)):
            print(f"   {name}: {finding}", flush=True)
        theirs = json.loads((work / f"answers-{api}.json").read_text())
        parity.assert_alike(parity.answers_of(teacher), theirs)
        print(f"   {len(theirs)} answers say what the server's say, field by field", flush=True)
        started = time.perf_counter()
        labels = parity.labels_of(teacher, work / f"offline-{api}")
        took = time.perf_counter() - started
        same = parity.agreement(labels, parity.read_labels(work / f"labels-{api}.json"))
        print(f"   {len(labels)} labels in {took:.1f} s, {same:.1%} as the server's", flush=True)
        assert same >= LEAST_AGREEMENT, f"only {same:.1%} of the labels are the server's"
    print("== offline engine, its own ways", flush=True)
    for own in (joins_and_leaves, unknown_fields, death):
        print(f"   {own.__name__}: {asyncio.run(own(teacher))}", flush=True)
    assert not multiprocessing.active_children(), "an engine's process is left behind"
    print(f"== all as it should be, in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    check(given.model, given.work.resolve())
