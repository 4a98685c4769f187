"""How a student does on rows it is not trained on, after each epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from student.batches import collate, encode
from student.devices import autocast
from student.examples import Example
from student.objectives import Denominators, label_only
from student.prediction import Student, predict

__all__ = ["validate"]

BATCH = 32


def validate(
    student: Student, validation: Sequence[Example], precision: str
) -> dict[str, float | None]:
    """Return the label loss per token and the accuracy of the labels on the validation rows."""
    if not validation:
        return {"validation_loss": None, "validation_accuracy": None}
    network, pad = student.network, int(student.tokenizer.pad_token_id)
    encoded = encode(validation, student.tokenizer, student.formatting, rationales=False)
    network.train(False)
    losses, weights = [], []
    by_length = sorted(range(len(validation)), key=lambda row: len(encoded.label_inputs[row]))
    with torch.no_grad(), autocast(precision, network.device):
        for start in range(0, len(validation), BATCH):
            rows = by_length[start : start + BATCH]
            batch = collate(encoded, rows, pad_token_id=pad).to(network.device)
            weights.append(Denominators.of(batch).label)
            losses.append(float(label_only(network, batch).label) * weights[-1])
    own = [list(example.choices or ()) for example in validation]
    reasons = [example.rationale for example in validation]
    answers = predict(
        student,
        [example.input for example in validation],
        choices=own if student.labels is None and all(own) else None,
        rationales=reasons if student.formatting.rationale_in == "input" else None,
        batch_size=BATCH,
        precision=precision,
    )["prediction"]
    right = sum(a == e.target for a, e in zip(answers, validation, strict=True))
    return {
        "validation_loss": sum(losses) / sum(weights),
        "validation_accuracy": right / len(validation),
    }
