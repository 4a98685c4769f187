"""Train a T5 student: check, prepare, go through the steps, save; read from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from student.adapters import check_lora, merged_network
from student.batches import Formatting
from student.cards import model_card
from student.checkpoints import check_output, check_reference, save_checkpoint
from student.devices import resolve_device, resolve_precision
from student.objective_choice import Choice
from student.objectives import OBJECTIVES
from student.options import ALLOWED, NEUTRAL, check_options
from student.prediction import SETTINGS_FILE
from student.processes import join_processes
from student.schedules import SCHEDULES
from student.trackers import Callback, check_trackers, listeners
from student.training_loop import Training, run_epochs
from student.training_preparation import prepare
from student.training_result import TrainingResult, history_of, result_of
from student.training_state import TrainingState, begin_or_resume, identity_of, state_file
from student.white_box import WhiteBox
from student.white_box_training import take_teacher_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["OBJECTIVES", "SCHEDULES", "TrainingResult", "train"]


def train(
    data: object,
    *,
    model: str | Path,
    output: str | Path,
    objective: str = "multitask",
    target: str = "label",
    labels: Sequence[str] | None = None,
    alpha: float = 0.5,
    soft_weight: float = 0.5,
    temperature: float | None = None,
    shared_encoder: bool = False,
    white_box: WhiteBox | Mapping[str, Any] | None = None,
    epochs: int = 2,
    batch_size: int = 16,
    gradient_accumulation: int = 1,
    learning_rate: float = 5e-4,
    schedule: str = "linear",
    warmup_ratio: float = 0.1,
    weight_decay: float = 0.0,
    max_gradient_norm: float = 1.0,
    curriculum: str | None = None,
    lora: Mapping[str, Any] | None = None,
    load_in_4bit: bool = False,
    template: str | None = None,
    label_prefix: str | None = None,
    rationale_prefix: str = "[rationale] ",
    answer_marker: str = "So the answer is:",
    rationale_marker: str = "Rationale:",
    max_input_tokens: int = 512,
    max_label_tokens: int = 64,
    max_rationale_tokens: int = 128,
    precision: str = "auto",
    validation_fraction: float = 0.0,
    early_stopping: int | None = None,
    checkpoint_every: int | None = None,
    resume: bool | str = "auto",
    seed: int = 0,
    device: str = "auto",
    report_to: Sequence[str] | None = (),
    callbacks: Sequence[Callback] = (),
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainingResult:
    """Train the T5 `model` (folder or Hub id) on `data` and save the student as folder `output`.

    Data
        `data` is a DataFrame, a `datasets.Dataset` or a list of dicts; `read_examples` says which
        columns count. Rows of split "test" and rows with `keep` false are never trained on. `target`
        is "label" (the teacher's) or "gold" (a person's). `labels` is the closed label set; without
        it the `choices` column says, if every row has the same.
    Objective
        "multitask" learns label and rationale as two tasks, weighted `alpha` and 1 - `alpha`, with
        `shared_encoder` from one pass of the encoder; "label" the label alone; "rationale_then_label"
        writes both, parted by `answer_marker`; "rationale_as_input" reads the rationale behind
        `rationale_marker`; "soft_label" learns the column `label_probs`, and "white_box" a larger T5's
        token probabilities (`white_box`, a `WhiteBox` or the same as a mapping), both mixed by
        `soft_weight` with the label's loss and softened by `temperature`. `label_prefix` defaults to
        "[label] " for multitask with an encoder pass of its own, else to nothing (white_box: to the
        teacher's). `template`, the template that rendered `input`, is only noted in student.json.
    Steps
        One optimizer step (AdamW) sees `batch_size * gradient_accumulation` rows, `batch_size` at a
        time; the gradient is the same as of one large batch. Where memory runs out, that number is
        halved, and the steps stay the same. `schedule` is "linear" or "cosine" (to zero) or
        "constant", after a linear warm-up over `warmup_ratio` of the steps. With
        `curriculum="confidence"` the first epoch goes from rows the teacher was sure of to rows it
        was not (column `confidence`). Limits are in tokens.
    Weights
        All of them, or with `lora={"rank": 8}` (also "alpha", "dropout") low-rank adapters beside
        every linear layer, merged into the saved student. `load_in_4bit` loads the frozen weights
        in four bits (CUDA, needs `lora`).
    Validation
        Rows of split "validation", else `validation_fraction` of the training rows, carved by
        `group` (and equal inputs kept together). With `early_stopping=p` training ends after p
        epochs without a lower validation loss, and the best epoch's weights are kept.
    Checkpoints
        Every `checkpoint_every` steps (default: every five minutes; 0: never) all that is needed to
        go on is written to one hidden file beside `output`, in place of the one before; it is
        removed at the end. With `resume="auto"` the same call goes on from it, to the same
        weights as without the stop; a checkpoint of another training (data, options, model or
        versions) is left unused, and `notes` say why; with `True` that is an error. `False` begins
        anew.
    Processes
        Under `accelerate launch` each process takes its share of every step's rows, and the steps
        are those of a single process. Only the first one writes and reports.
    Progress
        `report_to` names trackers: "tensorboard" (folder `<output>-tensorboard`), "wandb"; a text is
        one of them, "none" none. A function in `callbacks` is called with ("train_begin" |
        "step_end" | "epoch_end" | "checkpoint" | "teacher_asked" | "train_end", values); what it
        raises ends the training.
        `on_progress` receives, after every step, {"step", "steps", "epoch", "epochs", "loss",
        "label_loss", "rationale_loss", "soft_loss", "learning_rate", "rows_per_second",
        "eta_seconds"}.

    The folder holds config.json, model.safetensors, the tokenizer, README.md (model card),
    student.json (how inputs are written, the label set) and history.json. Same seed, data and
    machine give the same weights.

    Raises `InputError` for options or data that cannot work, `CheckpointError` when the model does
    not load or the folder cannot be written, `TrainingError` when the loss stops being a number.
    """
    options = {name: value for name, value in locals().items() if name in ALLOWED}
    options = check_options(options)
    check_reference(model)
    choice = Choice(
        name=objective,
        alpha=options["alpha"],
        soft_weight=options["soft_weight"],
        temperature=options["temperature"],
        shared_encoder=shared_encoder,
        white_box=white_box,
    )
    report_to = check_trackers(report_to)
    started = time.perf_counter()
    processes = join_processes()
    output = Path(output)
    check_output(output)
    place = processes.device if processes.device and device == "auto" else resolve_device(device)
    precision = resolve_precision(precision, place)
    check_lora(lora, load_in_4bit, place)
    options["lora"] = dict(lora) if lora is not None else None  # to be written as JSON
    formatting = Formatting(
        rationale_prefix=rationale_prefix,
        rationale_in=choice.rationale_in,
        shared_encoder=shared_encoder,
        answer_marker=answer_marker,
        rationale_marker=rationale_marker,
        max_input_tokens=options["max_input_tokens"],
        max_label_tokens=options["max_label_tokens"],
        max_rationale_tokens=options["max_rationale_tokens"],
    )
    training = prepare(
        data,
        model,
        choice,
        formatting,
        options,
        target=target,
        labels=labels,
        label_prefix=label_prefix,
        template=template,
        precision=precision,
        place=place,
        processes=processes,
        callbacks=callbacks,
    )
    checkpoint, identity = state_file(output), _identity(training)
    network, optimizer = training.student.network, training.optimizer
    state = begin_or_resume(
        checkpoint, network, optimizer, identity, resume=resume, micro_batch=options["batch_size"]
    )
    processes.check_alike("the step to go on after", state.resumed_from)
    tell = listeners(on_progress, callbacks, report_to, output, state.run)
    if not processes.first:
        tell = _tell_nobody
    facts = {
        "steps": training.steps,
        "epochs": options["epochs"],
        "rows": len(training.encoded.order),
    }
    tell("train_begin", {**facts, "options": options, "resumed_from": state.resumed_from})
    earlier = state.seconds()
    run_epochs(training, state, tell, checkpoint=checkpoint, identity=identity)

    trained = _trained(training, state, model)
    history = history_of(training, state, seconds=earlier + time.perf_counter() - started)
    if processes.first:
        _save(trained, training, history, output)
        checkpoint.unlink(missing_ok=True)
    processes.wait()
    tell("train_end", {**facts, "output": str(output), "epochs": len(state.epochs)})
    return result_of(output, history)


def _identity(training: Training) -> dict[str, Any]:
    """Return what a checkpoint must agree with to be gone on from."""
    options = training.options
    what_counts = {name: value for name, value in options.items() if name not in NEUTRAL}
    what_counts |= {"precision": training.precision, "device": training.place.type}
    what_counts |= {"processes": training.processes.count}
    what_counts |= {"the white-box teacher": training.teacher.weights if training.teacher else None}
    rows = [*training.examples, *training.validation]
    return identity_of(training.student.network, rows, {**training.student.settings, **what_counts})


def _tell_nobody(event: str, values: Mapping[str, Any]) -> None:
    """Take the place of the listeners in processes that are not to report."""


def _trained(training: Training, state: TrainingState, model: str | Path) -> PreTrainedModel:
    """Return the student's network as a plain T5 with the best epoch's weights."""
    network: PreTrainedModel = training.student.network
    state.restore_best(network)
    take_teacher_out(network)
    if training.adapters is None:
        return network
    return merged_network(
        training.adapters,
        base=model if training.options["load_in_4bit"] else None,
        lora=training.options["lora"],
        seed=training.options["seed"],
    )


def _save(
    network: PreTrainedModel, training: Training, history: Mapping[str, Any], output: Path
) -> None:
    settings = training.student.settings
    texts = {
        SETTINGS_FILE: json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
        "history.json": json.dumps(history, indent=1) + "\n",
        "README.md": model_card(settings, history, name=output.resolve().name),
    }
    save_checkpoint(network, training.student.tokenizer, output, texts=texts)
