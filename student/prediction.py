"""What a student says: a probability for every label, or greedy text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from transformers.modeling_outputs import BaseModelOutput

from student.batches import IGNORED, Formatting, token_ids
from student.checkpoints import load_checkpoint
from student.devices import autocast, resolve_device, resolve_precision, return_freed_memory
from student.errors import CheckpointError, InputError
from student.objectives import encoder_states, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["METHODS", "Student", "load", "predict"]

METHODS = ("auto", "score", "generate")
SETTINGS_FILE = "student.json"
PAIRS_AT_ONCE = 128
"""(input, label) pairs scored in one decoder call; bounds the memory of the vocabulary head."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """A loaded student: the network, its tokenizer, and how its inputs are written.

    `labels` is the closed label set it was trained on, `None` for free text and for tasks whose
    choices differ from row to row. `settings` is the folder's whole student.json.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    formatting: Formatting
    labels: tuple[str, ...] | None
    settings: Mapping[str, Any]


class Answer(NamedTuple):
    """One row of what `predict` returns."""

    prediction: str | None = None
    confidence: float = math.nan
    label_probs: list[float] | None = None


def load(model: str | Path, *, device: str = "auto") -> Student:
    """Load a student folder (or any T5 folder or Hub id) once, to predict with it many times.

    A folder without student.json is taken as a plain T5: no prefix, no label set.
    Raises `CheckpointError` when it cannot be loaded, `InputError` when it is no T5.
    """
    settings = _read_settings(Path(model) / SETTINGS_FILE)
    network, tokenizer = load_checkpoint(model)
    known = {field.name for field in fields(Formatting)}
    network.to(resolve_device(device))  # type: ignore[arg-type]
    labels = settings.get("labels")
    return Student(
        network=network,
        tokenizer=tokenizer,
        formatting=Formatting(**{key: settings[key] for key in known if key in settings}),
        labels=tuple(labels) if labels else None,
        settings=settings,
    )


def predict(
    model: str | Path | Student,
    inputs: Sequence[str],
    *,
    choices: Sequence[Sequence[str]] | Sequence[str] | None = None,
    method: str = "auto",
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Answer every input; one row each, in order, with `prediction`, `confidence`, `label_probs`.

    `choices` is one label set for all inputs, or one per input; without it the student's own label
    set is used. `method="score"` computes the probability of every label as a whole sequence,
    closing token included, and normalises over the choices: `label_probs` is aligned with them and
    `confidence` is the largest. `method="generate"` decodes greedily: `confidence` is the mean log
    probability of the written tokens (nats, at most 0), `label_probs` is null, and where there are
    choices an answer outside them gives a null prediction. `"auto"` scores where there are choices.

    `on_progress` receives {"done", "total"} (rows) after every batch. `device` is used only where `model`
    is not loaded yet. Raises `InputError` for bad input, `CheckpointError` for a bad folder.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r} is not known; allowed: {', '.join(METHODS)}")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}; it must be at least 1")
    texts = _checked_inputs(inputs)
    student = model if isinstance(model, Student) else load(model, device=device)
    options = _choices_by_row(choices if choices is not None else student.labels, len(texts))
    if method == "score" and options is None:
        raise InputError(
            "method='score' needs choices, and this student has no label set of its own"
        )
    precision = resolve_precision(precision, student.network.device)
    student.network.train(False)
    sources, _ = token_ids(
        [student.formatting.label_prefix + text for text in texts],
        student.tokenizer,
        student.formatting.max_input_tokens,
    )
    label_ids = label_token_ids(student, options) if options is not None else {}
    answers = [Answer()] * len(texts)
    done = 0
    # Sorted by length, so that a batch pads little; the answers go back to their own places.
    order = sorted(range(len(texts)), key=lambda place: len(sources[place]))
    for rows in _parts(order, batch_size):
        with torch.inference_mode():
            states, mask = _encode(student, [sources[row] for row in rows], precision)
            if options is not None and method != "generate":
                sets = [options[row] for row in rows]
                found = _scored(student.network, states, mask, sets, label_ids)
            else:
                found = _generated(student, states, mask, precision)
                if options is not None:
                    found = [_read(a, options[row]) for a, row in zip(found, rows, strict=True)]
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer
        done += len(rows)
        return_freed_memory(states.device)
        if on_progress is not None:
            on_progress({"done": done, "total": len(texts)})
    return _frame(answers)


def _encode(
    student: Student, sources: Sequence[Sequence[int]], precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    device = student.network.device
    width = max(map(len, sources))
    pad = student.tokenizer.pad_token_id
    ids = torch.tensor([[*source, *[pad] * (width - len(source))] for source in sources])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sources])
    ids, mask = ids.to(device), mask.to(device)
    with autocast(precision, device):
        states = encoder_states(student.network, ids, mask)
    # Labels are compared in fp32: in bf16 two close labels would often tie.
    return states.float(), mask


def _scored(
    network: PreTrainedModel,
    states: torch.Tensor,
    mask: torch.Tensor,
    choices: Sequence[tuple[str, ...]],
    label_ids: Mapping[str, list[int]],
) -> list[Answer]:
    """Score every (input, choice) pair: sum of log p over the choice's tokens, softmax per row."""
    pairs = [(row, choice) for row, options in enumerate(choices) for choice in options]
    scores: list[float] = []
    for part in _parts(pairs, PAIRS_AT_ONCE):
        rows = torch.tensor([row for row, _ in part], device=states.device)
        width = max(len(label_ids[choice]) for _, choice in part)
        targets = torch.full((len(part), width), IGNORED, device=states.device)
        for place, (_, choice) in enumerate(part):
            ids = label_ids[choice]
            targets[place, : len(ids)] = torch.tensor(ids, device=states.device)
        losses, owners = token_losses(network, states[rows], mask[rows], targets)
        totals = torch.zeros(len(part), device=states.device).index_add(0, owners, -losses)
        scores += totals.tolist()
    answers: list[Answer] = []
    rest = iter(scores)
    for options in choices:
        probabilities = torch.tensor([next(rest) for _ in options], dtype=torch.float64).softmax(0)
        best = int(probabilities.argmax())
        answers.append(Answer(options[best], float(probabilities[best]), probabilities.tolist()))
    return answers


def _generated(
    student: Student, states: torch.Tensor, mask: torch.Tensor, precision: str
) -> list[Answer]:
    network: Any = student.network
    with autocast(precision, states.device):
        written = network.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=student.formatting.max_label_tokens,
        )
    targets = written[:, 1:]  # without the start token
    end, pad = student.tokenizer.eos_token_id, student.tokenizer.pad_token_id
    # A row ends at its first </s>; what generate put after it is padding.
    after_end = ((targets == end).cumsum(dim=1) - (targets == end).long()) > 0
    targets = targets.masked_fill(after_end | (targets == pad), IGNORED)
    losses, owners = token_losses(student.network, states, mask, targets)
    sums = torch.zeros(len(targets), device=states.device).index_add(0, owners, -losses)
    means = sums / (targets != IGNORED).sum(dim=1).clamp(min=1)
    texts = student.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [Answer(text.strip(), mean) for text, mean in zip(texts, means.tolist(), strict=True)]


def _read(answer: Answer, choices: Sequence[str]) -> Answer:
    """Take a generated text as one of the choices, letter case aside, or as no answer."""
    by_key = {choice.strip().casefold(): choice for choice in reversed(choices)}
    return answer._replace(prediction=by_key.get((answer.prediction or "").casefold()))


def label_token_ids(student: Student, options: Iterable[tuple[str, ...]]) -> dict[str, list[int]]:
    """Tokenise every choice once; raise `InputError` where two choices of a row come out alike."""
    sets = list(dict.fromkeys(options))
    labels = list(dict.fromkeys(choice for choices in sets for choice in choices))
    limit = student.formatting.max_label_tokens
    by_label = dict(zip(labels, token_ids(labels, student.tokenizer, limit)[0], strict=True))
    for choices in sets:
        seen: dict[tuple[int, ...], str] = {}
        for choice in choices:
            other = seen.setdefault(tuple(by_label[choice]), choice)
            if other != choice:
                raise InputError(
                    f"the choices {other!r} and {choice!r} are the same to this student's "
                    f"tokenizer (within {limit} tokens); rename one"
                )
    return by_label


def _choices_by_row(choices: Sequence[Any] | None, rows: int) -> list[tuple[str, ...]] | None:
    if choices is None:
        return None
    if isinstance(choices, str) or len(choices) == 0:
        raise InputError(f"choices={choices!r}; give a list of labels, or one such list per input")
    if all(isinstance(choice, str) for choice in choices):
        return [tuple(choices)] * rows
    if len(choices) != rows:
        raise InputError(f"{len(choices)} choice lists for {rows} inputs; give one per input")
    by_row = []
    for row, options in enumerate(choices):
        if isinstance(options, str) or options is None or len(options) == 0:
            raise InputError(f"input {row}: choices are {options!r}; give a list of labels")
        by_row.append(tuple(str(option) for option in options))
    return by_row


def _checked_inputs(inputs: Sequence[str]) -> list[str]:
    if isinstance(inputs, str):
        raise InputError("inputs is one text; give a list of texts")
    texts = list(inputs)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"input {row} is {text!r}; it must be a text")
    return texts


def _read_settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; train the student again") from error
    return settings


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _frame(answers: Sequence[Answer]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prediction": pd.Series([answer.prediction for answer in answers], dtype=object),
            "confidence": pd.Series([answer.confidence for answer in answers], dtype="float64"),
            "label_probs": pd.Series([answer.label_probs for answer in answers], dtype=object),
        }
    )
