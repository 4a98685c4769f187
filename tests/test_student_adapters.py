"""Low-rank adapters: few weights are trained, and a plain T5 is saved."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_student import COMPLAINTS, PRAISE, review_rows, tiny_folder, tiny_model, untied_model

import student
from student.adapters import add_adapters, merged_network
from student.checkpoints import load_checkpoint

pytest.importorskip("peft", reason="the lora extra is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


def train(base: Path, output: Path, **changes: Any) -> student.TrainingResult:
    how: dict[str, Any] = {"epochs": 1, "batch_size": 8, "precision": "fp32", "lora": {"rank": 4}}
    return student.train(review_rows(), model=base, output=output, **(how | changes))


@pytest.mark.parametrize("kind", ["gated", "plain"])
def test_every_linear_layer_but_the_head_has_an_adapter(kind: str) -> None:
    """T5's feed-forward layers are `wi` in one family and `wi_0`, `wi_1` in another."""
    act = "gated-gelu" if kind == "gated" else "relu"
    network = untied_model(feed_forward_proj=act)
    adapters = add_adapters(network, {"rank": 4}, seed=0)
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained}
    wide = {"wi_0", "wi_1"} if kind == "gated" else {"wi"}
    assert layers == {"q", "k", "v", "o", "wo"} | wide
    sizes = {
        weight.numel()
        for name, weight in network.named_parameters()
        if name.endswith("A.default.weight")
    }
    assert sizes == {4 * 24, 4 * 48}  # rank times the layer's inputs
    merged = merged_network(adapters, base=None, lora=None, seed=0)
    assert merged is network
    assert not any("lora" in name for name, _ in network.named_parameters())


def test_merging_keeps_every_logit_and_leaves_the_config_alone() -> None:
    network = untied_model()
    before = network.config.to_dict()
    adapters = add_adapters(network, {"rank": 4, "alpha": 8}, seed=0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.requires_grad and ".lora_B" in name:
                weight.normal_(std=0.1)
    ids, start = torch.tensor([[5, 6, 7, 1]]), torch.tensor([[0, 9, 4]])
    with torch.no_grad():
        adapted = network(input_ids=ids, decoder_input_ids=start).logits
        plain = merged_network(adapters, base=None, lora=None, seed=0)
        merged = plain(input_ids=ids, decoder_input_ids=start).logits
    assert float((adapted - merged).abs().max()) < 1e-5
    assert plain.config.to_dict() == before


def test_a_student_of_adapters_learns_and_is_saved_as_a_plain_t5(
    base: Path, tmp_path: Path
) -> None:
    # Adapters turn a trained model; of random weights they can make little. So the base is one that
    # has learnt every label the wrong way round.
    turned = {"positive": "negative", "negative": "positive"}
    wrong = [row | {"label": turned[row["label"]]} for row in review_rows()]
    how: dict[str, Any] = {"objective": "label", "learning_rate": 2e-2, "schedule": "constant"}
    student.train(wrong, model=base, output=tmp_path / "base", epochs=12, batch_size=8, **how)
    base = tmp_path / "base"
    assert student.predict(base, PRAISE)["prediction"].tolist() == ["negative"] * 4
    result = train(base, tmp_path / "s", lora={"rank": 8}, epochs=12, **how)
    assert result.history["steps"][0]["loss"] > 3 * result.loss
    answers = student.predict(tmp_path / "s", [*PRAISE, *COMPLAINTS])["prediction"]
    assert answers.tolist() == ["positive"] * 4 + ["negative"] * 4
    # What adapters do not touch is as it was: embeddings, the head, the norms.
    start, end = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "s"))
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert {name for name in start if name.split(".")[-2] in ("q", "wi_0", "wo")} <= changed
    assert not any(
        "norm" in name or name in ("shared.weight", "lm_head.weight") for name in changed
    )
    history = json.loads((tmp_path / "s" / "history.json").read_text())
    assert history["options"]["lora"] == {"rank": 8}


def test_adapters_resume_exactly_and_repeat_with_their_seed(base: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        how: dict[str, Any] = {"epochs": 4, "batch_size": 4, "checkpoint_every": 3}

        def stop(now: Any) -> None:
            if now["step"] == 5:
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            train(base, tmp_path / "s", on_progress=stop, **how)
        checkpoint = load_file(tmp_path / ".s.checkpoint")
        assert not any("shared" in name for name in checkpoint)  # frozen weights are not written
        assert train(base, tmp_path / "s", **how).resumed_from == 3
        train(base, tmp_path / "whole", **how)
        train(base, tmp_path / "other", seed=1, **how)
    finally:
        torch.set_num_threads(before)
    found = {
        name: load_file(tmp_path / name / "model.safetensors") for name in ("s", "whole", "other")
    }
    assert all(torch.equal(found["s"][name], found["whole"][name]) for name in found["s"])
    assert not all(torch.equal(found["s"][name], found["other"][name]) for name in found["s"])


def test_adapters_of_four_bit_weights_are_merged_into_full_ones(base: Path) -> None:
    """What is saved after training in four bits, tried with weights that stand in for them."""
    trained, _ = load_checkpoint(base)
    adapters = add_adapters(trained, {"rank": 4}, seed=0)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if ".lora_B" in name:
                weight.normal_(std=0.1)
            elif not weight.requires_grad:
                weight.zero_()  # as good as lost
    merged = merged_network(adapters, base=base, lora={"rank": 4}, seed=0)
    full, _ = load_checkpoint(base)
    assert torch.equal(merged.state_dict()["shared.weight"], full.state_dict()["shared.weight"])
    name = "encoder.block.0.layer.0.SelfAttention.q"
    layer = dict(trained.named_modules())[name]
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = full.state_dict()[f"{name}.weight"] + 2 * up @ down  # alpha is twice the rank
    assert torch.allclose(merged.state_dict()[f"{name}.weight"], expected, atol=1e-6)


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None,
    reason="weights of four bits need CUDA and bitsandbytes",
)
def test_adapters_of_four_bit_weights_train_on_a_gpu(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path / "s", load_in_4bit=True, learning_rate=1e-2, epochs=4)
    losses = [entry["loss"] for entry in result.history["steps"]]
    assert losses[-1] < losses[0]
    start, end = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "s"))
    assert start.keys() == end.keys()
    assert torch.equal(start["shared.weight"], end["shared.weight"])  # in full precision, untouched


def test_a_tied_model_stays_tied(tmp_path: Path) -> None:
    from tiny_student import tiny_tokenizer

    from student.checkpoints import save_checkpoint

    save_checkpoint(tiny_model(), tiny_tokenizer(), tmp_path / "base", texts={})
    train(tmp_path / "base", tmp_path / "s")
    assert "lm_head.weight" not in load_file(tmp_path / "s" / "model.safetensors")
    assert json.loads((tmp_path / "s" / "config.json").read_text())["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"r": 8}}, r"settings by name: rank, alpha, dropout, for example \{'rank': 8\}"),
        ({"lora": {"rank": 0}}, "lora: rank=0; it must be a whole number, at least 1"),
        (
            {"lora": {"alpha": -1}},
            r"lora: alpha=-1; it must be above 0 \(default: twice the rank\)",
        ),
        ({"lora": {"dropout": 1.0}}, "lora: dropout=1.0; it must be from 0 to below 1"),
        ({"lora": 8}, r"lora=8; it must be null or settings such as"),
        ({"lora": None, "load_in_4bit": True}, "load_in_4bit=True needs lora"),
        (
            {"load_in_4bit": True, "device": "cpu"},
            "needs a CUDA device, and this training is on 'cpu'",
        ),
        ({"load_in_4bit": "yes"}, "load_in_4bit='yes'; it must be true or false"),
    ],
)
def test_what_cannot_work_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(student.InputError, match=message):
        train(base, tmp_path / "s", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(student.InputError, match=r"pip install 'curate-distill\[lora\]'"):
        train(base, tmp_path / "s")
    monkeypatch.undo()
    from student.adapters import check_lora

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "student.adapters.find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    with pytest.raises(student.InputError, match="pip install bitsandbytes"):
        check_lora({"rank": 8}, True, torch.device("cuda"))
