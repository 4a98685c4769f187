"""The training loop: what it learns, saves, reports and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_student import (
    COMPLAINTS,
    PRAISE,
    review_rows,
    tiny_folder,
    tiny_model,
    tiny_tokenizer,
    untied_model,
)
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import student
from student.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


# Enough for eight reviews to be learnt by heart.
BY_HEART: dict[str, Any] = {
    "epochs": 12,
    "batch_size": 8,
    "learning_rate": 2e-2,
    "schedule": "constant",
}


def train(base: Path, output: Path, **changes: Any) -> student.TrainingResult:
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, "precision": "fp32"} | changes
    rows = options.pop("rows", review_rows())
    return student.train(rows, model=base, output=output, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def largest_difference(one: Path, two: Path) -> float:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_a_student_learns_its_eight_reviews_by_heart(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path / "s", **BY_HEART)
    steps = result.history["steps"]
    assert steps[0]["loss"] > 3 * steps[-1]["loss"]
    answers = student.predict(tmp_path / "s", [*PRAISE, *COMPLAINTS])
    assert answers["prediction"].tolist() == ["positive"] * 4 + ["negative"] * 4
    assert answers["confidence"].min() > 0.8
    assert (result.steps, result.epochs, result.rows) == (12, 12, 8)


@pytest.mark.parametrize("objective", ["multitask", "label"])
def test_accumulation_equals_one_large_batch(base: Path, tmp_path: Path, objective: str) -> None:
    rows = review_rows(repeat=3)
    rows[5]["weight"] = 3.0
    # Dropout is off in this model, so that only the cutting into parts differs. AdamW divides by
    # the gradient's size and so magnifies rounding: the bound on the weights is a looser one.
    common: dict[str, Any] = {
        "rows": rows,
        "objective": objective,
        "epochs": 2,
        "weight_decay": 0.1,
    }
    one = train(base, tmp_path / "one", batch_size=8, **common)
    two = train(base, tmp_path / "two", batch_size=2, gradient_accumulation=4, **common)
    assert one.steps == two.steps == 6
    for left, right in zip(one.history["steps"], two.history["steps"], strict=True):
        assert left["loss"] == pytest.approx(right["loss"], abs=1e-5)
        assert left["label_loss"] == pytest.approx(right["label_loss"], abs=1e-5)
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4
    assert largest_difference(tmp_path / "one", base) > 1e-3


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "dropping", dropout_rate=0.1)
    torch.manual_seed(1)
    train(base, tmp_path / "a", seed=5)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))  # the caller's random state is left alone
    train(base, tmp_path / "b", seed=5)
    train(base, tmp_path / "c", seed=6)
    assert largest_difference(tmp_path / "a", tmp_path / "b") == 0.0
    assert largest_difference(tmp_path / "a", tmp_path / "c") > 0.0


@pytest.mark.parametrize(
    ("kind", "tied", "has_head"),
    [("flan", False, True), ("v1.1 tied", False, True), ("v1.0", True, False)],
)
def test_a_saved_student_reloads_with_equal_logits(
    tmp_path: Path, kind: str, tied: bool, has_head: bool
) -> None:
    model = {
        "flan": untied_model,
        "v1.1 tied": lambda: tiny_model(tie_word_embeddings=False),
        "v1.0": tiny_model,
    }[kind]()
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "base", texts={})
    train(tmp_path / "base", tmp_path / "s", objective="label")
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    # What transformers 4 and converters go by: tied means scaled, untied needs a head in the file.
    assert config["tie_word_embeddings"] is tied
    assert ("lm_head.weight" in weights(tmp_path / "s")) is has_head
    ours, _ = load_checkpoint(tmp_path / "s")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "s").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s")
    ids = tokenizer(PRAISE[0], return_tensors="pt").input_ids
    decoder = torch.tensor([[0, 5, 6]])
    from_disk = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad():
        in_memory = model(input_ids=ids, decoder_input_ids=decoder).logits
        assert torch.equal(from_disk(input_ids=ids, decoder_input_ids=decoder).logits, in_memory)
        trained = ours(input_ids=ids, decoder_input_ids=decoder).logits
        assert torch.equal(theirs(input_ids=ids, decoder_input_ids=decoder).logits, trained)
    assert float((trained - in_memory).abs().max()) > 1e-3
    assert tokenizer(PRAISE[0]).input_ids == tiny_tokenizer()(PRAISE[0]).input_ids


def test_training_in_memory_and_on_disk_agree(base: Path, tmp_path: Path) -> None:
    """The weights written are the weights trained: loss after one step, recomputed from the file."""
    result = train(base, tmp_path / "s", objective="label", learning_rate=1e-3, batch_size=8)
    again = train(tmp_path / "s", tmp_path / "t", objective="label", batch_size=8)
    first, second = result.history["steps"][0]["loss"], again.history["steps"][0]["loss"]
    assert second < first - 0.01


def test_the_folder_says_how_it_was_made(base: Path, tmp_path: Path) -> None:
    rows = [*review_rows(), {"input": "No label.", "label": None, "choices": None}]
    result = train(base, tmp_path / "s", rows=rows, max_input_tokens=8, template="{{ text }}")
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert list(tmp_path.iterdir()) == [tmp_path / "s"]  # nothing temporary is left
    settings = json.loads((tmp_path / "s" / "student.json").read_text())
    assert settings["objective"] == "multitask"
    assert settings["label_prefix"] == "[label] "
    assert settings["labels"] == ["positive", "negative"]
    assert settings["max_input_tokens"] == 8
    assert settings["template"] == "{{ text }}"
    history = json.loads((tmp_path / "s" / "history.json").read_text())
    assert history["rows"] == result.rows == 8
    assert history["left_out"] == {"no label": 1}
    assert history["truncated"]["inputs"] == result.truncated["inputs"] > 0
    assert [entry["step"] for entry in history["steps"]] == [1, 2]
    assert history["epochs"] == [{"epoch": 1, "validation_loss": None, "validation_accuracy": None}]
    card = (tmp_path / "s" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "license" not in front
    assert "multitask, label and rationale, alpha 0.5" in card
    assert settings["base_model"] == "tiny"
    assert str(base) not in card  # a path on this machine helps no reader
    assert (tmp_path / "s" / "model.safetensors").stat().st_mode & 0o044  # others may read it


def test_validation_rows_come_from_train_and_never_from_test(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"split": "train"} for row in review_rows(repeat=4)]
    for row in rows:
        row["input"] = f"{row['group']}: {row['input']}"
    secret = [row | {"split": "test", "input": f"secret {row['input']}"} for row in rows]
    seen: list[Any] = []
    found = {"validation_loss": 1.0, "validation_accuracy": 0.5}

    def validate(student: Any, validation: Any, precision: str) -> dict[str, float]:
        seen.extend(validation)
        return found

    monkeypatch.setattr("student.training_loop.validate", validate)
    result = train(base, tmp_path / "s", rows=[*rows, *secret], validation_fraction=0.25)
    assert result.history["validation_rows"] == len(seen) == 8
    assert (
        len({example.group for example in seen}) == 1
    )  # a whole group, of which none is trained on
    assert result.rows == 24
    assert result.left_out == {"test split": 32}
    assert not any("secret" in example.input for example in seen)


def test_targets_longer_than_their_limit_are_cut_and_counted(base: Path, tmp_path: Path) -> None:
    """Two of eight rows have a label of one word more than fits, with the closing token."""
    rows = [row | {"label": "mixed", "choices": None} for row in review_rows()]
    for row in rows[:2]:
        row["label"] = "mixed feelings"
    result = train(base, tmp_path / "s", rows=rows, max_label_tokens=4, max_rationale_tokens=5)
    assert result.truncated == {"inputs": 0, "labels": 2, "rationales": 6}  # two have no rationale
    assert json.loads((tmp_path / "s" / "history.json").read_text())["truncated"]["labels"] == 2
    whole = train(base, tmp_path / "t", rows=rows)
    assert set(whole.truncated.values()) == {0}


def test_label_only_has_no_prefix_and_one_can_be_set(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "a", objective="label")
    train(base, tmp_path / "b", objective="label", label_prefix="review: ")
    train(base, tmp_path / "c", label_prefix="predict: ", rationale_prefix="explain: ")
    assert student.load(tmp_path / "a").formatting.label_prefix == ""
    assert student.load(tmp_path / "b").formatting.label_prefix == "review: "
    assert student.load(tmp_path / "c").formatting.rationale_prefix == "explain: "


def test_progress_comes_after_every_step(base: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    train(base, tmp_path / "s", epochs=2, on_progress=seen.append, warmup_ratio=0.5)
    assert [event["step"] for event in seen] == [1, 2, 3, 4]
    assert set(seen[0]) >= {"loss", "label_loss", "rationale_loss", "rows_per_second", "epoch"}
    assert all(event["steps"] == 4 for event in seen)
    assert seen[-1]["eta_seconds"] == 0.0
    rates = [event["learning_rate"] for event in seen]
    assert rates == pytest.approx([2.5e-4, 5e-4, 5e-4 * 2 / 3, 5e-4 / 3])
    mean = [0.5 * e["label_loss"] + 0.5 * e["rationale_loss"] for e in seen]
    assert [event["loss"] for event in seen] == pytest.approx(mean, abs=1e-6)


def test_gold_or_the_teachers_label(base: Path, tmp_path: Path) -> None:
    rows = [row | {"label": "negative"} for row in review_rows()]
    common: dict[str, Any] = {"rows": rows, "objective": "label"} | BY_HEART
    train(base, tmp_path / "teacher", **common)
    train(base, tmp_path / "gold", target="gold", **common)
    assert set(student.predict(tmp_path / "teacher", PRAISE)["prediction"]) == {"negative"}
    assert set(student.predict(tmp_path / "gold", PRAISE)["prediction"]) == {"positive"}


def test_early_stopping_keeps_the_best_epoch(base: Path, tmp_path: Path) -> None:
    rows = [row | {"split": "train"} for row in review_rows()]
    # The validation labels are turned round: the better it learns, the worse they fit.
    for row in review_rows():
        other = "negative" if row["label"] == "positive" else "positive"
        rows.append(row | {"split": "validation", "label": other})
    result = train(base, tmp_path / "s", rows=rows, early_stopping=2, **BY_HEART)
    losses = [entry["validation_loss"] for entry in result.history["epochs"]]
    assert result.epochs == result.best_epoch + 2 < 12
    assert losses[result.best_epoch - 1] == min(losses)
    assert result.validation_loss == min(losses)
    # The file holds that epoch's weights: its loss on the same rows, measured anew, is the lowest.
    best = student.load(tmp_path / "s")
    found = student.predict(best, [row["input"] for row in rows[8:]], precision="fp32")
    right = sum(a == r["label"] for a, r in zip(found["prediction"], rows[8:], strict=True))
    assert right / 8 == result.validation_accuracy


def test_validation_accuracy_reads_choices_that_differ_by_row(base: Path, tmp_path: Path) -> None:
    rows = review_rows()
    rows[0] |= {"choices": ["positive", "mixed"]}
    for row in review_rows():
        rows.append(row | {"split": "validation"})
    result = train(base, tmp_path / "s", rows=rows, **BY_HEART)
    assert result.validation_accuracy == 1.0
    loaded = student.load(tmp_path / "s")
    assert loaded.labels is None
    assert loaded.settings["choices_differ_by_row"] is True


def test_bf16_trains_and_saves_fp32(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path / "s", precision="bf16")
    assert result.precision == "bf16"
    assert {tensor.dtype for tensor in weights(tmp_path / "s").values()} == {torch.float32}
    plain = train(base, tmp_path / "t")
    assert result.loss == pytest.approx(plain.loss, rel=0.02)


def test_training_again_replaces_a_student_but_nothing_else(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "s")
    train(base, tmp_path / "s", objective="label")
    assert student.load(tmp_path / "s").settings["objective"] == "label"
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("years of work")
    with pytest.raises(student.InputError, match="holds files that no student wrote"):
        train(base, precious)
    assert (precious / "chapter.txt").read_text() == "years of work"


def test_a_loss_that_is_not_a_number_stops_and_saves_nothing(tmp_path: Path) -> None:
    model = untied_model()
    with torch.no_grad():
        model.decoder.block[0].layer[0].SelfAttention.q.weight.fill_(float("nan"))
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "broken", texts={})
    with pytest.raises(
        student.TrainingError, match=r"loss became nan .* at step 1 of epoch 1.*Try"
    ):
        train(tmp_path / "broken", tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "kl"}, "objective='kl'; it must be one of multitask, label"),
        ({"alpha": 1.5}, "alpha=1.5; it must be between 0 and 1"),
        ({"epochs": 0}, "epochs=0; it must be a whole number, at least 1"),
        ({"epochs": 1.5}, "epochs=1.5; it must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; it must be above 0"),
        ({"learning_rate": "5e-4"}, "learning_rate='5e-4'; it must be above 0"),
        ({"schedule": "poly"}, "schedule='poly'; it must be one of linear, cosine, constant"),
        ({"checkpoint_every": -5}, "checkpoint_every=-5; it must be null .* 0 for never"),
        ({"resume": "always"}, "resume='always'; it must be 'auto', true or false"),
        ({"precision": "fp16"}, "precision='fp16' .* T5 overflows"),
        ({"device": "abacus"}, "device='abacus' is not a device"),
        ({"early_stopping": 2}, "early_stopping needs validation rows"),
        ({"rows": [{"input": "a", "label": "b", "rationale": " "}]}, "no training row has one"),
        ({"rows": []}, "the training data has no rows"),
        ({"rows": [{"input": "a", "label": None}]}, "all 1 rows have an empty 'label' column"),
        ({"labels": ["yes", "no"]}, "label 'positive' .* is not among"),
        ({"labels": ["positive", "negative", "né", "nó"]}, "are the same to this student"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(student.InputError, match=message):
        train(base, tmp_path / "s", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_or_no_t5_is_named(tmp_path: Path) -> None:
    with pytest.raises(student.CheckpointError, match=r"no model folder at .*nowhere"):
        train(tmp_path / "nowhere", tmp_path / "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(student.CheckpointError, match=r"has no config.json"):
        train(tmp_path / "empty", tmp_path / "s")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(student.InputError, match=r"is a 'bert' model; a student is one of t5"):
        train(tmp_path / "bert", tmp_path / "s")
    (tmp_path / "bert" / "config.json").write_text("{")
    with pytest.raises(student.CheckpointError, match=r"cannot load a model from .*bert"):
        train(tmp_path / "bert", tmp_path / "s")


def test_a_hub_id_without_a_hub_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(student.CheckpointError, match=r"nobody/no-such-t5.*needs the network"):
        student.train(review_rows(), model="nobody/no-such-t5", output=tmp_path / "s")


def test_a_full_disk_leaves_nothing_half_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("student.checkpoints.save_file", no_space)
    with pytest.raises(student.CheckpointError, match=r"No space left on device.*Free some space"):
        train(base, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["mt5", "umt5"])
def test_other_families_train_and_reload(tmp_path: Path, family: str) -> None:
    save_checkpoint(tiny_model(family=family), tiny_tokenizer(), tmp_path / "base", texts={})
    result = train(tmp_path / "base", tmp_path / "s")
    assert result.steps == 2
    loaded, _ = load_checkpoint(tmp_path / "s")
    saved = weights(tmp_path / "s")
    assert torch.equal(loaded.state_dict()["shared.weight"], saved["shared.weight"])
    assert len(student.predict(tmp_path / "s", PRAISE)) == 4
