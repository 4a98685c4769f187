"""A smaller student from a larger T5: its layers, its weights, its head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_student import PRAISE, review_rows, tiny_model, tiny_tokenizer, untied_model

import student
from student.checkpoints import load_checkpoint, save_checkpoint
from student.smaller_students import even_layers, shrink, smaller_network

BUILDS: dict[str, Any] = {
    "flan": lambda: untied_model(num_layers=5, num_decoder_layers=4),
    "t5 1.0": lambda: tiny_model(num_layers=5, num_decoder_layers=4),
    "mt5": lambda: tiny_model(family="mt5", num_layers=5, num_decoder_layers=4),
    "umt5": lambda: tiny_model(family="umt5", num_layers=5, num_decoder_layers=4),
}


def logits(model: Any) -> torch.Tensor:
    ids = tiny_tokenizer()(PRAISE[0], return_tensors="pt").input_ids
    with torch.no_grad():
        found: torch.Tensor = model(
            input_ids=ids, decoder_input_ids=torch.tensor([[0, 5, 6]])
        ).logits
    return found


@pytest.mark.parametrize(
    ("count", "depth", "layers"),
    [(4, 8, [0, 2, 5, 7]), (1, 8, [0]), (2, 8, [0, 7]), (8, 8, list(range(8))), (3, 6, [0, 3, 5])],
)
def test_layers_are_chosen_evenly_with_both_ends(count: int, depth: int, layers: list[int]) -> None:
    assert even_layers(count, depth) == layers


@pytest.mark.parametrize("name", BUILDS)
def test_a_shrunken_model_runs_the_chosen_layers_of_the_large_one(name: str) -> None:
    """The same numbers come from the large model with its other layers taken out by hand."""
    large = BUILDS[name]()
    small = smaller_network(large, encoder_layers=[0, 2, 4], decoder_layers=[0, 3])
    whole = smaller_network(large, encoder_layers=range(5), decoder_layers=range(4))
    assert torch.equal(logits(whole), logits(large))
    before = logits(large)
    large.encoder.block = torch.nn.ModuleList(large.encoder.block[i] for i in (0, 2, 4))
    large.decoder.block = torch.nn.ModuleList(large.decoder.block[i] for i in (0, 3))
    torch.testing.assert_close(logits(small), logits(large), atol=1e-6, rtol=0)
    assert float((logits(small) - before).abs().max()) > 1e-3
    assert (small.config.num_layers, small.config.num_decoder_layers) == (3, 2)
    written = small.generate(**tiny_tokenizer()(PRAISE[0], return_tensors="pt"), max_new_tokens=5)
    assert written.shape[1] <= 6  # the decoder's cache counts the new layers


@pytest.mark.parametrize(("name", "tied"), [("flan", False), ("t5 1.0", True)])
def test_head_and_embeddings_stay_as_they_were_through_the_file(
    tmp_path: Path, name: str, tied: bool
) -> None:
    large = BUILDS[name]()
    save_checkpoint(large, tiny_tokenizer(), tmp_path / "large", texts={})
    place = shrink(
        tmp_path / "large", encoder_layers=2, decoder_layers=[0, 2], output=tmp_path / "small"
    )
    small, tokenizer = load_checkpoint(place)
    network: Any = small
    assert torch.equal(network.shared.weight, large.shared.weight)
    assert torch.equal(network.lm_head.weight, large.lm_head.weight)
    assert (network.lm_head.weight is network.shared.weight) is tied
    config = json.loads((place / "config.json").read_text())
    assert (config["num_layers"], config["num_decoder_layers"]) == (2, 2)
    assert config["tie_word_embeddings"] is tied
    assert ("lm_head.weight" in load_file(place / "model.safetensors")) is not tied
    assert tokenizer(PRAISE[0]).input_ids == tiny_tokenizer()(PRAISE[0]).input_ids
    expected = smaller_network(large, encoder_layers=[0, 4], decoder_layers=[0, 2])
    assert torch.equal(logits(small), logits(expected))
    settings = json.loads((place / "student.json").read_text())
    assert settings["shrunk"] == {
        "from": "large",
        "encoder_layers": [0, 4],
        "decoder_layers": [0, 2],
    }


def test_without_layer_0_the_table_of_positions_moves_to_the_new_first_layer() -> None:
    large = untied_model(num_layers=4)
    small: Any = smaller_network(large, encoder_layers=[2, 3], decoder_layers=[1])
    for stack in ("encoder", "decoder"):
        old, new = getattr(large, stack), getattr(small, stack)
        name = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        assert torch.equal(new.state_dict()[name], old.state_dict()[name])
    ours = small.encoder.block[0].layer[1].state_dict()
    theirs = large.encoder.block[2].layer[1].state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_smaller_student_keeps_its_settings_and_trains(tmp_path: Path) -> None:
    save_checkpoint(untied_model(num_layers=3), tiny_tokenizer(), tmp_path / "base", texts={})
    student.train(review_rows(), model=tmp_path / "base", output=tmp_path / "large", epochs=1)
    shrink(tmp_path / "large", encoder_layers=2, decoder_layers=1, output=tmp_path / "small")
    small = student.load(tmp_path / "small")
    assert small.labels == ("positive", "negative")
    assert small.formatting == student.load(tmp_path / "large").formatting
    assert set(student.predict(small, PRAISE)["prediction"]) <= {"positive", "negative"}
    result = student.train(
        review_rows(), model=tmp_path / "small", output=tmp_path / "trained", epochs=1
    )
    assert result.steps == 1
    shrink(tmp_path / "large", encoder_layers=1, decoder_layers=1, output=tmp_path / "small")
    assert (tmp_path / "small" / "student.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_layers": 6}, "encoder_layers=6; the model has 5, so give 1 to 5"),
        ({"encoder_layers": 0}, "encoder_layers=0; "),
        ({"decoder_layers": [0, 4]}, r"decoder_layers=\[0, 4\]; .* from 0 to 3 in rising order"),
        ({"decoder_layers": [2, 1]}, "in rising order"),
        ({"decoder_layers": []}, "in rising order"),
        ({"decoder_layers": "two"}, "decoder_layers='two'"),
        ({"output": "large"}, "is the model itself|no student wrote"),
    ],
)
def test_layers_that_are_not_there_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_checkpoint(BUILDS["flan"](), tiny_tokenizer(), tmp_path / "large", texts={})
    options = {"encoder_layers": 2, "decoder_layers": 2, "output": "small"} | changes
    options["output"] = tmp_path / options["output"]
    with pytest.raises(student.InputError, match=message):
        shrink(tmp_path / "large", **options)
    assert not (tmp_path / "small").exists()
