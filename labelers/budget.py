"""A spending limit that holds: reserved before a request is sent, also across kills and processes."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import orjson

from labelers.teachers import Prices, RowError, TeacherError

#: Beside the bytes of a request, the most tokens that a server's chat template may add by itself.
_TEMPLATE_TOKENS = 256
#: US dollars are counted in whole units of this, so that sums are exact.
_PICODOLLARS = 10**12


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that a labeling run may take, all its restarts together.

    Before a request is sent, the most that it can take is reserved: as many prompt tokens as its
    text has bytes (no byte-level tokenizer makes more) and all the tokens that it may generate. The
    answer's own count replaces the reservation. A request whose answer never came is charged in
    full, also after a restart, because the server may have counted it.

    Args:
        tokens: Most tokens, prompt and completion together.
        usd: Most US dollars, at the teacher's prices.

    Raises:
        TeacherError: If neither is given, or one is not positive.
    """

    tokens: int | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        if self.tokens is None and self.usd is None:
            raise TeacherError("budget is empty: give `tokens`, `usd` or both")
        for name in ("tokens", "usd"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TeacherError(f"budget.{name} is {value}: it must be a positive number")


def ledger_path(store: Path, run: str) -> Path:
    """Where the account of a run is kept; a name with a slash in it stays within the folder."""
    return store / "budgets" / f"{quote(run or 'default', safe=' ', errors='replace')}.jsonl"


@dataclass(frozen=True)
class Spending:
    """Tokens, and picodollars where there are prices."""

    tokens: int
    money: int


@dataclass
class Ledger:
    """The durable account of a budget: one line when something is reserved, one when it is settled.

    Several processes may share it: each reads what the others wrote, under a lock, before it
    reserves.

    Args:
        path: The file; made with its folder if absent.
        budget: What may be spent.
        prices: The teacher's prices; needed where the budget is in dollars.

    Raises:
        TeacherError: If the budget is in dollars and there are no prices, or the file cannot be
            opened.
    """

    path: Path
    budget: Budget
    prices: Prices | None
    spent: int = 0
    spent_money: int = 0
    _open: dict[str, Spending] = field(default_factory=dict)
    _reserved: int = 0
    _reserved_money: int = 0
    _mine: set[str] = field(default_factory=set)
    _offset: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _count: int = 0

    def __post_init__(self) -> None:
        if self.budget.usd is not None and self.prices is None:
            raise TeacherError(
                f"budget.usd is {self.budget.usd}, but the teacher has no prices: give "
                "`prices: {prompt: …, completion: …}` in US dollars per million tokens, or a budget "
                "in tokens"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644
            )
        except OSError as error:
            raise TeacherError(
                f"the budget's ledger {self.path} cannot be opened: {error.strerror}"
            ) from error
        self._token_prices = 0, 0
        if self.prices is not None:
            # Through text, because 0.15 is meant and not the binary fraction next to it.
            each = (self.prices.prompt, self.prices.completion)
            per_token = [Fraction(str(price)) * _PICODOLLARS / 10**6 for price in each]
            self._token_prices = math.ceil(per_token[0]), math.ceil(per_token[1])
        self._lock = filelock.FileLock(str(self.path) + ".lock", thread_local=False)
        with self._lock:
            self._catch_up()

    def _price(self, prompt: int, completion: int) -> Spending:
        of_prompt, of_completion = self._token_prices
        return Spending(prompt + completion, prompt * of_prompt + completion * of_completion)

    async def reserve(self, body: bytes, completion: int) -> str:
        """Reserve the most that a request can take; wait where what is under way may leave room.

        Args:
            body: The request's body as it is sent.
            completion: Most tokens that it may generate.

        Raises:
            RowError: With kind ``budget``, if it does not fit any more.
        """
        wanted = self._price(len(body) + _TEMPLATE_TOKENS, completion)
        while True:
            with self._lock:
                self._catch_up()
                if self._fits(wanted):
                    self._count += 1
                    ticket = f"{self._prefix}-{self._count}"
                    self._mine.add(ticket)
                    self._write({"reserve": ticket, "tokens": wanted.tokens, "money": wanted.money})
                    return ticket
            if not self._mine:
                raise RowError(self._refusal(wanted), kind="budget")
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def settle(self, ticket: str, prompt: int, completion: int) -> None:
        """Replace a reservation by what the server counted; zeros where it refused the request."""
        spent = self._price(prompt, completion)
        self._close(ticket, {"settle": ticket, "tokens": spent.tokens, "money": spent.money})

    def forfeit(self, ticket: str) -> None:
        """Charge a reservation in full: the request was sent, and what it took is not known."""
        kept = self._open[ticket]
        self._close(ticket, {"settle": ticket, "tokens": kept.tokens, "money": kept.money})

    def _close(self, ticket: str, line: dict[str, Any]) -> None:
        with self._lock:
            self._catch_up()
            self._write(line)
        self._mine.discard(ticket)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _fits(self, wanted: Spending) -> bool:
        tokens = self.spent + self._reserved + wanted.tokens
        if self.budget.tokens is not None and tokens > self.budget.tokens:
            return False
        if self.budget.usd is None:
            return True
        money = self.spent_money + self._reserved_money + wanted.money
        return money <= Fraction(str(self.budget.usd)) * _PICODOLLARS

    def _refusal(self, wanted: Spending) -> str:
        spent, of = f"{self.spent:,} tokens", f"{self.budget.tokens or 0:,}"
        need = f"{wanted.tokens:,} tokens"
        if self.budget.usd is not None and (
            self.budget.tokens is None or self.spent + wanted.tokens <= self.budget.tokens
        ):
            spent = f"{self.spent_money / _PICODOLLARS:.6f} US dollars"
            of, need = f"{self.budget.usd}", f"{wanted.money / _PICODOLLARS:.6f}"
        lost = len(self._open)
        unsettled = f", {lost} requests without an answer charged in full" if lost else ""
        return (
            f"not asked: {spent} of {of} are spent{unsettled}, and this row may take {need}. Raise "
            "the budget and run the same command again; what was answered is stored"
        )

    def _write(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise TeacherError(
                f"the budget's ledger {self.path} cannot be written: {error.strerror}; make room and "
                "run the same command again"
            ) from error
        if written != len(data):
            os.ftruncate(self._file, self._offset)
            raise TeacherError(
                f"the budget's ledger {self.path} cannot be written: the disk is full"
            )
        self._apply(line)
        self._offset += len(data)

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        if size <= self._offset:
            return
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    # Torn by a kill in the middle of a write: it was never acted on.
                    os.ftruncate(self._file, self._offset)
                    break
                self._apply(self._parse(line))
                self._offset += len(line)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            entry = orjson.loads(line)
            known = isinstance(entry, dict) and ("reserve" in entry or "settle" in entry)
            if known and entry["tokens"] >= 0 and entry["money"] >= 0:
                return dict(entry)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            pass
        raise TeacherError(
            f"the budget's ledger {self.path} is damaged at byte {self._offset}: what was spent is not "
            "known. Look at the file; remove it to begin a new account"
        )

    def _apply(self, line: dict[str, Any]) -> None:
        spending = Spending(line["tokens"], line["money"])
        if "reserve" in line:
            self._open[line["reserve"]] = spending
            self._reserved += spending.tokens
            self._reserved_money += spending.money
        elif (reserved := self._open.pop(line["settle"], None)) is not None:
            self._reserved -= reserved.tokens
            self._reserved_money -= reserved.money
            self.spent += spending.tokens
            self.spent_money += spending.money

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
