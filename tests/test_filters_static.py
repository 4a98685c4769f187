"""A static embedder is made of a model once, and is then read as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import filters
from filters import FilterError, distil_static, embed

WORDS = ("battery", "charge", "lasts", "dies", "lamp", "bright", "the", "a", "not", "strap")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder over ten words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    words = folder / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(str(words)).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    whole = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    whole.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def test_a_text_is_the_mean_of_its_tokens_in_any_order(model: Path, tmp_path: Path) -> None:
    static = distil_static(model, tmp_path / "static", dimensions=8)
    one, other, third = embed(
        ["the battery lasts", "lasts the battery", "a bright lamp"],
        static,
        cache=tmp_path / "cache",
    )
    assert one.shape == (8,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one == pytest.approx(other, abs=1e-6)
    assert one @ third < 0.99
    again = embed(["the battery lasts"], static, cache=tmp_path / "cache")
    assert (again[0] == one).all()


def test_frequent_tokens_weigh_less(model: Path, tmp_path: Path) -> None:
    # "battery" stands early in the vocabulary and counts as frequent, "strap" stands last.
    plain = distil_static(model, tmp_path / "plain", dimensions=8, frequency=0)
    weighted = distil_static(model, tmp_path / "weighted", dimensions=8, frequency=1e-3)
    first, second = (
        embed(["strap battery"], folder)[0] @ embed(["strap"], folder)[0]
        for folder in (plain, weighted)
    )
    assert second > first


def test_the_same_model_gives_the_same_embedder(model: Path, tmp_path: Path) -> None:
    one = distil_static(model, tmp_path / "one", dimensions=4)
    other = distil_static(model, tmp_path / "other", dimensions=4)
    texts = ["the charge dies", "not a strap"]
    assert (embed(texts, one) == embed(texts, other)).all()


def test_what_cannot_be_done_is_said(model: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(FilterError, match=r"used is not empty; name another folder"):
        distil_static(model, tmp_path / "used")
    with pytest.raises(FilterError, match=r"dimensions is 0"):
        distil_static(model, tmp_path / "static", dimensions=0)
    with pytest.raises(filters.EmbeddingError, match="could not be loaded"):
        distil_static(tmp_path / "nowhere", tmp_path / "static")
    static = distil_static(model, tmp_path / "static")
    with pytest.raises(FilterError, match="is no transformer with a fast tokenizer"):
        distil_static(static, tmp_path / "twice")
