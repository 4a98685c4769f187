"""Suspected wrong labels: how right the labels are that each score keeps, against how many it keeps.

Three measurements: CommonsenseQA as a 540-billion-parameter teacher labelled it (choices differ from row
to row), SVAMP as it labelled that (labels are equations), and wrong labels planted in rated product and
movie snippets. Gold is used to judge and, where a line says so, to fit on a few rows; no filter sees it.
The recorded outputs are no part of the project: gzip JSONL files cqa_train, cqa_test, svamp_train and
svamp_test with `teacher_output`, and `question`, `choices`, `answer` or `input`, `equation`.
Writes benchmarks/results/label_noise.md.

    python benchmarks/label_noise.py --recorded DIR --cache .curate --threads 2
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from label_noise_rows import CachedEncoder, read_equations, read_quiz, snippets, student_opinion
from machine import processor
from sklearn.metrics import roc_auc_score

import filters

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "label_noise.md"
SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
SUBSET = 2_000
CHECKED = 200
DRAWS = 20
HEADER = "| score | AUC | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
RULE = "|---|---|" + "---|" * len(SHARES)
SUMMARY = """\
Accuracy of the labels that a filter keeps, by the share of rows that it keeps. AUC: how well a score
tells right labels from wrong ones, 0.5 being chance. In brackets: 95 % Wilson intervals; for fitted
scores, the lowest and highest of 20 draws of the checked rows, which are not judged themselves. Nothing
but the lines that say "fitted" has seen gold; what counts as evidence at all was chosen with the train
rows' gold at hand, and fixed before the test rows were looked at.

- **The goal** for CommonsenseQA was 85 % right among at least 70 % of the rows. `label_noise` reaches
  it on train and on test, with room to spare, by rivals alone; with its default threshold it keeps 84 %
  of the train rows, and 86 % of those are right.
- **Why rivals work there.** CommonsenseQA was made by asking for questions around the same three
  options, one question for each, and adding two more choices to every question. So a choice that no
  related question offers is rarely right, and one that a related question has as its answer is not
  right here. Any set whose rows compete for the same options has such traces; where rows share none,
  this evidence is not there. Among the 1,221 test rows alone, where few have a rival, little is left of
  it.
- **Without rivals the goal is missed.** Rationales tell next to nothing of a large teacher's errors:
  right and wrong ones read alike. Embeddings predict what the teacher says better than what is right,
  since both go by what sounds near, and mixed in they make rivals worse. The best evidence of this
  kind, a small language model's own opinion, comes within two points; it was trained on many public
  tasks, perhaps on these questions.
- **Fitting** to 200 checked rows is worth little beyond the best single score, but needs no knowledge
  of which score that is, and gives a probability that can be read as one.
- **SVAMP**: sums that do not add up, and long rationales, both point at wrong equations. The test set
  is too small to say more than that it looks alike.
- **Planted errors**: on snippets the default threshold finds about two thirds of what is wrong, and a
  half to three quarters of what it drops is wrong; the rest are hard rows. `adjusted`, the default
  score, costs little where errors are symmetric and is the only one that holds where one label is
  favoured."""
CHEAP = (
    *("score_label_noise", "score_text", "score_unsupported", "score_other_choice"),
    *("score_restatement", "score_echo", "score_too_long"),
)


def kept_right(score: np.ndarray, right: np.ndarray, draws: int = 5) -> list[float]:
    """Accuracy among the best-scored share of rows; equal scores in random order, averaged."""
    score = np.nan_to_num(np.asarray(score, dtype=float), nan=np.nanmedian(score))
    found = []
    for seed in range(draws):
        ties = np.random.default_rng(seed).random(len(score))
        order = np.lexsort((ties, -score))
        found.append([right[order[: round(share * len(order))]].mean() for share in SHARES])
    return [float(value) for value in np.mean(found, axis=0)]


def line(name: str, score: np.ndarray, right: np.ndarray) -> str:
    """One line of a table: AUC of telling right labels from wrong ones, and the curve.

    A row without a score counts as the middle; a constant score is a random choice.
    """
    filled = np.nan_to_num(np.asarray(score, dtype=float), nan=np.nanmedian(score))
    auc = roc_auc_score(right, filled)
    return (
        f"| {name} | {auc:.3f} | " + " | ".join(f"{v:.1%}" for v in kept_right(score, right)) + " |"
    )


def interval(right: np.ndarray) -> str:
    """A share with its 95 % Wilson interval."""
    n, p, z = len(right), float(right.mean()), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{p:.1%} ({middle - half:.1%}–{middle + half:.1%})"


def score_quiz(rows: pd.DataFrame, embedder: str) -> tuple[pd.DataFrame, dict[str, float]]:
    """The labelled rows with every score that needs no gold, higher meaning better."""
    rows = rows[rows["label"].notna()].reset_index(drop=True)
    seen = rows.drop(columns=["gold"])
    seconds: dict[str, float] = {}
    columns: dict[str, Any] = {}

    def add(name: str, each: Any, sign: float = 1.0) -> None:
        start = time.perf_counter()
        frame = filters.apply(seen, [each]).frame
        seconds[name] = time.perf_counter() - start
        print(f"{name}: {seconds[name]:.0f} s", file=sys.stderr, flush=True)
        columns[f"score_{name}"] = sign * frame[f"score_{each.reason}"].to_numpy(dtype=float)

    add("label_noise", filters.LabelNoise(evidence="rivals"))
    add("text", filters.LabelNoise(evidence="text", encoder=embedder))
    add("both", filters.LabelNoise(evidence="both", encoder=embedder))
    add("unsupported", filters.Unsupported(encoder=embedder))
    add("other_choice", filters.OtherChoice(), -1)
    add("restatement", filters.Restatement(), -1)
    add("echo", filters.Echo(), -1)
    add("too_long", filters.TooLong(fields=["rationale"]), -1)
    return rows.assign(**columns), seconds


def fitted(frame: pd.DataFrame, names: Sequence[str], right: np.ndarray, title: str) -> list[str]:
    """Curves of scores fitted to a few checked rows, judged on the others, over several draws."""
    found, last = [], None
    for seed in range(DRAWS):
        checked = np.zeros(len(frame), dtype=bool)
        checked[np.random.default_rng(seed).permutation(len(frame))[:CHECKED]] = True
        told = [bool(r) if c else None for r, c in zip(right, checked, strict=True)]
        last = filters.fit_score(frame, names, told, seed=seed)
        score, truth = last.apply(frame)[~checked], right[~checked]
        found.append([roc_auc_score(truth, score), *kept_right(score, truth, 1)])
    mean, low, high = (f(found, axis=0) for f in (np.mean, np.min, np.max))
    cells = [
        f"{m:.1%} ({a:.1%}–{b:.1%})" for m, a, b in zip(mean[1:], low[1:], high[1:], strict=True)
    ]
    return [f"| {title} | {mean[0]:.3f} | " + " | ".join(cells) + " |"]


def measure_quiz(options: argparse.Namespace, embedder: str, student: str) -> list[str]:
    """CommonsenseQA: train rows, a subset with a small language model, then the test rows."""
    train = read_quiz(options.recorded / "cqa_train.jsonl.gz")
    test = read_quiz(options.recorded / "cqa_test.jsonl.gz")
    frame, seconds = score_quiz(train, embedder)
    right = (frame["label"] == frame["gold"]).to_numpy()
    lines = [
        "## CommonsenseQA",
        "",
        f"{len(train):,} train rows; {len(frame):,} of the teacher's answers name a choice, and "
        f"{interval(right)} of those labels are right. Accuracy of the labels kept, by share of rows kept:",
        *("", HEADER, RULE),
        line("random", np.zeros(len(frame)), right),
        *quiz_lines(frame, right),
        *fitted(frame, CHEAP, right, f"all of these, fitted to {CHECKED} checked rows"),
        "",
        *default_lines(frame, right),
        "",
        "Seconds for all train rows: "
        + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        + ", with embeddings from the cache.",
        "",
    ]
    lines += measure_subset(frame, right, student, options.cache)
    lines += measure_test(frame, test, embedder)
    return lines


def quiz_lines(frame: pd.DataFrame, right: np.ndarray) -> list[str]:
    names = {
        "score_other_choice": "rationale names the label, not another choice (`other_choice`)",
        "score_restatement": "rationale says something new (`restatement`)",
        "score_echo": "rationale echoes the prompt little (`echo`)",
        "score_too_long": "short rationale (`too_long`)",
        "score_unsupported": "rationale's embedding near the label's (`unsupported`)",
        "score_text": "question's embedding near the label's (`label_noise`, evidence text)",
        "score_label_noise": "rivals (`label_noise`, as it is)",
        "score_both": "rivals and embeddings (`label_noise`, evidence both)",
    }
    found = [line(title, frame[name].to_numpy(), right) for name, title in names.items()]
    ranks = frame[list(CHEAP)].rank(pct=True).fillna(0.5).mean(axis=1).to_numpy()
    return [*found, line("mean rank of all but the last", ranks, right)]


def default_lines(frame: pd.DataFrame, right: np.ndarray) -> list[str]:
    """What stays at some minima of `LabelNoise`."""
    score = frame["score_label_noise"].to_numpy()
    found = [
        "| `minimum` | rows kept | labels kept that are right | dropped labels that are wrong |"
    ]
    found.append("|---|---|---|---|")
    for value, name in (
        (1 / 3, "1/3 (default)"),
        (0.4, "0.4"),
        (0.5, "0.5 (chance)"),
        (0.6, "0.6"),
    ):
        kept = ~(score < value)
        found.append(
            f"| {name} | {kept.mean():.1%} | {interval(right[kept])} | {1 - right[~kept].mean():.1%} |"
        )
    return found


def measure_subset(frame: pd.DataFrame, right: np.ndarray, student: str, cache: Path) -> list[str]:
    """A small language model's own opinion, on a fixed subset."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(frame))[:SUBSET])
    part, truth = frame.iloc[chosen].reset_index(drop=True), right[chosen]
    part["opinion"] = student_opinion(part, student, cache / "label_noise_t5.json")
    hits = np.mean(
        [
            c[int(np.argmax(p))] == g
            for c, p, g in zip(part["choices"], part["opinion"], part["gold"], strict=True)
        ]
    )
    judged = filters.apply(
        part.drop(columns=["gold"]), [filters.LabelNoise(probabilities="opinion")]
    ).frame
    part["score_t5"] = judged["score_label_noise"].to_numpy()
    rivals, t5 = part["score_label_noise"].to_numpy(), part["score_t5"].to_numpy()
    ranks = part[["score_label_noise", "score_t5"]].rank(pct=True).mean(axis=1).to_numpy()
    words = ("score_text", "score_unsupported", "score_t5")
    texts = part[list(words)].rank(pct=True).mean(axis=1).to_numpy()
    without = (*(name for name in CHEAP if name != "score_label_noise"), "score_t5")
    return [
        f"### With a language model, on {SUBSET:,} train rows drawn once",
        "",
        "flan-t5-small, not fine-tuned on these rows, gives each choice a probability (the column that "
        "`probabilities` names): p(choice | question and choices)^½ · p(choice | question) / p(choice)^½, "
        f"scaled to sum to 1. Its own answers are right on {hits:.1%}.",
        *("", HEADER, RULE),
        line("random", np.zeros(SUBSET), truth),
        line("flan-t5-small", t5, truth),
        line("flan-t5-small, text and unsupported, mean rank: no use of rivals", texts, truth),
        *fitted(part, without, truth, f"all but rivals, fitted to {CHECKED} checked rows"),
        line("rivals", rivals, truth),
        line("rivals and flan-t5-small, mean rank", ranks, truth),
        *fitted(part, (*CHEAP, "score_t5"), truth, f"all, fitted to {CHECKED} checked rows"),
        "",
        *calibration(part, (*CHEAP, "score_t5"), truth),
    ]


def calibration(part: pd.DataFrame, names: Sequence[str], right: np.ndarray) -> list[str]:
    """How good the fitted probability is, shown on the checked rows and on all others."""
    checked = np.random.default_rng(0).permutation(len(part))[:CHECKED]
    told: list[bool | None] = [None] * len(part)
    for place in checked:
        told[place] = bool(right[place])
    found = filters.fit_score(part, names, told)
    others = np.ones(len(part), dtype=bool)
    others[checked] = False
    score = found.apply(part)
    rows = ["| predicted, mean of the fifth | right |", "|---|---|"]
    for piece in np.array_split(np.flatnonzero(others)[np.argsort(score[others])], 5):
        rows.append(f"| {score[piece].mean():.1%} | {right[piece].mean():.1%} |")
    return [
        f"Calibration of the last line's first draw: on its {CHECKED} rows, out of fold, the calibration "
        f"error is {found.calibration_error:.3f} and the Brier score {found.brier:.3f}; on the other "
        f"{others.sum():,}:",
        "",
        *rows,
        "",
    ]


def measure_test(frame: pd.DataFrame, test: pd.DataFrame, embedder: str) -> list[str]:
    """The test rows, looked at once, with all rules fixed on train."""
    alone, _ = score_quiz(test, embedder)
    right = (alone["label"] == alone["gold"]).to_numpy()
    columns = ["id", "input", "question", "choices", "label", "rationale", "gold"]
    both, _ = score_quiz(pd.concat([frame[columns], alone[columns]], ignore_index=True), embedder)
    beside = both.iloc[len(frame) :].reset_index(drop=True)
    truth_both = (both["label"] == both["gold"]).to_numpy()
    told: list[bool | None] = [None] * len(both)
    for place in np.random.default_rng(0).permutation(len(frame))[:CHECKED]:
        told[place] = bool(truth_both[place])
    score = filters.fit_score(both, CHEAP, told).apply(both)[len(frame) :]
    seventy = np.argsort(-beside["score_label_noise"].to_numpy(), kind="stable")
    best = right[seventy[: round(0.7 * len(right))]]
    return [
        "### Test rows, looked at once",
        "",
        f"{len(alone):,} rows, {interval(right)} right. The 70 % that rivals keep, with the train rows "
        f"beside, are {interval(best)} right.",
        *("", HEADER, RULE),
        line("random", np.zeros(len(alone)), right),
        line("`other_choice`", alone["score_other_choice"].to_numpy(), right),
        line("text", beside["score_text"].to_numpy(), right),
        line("rivals, among the test rows alone", alone["score_label_noise"].to_numpy(), right),
        line("rivals, the train rows beside", beside["score_label_noise"].to_numpy(), right),
        line(f"all of CQA's first table, fitted to {CHECKED} checked train rows", score, right),
        "",
    ]


def measure_equations(options: argparse.Namespace) -> list[str]:
    """SVAMP: is the arithmetic of rationale and label consistent?"""
    found = ["## SVAMP", ""]
    for split in ("train", "test"):
        rows, right = read_equations(options.recorded / f"svamp_{split}.jsonl.gz")
        total = len(rows)
        read = rows["label"].notna().to_numpy()
        rows, right = rows[read].reset_index(drop=True), right[read]
        chain = [filters.Arithmetic(), filters.TooLong(fields=["rationale"]), filters.Restatement()]
        frame = filters.apply(rows, chain).frame
        kept = ~(frame["score_arithmetic"].to_numpy() > 0)
        names = ["score_arithmetic", "score_too_long", "score_restatement"]
        found += [
            f"{split}: {total} rows, {len(rows)} with an equation, {interval(right)} of those right. "
            f"`Arithmetic()` keeps {kept.mean():.1%} of them, {interval(right[kept])} right; of what it "
            f"drops {1 - right[~kept].mean():.1%} is wrong.",
            *("", HEADER, RULE),
            line("random", np.zeros(len(frame)), right),
            line("`arithmetic`", -frame["score_arithmetic"].to_numpy(), right),
            line("short rationale (`too_long`)", -frame["score_too_long"].to_numpy(), right),
            *(
                fitted(frame, names, right, f"three, fitted to {CHECKED} checked rows")
                if split == "train"
                else []
            ),
            "",
        ]
    return found


def plant(truth: np.ndarray, rate: float, kind: str, seed: int) -> np.ndarray:
    """Which of two labels are flipped: everywhere alike, or four times as often from the second."""
    rates = np.full(len(truth), rate)
    if kind == "class-dependent":
        rates = np.where(truth == 1, 1.6 * rate, 0.4 * rate)
    return np.random.default_rng(seed).random(len(truth)) < rates


def measure_planted(embedder: str, cache: Path) -> list[str]:
    """Wrong labels planted in snippets: what is found, at the filter's own threshold and by rank."""
    found = [
        "## Planted wrong labels",
        "",
        "Positive and negative snippets of VADER's data whose labels were flipped, alike for both labels, or "
        "four times as often for positive ones. Precision and recall of what `LabelNoise()` drops at its own "
        "threshold, and AUC of its score; means of three draws.",
        "",
        "| data | kind | flipped | dropped | precision | recall | AUC | AUC, words only | AUC, "
        "`self_confidence` |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, most in (("vader-products-clear", None), ("vader-movies-clear", 4_000)):
        rows = snippets(name, most)
        vectors = filters.embed(rows["input"].tolist(), embedder, cache=cache)
        truth = (rows["label"] == "positive").to_numpy().astype(int)
        for kind in ("symmetric", "class-dependent"):
            for rate in (0.1, 0.2, 0.3, 0.4):
                cells = [
                    planted_line(rows, truth, vectors, plant(truth, rate, kind, s))
                    for s in range(3)
                ]
                flipped, dropped, *rest = np.mean(cells, axis=0)
                found.append(
                    f"| {name} ({len(rows):,}) | {kind} | {flipped:.1%} | {dropped:.1%} | "
                    + " | ".join(f"{value:.3f}" for value in rest)
                    + " |"
                )
                print(found[-1], file=sys.stderr, flush=True)
    return [*found, ""]


def planted_line(
    rows: pd.DataFrame, truth: np.ndarray, vectors: np.ndarray, flip: np.ndarray
) -> list[float]:
    names = np.array(["negative", "positive"])
    noisy = rows.assign(label=names[np.where(flip, 1 - truth, truth)])

    def judge(each: Any, embeddings: np.ndarray | None) -> Any:
        return filters.apply(noisy, [each], embeddings=embeddings).frame

    def auc(frame: pd.DataFrame) -> float:
        return float(roc_auc_score(flip, -frame["score_label_noise"]))

    own = judge(filters.LabelNoise(), vectors)
    dropped = ~own["keep"].to_numpy()
    sure = judge(filters.LabelNoise(score="self_confidence"), vectors)
    hits = (dropped & flip).sum()
    precision, recall = hits / max(dropped.sum(), 1), hits / max(flip.sum(), 1)
    aucs = [auc(own), auc(judge(filters.LabelNoise(), None)), auc(sure)]
    return [flip.mean(), dropped.mean(), precision, recall, *aucs]


def facts(options: argparse.Namespace) -> list[str]:
    versions = ", ".join(
        f"{n} {metadata.version(n)}"
        for n in ("scikit-learn", "torch", "transformers", "sentence-transformers", "pandas")
    )
    return [
        "## How this was measured",
        "",
        f"- machine: {processor()}, {options.threads} threads, shared with other work, {platform.system()}",
        f"- versions: Python {platform.python_version()}, {versions}",
        "- embedder: the built-in all-minilm-l6-v2; language model: the built-in flan-t5-small, int8 weights "
        "dequantised",
        f"- date: {options.date}",
        "- command: `python benchmarks/label_noise.py --recorded DIR --cache .curate "
        f"--threads {options.threads}`",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recorded", type=Path, required=True, help="folder of the recorded outputs"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(".curate"), help="embeddings and opinions"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--date", default=str(datetime.date.today()))
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    import torch

    from curate.assets import resolve

    torch.set_num_threads(options.threads)
    embedder = CachedEncoder(resolve("all-minilm-l6-v2", "embedder"), options.cache)
    student = resolve("flan-t5-small", "student")
    steps: list[Callable[[], list[str]]] = [
        lambda: measure_quiz(options, embedder, student),
        lambda: measure_equations(options),
        lambda: measure_planted(resolve("all-minilm-l6-v2", "embedder"), options.cache),
        lambda: facts(options),
    ]
    lines = ["# Suspected wrong labels", "", SUMMARY, ""]
    for step in steps:
        lines += step()
        print("\n".join(lines[-40:]), file=sys.stderr, flush=True)
    options.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
