"""The loop that most people write: ``AsyncOpenAI`` with its defaults and as many workers."""

from __future__ import annotations

import asyncio

import openai
from measuring import Measured, arguments, read_bodies

args = arguments()
measured = Measured(args)
bodies = read_bodies(args)


async def run() -> int:
    waiting = iter(bodies)
    answered = 0

    async def worker() -> None:
        nonlocal answered
        for body in waiting:
            answer = await client.chat.completions.create(**body)
            answered += answer.choices[0].message.content is not None

    async with openai.AsyncOpenAI(base_url=args.url, api_key="none") as client:
        await asyncio.gather(*(worker() for _ in range(args.in_flight)))
    return answered


with measured:
    answered = asyncio.run(run())
measured.report(answered, openai=openai.__version__)
