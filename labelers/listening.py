"""In place of one who asks: hears what the labeling loop would ask, and answers from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from labelers.asking import Asker
from labelers.exchange_log import rate, seconds_of, tokens
from labelers.exchanges import canonical
from labelers.prompts import Request
from labelers.replies import Reply
from labelers.row_answers import RowAnswer
from labelers.row_asking import RowAsker
from labelers.rows import Row
from labelers.store import Store
from labelers.teachers import RowError, Teacher
from labelers.token_counts import TokenCounter

#: So many stored answers are needed before their mean or their pace says something.
_MEASURED_MINIMUM = 20
#: So many of the newest stored answers are looked at for it.
_MEASURED_MAXIMUM = 20_000


@dataclass(frozen=True)
class PhaseQuote:
    """What one phase would ask.

    Attributes:
        requests: All requests of the phase.
        paid: Those answered in the store already; they are not charged again.
        repeated: Those equal to an earlier one of this run; they are asked once.
        prompt_tokens: Of the requests to be asked.
        completion_tokens: At most, if every answer were as long as it may be.
        expected_completion_tokens: By the mean of stored answers to requests with the same settings;
            None where fewer than 20 are stored.
    """

    requests: int = 0
    paid: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    expected_completion_tokens: int | None = 0

    @property
    def to_ask(self) -> int:
        """Requests that would be sent."""
        return self.requests - self.paid - self.repeated


@dataclass
class Measured:
    """What the newest stored answers of a teacher tell of the next ones."""

    answers: int = 0
    rate: float | None = None
    sums: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, teacher: Teacher, store: Store) -> Measured:
        """Read it off the store."""
        measured, identity = cls(), dict(teacher.identity)
        times: dict[str, list[float]] = {}
        for key in reversed(list(store)[-_MEASURED_MAXIMUM:]):
            exchange = store.read(key)
            if exchange is None or dict(exchange.teacher) != identity:
                continue
            measured.answers += 1
            times.setdefault(exchange.run, []).append(seconds_of(exchange.time))
            settings = _settings(exchange.request)
            count, total = measured.sums.get(settings, (0, 0))
            measured.sums[settings] = count + 1, total + tokens(exchange)[1]
        newest = max(times.values(), key=max, default=[])
        if len(newest) >= _MEASURED_MINIMUM:
            measured.rate = rate(newest)
        return measured

    def mean(self, settings: bytes) -> float | None:
        """Mean completion tokens of answers to requests with these settings."""
        count, total = self.sums.get(settings, (0, 0))
        return total / count if count >= _MEASURED_MINIMUM and total else None


@dataclass
class _Phase:
    requests: int = 0
    paid: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: New requests by their settings.
    settings: Counter[bytes] = field(default_factory=Counter)

    def quote(self, measured: Measured) -> PhaseQuote:
        means = {settings: measured.mean(settings) for settings in self.settings}
        expected = None
        if None not in means.values():
            expected = round(sum(n * (means[s] or 0.0) for s, n in self.settings.items()))
        return PhaseQuote(
            self.requests,
            self.paid,
            self.repeated,
            self.prompt_tokens,
            self.completion_tokens,
            expected,
        )


@dataclass(kw_only=True)
class Listener(Asker):
    """In place of one who asks: it answers from the store, and counts what would have to be asked."""

    counter: TokenCounter
    show: int
    label: _Phase = field(default_factory=_Phase)
    rationale: _Phase = field(default_factory=_Phase)
    shown: list[Request] = field(default_factory=list)
    _heard: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.forget()

    def forget(self) -> None:
        """Begin to listen anew."""
        self.label, self.rationale = _Phase(), _Phase()
        self.hears = self.label
        self.shown.clear()
        self._heard.clear()

    async def ask(self, request: Request, *, sample: int = 0) -> Reply:
        """Answer from the store, or count and refuse. The teacher is never reached."""
        key, written = self.key(request, sample=sample)
        phase = self.hears
        phase.requests += 1
        stored = self.store.get(key)
        if stored is not None:
            phase.paid += 1
            return Reply(stored, key)
        if key in self._heard:
            phase.repeated += 1
        else:
            self._heard.add(key)
            body = orjson.loads(written)
            phase.prompt_tokens += self.counter(body)
            phase.completion_tokens += request.most_tokens
            phase.settings[_settings(body)] += 1
            if len(self.shown) < self.show and sample == 0:
                self.shown.append(replace(request, body=body))
        raise RowError("not asked: this is a quote")


class Explaining(RowAsker):
    """Tells the listener which phase it hears."""

    async def explain(self, row: Row, answer: RowAnswer) -> None:
        """See :class:`labelers.row_asking.RowAsker`."""
        assert isinstance(self.asker, Listener)
        self.asker.hears = self.asker.rationale
        await super().explain(row, answer)


def _settings(body: Mapping[str, Any]) -> bytes:
    """What requests of one kind have in common: all but the text."""
    return canonical({name: body[name] for name in body if name not in ("messages", "prompt")})
