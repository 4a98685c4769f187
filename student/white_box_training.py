"""Getting a white-box teacher ready for a training: loaded, checked, cached or trained along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from student.checkpoints import load_checkpoint
from student.errors import InputError
from student.loading import find_folder, read_settings
from student.teacher_cache import cache_teacher, cached_teacher, example_keys, weights_hash
from student.white_box import (
    Teacher,
    check_same_tokenizer,
    live_teacher,
    sample_targets,
    trained_teacher,
)

if TYPE_CHECKING:
    from student.batches import EncodedExamples
    from student.examples import Example
    from student.gradients import Sampler
    from student.loading import Student
    from student.processes import Processes
    from student.trackers import Callback
    from student.white_box import WhiteBox

__all__ = ["ReadyTeacher", "ready_teacher", "take_teacher_out", "teachers_prefix"]

_TEXTS_COMPARED = 64


@dataclass(frozen=True, kw_only=True)
class ReadyTeacher:
    """What a training needs of its white-box teacher.

    `ask` gives its distributions. `sample` replaces targets by what the student writes, where the
    training is on-policy. `weights` is a hash of the teacher, which a resumed training must find again.
    """

    ask: Teacher
    weights: str
    sample: Sampler | None = None


def teachers_prefix(settings: WhiteBox, label_prefix: str | None) -> str:
    """Return the prefix that the teacher was trained with: it and the student read the same input.

    Raises `InputError` where another was asked for, or where the teacher writes or reads rationales.
    """
    known = read_settings(find_folder(settings.teacher))
    if not known:  # no student of ours: only whoever gives it knows its prefix
        return label_prefix or ""
    own = str(known.get("label_prefix", ""))
    if known.get("rationale_in", "task") != "task":
        raise InputError(
            f"the white-box teacher {settings.teacher} was trained with objective="
            f"{known.get('objective')!r}: it does not say the label at once. Train a teacher with "
            "objective='label' or 'multitask'"
        )
    if label_prefix is not None and label_prefix != own:
        raise InputError(
            f"label_prefix={label_prefix!r}, and the white-box teacher was trained with {own!r}: both read "
            "the same input. Leave label_prefix out, and the student gets the teacher's"
        )
    return own


def ready_teacher(
    settings: WhiteBox,
    student: Student,
    encoded: EncodedExamples,
    examples: Sequence[Example],
    *,
    temperature: float,
    precision: str,
    processes: Processes,
    callbacks: Sequence[Callback] = (),
) -> ReadyTeacher:
    """Load the teacher, see that its tokens are the student's, ask it beforehand if it is to be cached.

    A teacher that is trained along is hung into the student's network under the name
    "white_box_teacher", so that its weights are trained, kept in checkpoints and added up over
    processes as the student's are (its gradient is clipped together with theirs); whoever saves the
    student takes it out first. `callbacks` are told ("teacher_asked", {"done", "total"}), in rows.

    Raises `InputError` for another tokenizer, `CheckpointError` where the teacher does not load or the
    cache cannot be written.
    """
    network, tokenizer = load_checkpoint(find_folder(settings.teacher) or settings.teacher)
    texts = [e.input for e in examples[:_TEXTS_COMPARED]]
    texts += [e.target for e in examples[:_TEXTS_COMPARED]]
    check_same_tokenizer(
        network.config, tokenizer, student.network.config, student.tokenizer, texts
    )
    network.to(student.network.device)
    weights = weights_hash(network)
    ids: Any = student.tokenizer
    pad, end = int(ids.pad_token_id), int(ids.eos_token_id)
    if settings.cache is not None:
        keys = example_keys(encoded, [example.id for example in examples])
        place = None
        if processes.first:
            place = cache_teacher(
                network,
                encoded,
                keys,
                Path(settings.cache),
                top_k=settings.top_k,
                temperature=temperature,
                precision=precision,
                pad_token_id=pad,
                on_progress=lambda event: [tell("teacher_asked", event) for tell in callbacks],
            )
        place = Path(processes.told_by_first(str(place)))
        return ReadyTeacher(ask=cached_teacher(place, keys), weights=weights)
    if settings.train_teacher:
        student.network.add_module("white_box_teacher", network)
        return ReadyTeacher(ask=trained_teacher(network, temperature=temperature), weights=weights)
    network.requires_grad_(False)
    sample = None
    if settings.on_policy:
        sample = partial(
            sample_targets,
            share=settings.on_policy,
            end=end,
            pad=pad,
            max_tokens=student.formatting.max_label_tokens,
        )
    return ReadyTeacher(
        ask=live_teacher(network, temperature=temperature), weights=weights, sample=sample
    )


def take_teacher_out(network: torch.nn.Module) -> None:
    """Part a teacher that was trained along from the student, before the student is saved."""
    network._modules.pop("white_box_teacher", None)
