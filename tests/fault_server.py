"""An OpenAI-compatible server with the faults that real ones have: a process of its own, for tests.

Which request meets which fault hangs on a seed, the request and how often it was made, not on the order in
which requests come in. The server counts, for itself, the tokens of everything that it began to compute,
be the answer delivered or not, and keeps a log of when which request came and what became of it.

``/control`` takes a JSON object of :class:`Orders`' fields and answers with the story so far.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

MODEL = "teacher-1"
PRAISE = ("love", "great", "perfectly", "sharp", "best")

#: Faults after which the same request is to be made again.
PASSING = (
    "429", "429 pause", "429 at once", "500", "503", "cut", "cut body", "half JSON", "stall",
    "HTML 200", "HTML 502", "no choices", "wrong model",
)  # fmt: skip
#: An answer that heeds no label set: it is an answer all the same.
IGNORES = "ignores labels"
#: Refused before anything is computed.
_FREE = frozenset(
    {
        "429",
        "429 pause",
        "429 at once",
        "503",
        "400",
        "401",
        "403",
        "404",
        "402",
        "context",
        "quota",
    }
)
_HTML = b"<html><head><title>Bad gateway</title></head><body>nginx</body></html>"
_STALL = 30.0


@dataclass
class Orders:
    """What the server is told to do."""

    seed: int = 0
    #: Share of requests that meet a fault, and the faults among which it is drawn.
    fault_rate: float = 0.0
    faults: list[str] = field(default_factory=list)
    #: word in the question -> the fault that each request with it meets
    always: dict[str, str] = field(default_factory=dict)
    #: From the request of this number on, each meets ``then``; 0 for never.
    after: int = 0
    then: str = "500"
    #: The request of this number is answered by 429 and a pause of so many seconds; so are all in it.
    pause_at: int = 0
    pause: float = 0.2
    #: More requests than this at once are answered by 429; 0 for no limit.
    most_at_once: int = 0
    latency: float = 0.0
    #: Tokens are drawn at random, up to the prompt's bytes and to max_tokens; else 40 and 8.
    random_tokens: bool = False
    #: Share of answers without ``usage``.
    silent: float = 0.0
    #: Holds its answers to the list in ``structured_outputs``, as vLLM does.
    obeys: bool = False
    #: Every answer and error quotes the request's Authorization header.
    echo: bool = False
    #: (process, requests received at which it is killed, seconds after that)
    kills: list[list[float]] = field(default_factory=list)


@dataclass
class Served:
    """The server's side of the story."""

    orders: Orders = field(default_factory=Orders)
    #: (time, digest, question, fate, requests under way) of each request
    log: list[list[Any]] = field(default_factory=list)
    times: Counter[str] = field(default_factory=Counter)
    answered: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    most_under_way: int = 0
    under_way: int = 0
    paused_until: float = 0.0
    #: (from, to) of the pauses asked for
    pauses: list[list[float]] = field(default_factory=list)

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        digest = hashlib.sha256(request.path.encode() + raw).hexdigest()[:24]
        body = orjson.loads(raw)
        question = str(body["messages"][-1]["content"])
        self.under_way += 1
        try:
            self.most_under_way = max(self.most_under_way, self.under_way)
            dice = random.Random(f"{self.orders.seed} {digest} {self.times[digest]}")
            self.times[digest] += 1
            fate = self._fate(dice, question)
            self.log.append([time.time(), digest, question, fate, self.under_way])
            self._kill_who_is_due()
            if fate not in _FREE:
                usage = self._count(dice, body)
            if self.orders.latency:
                await asyncio.sleep(self.orders.latency)
            if fate in _FREE:
                return self._refuse(fate, request)
            return await self._compute(fate, request, digest, body, question, usage, dice)
        finally:
            self.under_way -= 1

    def _fate(self, dice: random.Random, question: str) -> str:
        orders, number = self.orders, len(self.log) + 1
        if orders.after and number >= orders.after:
            return orders.then
        if number == orders.pause_at:
            self.paused_until = time.time() + orders.pause
        if time.time() < self.paused_until:
            return "429 pause"
        if orders.most_at_once and self.under_way > orders.most_at_once:
            return "429"
        for word, fault in orders.always.items():
            if word in question:
                return fault
        if dice.random() < orders.fault_rate:
            return dice.choice(orders.faults)
        return "answered"

    def _count(self, dice: random.Random, body: dict[str, Any]) -> dict[str, int]:
        prompt, completion = 40, 8
        if self.orders.random_tokens:
            texts = sum(len(message["content"].encode()) for message in body["messages"])
            prompt, completion = dice.randint(1, texts), dice.randint(0, body["max_tokens"])
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        return {"prompt_tokens": prompt, "completion_tokens": completion}

    def _refuse(self, fate: str, request: web.Request) -> web.Response:
        echoed = f" for {request.headers.get('Authorization')}" if self.orders.echo else ""
        message, headers = f"planned: {fate}{echoed}", {}
        if fate == "context":
            message = f"This model's maximum context length is 4096 tokens{echoed}"
        if fate == "429 pause":
            until = max(self.paused_until, time.time() + self.orders.pause)
            headers["Retry-After"] = f"{until - time.time():.3f}"
            self.pauses.append([time.time(), until])
        if fate == "429 at once":
            headers["Retry-After"] = "0"
        error = {"message": message, "type": "insufficient_quota" if fate == "quota" else "planned"}
        status = {"context": 400, "quota": 429}.get(fate) or int(fate[:3])
        return web.json_response({"error": error}, status=status, headers=headers)

    async def _compute(
        self,
        fate: str,
        request: web.Request,
        digest: str,
        body: dict[str, Any],
        question: str,
        usage: dict[str, int],
        dice: random.Random,
    ) -> web.StreamResponse:
        echoed = str(request.headers.get("Authorization")) if self.orders.echo else ""
        if fate == "cut":
            return self._cut(request)
        if fate == "stall":
            await asyncio.sleep(_STALL)
        if fate == "500":
            return web.json_response({"error": {"message": f"planned {echoed}"}}, status=500)
        if fate.startswith("HTML"):
            page = _HTML.replace(b"nginx", echoed.encode() or b"nginx")
            return web.Response(body=page, status=int(fate[5:]), content_type="text/html")
        label = "positive" if any(word in question for word in PRAISE) else "negative"
        text = f"The words of the buyer say so. So the answer is {label}."
        if self.orders.obeys and (held := body.get("structured_outputs")):
            text = label if label in held["choice"] else held["choice"][0]
        if fate == IGNORES:
            text = "I would rather not say. So the answer is mixed."
        if fate == "echoed":
            text = (
                f"Your header was {request.headers.get('Authorization')}. So the answer is {label}."
            )
        message = {"role": "assistant", "content": text}
        answer = {
            "id": "cmpl-1",
            "model": f"other-{echoed}" if fate == "wrong model" else body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": usage,
        }
        if fate == "no choices":
            answer |= {"choices": [], "echo": echoed}
        if dice.random() < self.orders.silent:
            del answer["usage"]
        written = orjson.dumps(answer)
        if fate == "half JSON":
            written = written[: len(written) // 2]
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(written)
        with suppress(ConnectionError):  # the client was killed or has gone away
            await response.prepare(request)
            if fate == "cut body":
                await response.write(written[: len(written) // 2])
                await asyncio.sleep(0.005)  # so that half a body is on its way before the cut
                return self._cut(request)
            await response.write(written)
            await response.write_eof()
            if fate in ("answered", IGNORES, "echoed"):
                self.answered.append(digest)
        return response

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _kill_who_is_due(self) -> None:
        for kill in list(self.orders.kills):
            process, at, after = kill
            if len(self.log) >= at:
                self.orders.kills.remove(kill)
                asyncio.get_running_loop().call_later(after, _kill, int(process))

    async def control(self, request: web.Request) -> web.Response:
        """Take orders; ``forget`` clears the log first. Answer with the story so far."""
        orders = orjson.loads(await request.read() or b"{}")
        if orders.pop("forget", False):
            self.__dict__.update(Served().__dict__)
        for name, value in orders.items():
            assert hasattr(self.orders, name), name
            setattr(self.orders, name, value)
        story = {
            "log": self.log,
            "answered": self.answered,
            "tokens": [self.prompt_tokens, self.completion_tokens],
            "most_under_way": self.most_under_way,
            "pauses": self.pauses,
            "now": time.time(),
        }
        return web.Response(body=orjson.dumps(story))


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):  # it had ended by itself
        os.kill(process, signal.SIGKILL)


async def _serve() -> None:
    served = Served()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_get("/v1/models", served.models)
    app.router.add_post("/v1/chat/completions", served.answer)
    app.router.add_post("/control", served.control)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    # The test's end closes the pipe, and with it this process.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass
class Story:
    """What the server saw and did."""

    log: list[tuple[float, str, str, str, int]]
    answered: list[str]
    tokens: tuple[int, int]
    most_under_way: int
    pauses: list[tuple[float, float]]
    now: float

    @property
    def received(self) -> list[str]:
        return [entry[1] for entry in self.log]

    @property
    def fates(self) -> Counter[str]:
        return Counter(entry[3] for entry in self.log)

    def asked_about(self, word: str) -> int:
        return sum(word in entry[2] for entry in self.log)


@dataclass
class FaultServer:
    """A test's handle on the running server."""

    port: int
    process: subprocess.Popen[str]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def control(self, **orders: Any) -> Story:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control", data=orjson.dumps(orders)
        )
        with urllib.request.urlopen(request) as response:
            return Story(**orjson.loads(response.read()))

    def die(self) -> None:
        """Be gone at once, as a machine that loses its power."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(**orders: Any) -> Iterator[FaultServer]:
    """A server in a process of its own, for the length of the block."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        server = FaultServer(int(process.stdout.readline()), process)
        server.control(**orders)
        yield server
    finally:
        process.communicate("")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    asyncio.run(_serve())
