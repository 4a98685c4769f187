"""The training set as it leaves a run: the same rows, in every form, and nothing of others overwritten."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pandas as pd
import pytest
from click.testing import CliRunner
from hub_server import serving
from run_folder_example import change_run, make_run
from small_recipe import small_recipe, write_recipe

import curate
from curate import exports
from curate.cli import main
from curate.exceptions import CurateError
from curate.run_folder import RunFolder
from labelers import Task
from labelers.answers import read_answer

Change = Callable[[pd.DataFrame], object]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "reviews", train=60, test=24)


def change_table(run: Path, name: str, change: Change) -> None:
    frame = pd.read_parquet(run / f"{name}.parquet")
    changed = change(frame)
    (frame if changed is None else changed).to_parquet(run / f"{name}.parquet", index=False)


def kept_rows(run: Path) -> pd.DataFrame:
    frame = pd.read_parquet(run / "curated.parquet")
    return frame[frame["keep"]].reset_index(drop=True)


def plain(rows: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load(source: str, **options: Any) -> Any:
    options["cache_dir"] = str(options["cache_dir"])
    return datasets.load_dataset(source, **options)


# -------------------------------------------------------------------------------- tables and lines


@pytest.mark.parametrize(("form", "reader"), [("parquet", "parquet"), ("jsonl", "json")])
def test_what_is_loaded_are_the_kept_rows_and_the_test_rows(
    run: Path, tmp_path: Path, form: Any, reader: str
) -> None:
    done = curate.export_set(run, tmp_path / "set", format=form)
    kept, test = kept_rows(run), pd.read_parquet(run / "labeled.parquet").query("split == 'test'")
    assert done.rows == {"train": len(kept), "test": len(test)}

    files = {split: str(tmp_path / "set" / "data" / f"{split}.{form}") for split in done.rows}
    by_file = load(reader, data_files=files, cache_dir=tmp_path / "cache")
    by_card = load(str(tmp_path / "set"), cache_dir=tmp_path / "cache")
    for loaded in (by_file, by_card):
        assert set(loaded) == {"train", "test"}
        for split, expected in (("train", kept), ("test", test)):
            for name in ("id", "input", "label", "gold", "source"):
                got = [None if each is None else each for each in loaded[split][name]]
                assert (
                    got
                    == expected[name].astype(object).where(expected[name].notna(), None).tolist()
                )
            assert loaded[split]["confidence"][:5] == [
                None if each != each else each for each in expected["confidence"][:5]
            ]
    assert [list(each) for each in kept["label_probs"]] == list(by_card["train"]["label_probs"])
    assert plain(by_file["test"]) == plain(by_card["test"])


def test_slim_leaves_out_what_training_does_not_need_and_all_keeps_it(
    run: Path, tmp_path: Path
) -> None:
    slim = curate.export_set(run, tmp_path / "slim")
    full = curate.export_set(run, tmp_path / "all", columns="all")
    few, many = (pd.read_parquet(each.folder / "data/train.parquet") for each in (slim, full))
    assert list(few.columns) == [
        *("id", "input", "choices", "label", "rationale", "label_probs", "label_source"),
        *("confidence", "gold", "group", "source", "cluster", "weight", "copies"),
    ]
    assert {"prompt_key", "score_near_duplicate", "teacher", "topic"} <= {*many.columns}
    assert "cost_usd" not in many.columns, "it is null in every row"
    assert few["id"].tolist() == many["id"].tolist()


def test_repeats_and_weights_are_columns_of_tables(run: Path, tmp_path: Path) -> None:
    change_table(run, "curated", lambda frame: frame.assign(copies=2, weight=0.5))
    done = curate.export_set(run, tmp_path / "set")
    rows = pd.read_parquet(done.folder / "data/train.parquet")
    assert rows["id"].is_unique
    assert set(rows["copies"]) == {2}
    assert set(rows["weight"]) == {0.5}
    test = pd.read_parquet(done.folder / "data/test.parquet")
    assert set(test["copies"]) == {1}


def test_validation_rows_are_a_split_of_their_own(run: Path, tmp_path: Path) -> None:
    def hold_out(frame: pd.DataFrame) -> None:
        frame.loc[frame.index[frame["keep"]][:4], "split"] = "validation"

    change_table(run, "curated", hold_out)
    done = curate.export_set(run, tmp_path / "set")
    assert list(done.rows) == ["train", "validation", "test"]
    assert done.rows["validation"] == 4
    loaded = load(str(done.folder), cache_dir=tmp_path / "cache")
    assert not {*loaded["validation"]["id"]} & {*loaded["train"]["id"]}


def test_columns_that_only_test_rows_fill_load_by_the_card(run: Path, tmp_path: Path) -> None:
    change_table(run, "curated", lambda frame: frame.assign(gold=None))
    done = curate.export_set(run, tmp_path / "set", format="jsonl")
    loaded = load(str(done.folder), cache_dir=tmp_path / "cache")
    assert set(loaded["train"]["gold"]) == {None}
    assert set(loaded["test"]["gold"]) == {"positive", "negative"}


def test_several_references_stay_a_list(run: Path, tmp_path: Path) -> None:
    for name in ("curated", "labeled"):
        change_table(run, name, lambda f: f.assign(gold=[[gold, "mixed"] for gold in f["gold"]]))
    done = curate.export_set(run, tmp_path / "set", format="jsonl")
    first = lines(done.folder / "data" / "test.jsonl")[0]
    assert first["gold"][1] == "mixed"
    talk = curate.export_set(run, tmp_path / "chat", format="chat")
    assert (
        lines(talk.folder / "data" / "test.jsonl")[0]["messages"][2]["content"] == first["gold"][0]
    )


def test_folders_of_this_machine_do_not_leave_it(run: Path, tmp_path: Path) -> None:
    change_table(run, "curated", lambda f: f.assign(source="/home/jane/secret/reviews.csv"))
    change_run(run, lambda c: c["recipe"]["data"].update(train="/home/jane/secret/reviews.csv"))
    change_run(run, lambda c: c.update(notes=["/home/jane/secret/review.csv has 3 verdicts"]))
    done = curate.export_set(run, tmp_path / "set", columns="all")
    assert set(pd.read_parquet(done.folder / "data/train.parquet")["source"]) == {"reviews.csv"}
    card = done.card.read_text(encoding="utf-8")
    assert "jane" not in card
    assert "review.csv has 3 verdicts" in card
    assert "`data.train: only the name, without its folder`" in card


# --------------------------------------------------------------------------------------------- chat


def test_a_conversation_is_instruction_input_and_label(run: Path, tmp_path: Path) -> None:
    done = curate.export_set(run, tmp_path / "chat", format="chat")
    kept = kept_rows(run)
    talks = lines(done.folder / "data" / "train.jsonl")
    assert [set(talk) for talk in talks] == [{"messages"}] * len(kept)
    for talk, row in zip(talks, kept.to_dict("records"), strict=True):
        assert talk["messages"] == [
            {
                "role": "system",
                "content": "Decide whether a product review snippet is positive or negative.",
            },
            {"role": "user", "content": row["input"]},
            {"role": "assistant", "content": row["label"]},
        ]
    loaded = load(str(done.folder), cache_dir=tmp_path / "cache")
    assert plain(loaded["train"]) == talks


def test_the_rationale_comes_before_the_label_as_teachers_say_it(run: Path, tmp_path: Path) -> None:
    done = curate.export_set(run, tmp_path / "chat", format="chat", answer="rationale")
    row = kept_rows(run).iloc[0]
    said = lines(done.folder / "data" / "train.jsonl")[0]["messages"][2]["content"]
    assert said == f"{row['rationale']} So the answer is {row['label']}."
    task = Task(instruction="Decide.", labels=("positive", "negative"))
    reading = read_answer(said, task, task.labels)
    assert (reading.label, reading.rationale) == (row["label"], row["rationale"])
    # What people say of a test row needs no rationale, and never contradicts one.
    test = pd.read_parquet(run / "labeled.parquet").query("split == 'test'")
    wrong = [n for n, (a, b) in enumerate(zip(test["label"], test["gold"], strict=True)) if a != b]
    answers = [t["messages"][2]["content"] for t in lines(done.folder / "data" / "test.jsonl")]
    assert [answers[n] for n in wrong] == [test["gold"].iloc[n] for n in wrong]
    assert wrong


def test_conversations_are_repeated_and_lost_weights_are_told(run: Path, tmp_path: Path) -> None:
    first, second = kept_rows(run)["id"][:2]

    def spread(frame: pd.DataFrame) -> None:
        frame.loc[frame["id"] == first, "copies"] = 3
        frame.loc[frame["id"] == second, "weight"] = 2.0
        frame.loc[frame["id"] == second, "rationale"] = None

    change_table(run, "curated", spread)
    done = curate.export_set(run, tmp_path / "chat", format="chat", answer="rationale")
    assert done.rows["train"] == len(kept_rows(run)) + 2
    counts = Counter(t["messages"][1]["content"] for t in lines(done.folder / "data/train.jsonl"))
    assert counts[kept_rows(run)["input"][0]] >= 3
    assert any("carry no weights" in each for each in done.warnings)
    assert any("the label alone: 1 of" in each for each in done.warnings)
    assert all(each in done.card.read_text(encoding="utf-8") for each in done.warnings)


def test_without_human_labels_test_conversations_are_the_teachers_and_say_so(
    run: Path, tmp_path: Path
) -> None:
    change_table(run, "labeled", lambda frame: frame.assign(gold=None))
    done = curate.export_set(run, tmp_path / "chat", format="chat")
    test = pd.read_parquet(run / "labeled.parquet").query("split == 'test'")
    said = [t["messages"][2]["content"] for t in lines(done.folder / "data" / "test.jsonl")]
    assert said == test["label"].dropna().tolist()
    assert "the teacher's, for people labelled none, labels" in done.card.read_text("utf-8")


@pytest.mark.parametrize(
    ("form", "said"), [("jsonl", "those are in `gold`"), ("chat", "assistant")]
)
def test_a_student_of_people_is_told_whose_labels_these_are(
    run: Path, tmp_path: Path, form: Any, said: str
) -> None:
    change_run(run, lambda c: c["recipe"]["student"].update(target="gold"))
    (warning,) = curate.export_set(run, tmp_path / "set", format=form).warnings
    assert warning.startswith("The recipe's student learns from people's labels")
    assert said in warning


def test_options_that_no_input_shows_are_told(run: Path, tmp_path: Path) -> None:
    change_run(run, lambda c: c["recipe"]["task"].update(labels=None, choices="options"))
    done = curate.export_set(run, tmp_path / "chat", format="chat")
    assert any("does not show their options" in each for each in done.warnings)
    assert "multiple-choice" in done.card.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------- what is overwritten


def test_by_default_it_lies_in_the_run_folder_and_is_replaced(run: Path) -> None:
    first = curate.export_set(run)
    assert first.folder == run / "export" / "parquet"
    before = first.card.read_bytes()
    assert curate.export_set(run).card.read_bytes() == before
    assert sorted(path.name for path in (run / "export").iterdir()) == ["parquet"]


def test_a_folder_of_others_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("eighty pages", encoding="utf-8")
    for force in (False, True):
        with pytest.raises(CurateError, match=r"holds thesis\.txt.*--output"):
            curate.export_set(run, tmp_path / "mine", force=force)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(CurateError, match="is a file"):
        curate.export_set(run, tmp_path / "mine" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    assert curate.export_set(run, tmp_path / "empty").card.exists()


def test_a_licence_filled_in_by_hand_stays_unless_forced(run: Path, tmp_path: Path) -> None:
    done = curate.export_set(run, tmp_path / "set")
    text = done.card.read_text(encoding="utf-8").replace("# license: fill in", "license: mit #")
    done.card.write_text(text, encoding="utf-8")
    with pytest.raises(CurateError, match=r"README\.md was changed since.*--force"):
        curate.export_set(run, tmp_path / "set")
    assert "license: mit" in done.card.read_text(encoding="utf-8")
    curate.export_set(run, tmp_path / "set", force=True)
    assert "license: mit" not in done.card.read_text(encoding="utf-8")

    (done.folder / "notes.txt").write_text("what I found", encoding="utf-8")
    with pytest.raises(CurateError, match=r"notes\.txt, which no export wrote"):
        curate.export_set(run, tmp_path / "set", force=True)


def test_a_write_that_fails_leaves_what_was_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = curate.export_set(run, tmp_path / "set")
    before = {p.name: p.read_bytes() for p in done.folder.rglob("*") if p.is_file()}

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "dataset_card", full)
    with pytest.raises(CurateError, match="No space left on device"):
        curate.export_set(run, tmp_path / "set")
    assert {p.name: p.read_bytes() for p in done.folder.rglob("*") if p.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "set"]


# ------------------------------------------------------------------------------------------ bad input


def test_bad_input_is_told_with_what_to_do(run: Path, tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("format is 'csv': known are parquet, jsonl, chat, paper", {"format": "csv"}),
        ("columns is 'none'", {"columns": "none"}),
        ("--columns all goes with", {"columns": "all", "format": "chat"}),
        ("--answer rationale goes with", {"answer": "rationale"}),
        ("--dataset cqa goes with", {"dataset": "cqa"}),
        ("write OWNER/NAME", {"push_to_hub": "reviews"}),
        ("use --format parquet", {"push_to_hub": "jane/reviews", "format": "paper"}),
        ("leave --recipe out", {"recipe": tmp_path / "recipe.yaml"}),
    ]
    for message, options in wrong:
        with pytest.raises(CurateError, match=message):
            curate.export_set(run, tmp_path / "set", **options)
    with pytest.raises(CurateError, match=r"is no run folder.*curate run"):
        curate.export_set(tmp_path / "nowhere")
    assert not (tmp_path / "set").exists()


def test_files_that_do_not_belong_together_are_refused(run: Path, tmp_path: Path) -> None:
    change_table(run, "labeled", lambda frame: frame.assign(label="positive"))
    with pytest.raises(CurateError, match="labelled anew since; run `curate filter` again"):
        curate.export_set(run, tmp_path / "set")
    (run / "curated.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CurateError, match=r"curated\.parquet cannot be read"):
        curate.export_set(run, tmp_path / "set")
    (run / "curated.parquet").unlink()
    with pytest.raises(CurateError, match=r"curated\.parquet is not there: `curate filter`"):
        curate.export_set(run, tmp_path / "set")


def test_a_run_at_work_is_left_alone(run: Path, tmp_path: Path) -> None:
    with RunFolder(run).locked(), pytest.raises(CurateError, match="in use by another process"):
        curate.export_set(run, tmp_path / "set")


def test_rows_that_were_labelled_after_the_filters_are_missed(run: Path, tmp_path: Path) -> None:
    change_table(run, "curated", lambda frame: frame.iloc[1:])
    with pytest.raises(CurateError, match=r"row 'r0000' .* run `curate filter` again"):
        curate.export_set(run, tmp_path / "set")


def test_a_label_that_a_person_gave_is_no_sign_of_old_files(run: Path, tmp_path: Path) -> None:
    row = kept_rows(run)["id"][0]

    def relabel(frame: pd.DataFrame) -> None:
        mine = frame["id"] == row
        other = {"positive": "negative", "negative": "positive"}
        frame.loc[mine, "label"] = frame.loc[mine, "label"].map(other)
        frame.loc[mine, "label_source"] = "review"
        frame["review"] = frame["review"].astype(object)
        frame.loc[mine, "review"] = "relabel"

    change_table(run, "curated", relabel)
    done = curate.export_set(run, tmp_path / "set")
    assert "Verdicts by people: 1 relabel" in done.card.read_text(encoding="utf-8")


def test_a_run_of_which_nothing_is_kept_says_why(run: Path, tmp_path: Path) -> None:
    change_table(run, "curated", lambda frame: frame.assign(keep=False))
    with pytest.raises(CurateError, match=r"no train row .* was kept .*dropped"):
        curate.export_set(run, tmp_path / "set")


def test_bytes_cannot_be_lines_and_can_be_tables(run: Path, tmp_path: Path) -> None:
    change_table(run, "curated", lambda frame: frame.assign(photo=b"\x89PNG"))
    with pytest.raises(CurateError, match=r"'photo' holds bytes.*--format parquet"):
        curate.export_set(run, tmp_path / "lines", format="jsonl", columns="all")
    done = curate.export_set(run, tmp_path / "set", columns="all")
    loaded = load(str(done.folder), cache_dir=tmp_path / "cache")
    assert loaded["train"][0]["photo"] == b"\x89PNG"


def test_a_run_without_rationales_cannot_be_asked_for_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=40, test=20, rationales=False)
    with pytest.raises(CurateError, match="no kept train row has a rationale"):
        curate.export_set(run, tmp_path / "chat", format="chat", answer="rationale")


def test_a_run_that_was_only_filtered_needs_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-t5").mkdir()
    recipe = write_recipe(tmp_path, small_recipe())
    done = curate.filter(recipe, output=tmp_path / "run")
    with pytest.raises(CurateError, match=r"run\.json is not there.*--recipe"):
        curate.export_set(done)
    written = curate.export_set(done, recipe=recipe)
    card = written.card.read_text(encoding="utf-8")
    assert "No student was trained and judged on this set in this run." in card
    assert written.rows["train"] == int(done.table("curated")["keep"].sum())
    other = write_recipe(tmp_path, small_recipe(filters=["exact_duplicate"]))
    with pytest.raises(CurateError, match=r"not those that .* was filtered by"):
        curate.export_set(done, recipe=other, format="jsonl")


# -------------------------------------------------------------------------------------------- the hub


class StandInHub:
    """What would have been sent to the Hub."""

    def __init__(self) -> None:
        self.there: dict[str, bool] = {}  # name to whether it is private
        self.pushed: list[tuple[str, dict[str, Any], bool]] = []
        self.cards: list[str] = []
        self.error: Exception | None = None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    stand_in = StandInHub()

    def push(self: Any, name: str, *, private: bool, **_: object) -> None:
        if stand_in.error is not None:
            raise stand_in.error
        stand_in.pushed.append((name, {s: list(rows) for s, rows in self.items()}, private))

    def upload(self: Any, *, path_or_fileobj: bytes, path_in_repo: str, **_: object) -> None:
        assert path_in_repo == "README.md"
        stand_in.cards.append(path_or_fileobj.decode())

    class Info:
        def __init__(self, name: str) -> None:
            self.private = stand_in.there[name]

    api = huggingface_hub.HfApi
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsNobodysKey123")
    monkeypatch.setattr(datasets.DatasetDict, "push_to_hub", push)
    monkeypatch.setattr(api, "repo_exists", lambda self, name, **_: name in stand_in.there)
    monkeypatch.setattr(api, "repo_info", lambda self, name, **_: Info(name))
    monkeypatch.setattr(api, "upload_file", upload)
    return stand_in


def test_it_is_uploaded_as_private_with_its_card(
    run: Path, tmp_path: Path, hub: StandInHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    done = curate.export_set(run, tmp_path / "set", push_to_hub="jane/reviews")
    ((name, splits, private),) = hub.pushed
    assert (name, private) == ("jane/reviews", True)
    assert [row["id"] for row in splits["train"]] == kept_rows(run)["id"].tolist()
    assert set(splits) == {"train", "test"}
    assert hub.cards == [done.card.read_text(encoding="utf-8")]
    assert str(done.url).endswith("/datasets/jane/reviews")
    said = caplog.text + done.card.read_text(encoding="utf-8")
    assert "hf_thisIsNobodysKey123" not in said


def test_what_the_hub_holds_is_replaced_only_when_forced(
    run: Path, tmp_path: Path, hub: StandInHub
) -> None:
    hub.there["jane/reviews"] = True
    with pytest.raises(CurateError, match=r"has a dataset jane/reviews already.*--force"):
        curate.export_set(run, tmp_path / "set", push_to_hub="jane/reviews")
    assert hub.pushed == []
    curate.export_set(run, tmp_path / "set", push_to_hub="jane/reviews", force=True)
    assert len(hub.pushed) == 1
    hub.there["jane/open"] = False
    with pytest.raises(CurateError, match="is public, and a private one is wanted"):
        curate.export_set(run, tmp_path / "set", push_to_hub="jane/open", force=True)
    curate.export_set(run, tmp_path / "set", push_to_hub="jane/open", force=True, private=False)
    assert [private for _, _, private in hub.pushed] == [True, False]


def test_an_upload_that_fails_names_what_was_written_and_no_key(
    run: Path, tmp_path: Path, hub: StandInHub
) -> None:
    hub.error = ConnectionError("401: Bearer hf_thisIsNobodysKey123 was not taken")
    result = CliRunner().invoke(
        main,
        ["export", "set", str(run), "--output", str(tmp_path / "set"), "--push-to-hub", "jane/new"],
    )
    assert result.exit_code == 2
    assert "jane/new was not uploaded (ConnectionError: 401" in result.stderr
    assert str(tmp_path / "set") in result.stderr
    assert "hf_this" not in result.output + result.stderr
    assert (tmp_path / "set" / "data" / "train.parquet").exists()


_THRICE = """
import sys
import curate

for force in (False, False, True):
    try:
        print(curate.export_set(*sys.argv[1:3], push_to_hub="jane/reviews", force=force).url)
    except curate.CurateError as error:
        print("refused:", error)
"""


@pytest.mark.integration
def test_the_libraries_themselves_create_and_fill_a_private_dataset(
    run: Path, tmp_path: Path
) -> None:
    with serving() as hub:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_thisIsNobodysKey123",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", _THRICE, str(run), str(tmp_path / "set")],
            env={**os.environ, **settings}, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    url = f"{hub.url}/datasets/jane/reviews"
    first, second, third = done.stdout.splitlines()
    assert (first, third) == (url, url)
    assert second.startswith("refused: the Hub has a dataset jane/reviews already")
    assert "hf_thisIsNobodysKey123" not in done.stdout + done.stderr
    assert "Bearer hf_thisIsNobodysKey123" in hub.keys
    assert hub.private == {"jane/reviews": True}
    files = hub.files["jane/reviews"]
    assert files["README.md"] == (tmp_path / "set" / "README.md").read_bytes()
    for split in ("train", "test"):
        (path,) = (path for path in files if path.startswith(f"data/{split}"))
        sent = pd.read_parquet(io.BytesIO(files[path]))
        there = pd.read_parquet(tmp_path / "set" / "data" / f"{split}.parquet")
        assert sent["id"].tolist() == there["id"].tolist()
        assert list(sent.columns) == list(there.columns)


# --------------------------------------------------------------------------------------- command line


def test_the_command_says_what_was_written(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["export", "set", str(run), "--format", "chat", "--output", str(tmp_path / "chat")]
    )
    assert result.exit_code == 0, result.output
    assert f"train: {len(kept_rows(run))} rows\ntest: 24 rows\n" in result.output
    assert f"card:         {tmp_path / 'chat' / 'README.md'}" in result.output


def test_every_option_is_explained() -> None:
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text(encoding="utf-8")
    group: Any = main.commands["export"]
    for parameter in group.commands["set"].params:
        for option in parameter.opts:
            assert option == "run" or f"| `{option}" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "is no run folder"),
        (["nowhere", "--public"], "--push-to-hub uploads: give both"),
        (["nowhere", "--format", "csv"], "'csv' is not one of"),
    ],
)
def test_the_command_refuses_with_exit_code_two(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["export", "set", *arguments])
    assert result.exit_code == 2
    assert said in result.output + result.stderr
