"""The model card: a README.md that says what a student is, what it was made of, and its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from student.errors import CheckpointError

__all__ = ["model_card", "write_card"]


def model_card(
    settings: Mapping[str, Any],
    history: Mapping[str, Any],
    *,
    name: str,
    task: str | None = None,
    data: str | None = None,
    teacher: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return a model card: YAML front matter, then Markdown.

    `settings` and `history` are what student.json and history.json hold. `task`, `data` and
    `teacher` are a sentence each; `metrics` is what `evaluate` returned on human gold; `notes` are
    further lines for "Limits". What is not given is said to be not stated, never made up. The
    licence is left for whoever publishes the model.
    """
    parts = [
        _front_matter(settings, metrics),
        f"# {name}",
        "A small T5 student, distilled with curate-distill."
        if settings.get("target") == "label"
        else "A small T5 student, trained on human labels with curate-distill.",
        "## Task\n\n" + (task or "Not stated.") + _labels_line(settings),
        "## How to use\n\n" + _usage(settings),
        "## Data and teacher\n\n" + _data(settings, history, data, teacher),
        "## Training\n\n" + _training(settings, history),
        "## Results\n\n" + _results(history, metrics),
        "## Limits\n\n" + _limits(settings, history, notes),
        "## Licence\n\n"
        "Not stated. Before publishing, check the licences of the base model, of the data, and the "
        "terms of the teacher (some providers restrict training on their output), then fill in "
        "`license:` above and this section.",
    ]
    return "\n\n".join(parts) + "\n"


def write_card(
    folder: str | Path,
    *,
    name: str | None = None,
    base_model: str | None = None,
    task: str | None = None,
    data: str | None = None,
    teacher: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write README.md anew in a student folder, with what became known after training.

    `name` is the title, by default the folder's name; `base_model` is what the base model is called
    in public, where it was trained from a local copy; the rest is as in `model_card`.

    Raises `CheckpointError` where the folder is no student or cannot be written.
    """
    folder = Path(folder)
    card = folder / "README.md"
    try:
        settings = json.loads((folder / "student.json").read_text(encoding="utf-8"))
        history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        if base_model is not None:
            settings["base_model"] = base_model
        text = model_card(
            settings,
            history,
            name=name or folder.resolve().name,
            task=task,
            data=data,
            teacher=teacher,
            metrics=metrics,
            notes=notes,
        )
        fresh = card.with_name(".README.md.partial")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(card)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot write a model card into {folder}: {error}; give a folder that train wrote"
        ) from error
    return card


def _front_matter(settings: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text2text-generation",
        "tags": ["t5", "distillation", "curate-distill"],
    }
    if re.fullmatch(r"[\w.-]+/[\w.-]+", settings["base_model"]):
        fields["base_model"] = settings["base_model"]  # a Hub id; the Hub refuses anything else
    if metrics:
        fields["metrics"] = ["accuracy", "f1"] if metrics.get("macro_f1") else ["accuracy"]
    return (
        f"---\n# license: fill in before publishing\n{yaml.safe_dump(fields, sort_keys=False)}---"
    )


def _labels_line(settings: Mapping[str, Any]) -> str:
    labels = settings.get("labels")
    if labels:
        return "\n\nLabels: " + ", ".join(f"`{label}`" for label in labels) + "."
    if settings.get("choices_differ_by_row"):
        return "\n\nEvery example brings its own choices."
    return "\n\nThe answer is free text."


def _usage(settings: Mapping[str, Any]) -> str:
    prefix = settings.get("label_prefix") or ""
    said = f"Inputs start with `{prefix}`, which `student.predict` adds." if prefix else ""
    choices = ", choices=[...]" if settings.get("choices_differ_by_row") else ""
    return (
        "```python\nimport student\n\n"
        f'print(student.predict("path/to/this/folder", ["some text"]{choices}))\n```\n\n'
        "It is a normal Hugging Face folder, so `AutoModelForSeq2SeqLM.from_pretrained` loads it "
        f"too. {said}"
    ).rstrip()


def _data(
    settings: Mapping[str, Any],
    history: Mapping[str, Any],
    data: str | None,
    teacher: str | None,
) -> str:
    lines = [
        f"- Data: {data or 'not stated'}",
        f"- Labels learned: {'the teacher' if settings.get('target') == 'label' else 'people'}'s",
        f"- Teacher: {teacher or 'not stated'}",
        f"- Training rows: {history['rows']}; validation rows: {history['validation_rows']}",
    ]
    left_out = ", ".join(f"{count} {why}" for why, count in history.get("left_out", {}).items())
    if left_out:
        lines.append(f"- Rows given but not trained on: {left_out}")
    return "\n".join(lines)


def _training(settings: Mapping[str, Any], history: Mapping[str, Any]) -> str:
    options = history["options"]
    objective = "label only"
    if settings["objective"] == "multitask":
        objective = f"multitask, label and rationale, alpha {options['alpha']}"
    return "\n".join(
        [
            f"- Base model: `{settings['base_model']}`",
            f"- Objective: {objective}",
            f"- Epochs: {len(history['epochs'])} (weights of epoch {history['best_epoch']}), "
            f"{len(history['steps'])} steps of "
            f"{options['batch_size'] * options['gradient_accumulation']} rows",
            f"- Learning rate: {options['learning_rate']:g}, {options['schedule']}, warm-up "
            f"{options['warmup_ratio']:g} of the steps; AdamW; seed {options['seed']}; "
            f"{history['precision']}",
            f"- Took {history['seconds']:.0f} s on {history['device']}",
        ]
    )


def _results(history: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    lines = []
    if metrics:
        lines += ["| metric | value | 95 % interval |", "|---|---|---|"]
        for metric in ("accuracy", "macro_f1"):
            found = metrics.get(metric)
            if found:
                lines.append(
                    f"| {metric} | {found['value']:.3f} | {found['low']:.3f} to {found['high']:.3f} |"
                )
        lines += ["", f"On {metrics['n']} examples labelled by people, none of them trained on."]
    else:
        lines.append("Not yet evaluated on human labels.")
    kept = history["epochs"][history["best_epoch"] - 1]
    if kept.get("validation_accuracy") is not None:
        lines += [
            "",
            f"Validation accuracy: {kept['validation_accuracy']:.3f} (same kind of labels).",
        ]
    return "\n".join(lines)


def _limits(settings: Mapping[str, Any], history: Mapping[str, Any], notes: Sequence[str]) -> str:
    lines = [
        f"- Inputs longer than {settings['max_input_tokens']} tokens are cut at the end.",
        "- It knows the kind of text and the language it was trained on; elsewhere, test it first.",
    ]
    if settings.get("target") == "label":
        lines.append("- It learned from a teacher's labels and repeats the teacher's errors.")
    if settings.get("labels"):
        lines.append("- It always answers with one of its labels, also where none fits.")
    cut = {part: count for part, count in history.get("truncated", {}).items() if count}
    if cut:
        counted = ", ".join(f"{count} {part}" for part, count in cut.items())
        lines.append(f"- Cut at a token limit in training: {counted}.")
    return "\n".join([*lines, *(f"- {note}" for note in notes)])
