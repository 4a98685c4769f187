"""Every objective through `train` and `predict`: what it learns, saves, accumulates and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
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

import student
from student.checkpoints import save_checkpoint

TEXTS = [*PRAISE, *COMPLAINTS]
GOLD = ["positive"] * 4 + ["negative"] * 4
BY_HEART: dict[str, Any] = {
    "epochs": 14,
    "batch_size": 8,
    "learning_rate": 2e-2,
    "schedule": "constant",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deeper T5 that knows the eight reviews by heart."""
    place = tmp_path_factory.mktemp("teachers")
    save_checkpoint(untied_model(seed=9, num_layers=3), tiny_tokenizer(), place / "big", texts={})
    train(place / "big", place / "teacher", objective="label", label_prefix="mood: ", **BY_HEART)
    return place / "teacher"


def soft_rows(repeat: int = 1) -> list[dict[str, Any]]:
    """The reviews with a soft label; two of them without one."""
    rows = review_rows(repeat)
    for i, row in enumerate(rows):
        sure = [0.9, 0.1] if row["label"] == "positive" else [0.2, 0.8]
        row["group"] = row["input"]
        row["label_probs"] = None if i % 8 in (2, 5) else sure
    return rows


def train(base: Path, output: Path, **changes: Any) -> student.TrainingResult:
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, "precision": "fp32"} | changes
    rows = options.pop("rows", soft_rows())
    return student.train(rows, model=base, output=output, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def settings_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "student.json").read_text())
    return found


def ways(teacher: Path, folder: Path) -> dict[str, dict[str, Any]]:
    seen = {"teacher": teacher}
    return {
        "shared encoder": {"objective": "multitask", "shared_encoder": True},
        "rationale then label": {"objective": "rationale_then_label"},
        "rationale as input": {"objective": "rationale_as_input"},
        "soft label": {"objective": "soft_label", "soft_weight": 0.7},
        "live": {"objective": "white_box", "white_box": seen},
        "reverse": {
            "objective": "white_box",
            "white_box": student.WhiteBox(teacher=teacher, divergence="reverse_kl"),
            "temperature": 1.0,
        },
        "cached": {
            "objective": "white_box",
            "white_box": {**seen, "cache": folder / "cache", "top_k": 8, "divergence": "jsd"},
        },
        "trained along": {"objective": "white_box", "white_box": {**seen, "train_teacher": True}},
    }


WAYS = list(ways(Path(), Path()))


@pytest.mark.parametrize("way", WAYS)
def test_accumulation_equals_one_large_batch(
    base: Path, teacher: Path, tmp_path: Path, way: str
) -> None:
    rows = soft_rows(repeat=2)
    rows[5]["weight"] = 3.0
    common = {"rows": rows, **ways(teacher, tmp_path)[way]}
    one = train(base, tmp_path / "one", batch_size=8, **common)
    two = train(base, tmp_path / "two", batch_size=2, gradient_accumulation=4, **common)
    names = ("loss", "label_loss", "rationale_loss", "soft_loss")
    found = [[[s[name] for name in names] for s in r.history["steps"]] for r in (one, two)]
    # After the first step only nearly: AdamW divides by the gradient's size and magnifies rounding.
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-3)
    assert weights(tmp_path / "one").keys() == weights(base).keys()


@pytest.mark.parametrize("way", ["shared encoder", "soft label", "live", "cached", "trained along"])
def test_the_reviews_are_learnt(base: Path, teacher: Path, tmp_path: Path, way: str) -> None:
    options = ways(teacher, tmp_path)[way]
    result = train(base, tmp_path / "s", **options, **BY_HEART)
    assert student.predict(tmp_path / "s", TEXTS)["prediction"].tolist() == GOLD
    last = result.history["steps"][-1]
    assert (last["soft_loss"] is None) == (way == "shared encoder")
    settings = settings_of(tmp_path / "s")
    assert settings["label_prefix"] == ("mood: " if options["objective"] == "white_box" else "")
    assert settings["shared_encoder"] is (way == "shared encoder")
    assert str(teacher.parent) not in (tmp_path / "s" / "student.json").read_text()
    assert "white_box_teacher" not in " ".join(weights(tmp_path / "s"))


def test_soft_labels_bring_the_teachers_doubt(base: Path, tmp_path: Path) -> None:
    """Trained on nothing but the distributions, the student says them."""
    rows = [row for row in soft_rows() if row["label_probs"]]
    how = {**BY_HEART, "epochs": 60, "learning_rate": 1e-2}
    train(base, tmp_path / "s", rows=rows, objective="soft_label", soft_weight=1.0, **how)
    found = student.predict(tmp_path / "s", [row["input"] for row in rows])
    for said, row in zip(found["label_probs"], rows, strict=True):
        assert said == pytest.approx(row["label_probs"], abs=0.05)


def test_label_probs_may_belong_to_the_given_label_set(base: Path, tmp_path: Path) -> None:
    rows = [{key: v for key, v in row.items() if key != "choices"} for row in soft_rows()]
    labels = ["positive", "negative"]
    one = train(base, tmp_path / "one", rows=rows, objective="soft_label", labels=labels)
    two = train(base, tmp_path / "two", objective="soft_label")
    assert one.loss == two.loss


def test_a_rationale_is_written_and_the_label_read_behind_it(base: Path, tmp_path: Path) -> None:
    how = {**BY_HEART, "epochs": 40, "learning_rate": 1e-2, "label_prefix": "why? "}
    rows = [row | {"rationale": "It is so."} for row in review_rows()]
    train(base, tmp_path / "s", rows=rows, objective="rationale_then_label", **how)
    loaded = student.load(tmp_path / "s")
    written = student.predict(loaded, TEXTS, method="generate", precision="fp32")
    assert written["prediction"].tolist() == GOLD
    assert set(written["rationale"]) == {"It is so."}
    scored = student.predict(loaded, TEXTS, precision="fp32")
    assert scored["prediction"].tolist() == GOLD
    assert scored["rationale"].tolist() == written["rationale"].tolist()
    tokenizer, network = tiny_tokenizer(), loaded.network
    ids = tokenizer(f"why? {TEXTS[0]}", return_tensors="pt").input_ids
    sums = []
    for label in ("positive", "negative"):
        target = tokenizer(f"It is so. So the answer is: {label}", return_tensors="pt").input_ids
        shifted = torch.cat([torch.zeros(1, 1, dtype=torch.long), target[:, :-1]], dim=1)
        with torch.no_grad():
            logs = network(input_ids=ids, decoder_input_ids=shifted).logits[0].log_softmax(-1)
        sums.append(logs[range(target.shape[1]), target[0]].sum())
    assert scored["label_probs"][0] == pytest.approx(
        torch.stack(sums).softmax(0).tolist(), abs=1e-5
    )


def test_an_answer_without_the_marker_has_no_label_unless_choices_are_scored(
    base: Path, tmp_path: Path
) -> None:
    train(base, tmp_path / "s", objective="rationale_then_label", max_rationale_tokens=4)
    written = student.predict(tmp_path / "s", TEXTS[:2], method="generate")
    assert written["prediction"].isna().all()
    assert written["error"][0] == "no 'So the answer is:' was written before a label"
    scored = student.predict(tmp_path / "s", TEXTS[:2])
    assert set(scored["prediction"]) <= {"positive", "negative"}
    assert scored["error"].isna().all()


def test_a_rationale_is_read_where_it_is_given(base: Path, tmp_path: Path) -> None:
    """The label is in the rationale alone: with the right ones it is known, with wrong ones not."""
    rows = [row | {"input": "A lamp.", "rationale": row["label"]} for row in review_rows()]
    rows += [row | {"rationale": None} for row in review_rows()]
    rows.append(rows[0] | {"split": "validation"})
    how = {**BY_HEART, "epochs": 20}
    result = train(base, tmp_path / "s", rows=rows, objective="rationale_as_input", **how)
    assert result.validation_accuracy == 1.0
    loaded = student.load(tmp_path / "s")
    found = student.predict(loaded, ["A lamp."] * 2, rationales=["positive", "negative"])
    assert found["prediction"].tolist() == ["positive", "negative"]
    none = student.predict(loaded, ["A lamp."] * 2, rationales=[None, float("nan")])  # type: ignore[list-item]
    assert none["label_probs"][0] == pytest.approx(none["label_probs"][1])
    with pytest.raises(student.InputError, match=r"reads a rationale with every input: give"):
        student.predict(loaded, ["A lamp."])
    with pytest.raises(student.InputError, match="1 rationales for 2 inputs"):
        student.predict(loaded, ["A lamp."] * 2, rationales=["positive"])


@pytest.mark.parametrize("shared", [False, True])
def test_a_multitask_student_writes_its_rationales(
    base: Path, tmp_path: Path, shared: bool
) -> None:
    rows = [row | {"rationale": f"It is {row['label']}."} for row in review_rows()]
    how = {**BY_HEART, "epochs": 40, "learning_rate": 1e-2}
    train(base, tmp_path / "s", rows=rows, shared_encoder=shared, max_rationale_tokens=16, **how)
    seen: list[Any] = []
    found = student.write_rationales(tmp_path / "s", TEXTS, batch_size=3, on_progress=seen.append)
    assert found == [f"It is {label}." for label in GOLD]
    assert seen[-1] == {"done": 8, "total": 8}
    assert student.predict(tmp_path / "s", TEXTS)["prediction"].tolist() == GOLD
    train(base, tmp_path / "label", objective="label")
    with pytest.raises(student.InputError, match=r"only objective='multitask' learns to write"):
        student.write_rationales(tmp_path / "label", TEXTS)


def test_the_papers_and_the_codes_prefixes_can_be_set(base: Path, tmp_path: Path) -> None:
    both: dict[str, Any] = {"label_prefix": "predict: ", "rationale_prefix": "explain: "}
    train(base, tmp_path / "code", **both)
    train(base, tmp_path / "paper")
    found = [student.load(tmp_path / name).formatting for name in ("paper", "code")]
    assert [f.label_prefix for f in found] == ["[label] ", "predict: "]
    assert [f.rationale_prefix for f in found] == ["[rationale] ", "explain: "]


def test_a_teacher_on_policy_repeats_itself_and_differs_from_the_labels(
    base: Path, teacher: Path, tmp_path: Path
) -> None:
    def losses(name: str, share: float) -> list[float]:
        white = {"teacher": teacher, "divergence": "reverse_kl", "on_policy": share}
        how = {"max_label_tokens": 6, "objective": "white_box", "white_box": white}
        return [s["loss"] for s in train(base, tmp_path / name, **how).history["steps"]]

    assert losses("a", 1.0) == losses("b", 1.0)
    assert losses("c", 0.0) != losses("d", 1.0)


def test_the_cache_is_asked_once_and_tells_how_far_it_is(
    base: Path, teacher: Path, tmp_path: Path
) -> None:
    told: list[Any] = []
    options = ways(teacher, tmp_path)["cached"]
    train(base, tmp_path / "a", **options, callbacks=[lambda *event: told.append(event)])
    asked = [values for name, values in told if name == "teacher_asked"]
    assert asked[-1] == {"done": 8, "total": 8}
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.*")}
    train(base, tmp_path / "b", **options)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").rglob("*.*")} == files
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("way", ["trained along", "live"])
def test_a_stopped_white_box_training_goes_on_to_the_same_weights(
    base: Path, teacher: Path, tmp_path: Path, way: str
) -> None:
    common = {**ways(teacher, tmp_path)[way], "epochs": 2, "checkpoint_every": 1}

    def stop(event: str, values: Any) -> None:
        if event == "checkpoint" and values["step"] == 3:
            raise KeyboardInterrupt

    train(base, tmp_path / "whole", **common)
    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "s", **common, callbacks=[stop])
    again = train(base, tmp_path / "s", **common)
    assert again.resumed_from == 3
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "s")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_teacher_at_the_same_place_begins_anew(
    base: Path, teacher: Path, tmp_path: Path
) -> None:
    common = {**ways(tmp_path / "t", tmp_path)["live"], "checkpoint_every": 1}

    def stop(event: str, values: Any) -> None:
        if event == "checkpoint":
            raise KeyboardInterrupt

    student.train(soft_rows(), model=teacher, output=tmp_path / "t", objective="label", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "s", **common, callbacks=[stop])
    student.train(soft_rows(), model=teacher, output=tmp_path / "t", objective="label", epochs=2)
    again = train(base, tmp_path / "s", **common)
    assert again.resumed_from == 0
    assert "the white-box teacher" in again.notes[0]


NO_TEXT = [row | {"rationale": None, "label_probs": None} for row in review_rows()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "kl"}, "objective='kl'; it must be one of multitask, label, rationale_then"),
        (
            {"objective": "soft_label", "soft_weight": 2},
            "soft_weight=2; it must be between 0 and 1",
        ),
        ({"objective": "soft_label", "temperature": 0}, "temperature=0; it must be null"),
        ({"objective": "label", "temperature": 2.0}, "no teacher's distribution to soften"),
        ({"objective": "label", "shared_encoder": True}, "which has one task only"),
        (
            {"objective": "white_box"},
            "objective='white_box' and the argument white_box go together",
        ),
        ({"white_box": {"teacher": "t"}}, "go together"),
        (
            {"objective": "white_box", "white_box": {"layers": 3}},
            "white_box has 'layers'; its settings",
        ),
        ({"objective": "white_box", "white_box": {"beta": 0.5}}, "white_box names no teacher"),
        ({"objective": "rationale_then_label", "rows": NO_TEXT}, "needs a rationale column"),
        ({"objective": "rationale_as_input", "rows": NO_TEXT}, "needs a rationale column"),
        ({"objective": "soft_label", "rows": NO_TEXT}, "needs a column label_probs"),
        (
            {"objective": "rationale_then_label", "answer_marker": "réponse:"},
            "answer_marker='réponse:' comes back",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(student.InputError, match=message):
        train(base, tmp_path / "s", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_does_not_fit_is_refused(base: Path, teacher: Path, tmp_path: Path) -> None:
    save_checkpoint(tiny_model(vocab_size=200), tiny_tokenizer(), tmp_path / "wide", texts={})

    def distil(model: Path, **changes: Any) -> None:
        train(base, tmp_path / "s", objective="white_box", white_box={"teacher": model}, **changes)

    with pytest.raises(student.InputError, match=r"do not share a tokenizer: their heads have 200"):
        distil(tmp_path / "wide")
    with pytest.raises(student.InputError, match=r"label_prefix='x', and .* trained with 'mood: '"):
        distil(teacher, label_prefix="x")
    train(base, tmp_path / "reasoner", objective="rationale_then_label")
    with pytest.raises(student.InputError, match=r"it does not say the label at once"):
        distil(tmp_path / "reasoner")
    with pytest.raises(student.CheckpointError, match=r"nowhere"):
        distil(tmp_path / "nowhere")
    assert not (tmp_path / "s").exists()
