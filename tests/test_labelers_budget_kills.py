"""Fifty runs on a budget, killed at random: the server's own count never exceeds the cap by a token."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import fault_server
import pytest
from fault_server import PASSING, FaultServer
from labeling_children import Children, children, result

from labelers import Budget, Prices
from labelers.budget import Ledger, ledger_path

pytestmark = pytest.mark.integration

RUNS = 50
PRICES = (0.15, 0.6)
#: Those after which the server may have counted, and those after which it has not.
FAULTS = [fault for fault in PASSING if fault not in ("stall", "429 pause")]


def dollars(tokens: tuple[int, int]) -> Fraction:
    """Exactly what the server's count costs."""
    each = [Fraction(str(price)) / 10**6 for price in PRICES]
    return tokens[0] * each[0] + tokens[1] * each[1]


def caps(dice: random.Random, rows: int) -> dict[str, Any]:
    """A cap around what that many rows need, in tokens, in dollars or in both."""
    tokens = dice.randint(500, rows * 600)
    usd = round(tokens * dice.uniform(2e-7, 5e-7), dice.randint(6, 9))
    kind = dice.choice(("tokens", "tokens", "usd", "both"))
    return {
        **({"tokens": tokens} if kind != "usd" else {}),
        **({"usd": usd} if kind != "tokens" else {}),
    }


def check(cap: dict[str, Any], before: tuple[int, int], now: tuple[int, int]) -> None:
    """Within the cap, or where a later cap is lower than what was spent before, nothing more."""
    if "tokens" in cap:
        assert sum(now) <= max(cap["tokens"], sum(before))
    if "usd" in cap:
        assert dollars(now) <= max(Fraction(str(cap["usd"])), dollars(before))


def one_run(number: int, folder: Path, server: FaultServer, runs: Children) -> Counter[str]:
    """One budget through one to four legs, each of one or two processes, most of them killed."""
    dice = random.Random(number)
    seen: Counter[str] = Counter()
    rows = dice.randint(5, 40)
    server.control(
        forget=True, seed=number, random_tokens=True, faults=FAULTS,
        fault_rate=dice.choice((0.0, 0.2, 0.4)), silent=dice.choice((0.0, 0.0, 0.3)),
        latency=dice.choice((0.0, 0.002, 0.01)),
    )  # fmt: skip
    cap, spent = caps(dice, rows), (0, 0)
    legs = dice.randint(1, 4)
    for leg in range(legs):
        last = leg == legs - 1
        asked = len(server.control().log)
        names = ["a", "b"][: dice.choice((1, 1, 2))]
        numbers = [
            runs.start(
                folder, server.base_url, name=name, rows=rows, first=dice.choice((0, 0, 20)),
                concurrency=dice.choice((1, 4, 24)), run="april", budget=cap, prices=PRICES,
                max_tokens=dice.choice((64, 256)), held=True,
            )
            for name in names
        ]  # fmt: skip
        if not last:
            server.control(
                kills=[
                    [child, asked + dice.randint(1, rows), dice.uniform(0, 0.01)]
                    for child in numbers
                ]
            )
        runs.go(*numbers)
        ends = [runs.wait(child) for child in numbers]
        seen["killed"] += ends.count(-9)
        for name, end in zip(names, ends, strict=True):
            assert end in (0, -9)
            if end == 0:
                errors = result(folder, name).get("errors", ["stopped"])
                seen["short" if any(e and e.startswith("budget:") for e in errors) else "done"] += 1
        now = server.control().tokens
        check(cap, spent, now)
        spent = now
        if dice.random() < 0.4:
            cap = caps(dice, rows)
            seen["changed"] += 1
    account = Ledger(ledger_path(folder / "store", "april"), Budget(tokens=1), Prices(*PRICES))
    assert account.spent + account._reserved >= sum(spent)
    account.close()
    return seen


def test_the_server_never_counts_more_than_the_cap(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    with fault_server.running() as server, children() as runs:
        for number in range(RUNS):
            folder = tmp_path / str(number)
            folder.mkdir()
            seen += one_run(number, folder, server, runs)
    print(f"\n{RUNS} budgets: {dict(seen)}")
    # The dice gave every kind of end its share.
    assert seen["killed"] >= 30
    assert seen["short"] >= 20
    assert seen["done"] >= 10
    assert seen["changed"] >= 20


def test_after_kills_the_budget_of_what_was_counted_and_was_lost_is_enough(tmp_path: Path) -> None:
    """A kill costs its reservations, and no more: the rest of the budget is there to be used."""
    rows, in_flight = 60, 4
    with fault_server.running(latency=0.005) as server, children() as runs:
        # 48 tokens an answer by the server's count; at most 900 are reserved for each.
        budget = {"tokens": rows * 48 + (3 * in_flight + 1) * 900}
        how: dict[str, Any] = {"rows": rows, "concurrency": in_flight, "budget": budget}
        for kill in (15, 30, 45):
            # Held until the server knows when to strike, or it might have ended by then.
            child = runs.start(tmp_path, server.base_url, held=True, **how)
            server.control(kills=[[child, kill, 0.0]])
            runs.go(child)
            assert runs.wait(child) == -9
        assert runs.wait(runs.start(tmp_path, server.base_url, **how)) == 0
        assert result(tmp_path)["errors"] == [None] * rows
        assert sum(server.control().tokens) <= budget["tokens"]
