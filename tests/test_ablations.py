"""Data-scale ablation: cells, resuming, test once and last, the fit's forecast, and the buyer's answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ablation_runs import Trained, as_good_as, labelled_run, word_counts
from click.testing import CliRunner
from tiny_student import tiny_folder

import curate
import labelers
from curate import ablation_cells, ablation_room, ablations
from curate.ablation_cells import Bench, Cell, Trainer
from curate.ablation_room import jobs_that_fit
from curate.ablation_rows import lay_ground
from curate.ablation_scores import compare_paired, make_judge, score_points
from curate.ablation_source import open_source
from curate.cli import main
from curate.exceptions import CurateError
from curate.recipe import load_recipe


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and its run with 300 reviews; tests must not change it."""
    return labelled_run(tmp_path_factory.mktemp("made"))


def ablate(made: tuple[Path, Path], output: Path, trainer: Trainer, **options: Any) -> Any:
    options = {"fractions": (0.1, 0.25, 0.5, 1.0), "seeds": (0, 1), **options}
    return ablations.ablate(made[0], run=made[1], output=output, trainer=trainer, **options)


def law(rows: int, recipe: Any) -> float:
    return float(1 - (0.05 + 2.0 * rows**-0.6))


def training_rows(made: tuple[Path, Path]) -> int:
    source = open_source(made[0], run=made[1])
    return len(lay_ground(source.curated, source.recipe, share=0.2).training)


# ------------------------------------------------------------------------------------------- the cells


def test_every_size_and_seed_is_a_cell_and_nobody_is_asked(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(labelers, "label", asked)
    monkeypatch.setattr("filters.apply", asked)
    trained = Trained()
    found = ablate(made, tmp_path / "out", word_counts(trained))
    table = found.table()
    full = found.facts["training_rows"]
    assert len(trained.cells) == 8
    assert {seed for seed, _ in trained.cells} == {0, 1}
    assert table["fraction"].tolist() == [0.1, 0.1, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert (abs(table["rows"] - table["fraction"] * full) <= 2).all()  # whole groups of two
    assert pd.read_csv(tmp_path / "out" / "cells.csv")["rows"].tolist() == table["rows"].tolist()
    # More words are known by then.
    assert table["validation_accuracy"].iloc[-1] > table["validation_accuracy"].iloc[0]
    for split in ("validation", "test"):
        value = table[f"{split}_accuracy"]
        assert (table[f"{split}_accuracy_low"] <= value).all()
        assert (value <= table[f"{split}_accuracy_high"]).all()


def test_test_is_read_once_after_the_last_cell_and_no_answer_is_shown(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    trained = Trained()
    found = ablate(made, tmp_path / "out", word_counts(trained))
    labeled = pd.read_parquet(made[1] / "labeled.parquet")
    test = set(labeled.loc[labeled["split"] == "test", "id"])
    touched = [bool(ids & test) for ids in trained.asked]
    assert touched == [False] * 8 + [True] * 8
    assert len({frozenset(ids) for ids in trained.asked[:8]}) == 1  # one validation set for all
    assert not any({"gold", "reference"} & columns for columns in trained.columns)
    assert not any(ids & test for ids in trained.asked[:8])
    assert found.facts["test_rows"] == len(test)


def test_the_same_call_trains_nothing_again_and_more_seeds_train_only_theirs(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    trained = Trained()
    first = ablate(made, tmp_path / "out", word_counts(trained))
    again = ablate(made, tmp_path / "out", word_counts(trained))
    assert len(trained.cells) == 8
    assert again.facts["points"] == first.facts["points"]
    assert not again.notes or "Test was read" not in again.notes[-1]
    more = ablate(made, tmp_path / "out", word_counts(trained), seeds=(0, 1, 2))
    assert [seed for seed, _ in trained.cells[8:]] == [2] * 4
    assert any("Test was read 2 times in this folder, for 12 students" in n for n in more.notes)


def test_a_cell_that_is_stopped_goes_on_from_its_checkpoint(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    trained = Trained()
    real = word_counts(trained)
    checkpoints = []

    def stopped(rows: pd.DataFrame, recipe: Any, **how: Any) -> Any:
        checkpoint = how["output"].parent / ".student.checkpoint"
        if len(trained.cells) == 3:
            checkpoint.write_text("half of the steps")
            raise KeyboardInterrupt
        return real.train(rows, recipe, **how)

    def going_on(rows: pd.DataFrame, recipe: Any, **how: Any) -> Any:
        checkpoint = how["output"].parent / ".student.checkpoint"
        checkpoints.append(checkpoint.read_text() if checkpoint.exists() else None)
        checkpoint.unlink(missing_ok=True)  # as the training itself does at its end
        return real.train(rows, recipe, **how)

    with pytest.raises(KeyboardInterrupt):
        ablate(made, tmp_path / "out", Trainer(train=stopped, predict=real.predict, name=real.name))
    cells = tmp_path / "out" / "cells"
    assert len(list(cells.glob("*/cell.json"))) == 3
    # What another recipe's cell left behind is swept away.
    (cells / "half.part").mkdir()
    ablate(made, tmp_path / "out", Trainer(train=going_on, predict=real.predict, name=real.name))
    assert len(trained.cells) == 8
    assert checkpoints == ["half of the steps", None, None, None, None]
    assert len(list(cells.iterdir())) == 8


def test_a_cell_that_fails_is_told_and_tried_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    trained = Trained()
    real = word_counts(trained)

    def failing(rows: pd.DataFrame, recipe: Any, **how: Any) -> Any:
        if recipe.seed == 1 and len(rows) > 150:
            raise CurateError("the loss is nan at step 7: lower the learning rate")
        return real.train(rows, recipe, **how)

    broken = Trainer(train=failing, predict=real.predict, name=real.name)
    found = ablate(made, tmp_path / "out", broken)
    assert "the loss is nan" in found.problems["tiny-t5, multitask, 100%, seed 1"]
    assert [len(p["seeds"]) for p in found.facts["points"]] == [2, 2, 2, 1]
    assert ablate(made, tmp_path / "out", real).problems == {}

    def never(*_: Any, **__: Any) -> Any:
        raise CurateError("the loss is nan")

    with pytest.raises(CurateError, match="the loss is nan"):
        ablate(made, tmp_path / "none", Trainer(train=never, predict=real.predict, name="no"))


def test_weights_are_kept_until_test_is_read_and_longer_on_request(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    ablate(made, tmp_path / "out", as_good_as(law))
    assert not list((tmp_path / "out" / "cells").glob("*/student"))
    ablate(made, tmp_path / "kept", as_good_as(law), keep_students=True)
    assert len(list((tmp_path / "kept" / "cells").glob("*/student"))) == 8


def test_equal_steps_are_more_epochs_for_fewer_rows(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    found = ablate(made, tmp_path / "out", word_counts(Trained()), same="steps")
    table = found.table().drop_duplicates("fraction")
    assert table["epochs"].tolist() == [10, 4, 2, 1]
    assert max(table["steps"]) - min(table["steps"]) <= 0.05 * max(table["steps"])


# --------------------------------------------------------------------------- the forecast and the answer


def test_the_fit_foretells_and_is_held_against_what_came(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    fractions = (0.1, 0.25, 0.5, 0.75, 1.0)
    found = ablate(made, tmp_path / "out", as_good_as(law), fractions=fractions, seeds=(0, 1, 2))
    (curve,) = found.facts["curves"]
    assert [(t["rows"], t["from_points"]) for t in curve["trials"]] == [
        (found.facts["points"][4]["rows"], 4),
        (found.facts["points"][3]["rows"], 3),
        (found.facts["points"][4]["rows"], 3),
    ]
    doubling = curve["doubling"]
    full = found.facts["training_rows"]
    gain = law(2 * full, None) - law(full, None)
    assert doubling["gains"]["power law"]["low"] <= gain <= doubling["gains"]["power law"]["high"]
    assert doubling["gains"]["no more gain"]["value"] == 0
    # Twice the rows is so many more labels as were asked for these rows.
    assert doubling["new_labels"] == round(full * found.facts["labels_per_training_row"])
    for name in ("power law", "no more gain", "log-linear"):
        assert (
            f"{name} {found.facts['held_out']['misses'][name]:.1%}" in found.facts["forecast"][-1]
        )


def test_a_fit_that_loses_is_not_recommended(made: tuple[Path, Path], tmp_path: Path) -> None:
    jumps = {0.1: 0.6, 0.25: 0.6, 0.5: 0.6, 1.0: 0.95}
    sizes: dict[int, float] = {}

    def late(rows: int, recipe: Any) -> float:
        sizes.setdefault(rows, list(jumps.values())[min(len(sizes), 3)])
        return sizes[rows]

    found = ablate(made, tmp_path / "out", as_good_as(late), seeds=(0,))
    assert not found.facts["held_out"]["beats"]
    assert "The power law did not beat the baselines" in found.facts["forecast"][-1]
    assert "not to be relied on" in (tmp_path / "out" / "ablation.html").read_text("utf-8")


def test_the_buyer_is_told_the_fewest_labels_that_do(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    # 0.6 is the goal of the recipe, and the teacher is nearly always right.
    steps = {0.1: 0.45, 0.25: 0.7, 0.5: 0.8, 1.0: 1.0}
    full = training_rows(made)

    def known(rows: int, recipe: Any) -> float:
        return steps[min(steps, key=lambda f: abs(f * full - rows))]

    found = ablate(made, tmp_path / "b", as_good_as(known))
    point = found.facts["points"][1]
    assert (
        f"The goal (accuracy 0.6) is reached by the smallest student, tiny-t5 with objective multitask, from "
        f"{point['labels']} labels on (25%, {point['rows']} training rows)" in found.verdict
    )
    last = found.facts["points"][3]
    assert f"It takes {last['labels']} labels for tiny-t5" in found.verdict
    assert "above the teacher's accuracy" in found.verdict
    assert "The task looks distillable" in found.verdict


def test_a_lucky_size_is_not_enough_and_a_task_may_not_be_distillable(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    full = training_rows(made)

    def lucky(rows: int, recipe: Any) -> float:
        return 0.8 if rows < 0.2 * full else 0.3

    found = ablate(made, tmp_path / "b", as_good_as(lucky))
    assert "No student holds the goal (accuracy 0.6)" in found.verdict
    flat = ablate(made, tmp_path / "c", as_good_as(lambda rows, recipe: 0.5))
    assert "No student holds the goal" in flat.verdict
    assert "more labels of this kind alone do not bring it there" in flat.verdict
    assert "does not look distillable" in flat.verdict
    assert "No student stays above the teacher" in flat.verdict


def test_the_smaller_student_is_preferred(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_cells, "count_parameters", lambda folder: int(
        2e6 if "large" in (folder / "model").read_text() else 1e6
    ))  # fmt: skip
    real = as_good_as(
        lambda rows, recipe: 0.9 if rows > 100 or "large" in recipe.student.model else 0.4
    )

    def train(rows: pd.DataFrame, recipe: Any, *, output: Path, **how: Any) -> Any:
        info = real.train(rows, recipe, output=output, **how)
        (output / "model").write_text(recipe.student.model)
        return info

    models = ["./large", "./small"]
    for model in models:
        (made[0].parent / model).mkdir(exist_ok=True)
    found = ablate(
        made, tmp_path / "out", Trainer(train=train, predict=real.predict, name="two"),
        students=models, objectives=["label"], overrides=["student.model=tiny-t5"],
    )  # fmt: skip
    assert {(c["model"], c["objective"]) for c in found.facts["curves"]} == {
        ("./large", "label"), ("./small", "label"),
    }  # fmt: skip
    assert "the smallest student, ./small (1 M parameters) with objective label" in found.verdict


def test_costs_are_those_of_the_labels_in_the_run(made: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("curated", "labeled"):
        frame = pd.read_parquet(made[1] / f"{name}.parquet")
        frame.assign(cost_usd=0.002, prompt_tokens=90, completion_tokens=10).to_parquet(
            run / f"{name}.parquet"
        )
    source = open_source(made[0], run=run)
    assert source.costs.usd == pytest.approx(0.002)
    assert source.costs.tokens == pytest.approx(100)
    found = ablate((made[0], run), tmp_path / "out", as_good_as(law))
    doubling = found.facts["curves"][0]["doubling"]
    assert doubling["usd"] == pytest.approx(0.002 * doubling["new_labels"])
    assert f"they cost {doubling['usd']:,.2f} USD" in found.facts["forecast"][0]


def test_labels_of_the_teacher_as_reference_are_said_to_be(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("curated", "labeled"):
        pd.read_parquet(made[1] / f"{name}.parquet").assign(gold=None).to_parquet(
            run / f"{name}.parquet"
        )
    found = ablate((made[0], run), tmp_path / "out", as_good_as(law))
    assert found.facts["reference"] == "label"
    assert "the teacher's accuracy" not in found.verdict
    assert any("agreement with the teacher, not correctness" in note for note in found.notes)


# ------------------------------------------------------------------------------------------- statistics


def answers(rights: list[list[bool]]) -> list[list[str | None]]:
    return [["positive" if right else "negative" for right in each] for each in rights]


def judge_of(groups: list[str | None], made: tuple[Path, Path]) -> Any:
    frame = pd.DataFrame({"id": [str(i) for i in range(len(groups))], "reference": "positive"})
    frame["group"] = pd.Series(groups, dtype=object)
    return make_judge(frame, load_recipe(made[0]))


def test_intervals_hold_rows_and_seeds(made: tuple[Path, Path]) -> None:
    judge = judge_of([None] * 200, made)
    alike = [[i % 5 != 0 for i in range(200)]] * 3
    apart = [[i % 5 >= wrong for i in range(200)] for wrong in (0, 1, 2)]
    same, spread = score_points(judge, [answers(alike), answers(apart)], "accuracy")
    assert [same.mean, spread.mean] == pytest.approx([0.8, 0.8])
    assert spread.values == pytest.approx((1.0, 0.8, 0.6))
    (alone,) = score_points(judge, [answers(alike)], "accuracy")
    # Binomial: 1.96 * sqrt(0.8 * 0.2 / 200) is 5.5 points.
    assert alone.high - alone.mean == pytest.approx(0.055, abs=0.006)
    assert spread.high - spread.low > 1.5 * (alone.high - alone.low)
    grouped = judge_of([f"g{i // 10}" for i in range(200)], made)
    whole = [[(i // 10) % 5 != 0 for i in range(200)]]
    (found,) = score_points(grouped, [answers(whole)], "accuracy")
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_macro_f1_is_that_of_the_student_package(made: tuple[Path, Path]) -> None:
    import student

    frame = pd.DataFrame({"id": list("abcdef"), "group": [None] * 6})
    gold = ["positive", "negative", "positive", "positive", "negative", "positive"]
    said = ["positive", "positive", None, "positive", "negative", "maybe"]
    judge = make_judge(frame.assign(reference=gold), load_recipe(made[0]))
    (found,) = score_points(judge, [[said]], "macro_f1")
    wanted = student.macro_f1(gold, said, labels=["positive", "negative"])
    assert found.mean == pytest.approx(wanted)


def test_one_lucky_seed_shows_no_difference(made: tuple[Path, Path]) -> None:
    judge = judge_of([None] * 300, made)
    base = answers([[i % 2 == 0 for i in range(300)]] * 3)
    better = answers([[i % 2 == 0 or i % 10 == 1 for i in range(300)]] * 3)
    assert compare_paired(judge, better, base)["value"] == pytest.approx(0.1)
    assert compare_paired(judge, better, base)["p"] < 0.001
    lucky = answers([[i % 2 == 0 or i % 10 < 3 * s for i in range(300)] for s in (0, 0, 1)])
    found = compare_paired(judge, lucky, base)
    assert found["value"] > 0.03
    assert found["p"] > 0.2
    assert found["low"] < 0 < found["high"]


# ---------------------------------------------------------------------------------- the page, and refusals


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_ends_with_the_answer(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    found = ablate(made, tmp_path / "out", as_good_as(law))
    text = found.page.read_text("utf-8")
    tags = _Tags()
    tags.feed(text)
    names = [tag for tag, _ in tags.found]
    assert {"script", "link", "img", "iframe"}.isdisjoint(names)
    assert not any("src" in attributes or "href" in attributes for _, attributes in tags.found)
    drawn = [attributes.get("class") for _, attributes in tags.found]
    assert drawn.count("whisker thin") == 4
    assert drawn.count("seed") == 8
    assert "band" in drawn
    assert "goal" in drawn
    assert text.rindex("The task looks") > text.rindex("<table")
    assert "nan" not in text


def test_what_cannot_be_is_refused_before_anything_is_trained(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    trained = Trained()
    for options, words in [
        ({"fractions": (0.5, 1.5)}, "fractions are 0.5, 1.5"),
        ({"fractions": (0.5, 0.5)}, "give different parts"),
        ({"seeds": (1, 1)}, "seeds are 1, 1"),
        ({"same": "rows"}, "epochs and steps are known"),
        ({"validation": 1.0}, "validation is 1"),
        ({"jobs": 0}, "jobs is 0"),
        ({"grid": True}, "grid belongs to experiments"),
        ({"objectives": ["labels"]}, "student.objective is 'labels'"),
        ({"students": ["no-such"]}, "no-such"),
    ]:
        with pytest.raises(ValueError, match=words):
            ablate(made, tmp_path / "out", word_counts(trained), **options)
    assert trained.cells == []
    with pytest.raises(CurateError, match="holds no curated rows: `curate filter "):
        ablate((made[0], tmp_path / "absent"), tmp_path / "out", word_counts(trained))


def test_a_run_of_another_recipe_is_noted(made: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("curated.parquet", "labeled.parquet"):
        (run / name).write_bytes((made[1] / name).read_bytes())
    before = load_recipe(made[0]).resolved()
    (run / "run.json").write_text(json.dumps({"recipe": before}))
    assert list(open_source(made[0], run=run).notes) == []
    before["teacher"]["column"] = "another"
    (run / "run.json").write_text(json.dumps({"recipe": before}))
    assert "was made with another teacher" in open_source(made[0], run=run).notes[0]


def test_as_many_jobs_as_there_is_room_for(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_room, "_model_bytes", lambda *_: 300_000_000)
    monkeypatch.setattr(ablation_room, "_free_memory", lambda: 6_000_000_000)
    jobs, note = jobs_that_fit(4, ["tiny-t5"] * 3, made[0].parent)
    assert jobs == 2
    assert note == (
        "2 of 4 jobs are run side by side: a student takes about 2.7 GB, and 6.0 GB are free"
    )
    assert jobs_that_fit(2, ["tiny-t5"], made[0].parent) == (2, None)


def test_a_full_disk_is_foreseen(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(made[0])
    monkeypatch.setattr(ablation_room, "_model_bytes", lambda *_: 10**15)
    monkeypatch.setattr(ablation_cells, "check_students", lambda *_: None)  # an empty folder here
    frame = pd.DataFrame({"id": ["a"], "input": ["b"]})
    cell = Cell(name="a", facts={}, rows=frame, validation=frame, recipe=recipe)
    bench = Bench(folder=tmp_path, base=made[0].parent)
    with pytest.raises(CurateError, match=r"1 students need about 1000000\.0 GB until test"):
        ablation_cells.run_cells(bench, [cell])


# ---------------------------------------------------------------------------------------- a real student


def test_a_real_student_from_the_command_line(tmp_path: Path) -> None:
    recipe, run = labelled_run(tmp_path, rows=160)
    (tmp_path / "tiny-t5").rmdir()
    tiny_folder(tmp_path / "tiny-t5")
    arguments = ["ablate", str(recipe), "--run", str(run), "--fractions", "25,50,75,100"]
    arguments += ["--seeds", "0", "--validation", "0.3", "--quiet", "--objective", "label"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    *_, answer = result.output.strip().splitlines()
    assert "The task" in answer
    table = pd.read_csv(run / "ablation" / "cells.csv")
    assert table["parameters"].nunique() == 1
    assert table["parameters"].iloc[0] > 1000
    assert table["test_accuracy"].between(0, 1).all()
    assert curate.ablate.__module__ == "curate.ablations"
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert again.output.splitlines()[-1] == answer
    wrong = CliRunner().invoke(main, ["ablate", str(recipe), "--fractions", "ten"])
    assert wrong.exit_code == 2
    assert "write numbers, such as 10,25,50,100" in wrong.output
