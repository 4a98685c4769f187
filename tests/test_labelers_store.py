"""The store of exchanges: nothing paid is lost, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from labelers import Store, StoreError
from labelers.store import canonical, exchange_key

REPO = Path(__file__).parents[1]
IDENTITY = b'{"model":"m"}'


def put(store: Store, text: str, answer: str = "negative") -> bytes:
    request = canonical({"prompt": text})
    key = exchange_key(IDENTITY, "completions", request)
    response = canonical({"choices": [{"text": answer}]})
    store.put(key, identity=IDENTITY, path="completions", request=request, response=response)
    return key


def answer(store: Store, key: bytes) -> str | None:
    body = store.get(key)
    return None if body is None else body["choices"][0]["text"]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("exchanges-*.jsonl"))


def test_what_was_put_is_there_now_and_after_reopening(tmp_path: Path) -> None:
    with Store(tmp_path / "deep" / "store") as store:
        keys = [put(store, f"The strap broke on day {i}.", f"answer {i}") for i in range(5)]
        assert [answer(store, key) for key in keys] == [f"answer {i}" for i in range(5)]
        assert store.get(exchange_key(IDENTITY, "completions", b"{}")) is None
    with Store(tmp_path / "deep" / "store") as store:
        assert len(store) == 5
        assert keys[3] in store
        assert [answer(store, key) for key in keys] == [f"answer {i}" for i in range(5)]
        first = next(store.exchanges())
    assert first.request == {"prompt": "The strap broke on day 0."}
    assert (first.teacher, first.path, first.key) == ({"model": "m"}, "completions", keys[0].hex())


def test_a_line_tells_which_run_asked_which_sample_it_is_and_how_long_it_took(
    tmp_path: Path,
) -> None:
    request = canonical({"prompt": "The strap broke."})
    keys = [exchange_key(IDENTITY, "completions", request, sample) for sample in range(3)]
    with Store(tmp_path) as store:
        for sample, key in enumerate(keys):
            store.put(
                key, identity=IDENTITY, path="completions", request=request,
                response=b'{"choices":[{"text":"negative"}]}', sample=sample,
                run='spring "café"', seconds=0.25,
            )  # fmt: skip
    with Store(tmp_path) as store:
        found = list(store.exchanges())
        assert [e.sample for e in found] == [0, 1, 2]
        assert {(e.run, e.seconds) for e in found} == {('spring "café"', 0.25)}
        assert store.read(keys[1]) == found[1]
        assert list(store) == keys
    line = json.loads(segments(tmp_path)[0].read_text("utf-8").splitlines()[2])
    assert (line["sample"], line["run"], line["seconds"]) == (2, 'spring "café"', 0.25)


def test_lines_written_before_runs_were_named_are_still_read(tmp_path: Path) -> None:
    request = canonical({"prompt": "The strap broke."})
    key = exchange_key(IDENTITY, "completions", request)
    (tmp_path / "exchanges-0001.jsonl").write_bytes(
        b'{"key":"%b","time":"2025-01-02T03:04:05.678+00:00","teacher":{"model":"m"},"path":'
        b'"completions","request":%b,"response":{"choices":[{"text":"negative"}]}}\n'
        % (key.hex().encode(), request)
    )
    with Store(tmp_path) as store:
        assert answer(store, key) == "negative"
        found = store.read(key)
    assert found is not None
    assert (found.sample, found.run, found.seconds) == (0, "", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response", "[]"),
        ("request", '"text"'),
        ("teacher", "null"),
        ("time", "5"),
        ("sample", '"1"'),
    ],
)
def test_a_line_with_a_value_of_another_type_is_damaged(
    tmp_path: Path, name: str, value: str
) -> None:
    with Store(tmp_path) as store:
        key = put(store, "Review 1.")
    path = segments(tmp_path)[0]
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {name: json.loads(value)}, separators=(",", ":")) + "\n")
    with Store(tmp_path) as store:
        assert store.get(key) is None
        assert store.damaged == 1


def test_a_run_that_json_cannot_carry_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            store.put(
                bytes(16), identity=IDENTITY, path="completions", request=b"{}", response=b"{}",
                run="half \ud83d of a pair",
            )  # fmt: skip
        assert len(store) == 0
        assert segments(tmp_path) == []


def test_a_segment_rewritten_by_another_is_read_anew_and_appended_to(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        keys = [put(store, f"Review {i}.", f"answer {i}") for i in range(3)]
    with Store(tmp_path) as reader:
        path = segments(tmp_path)[0]
        lines = path.read_bytes().splitlines(keepends=True)
        shorter = tmp_path / "shorter"
        shorter.write_bytes(lines[2])
        shorter.replace(path)
        # Until it looks again, the reader goes on from the file that it opened.
        assert [answer(reader, key) for key in keys] == ["answer 0", "answer 1", "answer 2"]
        new = put(reader, "Review 3.", "answer 3")
        assert [answer(reader, key) for key in keys] == [None, None, "answer 2"]
        assert answer(reader, new) == "answer 3"
    assert path.read_bytes().startswith(lines[2])
    with Store(tmp_path) as store:
        assert list(store) == [keys[2], new]
        assert store.damaged == 0


def test_lines_shows_what_is_on_disk_also_what_was_paid_twice_or_damaged(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        put(first, "Review 1.", "one process")
        put(second, "Review 1.", "another process")
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b'not JSON\n{"key":"torn')
    with Store(tmp_path) as store:
        assert len(list(store.exchanges())) == 1
        found = [(path.name, line[:8]) for path, line in store.lines()]
    assert found == [
        ("exchanges-0001.jsonl", b'{"key":"'),
        ("exchanges-0001.jsonl", b"not JSON"),
        ("exchanges-0002.jsonl", b'{"key":"'),
    ]


def test_the_index_of_a_hundred_thousand_entries_takes_some_fifteen_megabytes(
    tmp_path: Path,
) -> None:
    entries = 20_000
    line = b'{"key":"%032x","response":{}}\n'
    (tmp_path / "exchanges-0001.jsonl").write_bytes(b"".join(line % i for i in range(entries)))
    tracemalloc.start()
    try:
        with Store(tmp_path) as store:
            used = tracemalloc.get_traced_memory()[0]
            assert len(store) == entries
    finally:
        tracemalloc.stop()
    assert used / entries < 170  # bytes


def test_an_answer_laid_out_over_lines_and_in_any_script_takes_one_line(tmp_path: Path) -> None:
    body = {"choices": [{"text": "zwei\nZeilen \u2028 und 日本語 🙂"}]}
    key = exchange_key(IDENTITY, "completions", b"{}")
    with Store(tmp_path) as store:
        store.put(
            key,
            identity=IDENTITY,
            path="completions",
            request=b"{}",
            response=json.dumps(body, indent=2).replace("\n", "\r\n").encode(),
        )
    assert segments(tmp_path)[0].read_bytes().count(b"\n") == 1
    with Store(tmp_path) as store:
        assert store.get(key) == body


def test_cut_at_every_byte_of_its_last_record_it_loses_that_record_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # five hundred of them would take long
    with Store(tmp_path / "whole") as store:
        keys = [put(store, f"Review {i}: it broke.", f"answer {i}") for i in range(3)]
    whole = segments(tmp_path / "whole")[0].read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) + 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "exchanges-0001.jsonl").write_bytes(whole[:cut])
        with Store(folder) as store:
            kept = [answer(store, key) for key in keys]
            assert kept[:2] == ["answer 0", "answer 1"]
            assert kept[2] == ("answer 2" if cut == len(whole) else None)
            new = put(store, "A new review.", "new answer")
            assert answer(store, new) == "new answer"
        with Store(folder) as store:
            assert [answer(store, key) for key in keys] == kept
            assert answer(store, new) == "new answer"
            assert store.damaged == 0


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 40,
        b'{"key":"' + b"0" * 32 + b'","response":{"choi}',
        b'{"key":"' + b"0" * 32 + b'"}',
        b'{"key":"not hexadecimal at all, you see"}',
        b"\xff\xfe not text",
        b"",
        b"[]",
    ],
)
def test_a_damaged_line_in_the_middle_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    with Store(tmp_path) as store:
        keys = [put(store, f"Review {i}.", f"answer {i}") for i in range(3)]
    path = segments(tmp_path)[0]
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
    with Store(tmp_path) as store:
        assert [answer(store, key) for key in keys] == ["answer 0", None, "answer 2"]
        assert store.get(bytes(16)) is None
        assert [e.request["prompt"] for e in store.exchanges()] == ["Review 0.", "Review 2."]
        assert store.damaged == 1


def test_a_damaged_answer_is_paid_again_once_only(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        key = put(store, "Review 1.", "negative")
    path = segments(tmp_path)[0]
    # The line keeps its beginning and end, and breaks in between.
    path.write_bytes(path.read_bytes().replace(b'"negative"', b'"nega\x01ive"'))
    with Store(tmp_path) as store:
        assert answer(store, key) is None
        put(store, "Review 1.", "positive")
        assert answer(store, key) == "positive"
    with Store(tmp_path) as store:
        assert answer(store, key) == "positive"


def test_a_full_disk_is_an_error_that_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    keys = [put(store, "Review 1.", "answer 1")]
    intact = segments(tmp_path)[0].read_bytes()
    write, room = os.write, [30]

    def full_disk(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(StoreError, match=r"No space left.*the 1 answers in it are safe: make room"):
        put(store, "Review 2.", "answer 2")
    assert segments(tmp_path)[0].read_bytes() == intact
    monkeypatch.undo()
    keys.append(put(store, "Review 2.", "answer 2"))
    store.close()
    with Store(tmp_path) as store:
        assert [answer(store, key) for key in keys] == ["answer 1", "answer 2"]


def test_a_folder_that_cannot_be_made_or_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"file.store cannot be opened: Not a directory; name a"):
        Store(tmp_path / "file" / "store")

    store = Store(tmp_path / "store")

    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        put(store, "Review 1.")


def test_a_second_writer_takes_a_second_segment_and_both_are_read(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        one, two = put(first, "Review 1.", "answer 1"), put(second, "Review 2.", "answer 2")
        assert len(segments(tmp_path)) == 2
        assert answer(first, two) is None
        first.refresh()
        assert (answer(first, one), answer(first, two)) == ("answer 1", "answer 2")
        third = put(second, "Review 3.", "answer 3")
        first.refresh()
        assert answer(first, third) == "answer 3"
    with Store(tmp_path) as store:
        assert len(store) == 3
        put(store, "Review 4.")
    assert len(segments(tmp_path)) == 2


def test_a_segment_is_free_again_after_writing_from_another_thread(tmp_path: Path) -> None:
    # In a notebook the run is in a thread of its own, and the store is closed in the main one.
    for i in range(3):
        with Store(tmp_path) as store:
            thread = threading.Thread(target=put, args=(store, f"Review {i}."))
            thread.start()
            thread.join()
    assert len(segments(tmp_path)) == 1


def test_a_closed_store_that_is_used_again_knows_what_it_held(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = put(store, "Review 1.", "answer 1")
    store.close()
    store.refresh()
    assert answer(store, key) == "answer 1"
    other = put(store, "Review 2.", "answer 2")
    store.close()
    with Store(tmp_path) as store:
        assert (answer(store, key), answer(store, other)) == ("answer 1", "answer 2")


WRITER = """
import sys
sys.path[:0] = [{repo!r}, {tests!r}]
from test_labelers_store import put
from labelers import Store
with Store({folder!r}) as store:
    print("open", flush=True)
    sys.stdin.readline()
    for i in range(300):
        put(store, f"{{sys.argv[1]}} review {{i}}.", f"{{sys.argv[1]}} {{i}}")
"""


@pytest.mark.integration
def test_two_processes_append_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    code = WRITER.format(repo=str(REPO), tests=str(REPO / "tests"), folder=str(tmp_path / "s"))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        writer.communicate()
    with Store(tmp_path / "s") as store:
        texts = {e.response["choices"][0]["text"] for e in store.exchanges()}
        assert texts == {f"{name} {i}" for name in ("one", "two") for i in range(300)}
        assert store.damaged == 0
