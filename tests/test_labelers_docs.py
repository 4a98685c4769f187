"""The examples of docs/labelers.md run as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import labelers
from labelers.rows import LABEL_COLUMNS

PAGE = (Path(__file__).parents[1] / "docs" / "labelers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python( no-run)?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.integration
def test_the_examples_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # llama.cpp's threads crawl on a busy machine
    names: dict[str, Any] = {}
    run = [code for no_run, code in BLOCKS if not no_run]
    assert len(run) >= 6
    for code in run:
        exec(compile(code, "docs/labelers.md", "exec"), names)  # noqa: S102
    shown = capsys.readouterr().out
    assert "I love this camera." in shown
    assert "A rule says so. So the answer is negative." in shown


def test_examples_that_need_a_server_can_at_least_be_built() -> None:
    not_run = [code for no_run, code in BLOCKS if no_run]
    not_run = [code for code in not_run if "teacher = " in code]
    assert len(not_run) == 2
    for code in not_run:
        names: dict[str, Any] = {"labelers": labelers}
        exec(compile(code, "docs/labelers.md", "exec"), names)  # noqa: S102
        assert isinstance(names["teacher"], labelers.Teacher)


def test_every_column_and_every_class_of_error_is_listed() -> None:
    for name in LABEL_COLUMNS:
        assert f"`{name}`" in PAGE
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in (Path(__file__).parents[1] / "labelers").glob("*.py")
    )
    kinds = set(re.findall(r'kind(?:: str)? ?= ?"(\w+)"', sources))
    kinds |= set(re.findall(r'"(context_length|bad_request)"', sources))
    kinds |= set(re.findall(r'f?"(unread|truncated|tie|missing|unlabelled): ', sources))
    kinds |= set(re.findall(r'error = f?\(?\s*f?"(\w+): ', sources))
    assert {"ambiguous", "server", "unread", "truncated", "missing"} <= kinds
    for kind in kinds - {"cot", "score", "rationale", "stable"}:  # other kinds
        assert f"| `{kind}` |" in PAGE


def test_what_the_package_offers_is_listed_once_and_documented() -> None:
    assert len(labelers.__all__) == len(set(labelers.__all__))
    for name in labelers.__all__:
        assert getattr(labelers, name).__doc__
