"""Every T5 family, tiny and random: trained, saved, loaded again and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_student import (
    COMPLAINTS,
    PRAISE,
    review_rows,
    tiny_model,
    tiny_tokenizer,
    untied_model,
)
from transformers import AutoModelForSeq2SeqLM, ByT5Tokenizer

import student
from student.checkpoints import load_checkpoint, save_checkpoint


def t5gemma() -> Any:
    """A random T5Gemma: an encoder and a decoder of Gemma's kind, each with a config of its own."""
    half = {
        "vocab_size": 192,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "dropout_rate": 0.0,
    }
    config = transformers.T5GemmaConfig(
        encoder=half, decoder=half, vocab_size=192, dropout_rate=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSeq2SeqLM.from_config(config).eval()


def byt5() -> Any:
    """ByT5 is a T5 v1.1 over bytes, with more layers in its encoder."""
    return untied_model(vocab_size=384, num_layers=3, num_decoder_layers=1)


FAMILIES: dict[str, Callable[[], Any]] = {
    "t5": lambda: tiny_model(feed_forward_proj="relu"),
    "t5 v1.1, flan": untied_model,
    "byt5": byt5,
    "mt5": lambda: tiny_model(family="mt5"),
    "umt5": lambda: tiny_model(family="umt5"),
    "t5gemma": t5gemma,
}


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "t5gemma" and not hasattr(transformers, "T5GemmaConfig"):
        pytest.skip("this transformers has no T5Gemma")
    tokenizer: Any = ByT5Tokenizer() if request.param == "byt5" else tiny_tokenizer()
    save_checkpoint(FAMILIES[request.param](), tokenizer, tmp_path / "base", texts={})
    return tmp_path


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network(
            input_ids=torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]]),
            attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
            decoder_input_ids=torch.tensor([[2, 5, 6], [2, 9, 3]]),
        ).logits
    return found


def test_it_learns_saves_reloads_and_answers(folder: Path) -> None:
    result = student.train(
        review_rows(),
        model=folder / "base",
        output=folder / "s",
        objective="label",
        epochs=20,
        batch_size=8,
        learning_rate=1e-2,
        schedule="constant",
        precision="fp32",
    )
    assert result.history["steps"][0]["label_loss"] > 3 * result.history["steps"][-1]["label_loss"]
    # What transformers itself loads from the folder is what was trained.
    ours, tokenizer = load_checkpoint(folder / "s")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder / "s").eval()
    base = AutoModelForSeq2SeqLM.from_pretrained(folder / "base").eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert float((logits(ours) - logits(base)).abs().max()) > 1e-2
    assert tokenizer(PRAISE[0])["input_ids"][-1] == 1
    assert {t.dtype for t in load_file(folder / "s" / "model.safetensors").values()} == {
        torch.float32
    }
    answers = student.predict(folder / "s", [*PRAISE, *COMPLAINTS])
    assert answers["prediction"].tolist() == ["positive"] * 4 + ["negative"] * 4
    written = student.predict(folder / "s", PRAISE, method="generate")["prediction"]
    assert set(written) <= {"positive", "negative", None}


def test_a_loss_in_training_is_the_loss_of_the_saved_file(folder: Path) -> None:
    """Weights tied or scaled otherwise when loaded again would show in the first step's loss."""
    how: dict[str, Any] = {"batch_size": 8, "precision": "fp32", "epochs": 1}
    rows = [row | {"split": "train"} for row in review_rows()]
    rows += [row | {"split": "validation"} for row in review_rows()]
    first = student.train(rows, model=folder / "base", output=folder / "s", **how)
    again = student.train(rows, model=folder / "s", output=folder / "t", **how)
    assert again.history["steps"][0]["label_loss"] == pytest.approx(first.validation_loss, abs=1e-4)


def test_adapters_fit_it(folder: Path) -> None:
    pytest.importorskip("peft", reason="the lora extra is not installed")
    start = load_file(folder / "base" / "model.safetensors")
    student.train(
        review_rows(),
        model=folder / "base",
        output=folder / "s",
        epochs=1,
        batch_size=8,
        learning_rate=1e-2,
        lora={"rank": 2},
    )
    end = load_file(folder / "s" / "model.safetensors")
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == {
        name
        for name in start
        if start[name].dim() == 2
        and not any(word in name for word in ("shared", "embed", "lm_head", "relative_attention"))
    }
    before, after = (
        json.loads((folder / name / "config.json").read_text()) for name in ("base", "s")
    )
    assert after.get("tie_word_embeddings") == before.get("tie_word_embeddings")
