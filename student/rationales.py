"""A student's own rationales: what it writes for its second task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from student.batches import token_ids
from student.devices import autocast, resolve_precision, return_freed_memory
from student.errors import InputError
from student.loading import Student, load
from student.networks import parts
from student.objectives import encoder_states

__all__ = ["write_rationales"]


def write_rationales(
    model: str | Path | Student,
    inputs: Sequence[str],
    *,
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> list[str]:
    """Write a rationale for every input, greedily, as the rationale task of a multitask student.

    They say what the student learnt to say of such a text, not how it came to its label. A student
    that was trained on rationales as input (`objective="rationale_as_input"`) can read them:
    `predict(reader, texts, rationales=write_rationales(writer, texts))`.

    `on_progress` receives {"done", "total"} (rows) after every batch. Raises `InputError` for a student
    that has no such task, or an export (whose decoder cannot be started by another token).
    """
    student = model if isinstance(model, Student) else load(model, device=device)
    if student.settings.get("objective") != "multitask":
        raise InputError(
            f"this student was trained with objective={student.settings.get('objective')!r}; only "
            "objective='multitask' learns to write rationales as a task of its own"
        )
    if not isinstance(student.network, PreTrainedModel):
        raise InputError(
            f"this is a {student.format} export; write rationales with the student itself"
        )
    network: Any = student.network
    network.train(False)
    tokenizer: Any = student.tokenizer
    formatting = student.formatting
    shared = formatting.shared_encoder
    prefix = formatting.label_prefix if shared else formatting.rationale_prefix
    sources, _ = token_ids([prefix + t for t in inputs], tokenizer, formatting.max_input_tokens)
    precision = resolve_precision(precision, network.device)
    start = int(tokenizer.eos_token_id) if shared else int(network.config.decoder_start_token_id)
    texts = [""] * len(sources)
    done = 0
    for rows in parts(sorted(range(len(sources)), key=lambda row: len(sources[row])), batch_size):
        width = max(len(sources[row]) for row in rows)
        pad = int(tokenizer.pad_token_id)
        padded = [[*sources[row], *[pad] * (width - len(sources[row]))] for row in rows]
        lengths = torch.tensor([len(sources[row]) for row in rows])
        mask = (torch.arange(width) < lengths[:, None]).long().to(network.device)
        with torch.inference_mode(), autocast(precision, network.device):
            states = encoder_states(network, torch.tensor(padded, device=network.device), mask)
            written = network.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_start_token_id=start,
                do_sample=False,
                num_beams=1,
                max_new_tokens=formatting.max_rationale_tokens,
            )
        answers = tokenizer.batch_decode(written[:, 1:], skip_special_tokens=True)
        for row, text in zip(rows, answers, strict=True):
            texts[row] = text.strip()
        done += len(rows)
        return_freed_memory(network.device)
        if on_progress is not None:
            on_progress({"done": done, "total": len(sources)})
    return texts
