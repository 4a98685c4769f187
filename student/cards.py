"""The model card: a README.md that says what a student is, what it was made of, and its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from student.errors import CheckpointError

__all__ = ["exported_card", "model_card", "write_card"]


def model_card(
    settings: Mapping[str, Any],
    history: Mapping[str, Any],
    *,
    name: str,
    task: str | None = None,
    data: str | None = None,
    teacher: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    costs: Sequence[str] = (),
    speed: Mapping[str, Any] | None = None,
    licences: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return a model card: YAML front matter, then Markdown.

    `settings` and `history` are what student.json and history.json hold. `task`, `data` and
    `teacher` are a sentence each; `metrics` is what `evaluate` returned on human gold, `speed` what
    `measure` did; `costs`, `licences` and `notes` are further lines for "Costs", "Licence" and
    "Limits". What is not given is said to be not stated, never made up. The licence itself is left
    for whoever publishes the model.
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
        "## Costs\n\n" + _costs(history, costs, speed),
        "## Limits\n\n" + _limits(settings, history, notes),
        "## Licence\n\n" + _licence(settings, licences),
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
    costs: Sequence[str] = (),
    speed: Mapping[str, Any] | None = None,
    licences: Sequence[str] = (),
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
            costs=costs,
            speed=speed,
            licences=licences,
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


def exported_card(text: str, settings: Mapping[str, Any], *, name: str) -> str:
    """Return a student's card changed into that of its export: title, library, use, and the gate.

    `settings` is the export's student.json.
    """
    done = settings["export"]
    library = done["format"]
    text = re.sub(r"(?m)^library_name: .*$", f"library_name: {library}", text, count=1)
    text = re.sub(r"(?m)^# (?!license).*$", lambda _: f"# {name}", text, count=1)
    use = _usage(settings)
    if library != "transformers":
        use = use.partition("It is a normal Hugging Face folder")[0].rstrip()
        use += "\n\nIt needs `pip install 'curate-distill[export]'`."
    section = f"## How to use\n\n{use}\n\n## Export\n\n{_export(done)}\n\n"
    before, found, after = text.partition("## How to use\n")
    rest = after.partition("\n## ")[2]
    return f"{before}{section}## {rest}" if found else f"{text.rstrip()}\n\n{section}"


def _export(done: Mapping[str, Any]) -> str:
    lines = [f"Converted to {done['format']}, weights in {done['quantization']}."]
    if not done["checked"]:
        lines.append("Its answers have not been compared with the original's.")
    else:
        lines.append(
            f"On {done['rows']} rows {done['agreement']:.1%} of its answers are the original's (at "
            f"least {done['min_agreement']:.1%} was asked for)."
        )
    if done.get("accuracy") is not None:
        lines.append(
            f"Accuracy on those with a human label: {done['accuracy']:.1%}, and the original's "
            f"{done['accuracy_of_original']:.1%}."
        )
    return "\n".join(f"- {line}" for line in lines)


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
    if settings.get("rationale_in") == "input":
        choices += ', rationales=["why"]'
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


def _objective(settings: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    name, soft = settings["objective"], ""
    if "soft_weight" in settings:
        soft = f", weight {settings['soft_weight']:g}, temperature {settings['temperature']:g}"
    white_box = settings.get("white_box") or {}
    words = {
        "multitask": f"multitask, label and rationale, alpha {options['alpha']}"
        + (", one encoder pass for both" if settings.get("shared_encoder") else ""),
        "rationale_then_label": "rationale, then label, as one target",
        "rationale_as_input": "label, from the text and a rationale",
        "soft_label": f"label, and the teacher's probabilities of the labels{soft}",
        "white_box": f"label, and the token probabilities of the T5 `{white_box.get('teacher')}` "
        f"({white_box.get('divergence')}{soft})",
    }
    return words.get(name, "label only")


def _training(settings: Mapping[str, Any], history: Mapping[str, Any]) -> str:
    options = history["options"]
    objective = _objective(settings, options)
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
        for metric, found in metrics.items():
            if isinstance(found, Mapping) and "value" in found:
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


def _costs(
    history: Mapping[str, Any], costs: Sequence[str], speed: Mapping[str, Any] | None
) -> str:
    lines = [*costs, f"Training: {history['seconds']:.0f} s on {history['device']}"]
    if speed:
        lines += [
            f"Predicting, on the machine it was made on ({speed['threads']} threads): "
            f"{speed['rows_per_second']:.0f} rows/s in batches of {speed['batch_size']}; one row alone "
            f"takes {speed['latency_p50_ms']:.1f} ms (median) to {speed['latency_p95_ms']:.1f} ms (p95)",
            f"Memory: at most {speed['peak_memory_mb']:.0f} MB for the whole process",
        ]
        if speed.get("size_on_disk_mb"):
            lines.append(f"On disk: {speed['size_on_disk_mb']:.1f} MB")
    return "\n".join(f"- {line}" for line in lines)


def _licence(settings: Mapping[str, Any], licences: Sequence[str]) -> str:
    lines = list(licences)
    base = str(settings["base_model"])
    if re.fullmatch(r"google(-t5)?/(flan-|u?m|by)?t5-[\w.-]+|t5-\w+", base):
        lines.insert(
            0, f"`{base}` is published under Apache-2.0 by its model card; see that it still is."
        )
    told = "Not stated. " if not lines else "".join(f"- {line}\n" for line in lines) + "\n"
    return (
        f"{told}Before publishing, check the licences of the base model, of the data, and the "
        "terms of the teacher (some providers restrict training on their output), then fill in "
        "`license:` above and this section."
    )


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
