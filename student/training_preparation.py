"""From rows and a model folder to all that the first step needs, with every error before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from student.adapters import add_adapters
from student.batches import EncodedExamples, Formatting, encode
from student.checkpoints import load_checkpoint
from student.curriculum import epoch_batches
from student.errors import InputError
from student.examples import Example, read_examples, shared_labels, split_validation
from student.formatting import check_marker
from student.objective_choice import Choice, check_rows, choose_objective, with_label_set
from student.prediction import Student, label_token_ids
from student.quick_layers import quicken
from student.training_loop import Training
from student.white_box import WhiteBox
from student.white_box_training import ready_teacher, teachers_prefix

if TYPE_CHECKING:
    from peft import LoraModel

    from student.objectives import Objective
    from student.processes import Processes
    from student.trackers import Callback
    from student.white_box_training import ReadyTeacher

__all__ = ["prepare"]


def prepare(
    data: object,
    model: str | Path,
    choice: Choice,
    formatting: Formatting,
    options: Mapping[str, Any],
    *,
    target: str,
    labels: Sequence[str] | None,
    label_prefix: str | None,
    template: str | None,
    precision: str,
    place: torch.device,
    processes: Processes,
    callbacks: Sequence[Callback],
) -> Training:
    """Read the rows, load the student (and the teacher), tokenise, lay out the steps.

    `formatting` holds all but the label's prefix: where `label_prefix` is None the objective says it,
    or the white-box teacher.

    Raises `InputError` and `CheckpointError` as `train` does.
    """
    rows = _read_rows(data, choice, options, target=target, labels=labels)
    formatting = replace(formatting, label_prefix=_label_prefix(choice, label_prefix))
    settings = {
        "objective": choice.name,
        "target": target,
        # A Hub id, or a folder's name: its path would tell others about this machine only.
        "base_model": Path(model).name if Path(model).is_dir() else str(model),
        "template": template,
        "labels": rows.labels,
        "choices_differ_by_row": rows.choices_differ,
        **choice.told(),
        **asdict(formatting),
    }
    student, adapters = _load_student(model, rows, formatting, settings, options, place)
    encoded = encode(
        rows.training,
        student.tokenizer,
        formatting,
        rationales=choice.name == "multitask",
        soft_labels=choice.name == "soft_label",
    )
    objective, teacher = _objective(
        choice,
        student,
        encoded,
        rows.training,
        precision=precision,
        processes=processes,
        callbacks=callbacks,
    )
    batches_of = partial(
        epoch_batches,
        encoded.lengths(),
        options["batch_size"] * options["gradient_accumulation"],
        confidences=_confidences(rows.training, encoded.order) if options["curriculum"] else None,
        seed=options["seed"],
    )
    # Here are the weights of a teacher that is trained along, too.
    parameters = [weight for weight in student.network.parameters() if weight.requires_grad]
    return Training(
        student=student,
        adapters=adapters,
        examples=rows.training,
        validation=rows.validation,
        left_out=rows.left_out,
        encoded=encoded,
        choice=choice,
        objective=objective,
        teacher=teacher,
        batches_of=batches_of,
        steps=options["epochs"] * len(batches_of(epoch=1)),
        parameters=parameters,
        optimizer=torch.optim.AdamW(
            parameters,
            lr=options["learning_rate"],
            weight_decay=options["weight_decay"],
            fused=place.type in ("cpu", "cuda"),
        ),
        options=options,
        precision=precision,
        place=place,
        processes=processes,
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows that a training sees, and what they say about labels.

    `labels` is the label set of all of them, `choice_sets` that one or each row's own;
    `choices_differ` is true where every row brings its own.
    """

    training: list[Example]
    validation: list[Example]
    left_out: Mapping[str, int]
    labels: list[str] | None
    choice_sets: list[tuple[str, ...]]
    choices_differ: bool


def _read_rows(
    data: object,
    choice: Choice,
    options: Mapping[str, Any],
    *,
    target: str,
    labels: Sequence[str] | None,
) -> _Rows:
    examples, left_out = read_examples(data, target=target)
    shared = shared_labels(examples, labels)
    training, validation = split_validation(
        examples, options["validation_fraction"], options["seed"]
    )
    training = with_label_set(training, labels)
    check_rows(choice, training)
    if options["early_stopping"] is not None and not validation:
        raise InputError(
            "early_stopping needs validation rows; set validation_fraction, for example to 0.1"
        )
    return _Rows(
        training=training,
        validation=validation,
        left_out=left_out,
        labels=shared,
        choice_sets=[tuple(shared)] if shared else [e.choices for e in examples if e.choices],
        choices_differ=shared is None and examples[0].choices is not None,
    )


def _label_prefix(choice: Choice, asked: str | None) -> str:
    if isinstance(choice.white_box, WhiteBox):
        return teachers_prefix(choice.white_box, asked)
    return choice.label_prefix if asked is None else asked


def _load_student(
    model: str | Path,
    rows: _Rows,
    formatting: Formatting,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    place: torch.device,
) -> tuple[Student, LoraModel | None]:
    """Load the student on its device, with adapters if asked for; check that it can say the labels."""
    how = {"four_bit_on": place} if options["load_in_4bit"] else {}
    network, tokenizer = load_checkpoint(model, **how)
    if not options["load_in_4bit"]:  # which is there already, and cannot be moved
        network.to(place)  # type: ignore[arg-type]
    adapters = None
    if options["lora"] is not None:
        adapters = add_adapters(network, options["lora"], options["seed"])
    quicken(network)
    student = Student(
        network=network,
        tokenizer=tokenizer,
        formatting=formatting,
        labels=tuple(rows.labels) if rows.labels else None,
        settings=settings,
    )
    # Two choices that tokenise alike must fail now, not at the end.
    label_token_ids(student, rows.choice_sets)
    if formatting.rationale_in == "target":
        check_marker(formatting.answer_marker, tokenizer)
    return student, adapters


def _objective(
    choice: Choice,
    student: Student,
    encoded: EncodedExamples,
    training: Sequence[Example],
    *,
    precision: str,
    processes: Processes,
    callbacks: Sequence[Callback],
) -> tuple[Objective, ReadyTeacher | None]:
    """Return what is minimised, and the white-box teacher, loaded or asked beforehand, if any."""
    start = int(student.tokenizer.eos_token_id)
    if not isinstance(choice.white_box, WhiteBox):
        return choose_objective(choice, rationale_start=start), None
    teacher = ready_teacher(
        choice.white_box,
        student,
        encoded,
        training,
        temperature=choice.softness,
        precision=precision,
        processes=processes,
        callbacks=callbacks,
    )
    return choose_objective(choice, rationale_start=start, teacher=teacher.ask), teacher


def _confidences(training: Sequence[Example], order: Sequence[int]) -> list[float | None]:
    found = [training[row].confidence for row in order]
    if all(confidence is None for confidence in found):
        raise InputError(
            "curriculum='confidence' needs a column confidence, and no training row has one; label "
            "with a teacher that gives probabilities, or leave the curriculum out"
        )
    return found
