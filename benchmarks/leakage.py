"""What `filters.Contamination` finds of a half-leaked test set, and what it flags without cause.

Movie-review snippets and, where its file is given, multiple-choice questions. Half of the test rows are
planted among the training rows in several forms; beside them stand rows made to be mistaken for leaks.
Thresholds are the defaults, chosen before. Writes benchmarks/results/leakage.md.

    python benchmarks/leakage.py --questions cqa_train.jsonl.gz
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import platform
import random
import re
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

import filters
from curate.assets import load_data

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "leakage.md"
SEED = 0
RUN = 8


def recased(text: str, other: str, draw: random.Random) -> str:
    """Another case, no punctuation, other spacing."""
    return re.sub(r"[.,;:!?\"]", " ", text.upper()) + " ..."


def wrapped(text: str, other: str, draw: random.Random) -> str:
    """Inside words of another text."""
    words = other.split()
    cut = draw.randrange(len(words) + 1)
    return " ".join([*words[:cut], text, *words[cut:]])


def cut(text: str, other: str, draw: random.Random) -> str:
    """The first 60 to 90 % of the words, at least 8 of them."""
    words = text.split()
    return " ".join(words[: max(int(draw.uniform(0.6, 0.9) * len(words)), min(RUN, len(words)))])


def one_word(text: str, other: str, draw: random.Random) -> str:
    """One word replaced, anywhere."""
    words = text.split()
    words[draw.randrange(len(words))] = draw.choice(other.split())
    return " ".join(words)


def tenth(text: str, other: str, draw: random.Random) -> str:
    """A tenth of the words replaced, two at least."""
    words = text.split()
    for place in draw.sample(range(len(words)), max(2, round(0.1 * len(words)))):
        words[place] = draw.choice(other.split())
    return " ".join(words)


def same_opening(text: str, other: str, draw: random.Random) -> str:
    """The first eight words, and then another text."""
    return " ".join([*text.split()[:RUN], *other.split()])


def third(text: str, other: str, draw: random.Random) -> str:
    """A third of the words quoted inside another text that is as long or longer."""
    words, others = text.split(), other.split()
    start = draw.randrange(max(len(words) - len(words) // 3, 1))
    return " ".join([*others[:5], *words[start : start + len(words) // 3], *others[5:]])


def shuffled(text: str, other: str, draw: random.Random) -> str:
    """The same words in another order."""
    words = text.split()
    draw.shuffle(words)
    return " ".join(words)


Change = Callable[[str, str, random.Random], str]
#: The same text in another dress: these are what the target is about.
COPIES: dict[str, Change] = {
    "as it is": lambda text, other, draw: text,
    "other case and punctuation": recased,
    "inside other text": wrapped,
    "60 to 90 % of it": cut,
}
#: Another text made from it: shown, not part of the target.
EDITS: dict[str, Change] = {"one word replaced": one_word, "a tenth replaced": tenth}
NEGATIVES: dict[str, Change] = {
    "the same eight words to open": same_opening,
    "a third of it quoted": third,
    "its words in another order": shuffled,
}

OPTIONS = "another question, the same options"
#: More than half of the text is a test row's, word for word: whether that is a leak is a matter of taste.
MOSTLY = "the same, the options being most of the text"


def snippets() -> list[str]:
    """Movie-review snippets."""
    return [str(text) for text in load_data("vader-movies")["text"]]


def questions(path: Path) -> tuple[list[str], list[str]]:
    """Questions of a file of the step-by-step paper, and their options as a prompt shows them."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    options = [
        " ".join(
            f"({letter}) {choice}" for letter, choice in zip("abcde", row["choices"], strict=True)
        )
        for row in rows
    ]
    return [str(row["question"]) for row in rows], options


def build(asked: list[str], options: list[str] | None, size: int) -> tuple[pd.DataFrame, list[str]]:
    """Train rows with a column `kind` (None, a copy, an edit or a negative), and the test texts."""
    draw = random.Random(SEED)
    texts = asked
    if options is not None:
        texts = [f"{one} Answer choices: {some}" for one, some in zip(asked, options, strict=True)]
    once = list(dict(zip(normalised(asked), range(len(asked)), strict=True)).values())
    order = [place for place in once if len(asked[place].split()) >= 10]
    draw.shuffle(order)
    test, rest = order[:size], order[size:]
    rows: list[tuple[str, str | None]] = [(texts[place], None) for place in rest]
    forms = {**COPIES, **EDITS, **NEGATIVES}
    for number, place in enumerate(test):
        # The first half leaks, form after form; of the second half lures are made.
        leaked = number < size // 2
        kinds = list({**COPIES, **EDITS}) if leaked else list(NEGATIVES)
        kind = kinds[number % len(kinds)]
        rows.append((forms[kind](texts[place], texts[draw.choice(rest)], draw), kind))
        if options is not None and not leaked:
            other = f"{asked[draw.choice(rest)]} Answer choices: {options[place]}"
            shared = len(options[place].split()) + 2
            shorter = min(len(other.split()), len(texts[place].split()))
            rows.append((other, MOSTLY if 2 * shared > shorter else OPTIONS))
    train = pd.DataFrame(rows, columns=["input", "kind"])
    train.insert(0, "id", [f"train-{number}" for number in range(len(train))])
    return train, [texts[place] for place in test]


def normalised(texts: list[str]) -> list[str]:
    """Texts as filters compare them."""
    from filters.words import normalise

    return normalise(texts)


def any_shared(train: list[str], test: list[str], length: int) -> np.ndarray:
    """Which train texts share any run of so many words with a test text: the usual rule."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[n : n + length]) for n in range(len(words) - length + 1)}

    known = set().union(*map(runs, normalised(test)))
    return np.array([bool(runs(text) & known) for text in normalised(train)])


def judge(train: pd.DataFrame, test: list[str], ngram: int) -> tuple[np.ndarray, float]:
    """Which train rows are flagged, and in how many seconds."""
    started = time.perf_counter()
    chosen = filters.Contamination(ngram=ngram)
    result = filters.apply(train[["id", "input"]], [chosen], references={"test": test})
    return ~result.frame["keep"].to_numpy(dtype=bool), time.perf_counter() - started


def table(train: pd.DataFrame, test: list[str]) -> tuple[list[str], float, int]:
    """The lines of a result table, the recall on copies, and the false positives of the default."""
    flagged, seconds = judge(train, test, RUN)
    methods = {
        "containment of 8-word runs ≥ .5 (default)": flagged,
        "containment of 5-word runs ≥ .5": judge(train, test, 5)[0],
        "containment of 3-word runs ≥ .5": judge(train, test, 3)[0],
        "any shared 13-word run": any_shared(train["input"].tolist(), test, 13),
        "any shared 8-word run": any_shared(train["input"].tolist(), test, 8),
    }
    kinds = [
        kind
        for kind in (*COPIES, *EDITS, *NEGATIVES, OPTIONS, MOSTLY)
        if (train["kind"] == kind).any()
    ]
    lines = [f"| rows | number | {' | '.join(methods)} |", f"|---|---|{'---|' * len(methods)}"]
    for kind in [*kinds, None]:
        rows = (train["kind"].isna() if kind is None else train["kind"] == kind).to_numpy()
        group = "leak" if kind in COPIES else "edit" if kind in EDITS else "no leak"
        group = "in between" if kind == MOSTLY else group
        name = kind or "all other rows"
        shares = " | ".join(f"{found[rows].mean():.3f}" for found in methods.values())
        lines.append(f"| {group}: {name} | {rows.sum()} | {shares} |")
    copies = train["kind"].isin(list(COPIES)).to_numpy()
    clean = ~train["kind"].isin([*COPIES, *EDITS, MOSTLY]).to_numpy()
    lines += ["", f"{len(train)} train rows against {len(test)} test rows: {seconds:.2f} s."]
    return lines, float(flagged[copies].mean()), int(flagged[clean].sum())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--size", type=int, default=1200, help="test rows")
    given = parser.parse_args()
    parts = ["# Leakage of test rows into training rows", "", "Share of rows flagged.", ""]
    sets: list[tuple[str, pd.DataFrame, list[str]]] = []
    sets.append(("Movie-review snippets", *build(snippets(), None, given.size)))
    if given.questions is not None:
        asked, options = questions(given.questions)
        sets.append(("Questions with five options", *build(asked, options, given.size)))
    for name, train, test in sets:
        lines, recall, false = table(train, test)
        verdict = f"Recall on leaks {recall:.4f}; flagged without a leak: {false}."
        parts += [f"## {name}", "", *lines, verdict, ""]
        print(name, verdict)
    versions = ", ".join(f"{one} {metadata.version(one)}" for one in ("polars", "scipy", "numpy"))
    parts += [
        "- texts of at least ten words, each once; half of the test rows leaked, one form each; seed 0",
        f"- machine: {platform.processor() or platform.machine()}, {platform.system()}",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- date: {datetime.date.today().isoformat()}",
        f"- command: `python benchmarks/leakage.py --size {given.size}"
        f"{' --questions cqa_train.jsonl.gz' if given.questions else ''}`",
    ]
    RESULT.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
