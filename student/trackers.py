"""Where a training's curves go: functions that are told of events, two of them ready made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from student.errors import InputError

__all__ = ["TRACKERS", "Callback", "check_trackers", "listeners"]

TRACKERS = ("tensorboard", "wandb")

Callback = Callable[[str, Mapping[str, Any]], object]
"""Is told of an event by name: `train_begin`, `step_end`, `epoch_end`, `checkpoint`, `train_end`."""

_IN_CURVES = ("loss", "label_loss", "rationale_loss", "learning_rate", "rows_per_second")


def check_trackers(report_to: Sequence[str] | None) -> tuple[str, ...]:
    """Return the trackers' names: a text is one name, and None and "none" are no tracker.

    Raises `InputError` for a tracker that is not known, or whose library is missing.
    """
    names = [report_to] if isinstance(report_to, str) else report_to or ()
    known = (*TRACKERS, "none")
    if not isinstance(names, Sequence) or any(name not in known for name in names):
        raise InputError(
            f"report_to={report_to!r}; it must be a list of: {', '.join(TRACKERS)}, one of them alone, "
            "or 'none' (others: give a function of your own as a callback)"
        )
    chosen = tuple(name for name in TRACKERS if name in names)
    if "tensorboard" in chosen:
        _summary_writer()
    if "wandb" in chosen:
        _wandb()
    return chosen


def listeners(
    on_progress: Callable[[Mapping[str, Any]], None] | None,
    callbacks: Sequence[Callback],
    report_to: Sequence[str],
    output: Path,
    run: str,
) -> Callback:
    """Return one callback that tells `on_progress` (steps only), `callbacks` and trackers, in order.

    TensorBoard's files go to the folder `<output>-tensorboard`. Weights & Biases takes project, mode
    and place from its own variables (WANDB_PROJECT, WANDB_MODE, WANDB_DIR); the run is named as the
    output is, and a resumed training goes on in the same run, which `run` identifies.
    """
    told = list(callbacks)
    if "tensorboard" in report_to:
        told.append(_tensorboard(output.with_name(f"{output.name}-tensorboard")))
    if "wandb" in report_to:
        told.append(_weights_and_biases(output.name, run))

    def tell(event: str, values: Mapping[str, Any]) -> None:
        if on_progress is not None and event == "step_end":
            on_progress(values)
        for callback in told:
            callback(event, values)

    return tell


def _tensorboard(folder: Path) -> Callback:
    writer: Any = None

    def tell(event: str, values: Mapping[str, Any]) -> None:
        nonlocal writer
        if event == "train_begin":
            # Of a killed training, the steps after its checkpoint are drawn anew.
            writer = _summary_writer()(str(folder), purge_step=values["resumed_from"] + 1)
            lines = (f"{key}: {value}  " for key, value in values["options"].items())
            writer.add_text("options", "\n".join(lines))
        for key, value in _curves(event, values).items():
            writer.add_scalar(key, value, values["step"])
        if event in ("epoch_end", "checkpoint"):
            writer.flush()
        if event == "train_end":
            writer.close()

    return tell


def _weights_and_biases(name: str, run: str) -> Callback:
    running: Any = None

    def tell(event: str, values: Mapping[str, Any]) -> None:
        nonlocal running
        if event == "train_begin":
            config = dict(values["options"])
            running = _wandb().init(id=run, name=name, resume="allow", config=config)
        curves = _curves(event, values)
        if curves:
            # As numbers beside the step, since W&B refuses a step that it has seen before.
            running.log({**curves, "step": values["step"]})
        if event == "train_end":
            running.finish()

    return tell


def _curves(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers to draw, named as transformers names them."""
    if event == "step_end":
        return {f"train/{key}": values[key] for key in _IN_CURVES if values.get(key) is not None}
    if event == "epoch_end":
        found = {key: values[f"validation_{key}"] for key in ("loss", "accuracy")}
        return {f"eval/{key}": value for key, value in found.items() if value is not None}
    return {}


def _summary_writer() -> Any:
    for home in ("torch.utils.tensorboard", "tensorboardX"):
        try:
            return import_module(home).SummaryWriter
        except ImportError:
            continue
    raise InputError(
        "report_to 'tensorboard' needs tensorboard: pip install 'curate-distill[tensorboard]'"
    )


def _wandb() -> Any:
    try:
        return import_module("wandb")
    except ImportError as error:
        raise InputError("report_to 'wandb' needs wandb: pip install wandb") from error
