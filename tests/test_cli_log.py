"""`curate log` and `curate label --dry-run`: what a person sees, and that nothing is sent."""

from __future__ import annotations

import json
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from scripted_teacher import ScriptedTeacher, thoughtful
from scripted_teacher import run as label_reviews
from small_recipe import review_rows, small_recipe, write_recipe
from test_labelers_exchange_log import put, segments

from curate.cli import main
from curate.labeling import label_rows
from curate.recipe import load_recipe
from curate.recipe_teachers import RecordedSection
from curate.splits import normalised
from curate.stages import no_progress
from curate.tables import read_log
from curate.teacher_log import log
from labelers import Store
from labelers.store import segment_lock

REPO = Path(__file__).parents[1]
PAGE = (REPO / "docs" / "log.md").read_text(encoding="utf-8")


def call(*arguments: object, **how: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **how)


def said(*arguments: object, **how: Any) -> str:
    result = call("log", *arguments, **how)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three exchanges of two runs, and a damaged line, in ``.curate`` of the current folder."""
    monkeypatch.chdir(tmp_path)
    with Store(tmp_path / ".curate") as store:
        put(store, "The strap broke.", "A fault. So the answer is negative.", run="spring", at=0)
        put(store, "The lamp glows.", "So the answer is positive.", run="summer", at=60)
        put(store, "The radio hisses.", "negative", run="summer", at=62, model="large")
    with segments(tmp_path / ".curate")[0].open("ab") as file:
        file.write(b"damaged\n")
    return tmp_path


# -------------------------------------------------------------------------------------------- reading


def test_list_shows_the_newest_last_and_says_what_was_left_out(stored: Path) -> None:
    result = call("log", "list")
    head, _, *rows = result.stdout.splitlines()
    assert head.split() == [
        "time", "(UTC)", "key", "run", "teacher", "path", "tokens", "prompt", "answer",
    ]  # fmt: skip
    assert [re.search(r"The \w+", row)[0] for row in rows] == [  # type: ignore[index]
        "The strap", "The lamp", "The radio",
    ]  # fmt: skip
    assert rows[1].startswith("2026-05-01 12:01:00  ")
    assert "summer  small    chat/completions  100+10  The lamp glows." in rows[1]
    assert "1 line of the store could not be read and is left out" in result.stderr
    assert "`curate log prune --damaged`" in result.stderr


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--limit", "1"], ["radio"]),
        (["--run", "summer"], ["lamp", "radio"]),
        (["--teacher", "small"], ["strap", "lamp"]),
        (["--since", "2026-05-01T12:01"], ["lamp", "radio"]),
        (["--since", "2026-05-01T14:01:01+02:00"], ["radio"]),
    ],
)
def test_list_and_search_show_what_was_chosen(
    stored: Path, options: list[str], shown: list[str]
) -> None:
    for command in (["list"], ["search", "the "]):
        lines = said(*command, *options).splitlines()[2:]
        assert [word for word in ("strap", "lamp", "radio") if word in "".join(lines)] == shown
        assert len(lines) == len(shown)


def test_nothing_found_is_said(stored: Path) -> None:
    assert said("search", "tent") == "no prompt or answer holds 'tent'\n"
    assert said("list", "--run", "winter") == "no exchange is as was asked\n"
    assert said("cost", "--run", "winter") == "no exchange is as was asked\n"


def test_show_prints_request_and_answer_in_full(stored: Path) -> None:
    key = said("search", "strap").splitlines()[2].split()[2]
    shown = said("show", key)
    assert "--- system\nJudge the review.\n" in shown
    assert "--- user\nThe strap broke.\n" in shown
    assert "=== answer\nA fault. So the answer is negative.\n" in shown
    assert "tokens   100 prompt, 10 completion" in shown
    assert "run      spring" in shown
    whole = json.loads(said("show", key, "--json"))
    assert whole["key"].startswith(key)
    assert whole["response"]["choices"][0]["message"]["role"] == "assistant"
    refused = call("log", "show", "zz")
    assert (refused.exit_code, "begins with 'zz'" in refused.stderr) == (2, True)


def test_what_a_teacher_says_cannot_steer_the_terminal(stored: Path) -> None:
    with Store(".curate") as store:
        put(store, "The tent\x1b[2Jleaks.", "\x1b]0;owned\x07negative\rpositive 🙂", at=900)
    for command in (["list", "--limit", "1"], ["show", ""]):
        if command[0] == "show":
            command[1] = said("list", "--limit", "1").splitlines()[2].split()[2]
        shown = said(*command)
        assert not set(shown) & {"\x1b", "\x07", "\r"}
        assert r"The tent\x1b[2Jleaks." in shown


@pytest.mark.parametrize(
    "command",
    [
        ["list"], ["show", "ab"], ["search", "strap"], ["export", "log.jsonl"],
        ["prune", "--damaged"], ["cost"],
    ],
)  # fmt: skip
def test_where_there_is_no_store_that_is_said_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("log", *command)
    assert result.exit_code == 2
    assert f"there is no store of exchanges at {tmp_path / '.curate'}" in result.stderr
    assert "curate label RECIPE" in result.stderr
    assert "--store FOLDER" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--since", "yesterday"], "'yesterday': write a date such as 2026-05-01"),
        (["cost", "--prices", "cheap"], "'cheap': write US dollars per million"),
        (["cost", "--prices", "-1,2"], "'-1,2': write US dollars per million"),
        (["cost", "--prices", "1"], "'1': write US dollars per million"),
        (["list", "--limit", "0"], "0 is not in the range"),
        (["search", " "], "give a word or more"),
        (["prune"], "nothing is named that is to go"),
    ],
)
def test_options_that_make_no_sense_are_explained(
    stored: Path, arguments: list[str], message: str
) -> None:
    result = call("log", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


# ---------------------------------------------------------------------------- export, import and cost


def test_export_and_import_carry_a_store_over(stored: Path) -> None:
    assert said("export", "log.jsonl") == "3 exchanges: log.jsonl\n"
    refused = call("log", "export", "log.jsonl")
    assert (refused.exit_code, "--force" in refused.stderr) == (2, True)
    assert said("export", "log.jsonl", "--run", "spring", "--force") == "1 exchange: log.jsonl\n"
    assert said("import", "log.jsonl", "--store", "other") == "1 exchange imported into other\n"
    assert said("export", "log.jsonl", "--force") == "3 exchanges: log.jsonl\n"
    assert said("import", "log.jsonl", "--store", "other") == (
        "2 exchanges imported into other; 1 were there already\n"
    )
    assert said("list", "--store", "other").count("The ") == 3
    Path("log.jsonl").write_text("{}\n")
    wrong = call("log", "import", "log.jsonl", "--store", "third")
    assert wrong.exit_code == 2
    assert "log.jsonl:1: the key 'key' is missing" in wrong.stderr


def test_an_export_is_the_log_of_a_recorded_teacher(tmp_path: Path) -> None:
    """The playbook's log: what one teacher said, labels the same rows again without it."""
    texts = [row["text"] for row in review_rows()[:12]]
    rows = pd.DataFrame({"text": texts})
    with Store(tmp_path / "store") as store:
        first = label_reviews(thoughtful, store, rows, mode="cot", run="spring")
    exported = said("export", tmp_path / "log.jsonl", "--store", tmp_path / "store")
    assert exported.startswith("12 exchanges")
    by_id, by_prompt = read_log(tmp_path / "log.jsonl")
    assert by_id == {}
    assert {normalised(p) for p in by_prompt} == {normalised(f"Review: {text}") for text in texts}

    path = write_recipe(tmp_path, small_recipe())
    teacher = {"engine": "recorded", "log": "log.jsonl"}
    path = write_recipe(tmp_path, small_recipe(teacher=None) | {"teacher": teacher})
    examples = pd.DataFrame(
        {
            "id": [str(i) for i in range(12)], "input": [f"Review: {text}" for text in texts],
            "gold": None, "split": "train",
        }
    )  # fmt: skip
    recipe = load_recipe(path)
    assert isinstance(recipe.teacher, RecordedSection)
    replayed, _ = label_rows(
        examples, recipe, base=tmp_path, store=tmp_path / "none", on_progress=no_progress
    )
    assert list(replayed["label"]) == list(first["label"])
    assert list(replayed["rationale"]) == list(first["rationale"])


def test_cost_adds_up_by_run_and_says_what_it_left_out(stored: Path) -> None:
    with Store(".curate") as store:
        put(store, "The tent leaks.", run="autumn", at=3600, tokens=None)
    result = call("log", "cost", "--prices", "2,10")
    assert result.exit_code == 0
    rows = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()[2:]]
    assert [row[:6] for row in rows] == [
        ["spring", "small", "1", "100", "10", "$0.0003"],
        ["summer", "small", "1", "100", "10", "$0.0003"],
        ["summer", "large", "1", "100", "10", "$0.0003"],
        ["autumn", "small", "1", "0", "0", "$0.0000"],
        ["total", "4", "300", "30", "$0.0009"],
    ]
    assert "1 answer came without a count of tokens" in result.stderr
    assert "1 line of the store could not be read" in result.stderr
    unpriced = call("log", "cost", "--run", "spring")
    assert "–" in unpriced.stdout.splitlines()[2]
    assert "give --prices PROMPT,COMPLETION" in unpriced.stderr


# ------------------------------------------------------------------------------------------- pruning


def test_prune_says_what_would_go_and_asks_before_it_does(stored: Path) -> None:
    before = segments(stored / ".curate")[0].read_bytes()
    plan = said("prune", "--run", "summer", "--dry-run")
    assert plan.startswith("2 exchanges would go (0.0 MB); 1 stay")
    refused = call("log", "prune", "--run", "summer", input="n\n")
    assert refused.exit_code == 0
    assert refused.stdout.endswith("nothing was taken out\n")
    assert "Take them out of the store for good? [y/N]" in refused.stdout
    assert segments(stored / ".curate")[0].read_bytes() == before
    done = said("prune", "--run", "summer", "--damaged", "--yes")
    assert "2 exchanges and 1 damaged line are gone (0.0 MB); 1 stay" in done
    result = call("log", "list")
    assert result.stdout.count("The ") == 1
    assert result.stderr == ""
    assert said("prune", "--run", "summer") == "0 exchanges will go (0.0 MB); 1 stay\n"


def test_prune_keeps_the_last(stored: Path) -> None:
    said("prune", "--keep-last", "1", input="y\n")
    assert re.findall(r"The \w+", said("list")) == ["The radio"]


def test_prune_waits_for_nobody_but_says_who_is_in_the_way(stored: Path) -> None:
    with segment_lock(segments(stored / ".curate")[0]).acquire(timeout=0):
        result = call("log", "prune", "--keep-last", "0", "--yes")
    assert result.exit_code == 2
    assert (
        "is being written to (exchanges-0001.jsonl): wait until that run has ended" in result.stderr
    )
    assert said("list").count("The ") == 3


# ------------------------------------------------------------------------------------------- dry run


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def served(**teacher: Any) -> dict[str, Any]:
    recipe = small_recipe()
    recipe["teacher"] = {"engine": "openai", "model": "gpt-4o-mini"} | teacher
    return recipe


def figures(output: str) -> dict[str, str]:
    """The quote's table: name and value."""
    return dict(re.findall(r"^([a-z ]+?)  +(\S.*)$", output, re.MULTILINE))


def test_a_dry_run_shows_three_prompts_and_the_figures_and_sends_nothing(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = write_recipe(tmp_path, served())
    before = sorted(tmp_path.rglob("*"))
    result = call("label", path, "--dry-run")
    assert result.exit_code == 0, result.output
    prompts = re.findall(r"^--- prompt \d of 3 shown\n\[system\]\n(.*)\n", result.stdout, re.M)
    assert prompts == ["Decide whether a product review is positive or negative."] * 3
    assert result.stdout.count("[user]\nReview: ") == 3
    assert result.stdout.startswith("60 rows: 44 train, 16 test\n")
    told = figures(result.stdout)
    assert told["labels"] == "60 requests: 60 to ask"
    assert told["rationales"] == "44 requests: 44 to ask, at most"
    assert told["prompt tokens"].endswith("estimated at 4 bytes of UTF-8 a token")
    assert told["completion tokens"].startswith(f"{60 * 8 + 44 * 48:,} at most")
    assert re.match(r"\$0\.00\d+ at most; \$0\.00\d+ at most as a batch", told["cost"])
    assert "OpenAI's list of 2025-06" in told["cost"]
    assert told["time"].startswith("not known: this teacher was not measured here")
    assert result.stdout.endswith("\nnothing was sent\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_follows_the_recipes_keys_and_set(tmp_path: Path, no_network: None) -> None:
    path = write_recipe(
        tmp_path,
        served(
            mode="cot", samples=3, max_tokens=50, base_url="http://127.0.0.1:9/v1",
            prices={"prompt": 1.0, "completion": 4.0},
        ),
    )  # fmt: skip
    told = figures(call("label", path, "--dry-run", "--set", "teacher.samples=2").stdout)
    assert told["labels"] == "120 requests: 120 to ask"
    assert "rationales" not in told
    assert told["completion tokens"].startswith("6,000 at most")
    assert told["cost"].endswith("prices as given")
    path = write_recipe(tmp_path, served(base_url="http://127.0.0.1:9/v1"))
    told = figures(call("label", path, "--dry-run").stdout)
    assert told["cost"] == "not known: no prices; give teacher.prices"


def test_a_dry_run_leaves_out_what_the_store_has(tmp_path: Path, no_network: None) -> None:
    path = write_recipe(tmp_path, served(mode="cot", max_rationale_tokens=64))
    rows = pd.DataFrame({"text": [row["text"] for row in review_rows()]})
    teacher = ScriptedTeacher(thoughtful, model="gpt-4o-mini")
    kept = tmp_path / "kept"
    label_reviews(thoughtful, kept, rows[:25], teacher=teacher, mode="cot")
    revised = ["--set", "teacher.revision='1'"]
    told = figures(call("label", path, "--dry-run", "--store", kept, *revised).stdout)
    assert told["labels"] == "60 requests, 25 in the store already: 35 to ask"
    assert "350 expected, by the mean of stored answers" in told["completion tokens"]
    assert "answers a second as in the newest run" in told["time"]


def test_a_dry_run_shows_texts_as_they_would_be_sent_redacted(
    tmp_path: Path, no_network: None
) -> None:
    pytest.importorskip("presidio_analyzer")
    rows = review_rows()
    rows[0]["text"] = "The kettle leaks; write to anna.berg@example.org at once."
    path = write_recipe(
        tmp_path, served() | {"privacy": {"entities": ["EMAIL_ADDRESS"]}}, rows=rows
    )
    result = call("label", path, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "The kettle leaks; write to" in result.stdout
    assert "example.org" not in result.stdout
    assert "note: redacted before sending, in 1 of 60 rows: 1 " in result.stdout


def test_a_recorded_teacher_is_not_asked_and_that_is_all(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, small_recipe())
    result = call("label", path, "--dry-run")
    assert result.exit_code == 0
    assert "the teacher 'recorded' is recorded: there is nothing to ask" in result.stdout
    assert not (tmp_path / ".curate").exists()


def test_each_teacher_of_an_ensemble_and_a_cascade_is_quoted(
    tmp_path: Path, no_network: None
) -> None:
    cheap = {"engine": "openai", "model": "cheap", "base_url": "http://127.0.0.1:9/v1"}
    dear = cheap | {"model": "gpt-4o", "prices": {"prompt": 2.5, "completion": 10.0}}
    recipe = small_recipe() | {
        "teacher": {
            "engine": "ensemble",
            "vote": "majority",
            "members": [
                {"teacher": cheap},
                {
                    "teacher": dear,
                    "instruction": "Is the buyer happy (positive) or not (negative)?",
                },
                {"teacher": {"engine": "recorded", "column": "said", "name": "old"}},
            ],
        }
    }
    shown = call("label", write_recipe(tmp_path, recipe), "--dry-run").stdout
    assert re.findall(r"^teacher +(\S+)$", shown, re.M) == ["cheap", "gpt-4o"]
    assert shown.count("Is the buyer happy") == 3
    assert "the teacher 'old' is recorded" in shown

    recipe["teacher"] = {"engine": "cascade", "cheap": cheap, "dear": dear}
    shown = call("label", write_recipe(tmp_path, recipe), "--dry-run").stdout
    assert re.findall(r"^teacher +(\S+)$", shown, re.M) == ["cheap", "gpt-4o"]
    assert shown.count("asked only where the cheap teacher is not sure") == 1


def test_a_model_that_is_not_here_is_not_fetched_for_a_quote(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    recipe = small_recipe() | {"teacher": {"engine": "llama.cpp", "model": "smollm2-135m"}}
    result = call("label", write_recipe(tmp_path, recipe), "--dry-run")
    assert result.exit_code == 0, result.output
    told = figures(result.stdout)
    assert told["labels"] == "60 requests: 60 to ask"
    assert told["cost"] == "free: it runs on this machine"
    assert "smollm2-135m is not on this machine" in result.stdout
    assert result.stdout.count("Review: ") == 3
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_of_a_wrong_recipe_says_what_is_wrong(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, served(mode="guess"))
    result = call("label", path, "--dry-run")
    assert result.exit_code == 2
    assert "teacher.mode is 'guess'" in result.stderr


# ---------------------------------------------------------------------------------------------- docs


def test_every_command_of_the_log_stands_in_the_docs_with_all_its_options() -> None:
    for name, command in log.commands.items():
        part = PAGE.split(f"\n## `curate log {name}`\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name != "store":
                assert f"`{parameter.opts[-1]}" in part, (name, parameter.name)


def test_every_command_line_of_the_page_can_be_given() -> None:
    lines = re.findall(r"^\$ curate log (\w+) ?(.*)$", PAGE, re.MULTILINE)
    assert {name for name, _ in lines} == set(log.commands)
    for name, rest in lines:
        command = log.commands[name]
        with click.Context(command, info_name=name) as context:
            command.parse_args(context, shlex.split(rest))
