"""An OpenAI-compatible teacher for tests: a process of its own that counts all that it is asked.

``python tests/teacher_server.py --latency 0.02`` prints its port and serves ``/v1/models``,
``/v1/chat/completions`` and ``/v1/completions`` with log-probabilities in both wire formats. Praise is
positive, all else negative. Every request received and every answer sent in full is in its log.
Tests steer it over ``/control``: faults by a word in the question, and the killing of a process when so
many requests have come in.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from aiohttp import web

MODEL = "teacher-1"
PRAISE = ("love", "great", "perfectly", "sharp", "best")


@dataclass
class Fault:
    """What to answer instead, for the next ``times`` requests whose question holds ``word``.

    ``status`` 0 cuts the connection without an answer.
    """

    word: str
    status: int
    times: int = 1
    body: str = '{"error": {"message": "planned"}}'
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Served:
    """The server's side of the story."""

    latency: float
    api_key: str = ""
    faults: list[Fault] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    #: (process, requests received at which it is killed, seconds after that)
    kills: list[tuple[int, int, float]] = field(default_factory=list)

    async def models(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refuse(request):
            return refusal
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def _refuse(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.api_key or given == self.api_key:
            return None
        # As unkind as a server can be: it quotes the key it was sent.
        return web.json_response({"error": {"message": f"Incorrect API key: {given}"}}, status=401)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        digest = hashlib.sha256(request.path.encode() + raw).hexdigest()
        self.received.append(digest)
        self._kill_who_is_due()
        if refusal := self._refuse(request):
            return refusal
        body = orjson.loads(raw)
        question = _question(body)
        self.questions.append(question)
        if self.latency:
            await asyncio.sleep(self.latency)
        for fault in self.faults:
            if fault.word in question and fault.times > 0:
                fault.times -= 1
                if not fault.status:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                return web.Response(
                    status=fault.status, body=fault.body.encode(), headers=fault.headers
                )
        response = web.Response(body=orjson.dumps(_reply(body, question)))
        response.content_type = "application/json"
        with suppress(ConnectionError):  # the client was killed
            await response.prepare(request)
            await response.write_eof()
            self.answered.append(digest)
        return response

    def _kill_who_is_due(self) -> None:
        for kill in list(self.kills):
            process, at, after = kill
            if len(self.received) >= at:
                self.kills.remove(kill)
                asyncio.get_running_loop().call_later(after, os.kill, process, signal.SIGKILL)

    async def control(self, request: web.Request) -> web.Response:
        """Set what the body names; answer with the counts and the log."""
        orders = orjson.loads(await request.read() or b"{}")
        self.faults += [Fault(**fault) for fault in orders.get("faults", [])]
        self.kills += [tuple(kill) for kill in orders.get("kills", [])]
        if orders.get("forget"):
            for log in (self.faults, self.received, self.answered, self.questions):
                log.clear()
        story = {
            "received": self.received,
            "answered": self.answered,
            "questions": self.questions,
        }
        return web.Response(body=orjson.dumps(story))


def _question(body: dict[str, Any]) -> str:
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    return str(body["prompt"]).rsplit("\n\n", 1)[-1]


def _reply(body: dict[str, Any], question: str) -> dict[str, Any]:
    label = "positive" if any(word in question for word in PRAISE) else "negative"
    chat = "messages" in body
    text, choice = f"The words of the buyer say so. So the answer is {label}.", {}
    if body.get("logprobs"):
        other = "negative" if label == "positive" else "positive"
        space = "" if chat else " "
        text = space + label
        # The label in two spellings, the other label, and a word that is no label.
        tops = {
            space + label: 0.7,
            label.capitalize(): 0.1,
            space + other: 0.15,
            space + "mixed": 0.04,
        }
        choice = _chat_logprobs(text, tops) if chat else _completion_logprobs(text, tops)
    elif "\nLabel:" in question or "\nWhy:" in question:
        text = " The buyer says so in plain words."
    place: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    )
    return {
        "id": "cmpl-1",
        "object": "chat.completion" if chat else "text_completion",
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", **place, **choice}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48},
    }


def _chat_logprobs(text: str, tops: dict[str, float]) -> dict[str, Any]:
    alternatives = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in tops.items()]
    entry = {**alternatives[0], "token": text, "top_logprobs": alternatives}
    return {"logprobs": {"content": [entry]}}


def _completion_logprobs(text: str, tops: dict[str, float]) -> dict[str, Any]:
    return {
        "logprobs": {
            "tokens": [text],
            "token_logprobs": [math.log(tops[text])],
            "top_logprobs": [{token: math.log(p) for token, p in tops.items()}],
            "text_offset": [0],
        }
    }


async def _serve(latency: float, api_key: str) -> None:
    served = Served(latency, api_key)
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_get("/v1/models", served.models)
    app.router.add_post("/v1/chat/completions", served.answer)
    app.router.add_post("/v1/completions", served.answer)
    app.router.add_post("/control", served.control)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    # The test's end closes the pipe, and with it this process.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass
class Server:
    """A test's handle on the running server."""

    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def control(self, **orders: Any) -> dict[str, list[str]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control", data=orjson.dumps(orders)
        )
        with urllib.request.urlopen(request) as response:
            story: dict[str, list[str]] = orjson.loads(response.read())
        return story

    def plan(self, *faults: Fault) -> None:
        self.control(faults=[asdict(fault) for fault in faults])


@contextmanager
def running(*, latency: float = 0.0, api_key: str = "") -> Iterator[Server]:
    """A server in a process of its own, for the length of the block."""
    command = [sys.executable, __file__, "--latency", str(latency), "--api-key", api_key]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()))
    finally:
        process.communicate("")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--api-key", default="")
    given = parser.parse_args()
    asyncio.run(_serve(given.latency, given.api_key))
