"""A teacher in memory for tests: it says what the script says, and remembers what it saw."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from labelers import Limits, Prices, Task, label

Body = dict[str, Any]


def says(text: str | None, finish_reason: str = "stop") -> Body:
    """A chat answer."""
    message = {"role": "assistant", "content": text}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 10},
    }


def scores(*positions: Mapping[str, float], generated: list[str] | None = None) -> Body:
    """A chat answer of which the positions' alternatives and probabilities are given."""
    tokens = generated or [max(position, key=lambda t: position[t]) for position in positions]
    body = says("".join(tokens))
    body["choices"][0]["logprobs"] = {
        "content": [
            {
                "token": token,
                "logprob": math.log(position.get(token, 1e-9)),
                "top_logprobs": [
                    {"token": text, "logprob": math.log(p)} for text, p in position.items()
                ],
            }
            for token, position in zip(tokens, positions, strict=True)
        ]
    }
    return body


def question(body: Body) -> str:
    """The row's part of a request: the last message, or the last block of the prompt."""
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    return str(body["prompt"]).rsplit("\n\n", 1)[-1]


@dataclass
class ScriptedTeacher:
    """``script`` takes the request's body and gives an answer's body, raw bytes, or an exception."""

    script: Callable[[Body], Body | bytes | Exception]
    name: str = "scripted"
    model: str = "scripted-1"
    api: Any = "chat"
    concurrency: int = 4
    prefill: bool = False
    top_logprobs: int = 20
    prices: Prices | None = None
    revision: str = "1"
    seen: list[Body] = field(default_factory=list)
    starts: int = 0
    closes: int = 0

    @property
    def identity(self) -> Mapping[str, str]:
        return {"model": self.model, "revision": self.revision}

    async def start(self) -> None:
        self.starts += 1

    async def send(self, path: str, body: bytes) -> bytes:
        request = orjson.loads(body)
        self.seen.append(request)
        await asyncio.sleep(0)  # others get their turn, as while a real answer is on its way
        answer = self.script(request)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    async def close(self) -> None:
        self.closes += 1


SENTIMENT = Task(
    instruction="Decide whether a product review is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
)
QUIZ = Task(
    instruction="Answer the question.",
    template="{{ question }}\n{{ options | letters }}",
    choices="options",
)
REVIEWS = [
    "The strap broke on day two.",
    "I love the sharp screen.",
    "The battery lasts for weeks.",
    "It arrived scratched and late.",
]
AT_ONCE = Limits(attempts=3, backoff=0.0)


def glad(body: Body) -> bool:
    return any(word in question(body) for word in ("love", "lasts"))


def sentiment(body: Body) -> Body:
    """Scores with a little mass off the labels; rationales of one sentence."""
    if "\nLabel:" in question(body):
        return says(f"The buyer is {'glad' if glad(body) else 'cross'}.")
    likely, other = ("positive", "negative") if glad(body) else ("negative", "positive")
    return scores({likely: 0.6, likely.title(): 0.2, other: 0.1, "mixed": 0.1})


def thoughtful(body: Body) -> Body:
    said = "positive" if glad(body) else "negative"
    return says(f"The buyer is {'glad' if glad(body) else 'cross'}. So the answer is {said}.")


def reviews(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": REVIEWS, **columns})


def run(
    script: Callable[[Body], Any],
    store: Path,
    dataset: Any = None,
    task: Task = SENTIMENT,
    *,
    teacher: ScriptedTeacher | None = None,
    **how: Any,
) -> pd.DataFrame:
    teacher = teacher or ScriptedTeacher(script)
    how.setdefault("limits", AT_ONCE)
    result = label(reviews() if dataset is None else dataset, task, teacher, store=store, **how)
    return result.to_pandas().replace({np.nan: None})
