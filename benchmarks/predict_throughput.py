"""How much faster is the int8 export than transformers, and is it as right?

The student writes its greedy answers to the same rows in batches of 16, sorted by length: with
`transformers` in fp32 (`generate` at its default settings, nothing else), and with the CTranslate2 int8
export by `student.predict`. Every row is answered once by both. The rows are dealt into parts of equal
lengths; on each part the two take turns, and each part gives one ratio. All is done with one thread
each, and with more.

Tasks: whether a rated product snippet is positive (two labels), the rationales that the same student
writes for its second task, and CommonsenseQA (--recorded DIR; five choices in each input). The students
are folders that were trained on such rows; the exports are made here, checked on rows that are not
timed (the gate of `student.export`), and written to a temporary folder. Below each stands what scoring
every label takes. Writes benchmarks/results/predict_throughput.md.

    python benchmarks/predict_throughput.py --snippets DIR [--quiz DIR --recorded DIR]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from label_noise_rows import QUIZ, read_recorded
from machine import processor

import student
from curate.assets import load_data
from curate.prediction import read_inputs
from student.formatting import token_ids

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "predict_throughput.md"
BATCH = 16
GATE_ROWS = 100
GOAL = 4.0
NAMES = ("transformers, fp32", "CTranslate2, int8")


@dataclass(frozen=True, kw_only=True)
class Rows:
    inputs: list[str]
    choices: list[list[str]]
    gold: list[str]

    def some(self, places: Sequence[int]) -> Rows:
        return Rows(
            inputs=[self.inputs[i] for i in places],
            choices=[self.choices[i] for i in places],
            gold=[self.gold[i] for i in places],
        )


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Two ways on the same parts: seconds of each part, and all that was answered, part by part."""

    title: str
    threads: int
    parts: list[Rows]
    seconds: list[list[float]]
    said: list[list[str]]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(*self.seconds, strict=True)]

    @property
    def gold(self) -> list[str]:
        return [answer for part in self.parts for answer in part.gold]


def snippets(loaded: student.Student) -> tuple[Rows, Rows]:
    """Rows to be timed, and rows for the gate."""
    table = load_data("vader-products")
    table = table[table["sentiment"].notna()]
    labels = list(loaded.labels or sorted(table["sentiment"].unique()))
    sets = []
    for split in ("test", "train"):
        part = table[table["split"] == split]
        if split == "train":  # the file lists one label after the other
            part = part.sample(GATE_ROWS, random_state=0)
        part = part.reset_index(drop=True)
        gold = part["sentiment"].tolist()
        inputs = read_inputs(part, loaded)[0]
        sets.append(Rows(inputs=inputs, choices=[labels] * len(part), gold=gold))
    return sets[0], sets[1]


def quiz(recorded: Path) -> tuple[Rows, Rows]:
    sets = []
    for name in ("cqa_test", "cqa_train"):
        rows = read_recorded(recorded / f"{name}.jsonl.gz")
        rows = rows[:GATE_ROWS] if name == "cqa_train" else rows
        sets.append(
            Rows(
                inputs=[QUIZ.render({k: r[k] for k in ("question", "choices")}) for r in rows],
                choices=[row["choices"] for row in rows],
                gold=[row["answer"] for row in rows],
            )
        )
    return sets[0], sets[1]


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
    found = student.predict(
        loaded,
        rows.inputs,
        # Without choices the text is left as it was written, as transformers' is.
        choices=rows.choices if method == "score" else None,
        method=method,
        batch_size=BATCH,
        precision="fp32",
    )
    return [str(said) for said in found["prediction"]]


def writer(loaded: student.Student) -> student.Student:
    """A multitask student as it writes rationales: another prefix, and longer texts."""
    own = loaded.formatting
    longer = replace(
        own, label_prefix=own.rationale_prefix, max_label_tokens=own.max_rationale_tokens
    )
    return replace(loaded, formatting=longer, labels=None)


def take_turns(
    title: str, threads: int, ways: Sequence[Callable[[Rows], list[str]]], parts: list[Rows]
) -> Turns:
    """Answer each part by both ways, the order turned every time."""
    for way in ways:
        way(parts[0].some(range(BATCH)))  # warm
    seconds: list[list[float]] = [[], []]
    said: list[list[str]] = [[], []]
    for number, part in enumerate(parts):
        for way in (0, 1) if number % 2 == 0 else (1, 0):
            started = time.perf_counter()
            said[way] += ways[way](part)
            seconds[way].append(time.perf_counter() - started)
    found = Turns(title=title, threads=threads, parts=parts, seconds=seconds, said=said)
    print(title, threads, [f"{ratio:.2f}" for ratio in found.ratios], flush=True)
    return found


def deal(rows: Rows, parts: int, most: int) -> list[Rows]:
    """Deal the rows by length, so that each part has as many long ones."""
    most = min(most, len(rows.inputs))
    chosen = [i * len(rows.inputs) // most for i in range(most)]
    chosen.sort(key=lambda i: len(rows.inputs[i]))
    return [rows.some(chosen[number::parts]) for number in range(parts)]


def turns_of_task(
    title: str, folder: Path, sets: tuple[Rows, Rows], options: argparse.Namespace
) -> tuple[list[Turns], Mapping[str, Any]]:
    """Export a student, and time all that it does."""
    original, (rows, gate) = student.load(folder), sets
    with tempfile.TemporaryDirectory() as place:
        done = student.export(
            folder,
            Path(place) / "int8",
            inputs=gate.inputs,
            choices=gate.choices,
            gold=gate.gold,
            method="generate",
            # Looser than the gate's own bounds, which so few rows may miss by chance: the tables judge.
            min_agreement=0.9,
            max_accuracy_drop=0.05,
        )
        print(title, done.report, flush=True)
        parts, found = deal(rows, options.parts, options.rows), []
        for threads in options.threads:
            torch.set_num_threads(threads)
            exported = student.load(done.folder)  # opened with as many threads as torch has
            found.append(take_turns(title, threads, greedy(original, exported), parts))
            if original.settings.get("objective") == "multitask":
                few = deal(rows, options.parts, options.rationales)
                ways = greedy(writer(original), writer(exported))
                found.append(take_turns(f"{title}, rationales", threads, ways, few))
        torch.set_num_threads(options.threads[0])
        exported = student.load(done.folder)
        found.append(
            take_turns(
                f"{title}, every label scored",
                options.threads[0],
                [
                    lambda x: by_student(original, x, "score"),
                    lambda x: by_student(exported, x, "score"),
                ],
                parts[:1],
            )
        )
    return found, done.report


def greedy(
    original: student.Student, exported: student.Student
) -> list[Callable[[Rows], list[str]]]:
    return [
        lambda rows: plain_transformers(original, rows.inputs),
        lambda rows: by_student(exported, rows, "generate"),
    ]


def lines_of(turns: Turns) -> Iterator[str]:
    """One line of the table for each way, and one of their ratio."""
    alike = sum(a == b for a, b in zip(*turns.said, strict=True)) / len(turns.gold)
    written = turns.title.endswith("rationales")
    for name, taken, answers in zip(NAMES, turns.seconds, turns.said, strict=True):
        speeds = [len(p.gold) / s for p, s in zip(turns.parts, taken, strict=True)]
        # Letter case aside, as an answer is read.
        right = "" if written else f"{student.exact_match(turns.gold, answers):.1%}"
        yield (
            f"| {turns.title} | {turns.threads} | {name} | {median(speeds):.1f} "
            f"({min(speeds):.1f} to {max(speeds):.1f}) | | {right} | |"
        )
    yield (
        f"| | | ratio | | **{median(turns.ratios):.2f}** ({min(turns.ratios):.2f} to "
        f"{max(turns.ratios):.2f}) | | {alike:.1%} of {len(turns.gold)} |"
    )


def verdict(turns: Sequence[Turns]) -> Iterator[str]:
    """Say of every task whether it is as fast, and as right, as was aimed at."""
    yield (
        f"The target is at least {GOAL:g} times greedy at batch {BATCH}, with accuracy within one "
        "point. One thread each is what answers it: torch's threads wait for one another at every "
        "layer and CTranslate2's do not, so that on a machine with other work more threads hold "
        "back transformers alone."
    )
    yield ""
    for one in turns:
        if one.title.endswith("scored"):
            continue
        ratio, change = median(one.ratios), 0.0
        said = "texts are not judged"
        if not one.title.endswith("rationales"):
            before, after = (student.exact_match(one.gold, answers) for answers in one.said)
            change = after - before
            said = f"accuracy {change * 100:+.1f} points"
        met = ratio >= GOAL and change >= -0.01
        below = sum(each < GOAL for each in one.ratios)
        yield (
            f"- {one.title}, {one.threads} thread{'s' if one.threads > 1 else ''} each: {ratio:.2f} "
            f"times, {said}: {'met' if met else 'missed'} ({below} of {len(one.ratios)} parts below "
            f"{GOAL:g})"
        )


def page(
    turns: Sequence[Turns], reports: Mapping[str, Mapping[str, Any]], options: argparse.Namespace
) -> str:
    versions = ", ".join(
        f"{n} {metadata.version(n)}" for n in ("torch", "transformers", "ctranslate2")
    )
    command = "python benchmarks/predict_throughput.py --snippets DIR"
    command += " --quiz DIR --recorded DIR" if options.quiz else ""
    lines = ["# Predicting: the int8 export against transformers", ""]
    lines += [part.replace("\n", " ") + "\n" for part in (__doc__ or "").split("\n\n")[1:3]]
    lines += [
        "| task | threads each | way | rows/s, median | times as fast | accuracy | same answer |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [line for one in turns for line in lines_of(one)]
    lines += ["", *verdict(turns), ""]
    if options.note:
        lines += [options.note, ""]
    lines += ["## How this was measured", ""]
    for title, report in reports.items():
        lines.append(
            f"- {title}: gate {report['agreement']:.1%} of {report['rows']} other rows answered alike, "
            f"accuracy {report['accuracy']:.1%}, the original's {report['accuracy_of_original']:.1%}; "
            f"on disk {report['size_of_original_mb']:.0f} MB, exported {report['size_on_disk_mb']:.0f}"
        )
    load = ", ".join(f"{value:.1f}" for value in options.load)
    lines += [
        f"- machine: {processor()}, {os.cpu_count()} processors, load at the start (1, 5, 15 minutes) "
        f"{load}; Python {platform.python_version()}, {versions}",
        f"- date: {options.date}",
        f"- command: `{command}`",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snippets", type=Path, required=True, help="a student of the snippets")
    parser.add_argument("--quiz", type=Path, help="a student of CommonsenseQA; needs --recorded")
    parser.add_argument("--recorded", type=Path, help="folder of cqa_test.jsonl.gz")
    parser.add_argument("--rows", type=int, default=2_000, help="at most, of each task")
    parser.add_argument("--rationales", type=int, default=100, help="rows to write rationales for")
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--note", help="a sentence on the circumstances, for the page")
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    options.load = os.getloadavg()
    if options.quiz and not options.recorded:
        parser.error("--quiz needs --recorded, the folder of its rows")
    tasks = {"snippets": (options.snippets, snippets(student.load(options.snippets)))}
    if options.quiz:
        tasks["CommonsenseQA"] = (options.quiz, quiz(options.recorded))
    turns: list[Turns] = []
    reports: dict[str, Mapping[str, Any]] = {}
    for title, (folder, sets) in tasks.items():
        found, reports[title] = turns_of_task(title, folder, sets, options)
        turns += found
    options.output.write_text(page(turns, reports, options), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
