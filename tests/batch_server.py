"""A provider with a Batch API for tests: a process of its own that counts every request it executes.

``python tests/batch_server.py`` prints its port and serves ``/v1/files``, ``/v1/batches``, ``/v1/models``
and the endpoints for direct requests, answered by the rules of ``teacher_server``. A batch takes one step
with each look at it, so no clock is involved. Tests steer it over ``/control``: failed calls, batches that
expire or are refused, lines with errors, and the killing of a process when something comes to pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from teacher_server import MODEL, _question, _reply

STEPS = ("validating", "in_progress", "finalizing")
PLANNED = '{"error": {"message": "planned"}}'


@dataclass
class Batch:
    id: str
    token: str
    endpoint: str
    lines: list[dict[str, Any]]
    input_file_id: str
    outcome: dict[str, Any]
    step: int = 0
    files: dict[str, str | None] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"completed": 0, "failed": 0})

    @property
    def over(self) -> bool:
        return self.step >= (1 if self.outcome["status"] == "failed" else len(STEPS))

    @property
    def status(self) -> str:
        return str(self.outcome["status"]) if self.over else STEPS[self.step]

    def shown(self) -> dict[str, Any]:
        failed = self.over and self.status == "failed"
        return {
            "id": self.id, "object": "batch", "endpoint": self.endpoint, "status": self.status,
            "input_file_id": self.input_file_id, "completion_window": "24h", "created_at": 2**31,
            "metadata": {"curate_token": self.token},
            "request_counts": {"total": len(self.lines), **self.counts},
            "errors": {"object": "list", "data": self.outcome["errors"]} if failed else None,
            **({} if self.over and self.outcome.get("files_later", 0) > 0 else self.files),
        }  # fmt: skip


@dataclass
class Provider:
    """The provider's side of the story."""

    api_key: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    #: The digest of every request that was executed, and so paid for.
    executed: list[str] = field(default_factory=list)
    direct: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    line_faults: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    #: [process, event, how many more of it, seconds after it]
    kills: list[list[Any]] = field(default_factory=list)
    #: Headers that only the user's own provider should see.
    leaks: list[str] = field(default_factory=list)
    queue: int = 10**9
    page: int = 100
    #: While set, batches make no step.
    hold: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def happens(self, event: str, request: web.Request) -> web.Response | None:
        """Log an event, kill who is to be killed at it, and answer with a fault if one is planned."""
        self.events.append(event)
        self.news.set()
        self.leaks += [name for name in request.headers if name.startswith(("OpenAI-", "X-Mine"))]
        for kill in list(self.kills):
            process, at, _, after = kill
            if at == event:
                kill[2] -= 1
                if kill[2] <= 0:
                    self.kills.remove(kill)
                    await asyncio.sleep(after)
                    os.kill(process, signal.SIGKILL)
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api_key and given != self.api_key:
            words = f"Incorrect API key: {given}"
            return web.json_response({"error": {"message": words}}, status=401)
        for fault in self.faults:
            if fault["at"] == event and fault.setdefault("times", 1) > 0:
                fault["times"] -= 1
                if not fault["status"]:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                return web.Response(
                    status=fault["status"],
                    text=fault.get("body", PLANNED),
                    content_type=fault.get("type", "application/json"),
                    headers=fault.get("headers"),
                )
        return None

    async def models(self, request: web.Request) -> web.Response:
        listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        return await self.happens("models", request) or web.json_response(listed)

    async def upload(self, request: web.Request) -> web.Response:
        fields = {}
        async for part in await request.multipart():
            fields[part.name] = await part.read()  # type: ignore[union-attr]
        if fault := await self.happens("upload", request):
            return fault
        assert fields["purpose"] == b"batch"
        name = self._keep(bytes(fields["file"]))
        shown = {"id": name, "object": "file", "purpose": "batch", "bytes": len(fields["file"])}
        return await self.happens("uploaded", request) or web.json_response(shown)

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    async def create(self, request: web.Request) -> web.Response:
        # Once it is read, the client's death makes no difference: the batch is made.
        order = orjson.loads(await request.read())
        if fault := await self.happens("create", request):
            return fault
        lines = [orjson.loads(line) for line in self.files[order["input_file_id"]].splitlines()]
        names = [line["custom_id"] for line in lines]
        assert len(names) == len(set(names))
        assert {line["url"] for line in lines} == {order["endpoint"]}
        outcome = self.outcomes.pop(0) if self.outcomes else {"status": "completed"}
        enqueued = sum(len(batch.lines) for batch in self.batches.values() if not batch.over)
        if enqueued + len(lines) > self.queue:
            words = f"Enqueued token limit reached. Limit: {self.queue} enqueued tokens."
            error = {"code": "token_limit_exceeded", "message": words, "line": None}
            outcome = {"status": "failed", "errors": [error]}
        batch = Batch(
            f"batch-{len(self.batches)}", order["metadata"]["curate_token"], order["endpoint"],
            lines, order["input_file_id"], outcome,
        )  # fmt: skip
        self.batches[batch.id] = batch
        return await self.happens("created", request) or web.json_response(batch.shown())

    async def retrieve(self, request: web.Request) -> web.Response:
        if fault := await self.happens("poll", request):
            return fault
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "No such batch"}}, status=404)
        if not batch.over:
            batch.step += not self.hold
            if batch.over:
                self._execute(batch)
        elif "files_later" in batch.outcome:
            batch.outcome["files_later"] -= 1
        return web.json_response(batch.shown())

    async def cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        batch.outcome = {"status": "cancelled", "share": 0.5}
        return web.json_response(batch.shown())

    async def list(self, request: web.Request) -> web.Response:
        if fault := await self.happens("list", request):
            return fault
        newest_first = list(reversed(self.batches.values()))
        after = request.query.get("after")
        start = 0
        if after is not None:
            start = [batch.id for batch in newest_first].index(after) + 1
        end = start + min(self.page, int(request.query.get("limit", "20")))
        listed = [batch.shown() for batch in newest_first[start:end]]
        more = end < len(newest_first)
        return web.json_response({"object": "list", "data": listed, "has_more": more})

    def _execute(self, batch: Batch) -> None:
        if batch.status == "failed":
            return
        done, failed = [], []
        until = int(len(batch.lines) * batch.outcome.get("share", 1.0))
        for number, line in enumerate(batch.lines):
            name = line["custom_id"]
            if number >= until:
                error = {
                    "code": f"batch_{batch.status}",
                    "message": f"The batch is {batch.status}.",
                }
                failed.append({"custom_id": name, "response": None, "error": error})
                continue
            status, body = self._answer(line["url"].removeprefix("/v1/"), line["body"])
            response = {"status_code": status, "request_id": f"r-{number}", "body": body}
            answer = {"id": f"b-{number}", "custom_id": name, "response": response, "error": None}
            (done if status == 200 else failed).append(answer)
        done.reverse()  # The order is not the file's.
        for key, answers in (("output_file_id", done), ("error_file_id", failed)):
            content = b"".join(orjson.dumps(answer) + b"\n" for answer in answers)
            batch.files[key] = self._keep(content) if answers else None
        batch.counts = {"completed": len(done), "failed": len(failed)}

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        question = _question(body)
        for fault in self.line_faults:
            if fault["word"] in question and fault.setdefault("times", 1) > 0:
                fault["times"] -= 1
                return fault["status"], fault.get("body", orjson.loads(PLANNED))
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        self.executed.append(hashlib.sha256(path.encode() + canonical).hexdigest())
        return 200, _reply(body, question)

    async def ask_directly(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if fault := await self.happens("direct", request):
            return fault
        self.direct.append(_question(body))
        status, answer = self._answer(request.path.removeprefix("/v1/"), body)
        return web.json_response(answer, status=status)

    async def content(self, request: web.Request) -> web.StreamResponse:
        content = self.files[request.match_info["id"]]
        if fault := await self.happens("download", request):
            return fault
        response = web.StreamResponse()
        response.content_length = len(content)
        with suppress(ConnectionError):  # the client was killed
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            if await self.happens("half", request):
                assert request.transport is not None
                request.transport.abort()  # Whatever the fault, the rest is missing.
                return response
            await response.write(content[len(content) // 2 :])
            await response.write_eof()
        return response

    async def control(self, request: web.Request) -> web.Response:
        """Set what the body names; answer with the counts and the log."""
        orders = orjson.loads(await request.read() or b"{}")
        if wait := orders.pop("wait", None):
            while self.events.count(wait[0]) < wait[1]:
                self.news.clear()
                await self.news.wait()
        if orders.pop("forget", False):
            self.__init__(self.api_key)  # type: ignore[misc]
        for name, value in orders.items():
            setattr(self, name, value)
        story = {
            "executed": self.executed,
            "direct": self.direct,
            "events": self.events,
            "leaks": self.leaks,
            "files": len(self.files),
            "batches": [
                {"id": b.id, "status": b.status, "lines": len(b.lines), "endpoint": b.endpoint}
                for b in self.batches.values()
            ],
        }
        return web.Response(body=orjson.dumps(story))


@web.middleware
async def _mind_the_dead(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except ConnectionError:  # the client was killed
        return web.Response()


async def _serve(api_key: str) -> None:
    provider = Provider(api_key)
    app = web.Application(client_max_size=256 * 2**20, middlewares=[_mind_the_dead])
    app.router.add_get("/v1/models", provider.models)
    app.router.add_post("/v1/files", provider.upload)
    app.router.add_get("/v1/files/{id}/content", provider.content)
    app.router.add_post("/v1/batches", provider.create)
    app.router.add_get("/v1/batches", provider.list)
    app.router.add_get("/v1/batches/{id}", provider.retrieve)
    app.router.add_post("/v1/batches/{id}/cancel", provider.cancel)
    app.router.add_post("/v1/chat/completions", provider.ask_directly)
    app.router.add_post("/v1/completions", provider.ask_directly)
    app.router.add_post("/control", provider.control)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    # The test's end closes the pipe, and with it this process.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass
class Server:
    """A test's handle on the running provider."""

    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def control(self, **orders: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control", data=orjson.dumps(orders)
        )
        with urllib.request.urlopen(request) as response:
            story: dict[str, Any] = orjson.loads(response.read())
        return story

    def wait_for(self, event: str, times: int = 1) -> None:
        """Return when something has happened so many times."""
        self.control(wait=[event, times])

    def paid_twice(self) -> int:
        """Requests executed more than once."""
        return sum(times - 1 for times in Counter(self.control()["executed"]).values())


@contextmanager
def running(*, api_key: str = "") -> Iterator[Server]:
    """A provider in a process of its own, for the length of the block."""
    command = [sys.executable, __file__, api_key]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()))
    finally:
        process.communicate("")


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
