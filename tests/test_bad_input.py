"""Bad input at the command line: a clear message, exit code 2, and nothing written half."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import teacher_server
import torch
from click.testing import CliRunner
from small_recipe import embed_by_words, review_rows, small_recipe, write_jsonl, write_recipe
from tiny_student import tiny_folder, tiny_tokenizer, untied_model
from transformers import ByT5Tokenizer

import filters
import labelers.store
import student.checkpoints
from curate.cli import main

ROWS = review_rows()


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_folder(tmp_path_factory.mktemp("models") / "tiny-t5")
    torch.set_num_threads(before)


@pytest.fixture
def at(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny-t5").symlink_to(tiny_t5)
    monkeypatch.chdir(tmp_path)
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MY_KEY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def call(at: Path, *more: str, verb: str = "run") -> Any:
    command = [verb, "recipe.yaml", "--output", "run", "--quiet", *more]
    return CliRunner().invoke(main, command)


def refusal(at: Path, *more: str, verb: str = "run") -> str:
    """What a command says that ends as bad input should."""
    result = call(at, *more, verb=verb)
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    nothing_half(at)
    return result.stderr.removeprefix("error: ").rstrip("\n")


def nothing_half(at: Path) -> None:
    """Every file of the run is whole, and nothing says that the run is complete."""
    for path in at.rglob("*"):
        assert not path.name.endswith((".part", ".partial", ".tmp")), path
        assert not path.name.startswith((".student", ".run", ".examples")), path
        if path.suffix == ".parquet":
            pd.read_parquet(path)
    assert not (at / "run" / "run.json").exists()
    assert not (at / "run" / "report.html").exists()


def with_data(at: Path, name: str, content: bytes, **changes: Any) -> None:
    """The recipe over a file of these bytes in place of the reviews."""
    data = {"train": name, "gold": None, "group": None}
    write_recipe(at, small_recipe(**({"data": data} | changes)))
    (at / name).write_bytes(content)


# ------------------------------------------------------------------------------------------- files


def test_missing_recipe(at: Path) -> None:
    assert refusal(at).startswith(
        "the recipe recipe.yaml cannot be read: No such file or directory; "
    )


def test_missing_file(at: Path) -> None:
    write_recipe(at, small_recipe(data={"train": "reveiws.csv"}))
    message = refusal(at)
    assert f"the data '{at / 'reveiws.csv'}' is neither a file nor a folder" in message
    assert f"did you mean {at / 'reviews.csv'}?" in message


def test_empty_file(at: Path) -> None:
    with_data(at, "empty.csv", b"")
    assert refusal(at) == f"{at / 'empty.csv'} is empty: it holds no rows"


def test_broken_jsonl_line(at: Path) -> None:
    with_data(at, "r.jsonl", b'{"text": "It hums.", "said": "positive"}\n{"text": "It leaks."\n')
    message = refusal(at)
    assert message.startswith(f"{at / 'r.jsonl'}:2: this line is not JSON (Expecting ',' delimiter")
    assert message.endswith('\'{"text": "It leaks."\'')


def test_wrong_encoding(at: Path) -> None:
    with_data(at, "r.csv", "text,said\nSchöne Größe,positive\n".encode("latin-1"))
    message = refusal(at)
    assert message.startswith(f"{at / 'r.csv'}:2: this is not utf-8: byte 0xf6 at offset 13")
    assert "data.encoding" in message


def test_duplicate_ids(at: Path) -> None:
    lines = b"id,text,said\n7,It hums.,positive\n7,It leaks.,negative\n8,It glows.,positive\n"
    with_data(
        at,
        "r.csv",
        lines,
        data={"train": "r.csv", "gold": None, "group": None, "test_fraction": 0.5},
    )
    assert refusal(at).startswith("the id '7' stands 2 times: r.csv, row 1; r.csv, row 2. Ids must")


def test_null_text(at: Path) -> None:
    with_data(
        at, "r.jsonl", b'{"text": "It hums.", "said": "positive"}\n{"text": null, "said": "x"}\n'
    )
    assert refusal(at).startswith(
        "r.jsonl, row 2: the column 'text', which task.template reads, is null"
    )


def test_text_of_a_megabyte(at: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"text": "The strap broke. " * 62_500}]
    write_recipe(at, small_recipe(), rows=rows)
    message = refusal(at)
    assert message.startswith(
        "reviews.csv, row 61: the input has 1,062,508 characters; data.max_charac"
    )


@pytest.mark.integration
def test_text_of_a_megabyte_that_is_allowed_goes_all_the_way(at: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"text": "The strap broke. " * 62_500}]
    write_recipe(at, small_recipe(data={"max_characters": 2_000_000}), rows=rows)
    result = call(at)
    assert result.exit_code == 0, result.output


# ------------------------------------------------------------------------------- recipe against data


def test_unknown_column_in_template(at: Path) -> None:
    write_recipe(at, small_recipe(task={"template": "Review: {{ txt }}"}))
    message = refusal(at)
    assert (
        "task.template 'Review: {{ txt }}' names the column 'txt', which reviews.csv lacks"
        in message
    )
    assert "did you mean 'text'?" in message


def test_unknown_label_in_gold(at: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"text": "It is a lamp.", "sentiment": "neutral"}]
    write_recipe(at, small_recipe(), rows=rows)
    message = refusal(at)
    assert message.startswith(
        "reviews.csv, row 61: data.gold ('sentiment') is 'neutral', which is not one"
    )
    assert "task.labels" in message


def test_reference_outside_the_label_set(at: Path) -> None:
    rows = [*ROWS[:40], ROWS[40] | {"sentiment": '["negative", "neutral"]'}, *ROWS[41:]]
    write_recipe(at, small_recipe(), rows=rows)
    message = refusal(at)
    assert message.startswith(
        "reviews.csv, row 41: data.gold ('sentiment') has the reference 'neutral', which is not one of "
        "['positive', 'negative']"
    )
    nothing_half(at)


def test_unknown_key_in_recipe(at: Path) -> None:
    write_recipe(at, small_recipe(student={"epoch": 2}))
    assert "unknown key 'student.epoch' (value 2): did you mean 'epochs'?" in refusal(at)
    assert not (at / "run").exists()


def test_train_rows_that_are_test_rows(at: Path) -> None:
    write_recipe(at, small_recipe(data={"test": "held_out.jsonl", "group": None}))
    write_jsonl(at / "held_out.jsonl", ROWS[:3])
    assert refusal(at).startswith("3 train rows are also in test, first ")


# ------------------------------------------------------------------------------------------ teachers


def asking(at: Path, base_url: str, **teacher: Any) -> None:
    """The recipe with a server for a teacher, and two attempts at each request."""
    recipe = small_recipe(filters=[])
    settings = {"engine": "openai", "model": "teacher-1", "base_url": base_url, "attempts": 1}
    recipe["teacher"] = settings | teacher
    write_recipe(at, recipe)


def test_teacher_unreachable(at: Path) -> None:
    with socket.socket() as taken:  # so that nobody comes to listen there meanwhile
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        asking(at, url)
        message = refusal(at)
    assert message.startswith(f"no server answers at {url} (")
    assert message.endswith("start it, or correct teacher.base_url")
    assert (at / "run" / "examples.parquet").exists()


def test_address_that_is_none(at: Path) -> None:
    asking(at, "127.0.0.1:8000")
    assert "teacher.base_url is '127.0.0.1:8000': it must begin with http://" in refusal(at)


def test_key_missing(at: Path) -> None:
    asking(at, "http://127.0.0.1:9/v1", api_key_env="MY_KEY")
    message = refusal(at)
    assert message.startswith(
        "the environment variable MY_KEY holds no key for http://127.0.0.1:9/v1"
    )
    assert "export MY_KEY=..." in message


def test_pasted_key(at: Path) -> None:
    asking(at, "http://127.0.0.1:9/v1", api_key_env="sk-proj-4dB2")
    message = refusal(at)
    assert "teacher.api_key_env" in message
    assert "sk-proj" not in message


@pytest.fixture(scope="module")
def guarded() -> Iterator[teacher_server.Server]:
    with teacher_server.running(api_key="open-sesame") as server:
        yield server


@pytest.mark.integration
def test_key_refused(
    at: Path, guarded: teacher_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "open-barley")
    asking(at, guarded.base_url, api_key_env="MY_KEY")
    message = refusal(at)
    assert message.startswith(f"{guarded.base_url} refuses the key in MY_KEY (HTTP 401: ")
    assert "open-barley" not in message


@pytest.mark.integration
def test_model_unknown_to_the_server(
    at: Path, guarded: teacher_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "open-sesame")
    asking(at, guarded.base_url, api_key_env="MY_KEY", model="teacher-2")
    message = refusal(at)
    assert (
        "serves no model named 'teacher-2'; it serves: teacher-1. Correct teacher.model" in message
    )


@pytest.mark.integration
def test_a_server_that_asks_for_nothing_else_labels_the_rows(
    at: Path, guarded: teacher_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "open-sesame")
    asking(at, guarded.base_url, api_key_env="MY_KEY")
    result = call(at, verb="label")
    assert result.exit_code == 0, result.output
    labeled = pd.read_parquet(at / "run" / "labeled.parquet")
    assert labeled["label"].notna().all()
    assert labeled["rationale"].notna().eq(labeled["split"] == "train").all()
    asked = len(guarded.control()["received"])
    assert call(at, "--set", "seed=0", verb="label").exit_code == 0
    assert len(guarded.control()["received"]) == asked
    kept = (at / ".curate").rglob("*.jsonl")
    assert all(b"open-sesame" not in path.read_bytes() for path in kept)


def test_model_file_that_is_none(at: Path) -> None:
    recipe = small_recipe()
    recipe["teacher"] = {"engine": "llama.cpp", "model": "teacher.gguf"}
    write_recipe(at, recipe)
    assert "There is no file or folder 'teacher.gguf'" in refusal(at)
    (at / "teacher.gguf").write_bytes(b"PK\x03\x04")
    assert "is not a GGUF file" in refusal(at)


# ------------------------------------------------------------------------------------------ students


def unpaid(at: Path, **section: Any) -> str:
    """What `curate run` says of a section `student` before the teacher is asked."""
    write_recipe(at, small_recipe(student={"objective": "label", **section}))
    message = refusal(at)
    assert not (at / "run" / "labeled.parquet").exists()
    return message


def model_folder(at: Path, name: str, **config: Any) -> str:
    (at / name).mkdir()
    (at / name / "config.json").write_text(json.dumps(config))
    return name


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1, which is read when the Hub's client is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_student_folder_that_is_none(at: Path) -> None:
    message = unpaid(at, model=model_folder(at, "broken"))
    assert message.startswith(f"cannot load a model from '{at / 'broken'}': Unrecognized model")
    assert message.endswith(
        "Give a folder with config.json, weights and tokenizer, or a Hub id such as "
        "google/flan-t5-small (which needs the network the first time)"
    )


def test_student_folder_that_is_not_there(at: Path) -> None:
    message = unpaid(at, model="no-such-folder")
    assert message.startswith("'no-such-folder' does not name a student. Accepted are a built-in")
    assert "(flan-t5-small)" in message


def test_student_of_another_kind(at: Path) -> None:
    message = unpaid(at, model=model_folder(at, "a-bert", model_type="bert"))
    assert message == (
        f"{at / 'a-bert'} is a 'bert' model; a student is one of t5, mt5, umt5, t5gemma, for example "
        "google/flan-t5-small"
    )


def test_student_folder_without_weights(at: Path, tiny_t5: Path) -> None:
    (at / "empty").mkdir()
    for path in tiny_t5.iterdir():
        if path.suffix != ".safetensors":
            (at / "empty" / path.name).symlink_to(path)
    message = unpaid(at, model="empty")
    assert message == (
        f"{at / 'empty'} holds no weights (model.safetensors); copy them there, or give another folder"
    )


@pytest.mark.usefixtures("offline")
def test_student_that_is_not_on_the_hub(at: Path) -> None:
    message = unpaid(at, model="nosuch/model")
    assert message.startswith("cannot load a model from 'nosuch/model': ")
    assert "or a Hub id such as google/flan-t5-small (which needs the network" in message


def test_white_box_teacher_with_another_tokenizer(at: Path) -> None:
    of_bytes = untied_model(vocab_size=384)
    student.checkpoints.save_checkpoint(of_bytes, ByT5Tokenizer(), at / "byt5", texts={})
    message = unpaid(at, objective="white_box", white_box={"teacher": "byt5"})
    assert message.startswith(
        "the white-box teacher and the student do not share a tokenizer: they have 384 and "
    )
    assert message.endswith("or make the student from the teacher with student.shrink")


def test_white_box_teacher_that_writes_rationales(at: Path, tiny_t5: Path) -> None:
    shutil.copytree(tiny_t5, at / "reasons")
    (at / "reasons" / "student.json").write_text(
        '{"objective": "rationale_then_label", "rationale_in": "target"}'
    )
    message = unpaid(at, objective="white_box", white_box={"teacher": "reasons"})
    assert "was trained with objective='rationale_then_label'" in message
    assert "Train a teacher with objective='label' or 'multitask'" in message


@pytest.mark.usefixtures("offline")
def test_students_of_an_ablation_are_looked_at_before_the_first_is_trained(at: Path) -> None:
    write_recipe(at, small_recipe(student={"objective": "label"}))
    assert call(at, verb="filter").exit_code == 0
    rows = ("--run", "run", "--fractions", "100", "--validation", "0.6")
    models = ("--student", "tiny-t5", "--student", "nosuch/model")
    message = refusal(at, *rows, *models, verb="ablate")
    assert message.startswith("cannot load a model from 'nosuch/model': ")
    assert not list(at.rglob("cell.json"))


def test_labels_alone_need_no_student(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And need not wait for torch."""
    monkeypatch.setattr("curate.stage_order.check_students", no_room)
    write_recipe(at, small_recipe(student={"model": "broken"}))
    model_folder(at, "broken")
    assert call(at, verb="label").exit_code == 0


def test_loss_that_is_no_number(at: Path) -> None:
    model = untied_model()
    with torch.no_grad():
        model.shared.weight.fill_(float("nan"))
    student.checkpoints.save_checkpoint(model, tiny_tokenizer(), at / "nan-t5", texts={})
    write_recipe(at, small_recipe(student={"model": "nan-t5", "objective": "label"}))
    message = refusal(at)
    assert message.startswith(
        "the loss became nan (gradient norm nan) at step 1 of epoch 1, with a"
    )
    assert "nothing was saved. Try a lower learning_rate" in message
    assert not (at / "run" / "student").exists()


def test_filters_that_leave_no_training_row(at: Path) -> None:
    write_recipe(at, small_recipe(filters=[{"too_short": {"minimum": 1000}}]))
    assert refusal(at) == (
        "no training row is left of 44: too_short dropped 44. Loosen the filters or see to the teacher's "
        "labels, and run the same command again: what was labelled is kept"
    )


@pytest.mark.parametrize(
    ("said", "why"), [("I do not know.", "unread: "), ("", "missing: ")], ids=["unread", "null"]
)
def test_no_label_at_all(at: Path, said: str, why: str) -> None:
    write_recipe(at, small_recipe(), rows=[row | {"said": said} for row in ROWS])
    message = refusal(at)
    assert message.startswith(f"no row of 60 was labelled; the first error is: {why}")
    assert "`curate label RECIPE --dry-run` shows" in message
    assert not (at / "run" / "labeled.parquet").exists()


def test_no_gold_label_to_train_on(at: Path) -> None:
    recipe = small_recipe(student={"objective": "label", "target": "gold"})
    write_recipe(at, recipe, rows=[row | {"sentiment": ""} for row in ROWS])
    assert refusal(at) == (
        "student.target is 'gold', and no train row has a gold label: name its column in data.gold, or "
        "learn the teacher's labels with --set student.target=label"
    )
    assert not (at / "run" / "labeled.parquet").exists()


def test_early_stopping_without_rows_to_stop_by(at: Path) -> None:
    message = unpaid(at, early_stopping=1)
    assert message.startswith(
        "student.early_stopping is 1, and there are no rows to validate on: set "
    )
    assert "student.validation_fraction, for example to 0.1" in message


def test_targets_longer_than_the_limit_are_counted(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the labels are "mixed feelings", which takes more than four tokens."""
    rows = [
        {key: value.replace("negative", "mixed feelings") for key, value in row.items()}
        for row in ROWS
    ]
    task = {"labels": ["positive", "mixed feelings"]}
    options = {"max_label_tokens": 4, "max_rationale_tokens": 3}
    write_recipe(at, small_recipe(task=task, student=options), rows=rows)
    result = call(at)
    assert result.exit_code == 0, result.output
    facts = json.loads((at / "run" / "run.json").read_text())
    trained = facts["stages"]["student"]
    assert (
        0 < trained["truncated"]["labels"] < trained["truncated"]["rationales"] == trained["rows"]
    )
    page = unescape((at / "run" / "report.html").read_text())
    for what in ("label", "rationale"):
        said = (
            f"The {what}s of {trained['truncated'][what + 's']} of {trained['rows']} rows that 'student' "
            f"was trained on were longer than student.max_{what}_tokens and were cut"
        )
        assert any(note.startswith(said) for note in facts["notes"])
        assert said in page
    # The same command again reuses every stage, and does not wait for the student to be looked at.
    monkeypatch.setattr("curate.stage_order.check_students", no_room)
    assert call(at).exit_code == 0


# ----------------------------------------------------------------------------------- disks and folders


def no_room(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


Patch = Callable[[pytest.MonkeyPatch], None]


def full_for_table(name: str) -> Patch:
    """The disk is full when this table is written, after its first bytes."""
    write = pd.DataFrame.to_parquet

    def to_parquet(frame: pd.DataFrame, path: Path, **how: Any) -> Any:
        if name not in path.name:
            return write(frame, path, **how)
        path.write_bytes(b"PAR1")
        return no_room()

    return lambda patch: patch.setattr(pd.DataFrame, "to_parquet", to_parquet)


def full_for_text(name: str) -> Patch:
    """The same for a text file."""
    write = pathlib.Path.write_text

    def write_text(path: Path, text: str, *rest: Any, **how: Any) -> Any:
        if name not in path.name:
            return write(path, text, *rest, **how)
        path.write_bytes(text[:10].encode())
        return no_room()

    return lambda patch: patch.setattr(pathlib.Path, "write_text", write_text)


FULL: dict[str, tuple[Patch, str]] = {
    "examples": (
        full_for_table("examples"),
        "the disk that holds run is full: make room and run the same",
    ),
    "stages": (full_for_text("stages.json"), "the disk that holds run is full"),
    "labeled": (full_for_table("labeled"), "the disk that holds run is full"),
    "decisions": (full_for_table("decisions"), "the disk that holds run is full"),
    "curated": (full_for_table("curated"), "the disk that holds run is full"),
    "student": (
        lambda patch: patch.setattr(student.checkpoints, "save_file", no_room),
        "cannot write the student to run/student: [Errno 28] No space left on device",
    ),
    "predictions": (full_for_table("predictions"), "the disk that holds run is full"),
    "run": (full_for_text("run.json"), "the disk that holds run is full"),
}


@pytest.mark.parametrize("stage", FULL)
def test_disk_full(stage: str, at: Path) -> None:
    write_recipe(at, small_recipe())
    patch, words = FULL[stage]
    with pytest.MonkeyPatch.context() as context:
        patch(context)
        assert refusal(at).startswith(words)
    # Room was made: the same command goes on and ends well.
    assert call(at).exit_code == 0
    assert (at / "run" / "report.html").exists()


def test_disk_full_for_the_report(at: Path) -> None:
    write_recipe(at, small_recipe())
    with pytest.MonkeyPatch.context() as context:
        full_for_text("report.html")(context)
        result = call(at)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.startswith("error: ")
    assert "No space left" in result.stderr or "full" in result.stderr
    assert not (at / "run" / "report.html").exists()
    assert not list((at / "run").glob(".*.part"))
    result = CliRunner().invoke(main, ["report", "run"])
    assert result.exit_code == 0
    assert result.stdout == "report: run/report.html\n"


@pytest.mark.integration
def test_disk_full_for_the_store(
    at: Path, guarded: teacher_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "open-sesame")
    asking(at, guarded.base_url, api_key_env="MY_KEY")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(labelers.store.os, "write", no_room)
        message = refusal(at, verb="label")
    assert message.startswith(
        f"the store {at / '.curate'} cannot be written: No space left on device"
    )
    assert call(at, verb="label").exit_code == 0


def test_disk_full_for_the_embeddings(at: Path) -> None:
    class Encoder:
        name = "words"

        def __call__(self, texts: list[str]) -> Any:
            return embed_by_words(texts)

    embed = filters.embed
    (at / "words").mkdir()
    write_recipe(at, small_recipe(embedder="words", filters=["semantic_duplicate"]))
    with pytest.MonkeyPatch.context() as context:
        context.setattr(
            filters, "embed", lambda texts, model, **how: embed(texts, Encoder(), **how)
        )
        context.setattr("filters.embedding_cache.os.fsync", no_room)
        message = refusal(at, verb="filter")
    assert message.startswith("embedding cache ")
    assert "No space left on device" in message


def test_disk_full_for_init_and_predict(at: Path) -> None:
    write_recipe(at, small_recipe())
    assert call(at, verb="train").exit_code == 0
    with pytest.MonkeyPatch.context() as context:
        full_for_text("mine.yaml")(context)
        result = CliRunner().invoke(main, ["init", "mine.yaml"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: mine.yaml cannot be written: No space left on device\n"
    with pytest.MonkeyPatch.context() as context:
        full_for_table("answers")(context)
        command = ["predict", "--model", "run/student", "--output", "answers.parquet", "It hums."]
        result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: answers.parquet cannot be written: No space left on device" in result.stderr
    assert {p.name for p in at.iterdir()} == {
        "tiny-t5", "recipe.yaml", "reviews.csv", "run", ".curate",
    } - ({".curate"} - {p.name for p in at.iterdir()})  # fmt: skip


def test_cache_not_writable(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (at / "file").write_text("no folder")
    monkeypatch.setenv("CURATE_CACHE", str(at / "file" / "cache"))
    recipe = small_recipe(data={"train": "vader-products", "group": "review_id"})
    write_recipe(at, recipe)
    message = refusal(at)
    assert message.startswith(
        f"The cache folder {at / 'file' / 'cache'} cannot be written (Not a directory)"
    )
    assert "CURATE_CACHE" in message


@pytest.mark.integration
def test_store_not_writable(
    at: Path, guarded: teacher_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "open-sesame")
    asking(at, guarded.base_url, api_key_env="MY_KEY")
    (at / "file").write_text("no folder")
    message = refusal(at, "--store", "file/store")
    assert message.startswith("the store file/store cannot be opened: Not a directory")


def test_run_folder_not_writable(at: Path) -> None:
    write_recipe(at, small_recipe())
    (at / "file").write_text("no folder")
    result = CliRunner().invoke(main, ["run", "recipe.yaml", "--output", "file/run"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: the run folder file/run cannot be written to (Not a directory)" in result.stderr


@pytest.mark.integration
def test_run_folder_in_use_by_another_process(at: Path) -> None:
    write_recipe(at, small_recipe())
    hold = (
        "import sys; from curate.run_folder import RunFolder\n"
        "with RunFolder('run').locked():\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=at
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        message = refusal(at)
        holder.communicate()
    assert message.startswith(
        "the run folder run is in use by another process: wait for it, or name"
    )
    assert [path.name for path in (at / "run").iterdir()] == [".lock"]
    assert call(at, verb="label").exit_code == 0


@pytest.mark.integration
def test_the_command_itself_ends_so(at: Path) -> None:
    """Once as a user's shell sees it: the installed script, its exit code and its two streams."""
    write_recipe(at, small_recipe(student={"epoch": 2}))
    script = Path(sys.executable).with_name("curate")
    done = subprocess.run(
        [script, "run", "recipe.yaml"], capture_output=True, text=True, cwd=at, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: recipe.yaml:26: unknown key 'student.epoch' (value 2): did you mean 'epochs'?"
    ]
