"""The store as a log: found, counted, taken out and in again, and never more than was meant."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import QUIZ, SENTIMENT, run, sentiment
from teacher_server import MODEL, running

from labelers import OpenAICompatible, Prices, Store, StoreError, pruning
from labelers.exchange_files import export_exchanges, import_exchanges
from labelers.exchange_log import (
    Costs,
    LogError,
    Selection,
    costs,
    find,
    newest,
    row_prompt,
    search,
    select,
)
from labelers.exchanges import canonical, exchange_key
from labelers.prompts import build_request
from labelers.pruning import prune
from labelers.store import segment_lock

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def put(
    store: Store,
    text: str,
    answer: str = "negative",
    *,
    at: float = 0.0,
    model: str = "small",
    tokens: tuple[int, int] | None = (100, 10),
    sample: int = 0,
    run: str = "",
) -> str:
    """One exchange, ``at`` seconds after noon; its key."""
    identity = canonical({"model": model})
    request = canonical(
        {
            "model": model,
            "messages": [
                {"role": "system", "content": "Judge the review."},
                {"role": "user", "content": text},
            ],
        }
    )
    response: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
    if tokens is not None:
        response["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    key = exchange_key(identity, "chat/completions", request, sample)
    store.put(
        key, identity=identity, path="chat/completions", request=request,
        response=canonical(response), sample=sample, run=run,
        time=(NOON + timedelta(seconds=at)).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    return key.hex()


def texts(exchanges: Any) -> list[str]:
    return [row_prompt(exchange) for exchange in exchanges]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("exchanges-*.jsonl"))


# -------------------------------------------------------------------------------------- selecting


def test_exchanges_are_chosen_by_run_teacher_and_time(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, "The strap broke.", run="spring", at=0)
        put(store, "The lamp is dim.", run="spring", model="Large", at=60)
        put(store, "The radio hisses.", run="summer", at=120)

        def chosen(**how: Any) -> list[str]:
            return texts(select(store, Selection(**how)))

        assert chosen(run="spring") == ["The strap broke.", "The lamp is dim."]
        assert chosen(run="Spring") == []
        assert chosen(teacher="large") == ["The lamp is dim."]
        assert chosen(teacher="lar") == []
        assert chosen(since=NOON + timedelta(minutes=1)) == [
            "The lamp is dim.",
            "The radio hisses.",
        ]
        assert chosen(before=NOON + timedelta(minutes=1)) == ["The strap broke."]
        # The same moment, told in another zone.
        assert chosen(since=datetime.fromisoformat("2026-05-01T14:02:00+02:00")) == [
            "The radio hisses."
        ]
        assert len(chosen()) == 3


def test_the_newest_come_last_whatever_order_they_were_written_in(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for at in (30, 10, 40, 20):
            put(store, f"Review at {at}.", at=at)
        assert texts(newest(store.exchanges(), 2)) == ["Review at 30.", "Review at 40."]
        assert len(newest(store.exchanges(), 100)) == 4


def test_text_is_found_in_prompts_answers_and_reasoning_in_any_case(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, "Die Straße war naß.", "negative")
        put(store, "The strap (broke).", "The buyer is CROSS.")
        assert texts(search(store, "STRASSE")) == ["Die Straße war naß."]
        assert texts(search(store, "is cross")) == ["The strap (broke)."]
        assert texts(search(store, "(broke)")) == ["The strap (broke)."]
        assert len(list(search(store, "judge the review"))) == 2
        # A field's name or a model's is no text that was said.
        assert texts(search(store, "assistant")) == []
        with pytest.raises(LogError, match="text to be searched is ' '"):
            next(search(store, " "))


def test_a_key_is_found_by_its_beginning_if_that_is_its_own(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        keys = [put(store, f"Review {i}.") for i in range(40)]
        assert find(store, keys[7]).key == keys[7]
        assert find(store, f" {keys[7][:12].upper()}").key == keys[7]
        shared = next(digit for digit in "0123456789abcdef" if sum(k[0] == digit for k in keys) > 1)
        with pytest.raises(
            LogError, match=rf"\d+ keys begin with '{shared}' \({shared}.*more of the"
        ):
            find(store, shared)
        with pytest.raises(LogError, match=r"no key in .* begins with 'xyz'"):
            find(store, "xyz")
        with pytest.raises(LogError, match=r"no key in .* begins with ''"):
            find(store, "")


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", ["score", "cot"])
@pytest.mark.parametrize("task", [SENTIMENT, QUIZ])
def test_a_rows_prompt_is_the_rows_input_whatever_stands_before_and_after(
    tmp_path: Path, api: Any, kind: Any, task: Any
) -> None:
    text = "Which one floats?\n(a) a stone\n(b) a cork"
    request = build_request(
        task, text, kind=kind, api=api, model="m", choices=("a stone", "a cork"), max_tokens=8
    )
    with Store(tmp_path) as store:
        key = exchange_key(b"{}", request.path, canonical(request.body))
        store.put(
            key, identity=b"{}", path=request.path, request=canonical(request.body), response=b"{}"
        )
        exchange = store.read(key)
    assert exchange is not None
    assert row_prompt(exchange) == text


# ------------------------------------------------------------------------------- export and import


def test_what_was_exported_comes_back_in_another_store_as_it_was(tmp_path: Path) -> None:
    with Store(tmp_path / "one") as store:
        run(sentiment, store)
        for sample in range(3):
            put(store, "It drifts\nby 5 °C 🙂.", f"answer {sample}", sample=sample, run="spring")
        before = list(store.exchanges())
        assert export_exchanges(store, tmp_path / "log.jsonl") == len(before) == 11
    with Store(tmp_path / "two") as other:
        done = import_exchanges(other, tmp_path / "log.jsonl")
        assert (done.added, done.known) == (11, 0)
        assert list(other.exchanges()) == before
        again = import_exchanges(other, tmp_path / "log.jsonl")
        assert (again.added, again.known) == (0, 11)
        # Nothing is asked again of whom the log knows the answers.
        asked = run(lambda body: RuntimeError("asked again"), other)
        assert list(asked["label"]) == ["negative", "positive", "positive", "negative"]
    assert len(segments(tmp_path / "two")[0].read_bytes().splitlines()) == 11
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "one", "two"]


def test_an_export_has_the_playbooks_fields_beside_the_whole_bodies(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        key = put(
            store, "The strap broke.", "A fault. So the answer is negative.", run="spring", at=1
        )
        put(store, "The lamp glows.", run="summer")
        assert export_exchanges(store, tmp_path / "log.jsonl", Selection(run="spring")) == 1
    (line,) = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    record = json.loads(line)
    assert record["prompt"] == "The strap broke."
    assert record["response"] == "A fault. So the answer is negative."
    assert (record["key"], record["run"], record["sample"]) == (key, "spring", 0)
    assert record["time"] == "2026-05-01T12:00:01.000+00:00"
    assert (record["teacher"], record["path"]) == ({"model": "small"}, "chat/completions")
    assert record["request"]["messages"][0]["content"] == "Judge the review."
    assert record["raw_response"]["usage"]["prompt_tokens"] == 100


def test_one_sample_alone_can_be_exported(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        for sample in range(3):
            put(store, "The strap broke.", f"answer {sample}", sample=sample)
        assert export_exchanges(store, tmp_path / "log.jsonl", sample=1) == 1
    assert json.loads((tmp_path / "log.jsonl").read_text())["response"] == "answer 1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sample": 1}, "the key is .* one of them was changed"),
        ({"teacher": {"model": "other"}}, "one of them was changed"),
        ({"path": "completions"}, "one of them was changed"),
        ({"request": {"messages": []}}, "one of them was changed"),
        ({"key": "0" * 32}, "the key is '0{32}', but"),
        ({"key": None}, "key is None, which is not of the right type"),
        ({"request": "text"}, "request is 'text', which is not of the right type"),
        ({"raw_response": {"error": "no"}}, "raw_response holds no answer"),
        ({"raw_response": {"choices": [{}]}}, "raw_response holds no answer"),
        ({"time": "yesterday"}, "time is 'yesterday': a date and time with its zone"),
        ({"time": "2026-05-01T12:00:00"}, "a date and time with its zone is needed"),
        ({"sample": -1}, "sample is -1: a whole number from 0 on"),
        ({"run": 5}, "run is 5: a text"),
        ({"seconds": "long"}, "seconds is 'long': a number"),
    ],
)
def test_a_changed_line_is_named_and_nothing_is_imported(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with Store(tmp_path / "one") as store:
        for i in range(3):
            put(store, f"Review {i}.")
        export_exchanges(store, tmp_path / "log.jsonl")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    with Store(tmp_path / "two") as store:
        with pytest.raises(LogError, match=rf"log\.jsonl:2: .*{said}"):
            import_exchanges(store, tmp_path / "log.jsonl")
        assert len(store) == 0
    assert segments(tmp_path / "two") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a", "response": "b"}', "'key' is missing: .*engine: recorded, log: FILE"),
        ("not JSON", "this line is not JSON"),
        ("[1]", "a JSON object is needed"),
    ],
)
def test_a_line_that_is_no_exchange_is_refused(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "log.jsonl").write_text(f"\n{line}\n")
    with (
        Store(tmp_path / "store") as store,
        pytest.raises(LogError, match=rf":2: .*{said}[\s\S]*nothing was imported"),
    ):
        import_exchanges(store, tmp_path / "log.jsonl")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        put(store, "Review 1.")
        with pytest.raises(LogError, match=r"none\.jsonl cannot be read: No such file"):
            import_exchanges(store, tmp_path / "none.jsonl")
        with pytest.raises(LogError, match=r"log\.jsonl cannot be written: No such file"):
            export_exchanges(store, tmp_path / "nowhere" / "log.jsonl")
        (tmp_path / "folder").mkdir()
        with pytest.raises(LogError, match="folder cannot be written: Is a directory"):
            export_exchanges(store, tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "store"]


def test_an_answer_that_is_damaged_here_is_taken_from_the_file(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        key = put(store, "Review 1.", "negative")
        export_exchanges(store, tmp_path / "log.jsonl")
    path = segments(tmp_path / "store")[0]
    path.write_bytes(path.read_bytes().replace(b'"negative"', b'"nega\x01ive"'))
    with Store(tmp_path / "store") as store:
        assert import_exchanges(store, tmp_path / "log.jsonl").added == 1
        assert find(store, key).response["choices"][0]["message"]["content"] == "negative"


@pytest.mark.integration
def test_neither_store_nor_export_holds_the_key_of_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-proj-0123456789-do-not-tell"
    monkeypatch.setenv("REVIEWS_API_KEY", secret)
    with running(api_key=secret) as server:
        teacher = OpenAICompatible(
            model=MODEL, base_url=server.base_url, api_key_env="REVIEWS_API_KEY"
        )
        run(sentiment, tmp_path / "store", teacher=teacher)  # type: ignore[arg-type]
    with Store(tmp_path / "store") as store:
        assert export_exchanges(store, tmp_path / "log.jsonl") == 8
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        assert secret.encode() not in path.read_bytes()
        assert b"REVIEWS_API_KEY" not in path.read_bytes()


# ------------------------------------------------------------------------------------------- costs


def test_costs_add_up_by_run_and_teacher_also_what_was_paid_twice(tmp_path: Path) -> None:
    with Store(tmp_path) as store, Store(tmp_path) as other:
        for i in range(11):
            put(store, f"Review {i}.", run="spring", at=i, tokens=(100, 10))
        # Two processes paid for the same answer.
        put(other, "Review 0.", run="spring", at=10, tokens=(100, 10))
        put(store, "Review 0.", run="spring", model="large", at=5, tokens=(1000, 200))
        put(store, "Review 99.", run="", at=-60, tokens=None)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b"damaged\n")
    with Store(tmp_path) as store:
        found = costs(store, prices=Prices(2.0, 10.0))
        unpriced = costs(store, Selection(run="spring", teacher="small"))
    assert found.damaged == 1
    assert [(r.run, r.teacher, r.exchanges) for r in found.runs] == [
        ("", "small", 1), ("spring", "large", 1), ("spring", "small", 12),
    ]  # fmt: skip
    unnamed, large, small = found.runs
    assert (small.prompt_tokens, small.completion_tokens, small.uncounted) == (1200, 120, 0)
    assert small.cost_usd == pytest.approx((1200 * 2 + 120 * 10) / 1e6)
    assert (unnamed.uncounted, unnamed.prompt_tokens, unnamed.rate) == (1, 0, None)
    assert (small.first, small.last) == (
        "2026-05-01T12:00:00.000+00:00", "2026-05-01T12:00:10.000+00:00",
    )  # fmt: skip
    assert small.rate == pytest.approx(1.1)
    assert found.cost_usd == pytest.approx((2200 * 2 + 320 * 10) / 1e6)
    assert large.cost_usd == pytest.approx((1000 * 2 + 200 * 10) / 1e6)
    assert [run.cost_usd for run in unpriced.runs] == [None]
    assert unpriced.cost_usd is None
    assert Costs((), 0).cost_usd is None


def test_a_night_between_two_parts_of_a_run_is_no_part_of_its_rate(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for i in range(5):
            put(store, f"Review {i}.", at=i / 2)
            put(store, f"Review {i} again.", at=36_000 + i / 2)
        (found,) = costs(store).runs
    assert found.rate == pytest.approx(2.0)


# ------------------------------------------------------------------------------------------ pruning


def stocked(folder: Path) -> dict[str, str]:
    """Six exchanges in two segments, and a damaged line; keys by text."""
    with Store(folder) as one, Store(folder) as two:
        keys = {
            "old": put(one, "old", at=-3600, run="spring"),
            "a": put(one, "a", at=1, run="spring"),
            "b": put(two, "b", at=2, run="summer"),
            "c": put(one, "c", at=3, run="summer"),
            "d": put(two, "d", at=4, run="summer", model="large"),
            "e": put(one, "e", at=5, run="autumn"),
        }
    with segments(folder)[0].open("ab") as file:
        file.write(b"damaged\n")
    return keys


@pytest.mark.parametrize(
    ("how", "stay", "damaged"),
    [
        ({"selection": Selection(before=NOON)}, "a b c d e", 0),
        ({"selection": Selection(run="summer")}, "old a e", 0),
        ({"selection": Selection(teacher="large")}, "old a b c e", 0),
        ({"selection": Selection(run="summer", teacher="large")}, "old a b c e", 0),
        ({"damaged": True}, "old a b c d e", 1),
        ({"damaged": True, "selection": Selection(run="spring")}, "b c d e", 1),
        ({"keep_last": 2}, "d e", 0),
        ({"keep_last": 0}, "", 0),
        ({"selection": Selection(run="summer"), "keep_last": 1}, "old a d e", 0),
        ({"selection": Selection(run="winter")}, "old a b c d e", 0),
    ],
)
def test_what_is_meant_goes_and_everything_else_stays(
    tmp_path: Path, how: dict[str, Any], stay: str, damaged: int
) -> None:
    keys = stocked(tmp_path)
    before = sum(path.stat().st_size for path in segments(tmp_path))
    untouched = [path.read_bytes() for path in segments(tmp_path)]
    with Store(tmp_path) as store:
        plan = prune(store, **how, dry_run=True)
        assert [path.read_bytes() for path in segments(tmp_path)] == untouched
        assert prune(store, **how) == plan
        assert sorted(texts(store.exchanges())) == sorted(stay.split())
        # What is gone would be asked again, and what stayed would not.
        assert [text for text in keys if bytes.fromhex(keys[text]) in store] == stay.split()
    assert (plan.exchanges, plan.kept, plan.damaged) == (
        6 - len(stay.split()), len(stay.split()), damaged,
    )  # fmt: skip
    assert before - sum(path.stat().st_size for path in segments(tmp_path)) == plan.bytes
    with Store(tmp_path) as store:
        assert sorted(texts(store.exchanges())) == sorted(stay.split())
        assert store.damaged == 1 - damaged
        put(store, "new")
        assert len(store) == len(stay.split()) + 1
    assert list(tmp_path.glob("*.part")) == []


def test_pruning_needs_to_be_told_what(tmp_path: Path) -> None:
    stocked(tmp_path)
    with Store(tmp_path) as store:
        with pytest.raises(LogError, match="nothing is named that is to go: give --before"):
            prune(store)
        with pytest.raises(LogError, match="keep_last is -1"):
            prune(store, keep_last=-1)
        assert len(store) == 6


def test_while_somebody_writes_nothing_is_pruned(tmp_path: Path) -> None:
    stocked(tmp_path)
    untouched = [path.read_bytes() for path in segments(tmp_path)]
    # Of the two segments it is the second that is being written to.
    with segment_lock(segments(tmp_path)[1]).acquire(timeout=0), Store(tmp_path) as store:
        with pytest.raises(StoreError, match=r"being written to \(exchanges-0002.jsonl\).*wait"):
            prune(store, keep_last=0)
        assert prune(store, keep_last=0, dry_run=True).exchanges == 6
    assert [path.read_bytes() for path in segments(tmp_path)] == untouched
    with Store(tmp_path) as writer:
        put(writer, "f")
        with pytest.raises(StoreError, match="being written to"):
            prune(writer, keep_last=0)
    with Store(tmp_path) as store:
        assert prune(store, keep_last=0).exchanges == 7
        # The locks are free again.
        for path in segments(tmp_path):
            segment_lock(path).acquire(timeout=0).lock.release()


def test_who_begins_to_write_during_a_pruning_writes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(tmp_path)
    rewrite = pruning._rewrite
    written = []

    def slowly(path: Path, gone: set[int]) -> None:
        with Store(tmp_path) as store:
            written.append(put(store, f"written while {path.name} is rewritten"))
        rewrite(path, gone)

    monkeypatch.setattr(pruning, "_rewrite", slowly)
    with Store(tmp_path) as store:
        prune(store, keep_last=0)
    with Store(tmp_path) as store:
        assert sorted(key.hex() for key in store) == sorted(written)
    assert len(written) == 2


def test_a_disk_that_fills_up_during_a_pruning_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = stocked(tmp_path)
    untouched = [path.read_bytes() for path in segments(tmp_path)]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Store(tmp_path) as store, monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(
            StoreError, match=r"cannot be rewritten: No space left.*it is as it was"
        ):
            prune(store, keep_last=1)
    assert [path.read_bytes() for path in segments(tmp_path)] == untouched
    assert list(tmp_path.glob("*.part")) == []
    with Store(tmp_path) as store:
        assert len(store) == len(keys)


def test_another_process_that_reads_meanwhile_can_go_on_and_write(tmp_path: Path) -> None:
    keys = stocked(tmp_path)
    with Store(tmp_path) as reader:
        with Store(tmp_path) as store:
            prune(store, Selection(run="spring"), damaged=True)
        assert reader.get(bytes.fromhex(keys["a"])) is not None
        new = put(reader, "written by the reader")
        reader.refresh()
        assert sorted(texts(reader.exchanges())) == ["b", "c", "d", "e", "written by the reader"]
    with Store(tmp_path) as store:
        assert store.damaged == 0
        assert bytes.fromhex(new) in store
        assert len(store) == 5


def test_a_large_store_is_read_without_being_held_in_memory(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        for i in range(200):
            put(store, f"Review {i}: " + "it broke. " * 4000, at=i)
        size = segments(tmp_path / "store")[0].stat().st_size
        tracemalloc.start()
        try:
            assert sum(1 for _ in search(store, "Review 7")) == 11
            assert len(newest(store.exchanges(), 3)) == 3
            assert export_exchanges(store, tmp_path / "log.jsonl") == 200
            assert costs(store).runs[0].exchanges == 200
            assert prune(store, keep_last=10, dry_run=True).exchanges == 190
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size > 8_000_000
    assert peak < size / 8
