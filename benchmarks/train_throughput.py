"""How fast a student trains on step-by-step data, against a plain rendering of the paper's scheme.

The plain scheme (Hsieh et al. 2023, "Distilling Step-by-Step!"): rows in random order, every batch
padded to its longest text, one forward pass for the labels and one for the rationales, fp32. Both see the
same rows of CommonsenseQA with a teacher's recorded outputs, in blocks of steps that take turns, and take the
same optimizer step after each batch. First it is asserted that both have the same gradient, with
dropout off. Writes benchmarks/results/train_throughput.md.

    python benchmarks/train_throughput.py --recorded DIR --threads 2

DIR holds cqa_train.jsonl.gz, lines of {"question", "choices", "answer", "teacher_output"}.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gzip
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from machine import processor

from student.batches import EncodedExamples, Formatting, bucketed_batches, encode
from student.checkpoints import load_checkpoint
from student.devices import resolve_device, resolve_precision, return_freed_memory
from student.examples import Example
from student.gradients import step_gradient
from student.loading import Student
from student.objectives import Objective, multitask
from student.processes import Processes
from student.quick_layers import quicken
from student.training_state import TrainingState

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "train_throughput.md"
ALPHA = 0.5
SEED = 0
RATE = 5e-5
GOALS = {"fp32": 1.25, "bf16": 1.75}
#: The paper's prefixes and limits, in tokens.
FORMATTING = Formatting(
    label_prefix="predict: ",
    rationale_prefix="explain: ",
    max_input_tokens=1024,
    max_label_tokens=256,
    max_rationale_tokens=256,
)


@dataclass(frozen=True)
class Bench:
    """A student, its data, and how a step is taken. `plain` has the same weights and no layer of ours."""

    student: Student
    plain: Any
    encoded: EncodedExamples
    objective: Objective
    batch: int

    @property
    def network(self) -> Any:
        return self.student.network


@dataclass(frozen=True)
class Pair:
    """Seconds of one block of steps, plain and ours, over the same rows."""

    plain: float
    ours: float
    rows: int
    tokens: int

    @property
    def ratio(self) -> float:
        return self.plain / self.ours


def read_examples(folder: Path) -> list[Example]:
    """Questions with their choices, the gold answer, and the teacher's reasons for its own."""
    examples = []
    with gzip.open(folder / "cqa_train.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            choices = zip("abcde", row["choices"], strict=False)
            options = "\n".join(f"({letter}) {text}" for letter, text in choices)
            said = row["teacher_output"].split("\n\nQ:")[0]
            rationale = said.split("So the answer is")[0].strip()
            if rationale:
                text = f"{row['question']}\nAnswer Choices:\n{options}"
                examples.append(Example(input=text, target=row["answer"], rationale=rationale))
    return examples


def plain_loss(bench: Bench, rows: Sequence[int]) -> torch.Tensor:
    """The paper's loss: alpha times the label's, and the rest the rationale's, in two passes."""
    found = bench.encoded
    label = [found.label_inputs[row] for row in rows], [found.label_targets[row] for row in rows]
    reasons = [found.rationale_inputs[row] or [] for row in rows]
    rationale = reasons, [found.rationale_targets[row] or [] for row in rows]
    losses = []
    for sources, targets in (label, rationale):
        inputs = padded(sources, 0, bench.plain.device)
        losses.append(
            bench.plain(
                input_ids=inputs,
                attention_mask=(inputs != 0).long(),
                labels=padded(targets, -100, bench.plain.device),
            ).loss
        )
    return ALPHA * losses[0] + (1 - ALPHA) * losses[1]


def padded(sequences: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    width = max(map(len, sequences))
    return torch.tensor([[*ids, *[fill] * (width - len(ids))] for ids in sequences], device=device)


def our_loss(bench: Bench, rows: Sequence[int], precision: str) -> float:
    """What `student.train` does in a step, up to the gradient."""
    loss, *_ = step_gradient(
        bench.student,
        bench.encoded,
        rows,
        bench.objective,
        TrainingState(micro_batch=bench.batch),
        precision=precision,
        dropout_seed=SEED,
        processes=Processes(),
    )
    return loss


def assert_equal_gradients(bench: Bench, rows: Sequence[int]) -> float:
    """Both gradients of one batch, dropout off; the largest difference over the largest entry."""
    bench.plain.eval()
    bench.network.eval()
    plain_loss(bench, rows).backward()
    our_loss(bench, rows, "fp32")
    theirs, ours = gradients(bench.plain), gradients(bench.network)
    size = max(float(gradient.abs().max()) for gradient in theirs.values())
    apart = max(float((theirs[name] - ours[name]).abs().max()) for name in theirs) / size
    if theirs.keys() != ours.keys() or not apart < 1e-4:
        sys.exit(f"the gradients differ by {apart:.1e} of their largest entry")
    return apart


def gradients(network: Any) -> dict[str, torch.Tensor]:
    found = {
        name: weight.grad.clone()
        for name, weight in network.named_parameters()
        if weight.grad is not None
    }
    network.zero_grad(set_to_none=True)
    return found


def timed(
    network: Any,
    batches: Sequence[Sequence[int]],
    gradient: Callable[[Sequence[int]], object],
    *,
    frees: bool,
) -> float:
    """Seconds of one optimizer step a batch. The optimizer is the same for both schemes.

    With `frees` memory is given back as `student.train` does it, which costs time; the plain scheme does not.
    """
    network.train()
    weights = list(network.parameters())
    optimizer = torch.optim.AdamW(weights, lr=RATE, fused=True)
    on_gpu = network.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for rows in batches:
        gradient(rows)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if frees:
            return_freed_memory(network.device)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(bench: Bench, precision: str, steps: int, pairs: int) -> list[Pair]:
    """Blocks of steps, plain (fp32) and ours taking turns at going first, after one step of each."""
    drawn = random.Random(SEED)
    bucketed = bucketed_batches(bench.encoded.lengths(), bench.batch, seed=SEED, epoch=1)

    def plain(rows: Sequence[int]) -> None:
        plain_loss(bench, rows).backward()

    def ours(rows: Sequence[int]) -> None:
        our_loss(bench, rows, precision)

    timed(bench.plain, bucketed[:1], plain, frees=False)
    timed(bench.network, bucketed[:1], ours, frees=True)
    found = []
    for number in range(pairs):
        batches = drawn.sample(bucketed, steps)
        rows = [row for batch in batches for row in batch]
        # The same rows in random order: as the plain scheme would meet them.
        shuffled = drawn.sample(rows, len(rows))
        cuts = [len(rows) * step // steps for step in range(steps + 1)]
        random_batches = [shuffled[a:b] for a, b in pairwise(cuts)]
        turns = [
            ("plain", bench.plain, random_batches, plain),
            ("ours", bench.network, batches, ours),
        ]
        seconds = {}
        for name, network, parts, gradient in turns if number % 2 == 0 else turns[::-1]:
            seconds[name] = timed(network, parts, gradient, frees=name == "ours")
        lengths = bench.encoded.lengths()
        tokens = sum(lengths[row] for row in rows)
        pair = Pair(seconds["plain"], seconds["ours"], len(rows), tokens)
        print(f"{precision} pair {number + 1}: {pair.ratio:.2f}x", file=sys.stderr, flush=True)
        found.append(pair)
    return found


def line(precision: str, pairs: Sequence[Pair]) -> str:
    """One line of the table: medians over the pairs, and the spread of the ratio."""
    ratios = [pair.ratio for pair in pairs]
    median = statistics.median(ratios)
    plain = statistics.median(pair.rows / pair.plain for pair in pairs)
    ours = statistics.median(pair.rows / pair.ours for pair in pairs)
    tokens = statistics.median(pair.tokens / pair.ours for pair in pairs)
    goal = GOALS[precision]
    return (
        f"| {precision} | {plain:.2f} | {ours:.2f} | {tokens:,.0f} | **{median:.2f}** "
        f"({min(ratios):.2f}–{max(ratios):.2f}) | {goal:.2f}: {'met' if median >= goal else 'missed'} |"
    )


def page(bench: Bench, lines: Sequence[str], notes: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    device = bench.network.device
    place = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    facts = [
        *notes,
        f"batch size {bench.batch}, alpha {ALPHA}, dropout {bench.network.config.dropout_rate}, gradients "
        "clipped at 1, fused AdamW in both",
        f"machine: {place}, {platform.system()}",
        f"versions: Python {platform.python_version()}, {versions}",
        f"date: {datetime.date.today().isoformat()}",
        f"command: `python benchmarks/train_throughput.py {' '.join(shown_arguments())}`",
    ]
    return (
        "# How fast a student trains, step by step\n\n"
        "| ours in | plain scheme, fp32: rows/s | ours: rows/s | ours: tokens/s | ratio (spread over the "
        "pairs) | goal |\n|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\nThe plain scheme has rows in random order, batches padded to their longest text, a "
        "forward pass for labels and another for rationales, in fp32. Ours has batches of similar "
        "length, both tasks through the encoder in one call with decoders apart, and the vocabulary "
        "head on valid tokens only; its dropout and gelu are `student.quick_layers`. Both see the "
        "same rows in a pair of blocks, and the blocks take turns. Medians over the pairs; tokens "
        "without padding.\n\n" + "".join(f"- {fact}\n" for fact in facts)
    )


def shown_arguments() -> list[str]:
    """The command line without this machine's folders."""
    return [Path(word).name if os.sep in word else word for word in sys.argv[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, in turns with the paper's plain scheme.")
    parser.add_argument("--recorded", type=Path, required=True, help="folder of the paper's data")
    parser.add_argument("--model", help="a T5 folder; by default the built-in flan-t5-small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12, help="steps of a block")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of blocks")
    parser.add_argument("--precision", nargs="+", choices=sorted(GOALS), help="default: all it has")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    place = resolve_device(options.device)
    torch.manual_seed(SEED)
    bench, notes = prepare(options, place)
    has_bf16 = resolve_precision("auto", place) == "bf16"
    wanted = options.precision or (["fp32", "bf16"] if has_bf16 else ["fp32"])
    if not has_bf16:
        notes.append("bf16 not measured: this processor does not compute in it")
    lines = [line(kind, measure(bench, kind, options.steps, options.pairs)) for kind in wanted]
    text = page(bench, lines, notes)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    print(text)


def prepare(options: argparse.Namespace, place: torch.device) -> tuple[Bench, list[str]]:
    """Read, tokenise and load; assert equal gradients; and say what there is."""
    if options.model is None:
        from curate.assets import resolve

        options.model = resolve("flan-t5-small", "student")
    network, tokenizer = load_checkpoint(options.model)
    network.to(place)  # type: ignore[arg-type]
    plain = copy.deepcopy(network)
    quicken(network)
    examples = read_examples(options.recorded)
    encoded = encode(examples, tokenizer, FORMATTING, rationales=True)
    student = Student(
        network=network, tokenizer=tokenizer, formatting=FORMATTING, labels=None, settings={}
    )
    bench = Bench(student, plain, encoded, partial(multitask, alpha=ALPHA), options.batch)
    rows = random.Random(SEED).sample(range(len(examples)), options.batch)
    apart = assert_equal_gradients(bench, rows)
    size = sum(weight.numel() for weight in network.parameters())
    return bench, [
        f"gradients of a batch, dropout off, fp32: they differ by at most {apart:.0e} of the largest entry",
        f"{options.pairs} pairs of {options.steps} steps each; a step of each beforehand is not counted",
        f"rows: CommonsenseQA's training set with recorded rationales of a teacher, {len(examples):,} rows, "
        f"{sum(encoded.lengths()) / len(examples):.0f} tokens a row in both tasks",
        f"student: flan-t5-small, {size / 1e6:.0f} million weights"
        if options.model is None or "flan" in str(options.model)
        else f"student: {Path(options.model).name}, {size / 1e6:.0f} million weights",
    ]


if __name__ == "__main__":
    main()
