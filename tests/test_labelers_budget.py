"""A budget holds whatever happens, and what it allows is used."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_teacher import SENTIMENT, ScriptedTeacher, question, run, says, thoughtful

from labelers import Budget, Prices, RetryableError, RowError, Store, TeacherError
from labelers.budget import Ledger, ledger_path
from labelers.prompts import build_request

MODEST = Prices(prompt=0.15, completion=0.6)
#: What `thoughtful` says it took.
TOOK = 60


def ledger(path: Path, prices: Prices | None = None, **budget: Any) -> Ledger:
    return Ledger(path, Budget(**budget), prices)


def reserve(account: Ledger, size: int, completion: int) -> str | None:
    """A ticket; None where the request is refused or has to wait."""

    async def once() -> str | None:
        task = asyncio.ensure_future(account.reserve(b"x" * size, completion))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            return None
        return task.result()

    try:
        return asyncio.run(once())
    except RowError:
        return None


# --- the account


def test_what_is_under_way_counts_with_the_most_it_can_take(tmp_path: Path) -> None:
    account = ledger(tmp_path / "a.jsonl", tokens=1000)
    ticket = reserve(account, 100, 50)  # 100 bytes, 256 for a chat template, 50 to be written
    assert ticket is not None
    assert account._reserved == 406
    assert reserve(account, 300, 50) is None
    assert reserve(account, 288, 50) is not None  # 594: to the last token
    account.settle(ticket, 30, 10)
    assert (account.spent, account._reserved) == (40, 594)
    account.close()


def test_an_answer_that_never_came_is_charged_in_full_also_after_a_restart(tmp_path: Path) -> None:
    account = ledger(tmp_path / "a.jsonl", tokens=1000)
    lost = reserve(account, 100, 50)
    assert lost is not None
    account.close()  # killed: no line settles it
    account = ledger(tmp_path / "a.jsonl", tokens=1000)
    assert account._reserved == 406
    assert reserve(account, 289, 50) is None
    ticket = reserve(account, 288, 50)
    assert ticket is not None
    account.forfeit(ticket)
    assert account.spent == 594
    account.close()


def test_a_line_torn_by_a_kill_was_never_acted_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    account = ledger(path, tokens=1000)
    ticket = reserve(account, 100, 50)
    assert ticket is not None
    account.settle(ticket, 30, 10)
    account.close()
    whole = path.read_bytes()
    for torn in (b'{"reserve":"z-1","tok', b"{", whole.splitlines()[1][:-1]):
        path.write_bytes(whole + torn)
        account = ledger(path, tokens=1000)
        assert (account.spent, account._reserved) == (40, 0)
        assert path.read_bytes() == whole
        account.close()
    # An answer whose settling was torn is charged in full.
    path.write_bytes(whole[:-5])
    account = ledger(path, tokens=1000)
    assert (account.spent, account._reserved) == (0, 406)
    account.close()


@pytest.mark.parametrize(
    "line",
    [b"spent it all", b"[]", b'{"reserve":"a-1"}', b'{"settle":"a-1","tokens":-5,"money":0}',
     b'{"reserve":"a-1","tokens":"5","money":0}', b"\0\0\0\0"],
)  # fmt: skip
def test_a_damaged_account_stops_the_run_before_more_is_spent(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"reserve":"a-0","tokens":7,"money":0}\n' + line + b"\n")
    with pytest.raises(TeacherError, match=r"a\.jsonl is damaged at byte 39.*remove it to begin"):
        ledger(path, tokens=1000)


def test_dollars_are_counted_to_the_last_picodollar(tmp_path: Path) -> None:
    # 356 prompt tokens at 0.15 and 50 at 0.60 per million: 0.0000834 US dollars.
    account = ledger(tmp_path / "a.jsonl", MODEST, usd=0.0000834)
    ticket = reserve(account, 100, 50)
    assert ticket is not None
    account.settle(ticket, 30, 10)
    assert account.spent_money == 10_500_000  # 0.0000105 US dollars
    account.close()
    account = ledger(tmp_path / "b.jsonl", MODEST, usd=0.0000833)
    assert reserve(account, 100, 50) is None
    account.close()


def test_ten_thousand_cheap_answers_add_up_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        f'{{"reserve":"a-{i}","tokens":3,"money":700000}}\n{{"settle":"a-{i}","tokens":3,"money":700000}}\n'
        for i in range(10_000)
    ]
    path.write_text("".join(lines))
    account = ledger(path, MODEST, usd=1.0)
    assert account.spent_money == 7_000_000_000
    assert account.spent == 30_000
    account.close()


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({}, "budget is empty"),
        ({"tokens": 0}, "budget.tokens is 0"),
        ({"usd": -1.0}, "budget.usd is -1.0"),
        ({"usd": float("inf")}, "budget.usd is inf"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(budget: dict[str, Any], says: str) -> None:
    with pytest.raises(TeacherError, match=says):
        Budget(**budget)


def test_a_budget_in_dollars_needs_prices(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"budget\.usd is 2\.0, but the teacher has no prices"):
        run(thoughtful, tmp_path, mode="cot", budget=Budget(usd=2.0))


@pytest.mark.parametrize("name", ["../../escaped", "/etc/passwd", "a/b", "Zoë's run", "\ud83d"])
def test_the_account_of_a_run_stays_in_its_folder_whatever_its_name(name: str) -> None:
    path = ledger_path(Path("/store"), name)
    assert path.parent == Path("/store/budgets")
    assert path.suffix == ".jsonl"


def test_runs_of_different_names_have_accounts_of_their_own(tmp_path: Path) -> None:
    paths = {ledger_path(tmp_path, name) for name in ("a", "b", "a/b", "a b", "", "a%2Fb")}
    assert len(paths) == 6


# --- any order of events


@dataclass
class World:
    """Processes that share an account, and a server that counts for itself."""

    path: Path
    cap: int
    usd: float | None
    counted: int = 0
    dollars: float = 0.0
    processes: list[Ledger] = field(default_factory=list)
    #: (process, ticket, what the server counted for it)
    under_way: list[tuple[int, str, tuple[int, int]]] = field(default_factory=list)

    def budget(self) -> Budget:
        return Budget(tokens=self.cap, usd=self.usd)

    def begin(self, number: int) -> None:
        self.processes[number] = Ledger(self.path, self.budget(), MODEST)

    def send(self, number: int, size: int, completion: int, share: float) -> None:
        account = self.processes[number]
        account.budget = self.budget()
        ticket = reserve(account, size, completion)
        if ticket is None:
            return
        truth = round(share * (size + 256)), round(share * completion)
        self.counted += sum(truth)
        self.dollars += MODEST.cost(*truth)
        self.under_way.append((number, ticket, truth))
        assert self.counted <= self.cap, "the server counts more than the budget"
        assert self.usd is None or self.dollars <= self.usd

    def end(self, which: int, known: bool) -> None:
        if self.under_way:
            number, ticket, truth = self.under_way.pop(which % len(self.under_way))
            if known:
                self.processes[number].settle(ticket, *truth)
            else:
                self.processes[number].forfeit(ticket)

    def kill(self, number: int, torn: bytes) -> None:
        self.processes[number].close()
        self.under_way = [entry for entry in self.under_way if entry[0] != number]
        with open(self.path, "ab") as file:
            file.write(torn)
        self.begin(number)


events = st.one_of(
    st.tuples(
        st.just("send"), st.integers(0, 1), st.integers(1, 3000), st.integers(1, 500),
        st.floats(0, 1),
    ),
    st.tuples(st.just("end"), st.integers(0, 50), st.booleans()),
    st.tuples(
        st.just("kill"), st.integers(0, 1),
        st.sampled_from([b"", b'{"reserve":"k', b'{"settle":"k-1","tokens":4']),
    ),
    st.tuples(st.just("raise"), st.integers(0, 5000)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    cap=st.integers(500, 12_000),
    usd=st.none() | st.floats(1e-4, 3e-3),
    story=st.lists(events, max_size=40),
)
def test_no_order_of_events_takes_the_server_above_the_cap(
    cap: int, usd: float | None, story: list[tuple[Any, ...]]
) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder) / "a.jsonl", cap, usd)
        world.processes = [Ledger(world.path, world.budget(), MODEST) for _ in range(2)]
        for what, *details in story:
            if what == "raise":
                world.cap += details[0]
            else:
                getattr(world, what)(*details)
        for account in world.processes:
            account.close()
        account = Ledger(world.path, world.budget(), MODEST)
        assert account.spent + account._reserved >= world.counted
        account.close()


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 300)), min_size=1, max_size=15),
    share=st.floats(0, 1),
)
def test_what_is_needed_and_one_reservation_is_enough(
    sizes: list[tuple[int, int]], share: float
) -> None:
    """One after another, a budget lets through whatever fits into it beside one reservation."""
    truths = [(round(share * (size + 256)), round(share * most)) for size, most in sizes]
    reservation = max(size + 256 + most for size, most in sizes)
    with TemporaryDirectory() as folder:
        account = ledger(Path(folder) / "a.jsonl", tokens=sum(map(sum, truths)) + reservation)
        for (size, most), truth in zip(sizes, truths, strict=True):
            ticket = reserve(account, size, most)
            assert ticket is not None
            account.settle(ticket, *truth)
        account.close()


SPENDER = """
import asyncio, sys
from pathlib import Path
from labelers import Budget, RowError
from labelers.budget import Ledger

async def spend():
    account, sent = Ledger(Path(sys.argv[1]), Budget(tokens=40_000), None), 0
    sys.stdin.readline()
    try:
        while True:
            ticket = await account.reserve(b"x" * 44, 100)
            sent += 1
            await asyncio.sleep(0)
            account.settle(ticket, 150, 50)
    except RowError:
        print(sent)

asyncio.run(spend())
"""


def test_processes_that_spend_at_once_share_one_cap(tmp_path: Path) -> None:
    """Each request takes 200 tokens and reserves 400: 199 of them fit, and the last leaves room for none."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(tmp_path / "a.jsonl")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    sent = [int(process.communicate()[0]) for process in processes]
    # One may find the other's reservation in its way and end one request early.
    assert 198 <= sum(sent) <= 199
    account = ledger(tmp_path / "a.jsonl", tokens=40_000)
    assert (account.spent, account._reserved) == (200 * sum(sent), 0)
    account.close()


# --- a run on a budget


def worst(text: str = "Buyer 00 says it is great.") -> int:
    """What one row of :func:`buyers` reserves."""
    request = build_request(
        SENTIMENT, f"Review: {text}", kind="cot", api="chat", model="scripted-1",
        choices=SENTIMENT.labels, max_tokens=256,
    )  # fmt: skip
    return len(orjson.dumps(request.body)) + 256 + 256


def buyers(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"Buyer {i:02d} says it is great." for i in range(count)]})


def test_the_budget_that_is_needed_labels_all_rows_and_one_token_less_does_not(
    tmp_path: Path,
) -> None:
    needed = 19 * TOOK + worst()
    for less, folder in ((0, "enough"), (1, "short")):
        teacher = ScriptedTeacher(thoughtful, concurrency=8)
        rows = run(
            thoughtful, tmp_path / folder, buyers(20), mode="cot", teacher=teacher,
            budget=Budget(tokens=needed - less),
        )  # fmt: skip
        errors = [error for error in rows["error"] if error]
        assert len(errors) == less
        assert len(teacher.seen) == 20 - less
    assert errors[0].startswith(
        f"budget: not asked: {19 * TOOK:,} tokens of {needed - 1:,} are spent, and this row may take "
        f"{worst():,} tokens. Raise the budget"
    )


def test_a_larger_budget_asks_only_what_was_left_out(tmp_path: Path) -> None:
    first = ScriptedTeacher(thoughtful)
    run(thoughtful, tmp_path, buyers(20), mode="cot", teacher=first,
        budget=Budget(tokens=worst() + 5 * TOOK), run="spring")  # fmt: skip
    assert len(first.seen) == 6
    second = ScriptedTeacher(thoughtful)
    rows = run(thoughtful, tmp_path, buyers(20), mode="cot", teacher=second,
               budget=Budget(tokens=worst() + 19 * TOOK), run="spring")  # fmt: skip
    assert len(second.seen) == 14
    assert rows["error"].tolist() == [None] * 20
    third = ScriptedTeacher(thoughtful)
    run(thoughtful, tmp_path, buyers(40), mode="cot", teacher=third,
        budget=Budget(tokens=worst() + 19 * TOOK), run="spring")  # fmt: skip
    assert third.seen == [], "a run began its account anew"


@pytest.mark.parametrize(
    ("answer", "charged"),
    [
        ({"prompt_tokens": 50, "completion_tokens": 10}, 60),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 0),
        (None, "worst"),
        ([], "worst"),
        ({"prompt_tokens": 50}, "worst"),
        ({"prompt_tokens": 50, "completion_tokens": "ten"}, "worst"),
        ({"prompt_tokens": 50, "completion_tokens": -10}, "worst"),
        ({"prompt_tokens": True, "completion_tokens": True}, "worst"),
        ({"completion_tokens": 10}, "worst"),
    ],
)
def test_an_answer_whose_count_is_not_known_is_charged_in_full(
    tmp_path: Path, answer: Any, charged: Any
) -> None:
    run(lambda body: {**thoughtful(body), "usage": answer}, tmp_path, buyers(1), mode="cot",
        budget=Budget(tokens=100_000))  # fmt: skip
    account = ledger(ledger_path(tmp_path, ""), tokens=100_000)
    assert account.spent == (worst() if charged == "worst" else charged)
    assert account._reserved == 0
    account.close()


@pytest.mark.parametrize(
    ("fault", "charged"),
    [
        (RetryableError("HTTP 429", overloaded=True, charged=False), 0),
        (RetryableError("the connection failed"), 3),
        (b"<html>", 3),
        (b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}', 3),
        (RowError("HTTP 400"), 0),
    ],
    ids=["429", "cut", "HTML", "no choices", "400"],
)
def test_attempts_that_failed_are_charged_in_full_unless_the_server_turned_them_away(
    tmp_path: Path, fault: Any, charged: int
) -> None:
    run(lambda _: fault, tmp_path, buyers(1), mode="cot", budget=Budget(tokens=100_000))
    account = ledger(ledger_path(tmp_path, ""), tokens=100_000)
    assert (account.spent, account._reserved) == (charged * worst(), 0)
    account.close()


def test_an_answer_that_lacks_its_probabilities_was_paid_for_all_the_same(tmp_path: Path) -> None:
    answer = {**says("positive"), "usage": None}
    with pytest.raises(TeacherError, match="no log-probabilities"):
        run(lambda _: answer, tmp_path, buyers(1), budget=Budget(tokens=100_000))
    account = ledger(ledger_path(tmp_path, ""), tokens=100_000)
    assert account.spent > 256
    assert account._reserved == 0
    account.close()


def test_a_run_in_dollars_stops_at_its_dollars(tmp_path: Path) -> None:
    prices = Prices(prompt=10.0, completion=30.0)
    price = prices.cost(50, 10)
    most = prices.cost(worst() - 256, 256)
    teacher = ScriptedTeacher(thoughtful, prices=prices)
    rows = run(thoughtful, tmp_path, buyers(20), mode="cot", teacher=teacher,
               budget=Budget(usd=9 * price + most))  # fmt: skip
    assert len(teacher.seen) == 10
    assert 10 * price <= rows["cost_usd"].sum() + 1e-12 <= 9 * price + most
    refused = [error for error in rows["error"] if error]
    assert len(refused) == 10
    assert refused[0].startswith(f"budget: not asked: {10 * price:.6f} US dollars of ")


def test_rows_refused_by_the_budget_are_not_stored_and_harm_no_other(tmp_path: Path) -> None:
    def script(body: Any) -> Any:
        return thoughtful(body) if "08" not in question(body) else RowError("HTTP 400: no")

    rows = run(script, tmp_path, buyers(12), mode="cot", budget=Budget(tokens=worst() + 8 * TOOK))
    classes = [None if error is None else error.split(":")[0] for error in rows["error"]]
    assert classes.count(None) == 9
    assert classes.count("bad_request") <= 1
    assert classes.count("budget") >= 2
    with Store(tmp_path) as store:
        assert len(store) == 9


def test_a_teacher_that_cannot_start_is_started_once(tmp_path: Path) -> None:
    class Absent(ScriptedTeacher):
        async def start(self) -> None:
            self.starts += 1
            await asyncio.sleep(0)
            raise TeacherError("no server answers")

    teacher = Absent(thoughtful, concurrency=8)
    with pytest.raises(TeacherError, match="no server answers"):
        run(thoughtful, tmp_path, buyers(20), mode="cot", teacher=teacher)
    assert teacher.starts == 1


def test_who_waits_for_room_is_let_in_when_an_answer_takes_less(tmp_path: Path) -> None:
    account = ledger(tmp_path / "a.jsonl", tokens=1000)

    async def two() -> tuple[bool, bool]:
        first = await account.reserve(b"x" * 100, 400)
        second = asyncio.ensure_future(account.reserve(b"x" * 100, 400))
        await asyncio.sleep(0)
        waited = not second.done()
        account.settle(first, 50, 100)
        return waited, bool(await second)

    assert asyncio.run(two()) == (True, True)
    account.close()
