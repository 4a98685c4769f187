"""A student as two ONNX graphs, encoder and decoder, for any ONNX runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutput

from student.errors import InputError
from student.networks import Written, parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OnnxNetwork", "write_onnx"]

TOKENS_AT_ONCE = 128
OPSET = 17

Table = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OnnxNetwork:
    """Two sessions of onnxruntime; `start` is the decoder's first token."""

    encoder: Any
    decoder: Any
    start: int
    pad: int
    end: int
    batches_at_once: int = 1

    @classmethod
    def load(
        cls, folder: Path, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
    ) -> OnnxNetwork:
        """Open the graphs on the CPU, with as many threads as torch is set to use."""
        runtime = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        graphs = [
            runtime.InferenceSession(
                str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for name in ("encoder", "decoder")
        ]
        pad = int(tokenizer.pad_token_id)
        return cls(
            encoder=graphs[0],
            decoder=graphs[1],
            start=int(settings.get("export", {}).get("decoder_start_token_id", pad)),
            pad=pad,
            end=int(tokenizer.eos_token_id),
        )

    def score(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[Sequence[int]]],
        *,
        batch_size: int,
    ) -> list[list[float]]:
        """Score every pair; each source is encoded once, whatever the number of its targets."""
        states, mask = self._encode(sources)
        pairs = [(row, target) for row, several in enumerate(targets) for target in several]
        scores: list[float] = []
        longest = max((len(target) for _, target in pairs), default=1)
        for part in parts(pairs, max(1, TOKENS_AT_ONCE // longest)):
            rows = [row for row, _ in part]
            wanted = _padded([target for _, target in part], self.pad)
            begun = np.concatenate(
                [np.full((len(part), 1), self.start), wanted[:, :-1]], axis=1
            ).astype(np.int64)
            found = _log_softmax(self._decode(begun, states[rows], mask[rows]))
            chosen = np.take_along_axis(found, wanted[:, :, None], axis=2)[:, :, 0]
            lengths = np.array([[len(target)] for _, target in part])
            scores += np.where(np.arange(wanted.shape[1]) < lengths, chosen, 0.0).sum(1).tolist()
        rest = iter(scores)
        return [[next(rest) for _ in several] for several in targets]

    def generate(
        self, sources: Sequence[Sequence[int]], *, max_tokens: int, num_beams: int, batch_size: int
    ) -> list[Written]:
        """Write greedily; the graph has no cache, so that each token reads all before it anew."""
        if num_beams != 1:
            raise InputError(
                f"num_beams={num_beams}; an ONNX export writes greedily only: predict with the "
                "student itself or with a CTranslate2 export"
            )
        states, mask = self._encode(sources)
        written = np.full((len(sources), 1), self.start, dtype=np.int64)
        sums, open_rows = np.zeros(len(sources)), np.arange(len(sources))
        lengths = np.zeros(len(sources), dtype=np.int64)
        for _ in range(max_tokens):
            found = self._decode(written[open_rows], states[open_rows], mask[open_rows])
            last = _log_softmax(found[:, -1:])[:, 0]
            best = last.argmax(axis=1)
            sums[open_rows] += last[np.arange(len(best)), best]
            lengths[open_rows] += 1
            column = np.full((len(sources), 1), self.pad, dtype=np.int64)
            column[open_rows, 0] = best
            written = np.concatenate([written, column], axis=1)
            open_rows = open_rows[best != self.end]
            if not len(open_rows):
                break
        answers = [
            row[1 : 1 + n] for row, n in zip(written.tolist(), lengths.tolist(), strict=True)
        ]
        means = (sums / np.maximum(lengths, 1)).tolist()
        return [
            Written([i for i in answer if i != self.end], mean)
            for answer, mean in zip(answers, means, strict=True)
        ]

    def _encode(self, sources: Sequence[Sequence[int]]) -> tuple[Any, Table]:
        ids = _padded(sources, self.pad)
        lengths = np.array([[len(source)] for source in sources])
        mask = (np.arange(ids.shape[1]) < lengths).astype(np.int64)
        given = {"input_ids": ids, "attention_mask": mask}
        return self.encoder.run(["encoder_hidden_states"], given)[0], mask

    def _decode(self, ids: Table, states: Any, mask: Table) -> NDArray[np.float32]:
        given = {
            "decoder_input_ids": ids,
            "encoder_hidden_states": states,
            "encoder_attention_mask": mask,
        }
        logits: NDArray[np.float32] = self.decoder.run(["logits"], given)[0]
        return logits


class _Encoder(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return states


class _Decoder(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=ids,
            use_cache=False,
        ).logits
        return logits


def write_onnx(model: PreTrainedModel, folder: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx` (fp32, opset 17) into a folder that is there.

    Rows and lengths are dynamic. encoder: input_ids, attention_mask (rows, source) to
    encoder_hidden_states (rows, source, width). decoder: decoder_input_ids (rows, target), the
    encoder's states and encoder_attention_mask to logits (rows, target, vocabulary).
    """
    onnx = _library("onnx")
    network: Any = model
    device = network.device
    # Three rows of 5 and 4 tokens: no two sizes alike, so that none is taken for another.
    ids = torch.full((3, 5), 3, device=device)
    mask = torch.ones_like(ids)
    mask[2, 3:] = 0
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of branches taken once and for all; `export` holds the graphs against the
        # model on rows of other sizes.
        warnings.simplefilter("ignore")
        states = _Encoder(network)(ids, mask)
        source, target = {0: "rows", 1: "source"}, {0: "rows", 1: "target"}
        torch.onnx.export(
            _Encoder(network),
            (ids, mask),
            str(folder / "encoder.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["encoder_hidden_states"],
            dynamic_axes={
                "input_ids": source, "attention_mask": source, "encoder_hidden_states": source,
            },
            opset_version=OPSET,
            dynamo=False,
        )  # fmt: skip
        torch.onnx.export(
            _Decoder(network),
            (ids[:, :4], states, mask),
            str(folder / "decoder.onnx"),
            input_names=["decoder_input_ids", "encoder_hidden_states", "encoder_attention_mask"],
            output_names=["logits"],
            dynamic_axes={
                "decoder_input_ids": target,
                "encoder_hidden_states": source,
                "encoder_attention_mask": source,
                "logits": target,
            },
            opset_version=OPSET,
            dynamo=False,
        )
    for name in ("encoder", "decoder"):
        onnx.checker.check_model(str(folder / f"{name}.onnx"))


def _padded(sequences: Sequence[Sequence[int]], fill: int) -> Table:
    table = np.full((len(sequences), max(map(len, sequences))), fill, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        table[row, : len(sequence)] = sequence
    return table


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return found


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name} is not installed: pip install 'curate-distill[export]'"
        ) from error
