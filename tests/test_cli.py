"""The command line: quick to answer, the twin of the functions, and plain in what it says."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from small_recipe import small_recipe, write_recipe

import curate
from curate.cli import main
from curate.exceptions import CurateError
from curate.pipeline import Options, Run
from curate.progress import ProgressDisplay, stage_summary
from labelers import Progress

VERBS = [
    *("init", "run", "label", "filter", "teacher", "train", "evaluate", "report", "predict"),
    *("ablate", "compare"),
]
#: These have functions of other names, or none: `write_review`, `export_set`, `analyse_errors`, …
OTHERS = {"dedupe", "errors", "export", "log", "next", "review"}
HEAVY = {
    "torch", "transformers", "datasets", "pandas", "polars", "pyarrow", "sklearn", "numpy", "scipy",
    "sentence_transformers", "aiohttp", "openai", "pydantic", "jinja2", "yaml", "rich", "labelers",
    "filters", "student",
}  # fmt: skip
_LIST_IMPORTED = """
import sys
from click.testing import CliRunner
from curate.cli import main
result = CliRunner().invoke(main, {arguments!r})
assert result.exit_code == 0, result.output
print(" ".join(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def call(*arguments: object, **how: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **how)


def imported_by(*arguments: str) -> set[str]:
    code = _LIST_IMPORTED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.integration
@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_answers_at_once_because_it_imports_nothing_heavy(arguments: list[str]) -> None:
    modules = imported_by(*arguments)
    assert {"click", "curate"} <= modules
    assert modules & HEAVY == set()


def test_commands_and_functions_have_the_same_names() -> None:
    assert sorted(set(main.commands) - OTHERS) == sorted(VERBS)
    for verb in VERBS:
        assert callable(getattr(curate, verb))
        assert verb in curate.__all__


def test_commands_and_functions_take_the_same_arguments() -> None:
    recipe_options = set(Options.__annotations__) - {"train", "test", "on_progress"}
    looking = {"explain", "thresholds", "diff", "self_test"}  # these run nothing
    for verb in ("run", "label", "filter", "train", "evaluate"):
        given = {parameter.name for parameter in main.commands[verb].params}
        assert given - {"quiet", "seeds", "dry_run", *looking} == recipe_options | {"recipe"}
    for verb in ("init", "report", "predict", "teacher"):
        given = {parameter.name for parameter in main.commands[verb].params} - {"quiet"}
        taken = set(inspect.signature(getattr(curate, verb)).parameters) - {"on_progress"}
        taken -= {"train", "test"} if verb == "teacher" else set()
        # A terminal tells texts from files by an option, a function by their type.
        expected = (taken - {"data"}) | {"texts", "file"} if verb == "predict" else taken
        assert given == expected


def test_every_function_of_the_package_is_found() -> None:
    for name in curate.__all__:
        assert getattr(curate, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        curate.lable  # noqa: B018


def test_every_command_says_what_it_does() -> None:
    for command in main.commands.values():
        assert isinstance(command, click.Command)
        assert command.get_short_help_str(200).endswith(".")
        result = call(command.name, "--help")
        assert result.exit_code == 0
        assert f"Usage: main {command.name}" in result.output


def test_the_version_is_the_distributions() -> None:
    result = call("--version")
    assert result.output == f"curate, version {_version()}\n"


def _version() -> str:
    from importlib.metadata import version

    return version("curate-distill")


# ------------------------------------------------------------------------------------------- init


def test_init_writes_a_recipe_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    result = call("init", path)
    assert (result.exit_code, result.output) == (0, f"{path} written; next: curate run {path}\n")
    path.write_text("mine")
    refused = call("init", path)
    assert refused.exit_code == 2
    assert f"error: {path} is there already" in refused.stderr
    assert path.read_text() == "mine"
    assert call("init", path, "--force").exit_code == 0
    assert path.read_text().startswith("# A recipe")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


def test_init_without_a_place_writes_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init").exit_code == 0
    assert (tmp_path / "recipe.yaml").exists()


# --------------------------------------------------------------------------------- label and filter


def test_label_and_filter_say_where_their_rows_are(tmp_path: Path) -> None:
    (tmp_path / "tiny-t5").mkdir()
    path = write_recipe(tmp_path, small_recipe())
    run = tmp_path / "run"
    result = call("label", path, "--output", run, "--store", tmp_path / "store")
    assert result.exit_code == 0
    assert result.stdout == f"labelled rows: {run / 'labeled.parquet'}\n"
    assert "Reading the data: 44 train rows, 16 test rows; " in result.stderr
    assert "Labeling: 60 of 60 rows labelled, 0 answers asked, 0 from the store; " in result.stderr
    result = call("filter", path, "--output", run, "--set", "filters.near_duplicate.threshold=0.6")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"curated rows: {run / 'curated.parquet'}", f"evidence:     {run / 'decisions.parquet'}",
    ]  # fmt: skip
    assert "Labeling: 60 of 60 rows labelled" in result.stderr
    assert "unchanged, not run again" in result.stderr
    assert "dropped: near_duplicate" in result.stderr


def test_quiet_says_nothing_but_the_result(tmp_path: Path) -> None:
    (tmp_path / "tiny-t5").mkdir()
    path = write_recipe(tmp_path, small_recipe())
    result = call("label", path, "--output", tmp_path / "run", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""


def test_the_run_folder_is_named_after_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes" / "tiny-t5").mkdir(parents=True)
    path = write_recipe(tmp_path / "recipes", small_recipe())
    monkeypatch.chdir(tmp_path)
    assert call("label", path.relative_to(tmp_path)).exit_code == 0
    assert (tmp_path / "runs" / "small" / "labeled.parquet").exists()


# ------------------------------------------------------------------------------- run, with the work faked


def metrics(accuracy: float) -> dict[str, Any]:
    value = {"value": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
    return {"accuracy": value, "macro_f1": value, "n": 500}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Puts a run that only answers in the verbs' place, and lists how it was called."""
    calls: list[dict[str, Any]] = []

    def answer(recipe: Path, **how: Any) -> Run:
        calls.append({"recipe": recipe} | how)
        found = {"majority": metrics(0.5), "student": metrics(0.7 + len(calls) / 20)}
        return Run(Path(how["output"] or "runs/small"), {}, found, [], "The goal is met.")

    for verb in ("run", "evaluate", "train"):
        monkeypatch.setattr(curate, verb, answer)
    return calls


def test_run_prints_a_table_the_verdict_and_the_places(asked: list[dict[str, Any]]) -> None:
    result = call("run", "recipe.yaml", "--set", "seed=1", "--set", "student.epochs=1")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "system", "accuracy", "95", "%", "interval", "macro-F1", "95", "%", "interval", "test", "rows",
    ]  # fmt: skip
    assert lines[3].split()[:5] == ["student", "75.0%", "70.0%", "to", "80.0%"]
    assert lines[4:] == [
        "The goal is met.", "student: runs/small/student", "report:  runs/small/report.html",
    ]  # fmt: skip
    assert asked[0]["overrides"] == ("seed=1", "student.epochs=1")
    assert asked[0]["store"] is None
    assert call("evaluate", "recipe.yaml").stdout.splitlines()[-1] == "The goal is met."
    assert call("train", "recipe.yaml").stdout == "student: runs/small/student\n"


def test_several_seeds_are_run_apart_and_their_medians_shown(
    asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, small_recipe())
    result = call("run", path, "--seeds", "0, 1,2", "--set", "student.epochs=1")
    assert result.exit_code == 0
    assert [how["overrides"] for how in asked] == [
        ("student.epochs=1", f"seed={seed}") for seed in (0, 1, 2)
    ]
    assert [str(how["output"]) for how in asked] == [
        f"runs/small/seed-{seed}" for seed in (0, 1, 2)
    ]
    last = result.stdout.splitlines()[-1].split()
    assert last == ["student", "80.0%", "75.0%", "to", "85.0%", "3"]


@pytest.mark.parametrize("seeds", ["a", "1,,2", "-1", "", "1.5"])
def test_seeds_that_are_no_numbers_are_refused(
    seeds: str, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, small_recipe())
    result = call("run", path, "--seeds", seeds)
    assert result.exit_code == 2
    assert "write whole numbers, such as 0,1,2" in result.stderr
    assert not asked


# ---------------------------------------------------------------------------------------- predict


def test_predict_wants_texts_or_a_file_and_not_both(tmp_path: Path) -> None:
    for arguments in (["--model", "x"], ["--model", "x", "--file", "a.csv", "It hums."]):
        result = call("predict", *arguments)
        assert result.exit_code == 2
        assert "give either texts or --file" in result.stderr
    result = call("predict", "--model", tmp_path / "nowhere", "It hums.")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.output


# ------------------------------------------------------------------------------------------ errors


def test_our_own_errors_end_in_a_message_and_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise CurateError("the lid is off: put it on")

    monkeypatch.setattr(curate, "report", fail)
    result = call("report", "runs/small")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: the lid is off: put it on\n"


def test_defects_are_not_dressed_up_as_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("some dependency's own words")

    monkeypatch.setattr(curate, "report", fail)
    result = call("report", "runs/small")
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)


def test_an_interrupted_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(curate, "label", stop)
    result = call("label", "recipe.yaml")
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.stderr


# ---------------------------------------------------------------------------------------- progress


def progress(done: int, total: int = 200, **changes: Any) -> dict[str, Any]:
    counts = {
        "phase": "label", "done": done, "total": total, "asked": done, "reused": 0, "retries": 0,
        "failed": 0, "prompt_tokens": 40 * done, "completion_tokens": 8 * done, "cost_usd": None,
    }  # fmt: skip
    return vars(Progress(**(counts | changes)))


def test_off_a_terminal_progress_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("curate.progress.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    with ProgressDisplay(stream) as display:
        display("labeled", {"state": "begun"})
        for second in range(41):
            clock[0] = 100.0 + second
            display("label", progress(5 * second, cost_usd=0.5, failed=2, retries=3))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Labeling …"
    assert lines[1:] == [
        "  labels: 50 of 200 rows, 5.0 rows/s, 2,400 tokens, 0.50 USD, 2 failed, 3 retries, 0:30 left",
        "  labels: 100 of 200 rows, 5.0 rows/s, 4,800 tokens, 0.50 USD, 2 failed, 3 retries, 0:20 left",
        "  labels: 150 of 200 rows, 5.0 rows/s, 7,200 tokens, 0.50 USD, 2 failed, 3 retries, 0:10 left",
        "  labels: 200 of 200 rows, 5.0 rows/s, 9,600 tokens, 0.50 USD, 2 failed, 3 retries",
    ]
    assert "\x1b" not in stream.getvalue()


def test_a_second_student_has_a_rate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("curate.progress.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    with ProgressDisplay(stream) as display:
        for begin, seconds_a_step in ((0.0, 1.0), (1000.0, 2.0)):
            for step in range(1, 41):
                clock[0] = begin + step * seconds_a_step
                display("train", {"step": step, "steps": 40, "epoch": 1, "loss": 0.25})
    lines = stream.getvalue().splitlines()
    assert "  training: step 40 of 40, 1.0 steps/s, loss 0.250" in lines
    assert lines[-1] == "  training: step 40 of 40, 0.5 steps/s, loss 0.250"
    assert any("0.5 steps/s, loss 0.250, 0:" in line for line in lines)


def test_every_kind_of_event_can_be_shown() -> None:
    stream = io.StringIO()
    with ProgressDisplay(stream) as display:
        display("assets", {"asset": "flan", "phase": "download", "bytes": 0, "total": 0})
        display(
            "assets", {"asset": "flan", "phase": "download", "bytes": 7_000_000, "total": 7_000_000}
        )
        display("label", progress(9, 9, reused=9))
        display("label", progress(9, 9, phase="rationale"))
        display("embed", {"stage": "embed", "done": 3, "total": 3, "encoded": 0, "cached": 3})
        display("filter", {"stage": "near_duplicate", "done": 3, "total": 3})
        display("train", {"step": 4, "steps": 4, "epoch": 1, "loss": 0.25})
        display("predict", {"done": 5, "total": 5})
    assert stream.getvalue().splitlines() == [
        "  download flan: 7 of 7 MB",
        "  labels: 9 of 9 rows, 432 tokens, 9 from the store",
        "  rationales: 9 of 9 rows, 432 tokens",
        "  embedding: 3 of 3 rows",
        "  training: step 4 of 4, loss 0.250",
        "  prediction: 5 of 5 rows",
    ]


def test_a_terminal_gets_bars_and_keeps_only_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ProgressDisplay(stream) as display:
        display("labeled", {"state": "begun"})
        display("label", progress(50))
        info = {"rows": 200, "labelled": 199, "asked": 150, "from_store": 50, "cost_usd": 1.5}
        display(
            "labeled",
            {
                "state": "finished",
                "reused": False,
                "seconds": 3.0,
                **info,
                "notes": ["[not] markup"],
            },
        )
    text = stream.getvalue()
    assert "Labeling …" in text
    assert (
        "Labeling: 199 of 200 rows labelled (1 with an error), 150 answers asked, 50 from the store, "
        "1.50 USD; 3.0 s" in " ".join(text.split())
    )
    assert "note: [not] markup" in text


def test_a_finished_stage_is_told_in_a_few_words() -> None:
    assert stage_summary("examples", {"rows": {"train": 1200, "test": 565}}) == (
        "1,200 train rows, 565 test rows"
    )
    assert stage_summary("curated", {"kept": 900, "dropped": {"near_duplicate": 20}}) == (
        "900 rows kept; dropped: near_duplicate 20"
    )
    info = {"rows": 900, "steps": 57, "objective": "multitask", "target": "label"}
    assert stage_summary("student", info) == "900 rows, 57 steps, multitask on labels"
    assert stage_summary("predictions", {}) == ""


def test_events_reach_a_callers_own_function(tmp_path: Path) -> None:
    (tmp_path / "tiny-t5").mkdir()
    path = write_recipe(tmp_path, small_recipe())
    events: list[tuple[str, dict[str, Any]]] = []
    curate.label(
        path,
        output=tmp_path / "run",
        on_progress=lambda stage, event: events.append((stage, dict(event))),
    )
    states = [(stage, event["state"]) for stage, event in events if "state" in event]
    assert states == [
        ("examples", "begun"), ("examples", "finished"), ("labeled", "begun"), ("labeled", "finished"),
    ]  # fmt: skip
    assert json.dumps([event for _, event in events])
