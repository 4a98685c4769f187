"""What a student says: a probability for every label, or written text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from student.devices import resolve_precision
from student.errors import InputError
from student.formatting import answer_start, label_sources, split_answer, token_ids
from student.loading import SETTINGS_FILE, Student, load
from student.networks import Network, TransformersNetwork, parts

__all__ = ["METHODS", "SETTINGS_FILE", "Student", "load", "network_of", "predict", "source_ids"]

METHODS = ("auto", "score", "generate")


class Answer(NamedTuple):
    """One row of what `predict` returns."""

    prediction: str | None = None
    confidence: float = math.nan
    label_probs: list[float] | None = None
    error: str | None = None
    rationale: str | None = None


def predict(
    model: str | Path | Student,
    inputs: Sequence[str],
    *,
    choices: Sequence[Sequence[str]] | Sequence[str] | None = None,
    method: str = "auto",
    num_beams: int = 1,
    abstain_below: float | None = None,
    rationales: Sequence[str | None] | None = None,
    batch_size: int = 32,
    precision: str = "auto",
    device: str = "auto",
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> pd.DataFrame:
    """Answer every input; one row each, in order: `prediction`, `confidence`, `label_probs`, `error`.

    `choices` is one label set for all inputs, or one per input; without it the student's own label
    set is used. `method="score"` computes the probability of every label as a whole sequence,
    closing token included, and normalises over the choices: `label_probs` is aligned with them and
    `confidence` is the largest. `method="generate"` writes, greedily or with `num_beams` beams:
    `confidence` is the mean log probability of the written tokens (nats, at most 0), `label_probs` is
    null, and where there are choices an answer outside them gives a null prediction. `"auto"` scores
    where there are choices.

    Where `confidence` is below `abstain_below` the prediction is null. `error` says why a row has no
    prediction, and is null where it has one.

    A student that reads a rationale behind its text needs `rationales`, one per input or null (others
    take none). One that writes a rationale before its label writes it greedily; labels are then scored behind
    it, and a column `rationale` holds it.

    A folder that `export` wrote gives the same columns. `on_progress` receives {"done", "total"}
    (rows) after every batch. `device` is used only where `model` is not loaded yet, `precision` only
    by `transformers`. Raises `InputError` for bad input, `CheckpointError` for a bad folder.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r} is not known; allowed: {', '.join(METHODS)}")
    for name, value in (("batch_size", batch_size), ("num_beams", num_beams)):
        if value < 1:
            raise InputError(f"{name}={value}; it must be at least 1")
    texts = _checked_inputs(inputs)
    student = model if isinstance(model, Student) else load(model, device=device)
    options = _choices_by_row(choices if choices is not None else student.labels, len(texts))
    if method == "score" and options is None:
        raise InputError(
            "method='score' needs choices, and this student has no label set of its own"
        )
    scored = options is not None and method != "generate"
    _check_threshold(abstain_below, scored=scored)
    network = network_of(student, precision)
    sources = source_ids(student, texts, rationales)
    label_ids = label_token_ids(student, options) if options is not None and scored else {}
    answers = [Answer()] * len(texts)
    done = 0
    # Sorted by length, so that a batch pads little; the answers go back to their own places.
    order = sorted(range(len(texts)), key=lambda place: len(sources[place]))
    for rows in parts(order, batch_size * network.batches_at_once):
        ids = [sources[row] for row in rows]
        sets = None if options is None else [options[row] for row in rows]
        how = {"num_beams": num_beams, "batch_size": batch_size}
        found = _answers(student, network, ids, sets, label_ids if scored else None, how)
        for row, answer in zip(rows, found, strict=True):
            answers[row] = _abstaining(answer, abstain_below)
        done += len(rows)
        if on_progress is not None:
            on_progress({"done": done, "total": len(texts)})
    return _frame(answers, rationales=student.formatting.rationale_in == "target")


def network_of(student: Student, precision: str = "auto") -> Network:
    """Return what computes: an export's own network, or the `transformers` model at a precision."""
    if not isinstance(student.network, PreTrainedModel):
        found: Network = student.network
        return found
    model: Any = student.network
    model.train(False)
    return TransformersNetwork(
        model=model,
        pad=int(student.tokenizer.pad_token_id),
        end=int(student.tokenizer.eos_token_id),
        precision=resolve_precision(precision, model.device),
    )


def source_ids(
    student: Student, texts: Sequence[str], rationales: Sequence[str | None] | None
) -> list[list[int]]:
    """Return each text as the token ids that this student reads."""
    formatting = student.formatting
    if rationales is not None:
        if formatting.rationale_in != "input":
            raise InputError(
                "rationales are given, but this student was not trained to read them; leave them out"
            )
        if isinstance(rationales, str) or len(rationales) != len(texts):
            raise InputError(f"{len(rationales)} rationales for {len(texts)} inputs; give one each")
    elif formatting.rationale_in == "input":
        raise InputError(
            "this student reads a rationale with every input: give rationales, one per input (null where "
            "there is none); a multitask student writes some with write_rationales"
        )
    given = [None] * len(texts) if rationales is None else rationales
    return label_sources(texts, given, student.tokenizer, formatting)[0]


def _answers(
    student: Student,
    network: Network,
    sources: Sequence[Sequence[int]],
    choices: Sequence[tuple[str, ...]] | None,
    label_ids: Mapping[str, list[int]] | None,
    how: Mapping[str, int],
) -> list[Answer]:
    """Answer one batch: score the choices where `label_ids` are given, else write and read."""
    writes_first = student.formatting.rationale_in == "target"
    written = _written(student, network, sources, how) if writes_first else []
    if choices is not None and label_ids is not None:
        given = [answer.rationale for answer in written]
        starts = answer_start(given, student.tokenizer, student.formatting)[0]
        starts = starts or [[]] * len(sources)
        found = _scored(network, sources, choices, label_ids, starts, how["batch_size"])
        pairs = zip(found, given or [None] * len(found), strict=True)
        return [answer._replace(rationale=rationale) for answer, rationale in pairs]
    found = written or _written(student, network, sources, how)
    if choices is None:
        return found
    return [_read(answer, options) for answer, options in zip(found, choices, strict=True)]


def _scored(
    network: Network,
    sources: Sequence[Sequence[int]],
    choices: Sequence[tuple[str, ...]],
    label_ids: Mapping[str, list[int]],
    starts: Sequence[list[int]],
    batch_size: int,
) -> list[Answer]:
    """Score every (input, choice) pair: sum of log p over the choice's tokens, softmax per row.

    What a row's `starts` puts before each of its labels is scored with it and cancels out.
    """
    answers = []
    targets = [
        [start + label_ids[choice] for choice in each]
        for start, each in zip(starts, choices, strict=True)
    ]
    scores = network.score(sources, targets, batch_size=batch_size)
    for options, found in zip(choices, scores, strict=True):
        powers = np.exp(np.asarray(found, dtype=float) - max(found))
        probabilities = powers / powers.sum()
        best = int(probabilities.argmax())
        answers.append(Answer(options[best], float(probabilities[best]), probabilities.tolist()))
    return answers


def _written(
    student: Student, network: Network, sources: Sequence[Sequence[int]], how: Mapping[str, int]
) -> list[Answer]:
    formatting = student.formatting
    limit = formatting.max_label_tokens
    if formatting.rationale_in == "target":
        starts, _ = answer_start([None], student.tokenizer, formatting)
        limit += formatting.max_rationale_tokens + len(starts[0])
    found = network.generate(sources, max_tokens=limit, **how)
    texts = student.tokenizer.batch_decode([each.ids for each in found], skip_special_tokens=True)
    answers = [
        Answer(text.strip(), each.mean_log_probability)
        for text, each in zip(texts, found, strict=True)
    ]
    if formatting.rationale_in != "target":
        return answers
    return [_split(answer, formatting.answer_marker) for answer in answers]


def _split(answer: Answer, marker: str) -> Answer:
    rationale, label = split_answer(answer.prediction or "", marker)
    why = None if label is not None else f"no {marker!r} was written before a label"
    return answer._replace(prediction=label, rationale=rationale, error=why)


def _abstaining(answer: Answer, threshold: float | None) -> Answer:
    if threshold is None or answer.prediction is None or answer.confidence >= threshold:
        return answer
    why = f"abstained: confidence {answer.confidence:.3f} is below {threshold:g}"
    return answer._replace(prediction=None, error=why)


def _check_threshold(threshold: float | None, *, scored: bool) -> None:
    if threshold is None:
        return
    if scored and not 0 <= threshold <= 1:
        raise InputError(f"abstain_below={threshold}; a probability is from 0 to 1")
    if not scored and not threshold <= 0:
        raise InputError(
            f"abstain_below={threshold}, but the confidence of a written answer is its mean log "
            "probability, at most 0: give such a number, or choices to score"
        )


def _read(answer: Answer, choices: Sequence[str]) -> Answer:
    """Take a generated text as one of the choices, letter case aside, or as no answer."""
    if answer.error is not None:
        return answer
    by_key = {choice.strip().casefold(): choice for choice in reversed(choices)}
    said = answer.prediction or ""
    found = by_key.get(said.casefold())
    why = None if found is not None else f"the answer {said[:60]!r} is not among the choices"
    return answer._replace(prediction=found, error=why)


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


def _frame(answers: Sequence[Answer], *, rationales: bool) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "prediction": pd.Series([answer.prediction for answer in answers], dtype=object),
            "confidence": pd.Series([answer.confidence for answer in answers], dtype="float64"),
            "label_probs": pd.Series([answer.label_probs for answer in answers], dtype=object),
            "error": pd.Series([answer.error for answer in answers], dtype=object),
        }
    )
    if rationales:
        frame["rationale"] = pd.Series([answer.rationale for answer in answers], dtype=object)
    return frame
