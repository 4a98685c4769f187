"""A server that quotes the key it was sent wherever it can: the key gets nowhere."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fault_server
import numpy as np
import pandas as pd
import pytest
from fault_server import FaultServer
from scripted_teacher import SENTIMENT
from small_recipe import small_recipe, write_recipe

from labelers import (
    Budget,
    Limits,
    OpenAICompatible,
    Store,
    TeacherError,
    label,
)

pytestmark = pytest.mark.integration

#: With what JSON writes in two ways, and what a regular expression would take for its own.
KEY = "sk-live/9f8e+7d6c.5b4a=THE-SECRET"
PASSING = ["429", "500", "503", "half JSON", "HTML 200", "HTML 502", "no choices", "wrong model"]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with fault_server.running() as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    caplog.set_level(logging.DEBUG)


def spellings() -> list[bytes]:
    """The key as it is and as JSON may write it; half of it is a leak as well."""
    half = KEY[len(KEY) // 2 :]
    return [KEY.encode(), KEY.replace("/", r"\/").encode(), half.encode(), KEY[:12].encode()]


def assert_clean(what: str, text: str | bytes) -> None:
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    for spelling in spellings():
        assert spelling not in raw, f"the key is in {what}"


def assert_folder_clean(folder: Path) -> int:
    """No file holds the key, be it compressed into Parquet; the number of files looked at."""
    looked = 0
    for path in folder.rglob("*"):
        if path.is_file():
            looked += 1
            assert_clean(path.name, path.read_bytes())
            if path.suffix == ".parquet":
                assert_clean(path.name, pd.read_parquet(path).to_json())
    return looked


def teacher(server: FaultServer, **how: Any) -> OpenAICompatible:
    return OpenAICompatible(
        model=fault_server.MODEL, base_url=server.base_url, api_key_env="TEACHER_KEY",
        concurrency=8, **how,
    )  # fmt: skip


def ask(server: FaultServer, store: Path, rows: int = 12, **how: Any) -> pd.DataFrame:
    data = pd.DataFrame({"text": [f"Buyer {i:04d} says it is great." for i in range(rows)]})
    result = label(
        data, SENTIMENT, teacher(server), mode="cot", store=store, run="spring",
        budget=Budget(tokens=10**7), limits=Limits(attempts=2, backoff=0.001), **how,
    )  # fmt: skip
    return result.to_pandas().replace({np.nan: None})


@pytest.mark.parametrize("fate", [*PASSING, "400", "context"])
def test_no_error_of_a_row_holds_the_key(
    tmp_path: Path, server: FaultServer, fate: str, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # One row is answered, so that there is a store and the run goes on to its end.
    server.control(forget=True, echo=True, always={f"Buyer 000{i}": fate for i in range(3)})
    rows = ask(server, tmp_path)
    assert len([error for error in rows["error"] if error]) == 3
    assert_clean("a column", rows.to_json())
    # The store's segment and its lock, the claims, the budget's account and its lock.
    assert assert_folder_clean(tmp_path) >= 4
    assert_clean("the log", caplog.text)
    assert_clean("what was printed", "".join(capfd.readouterr()))


@pytest.mark.parametrize("fate", ["401", "403", "404", "402", "quota", "500", "HTML 200"])
def test_no_error_that_stops_a_run_holds_the_key(
    tmp_path: Path, server: FaultServer, fate: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.control(forget=True, echo=True, after=4, then=fate)
    limits = Limits(backoff=0.001, longest_backoff=0.002, give_up_after=4)
    data = pd.DataFrame({"text": [f"Buyer {i} says it is great." for i in range(200)]})
    with pytest.raises(TeacherError) as stopped:
        label(data, SENTIMENT, teacher(server), mode="cot", store=tmp_path, limits=limits)
    error: BaseException | None = stopped.value
    assert_clean("a traceback", "".join(traceback.format_exception(stopped.value)))
    while error is not None:
        assert_clean("an exception", f"{error} {error!r} {error.args!r}")
        error = error.__cause__ or error.__context__
    assert assert_folder_clean(tmp_path) >= 1
    assert_clean("the log", caplog.text)


def test_an_answer_that_quotes_the_key_is_stored_with_the_key_struck_out(
    tmp_path: Path, server: FaultServer
) -> None:
    """What the server says is stored as it says it, but for the key: `[key]` stands in its place."""
    server.control(forget=True, always={"Buyer 0005": "echoed"})
    rows = ask(server, tmp_path)
    assert rows["label"].tolist() == ["positive"] * 12
    assert rows["rationale"][5] == "Your header was Bearer [key]."
    assert assert_folder_clean(tmp_path) >= 4
    with Store(tmp_path) as store:
        exchange = store.read(bytes.fromhex(rows["prompt_key"][5]))
        assert exchange is not None
        said = exchange.response["choices"][0]["message"]["content"]
        assert said == "Your header was Bearer [key]. So the answer is positive."
    # And again from the store.
    assert ask(server, tmp_path)["rationale"][5] == "Your header was Bearer [key]."


def test_a_teacher_does_not_show_its_key(tmp_path: Path, server: FaultServer) -> None:
    server.control(forget=True)
    asked = teacher(server)
    seen: list[str] = []
    data = pd.DataFrame({"text": ["I love it."]})
    label(data, SENTIMENT, asked, mode="cot", store=tmp_path,
          on_progress=lambda progress: seen.append(f"{asked!r} {asked} {progress!r}"))  # fmt: skip
    assert len(seen) == 1
    assert_clean("the teacher's repr", seen[0])
    assert_clean("the teacher's identity", repr(dict(asked.identity)))
    assert_clean("a pickled teacher", pickle.dumps(asked))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"http://user:{KEY.replace('/', '')}@127.0.0.1:9/v1", "holds a user name or password"),
        ("http://127.0.0.1:9/v1?api-key=THE-SECRET", r"holds a query \(`\?`\)"),
    ],
)
def test_a_key_in_the_url_is_refused_and_not_quoted(url: str, says: str) -> None:
    with pytest.raises(TeacherError, match=says) as refused:
        OpenAICompatible(model="m", base_url=url)
    assert "THE-SECRET" not in str(refused.value)


def test_a_key_in_place_of_a_variable_is_not_quoted() -> None:
    with pytest.raises(TeacherError, match="never the key itself") as refused:
        OpenAICompatible(model="m", api_key_env=KEY)
    assert_clean("the error", str(refused.value))


def test_a_run_folder_a_terminal_and_a_report_of_errors_hold_no_key(
    tmp_path: Path, server: FaultServer
) -> None:
    server.control(forget=True, echo=True, always={"tent": "400", "lamp": "HTML 502",
                                                   "radio": "echoed"})  # fmt: skip
    recipe = small_recipe(
        teacher={
            "engine": "openai", "column": None, "base_url": server.base_url, "mode": "cot",
            "model": fault_server.MODEL, "api_key_env": "TEACHER_KEY", "attempts": 2,
        },
    )  # fmt: skip
    recipe["teacher"] = {k: v for k, v in recipe["teacher"].items() if v is not None}
    (tmp_path / "tiny-t5").mkdir()
    path = write_recipe(tmp_path, recipe)
    ended = subprocess.run(
        [sys.executable, "-c", "from curate.cli import main; main()", "label", str(path),
         "--output", str(tmp_path / "run")],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert_clean("what is printed", ended.stdout + ended.stderr)
    labelled = pd.read_parquet(tmp_path / "run" / "labeled.parquet")
    assert labelled["error"].notna().sum() > 10
    assert labelled["rationale"].str.contains("[key]", regex=False).sum() > 5
    assert assert_folder_clean(tmp_path) >= 6
