"""All that filters can do is reached from a recipe, and what cannot work is refused before it is paid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scripted_teacher import Body, ScriptedTeacher, question, scores
from small_recipe import (
    embed_by_words,
    review_rows,
    small_recipe,
    write_csv,
    write_jsonl,
    write_recipe,
)
from tiny_student import tiny_folder

import curate
import curate.labeling
import filters
import labelers
from curate import stages
from curate.cli import main
from curate.exceptions import CurateError, RecipeError
from curate.out_of_fold import deal
from curate.recipe import parse_recipe
from curate.recipe_filters import filters_of
from labelers.store import Store

QUIZ = [
    ("What boils water?", ["kettle", "lamp", "tent"], "kettle"),
    ("What lights a desk?", ["lamp", "strap", "radio"], "lamp"),
    ("What holds a watch?", ["strap", "kettle", "tent"], "strap"),
    ("What plays the news?", ["radio", "lamp", "kettle"], "radio"),
    ("What shelters a hiker?", ["tent", "radio", "strap"], "tent"),
]


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_folder(tmp_path_factory.mktemp("models") / "tiny-t5")
    torch.set_num_threads(before)


class Words:
    """Stands for `filters.embed`; remembers which model encoded how many texts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, texts: Any, model: Any = None, **how: Any) -> Any:
        self.asked.append((Path(str(model)).name, len(texts)))
        return embed_by_words(texts, model, **how)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    spy = Words()
    monkeypatch.setattr(filters, "embed", spy)
    return spy


@pytest.fixture
def at(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny T5 and two folders that stand for embedders."""
    (tmp_path / "tiny-t5").symlink_to(tiny_t5)
    for name in ("words", "other-words"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def curated(folder: Path, recipe: dict[str, Any], **how: Any) -> tuple[curate.Run, dict[str, Any]]:
    done = curate.filter(write_recipe(folder, recipe), output=folder / "run", **how)
    return done, dict(done.stages["curated"])


def quiz_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    rows = [
        {"question": f"{text} ({n})", "options": options, "said": f"So the answer is {label}."}
        for n in range(8)
        for text, options, label in QUIZ
    ]
    write_jsonl(folder / "quiz.jsonl", rows)
    task = {"instruction": "Answer.", "template": "{{ question }}", "choices": "options"}
    recipe = small_recipe(data={"train": "quiz.jsonl", "test_fraction": 0.1}, **changes)
    return recipe | {"task": task, "data": {"train": "quiz.jsonl", "test_fraction": 0.1}}


# ------------------------------------------------------------------------------------- embeddings


def test_label_noise_has_its_embeddings_however_many_rows_there_are(
    at: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_MAP_ROWS", 5)
    done, info = curated(at, small_recipe(embedder="words", filters=["exact_duplicate"]))
    assert words.asked == []
    done, info = curated(at, small_recipe(embedder="words", filters=["label_noise"]))
    rows = int((done.table("labeled")["split"] == "train").sum())
    assert words.asked == [("words", rows)]
    assert "map_x" in done.table("curated")
    assert not [w for w in info["warnings"] if "no embedder" in w]


def test_without_an_embedder_a_warning_says_what_labels_are_judged_by(
    at: Path, words: Words
) -> None:
    _, info = curated(at, small_recipe(filters=["label_noise"]))
    assert words.asked == []
    (warning,) = [w for w in info["warnings"] if w.startswith("label_noise: the recipe has no")]
    assert "judged by the words of the inputs" in warning
    assert "embedder: all-minilm-l6-v2" in warning


@pytest.mark.parametrize(
    ("named", "asked"), [({}, "words"), ({"encoder": "other-words"}, "other-words")]
)
def test_an_encoder_is_a_name_like_the_embedder_and_by_default_the_embedder_itself(
    named: dict[str, str], asked: str, at: Path, words: Words
) -> None:
    noise = {"label_noise": {"evidence": "text", "minimum": 0.0} | named}
    done, _ = curated(at, quiz_recipe(at, embedder="words", filters=[noise]))
    assert done.table("curated")["score_label_noise"].notna().all()
    assert asked in {name for name, _ in words.asked}
    assert not ({"words", "other-words"} - {asked, "words"}) & {name for name, _ in words.asked}


def test_a_run_names_no_path_of_the_machine_and_its_policy_is_the_recipes(
    at: Path, words: Words
) -> None:
    noise = {"label_noise": {"evidence": "text", "encoder": "other-words"}}
    policies = []
    for name in ("here", "there"):
        folder = at / name
        folder.mkdir()
        for model in ("words", "other-words", "tiny-t5"):
            (folder / model).symlink_to(at / model)
        done, info = curated(folder, quiz_recipe(folder, embedder="words", filters=[noise]))
        policies.append(info["policy"])
        assert str(at) not in (done.folder / "stages.json").read_text(encoding="utf-8")
        marks = json.loads((done.folder / "stages.json").read_text(encoding="utf-8"))
        policies.append(marks["curated"]["fingerprint"])
    assert policies[:2] == policies[2:]


# --------------------------------------------------------------------------------- filled in


def test_filters_learn_from_the_recipe_what_the_user_left_out() -> None:
    shown = {"input": "Review: Fine.", "label": "positive", "rationale": "It praises the thing."}
    plain = ["echo", "copied", "unknown_label", "other_choice"]
    recipe = small_recipe(task={"demonstrations": [shown]}, filters=plain)
    echo, copied, unknown, other = filters_of(parse_recipe(recipe))
    assert echo.instruction == recipe["task"]["instruction"]
    assert copied.demonstrations == ("It praises the thing.",)
    assert unknown.labels == other.labels == ("positive", "negative")
    given = [
        {"echo": {"instruction": ""}},
        {"copied": {"demonstrations": ["Another."]}},
        {"unknown_label": {"labels": ["good"]}},
    ]
    echo, copied, unknown = filters_of(parse_recipe(recipe | {"filters": given}))
    assert (echo.instruction, copied.demonstrations, unknown.labels) == (
        "", ("Another.",), ("good",),
    )  # fmt: skip


def test_a_rationale_that_repeats_the_instruction_is_an_echo(at: Path) -> None:
    rows = review_rows()
    told = "Decide whether a product review is positive or negative."
    rows[0]["said"] = f"{told} So the answer is {rows[0]['sentiment']}."
    path = write_recipe(at, small_recipe(filters=["echo"], data={"test_fraction": 0.1}), rows=rows)
    frame = curate.filter(path, output=at / "run").table("curated")
    train = frame[frame["input"] == f"Review: {rows[0]['text']}"]
    if len(train):  # the split may have put it into test
        assert train["reason"].tolist() == ["echo"]
    assert (frame["reason"] == "echo").sum() == len(train)


# --------------------------------------------------------------------- refused before it is paid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"filters": [{"label_noise": {"probabilities": "student_probs"}}]},
            r"filters\.0 \(label_noise\) names the column 'student_probs', which the data lacks: add "
            r"`scores: \{out_of_fold: \{\}\}` to the recipe",
        ),
        (
            {"filters": ["judge"]},
            r"filters\.0 \(judge\) names the column 'judge', which the data lacks: add `scores: \{judge",
        ),
        ({"filters": [{"perplexity": {"column": "ppl"}}]}, r"the column 'ppl', which the data lacks; there"),
        (
            {"filters": [{"contamination": {"against": ["tets"]}}]},
            r"against 'tets', and there is no such set: there are test; name others under data\.references",
        ),
        (
            {"filters": [{"semantic_contamination": {"against": ["validation"]}}], "embedder": "words"},
            r"against 'validation', and there is no such set",
        ),
        ({"data": {"references": {"held": "none.csv"}}}, r"none\.csv"),
        (
            {"filters": [{"ensemble": {"fitted": "none.json"}}]},
            r"filters\.0 \(ensemble\): .*none\.json: no fitted score can be read",
        ),
        ({"filters": [{"label_noise": {"encoder": "all-minilm"}}]}, r"'all-minilm' does not name an"),
        ({"scores": {"perplexity": {"model": "./none"}}}, r"model names '\./none', .* not there"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_the_teacher_is_asked(
    changes: dict[str, Any], message: str, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(labelers, "label_recorded", never)
    with pytest.raises(CurateError, match=message):
        curated(at, small_recipe(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"filters": ["exact_duplicate", "ensemble"]},
            "none of them has one: put it after label_noise, confidence",
        ),
        (
            {"filters": [{"ensemble": {"scores": ["confidence"]}}, "confidence"]},
            "ensemble names 'confidence'; of the filters before it those with a score to combine are none",
        ),
        (
            {"scores": {"judge": {}}},
            "scores.judge needs somebody to ask, and teacher.engine is 'recorded'",
        ),
        (
            {"scores": {"perplexity": {"model": "lm", "fields": ["gold"]}}},
            "scores.perplexity.fields names 'gold', which filters never see",
        ),
        ({"scores": {"juge": {}}}, "unknown key 'scores.juge'"),
        ({"data": {"references": {"test": "a.csv"}}}, "data.references names a set 'test'"),
    ],
)
def test_sections_that_do_not_agree_are_found_in_the_recipe(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(small_recipe(**changes))
    assert message in str(caught.value)


def test_scores_write_over_no_column_of_the_data(at: Path) -> None:
    rows = [row | {"judge": 1.0} for row in review_rows()]
    recipe = small_recipe(filters=["judge"])
    done = curate.filter(write_recipe(at, recipe, rows=rows), output=at / "run")
    assert set(done.table("curated")["score_judge"]) == {1.0}, (
        "text in a CSV file, and a number here"
    )
    strange = [row | {"judge": "high"} for row in rows]
    with pytest.raises(
        CurateError, match=r"judge reads numbers from the column 'judge', and .* 'high'"
    ):
        curate.filter(write_recipe(at, recipe, rows=strange), output=at / "run")
    recipe["scores"] = {"judge": {"teacher": JUDGE}}
    with pytest.raises(
        CurateError, match="scores would write the column 'judge', which the data has"
    ):
        curate.filter(write_recipe(at, recipe, rows=rows), output=at / "run")


def test_free_text_has_no_label_set_to_check_against() -> None:
    recipe = small_recipe(filters=["unknown_label", "margin"], scores={"out_of_fold": {}})
    recipe["task"].pop("labels")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe)
    found = str(caught.value)
    for words in ("unknown_label needs a set", "margin needs label prob", "out_of_fold needs a"):
        assert words in found


def test_choices_of_the_rows_own_need_an_encoder_to_be_compared_with_texts(at: Path) -> None:
    for each in ({"label_noise": {"evidence": "text"}}, "unsupported"):
        with pytest.raises(RecipeError, match=r"there is (no encoder|none): name one"):
            parse_recipe(quiz_recipe(at, filters=[each]))


def test_select_names_no_columns(at: Path) -> None:
    done, info = curated(at, small_recipe(filters=[{"select": {"rows": 7, "by": "random"}}]))
    assert info["kept"] == 7 == int(done.table("curated")["keep"].sum())


# ------------------------------------------------------------------------------------ other sets


def test_rows_are_held_against_any_set_that_the_recipe_names(at: Path) -> None:
    leaked = review_rows()[6]["text"]
    write_csv(at / "benchmark.csv", [{"text": leaked}, {"text": "Nobody wrote this one."}])
    recipe = small_recipe(
        data={"references": {"benchmark": "benchmark.csv"}, "test_fraction": 0.05},
        filters=[{"contamination": {"against": ["benchmark"]}}],
    )
    done, info = curated(at, recipe)
    gone = done.table("curated").query("reason == 'contamination'")
    assert set(gone["input"]) == {f"Review: {leaked}", f"Review: {leaked} I bought it in spring."}
    assert set(done.table("decisions")["related_set"].dropna()) == {"benchmark"}
    write_csv(at / "twice.csv", [{"id": "a", "text": "One."}, {"id": "a", "text": "Two."}])
    twice = recipe | {"data": recipe["data"] | {"references": {"benchmark": "twice.csv"}}}
    with pytest.raises(
        CurateError, match=r"data\.references\.benchmark: the id 'a' stands in twice"
    ):
        curated(at, twice)
    again, _ = curated(at, recipe)
    assert again.stages["curated"]["reused"]
    write_csv(at / "benchmark.csv", [{"text": "Nobody wrote this one."}])
    _, info = curated(at, recipe)
    assert not info["reused"], "a set whose file has changed is read again"
    assert info["dropped"] == {}


# --------------------------------------------------------------------- scores that need a model


def out_of_fold(**changes: Any) -> dict[str, Any]:
    noise = {"label_noise": {"probabilities": "student_probs", "share": 0.2}}
    return small_recipe(filters=[noise], scores={"out_of_fold": {"folds": 3}}, **changes)


def test_students_judge_only_rows_that_they_were_not_trained_on(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[set[str]] = []

    def spy(rows: pd.DataFrame, recipe: Any, **how: Any) -> Any:
        learnt.append(set(rows["input"]))
        assert rows["gold"].isna().all()
        assert (recipe.student.epochs, recipe.student.objective) == (2, "label")
        return stages_train(rows, recipe, **how)

    stages_train = stages.train_student
    monkeypatch.setattr(stages, "train_student", spy)
    done, info = curated(at, out_of_fold(student={"epochs": 4, "batch_size": 32}))
    frame = done.table("curated")
    assert len(learnt) == 3
    folds = [set(frame["input"]) - each for each in learnt]
    assert set.union(*folds) == set(frame["input"])
    assert sum(map(len, folds)) == len(frame)
    for group, rows in frame.groupby("group"):
        assert len({i for i, fold in enumerate(folds) for t in rows["input"] if t in fold}) == 1, (
            group
        )
    told = info["scores"]["student_probs"]
    assert (told["folds"], told["epochs"], told["rows"]) == (3, 2, len(frame))
    for probs, choices in zip(frame["student_probs"], frame["choices"], strict=True):
        assert len(probs) == len(choices)
        assert sum(probs) == pytest.approx(1, abs=1e-5)
    assert info["dropped"] == {"label_noise": round(0.2 * len(frame))} or info["dropped"]
    # Other filters train nothing anew, and neither does another run folder.
    changed = out_of_fold(student={"epochs": 4, "batch_size": 32})
    changed["filters"] = ["exact_duplicate", *changed["filters"]]
    _, again = curated(at, changed)
    assert not again["reused"]
    assert len(learnt) == 3
    curated(at, out_of_fold(student={"epochs": 4, "batch_size": 16}))
    assert len(learnt) == 6, "another student is other students"


def test_students_cut_short_go_on_with_the_next_fold(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def killed(rows: pd.DataFrame, recipe: Any, **how: Any) -> Any:
        trained.append(len(rows))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return stages_train(rows, recipe, **how)

    stages_train = stages.train_student
    monkeypatch.setattr(stages, "train_student", killed)
    with pytest.raises(KeyboardInterrupt):
        curated(at, out_of_fold())
    curated(at, out_of_fold())
    assert len(trained) == 4, "two folds were kept"


def test_folds_keep_groups_and_equal_texts_together() -> None:
    rows = pd.DataFrame(
        {
            "input": ["A b.", "a  b.", "C", "D", "E", "F"],
            "group": ["one", None, "g", "g", None, None],
        }
    )
    folds = deal(rows, 2, seed=1)
    assert folds[0] == folds[1]
    assert folds[2] == folds[3]
    assert sorted(set(folds)) == [0, 1]
    assert deal(rows.head(2), 3, seed=0) == [0, 0]


JUDGE = {"engine": "openai", "model": "judge-1", "base_url": "http://127.0.0.1:9/v1"}


def verdicts(body: Body) -> Body:
    """Doubts whatever calls a review with "broke" in it positive."""
    shown = question(body)
    wrong = "broke" in shown and "Answer given: positive" in shown
    return scores({"yes": 0.1, "no": 0.9} if wrong else {"yes": 0.8, "no": 0.2})


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ScriptedTeacher:
    teacher = ScriptedTeacher(verdicts, name="judge-1")
    monkeypatch.setattr(curate.labeling, "build_teacher", lambda *_, **__: teacher)
    return teacher


def judged(**changes: Any) -> dict[str, Any]:
    return small_recipe(
        filters=["judge"],
        scores={"judge": {"teacher": JUDGE} | changes},
        data={"test_fraction": 0.1},
    )


def test_a_judge_is_asked_about_labels_once_and_through_the_store(
    at: Path, judge: ScriptedTeacher
) -> None:
    rows = review_rows()
    for row in rows:
        if "broke" in row["text"]:
            row["said"] = "A fine thing. So the answer is positive."
    path = write_recipe(at, judged(), rows=rows)
    done = curate.filter(path, output=at / "run")
    frame, info = done.table("curated"), done.stages["curated"]
    broke = frame["input"].str.contains("broke")
    assert frame.loc[broke, "reason"].eq("judge").all()
    assert frame.loc[~broke, "keep"].all()
    assert set(frame["judge"].round(3)) <= {0.1, 0.8}
    told = info["scores"]["judge"]
    assert (told["judged"], told["asked"], told["teacher"]) == (len(frame), len(frame), "judge-1")
    assert told["prompt_tokens"] == 50 * len(frame)
    shown = question(judge.seen[0])
    for part in ("Task: Decide whether", "Input: Review: ", "Answer given: ", "Reason given: "):
        assert part in shown
    assert "sentiment" not in shown, "gold is not shown"
    with Store(at / ".curate") as store:
        assert len(store) == len(frame)
    shutil.rmtree(at / "run")
    again = curate.filter(path, output=at / "run").stages["curated"]["scores"]["judge"]
    assert (again["asked"], again["from_store"]) == (0, len(frame))
    assert len(judge.seen) == len(frame)


def test_a_judges_budget_holds_and_the_rest_is_judged_when_it_is_raised(
    at: Path, judge: ScriptedTeacher
) -> None:
    tight = judged(teacher=JUDGE | {"budget": {"tokens": 1500}})
    done, info = curated(at, tight)
    told = info["scores"]["judge"]
    assert 0 < told["judged"] < told["rows"]
    assert told["errors"] == {"budget": told["rows"] - told["judged"]}
    assert done.table("curated")["judge"].isna().sum() == told["errors"]["budget"]
    _, info = curated(at, judged(teacher=JUDGE | {"budget": {"tokens": 1_000_000}}))
    assert info["scores"]["judge"]["judged"] == told["rows"]
    assert info["scores"]["judge"]["from_store"] == told["judged"]


def tiny_lm(folder: Path) -> Path:
    from tiny_student import tiny_tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
        GPT2LMHeadModel(GPT2Config(vocab_size=192, **size)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_perplexities_are_those_of_the_formula_and_are_computed_once(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import curate.model_scores
    from curate.perplexities import perplexities

    tiny_lm(at / "lm")
    recipe = small_recipe(
        filters=[{"perplexity": {"maximum": 150.0}}], scores={"perplexity": {"model": "lm"}}
    )
    done, info = curated(at, recipe)
    frame = done.table("curated")
    network = AutoModelForCausalLM.from_pretrained(at / "lm").eval()
    tokenizer = AutoTokenizer.from_pretrained(at / "lm")
    for text, found in list(zip(frame["input"], frame["perplexity"], strict=True))[:3]:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:64]])
        with torch.inference_mode():
            loss = network(input_ids=ids, labels=ids).loss
        assert found == pytest.approx(float(torch.exp(loss)), rel=1e-3)
    assert (frame["reason"] == "perplexity").equals(frame["perplexity"] > 150)
    assert info["scores"]["perplexity"]["rows"] == len(frame)
    assert perplexities(["", "x"], str(at / "lm"))[0] is None

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(curate.model_scores, "perplexities", never)
    recipe["filters"] = [{"perplexity": {"maximum": 100.0}}]
    curated(at, recipe)
    with pytest.raises(CurateError, match=r"words' cannot be loaded .*name the folder or the Hub"):
        perplexities(["x"], str(at / "words"))


def test_the_ensembles_file_lies_beside_the_recipe(at: Path) -> None:
    table = pd.DataFrame(
        {
            "id": [f"r{n:02d}" for n in range(40)],
            "score_too_short": np.linspace(1, 30, 40),
        }
    )
    right = [n % 4 > 0 if n > 10 else False for n in range(40)]
    filters.fit_score(table, ["score_too_short"], right).save(at / "fitted.json")
    recipe = small_recipe(filters=["too_short", {"ensemble": {"fitted": "fitted.json"}}])
    done, info = curated(at, recipe)
    assert done.table("curated")["score_ensemble"].between(0, 1).all()
    before = info["policy"]
    filters.fit_score(table, ["score_too_short"], [not one for one in right]).save(
        at / "fitted.json"
    )
    _, info = curated(at, recipe)
    assert not info["reused"], "the file's content counts, not its name alone"
    assert info["policy"] == before
    with pytest.raises(
        CurateError, match="names the column 'score_too_short', which the data lacks"
    ):
        curated(at, recipe | {"filters": [{"ensemble": {"fitted": "fitted.json"}}]})


# --------------------------------------------------------------------- which rows to label next


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [*arguments, "--quiet"])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_next_chooses_from_a_pool_what_is_least_like_what_is_labelled(
    at: Path, words: Words
) -> None:
    rows = [row for row in review_rows() if "radio" not in row["text"].lower()]
    recipe = small_recipe(embedder="words", data={"test_fraction": 0.1})
    path = write_recipe(at, recipe, rows=rows)
    call("label", str(path))
    done = pd.read_parquet("runs/small/labeled.parquet")
    known = done.loc[done["split"] == "train", "input"].iloc[0].removeprefix("Review: ")
    pool = [
        {"text": known, "shop": "north"},
        {"text": "This radio hums.", "shop": "east"},
        {"text": "A radio without a dial.", "shop": "east"},
        {"text": "this RADIO hums.", "shop": "west"},
        {"text": "The kettle is fine, I think.", "shop": "north"},
    ]
    write_csv(at / "pool.csv", pool)
    said = call("next", "recipe.yaml", "--rows", "2", "--pool", "pool.csv", "--output", "next.csv")
    assert "2 of 3 rows without a label, from" in said
    assert "left out: 1 in train already, 1 twice" in said
    chosen = pd.read_csv("next.csv")
    assert list(chosen.columns) == ["text", "shop"], "as the pool has them"
    assert set(chosen["text"]) & {"This radio hums.", "A radio without a dial."}
    recipe["data"]["pool"] = "next.csv"
    added = curate.label(write_recipe(at, recipe | {"name": "second"}, rows=rows))
    assert "2 of 2 pool rows were added" in added.stages["examples"]["notes"][0]


def test_next_without_a_pool_chooses_among_the_rows_that_were_not_asked(
    at: Path, words: Words
) -> None:
    path = write_recipe(at, small_recipe(embedder="words", data={"test_fraction": 0.1}))
    call("label", str(path))
    said = call("next", "recipe.yaml", "--rows", "5", code=2)
    assert "none is left to be asked: name a file of rows without labels with --pool" in said
    table = pd.read_parquet("runs/small/labeled.parquet")
    train = table.index[table["split"] == "train"]
    table.loc[train[:6], "label"] = None
    table.loc[train[:5], "error"] = "budget: spent"
    table.loc[train[5], "error"] = "refused: no"
    table.to_parquet("runs/small/labeled.parquet")
    said = call("next", "recipe.yaml", "--rows", "3")
    assert "3 of 5 rows without a label" in said
    assert "1 with an error that would come again" in said
    lines = [json.loads(one) for one in Path("runs/small/next.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert {line["id"] for line in lines} < set(table.loc[train[:5], "id"])
    assert "gold" not in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs/none", "--rows", "3"), "runs/none"),
        (("recipe.yaml", "--rows", "3"), "labeled.parquet is not there"),
        (("recipe.yaml", "--rows", "3", "--output", "next.txt"), "ends in '.txt'; name it"),
        (("recipe.yaml", "--rows", "0"), "0 is not in the range x>=1"),
    ],
)
def test_what_next_cannot_do_is_said(arguments: tuple[str, ...], message: str, at: Path) -> None:
    write_recipe(at, small_recipe(embedder="words"))
    assert message in call("next", *arguments, code=2)


def test_next_needs_an_embedder(at: Path) -> None:
    write_recipe(at, small_recipe())
    assert "name one, such as `embedder:" in call("next", "recipe.yaml", "--rows", "3", code=2)


# ------------------------------------------------------------------------- odd rows, by the command


@pytest.mark.parametrize("kind", ["one class", "emoji and right-to-left", "all equal but in case"])
def test_every_filter_at_once_makes_something_of_odd_rows(
    kind: str, at: Path, words: Words
) -> None:
    rows: list[dict[str, Any]] = [
        row | {"judge": "0.9", "perplexity": "12"} for row in review_rows()
    ]
    for n, row in enumerate(rows):
        if kind == "one class":
            row["said"] = "So the answer is positive."
        elif kind == "emoji and right-to-left":
            row["text"] = f"{'😀' * (n % 7)} الكاميرا رائعة {n} \u202eabc\u202c שלום"
        else:
            row["text"] = "the strap broke." if n % 2 else "The STRAP broke!"
            row["review_id"] = "one"
    rows[0]["judge"] = ""
    write_csv(at / "test.csv", [rows[1] | {"text": "Nobody wrote this one.", "review_id": "two"}])
    chosen = [name for name in filters.FILTERS if name not in ("rebalance", "select")]
    recipe = small_recipe(
        embedder="words",
        filters=[*chosen, "rebalance", {"select": {"rows": 20}}],
        data={"gold": None, "test": "test.csv"},
    )
    path = write_recipe(at, recipe, rows=rows)
    call("filter", str(path))
    frame = pd.read_parquet("runs/small/curated.parquet")
    assert (frame["keep"] == frame["reason"].isna()).all()
    for name in filters.FILTERS:
        assert f"score_{name}" in frame.columns
    row = frame.iloc[0]
    assert row["id"] in call("filter", str(path), "--explain", row["id"])
    call("filter", str(path), "--threshold", "confidence.minimum=0.1")
