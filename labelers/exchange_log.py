"""The store as a log: which exchanges there are, what was asked and said, and what it cost.

Everything here reads one exchange at a time, so that a store of a million takes no more memory than
its index does.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from labelers.exchanges import Exchange, read_line, stamp
from labelers.replies import Reply
from labelers.store import Store
from labelers.teachers import Prices

#: A break longer than this many seconds is no part of the time that a run took.
_BREAK = 600.0


class LogError(ValueError):
    """What was asked of the log cannot be done: the message names the value and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which exchanges are meant; all of them by default.

    Args:
        run: The name of the run that asked.
        teacher: The model's name, or a value of the teacher's identity such as a file's hash, in
            full; case does not matter.
        since: Answered at this moment or later.
        before: Answered before this moment.
    """

    run: str | None = None
    teacher: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    _since: str = field(default="", init=False)
    _before: str = field(default="", init=False)

    def __post_init__(self) -> None:
        for name in ("since", "before"):
            moment = getattr(self, name)
            object.__setattr__(self, f"_{name}", stamp(moment) if moment else "")

    def takes(self, exchange: Exchange) -> bool:
        """Whether an exchange is among those meant."""
        if self.run is not None and exchange.run != self.run:
            return False
        if self._since and exchange.time < self._since:
            return False
        if self._before and exchange.time >= self._before:
            return False
        return self.teacher is None or self.teacher.casefold() in (
            name.casefold() for name in (model_name(exchange), *map(str, exchange.teacher.values()))
        )


EVERYTHING = Selection()


def newest(exchanges: Iterable[Exchange], limit: int) -> list[Exchange]:
    """The ``limit`` newest exchanges, the newest last."""
    numbered = ((exchange.time, i, exchange) for i, exchange in enumerate(exchanges))
    return [found[2] for found in reversed(heapq.nlargest(limit, numbered))]


def select(store: Store, selection: Selection = EVERYTHING) -> Iterator[Exchange]:
    """The stored exchanges that are meant, one at a time."""
    return filter(selection.takes, store.exchanges())


def search(store: Store, text: str, selection: Selection = EVERYTHING) -> Iterator[Exchange]:
    """The exchanges with ``text`` in what was asked or answered; case does not matter.

    Raises:
        LogError: If the text is empty.
    """
    wanted = text.casefold()
    if not wanted.strip():
        raise LogError(f"the text to be searched is {text!r}: give a word or more")
    for exchange in select(store, selection):
        turns = [*request_turns(exchange.request), *answer_parts(exchange)]
        if any(wanted in said.casefold() for _, said in turns):
            yield exchange


def find(store: Store, prefix: str) -> Exchange:
    """The one exchange whose key begins with ``prefix`` (hexadecimal).

    Raises:
        LogError: If there is none, or more than one.
    """
    wanted = prefix.strip().lower()
    found = [key for key in store if wanted and key.hex().startswith(wanted)]
    if len(found) > 1:
        shown = ", ".join(key.hex()[: len(wanted) + 4] for key in found[:5])
        raise LogError(
            f"{len(found)} keys begin with {prefix!r} ({shown}, …): give more of the key's digits"
        )
    exchange = store.read(found[0]) if found else None
    if exchange is None:
        raise LogError(
            f"no key in {store.folder} begins with {prefix!r}: `curate log list` shows the keys, and "
            "`prompt_key` in labeled.parquet names each row's"
        )
    return exchange


# ------------------------------------------------------------------------ what was asked and said


def model_name(exchange: Exchange) -> str:
    """The model's name inside the request, or else what the teacher's identity begins with."""
    named = exchange.request.get("model") or next(iter(exchange.teacher.values()), "")
    return str(named)


def request_turns(request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(role, text) of a chat's messages, or of the one prompt of a completion."""
    messages = request.get("messages")
    if not isinstance(messages, list):
        return [("prompt", _text(request.get("prompt")))]
    return [
        (str(message.get("role", "")), _text(message.get("content")))
        for message in messages
        if isinstance(message, dict)
    ]


def answer_parts(exchange: Exchange) -> list[tuple[str, str]]:
    """(``reasoning`` or ``answer``, text) of the first choice, as far as there is one."""
    choices = exchange.response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    if not isinstance(choice, dict):
        return []
    message = choice.get("message")
    holder = message if isinstance(message, dict) else choice
    named = (
        ("reasoning", holder.get("reasoning") or holder.get("reasoning_content")),
        ("answer", holder.get("content") if holder is message else holder.get("text")),
    )
    return [(name, _text(value)) for name, value in named if value]


def _text(content: object) -> str:
    """A message's text; of one in parts, such as text and picture, the texts."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def row_prompt(exchange: Exchange) -> str:
    """The part of a request that is one row's: the instruction and demonstrations left out.

    A chat's last user message; of a completion's prompt the last paragraph, without the words
    after which the answer goes on (``Label:``).
    """
    turns = request_turns(exchange.request)
    if "messages" in exchange.request:
        asked = [text for role, text in turns if role == "user"]
        return asked[-1] if asked else ""
    paragraph = turns[0][1].rpartition("\n\n")[2]
    body, _, last = paragraph.rpartition("\n")
    return body if body and last.endswith((":", ": (")) else paragraph


def answered_text(exchange: Exchange) -> str:
    """What the teacher answered; its reasoning, where that came apart, is left out."""
    return next((text for name, text in answer_parts(exchange) if name == "answer"), "")


def tokens(exchange: Exchange) -> tuple[int, int]:
    """Prompt and completion tokens as the server counted them; 0 where it did not say."""
    return Reply(exchange.response, b"").tokens


# ----------------------------------------------------------------------------------------- costs


@dataclass(frozen=True)
class RunCost:
    """What one run asked of one teacher.

    Attributes:
        run: The run's name, empty where none was given.
        teacher: The model's name.
        exchanges: Answers received.
        uncounted: Those among them whose tokens the server did not tell; they are in no sum.
        prompt_tokens: Tokens read by the teacher.
        completion_tokens: Tokens written by it.
        cost_usd: Their cost; None without prices.
        first: When the first answer came.
        last: When the last one came.
        rate: Answers a second, breaks of more than ten minutes left out; None for a single answer.
    """

    run: str
    teacher: str
    exchanges: int
    uncounted: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    first: str
    last: str
    rate: float | None


@dataclass(frozen=True)
class Costs:
    """Costs by run and teacher, the newest last; ``damaged`` lines of the store are in no sum."""

    runs: tuple[RunCost, ...]
    damaged: int

    @property
    def cost_usd(self) -> float | None:
        """The sum over all runs; None without prices."""
        known = [run.cost_usd for run in self.runs if run.cost_usd is not None]
        return sum(known) if len(known) == len(self.runs) and known else None


@dataclass
class _Sum:
    exchanges: int = 0
    uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    times: array[float] = field(default_factory=lambda: array("d"))

    def add(self, exchange: Exchange) -> None:
        prompt, completion = tokens(exchange)
        self.exchanges += 1
        self.uncounted += not prompt and not completion
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.times.append(seconds_of(exchange.time))


def costs(
    store: Store, selection: Selection = EVERYTHING, *, prices: Prices | None = None
) -> Costs:
    """Add up what each run asked of each teacher.

    A request that was paid for twice, by two processes at once for instance, counts twice.
    """
    sums: dict[tuple[str, str], _Sum] = {}
    damaged = 0
    for _, line in store.lines():
        fields = read_line(line)
        if fields is None:
            damaged += 1
            continue
        exchange = Exchange(**fields)
        if selection.takes(exchange):
            sums.setdefault((exchange.run, model_name(exchange)), _Sum()).add(exchange)
    runs = [
        RunCost(
            run, teacher, s.exchanges, s.uncounted, s.prompt_tokens, s.completion_tokens,
            prices.cost(s.prompt_tokens, s.completion_tokens) if prices else None,
            _stamp_of(min(s.times)), _stamp_of(max(s.times)), rate(s.times),
        )
        for (run, teacher), s in sums.items()
    ]  # fmt: skip
    return Costs(tuple(sorted(runs, key=lambda run: run.last)), damaged)


def seconds_of(time: str) -> float:
    """An exchange's time in seconds since 1970; 0 where it is none."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def _stamp_of(seconds: float) -> str:
    return stamp(datetime.fromtimestamp(seconds).astimezone())


def rate(times: Iterable[float]) -> float | None:
    """Answers a second by the times at which they came; breaks of over ten minutes are left out."""
    ordered = sorted(times)
    gaps = [b - a for a, b in pairwise(ordered) if b - a <= _BREAK]
    spent = sum(gaps)
    return len(gaps) / spent if spent > 0 else None
