"""A student converted to CTranslate2: int8 weights, and a decoder written for the CPU."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from student.errors import InputError
from student.networks import Written

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["QUANTIZATIONS", "CTranslate2Network", "write_ctranslate2"]

QUANTIZATIONS = ("int8", "float32")
PAIRS_AT_ONCE = 32
"""Rows padded together where labels are scored: with more, activations leave the processor's cache."""
CALL = 8
"""Batches for each thread in one call: at its end threads wait for the one whose batch is the last."""
AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})


@dataclass(frozen=True, kw_only=True)
class CTranslate2Network:
    """A CTranslate2 translator that is spoken to in token ids."""

    translator: Any
    tokens: list[str]
    ids: dict[str, int]
    end: int
    batches_at_once: int

    @classmethod
    def load(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> CTranslate2Network:
        """Open a converted folder, with as many threads as torch is set to use.

        Each thread computes batches of its own: a batch of a small T5 spread over threads has them
        wait for one another most of the time (half the rows per second on two busy cores).
        """
        library = _library()
        threads = torch.get_num_threads()
        translator = library.Translator(
            str(folder), device="cpu", inter_threads=threads, intra_threads=1
        )
        tokens = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
        return cls(
            translator=translator,
            tokens=tokens,
            ids={token: number for number, token in enumerate(tokens)},
            end=int(tokenizer.eos_token_id),
            batches_at_once=CALL * threads,
        )

    def score(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[Sequence[int]]],
        *,
        batch_size: int,
    ) -> list[list[float]]:
        """Score every pair; CTranslate2 encodes a source once for each of its targets."""
        pairs = [(s, t) for s, several in zip(sources, targets, strict=True) for t in several]
        # The closing </s> is added by CTranslate2, and its log probability is among the tokens'.
        found = self.translator.score_batch(
            [self._spoken(source) for source, _ in pairs],
            [self._spoken(target[:-1]) for _, target in pairs],
            max_input_length=0,
            max_batch_size=min(batch_size, PAIRS_AT_ONCE),
        )
        rest = (sum(each.log_probs) for each in found)
        return [[next(rest) for _ in several] for several in targets]

    def generate(
        self, sources: Sequence[Sequence[int]], *, max_tokens: int, num_beams: int, batch_size: int
    ) -> list[Written]:
        """Write answers; the score is normalised by length, so that it is the mean wanted here."""
        found = self.translator.translate_batch(
            [self._spoken(source) for source in sources],
            beam_size=num_beams,
            length_penalty=1,
            return_scores=True,
            # By default it cuts inputs at 1024 tokens and forbids an empty answer.
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=max_tokens,
            max_batch_size=batch_size,
        )
        return [
            Written([self.ids[token] for token in each.hypotheses[0]], each.scores[0])
            for each in found
        ]

    def _spoken(self, ids: Sequence[int]) -> list[str]:
        return [self.tokens[number] for number in ids]


def write_ctranslate2(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    quantization: str = "int8",
) -> None:
    """Convert a T5 in memory and write it into `folder`, which must not exist."""
    converters = _library("ctranslate2.converters")
    loaders = _library("ctranslate2.converters.transformers")
    model = copy.deepcopy(model).cpu()  # quantising changes the weights it is given, in place
    config: Any = model.config
    kinds = {"mt5": loaders.MT5Loader, "umt5": loaders.UMT5Loader}
    loader = kinds.get(config.model_type, loaders.T5Loader)()
    # CTranslate2 takes this flag to say whether the decoder's output is scaled before the head.
    # transformers 5 keeps that apart and sets the flag to True always: read as it stands, a flan
    # student would come out with wrong probabilities and no error.
    scaled = bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))
    config.tie_word_embeddings = scaled and config.model_type != "mt5"  # mt5 is never scaled
    with torch.no_grad():
        specification = loader.get_model_spec(model)
    loader.set_config(specification.config, model, tokenizer)
    loader.set_vocabulary(specification, vocabulary(tokenizer, config.vocab_size))

    class Loaded(converters.Converter):  # type: ignore[misc,name-defined]
        """CTranslate2's way to write a specification: a converter that has loaded it."""

        def _load(self) -> Any:
            return specification

    Loaded().convert(str(folder), quantization=None if quantization == "float32" else quantization)


def vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
    """Return `size` different names, by token id: the tokenizer's, then made-up ones.

    T5's matrices have more rows than its tokenizer has tokens; CTranslate2's own converter names
    them `<extra_id_0>` and so on once more, and two tokens of one name cannot be told apart.
    """
    named = min(size, len(tokenizer))
    tokens: list[str] = list(tokenizer.convert_ids_to_tokens(list(range(named))))
    seen: set[str] = set()
    for number, token in enumerate(tokens):
        tokens[number] = token if token not in seen else f"<token_{number}>"
        seen.add(tokens[number])
    return tokens + [f"<unused_{number}>" for number in range(named, size)]


def prefer_avx512(described: str) -> None:
    """Have CTranslate2 use AVX-512 on an AMD processor that has it, as it does by itself on Intel only.

    `described` is /proc/cpuinfo's text. Without this Zen 4 quantises and normalises in AVX2, which
    takes 6 to 10 % longer in all. CTranslate2 reads the variable once, when it is first used; one
    that the user has set stands.
    """
    flags = next((x.split() for x in described.splitlines() if x.startswith("flags")), [])
    if "AuthenticAMD" in described and AVX512.issubset(flags):
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")


def _library(name: str = "ctranslate2") -> Any:
    with suppress(OSError):  # no such file but on Linux
        prefer_avx512(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            "CTranslate2 is not installed: pip install 'curate-distill[export]'"
        ) from error
