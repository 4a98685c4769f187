"""Exports answer as the student does, or are refused; and load from wherever a student may lie."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from test_student_families import t5gemma
from tiny_student import (
    COMPLAINTS,
    LABELS,
    PRAISE,
    review_rows,
    tiny_folder,
    tiny_model,
    tiny_tokenizer,
    untied_model,
)
from transformers import ByT5Tokenizer

import student
from student.checkpoints import save_checkpoint
from student.ctranslate2_network import prefer_avx512

TEXTS = [*PRAISE, *COMPLAINTS, "Bright. " * 12]
GOLD = ["positive"] * 4 + ["negative"] * 4 + ["positive"]

needs_ctranslate2 = pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None, reason="ctranslate2 is not installed"
)
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx or onnxruntime is not installed",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("students")
    student.train(
        review_rows(),
        model=tiny_folder(place / "base"),
        output=place / "student",
        objective="label",
        label_prefix="review: ",
        epochs=10,
        batch_size=8,
        learning_rate=2e-2,
        precision="fp32",
    )
    return place / "student"


FAMILIES: dict[str, Any] = {
    "t5": lambda: (tiny_model(feed_forward_proj="relu"), tiny_tokenizer()),
    "flan": lambda: (untied_model(), tiny_tokenizer()),
    "mt5": lambda: (tiny_model(family="mt5"), tiny_tokenizer()),
    "umt5": lambda: (tiny_model(family="umt5"), tiny_tokenizer()),
    "byt5": lambda: (untied_model(vocab_size=384, num_decoder_layers=1), ByT5Tokenizer()),
}


def family_folder(name: str, folder: Path) -> Path:
    """A random student of a family, its weights large enough that answers differ from row to row."""
    model, tokenizer = FAMILIES[name]()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1.5
    # Short answers: over many tokens a random model's near ties would fall either way.
    settings = json.dumps({"max_label_tokens": 16})
    save_checkpoint(model, tokenizer, folder, texts={"student.json": settings})
    return folder


def gemma_folder(folder: Path) -> Path:
    """A random T5Gemma as a student."""
    if not hasattr(transformers, "T5GemmaConfig"):
        pytest.skip("this transformers has no T5Gemma")
    texts = {"student.json": json.dumps({"max_label_tokens": 40})}
    save_checkpoint(t5gemma(), tiny_tokenizer(), folder, texts=texts)
    return folder


def assert_alike(one: Path, two: Path, **how: Any) -> None:
    first, second = (student.predict(each, TEXTS, precision="fp32", **how) for each in (one, two))
    assert first["prediction"].tolist() == second["prediction"].tolist()
    assert first["confidence"].to_numpy() == pytest.approx(
        second["confidence"].to_numpy(), abs=1e-3
    )
    if not first["label_probs"].isna().any():
        probs = [np.stack(each["label_probs"].tolist()) for each in (first, second)]
        assert probs[0] == pytest.approx(probs[1], abs=1e-3)


@needs_ctranslate2
@pytest.mark.parametrize("family", FAMILIES)
def test_a_float_ctranslate2_export_of_each_family_gives_the_same_numbers(
    family: str, tmp_path: Path
) -> None:
    source = family_folder(family, tmp_path / "s")
    done = student.export(
        source, tmp_path / "out", quantization="float32", inputs=TEXTS, choices=LABELS
    )
    assert done.report["agreement"] == 1.0
    assert_alike(source, done.folder, choices=LABELS)
    assert_alike(source, done.folder, method="generate")
    beams = [
        student.predict(each, TEXTS, method="generate", num_beams=3, precision="fp32")["prediction"]
        for each in (source, done.folder)
    ]
    # Beams of a random model end in near ties; one row may fall the other way.
    assert sum(a == b for a, b in zip(*beams, strict=True)) >= len(TEXTS) - 1


def test_what_ctranslate2_cannot_be_made_of_is_refused_with_the_formats_that_can(
    tmp_path: Path,
) -> None:
    source = gemma_folder(tmp_path / "s")
    with pytest.raises(
        student.InputError,
        match=r"'t5gemma' model; an export to ctranslate2 is made of t5, mt5, umt5. "
        r"Export it with to='onnx' or 'transformers'",
    ):
        student.export(source, tmp_path / "out", inputs=TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("to", ["transformers", pytest.param("onnx", marks=needs_onnx)])
def test_t5gemma_is_exported_with_the_same_numbers(to: str, tmp_path: Path) -> None:
    source = gemma_folder(tmp_path / "s")
    done = student.export(source, tmp_path / "out", to=to, inputs=TEXTS, choices=LABELS)
    assert done.report["agreement"] == 1.0
    # Text and label both longer than what its sliding attention reaches, 16 tokens.
    labels = [*LABELS, "lovely lamp " * 12]
    assert_alike(source, done.folder, choices=labels)
    assert_alike(source, done.folder, method="generate")


@needs_onnx
@pytest.mark.parametrize("family", FAMILIES)
def test_an_onnx_export_of_each_family_gives_the_same_numbers(family: str, tmp_path: Path) -> None:
    source = family_folder(family, tmp_path / "s")
    done = student.export(source, tmp_path / "out", to="onnx", inputs=TEXTS, choices=LABELS)
    assert done.report["checked"] is True
    assert_alike(source, done.folder, choices=LABELS)
    assert_alike(source, done.folder, method="generate")
    with pytest.raises(student.InputError, match="num_beams=3; an ONNX export writes greedily"):
        student.predict(done.folder, TEXTS[:1], method="generate", num_beams=3)


@needs_ctranslate2
def test_an_int8_export_keeps_prefix_labels_and_card(trained: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    done = student.export(
        trained, tmp_path / "int8", inputs=TEXTS, gold=GOLD, on_progress=events.append
    )
    assert done.report["agreement"] == 1.0
    assert done.report["accuracy"] == done.report["accuracy_of_original"] == 1.0
    assert done.report["size_on_disk_mb"] < done.report["size_of_original_mb"]
    assert events[-1] == {"done": 18, "total": 18}
    loaded = student.load(done.folder)
    assert loaded.format == "ctranslate2"
    assert loaded.labels == ("positive", "negative")
    assert loaded.formatting.label_prefix == "review: "
    answers = student.predict(loaded, TEXTS)
    assert answers["prediction"].tolist() == GOLD
    assert list(answers.columns) == ["prediction", "confidence", "label_probs", "error"]
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n# license")
    assert "library_name: ctranslate2" in card
    assert "# int8\n" in card
    assert "On 9 rows 100.0% of its answers are the original's" in card
    assert "AutoModelForSeq2SeqLM" not in card
    assert "## Licence" in card
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_what_answers_otherwise_is_refused_and_leaves_a_report_only(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import student.exports

    def write_another(model: Any, tokenizer: Any, folder: Path, *, texts: Any) -> None:
        shifted = untied_model(seed=5)
        save_checkpoint(shifted, tokenizer, folder, texts=texts)

    monkeypatch.setattr(student.exports, "save_checkpoint", write_another)
    with pytest.raises(student.ExportError, match=r"agrees with the student on .* of 9 rows"):
        student.export(trained, tmp_path / "out", to="transformers", inputs=TEXTS, gold=GOLD)
    assert [path.name for path in tmp_path.iterdir()] == ["out.refused.json"]
    said = json.loads((tmp_path / "out.refused.json").read_text())
    assert said["agreement"] < said["min_agreement"] == 0.98
    with pytest.raises(student.ExportError, match=r"its accuracy is .* points less"):
        student.export(
            trained, tmp_path / "out", to="transformers", inputs=TEXTS, gold=GOLD, min_agreement=0
        )
    monkeypatch.undo()
    done = student.export(trained, tmp_path / "out", to="transformers", inputs=TEXTS, gold=GOLD)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_alike(trained, done.folder)


def test_an_onnx_export_is_marked_unchecked_where_there_is_no_runtime(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    import student.exports

    monkeypatch.setattr(student.exports, "find_spec", lambda name: None)
    done = student.export(trained, tmp_path / "out", to="onnx", inputs=TEXTS)
    assert done.report["checked"] is False
    assert "have not been compared" in (done.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "to='tflite' is not known; allowed: ctranslate2, onnx, transformers"),
        ({"quantization": "int4"}, "quantization='int4' is not known; allowed: int8, float32"),
        ({"inputs": []}, "give a list of texts on which the export is held"),
        ({"gold": ["positive"]}, "1 gold answers for 9 inputs"),
        ({"min_agreement": 1.5}, "min_agreement=1.5; it must be a share"),
    ],
)
def test_bad_options_are_named(
    trained: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(student.InputError, match=message):
        student.export(trained, tmp_path / "out", **({"inputs": TEXTS} | options))


def test_what_is_not_to_be_overwritten_or_read_is_refused(trained: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"to": "transformers", "inputs": TEXTS}
    with pytest.raises(student.InputError, match="is the student itself"):
        student.export(trained, trained, **how)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(student.InputError, match="holds files that are no export"):
        student.export(trained, tmp_path / "full", **how)
    shutil.copytree(trained, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(student.InputError, match="holds no weights in safetensors"):
        student.export(tmp_path / "pickled", tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_a_student_loads_from_the_hubs_layout(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--me--reviews"
    shutil.copytree(trained, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert student.load(repository).formatting.label_prefix == "review: "
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    by_name = student.load("me/reviews")  # with its prefix and labels, as from its own folder
    assert by_name.formatting.label_prefix == "review: "
    assert by_name.labels == ("positive", "negative")
    assert student.predict(by_name, TEXTS)["prediction"].tolist() == GOLD


def test_adapters_are_merged_into_the_model_they_name(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = tiny_folder(tmp_path / "base")
    loaded = student.load(base)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        adapted = peft.get_peft_model(loaded.network, config)
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        wanted = adapted(input_ids=ids, decoder_input_ids=ids).logits
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(str(tmp_path / "adapters"))
    done = student.export(tmp_path / "adapters", tmp_path / "m", to="transformers", inputs=TEXTS)
    merged = student.load(done.folder).network
    with torch.no_grad():
        found = merged(input_ids=ids, decoder_input_ids=ids).logits
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("maker", "lacking", "own", "wanted"),
    [
        ("AuthenticAMD", "", None, "AVX512"),
        ("AuthenticAMD", "", "AVX2", "AVX2"),  # what the user has set stands
        ("AuthenticAMD", "avx512dq", None, None),
        ("GenuineIntel", "", None, None),  # CTranslate2 chooses well there by itself
    ],
)
def test_avx512_is_asked_for_where_ctranslate2_would_leave_it(
    maker: str, lacking: str, own: str | None, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT2_FORCE_CPU_ISA", "none")  # so that it is put back as it was
    monkeypatch.delenv("CT2_FORCE_CPU_ISA")
    if own is not None:
        monkeypatch.setenv("CT2_FORCE_CPU_ISA", own)
    has = ("avx2", "avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl")
    flags = " ".join(flag for flag in has if flag != lacking)
    prefer_avx512(f"processor\t: 0\nvendor_id\t: {maker}\nflags\t\t: fpu {flags}\n")
    assert os.environ.get("CT2_FORCE_CPU_ISA") == wanted


def test_measuring_and_perplexity(trained: Path, tmp_path: Path) -> None:
    found = student.measure(trained, TEXTS, single_rows=3)
    assert found["rows"] == 9
    assert 0 < found["latency_p50_ms"] <= found["latency_p95_ms"]
    assert found["rows_per_second"] > 0
    assert found["peak_memory_mb"] > 50
    assert found["parameters"] == sum(p.numel() for p in student.load(trained).network.parameters())
    files = sum(path.stat().st_size for path in trained.iterdir())
    assert found["size_on_disk_mb"] == pytest.approx(files / 1e6)
    losses = student.reference_losses(trained, TEXTS, GOLD, precision="fp32")
    by_hand = np.exp(sum(loss for loss, _ in losses) / sum(tokens for _, tokens in losses))
    assert student.perplexity(trained, TEXTS, GOLD, precision="fp32") == pytest.approx(by_hand)
    assert by_hand < student.perplexity(trained, TEXTS, GOLD[::-1], precision="fp32")
    network = student.load(trained).network
    ids = tiny_tokenizer()(f"review: {TEXTS[0]}", return_tensors="pt").input_ids
    target = tiny_tokenizer()("positive", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = network(input_ids=ids, labels=target).loss
    assert losses[0] == (pytest.approx(float(theirs) * 2, abs=1e-4), 2)  # the word and </s>


def test_unsure_answers_are_left_out_and_say_why(trained: Path) -> None:
    sure = student.predict(trained, TEXTS)["confidence"]
    threshold = float(sure.sort_values().iloc[3])
    found = student.predict(trained, TEXTS, abstain_below=threshold)
    assert found["prediction"].isna().tolist() == (sure < threshold).tolist()
    assert found["prediction"].isna().sum() == 3
    assert found["error"].dropna().str.startswith("abstained: confidence").all()
    assert found["confidence"].tolist() == sure.tolist()
    with pytest.raises(student.InputError, match="a probability is from 0 to 1"):
        student.predict(trained, TEXTS, abstain_below=2)
    with pytest.raises(student.InputError, match="mean log probability, at most 0"):
        student.predict(trained, TEXTS, method="generate", abstain_below=0.9)
