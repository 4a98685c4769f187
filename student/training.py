"""Train a T5 student: one loop that reads from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from student.batches import Formatting, bucketed_batches, collate, encode
from student.cards import model_card
from student.checkpoints import check_output, load_checkpoint, save_checkpoint
from student.devices import autocast, resolve_device, resolve_precision, return_freed_memory
from student.errors import InputError, TrainingError
from student.examples import Example, read_examples, shared_labels, split_validation
from student.objectives import Denominators, label_only, multitask
from student.prediction import SETTINGS_FILE, Student, label_token_ids, predict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["OBJECTIVES", "SCHEDULES", "TrainingResult", "train"]

OBJECTIVES = ("multitask", "label")
SCHEDULES = ("linear", "constant")
VALIDATION_BATCH = 32
_PREFIX = {"multitask": "[label] ", "label": ""}  # none in label-only, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What `train` did. `history` is what history.json holds; `seconds` is wall time.

    `rows` counts training examples with their copies; `loss` is the mean over the last epoch's
    steps; `best_epoch` is the epoch whose weights were kept; `left_out` and `truncated` count rows
    not trained on and rows cut at a token limit.
    """

    output: Path
    rows: int
    steps: int
    epochs: int
    best_epoch: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    truncated: Mapping[str, int]
    left_out: Mapping[str, int]
    precision: str
    device: str
    seconds: float
    history: Mapping[str, Any]


def train(
    data: object,
    *,
    model: str | Path,
    output: str | Path,
    objective: str = "multitask",
    target: str = "label",
    labels: Sequence[str] | None = None,
    alpha: float = 0.5,
    epochs: int = 2,
    batch_size: int = 16,
    gradient_accumulation: int = 1,
    learning_rate: float = 5e-4,
    schedule: str = "linear",
    warmup_ratio: float = 0.1,
    weight_decay: float = 0.0,
    max_gradient_norm: float = 1.0,
    template: str | None = None,
    label_prefix: str | None = None,
    rationale_prefix: str = "[rationale] ",
    max_input_tokens: int = 512,
    max_label_tokens: int = 64,
    max_rationale_tokens: int = 128,
    precision: str = "auto",
    validation_fraction: float = 0.0,
    early_stopping: int | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainingResult:
    """Train the T5 `model` (folder or Hub id) on `data` and save the student as folder `output`.

    Data
        `data` is a DataFrame, a `datasets.Dataset` or a list of dicts; `read_examples` says which
        columns count. Rows of split "test" and rows with `keep` false are never trained on. `target`
        is "label" (the teacher's) or "gold" (a person's). `labels` is the closed label set; without
        it the `choices` column says, if every row has the same.
    Objective
        "multitask" learns label and rationale, weighted `alpha` and 1 - `alpha`; "label" the label
        alone. `label_prefix` defaults to "[label] " for multitask and to nothing for label.
        `template`, the template that rendered `input`, is only noted in student.json.
    Steps
        One optimizer step (AdamW) sees `batch_size * gradient_accumulation` rows, `batch_size` at a
        time; the gradient is the same as of one large batch. `schedule` is "linear" (to zero) or
        "constant", after a linear warm-up over `warmup_ratio` of the steps. Limits are in tokens.
    Validation
        Rows of split "validation", else `validation_fraction` of the training rows, carved by
        `group` (and equal inputs kept together). With `early_stopping=p` training ends after p
        epochs without a lower validation loss, and the best epoch's weights are kept.
    Progress
        `on_progress` receives, after every step, {"step", "steps", "epoch", "epochs", "loss",
        "label_loss", "rationale_loss", "learning_rate", "rows_per_second", "eta_seconds"}.

    The folder holds config.json, model.safetensors, the tokenizer, README.md (model card),
    student.json (how inputs are written, the label set) and history.json. Same seed, data and
    machine give the same weights.

    Raises `InputError` for options or data that cannot work, `CheckpointError` when the model does
    not load or the folder cannot be written, `TrainingError` when the loss stops being a number.
    """
    options = {name: value for name, value in locals().items() if name in _ALLOWED}
    _check_options(options)
    started = time.perf_counter()
    output = Path(output)
    check_output(output)
    place = resolve_device(device)
    precision = resolve_precision(precision, place)

    examples, left_out = read_examples(data, target=target)
    label_set = shared_labels(examples, labels)
    training, validation = split_validation(examples, validation_fraction, seed)
    multitasking = objective == "multitask"
    _check_rows(training, validation, multitasking, early_stopping)
    formatting = Formatting(
        label_prefix=label_prefix if label_prefix is not None else _PREFIX[objective],
        rationale_prefix=rationale_prefix,
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
        **asdict(formatting),
    }
    network, tokenizer = load_checkpoint(model)
    network.to(place)  # type: ignore[arg-type]
    student = Student(
        network=network,
        tokenizer=tokenizer,
        formatting=formatting,
        labels=tuple(label_set) if label_set else None,
        settings=settings,
    )
    sets = [tuple(label_set)] if label_set else [e.choices for e in examples if e.choices]
    label_token_ids(student, sets)  # two choices that tokenise alike must fail now, not at the end

    encoded = encode(training, tokenizer, formatting, rationales=multitasking)
    pad = int(tokenizer.pad_token_id)
    objective_of = partial(multitask, alpha=alpha) if multitasking else label_only
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=weight_decay, fused=place.type in ("cpu", "cuda")
    )
    rows_per_step = batch_size * gradient_accumulation
    lengths = encoded.lengths()
    steps = epochs * len(bucketed_batches(lengths, rows_per_step, seed=seed, epoch=1))
    step_log: list[dict[str, Any]] = []
    epoch_log: list[dict[str, Any]] = []
    best = _Best(loss=math.inf, epoch=0, weights={})
    rows_seen, loop_started = 0, time.perf_counter()

    # Whatever is random in here depends on (seed, epoch, step) alone, and the caller's random state
    # stays as it was: a loop that starts again at some step goes on exactly as this one would.
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        for epoch in range(1, epochs + 1):
            for places in bucketed_batches(lengths, rows_per_step, seed=seed, epoch=epoch):
                step = len(step_log) + 1
                torch.manual_seed((seed * 1_000_003 + step) % 2**63)  # dropout
                network.train()
                rows = [encoded.order[i] for i in places]
                parts = [
                    collate(encoded, rows[start : start + batch_size], pad_token_id=pad).to(place)
                    for start in range(0, len(rows), batch_size)
                ]
                denominators = Denominators.of(*parts)  # of the whole step: exact accumulation
                losses = []
                for part in parts:
                    with autocast(precision, place):
                        loss = objective_of(network, part, denominators)
                    loss.total.backward()  # type: ignore[no-untyped-call]
                    losses.append(loss.parts())
                total, label, rationale = (sum(values) for values in zip(*losses, strict=True))
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm))
                rate = _learning_rate(step, steps, learning_rate, schedule, warmup_ratio)
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
                    "rationale_loss": rationale if multitasking else None,
                    "learning_rate": rate,
                    "seconds": round(spent, 3),
                }
                step_log.append(now)
                if on_progress is not None:
                    pace = {"rows_per_second": rows_seen / spent}
                    pace["eta_seconds"] = spent / step * (steps - step)
                    on_progress({**now, "steps": steps, "epochs": epochs, **pace})

            epoch_log.append({"epoch": epoch, **_validate(student, validation, precision)})
            if early_stopping is not None:
                best = _better(best, epoch, epoch_log[-1]["validation_loss"], network)
                if epoch - best.epoch >= early_stopping:
                    break

    if best.weights:
        network.load_state_dict(best.weights)
    history = {
        "steps": step_log,
        "epochs": epoch_log,
        "best_epoch": best.epoch or len(epoch_log),
        "truncated": encoded.truncated,
        "left_out": left_out,
        "rows": len(encoded.order),
        "validation_rows": len(validation),
        "options": options,
        "precision": precision,
        "device": str(place),
        "seconds": round(time.perf_counter() - started, 2),
    }
    texts = {
        SETTINGS_FILE: json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
        "history.json": json.dumps(history, indent=1) + "\n",
        "README.md": model_card(settings, history, name=output.resolve().name),
    }
    save_checkpoint(network, tokenizer, output, texts=texts)
    return _result(output, history)


def _result(output: Path, history: Mapping[str, Any]) -> TrainingResult:
    steps, epochs = history["steps"], history["epochs"]
    last = [entry["loss"] for entry in steps if entry["epoch"] == len(epochs)]
    kept = epochs[history["best_epoch"] - 1]
    return TrainingResult(
        output=output,
        rows=history["rows"],
        steps=len(steps),
        epochs=len(epochs),
        best_epoch=history["best_epoch"],
        loss=sum(last) / len(last),
        validation_loss=kept["validation_loss"],
        validation_accuracy=kept["validation_accuracy"],
        truncated=history["truncated"],
        left_out=history["left_out"],
        precision=history["precision"],
        device=history["device"],
        seconds=history["seconds"],
        history=history,
    )


def _learning_rate(step: int, steps: int, peak: float, schedule: str, warmup_ratio: float) -> float:
    """Return the rate of step 1..steps: up to `peak` in a line, then constant or down to zero."""
    warmup = math.ceil(warmup_ratio * steps)
    if step <= warmup:
        return peak * step / warmup
    if schedule == "constant":
        return peak
    return peak * (steps - step + 1) / (steps - warmup + 1)


def _validate(
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
        for start in range(0, len(validation), VALIDATION_BATCH):
            rows = by_length[start : start + VALIDATION_BATCH]
            batch = collate(encoded, rows, pad_token_id=pad).to(network.device)
            weights.append(Denominators.of(batch).label)
            losses.append(float(label_only(network, batch).label) * weights[-1])
    own = [list(example.choices or ()) for example in validation]
    answers = predict(
        student,
        [example.input for example in validation],
        choices=own if student.labels is None and all(own) else None,
        batch_size=VALIDATION_BATCH,
        precision=precision,
    )["prediction"]
    right = sum(a == e.target for a, e in zip(answers, validation, strict=True))
    return {
        "validation_loss": sum(losses) / sum(weights),
        "validation_accuracy": right / len(validation),
    }


@dataclass(frozen=True, kw_only=True)
class _Best:
    """The epoch with the lowest validation loss so far, and its weights, on the CPU."""

    loss: float
    epoch: int
    weights: Mapping[str, torch.Tensor]


def _better(best: _Best, epoch: int, loss: float, network: PreTrainedModel) -> _Best:
    if loss >= best.loss:
        return best
    weights = {name: t.detach().cpu().clone() for name, t in network.state_dict().items()}
    return _Best(loss=loss, epoch=epoch, weights=weights)


def _check_rows(
    training: Sequence[Example],
    validation: Sequence[Example],
    multitasking: bool,
    early_stopping: int | None,
) -> None:
    if multitasking and not any(example.rationale for example in training):
        raise InputError(
            "objective='multitask' needs a rationale column with texts and no training row has one; "
            "ask the teacher for rationales, or use objective='label'"
        )
    if early_stopping is not None and not validation:
        raise InputError(
            "early_stopping needs validation rows; set validation_fraction, for example to 0.1"
        )


def _diverged(step: int, epoch: int, loss: float, norm: float, rate: float, precision: str) -> str:
    advice = "a lower learning_rate (it is usual between 1e-4 and 1e-3) or a longer warmup_ratio"
    if precision == "bf16":
        advice += ", or precision='fp32'"
    return (
        f"the loss became {loss} (gradient norm {norm}) at step {step} of epoch {epoch}, with a "
        f"learning rate of {rate:.2g}; nothing was saved. Try {advice}"
    )


def _whole(minimum: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= minimum


def _number(allowed: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and allowed(value)


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "objective": (lambda v: v in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}"),
    "schedule": (lambda v: v in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "alpha": (_number(lambda v: 0 <= v <= 1), "between 0 and 1"),
    "epochs": (_whole(1), "a whole number, at least 1"),
    "batch_size": (_whole(1), "a whole number, at least 1"),
    "gradient_accumulation": (_whole(1), "a whole number, at least 1"),
    "learning_rate": (_number(lambda v: 0 < v < 1), "above 0 and below 1"),
    "warmup_ratio": (_number(lambda v: 0 <= v <= 1), "between 0 and 1"),
    "weight_decay": (_number(lambda v: v >= 0), "at least 0"),
    "max_gradient_norm": (_number(lambda v: v > 0), "above 0"),
    "max_input_tokens": (_whole(8), "a whole number, at least 8"),
    "max_label_tokens": (_whole(2), "a whole number, at least 2"),
    "max_rationale_tokens": (_whole(2), "a whole number, at least 2"),
    "validation_fraction": (_number(lambda v: 0 <= v < 1), "from 0 to below 1"),
    "early_stopping": (lambda v: v is None or _whole(1)(v), "null or a whole number, at least 1"),
    "seed": (_whole(0), "a whole number, at least 0"),
}


def _check_options(options: Mapping[str, Any]) -> None:
    for name, (allowed, words) in _ALLOWED.items():
        if not allowed(options[name]):
            raise InputError(f"{name}={options[name]!r}; it must be {words}")
