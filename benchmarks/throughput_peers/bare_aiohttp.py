"""What any client can reach at best: a loop that posts ready-made bytes and parses the answers."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson
from measuring import Measured, arguments

args = arguments()
measured = Measured(args)
with open(args.data / "requests.jsonl", "rb") as file:
    bodies = [line.rstrip(b"\n") for _, line in zip(range(args.rows), file, strict=False)]


async def run() -> int:
    waiting = iter(bodies)
    answered = 0

    async def worker() -> None:
        nonlocal answered
        for body in waiting:
            async with session.post(f"{args.url}/chat/completions", data=body) as response:
                answer = orjson.loads(await response.read())
            answered += answer["choices"][0]["message"]["content"] is not None

    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await asyncio.gather(*(worker() for _ in range(args.in_flight)))
    return answered


with measured:
    answered = asyncio.run(run())
measured.report(answered, aiohttp=aiohttp.__version__)
