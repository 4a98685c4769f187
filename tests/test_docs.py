"""Docs that cannot drift: help texts, keys, commands, links and examples are what they are said to be.

``CURATE_WRITE_DOCS=1 pytest tests/test_docs.py`` writes the help texts into docs/cli.md anew.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from pydantic import BaseModel
from scripted_teacher import Body, ScriptedTeacher, question, says, scores
from small_recipe import embed_by_words, review_rows, small_recipe, write_recipe
from tiny_student import tiny_folder

import curate
import filters
import labelers
import student.training_preparation
from curate import assets
from curate.cli import main
from curate.recipe import (
    DataSection,
    GenerateSection,
    PrivacySection,
    Recipe,
    StudentSection,
    TaskSection,
    parse_recipe,
)
from curate.recipe_scores import (
    JudgeSection,
    OutOfFoldSection,
    PerplexitySection,
    ScoresSection,
)
from curate.recipe_teachers import (
    AskedSection,
    CascadeSection,
    DemonstrationSection,
    EnsembleSection,
    LimitsSection,
    LlamaCppSection,
    OpenAISection,
    RecordedSection,
    ShownSection,
    VLLMSection,
)
from curate.recipe_trials import TrialsSection

REPO = Path(__file__).parents[1]
PAGES = sorted(
    [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", *REPO.glob("docs/*.md")]
)
NAMES = [path.relative_to(REPO).as_posix() for path in PAGES]
#: Run by tests of their own.
RUN_ELSEWHERE = {"docs/filters.md", "docs/labelers.md"}
HELP = re.compile(r"(?<=<!-- help: )(\w+)( -->\n```text\n)(.*?)(?=```\n<!-- /help -->)", re.DOTALL)


def page(name: str) -> str:
    return (REPO / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[tuple[str, str]]:
    """(what stands behind the language, the block) of every fenced block in a language."""
    fence = re.compile(rf"^```{language}\b([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [(match[1].strip(), match[2]) for match in fence.finditer(page(name))]


def with_blocks(language: str) -> list[str]:
    return [name for name in NAMES if blocks(name, language)]


# ------------------------------------------------------------------------------------ docs/cli.md


def help_text(name: str) -> str:
    arguments = ["--help"] if name == "curate" else [name, "--help"]
    # As a terminal of 80 columns shows it.
    result = CliRunner().invoke(main, arguments, prog_name="curate", terminal_width=78)
    assert result.exit_code == 0
    return result.output


def test_every_command_stands_in_the_docs_with_its_help() -> None:
    path = REPO / "docs" / "cli.md"
    text = path.read_text(encoding="utf-8")
    if os.environ.get("CURATE_WRITE_DOCS"):
        text = HELP.sub(lambda match: f"{match[1]}{match[2]}{help_text(match[1])}", text)
        path.write_text(text, encoding="utf-8")
    shown = {match[1]: match[3] for match in HELP.finditer(text)}
    assert shown == {name: help_text(name) for name in ("curate", *main.commands)}
    for name in main.commands:
        assert f"\n## curate {name}\n" in text


@pytest.mark.parametrize("name", with_blocks("console"))
def test_every_command_line_in_the_docs_can_be_given(name: str) -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    lines = [
        line[2:] for _, block in blocks(name, "console") for line in block.splitlines()
        if line.startswith("$ ")
    ]  # fmt: skip
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        if program == "make":
            for target in arguments:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
        elif program == "curate":
            verb, *rest = arguments
            command = main.commands[verb]
            # Parsing alone: an unknown option or a missing argument is an error.
            with click.Context(command, info_name=verb) as context:
                command.parse_args(context, rest)


# ---------------------------------------------------------------------------------- docs/recipe.md


@pytest.mark.parametrize("name", with_blocks("yaml"))
def test_every_recipe_in_the_docs_is_good(name: str) -> None:
    found = [yaml.safe_load(block) for _, block in blocks(name, "yaml")]
    assert found
    for values in found:
        whole = small_recipe(embedder="minilm")
        if "task" not in values:
            whole["task"] |= {"labels": ["positive", "negative"]}
        parse_recipe(values if "name" in values else whole | values, where=name)


SECTIONS: dict[str, type[BaseModel]] = {
    "## Top level": Recipe,
    "## `task`": TaskSection,
    "## `data`": DataSection,
    "### `engine: llama.cpp`": LlamaCppSection,
    "### `engine: vllm`": VLLMSection,
    "### `engine: openai`": OpenAISection,
    "### `engine: recorded`": RecordedSection,
    "### `engine: ensemble`": EnsembleSection,
    "### `engine: cascade`": CascadeSection,
    "## `generate`": GenerateSection,
    "## `trials`": TrialsSection,
    "## `privacy`": PrivacySection,
    "## `student`": StudentSection,
    "## `scores`": ScoresSection,
    "### `scores.out_of_fold`": OutOfFoldSection,
    "### `scores.judge`": JudgeSection,
    "### `scores.perplexity`": PerplexitySection,
}


def rows_of(text: str) -> Iterator[tuple[str, str]]:
    """(key, default) of a table's rows."""
    for match in re.finditer(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.MULTILINE):
        yield match[1], match[2]


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_stands_in_the_docs_with_its_default(heading: str) -> None:
    text = page("docs/recipe.md")
    part = re.split(r"\n##+ ", text.split(f"\n{heading}\n")[1])[0]
    listed = dict(rows_of(part))
    fields = SECTIONS[heading].model_fields
    if heading.startswith("### `engine"):
        if issubclass(SECTIONS[heading], AskedSection):
            listed |= dict(rows_of(text.split("Keys of `llama.cpp`, ")[1].split("\n### ")[0]))
        fields = {key: field for key, field in fields.items() if key != "engine"}
    assert set(listed) == set(fields)
    for key, field in fields.items():
        default = (
            "required" if field.is_required() else field.get_default(call_default_factory=True)
        )
        if isinstance(default, BaseModel):
            default = {}
        written = listed[key].strip("`")
        assert (written if written == "required" else yaml.safe_load(written)) == default, key


def test_every_filter_stands_in_the_docs_with_its_defaults() -> None:
    part = page("docs/recipe.md").split("\n## `filters`\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", part, re.MULTILINE))
    assert set(rows) == set(filters.FILTERS)
    for name, row in rows.items():
        written = {
            key: tuple(value) if isinstance(value, list) else value
            for cell in re.findall(r"`([^`]+)`", row)
            for key, value in yaml.safe_load(cell).items()
        }
        kind = filters.FILTERS[name]
        assert kind(**written) == kind()
        assert set(written) == {key for key in kind.__dataclass_fields__ if key != "reason"}


def test_every_limit_and_way_to_choose_demonstrations_is_listed() -> None:
    rows = {
        line.split("`")[1]: line
        for line in page("docs/recipe.md").splitlines()
        if line[:3] == "| `"
    }
    for key in LimitsSection.model_fields:
        assert f"`{key}`" in rows["limits"]
    shown = next(
        line
        for line in page("docs/recipe.md").splitlines()
        if line.startswith("| `demonstrations` | `{}`")
    )
    for key in ShownSection.model_fields:
        assert key in shown


def test_every_key_of_a_demonstration_is_explained() -> None:
    text = page("docs/recipe.md")
    part = text.split("**Demonstrations.**")[1].split("\n## ")[0]
    for key in DemonstrationSection.model_fields:
        assert f"`{key}`" in part


# --------------------------------------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page(name)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (REPO / name).parent / file if file else REPO / name
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


# ------------------------------------------------------------------------------------------ examples


def by_the_words(body: Body) -> Body:
    """A teacher's answer: praise is told from complaint by a few words."""
    praise = any(word in question(body) for word in ("love", "fast", "cool", "Great", "every"))
    if body.get("logprobs"):
        return scores({"positive": 0.9 if praise else 0.1, "negative": 0.1 if praise else 0.9})
    return says("The buyer says so in plain words.")


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to run examples in, where every model is a tiny one and nothing is fetched."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny = tiny_folder(tmp_path / "tiny-t5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(filters, "embed", embed_by_words)
    monkeypatch.setattr(labelers, "LlamaCpp", lambda **_: ScriptedTeacher(by_the_words))
    monkeypatch.setattr(assets, "resolve", lambda reference, kind, **_: str(tiny))
    monkeypatch.setattr(assets, "load_data", lambda name, **_: pd.DataFrame(review_rows()))
    load = student.training_preparation.load_checkpoint

    def load_checkpoint(model: str | Path) -> Any:
        return load(model if Path(model).is_dir() else tiny)

    monkeypatch.setattr(student.training_preparation, "load_checkpoint", load_checkpoint)
    yield tmp_path
    torch.set_num_threads(before)


def runnable(name: str) -> list[str]:
    return [code for remark, code in blocks(name, "python") if remark != "no-run"]


@pytest.mark.parametrize(
    "name", [n for n in with_blocks("python") if n not in RUN_ELSEWHERE and runnable(n)]
)
def test_every_example_runs_as_it_is_written(name: str, stand_ins: Path) -> None:
    if "runs/product-reviews" in page(name):
        curate.run(
            write_recipe(stand_ins, small_recipe()), output=stand_ins / "runs" / "product-reviews"
        )
    names: dict[str, Any] = {}
    for code in runnable(name):
        exec(compile(code, name, "exec"), names)  # noqa: S102
    assert names


@pytest.mark.parametrize("name", with_blocks("python"))
def test_examples_that_are_not_run_are_at_least_python(name: str) -> None:
    for remark, code in blocks(name, "python"):
        assert remark in ("", "no-run")
        compile(code, name, "exec")


def test_the_errors_are_documented() -> None:
    text = page("docs/errors.md")
    public: Mapping[str, Any] = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in (curate, labelers, filters, student)
        for name in package.__all__
    }
    errors = [n for n, v in public.items() if isinstance(v, type) and issubclass(v, Exception)]
    assert "labelers.TeacherError" in errors
    internal = {"labelers.RetryableError", "labelers.RowError", "student.StudentError"}
    for name in set(errors) - internal:
        assert f"`{name}`" in text
