"""A teacher that does not think: chat completions in OpenAI's format, after a fixed time.

A bare ``asyncio.Protocol``, so that the server costs less than any client that is measured against
it. Prints its port. Each answer is a chain of thought of some 60 words that ends in one of the options
of the question it was asked, with usage. ``GET /count`` says how many completions it has served.

    python benchmarks/throughput_server.py --latency 0.05
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import suppress
from zlib import crc32

MODEL = "zero-think"
_THOUGHT = (
    "The question asks where this would most plausibly happen, so the answer has to be a place or a "
    "thing that fits every part of the sentence. Of the options above, several are related to one of "
    "the words, but only one of them fits the purpose that the question names, and people would think "
    "of it first when they read the whole sentence. So the answer is "
)
_BEFORE = (
    b'{"id":"chatcmpl-%08x","object":"chat.completion","created":1795000000,"model":"'
    + MODEL.encode()
    + b'","choices":[{"index":0,"message":{"role":"assistant","content":"'
    + _THOUGHT.encode()
)
_AFTER = (
    b'.","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],'
    b'"reasoning_content":null},"logprobs":null,"finish_reason":"stop","stop_reason":null}],'
    b'"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":%d,'
    b'"total_tokens":%d,"completion_tokens":78,"prompt_tokens_details":null},'
    b'"prompt_logprobs":null,"kv_transfer_params":null}'
)
_LIST = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()


def answer(body: bytes) -> bytes:
    """The completion for one request: an option of its last question, drawn by the body's checksum."""
    number = crc32(body)
    letter = b"(%c) " % b"abcde"[number % 5]
    start = body.rfind(letter)
    ends = [found for mark in (b"\\n", b'"') if (found := body.find(mark, start)) > start >= 0]
    option = (
        body[start : min(ends)] if ends else b"(a)"
    )  # Some clients begin with an empty question.
    tokens = len(body) // 4
    return _BEFORE % number + option + _AFTER % (tokens, tokens + 78)


class Connection(asyncio.Protocol):
    """One client's connection: requests one after another, each answered after ``latency`` seconds."""

    latency = 0.0
    served = 0

    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = 0
            if (place := head.find(b"\r\ncontent-length:")) >= 0:
                length = int(head[place + 17 :].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.respond(head, body)

    def respond(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post"):
            # Asyncio's timers are checked once a round: what is due at once is written at once.
            if self.latency:
                asyncio.get_running_loop().call_later(self.latency, self.complete, body)
            else:
                self.complete(body)
        elif b"/count" in head[:40]:
            self.write(b'{"served":%d}' % Connection.served)
        else:
            self.write(_LIST)

    def complete(self, body: bytes) -> None:
        Connection.served += 1
        self.write(answer(body))

    def write(self, body: bytes) -> None:
        if self.transport is not None:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )


async def serve(latency: float) -> None:
    Connection.latency = latency
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().latency))
