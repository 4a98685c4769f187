"""Every example of the guide to filters runs as written and prints what it says."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from pathlib import Path

import pytest
from filters_frames import frame, run

from filters import NearDuplicate

GUIDE = (Path(__file__).parent.parent / "docs" / "filters.md").read_text("utf-8")


def test_the_examples_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|text)\n(.*?)```", GUIDE, flags=re.DOTALL)
    names: dict[str, object] = {}
    printed = ""
    checked = 0
    for language, block in blocks:
        if language == "text":
            assert [line.strip() for line in printed.splitlines()] == [
                line.strip() for line in block.splitlines()
            ]
            checked += 1
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block, "docs/filters.md", "exec"), names)  # noqa: S102
        printed = output.getvalue()
    assert checked == GUIDE.count("```text") > 7


def changed(words: list[str]) -> dict[str, list[str]]:
    middle, end = len(words) // 2, len(words)
    return {
        "one word replaced, inside": [*words[:middle], "other", *words[middle + 1 :]],
        "last word replaced": [*words[:-1], "other"],
        "one word added, inside": [*words[:middle], "other", *words[middle:]],
        "two words replaced, apart": [
            {end // 4: "other", 3 * end // 4: "another"}.get(place, word)
            for place, word in enumerate(words)
        ],
        "last quarter cut off": words[: 3 * end // 4],
    }


@pytest.mark.parametrize("length", [8, 16, 32])
def test_the_table_of_near_scores(length: int) -> None:
    letters = itertools.product("bdfgklmnp", "aeiou", "lmnrst")
    words = ["".join(word) for word in itertools.islice(letters, length)]
    header = next(line for line in GUIDE.splitlines() if line.startswith("| change"))
    place = header.split("|").index(f" {length} words ")
    for name, text in changed(words).items():
        row = next(line for line in GUIDE.splitlines() if line.startswith(f"| {name}"))
        rows = frame([" ".join(words), " ".join(text)])
        found = run(rows, NearDuplicate(threshold=0.3, floor=0.3)).frame["score_near_duplicate"]
        assert f"{found.max():.2f}".lstrip("0") == row.split("|")[place].strip(), name
