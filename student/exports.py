"""Exports: a student in a format that runs faster, or elsewhere, and answers the same.

Every export is held against the student it was made from, on rows that are given, before it stands
under its name. Quantising with a library's defaults can halve a student's accuracy without an error.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from student.cards import exported_card
from student.checkpoints import FAMILIES, replace_folder, save_checkpoint
from student.ctranslate2_network import QUANTIZATIONS, write_ctranslate2
from student.errors import CheckpointError, ExportError, InputError, StudentError
from student.loading import SETTINGS_FILE, Student, find_folder, load, read_settings
from student.measurements import size_on_disk
from student.metrics import accuracy
from student.onnx_network import write_onnx
from student.prediction import predict

__all__ = ["FORMATS", "Export", "export"]

FORMATS = ("ctranslate2", "onnx", "transformers")
KINDS = {
    "ctranslate2": ("t5", "mt5", "umt5"),
    "onnx": FAMILIES,
    "transformers": FAMILIES,
}
"""Of each format, the values of `model_type` that it can be made of."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """An exported folder and what the gate found.

    `report`: {"format", "quantization", "rows", "agreement", "accuracy", "accuracy_of_original",
    "min_agreement", "max_accuracy_drop", "checked", "size_on_disk_mb", "size_of_original_mb"}; the
    accuracies are null where no gold was given.
    """

    folder: Path
    report: Mapping[str, Any]


def export(
    model: str | Path,
    output: str | Path,
    *,
    to: str = "ctranslate2",
    inputs: Sequence[str],
    gold: Sequence[str | None] | None = None,
    choices: Sequence[Sequence[str]] | Sequence[str] | None = None,
    rationales: Sequence[str | None] | None = None,
    quantization: str = "int8",
    method: str = "auto",
    min_agreement: float = 0.98,
    max_accuracy_drop: float = 0.01,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> Export:
    """Write a student in another format, if it answers as the student itself does.

    `to`: "ctranslate2" (weights in `quantization`, "int8" or "float32"; the fast way on a CPU),
    "onnx" (fp32 encoder and decoder), "transformers" (a plain folder in safetensors; low-rank
    adapters are merged). `student.load` and `predict` read each of them.

    The gate: on `inputs` at least `min_agreement` of the predictions must be the original's own
    (fp32), and where `gold` is given accuracy may fall by at most `max_accuracy_drop`. Both are
    shares. `choices`, `rationales` and `method` are as in `predict`. Where onnxruntime is not
    installed an ONNX export is written unchecked, and says so.

    `model` is a folder, or a Hub id of a student, with weights in safetensors. `on_progress` receives
    {"done", "total"}: rows predicted by the student and by its export.

    Raises `InputError` for bad input or a missing library, `ExportError` where the gate refuses: then
    nothing is left but `<output>.refused.json`, which says why.
    """
    _check(to, quantization, inputs, gold, min_agreement, max_accuracy_drop)
    source, target = _source(model, to), Path(output)
    _check_target(source, target)
    tell = on_progress or (lambda event: None)
    original = load(source)
    if original.format != "transformers":
        raise InputError(
            f"{source} is a {original.format} export already; export the student it was made from"
        )
    with _beside(target) as partial:
        _write(original, source, partial, to, quantization)
        report = {
            "format": to,
            "quantization": quantization if to == "ctranslate2" else "float32",
            "decoder_start_token_id": int(original.network.config.decoder_start_token_id),
            "rows": len(inputs),
            "min_agreement": min_agreement,
            "max_accuracy_drop": max_accuracy_drop,
            "size_of_original_mb": size_on_disk(source),
        }
        _settle(partial, source, report)
        if to == "onnx" and find_spec("onnxruntime") is None:
            found: dict[str, Any] = {"checked": False}
        else:
            asked = {"choices": choices, "rationales": rationales, "method": method}
            found = _gate(original, partial, inputs, gold, asked, tell)
        report |= found | {"size_on_disk_mb": size_on_disk(partial)}
        why = _why_refused(report)
        if why:
            place = target.with_name(f"{target.name}.refused.json")
            place.write_text(json.dumps(report | {"refused": why}, indent=1), encoding="utf-8")
            raise ExportError(
                f"the {to} export of {source} is refused: {why}. The figures are in {place}. "
                + _remedy(to, quantization)
            )
        _settle(partial, source, report)
        _card(partial, target.name, source)
        replace_folder(partial, target)
    target.with_name(f"{target.name}.refused.json").unlink(missing_ok=True)
    return Export(folder=target, report=report)


def _write(student: Student, source: Path, folder: Path, to: str, quantization: str) -> None:
    """Write weights and tokenizer into `folder`, which is empty."""
    try:
        _convert(student, folder, to, quantization)
    except (KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, StudentError):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{source} cannot be converted to {to}: {why}. Export it to another format, or predict with "
            "the student itself"
        ) from error
    if (source / "history.json").is_file():
        shutil.copy(source / "history.json", folder / "history.json")


def _convert(student: Student, folder: Path, to: str, quantization: str) -> None:
    if to == "ctranslate2":
        folder.rmdir()  # CTranslate2 makes it
        write_ctranslate2(student.network, student.tokenizer, folder, quantization=quantization)
        student.tokenizer.save_pretrained(folder)
    elif to == "onnx":
        write_onnx(student.network, folder)
        student.network.config.save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)
    else:
        folder.rmdir()
        save_checkpoint(student.network, student.tokenizer, folder, texts={})


def _settle(folder: Path, source: Path, report: Mapping[str, Any]) -> None:
    """Write student.json: the student's own, and what became of it."""
    text = json.dumps(
        read_settings(source) | {"export": dict(report)}, indent=1, ensure_ascii=False
    )
    (folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def _gate(
    original: Student,
    folder: Path,
    inputs: Sequence[str],
    gold: Sequence[str | None] | None,
    asked: Mapping[str, Any],
    tell: Callable[[Mapping[str, Any]], None],
) -> dict[str, Any]:
    answers = []
    for number, student in enumerate((original, load(folder))):

        def counting(event: Mapping[str, Any], before: int = number * len(inputs)) -> None:
            done = before + event["done"]
            tell({"done": done, "total": 2 * len(inputs)})

        found = predict(student, inputs, precision="fp32", on_progress=counting, **asked)
        answers.append([None if said != said else said for said in found["prediction"]])
    first, second = answers
    alike = sum(a == b for a, b in zip(first, second, strict=True)) / len(inputs)
    result: dict[str, Any] = {"checked": True, "agreement": alike}
    result |= {"accuracy": None, "accuracy_of_original": None}
    known = [i for i, answer in enumerate(gold or ()) if answer is not None and answer == answer]
    if gold is not None and known:
        wanted = [gold[i] or "" for i in known]
        shares = [accuracy(wanted, [said[i] for i in known]) for said in answers]
        result |= {"accuracy_of_original": shares[0], "accuracy": shares[1]}
    return result


def _why_refused(report: Mapping[str, Any]) -> str | None:
    if not report["checked"]:
        return None
    if report["agreement"] < report["min_agreement"]:
        return (
            f"it agrees with the student on {report['agreement']:.1%} of {report['rows']} rows, and at "
            f"least {report['min_agreement']:.1%} is asked for"
        )
    if report["accuracy"] is not None:
        drop = report["accuracy_of_original"] - report["accuracy"]
        if drop > report["max_accuracy_drop"] + 1e-9:
            return (
                f"its accuracy is {report['accuracy']:.1%} and the student's "
                f"{report['accuracy_of_original']:.1%}: {drop * 100:.1f} points less, and at most "
                f"{report['max_accuracy_drop'] * 100:.1f} are allowed"
            )
    return None


def _remedy(to: str, quantization: str) -> str:
    if to == "ctranslate2" and quantization == "int8":
        return "Export with quantization='float32', which is exact, or give more rows"
    return "Its numbers differ from the student's: please report it with the versions used"


def _check(
    to: str,
    quantization: str,
    inputs: Sequence[str],
    gold: Sequence[str | None] | None,
    min_agreement: float,
    max_accuracy_drop: float,
) -> None:
    for name, value, allowed in (
        ("to", to, FORMATS),
        ("quantization", quantization, QUANTIZATIONS),
    ):
        if value not in allowed:
            raise InputError(f"{name}={value!r} is not known; allowed: {', '.join(allowed)}")
    if isinstance(inputs, str) or len(inputs) == 0:
        raise InputError(
            "inputs: give a list of texts on which the export is held against the student"
        )
    if gold is not None and len(gold) != len(inputs):
        raise InputError(f"{len(gold)} gold answers for {len(inputs)} inputs; give one each")
    for name, share in (("min_agreement", min_agreement), ("max_accuracy_drop", max_accuracy_drop)):
        if not 0 <= share <= 1:
            raise InputError(f"{name}={share}; it must be a share, from 0 to 1")


def _source(model: str | Path, to: str) -> Path:
    folder = find_folder(model)
    if folder is None:
        raise InputError(
            f"{str(model)!r} is no folder and no student on the Hub (there is no student.json); "
            "export takes what train wrote"
        )
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} holds no weights in safetensors; other formats can run code when they are "
            "read. Load it where you trust it and save it again with save_pretrained"
        )
    file = folder / "config.json"
    kind = json.loads(file.read_text(encoding="utf-8"))["model_type"] if file.is_file() else None
    if kind is not None and kind not in KINDS[to]:
        instead = " or ".join(repr(each) for each in FORMATS if kind in KINDS[each])
        raise InputError(
            f"{folder} is a {kind!r} model; an export to {to} is made of {', '.join(KINDS[to])}"
            + (f". Export it with to={instead} (--to)" if instead else "")
        )
    return folder


def _check_target(source: Path, target: Path) -> None:
    if target.exists() and target.resolve() == source.resolve():
        raise InputError(f"output={str(target)!r} is the student itself; name another folder")
    if target.is_file():
        raise InputError(f"output={str(target)!r} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and "export" not in read_settings(target):
        raise InputError(
            f"output={str(target)!r} holds files that are no export; name an empty or new folder"
        )


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder beside the target, gone at the end unless it was renamed to it."""
    place: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        place.chmod(0o755)
        yield place
    except OSError as error:
        raise CheckpointError(f"cannot write the export to {target}: {error}") from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def _card(folder: Path, name: str, source: Path) -> None:
    file, settings = source / "README.md", read_settings(folder)
    if file.is_file() and "base_model" in settings:
        text = exported_card(file.read_text(encoding="utf-8"), settings, name=name)
        (folder / "README.md").write_text(text, encoding="utf-8")
