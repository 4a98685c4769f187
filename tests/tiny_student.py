"""A T5 of a few thousand random weights and a tokenizer of the tests' own words."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

PRAISE = [
    "The strap is soft and the colour is lovely.",
    "Setup took five minutes and it works perfectly.",
    "I love the sound of this little radio.",
    "A lovely lamp, bright and easy to carry.",
]
COMPLAINTS = [
    "The strap broke on day two.",
    "The battery is dead after an hour.",
    "It never worked and nobody answered my letter.",
    "A dull lamp that broke at once.",
]
LABELS = ["positive", "negative", "mixed feelings", "mixed"]


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A unigram tokenizer laid out as T5's: <pad> 0, </s> 1, <unk> 2, pieces marked by ▁."""
    texts = [*PRAISE, *COMPLAINTS, *LABELS, "[label] [rationale] because"]
    words = dict.fromkeys(f"▁{word}" for text in texts for word in text.split())
    letters = dict.fromkeys("▁" + "".join(map(chr, range(33, 127))))
    # "mixed feelings" is left in pieces, so that labels differ in length and share a beginning.
    pieces = [(word, -3.0) for word in words if word != "▁feelings"]
    pieces += [(letter, -8.0) for letter in letters]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    tokenizer = Tokenizer(models.Unigram([*special, *pieces], unk_id=2))
    tokenizer.add_special_tokens([name for name, _ in special])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_model(*, family: str = "t5", seed: int = 0, **changes: Any) -> Any:
    """A random encoder-decoder of a T5 family, in evaluation mode."""
    settings = {
        "vocab_size": 192,
        "d_model": 24,
        "d_kv": 6,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
    config = AutoConfig.for_model(family, **(settings | changes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForSeq2SeqLM.from_config(config).eval()


def untied_model(*, seed: int = 0, **changes: Any) -> Any:
    """A random model as flan-t5 is: a head of its own, decoder output not scaled."""
    model = tiny_model(seed=seed, tie_word_embeddings=False, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        head = torch.nn.Linear(model.config.d_model, model.config.vocab_size, bias=False)
    model.lm_head = head
    return model


def tiny_folder(folder: Path, **changes: Any) -> Path:
    """A model folder to train from, of the flan kind."""
    from student.checkpoints import save_checkpoint

    save_checkpoint(untied_model(**changes), tiny_tokenizer(), folder, texts={})
    return folder


def review_rows(repeat: int = 1) -> list[dict[str, Any]]:
    """Labelled rows with rationales; every fourth row has none."""
    rows = []
    for number in range(repeat):
        for i, text in enumerate([*PRAISE, *COMPLAINTS]):
            label = "positive" if text in PRAISE else "negative"
            rows.append(
                {
                    "id": f"{number}-{i}",
                    "input": text,
                    "choices": ["positive", "negative"],
                    "label": label,
                    "gold": label,
                    "rationale": None if i % 4 == 3 else f"It is {label} because of the words.",
                    "group": f"review {number}",
                }
            )
    return rows
