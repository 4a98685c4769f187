"""ROUGE, BLEU and chrF of written answers, by the libraries that others report them with."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from student.errors import InputError
from student.row_statistics import (
    Answers,
    Floats,
    Statistics,
    check_lengths,
    mean_of,
    references,
)

__all__ = ["bleu", "chrf", "rouge"]

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")


def rouge(answers: Answers, kind: str) -> Statistics:
    """Mean F1 of `rouge1`, `rouge2` or `rougeL` with stemming (Lin 2004), by rouge-score.

    Of several references the best one counts. No answer scores 0.
    """
    if kind not in ROUGE_KINDS:
        raise InputError(f"kind={kind!r} is not known; allowed: {', '.join(ROUGE_KINDS)}")
    check_lengths(answers.gold, answers.predictions)
    scorer: Any = _library("rouge_score.rouge_scorer").RougeScorer([kind], use_stemmer=True)
    scores = [
        0.0 if said is None else scorer.score_multi(list(references(gold)), said)[kind].fmeasure
        for gold, said in zip(answers.gold, answers.predictions, strict=True)
    ]
    return mean_of(np.asarray(scores, dtype=float))


def bleu(answers: Answers) -> Statistics:
    """Corpus BLEU as a share of one, by sacrebleu with its defaults (13a, exponential smoothing)."""
    return _corpus(answers, _library("sacrebleu.metrics").BLEU())


def chrf(answers: Answers) -> Statistics:
    """Corpus chrF2 as a share of one, by sacrebleu with its defaults (Popović 2015)."""
    return _corpus(answers, _library("sacrebleu.metrics").CHRF())


def _corpus(answers: Answers, metric: Any) -> Statistics:
    """Take sacrebleu's metric apart as sacrebleu does for its own bootstrap.

    It has no public name for a segment's statistics; a test holds the sum against `corpus_score`.
    """
    check_lengths(answers.gold, answers.predictions)
    said = [p or "" for p in answers.predictions]
    several = [list(references(gold)) for gold in answers.gold]
    most = max(map(len, several))
    # sacrebleu wants as many streams as the row with most references has; None marks a gap.
    streams = [[row[n] if n < len(row) else None for row in several] for n in range(most)]
    rows = np.asarray(metric._extract_corpus_statistics(said, streams), dtype=float)

    def value(sums: Floats) -> Floats:
        scores = [metric._compute_score_from_stats(each.tolist()).score for each in sums]
        return np.asarray(scores, dtype=float) / 100

    return Statistics(rows=rows, value=value)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise InputError(
            f"this metric needs {package}, which is not installed: "
            "pip install 'curate-distill[metrics]'"
        ) from error
