"""One change at a time: keys are checked first, paired tests with Holm's correction, one log."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from ablation_runs import Trained, as_good_as, labelled_run, word_counts
from click.testing import CliRunner

import filters
import labelers
from curate import ablations
from curate.ablation_cells import Trainer
from curate.cli import main
from curate.exceptions import CurateError, RecipeError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return labelled_run(tmp_path_factory.mktemp("made"), errors=0.2)


def vary(made: tuple[Path, Path], output: Path, trainer: Trainer, *given: str, **how: Any) -> Any:
    how = {"seeds": (0, 1), **how}
    return ablations.ablate(made[0], run=made[1], output=output, trainer=trainer, vary=given, **how)


def by_alpha(rows: int, recipe: Any) -> float:
    """Better for each tenth of alpha, and much worse at 0.1."""
    return 0.3 if recipe.student.alpha == 0.1 else 0.8 + (recipe.student.alpha == 0.9) * 0.02


def experiments(found: Any) -> dict[str, dict[str, Any]]:
    return {row["experiment"]: row for row in found.facts["experiments"]}


def test_each_value_is_one_experiment_against_the_base(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    found = vary(
        made, tmp_path / "out", as_good_as(by_alpha),
        "student.alpha=0.1,0.5,0.9", "student.learning_rate=1e-3",
    )  # fmt: skip
    rows = experiments(found)
    assert list(rows) == [
        "base", "student.alpha=0.1", "student.alpha=0.9", "student.learning_rate=0.001",
    ]  # fmt: skip
    assert "student.alpha=0.5 is what the recipe says and was left out" in found.notes
    assert rows["student.alpha=0.1"]["changes"] == {"student.alpha": 0.1}
    assert rows["student.alpha=0.1"]["verdict"] == "worse"
    assert rows["student.alpha=0.1"]["difference"] < -0.3
    assert rows["student.alpha=0.9"]["verdict"] == "not shown"
    assert rows["student.learning_rate=0.001"]["difference"] == 0
    assert rows["base"].get("difference") is None
    for row in list(rows.values())[1:]:
        assert row["p_holm"] >= row["p"]
        assert row["low"] <= row["value"] <= row["high"]
    assert found.verdict.startswith("Of 3 changes")
    assert "student.alpha=0.1 is worse by" in found.verdict
    assert "learning_rate" not in found.verdict


def test_test_is_not_read_and_only_what_changed_is_trained(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    trained = Trained()
    vary(made, tmp_path / "out", word_counts(trained), "student.alpha=0.1,0.9")
    assert len(trained.cells) == 6
    labeled = pd.read_parquet(made[1] / "labeled.parquet")
    test = set(labeled.loc[labeled["split"] == "test", "id"])
    assert not any(ids & test for ids in trained.asked)
    vary(made, tmp_path / "out", word_counts(trained), "student.alpha=0.1,0.3")
    assert len(trained.cells) == 8  # only 0.3, with both seeds


def test_a_filter_is_reached_by_its_name_and_its_rows_are_filtered_again(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(labelers, "label", asked)
    found = vary(
        made, tmp_path / "out", word_counts(Trained()),
        "filters.near_duplicate.threshold=0.3", "filters.near_duplicate=off", seeds=(0,),
    )  # fmt: skip
    rows = experiments(found)
    base, strict, off = rows.values()
    assert strict["experiment"] == "filters.near_duplicate.threshold=0.3"
    assert off["experiment"] == "filters.near_duplicate=off"
    assert strict["rows"] < base["rows"] <= off["rows"]
    assert strict["changes"] == {"filters.near_duplicate.threshold": 0.3}


def test_a_grid_is_all_combinations(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = vary(
        made, tmp_path / "out", as_good_as(by_alpha),
        "student.alpha=0.5,0.9", "student.batch_size=8,16", seeds=(0,), grid=True,
    )  # fmt: skip
    assert list(experiments(found)) == [
        "base",
        "student.alpha=0.5, student.batch_size=8",
        "student.alpha=0.9, student.batch_size=8",
        "student.alpha=0.9, student.batch_size=16",
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("studnt.alpha=1", r"a recipe has no 'studnt': did you mean 'student'\?"),
        ("student.alhpa=0.3", r"no such key: did you mean 'student.alpha'\?"),
        (
            "filters.near_dupliate.threshold=0.7",
            r"'near_dupliate': did you mean 'near_duplicate'\?",
        ),
        ("filters.near_duplicate.treshold=0.7", r"'treshold': did you mean 'threshold'\?"),
        ("filters.confidence.minimum=0.7", "has no filter 'confidence': add it"),
        ("filters.near_duplicate=0.7", r"give an argument of the filter"),
        ("student.alpha=0.3,1.5", r"--vary 'student.alpha=1.5': student.alpha is 1.5"),
        ("student.alpha", "write a key and its values"),
        ("student.alpha=[0.3", "is not|expected|values are YAML"),
        ("data.limit=5", "this cannot be varied, since all experiments answer the same"),
        ("seed=1,2", "give them with --seeds"),
        ("task.goal.accuracy=0.9", "no training depends on it"),
        ("student.alpha=0.5", "no value of --vary differs from the recipe"),
        ("teacher.colum=said2", "unknown key 'teacher.colum'"),
    ],
)
def test_what_cannot_be_varied_is_refused_before_anything_runs(
    made: tuple[Path, Path], tmp_path: Path, given: str, words: str
) -> None:
    trained = Trained()
    with pytest.raises((CurateError, RecipeError), match=words):
        vary(made, tmp_path / "out", word_counts(trained), "student.alpha=0.9", given) if (
            given != "student.alpha=0.5"
        ) else vary(made, tmp_path / "out", word_counts(trained), given)
    assert trained.cells == []
    assert not (tmp_path / "out" / "experiments.sqlite").exists()


def test_another_teacher_answers_from_its_own_column(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    # Recorded answers cost nothing, so that no consent is needed; said2 is never wrong.
    found = vary(made, tmp_path / "out", word_counts(Trained()), "teacher.column=said2", seeds=(0,))
    rows = experiments(found)
    assert rows["teacher.column=said2"]["value"] > rows["base"]["value"]
    own = list((tmp_path / "out" / "runs").glob("*/curated.parquet"))
    assert len(own) == 1
    labels = pd.read_parquet(own[0])
    assert (labels["label"] == labels["gold"]).all()


def test_experiments_that_pay_are_quoted_and_need_consent(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    trained = Trained()
    paid = [
        "teacher={engine: openai, model: big, base_url: 'http://127.0.0.1:9/v1', mode: cot, prices: "
        "{prompt: 2, completion: 8}}"
    ]
    with pytest.raises(CurateError) as raised:
        vary(made, tmp_path / "out", word_counts(trained), *paid)
    said = str(raised.value)
    assert "1 of 1 experiments ask the teacher" in said
    assert "300 to ask" in said
    assert "$" in said
    assert "nothing was sent: add --yes" in said
    assert trained.cells == []


def test_all_experiments_stand_in_one_table(made: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    vary(made, out, as_good_as(by_alpha), "student.alpha=0.1")
    vary(made, out, as_good_as(by_alpha), "student.alpha=0.1", "student.batch_size=8")
    with closing(sqlite3.connect(out / "experiments.sqlite")) as base:
        rows = base.execute(
            "SELECT experiment, changes, seeds, verdict, seconds FROM experiments"
        ).fetchall()
    assert sorted(row[0] for row in rows) == ["base", "student.alpha=0.1", "student.batch_size=8"]
    changes = {row[0]: json.loads(row[1]) for row in rows}
    assert changes["student.batch_size=8"] == {"student.batch_size": 8}
    assert all(json.loads(row[2]) == [0, 1] for row in rows)
    table = pd.read_parquet(out / "experiments.parquet")
    assert set(table["experiment"]) == {row[0] for row in rows}
    assert table["prompt_tokens"].notna().all()
    (out / "experiments.sqlite").write_bytes(b"this is no such file" * 100)
    with pytest.raises(CurateError, match="move it away"):
        vary(made, out, as_good_as(by_alpha), "student.alpha=0.1")


class _Trackers:
    """Stand-ins for the two packages; each run is (project, name, settings, numbers)."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str, dict[str, Any], dict[str, float]]] = []
        self.wandb = ModuleType("wandb")
        self.mlflow = ModuleType("mlflow")
        self.project, self.settings = "", dict[str, Any]()
        vars(self.wandb)["init"] = self._init
        for name in ("set_experiment", "start_run", "log_params", "log_metrics", "set_tags"):
            vars(self.mlflow)[name] = getattr(self, f"_{name}")

    def _init(self, *, project: str, name: str, config: dict[str, Any], reinit: bool) -> Any:
        class Run:
            log = staticmethod(lambda numbers: self.runs.append((project, name, config, numbers)))
            finish = staticmethod(lambda: None)

        return Run

    def _set_experiment(self, project: str) -> None:
        self.project = project

    @contextmanager
    def _start_run(self, *, run_name: str) -> Iterator[None]:
        self.name = run_name
        yield

    def _log_params(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def _log_metrics(self, numbers: dict[str, float]) -> None:
        self.runs.append((self.project, self.name, self.settings, numbers))

    def _set_tags(self, tags: dict[str, str]) -> None:
        assert "recipe_sha256" in tags


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_other_trackers_get_the_same_numbers(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trackers = _Trackers()
    monkeypatch.setitem(sys.modules, name, getattr(trackers, name))
    how = {"seeds": (0,), "log_to": [name]}
    found = vary(made, tmp_path / "out", as_good_as(by_alpha), "student.alpha=0.1", **how)
    rows = experiments(found)
    assert [(project, run) for project, run, _, _ in trackers.runs] == [
        ("small", "base"), ("small", "student.alpha=0.1"),
    ]  # fmt: skip
    _, _, settings, numbers = trackers.runs[1]
    assert settings["student.alpha"] == 0.1
    assert numbers["value"] == rows["student.alpha=0.1"]["value"]
    assert numbers["p_holm"] == rows["student.alpha=0.1"]["p_holm"]


def test_a_tracker_that_is_not_there_is_refused_first(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(CurateError, match="--log-to wandb: the package is not installed: pip"):
        vary(made, tmp_path, word_counts(trained), "student.alpha=0.1", log_to=["wandb"])
    with pytest.raises(CurateError, match="--log-to neptune: wandb and mlflow are known"):
        vary(made, tmp_path, word_counts(trained), "student.alpha=0.1", log_to=["neptune"])
    assert trained.cells == []


def test_filters_that_leave_nothing_are_one_experiments_fate(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = filters.apply

    def strict(rows: Any, chosen: Any, **how: Any) -> Any:
        found = real(rows, chosen, **how)
        found.frame["keep"] = False
        return found

    monkeypatch.setattr(filters, "apply", strict)
    found = vary(
        made, tmp_path / "out", as_good_as(by_alpha),
        "filters.near_duplicate.threshold=0.3", "student.alpha=0.1", seeds=(0,),
    )  # fmt: skip
    assert found.problems == {
        "filters.near_duplicate.threshold=0.3": "no training row is left: loosen the filters"
    }
    assert experiments(found)["student.alpha=0.1"]["verdict"] == "worse"


def test_the_command_prints_the_table_and_refuses_a_typo(made: tuple[Path, Path]) -> None:
    arguments = ["ablate", str(made[0]), "--run", str(made[1])]
    result = CliRunner().invoke(main, [*arguments, "--vary", "student.alhpa=0.3"])
    assert result.exit_code == 2
    assert "did you mean 'student.alpha'?" in result.output
