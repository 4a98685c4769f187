"""The training set as the code of Distilling step-by-step (Hsieh et al., 2023) reads it.

That code (google-research/distilling-step-by-step, ``data_utils.py``) reads JSON lines of examples from
``datasets/<name>/<name>_<split>.json`` and, by row number, the teacher's raw outputs from
``datasets/<name>/llm/<split>_CoT_<n>.json``, lists of texts out of which each of its loaders cuts
rationale and label by rules of its own. What is written here is read back by those rules first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from curate.exceptions import CurateError
from curate.export_formats import Written, copies_of, has_gold, has_weights, json_line
from curate.export_rows import CuratedSet, rows_of
from curate.gold import first_gold

Dataset = Literal["cqa", "svamp", "esnli", "anli1"]
_NAMES = {"train": "train", "validation": "valid", "test": "test"}
_LETTERS = "abcde"
_COLUMNS = (
    "id", "input", "choices", "label", "rationale", "gold", "copies", "premise", "hypothesis",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """What one of its loaders expects.

    Attributes:
        marker: What stands between rationale and label.
        stops: Texts that end an output, or part it, and so may not stand in a rationale.
        size: Train rows to a file of outputs.
        files: Files of outputs that it opens, by split; a split that it does not read is absent.
    """

    marker: str
    stops: tuple[str, ...]
    size: int
    files: Mapping[str, int]


_LOADERS: dict[str, _Loader] = {
    "cqa": _Loader(
        marker="So the answer is", stops=("Q:",), size=1000, files={"train": 10, "test": 2}
    ),
    "svamp": _Loader(
        marker="The answer is", stops=("Q:",), size=500, files={"train": 2, "test": 1}
    ),
    "esnli": _Loader(
        marker="Answer:", stops=(), size=5500, files={"train": 100, "validation": 2, "test": 2}
    ),
    "anli1": _Loader(
        marker="So the answer is", stops=("Premise:",), size=5000,
        files={"train": 4, "validation": 1, "test": 1},
    ),
}  # fmt: skip
_OWN = _Loader(marker="So the answer is", stops=(), size=1000, files={})


def write_paper(folder: Path, curated: CuratedSet, dataset: str | None) -> Written:
    """Write ``datasets/<name>/`` for one of its loaders, or for a loader of one's own.

    Train rows are repeated as often as `copies` says. ``label`` is people's, and the teacher's where
    people gave none; the teacher's label and rationale are in the outputs.

    Raises:
        CurateError: If the loader cannot read the rows, naming the first.
    """
    loader = _LOADERS[dataset] if dataset else _OWN
    for split in loader.files:
        if split not in curated.splits:
            raise CurateError(
                f"the loader of {dataset} reads {split} rows and the run has none: leave --dataset "
                "out, for a loader of your own"
            )
    name = dataset or str(curated.facts["name"])
    place = folder / "datasets" / name
    (place / "llm").mkdir(parents=True)
    by_people = has_gold(curated)
    written, warnings = {}, list(_warnings(curated, loader, dataset))
    altered = 0
    for split, short in _NAMES.items():
        rows = list(_rows(curated, split, by_people)) if _reads(loader, dataset, split) else []
        if not rows:
            continue
        with (place / f"{name}_{short}.json").open("w", encoding="utf-8") as file:
            file.writelines(json_line(_example(row, dataset)) for row in rows)
        outputs = []
        for row in rows:
            output, changed = _output(row, dataset, loader)
            outputs.append(output)
            altered += changed
        least = loader.files.get(split, 1)
        for number, batch in enumerate(_batches(outputs, loader.size, least, split)):
            text = json.dumps(batch, ensure_ascii=False)
            (place / "llm" / f"{short}_CoT_{number}.json").write_text(text, encoding="utf-8")
        written[split] = len(rows)
    if altered:
        warnings.append(
            f"{altered} rationales hold words at which its reader would part them: these are written "
            "in another way (“the answer is” in small letters, or a space before a colon)."
        )
    reading = _reading(name, dataset, loader, written)
    return Written(rows=written, warnings=warnings, reading=reading)


def _reads(loader: _Loader, dataset: str | None, split: str) -> bool:
    return dataset is None or split in loader.files


def _rows(curated: CuratedSet, split: str, by_people: bool) -> Iterator[dict[str, Any]]:
    table = curated.splits.get(split)
    if table is None:
        return
    for row in rows_of(table, [name for name in _COLUMNS if name in table.column_names]):
        gold = first_gold(row.get("gold"))
        if split == "test" and by_people and gold is None:
            continue
        row["answer"] = row["label"] if gold is None else gold
        if row["answer"] is None:
            continue
        for _ in range(copies_of(row) if split == "train" else 1):
            yield row


def _example(row: Mapping[str, Any], dataset: str | None) -> dict[str, Any]:
    """One line of the examples' file."""
    if dataset == "cqa":
        choices = list(row["choices"] or ())
        if len(choices) != len(_LETTERS):
            raise CurateError(
                f"row {row['id']!r} has {len(choices)} options, and the loader of cqa reads five of "
                "every row: leave --dataset out, for a loader of your own"
            )
        shown = "".join(
            f"\n({letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=True)
        )
        question = row["input"].removesuffix(f"\nAnswer Choices:{shown}")
        return {
            "id": row["id"], "question": question, "choices": choices, "answer": row["answer"],
            "abstractive_explanation": "", "extractive_explanation": "",
        }  # fmt: skip
    if dataset in ("esnli", "anli1"):
        absent = [name for name in ("premise", "hypothesis") if not isinstance(row.get(name), str)]
        if absent:
            raise CurateError(
                f"row {row['id']!r} has no {absent[0]!r}, which the loader of {dataset} reads: keep "
                "such a column in the data, or leave --dataset out, for a loader of your own"
            )
        pair = {name: row[name] for name in ("premise", "hypothesis")} | {"label": row["answer"]}
        more = ("uid", "reason") if dataset == "anli1" else [f"explanation_{n}" for n in (1, 2, 3)]
        return pair | {name: row["id"] if name == "uid" else "" for name in more}
    return {"input": row["input"], "label": row["answer"]}


def _output(row: Mapping[str, Any], dataset: str | None, loader: _Loader) -> tuple[str, bool]:
    """The teacher's output for a row, and whether its rationale had to be written in another way.

    Raises:
        CurateError: If the loader would read another label out of it.
    """
    said = (row.get("rationale") or "").strip()
    rationale = said
    if dataset is not None:
        for stop in loader.stops:
            rationale = rationale.replace(stop, f"{stop[:-1]} :")
        colon = f"{loader.marker[:-1]} :" if loader.marker.endswith(":") else None
        small = loader.marker[0].lower() + loader.marker[1:]
        rationale = rationale.replace(loader.marker, colon or small)
    label = row["label"]
    form = label
    if label is not None and dataset == "cqa":
        choices = list(row["choices"])
        if label not in choices:
            raise _unreadable(row, dataset)
        form = f"({_LETTERS[choices.index(label)]}) {label}"
    elif label is not None and dataset == "svamp":
        form = label if label.startswith("(") and label.endswith(")") else f"({label})"
    if dataset == "esnli":
        output = f"{rationale}\n{loader.marker}" + (f" {form}" if form is not None else "")
    else:
        output = f"{rationale} {loader.marker}" + (f" {form}." if form is not None else "")
    expected = form if dataset == "svamp" else label
    if read_output(output, dataset) != (rationale, expected):
        raise _unreadable(row, dataset)
    return output, rationale != said


def _unreadable(row: Mapping[str, Any], dataset: str | None) -> CurateError:
    whose = f"the loader of {dataset}" if dataset else "a loader of this layout"
    return CurateError(
        f"the label {row['label']!r} of row {row['id']!r} cannot be written so that {whose} reads it: use "
        "--format jsonl"
    )


def read_output(output: str, dataset: str | None) -> tuple[str, str | None]:
    """Rationale and label that a loader reads out of an output; None where it finds no label."""
    loader = _LOADERS[dataset] if dataset else _OWN
    if dataset is None:
        rationale, _, rest = output.rpartition(loader.marker)
        return rationale.strip(), rest.strip().removesuffix(".") or None
    for stop in loader.stops:
        output = output.split(stop)[0].rstrip()
    rationale, rest = output.split(loader.marker, 1)
    if loader.marker in rest:
        return "", None
    found: str | None = rest.strip()
    if dataset == "cqa":
        parts = re.split(r"\(.\)", rest)
        found = parts[1].strip().removesuffix(".") if len(parts) > 1 else None
    elif dataset == "svamp":
        match = re.search(r"\(.*\)", rest)
        found = match[0] if match else None
    elif dataset == "anli1":
        found = rest.lstrip()[:-1]
    elif dataset == "esnli":
        found = rest.removeprefix(" ").split("Premise")[0].rstrip()
    return rationale.strip(), found or None


def _batches(outputs: list[str], size: int, least: int, split: str) -> Iterator[list[str]]:
    """Lists of outputs, at least so many; of test and validation the last one takes what is left."""
    if split != "train":
        bounds = [min(n * size, len(outputs)) for n in range(least)] + [len(outputs)]
    else:
        count = max(least, -(-len(outputs) // size))
        bounds = [min(n * size, len(outputs)) for n in range(count + 1)]
    for start, end in pairwise(bounds):
        yield outputs[start:end]


def _warnings(curated: CuratedSet, loader: _Loader, dataset: str | None) -> Iterator[str]:
    train = curated.splits["train"]
    rows = list(_rows(curated, "train", by_people=False))
    most = loader.size * loader.files.get("train", 0)
    if dataset is not None and len(rows) > most:
        yield (
            f"The loader of {dataset} reads the first {most:,} of {len(rows):,} train rows: raise its "
            f"train_batch_idxs to range({-(-len(rows) // loader.size)})."
        )
    if "validation" in curated.splits and not _reads(loader, dataset, "validation"):
        yield (
            f"{curated.splits['validation'].num_rows} validation rows are left out: with {dataset} its "
            "code makes validation rows of a tenth of the train rows."
        )
    if len(rows) > train.num_rows and (dataset or "validation" not in curated.splits):
        yield (
            "Repeated train rows may fall on both sides when its code splits off validation rows: "
            "trust the test rows."
        )
    if has_weights(train):
        yield "The layout carries no weights: rows of all weights count alike in training."
    bare = sum(not row.get("rationale") for row in rows)
    if bare:
        yield (
            f"Train rows whose rationale is empty: {bare} of {len(rows)}; where that is most of them, train "
            "with --model_type standard."
        )
    unjudged = sum(first_gold(row.get("gold")) is None for row in rows)
    if unjudged:
        yield (
            f"Train rows with the teacher's label where a human one is missing: {unjudged} of {len(rows)}; "
            "train with --label_type llm."
        )
    if not has_gold(curated):
        yield "People labelled no test row: its accuracies are agreement with the teacher."


def _reading(name: str, dataset: str | None, loader: _Loader, written: Mapping[str, int]) -> str:
    text = (
        f"Copy `datasets/{name}` into `datasets` of a clone of "
        f"google-research/distilling-step-by-step. `{name}_<split>.json` has one example to a line, "
        "`llm/<split>_CoT_<n>.json` the teacher's outputs in the same order. Train rows with "
        "`copies` above 1 are repeated. The label of an example is people's where they gave one."
    )
    command = (
        f"python run.py --dataset {name} --model_type task_prefix --label_type llm --llm palm\n"
    )
    if dataset is not None:
        return f"{text} Then:\n\n```sh\n{command}```"
    return (
        f"{text} Its code chooses a loader by name; add this one to `data_utils.py`, and to `run.py` "
        f"a line that chooses it for `{name}`:\n\n```python\n{loader_code(name, written)}```\n\n"
        f"Then:\n\n```sh\n{command}```"
    )


def loader_code(name: str, written: Mapping[str, int]) -> str:
    """A loader, in Python, that reads what is written for no loader of the paper's."""
    train = -(-written["train"] // _OWN.size)
    valid = "validation" in written
    splits = {short: split for split, short in _NAMES.items() if split in written}
    return f"""class OwnDatasetLoader(DatasetLoader):
    def __init__(self):
        super().__init__(
            dataset_name={name!r}, source_dataset_name=None, dataset_version=None,
            has_valid={valid}, split_map={splits!r}, batch_size={_OWN.size},
            train_batch_idxs=range({train}), test_batch_idxs=range(1),
            valid_batch_idxs={"range(1)" if valid else None},
        )

    def _post_process(self, datasets):
        return datasets

    def _parse_llm_output(self, output):
        rationale, _, label = output.rpartition({_OWN.marker!r})
        return rationale.strip(), label.strip().removesuffix(".") or " "
"""
