"""Train a T5 student: one loop that reads from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from student.adapters import add_adapters, check_lora, merged_network
from student.batches import Formatting, encode
from student.cards import model_card
from student.checkpoints import check_output, load_checkpoint, save_checkpoint
from student.curriculum import epoch_batches
from student.devices import resolve_device, resolve_precision, return_freed_memory
from student.errors import InputError, TrainingError
from student.examples import Example, read_examples, shared_labels, split_validation
from student.formatting import check_marker
from student.gradients import step_gradient
from student.objective_choice import Choice, check_rows, choose_objective, with_label_set
from student.objectives import OBJECTIVES
from student.options import ALLOWED, NEUTRAL, check_options
from student.prediction import SETTINGS_FILE, Student, label_token_ids
from student.processes import join_processes
from student.quick_layers import quicken
from student.schedules import SCHEDULES, rate_at
from student.trackers import Callback, check_trackers, listeners
from student.training_result import TrainingResult, result_of
from student.training_state import (
    begin_or_resume,
    identity_of,
    is_due,
    state_file,
    write_state,
)
from student.validation import validate
from student.white_box import WhiteBox
from student.white_box_training import ready_teacher, take_teacher_out, teachers_prefix

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
    report_to: Sequence[str] = (),
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
        `report_to` names trackers: "tensorboard" (folder `<output>-tensorboard`), "wandb". A
        function in `callbacks` is called with ("train_begin" | "step_end" | "epoch_end" |
        "checkpoint" | "teacher_asked" | "train_end", values); what it raises ends the training.
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
    check_options(options)
    choice = Choice(
        name=objective,
        alpha=alpha,
        soft_weight=soft_weight,
        temperature=temperature,
        shared_encoder=shared_encoder,
        white_box=white_box,
    )
    check_trackers(report_to)
    started = time.perf_counter()
    processes = join_processes()
    output = Path(output)
    check_output(output)
    place = processes.device if processes.device and device == "auto" else resolve_device(device)
    precision = resolve_precision(precision, place)
    check_lora(lora, load_in_4bit, place)
    options["lora"] = dict(lora) if lora is not None else None  # to be written as JSON

    examples, left_out = read_examples(data, target=target)
    label_set = shared_labels(examples, labels)
    training, validation = split_validation(examples, validation_fraction, seed)
    training = with_label_set(training, labels)
    check_rows(choice, training)
    if early_stopping is not None and not validation:
        raise InputError(
            "early_stopping needs validation rows; set validation_fraction, for example to 0.1"
        )
    if isinstance(choice.white_box, WhiteBox):
        label_prefix = teachers_prefix(choice.white_box, label_prefix)
    formatting = Formatting(
        label_prefix=label_prefix if label_prefix is not None else choice.label_prefix,
        rationale_prefix=rationale_prefix,
        rationale_in=choice.rationale_in,
        shared_encoder=shared_encoder,
        answer_marker=answer_marker,
        rationale_marker=rationale_marker,
        max_input_tokens=max_input_tokens,
        max_label_tokens=max_label_tokens,
        max_rationale_tokens=max_rationale_tokens,
    )
    settings = {
        "objective": objective,
        "target": target,
        # A Hub id, or a folder's name: its path would tell others about this machine only.
        "base_model": Path(model).name if Path(model).is_dir() else str(model),
        "template": template,
        "labels": label_set,
        "choices_differ_by_row": label_set is None and examples[0].choices is not None,
        **choice.told(),
        **asdict(formatting),
    }
    how = {"four_bit_on": place} if load_in_4bit else {}
    network, tokenizer = load_checkpoint(model, **how)
    if not load_in_4bit:  # which is there already, and cannot be moved
        network.to(place)  # type: ignore[arg-type]
    adapters = add_adapters(network, lora, seed) if lora is not None else None
    quicken(network)
    student = Student(
        network=network,
        tokenizer=tokenizer,
        formatting=formatting,
        labels=tuple(label_set) if label_set else None,
        settings=settings,
    )
    sets = [tuple(label_set)] if label_set else [e.choices for e in examples if e.choices]
    label_token_ids(student, sets)  # two choices that tokenise alike must fail now, not at the end

    if choice.rationale_in == "target":
        check_marker(answer_marker, tokenizer)
    encoded = encode(
        training,
        tokenizer,
        formatting,
        rationales=choice.name == "multitask",
        soft_labels=choice.name == "soft_label",
    )
    teacher = None
    if isinstance(choice.white_box, WhiteBox):
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
    objective_of = choose_objective(
        choice,
        rationale_start=int(tokenizer.eos_token_id),
        teacher=teacher.ask if teacher else None,
    )
    batches_of = partial(
        epoch_batches,
        encoded.lengths(),
        batch_size * gradient_accumulation,
        confidences=_confidences(training, encoded.order) if curriculum else None,
        seed=seed,
    )
    steps = epochs * len(batches_of(epoch=1))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=weight_decay, fused=place.type in ("cpu", "cuda")
    )

    what_counts = {name: value for name, value in options.items() if name not in NEUTRAL}
    what_counts |= {"precision": precision, "device": place.type, "processes": processes.count}
    what_counts |= {"the white-box teacher": teacher.weights if teacher else None}
    identity = identity_of(network, [*training, *validation], {**settings, **what_counts})
    checkpoint = state_file(output)
    state = begin_or_resume(
        checkpoint, network, optimizer, identity, resume=resume, micro_batch=batch_size
    )
    processes.check_alike("the step to go on after", state.resumed_from)
    tell = listeners(on_progress, callbacks, report_to, output, state.run)
    if not processes.first:
        tell = _tell_nobody
    facts = {"steps": steps, "epochs": epochs, "rows": len(encoded.order)}
    tell("train_begin", {**facts, "options": options, "resumed_from": state.resumed_from})
    loop_started = written = time.perf_counter()
    earlier, rows_seen = state.seconds(), 0

    # Whatever is random in here depends on (seed, epoch, step) alone, and the caller's random state
    # stays as it was: a loop that starts again at some step goes on exactly as this one would.
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        for epoch in range(len(state.epochs) + 1, epochs + 1):
            if state.is_stale(early_stopping):
                break
            batches = batches_of(epoch=epoch)
            for places in batches[len(state.steps) - (epoch - 1) * len(batches) :]:
                step = len(state.steps) + 1
                network.train()
                rows = [encoded.order[i] for i in places]
                total, label, rationale, soft = step_gradient(
                    student,
                    encoded,
                    rows,
                    objective_of,
                    state,
                    precision=precision,
                    dropout_seed=(seed * 1_000_003 + step) % 2**63,
                    processes=processes,
                    sample=teacher.sample if teacher else None,
                )
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm))
                rate = rate_at(step, steps, learning_rate, schedule, warmup_ratio)
                if not (math.isfinite(total) and math.isfinite(norm)):
                    raise TrainingError(_diverged(step, epoch, total, norm, rate, precision))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                return_freed_memory(place)

                rows_seen += len(rows)
                spent = time.perf_counter() - loop_started
                now = {
                    "step": step,
                    "epoch": epoch,
                    "loss": total,
                    "label_loss": label,
                    "rationale_loss": rationale if choice.name == "multitask" else None,
                    "soft_loss": soft if choice.is_soft else None,
                    "learning_rate": rate,
                    "seconds": round(earlier + spent, 3),
                }
                state.steps.append(now)
                pace = {"rows_per_second": rows_seen / spent}
                pace["eta_seconds"] = spent / (step - state.resumed_from) * (steps - step)
                tell("step_end", {**now, "steps": steps, "epochs": epochs, **pace})
                if processes.first and is_due(step, checkpoint_every, since=written):
                    write_state(checkpoint, state, network, optimizer, identity)
                    written = time.perf_counter()
                    tell("checkpoint", {"step": step, "file": str(checkpoint)})

            found = validate(student, validation, precision) if processes.first else None
            state.epochs.append({"epoch": epoch, **processes.told_by_first(found)})
            if early_stopping is not None:
                state.keep_if_best(network)
            tell("epoch_end", {**state.epochs[-1], "step": len(state.steps)})

    state.restore_best(network)
    take_teacher_out(network)
    if adapters is not None:
        network = merged_network(
            adapters, base=model if load_in_4bit else None, lora=lora, seed=seed
        )
    history = {
        "steps": state.steps,
        "epochs": state.epochs,
        "best_epoch": state.best_epoch or len(state.epochs),
        "truncated": encoded.truncated,
        "left_out": left_out,
        "rows": len(encoded.order),
        "validation_rows": len(validation),
        "options": options,
        "precision": precision,
        "device": str(place),
        "processes": processes.count,
        "micro_batch": state.micro_batch,
        "resumed_from": state.resumed_from,
        "notes": state.notes,
        "seconds": round(earlier + time.perf_counter() - started, 2),
    }
    if processes.first:
        texts = {
            SETTINGS_FILE: json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
            "history.json": json.dumps(history, indent=1) + "\n",
            "README.md": model_card(settings, history, name=output.resolve().name),
        }
        save_checkpoint(network, tokenizer, output, texts=texts)
        checkpoint.unlink(missing_ok=True)
    processes.wait()
    tell("train_end", {**facts, "output": str(output), "epochs": len(state.epochs)})
    return result_of(output, history)


def _tell_nobody(event: str, values: Mapping[str, Any]) -> None:
    """Take the place of the listeners in processes that are not to report."""


def _confidences(training: Sequence[Example], order: Sequence[int]) -> list[float | None]:
    found = [training[row].confidence for row in order]
    if all(confidence is None for confidence in found):
        raise InputError(
            "curriculum='confidence' needs a column confidence, and no training row has one; label "
            "with a teacher that gives probabilities, or leave the curriculum out"
        )
    return found


def _diverged(step: int, epoch: int, loss: float, norm: float, rate: float, precision: str) -> str:
    advice = "a lower learning_rate (it is usual between 1e-4 and 1e-3) or a longer warmup_ratio"
    if precision == "bf16":
        advice += ", or precision='fp32'"
    return (
        f"the loss became {loss} (gradient norm {norm}) at step {step} of epoch {epoch}, with a "
        f"learning rate of {rate:.2g}; nothing was saved. Try {advice}"
    )
