"""How much faster is the int8 export than transformers, and is it as right?

The student's greedy answers to the same rows in the same batches of 16, sorted by length: `transformers`
in fp32 (`generate`, nothing else), and the CTranslate2 int8 export by `student.predict`. The two take turns;
each pair of turns gives one ratio. Below stands what scoring every label takes, with both.

Rows: CommonsenseQA's test rows (--recorded DIR) or the built-in rated product snippets. The student is a
folder that was trained on such rows; the export is made here, checked on rows that are not timed
(the gate of `student.export`), and written to a temporary folder. Writes
benchmarks/results/predict_throughput.md.

    python benchmarks/predict_throughput.py --student DIR [--recorded DIR]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from label_noise_rows import QUIZ, read_recorded

import student
from curate.assets import load_data
from curate.prediction import read_inputs
from student.formatting import token_ids

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "predict_throughput.md"
BATCH = 16
GATE_ROWS = 300

Rows = tuple[list[str], list[list[str]], list[str]]


def read_rows(recorded: Path | None, loaded: student.Student) -> tuple[str, Rows, Rows]:
    """What the rows are; inputs, choices and gold of the rows to be timed, and of the gate's."""
    if recorded is None:
        table = load_data("vader-products")
        table = table[table["sentiment"].notna()]
        labels = list(loaded.labels or sorted(table["sentiment"].unique()))
        sets = []
        for split in ("test", "train"):
            part = table[table["split"] == split].reset_index(drop=True)
            inputs = read_inputs(part, loaded)[0]
            sets.append((inputs, [labels] * len(part), part["sentiment"].tolist()))
        return "rated product snippets", sets[0], sets[1]
    sets = []
    for name in ("cqa_test", "cqa_train"):
        rows = read_recorded(recorded / f"{name}.jsonl.gz")
        inputs = [QUIZ.render({k: row[k] for k in ("question", "choices")}) for row in rows]
        sets.append((inputs, [row["choices"] for row in rows], [row["answer"] for row in rows]))
    return "CommonsenseQA, its test rows", sets[0], sets[1]


def cut(rows: Rows, most: int) -> Rows:
    inputs, choices, gold = rows
    return inputs[:most], choices[:most], gold[:most]


def plain_transformers(loaded: student.Student, inputs: Sequence[str]) -> list[str]:
    """Greedy answers by `transformers` alone, in batches sorted by length."""
    network, tokenizer, formatting = loaded.network, loaded.tokenizer, loaded.formatting
    prefixed = [formatting.label_prefix + text for text in inputs]
    ids, _ = token_ids(prefixed, tokenizer, formatting.max_input_tokens)
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    answers = [""] * len(ids)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
        with torch.inference_mode():
            written = network.generate(
                **batch, do_sample=False, num_beams=1, max_new_tokens=formatting.max_label_tokens
            )
        for row, text in zip(
            rows, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
        ):
            answers[row] = text.strip()
    return answers


def by_student(loaded: student.Student, rows: Rows, method: str) -> list[str]:
    inputs, choices, _ = rows
    found = student.predict(
        loaded,
        inputs,
        # Without choices the text is left as it was written, as transformers' is.
        choices=choices if method == "score" else None,
        method=method,
        batch_size=BATCH,
        precision="fp32",
    )
    return [str(said) for said in found["prediction"]]


def take_turns(
    ways: Sequence[Callable[[], list[str]]], pairs: int
) -> tuple[list[list[float]], list[list[str]]]:
    """Seconds of each way, pair by pair, the order turned every time; and what they answered."""
    answers = [way() for way in ways]  # warm
    seconds: list[list[float]] = [[], []]
    for pair in range(pairs):
        for way in (0, 1) if pair % 2 == 0 else (1, 0):
            started = time.perf_counter()
            answers[way] = ways[way]()
            seconds[way].append(time.perf_counter() - started)
        print(f"pair {pair + 1}: {seconds[0][-1]:.2f} s and {seconds[1][-1]:.2f} s", flush=True)
    return seconds, answers


def table(
    names: Sequence[str], seconds: list[list[float]], said: list[list[str]], rows: Rows
) -> str:
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    alike = sum(a == b for a, b in zip(*said, strict=True)) / len(said[0])
    lines = ["| | rows/s, median | spread | accuracy |", "|---|---|---|---|"]
    for name, taken, answers in zip(names, seconds, said, strict=True):
        speeds = [len(rows[0]) / s for s in taken]
        # Letter case aside, as an answer is read.
        right = student.exact_match(rows[2], answers)
        lines.append(
            f"| {name} | {median(speeds):.1f} | {min(speeds):.1f} to {max(speeds):.1f} | {right:.1%} |"
        )
    lines += [
        "",
        f"**{median(ratios):.2f} times** as fast ({min(ratios):.2f} to {max(ratios):.2f} over "
        f"{len(ratios)} pairs); the same answer on {alike:.1%} of {len(rows[0])} rows.",
    ]
    return "\n".join(lines)


def processor() -> str:
    try:
        names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        return names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def page(what: str, tables: dict[str, str], report: Any, options: argparse.Namespace) -> str:
    versions = ", ".join(
        f"{n} {metadata.version(n)}" for n in ("torch", "transformers", "ctranslate2")
    )
    command = "python benchmarks/predict_throughput.py --student DIR"
    command += " --recorded DIR" if options.recorded else ""
    lines = ["# Predicting: the int8 export against transformers", ""]
    lines += [(__doc__ or "").split("\n\n")[1].replace("\n", " "), ""]
    for title, text in tables.items():
        lines += [f"## {title}", "", text, ""]
    lines += [
        "The target is at least 4 times greedy, with accuracy within one point.",
        "",
        "## How this was measured",
        "",
        f"- rows: {what}; batches of {BATCH}, sorted by length; {torch.get_num_threads()} threads each",
        f"- gate: {report['agreement']:.1%} of {report['rows']} other rows answered alike; accuracy "
        f"{report['accuracy']:.1%}, the original's {report['accuracy_of_original']:.1%}",
        f"- on disk: {report['size_of_original_mb']:.0f} MB, exported {report['size_on_disk_mb']:.0f} MB",
        f"- machine: {processor()}; Python {platform.python_version()}, {versions}",
        f"- date: {options.date}",
        f"- command: `{command}`",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", type=Path, required=True, help="a trained student's folder")
    parser.add_argument("--recorded", type=Path, help="folder with cqa_test.jsonl.gz")
    parser.add_argument("--rows", type=int, default=10**9, help="at most so many rows are timed")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of both; by default torch's own choice")
    # Looser than the gate's own bounds, which 300 rows may miss by chance: the table below judges.
    parser.add_argument("--min-agreement", type=float, default=0.9)
    parser.add_argument("--max-accuracy-drop", type=float, default=0.03)
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    original = student.load(options.student)
    what, rows, others = read_rows(options.recorded, original)
    rows, others = cut(rows, options.rows), cut(others, min(GATE_ROWS, options.rows))
    with tempfile.TemporaryDirectory() as folder:
        done = student.export(
            options.student,
            Path(folder) / "int8",
            inputs=others[0],
            choices=others[1],
            gold=others[2],
            method="generate",
            min_agreement=options.min_agreement,
            max_accuracy_drop=options.max_accuracy_drop,
        )
        exported = student.load(done.folder)
        names = ("transformers, fp32", "CTranslate2, int8")
        seconds, said = take_turns(
            [
                lambda: plain_transformers(original, rows[0]),
                lambda: by_student(exported, rows, "generate"),
            ],
            options.pairs,
        )
        tables = {"Greedy": table(names, seconds, said, rows)}
        seconds, said = take_turns(
            [
                lambda: by_student(original, rows, "score"),
                lambda: by_student(exported, rows, "score"),
            ],
            max(1, options.pairs // 2),
        )
        tables["Every label scored"] = table(names, seconds, said, rows)
    options.output.write_text(page(what, tables, done.report, options), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
