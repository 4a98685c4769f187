"""What vLLM 0.32 really sent, trimmed by hand: its log-probabilities in both APIs, and its refusals.

The model was SmolLM2-135M-Instruct. `tests/vllm_on_cpu.sh` asks a live server.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web
from scripted_teacher import Body, ScriptedTeacher

from labelers import Demonstration, OpenAICompatible, RowError, Task, TeacherError, label
from labelers.probabilities import label_mass, read_positions

NAMES = ("positive", "negative")
USAGE = {"prompt_tokens": 57, "total_tokens": 58, "completion_tokens": 1}


def completion(text: str, *tops: Mapping[str, float], sampled: float | None = None) -> Body:
    """A body of ``/v1/completions``; by default the sampled token is the likeliest shown."""
    tokens = [max(top, key=lambda t: top[t]) for top in tops] if sampled is None else [text]
    logprobs = {
        "text_offset": [0] * len(tokens),
        "token_logprobs": [sampled] if sampled else [max(top.values()) for top in tops],
        "tokens": tokens,
        "top_logprobs": list(tops),
    }
    choice = {
        "index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length",
        "stop_reason": None, "token_ids": None, "prompt_logprobs": None,
    }  # fmt: skip
    return {"object": "text_completion", "model": "smollm2", "choices": [choice], "usage": USAGE}


def chat(text: str, *positions: list[tuple[str, float]]) -> Body:
    """A body of ``/v1/chat/completions``, the sampled token first at each position."""
    content = []
    for tops in positions:
        entries = [
            {"token": token, "logprob": value, "bytes": list(token.encode())}
            for token, value in tops
        ]
        content.append({**entries[0], "top_logprobs": entries})
    message = {"role": "assistant", "content": text, "refusal": None, "reasoning": None}
    choice = {
        "index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "stop",
        "stop_reason": None, "token_ids": None,
    }  # fmt: skip
    return {"object": "chat.completion", "model": "smollm2", "choices": [choice], "usage": USAGE}


PRAISE = completion(
    " positive",
    {
        " positive": -0.18405677378177643, " negative": -2.8090567588806152,
        " happy": -3.9340567588806152, " no": -5.059056758880615, " ": -6.934056758880615,
        " Positive": -7.309056758880615,
    },
)  # fmt: skip
PRAISE_IN_CHAT = chat(
    "positive",
    [("positive", -0.10989318788051605), ("negative", -2.6098930835723877), ("f", -6.109893321)],
    [("<|im_end|>", -0.001760838902555406), ("<|im_start|>", -7.876760959), ("\n", -8.001760482)],
)


def masses(body: Body, names: tuple[str, ...] = NAMES) -> tuple[float, ...]:
    return label_mass(read_positions(body["choices"][0], asked=20), names).masses


# ---------------------------------------------------------------------------------- probabilities


def test_a_completion_gives_each_label_all_its_spellings() -> None:
    positive, negative = masses(PRAISE)
    assert positive == pytest.approx(math.exp(-0.18405677) + math.exp(-7.30905676))
    assert negative == pytest.approx(math.exp(-2.80905676))


def test_a_chat_answer_ends_in_its_own_token_and_gives_the_same_reading() -> None:
    positive, negative = masses(PRAISE_IN_CHAT)
    assert positive == pytest.approx(math.exp(-0.10989319))
    assert negative == pytest.approx(math.exp(-2.60989308))


def test_the_end_token_after_a_complete_label_counts_for_it() -> None:
    answer = chat(
        "very",
        [("very", -0.1), ("no", -3.0)],
        [("<|im_end|>", -0.22314355), (" well", -1.60943791)],
    )
    very, very_well = masses(answer, ("very", "very well"))
    assert very == pytest.approx(math.exp(-0.1) * 0.8)
    assert very_well == pytest.approx(math.exp(-0.1) * 0.2)


def labelled(body: Body, task: Task, tmp_path: Path, **how: Any) -> dict[str, Any]:
    teacher = ScriptedTeacher(lambda request: body, **how)
    rows = label(
        pd.DataFrame({"text": ["The lid broke."]}), task, teacher, rationales=False, store=tmp_path
    )
    row: dict[str, Any] = rows[0]
    return row


def test_a_row_takes_its_label_from_the_completion(tmp_path: Path) -> None:
    task = Task(instruction="Positive or negative?", labels=NAMES)
    row = labelled(PRAISE, task, tmp_path, api="completions", prefill=True)
    positive, negative = masses(PRAISE)
    assert row["error"] is None
    assert row["label"] == "positive"
    assert row["label_source"] == "logprobs"
    assert row["label_probs"] == pytest.approx(
        [positive / (positive + negative), negative / (positive + negative)]
    )
    assert row["off_label_mass"] == pytest.approx(1 - positive - negative)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (57, 1)


# ------------------------------------------------------------------------------ parts of characters

# " ö" and " ä" begin with one and the same token, which is half a character. vLLM shows every such
# token as "", and they share one entry: the sampled one has -0.16 and the entry says -6.29.
UMLAUT = completion(
    "",
    {
        "": -6.289677619934082, " ": -4.602177619934082, " the": -4.977177619934082,
        " Ö": -5.789677619934082, " k": -5.977177619934082,
    },
    sampled=-0.1646774560213089,
)  # fmt: skip
UMLAUT_IN_CHAT = chat(
    "öl",
    [("ö", -1.1337066888), ("är", -1.1337066888), ("ä", -2.6337065696), ("", -9.2)],
    [("l", -0.01065694727)],
)
# "い" is a token; "は" is two, of which the first stands for nothing by itself.
SPLIT_IN_CHAT = chat(
    "はい",
    [("", -0.5248165130), ("い", -1.7748165130), ("", -2.2748165130), ("", -3.5248165130)],
    [("は", -0.0669610276)],
    [("い", -0.0189701337)],
)


@pytest.mark.parametrize(
    ("body", "labels", "how", "share"),
    [
        (UMLAUT, ("öl", "ärger"), {"api": "completions", "prefill": True}, "98%"),
        (SPLIT_IN_CHAT, ("はい", "いいえ"), {}, "13%"),
    ],
)
def test_labels_hidden_in_parts_of_characters_are_not_given_a_wrong_distribution(
    tmp_path: Path, body: Body, labels: tuple[str, ...], how: dict[str, Any], share: str
) -> None:
    # Read as they are shown, the first would be all " Ö" and the second would miss part of "は".
    row = labelled(body, Task(instruction="Welches?", labels=labels), tmp_path, **how)
    assert row["label"] is None
    assert row["label_probs"] is None
    assert row["error"].startswith(f"ambiguous: up to {share} of the probability is on parts of")
    assert "answer_form: letter" in row["error"]


def test_a_small_chance_of_parts_of_characters_is_tolerated(tmp_path: Path) -> None:
    task = Task(instruction="Welches?", labels=("öl", "ärger"))
    row = labelled(UMLAUT_IN_CHAT, task, tmp_path)
    assert row["error"] is None
    # "är" and "ä" begin one label only; so does "ö".
    oil, trouble = math.exp(-1.1337066888), math.exp(-1.1337066888) + math.exp(-2.6337065696)
    assert row["label_probs"] == pytest.approx([oil / (oil + trouble), trouble / (oil + trouble)])


def test_parts_of_characters_are_no_concern_of_plain_labels() -> None:
    found = label_mass(read_positions(UMLAUT["choices"][0], asked=20), NAMES)
    assert found.unreadable == 0


def test_a_mapping_that_is_complete_hides_nothing() -> None:
    positions = read_positions(UMLAUT["choices"][0], asked=5)
    found = label_mass(positions, ("öl", "ärger"))
    assert found.unreadable == pytest.approx(math.exp(-6.289677619934082))


def test_letters_are_the_way_out_for_such_labels(tmp_path: Path) -> None:
    task = Task(
        instruction="Welches?", labels=("öl", "ärger"), answer_form="letter",
        demonstrations=(Demonstration(input="x", label="öl"),),
    )  # fmt: skip
    body = completion("b", {"b": -0.2, "a": -1.9, "": -6.0})
    row = labelled(body, task, tmp_path, api="completions", prefill=True)
    assert row["label"] == "ärger"


# ------------------------------------------------------------------------------------- refusals

TOO_LONG = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 "
    "input tokens, which exceeds this limit even without any output tokens. Please reduce the length "
    "of the input prompt. (parameter=input_tokens, value=2049)"
)


@asynccontextmanager
async def refusing(status: int, body: str) -> AsyncIterator[str]:
    """A server that knows its model and refuses every request."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "smollm2"}]})

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def refusal(status: int, body: str) -> Exception:
    """The error that one request ends with."""

    async def ask() -> Exception:
        async with refusing(status, body) as url:
            teacher = OpenAICompatible(model="smollm2", base_url=url, api="completions")
            await teacher.start()
            try:
                await teacher.send("completions", b"{}")
            except (RowError, TeacherError) as error:
                return error
            finally:
                await teacher.close()
        raise AssertionError("nothing was refused")

    return asyncio.run(ask())


def test_a_prompt_longer_than_the_context_is_an_error_of_its_row() -> None:
    told = f'"message":"{TOO_LONG}","type":"BadRequestError","param":"input_tokens","code":400'
    error = refusal(400, f'{{"error":{{{told}}}}}')
    assert isinstance(error, RowError)
    assert error.kind == "context_length"
    assert "maximum context length is 2048 tokens" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, '{"error":"Unauthorized"}', "asks for a key (HTTP 401: Unauthorized): name the"),
        (404, '{"detail":"Not Found"}', "answers HTTP 404 (Not Found): check teacher.base_url"),
        (
            404,
            '{"error":{"message":"The model `nosuch` does not exist. Valid aliases: smollm2.",'
            '"type":"NotFoundError","param":"model","code":404}}',
            "answers HTTP 404 (The model `nosuch` does not exist. Valid aliases: smollm2.)",
        ),
    ],
)  # fmt: skip
def test_what_no_request_can_mend_ends_the_run_in_the_servers_words(
    status: int, body: str, words: str
) -> None:
    error = refusal(status, body)
    assert isinstance(error, TeacherError)
    assert words in str(error)
