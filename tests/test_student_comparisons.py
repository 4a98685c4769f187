"""Metrics beyond accuracy, and two systems held against each other, against other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, matthews_corrcoef

import labelers
import student
from student.comparisons import difference
from student.row_statistics import mean_of

LABELS = ["negative", "mixed", "positive"]
EMOTIONS = ["anger", "joy", "surprise"]


def draw(rows: int, right: float, seed: int) -> tuple[list[str], list[str | None]]:
    random = np.random.default_rng(seed)
    gold = random.choice(LABELS, size=rows).tolist()
    guess = random.choice([*LABELS, "?"], size=rows).tolist()
    said = [
        g if random.random() < right else (None if p == "?" else p)
        for g, p in zip(gold, guess, strict=True)
    ]
    return gold, said


def test_matthews_equals_scikit_learns_with_no_answer_as_a_class() -> None:
    gold, said = draw(300, 0.5, 1)
    theirs = matthews_corrcoef(gold, [p if p is not None else "(none)" for p in said])
    assert student.matthews(gold, said, labels=LABELS) == pytest.approx(theirs)
    assert student.matthews(["yes", "no"], ["yes", "yes"], labels=["yes", "no"]) == 0.0
    assert student.matthews(["yes", "no"], ["no", "yes"], labels=["yes", "no"]) == -1.0


def test_calibration_and_brier_within_evaluate_equal_their_functions() -> None:
    gold, _ = draw(200, 0.5, 2)
    probs = np.random.default_rng(3).dirichlet([1, 1, 1], size=200)
    said = [LABELS[i] for i in probs.argmax(axis=1)]
    found = student.evaluate(
        gold, said, labels=LABELS, metrics=["ece", "brier"], label_probs=probs.tolist()
    )
    right = [g == p for g, p in zip(gold, said, strict=True)]
    ece = student.expected_calibration_error(probs.max(axis=1).tolist(), right)
    assert found["ece"]["value"] == pytest.approx(ece)
    brier = student.brier(probs.tolist(), [LABELS] * 200, gold)
    assert found["brier"]["value"] == pytest.approx(brier)
    assert found["brier"]["low"] < brier < found["brier"]["high"]


def test_rows_without_probabilities_are_left_out_of_the_brier_score() -> None:
    found = student.evaluate(
        ["yes", "no"], ["yes", "no"], labels=["yes", "no"], metrics=["brier"],
        label_probs=[[0.8, 0.2], None],
    )  # fmt: skip
    assert found["brier"]["value"] == pytest.approx(0.08)
    silent = student.evaluate(["yes"], ["yes"], labels=["yes"], metrics=["ece"], label_probs=[None])
    assert silent["ece"] is None


def test_one_of_several_references_is_right_for_calibration_too() -> None:
    found = student.evaluate(
        [["yes", "sure"]] * 10, ["yes"] * 10, metrics=["ece", "brier"],
        label_probs=[[0.9, 0.0, 0.1]] * 10, choices=[["yes", "sure", "no"]] * 10,
    )  # fmt: skip
    assert found["ece"]["value"] == pytest.approx(0.1)
    # The likeliest of the two is the truth: the other one is no miss.
    assert found["brier"]["value"] == pytest.approx(0.1**2 + 0.1**2)


def test_an_answer_lost_in_a_table_is_no_answer() -> None:
    nan: Any = float("nan")
    found = student.compare("accuracy", ["yes", "no"], ["yes", nan], ["yes", "no"])
    assert (found["first"], found["second"]) == (0.5, 1.0)
    none: Any = None
    with pytest.raises(student.InputError, match="some rows have no gold"):
        student.compare("accuracy", ["yes", none], ["yes", "no"], ["yes", "no"])


def test_arithmetic_counts_by_its_value() -> None:
    gold = ["8 - 3", "( 84.0 / 2.0 )", ["7", "9"], "10"]
    said = ["5", "42", "9.0", "10 ** 1"]  # powers are not read
    assert student.value_accuracy(gold, said, same=labelers.same_value) == 0.75
    found = student.evaluate(gold, said, metrics=["value"], same=labelers.same_value)
    assert found["value"]["value"] == 0.75
    assert found["accuracy"]["value"] == 0.0


def test_sets_of_labels_equal_scikit_learns() -> None:
    random = np.random.default_rng(5)
    gold, said = random.random((80, 3)) < 0.4, random.random((80, 3)) < 0.5
    sets = [[{EMOTIONS[j] for j in np.flatnonzero(row)} for row in table] for table in (gold, said)]
    assert student.micro_f1(*sets) == pytest.approx(f1_score(gold, said, average="micro"))
    assert student.set_macro_f1(*sets) == pytest.approx(f1_score(gold, said, average="macro"))
    assert student.subset_accuracy(*sets) == pytest.approx(float((gold == said).all(1).mean()))
    texts = [[" , ".join(sorted(each)) for each in several] for several in sets]
    found = student.evaluate(*texts, metrics=["micro_f1", "subset_accuracy"], separator=",")
    assert found["micro_f1"]["value"] == pytest.approx(student.micro_f1(*sets))
    assert found["subset_accuracy"]["value"] == pytest.approx(student.subset_accuracy(*sets))


def test_no_answer_is_no_set_even_where_gold_is_empty() -> None:
    assert student.subset_accuracy([set(), {"joy"}], [None, {"joy"}]) == 0.5
    assert student.micro_f1([{"joy"}, {"anger"}], [{"joy"}, None]) == pytest.approx(2 / 3)


def test_rouge_is_the_librarys_and_takes_the_best_reference() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    gold = [["the cat sat on the mat", "a cat was sitting"], ["birds fly"]]
    said = ["a cat sat on a mat", None]
    found = student.evaluate(gold, said, metrics=["rouge1", "rougeL"])
    theirs = scorer.RougeScorer(["rougeL"], use_stemmer=True)
    best = max(theirs.score(each, said[0])["rougeL"].fmeasure for each in gold[0])
    assert found["rougeL"]["value"] == pytest.approx(best / 2)


def test_bleu_and_chrf_are_the_librarys() -> None:
    library = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    gold = [["the cat sat on the mat", "a cat was on the mat"], "birds fly high", "it is late now"]
    said = ["the cat sat on a mat", "the birds fly high", "it is late"]
    streams = [[g if isinstance(g, str) else g[0] for g in gold], [gold[0][1], None, None]]
    found = student.evaluate(gold, said, metrics=["bleu", "chrf"])
    bleu, chrf = library.corpus_bleu(said, streams), library.corpus_chrf(said, streams)
    assert found["bleu"]["value"] == pytest.approx(bleu.score / 100)
    assert found["chrf"]["value"] == pytest.approx(chrf.score / 100)
    assert found["chrf"]["low"] <= found["chrf"]["value"] <= found["chrf"]["high"]


@pytest.mark.parametrize(("metric", "package"), [("rougeL", "rouge-score"), ("bleu", "sacrebleu")])
def test_a_missing_library_is_named_with_its_extra(
    metric: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import student.text_metrics as home

    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(home, "import_module", refuse)
    with pytest.raises(student.InputError, match=rf"{package}.*curate-distill\[metrics\]"):
        student.evaluate(["a"], ["a"], metrics=[metric])


def test_every_metric_a_recipe_may_name_is_known_to_the_student() -> None:
    from curate.recipe_metrics import METRIC_NAMES

    assert set(METRIC_NAMES) == set(student.METRICS)


def test_the_paired_interval_is_that_of_resampling_row_by_row() -> None:
    gold, first = draw(200, 0.8, 6)
    _, second = draw(200, 0.0, 7)
    second = [g if i % 3 else p for i, (g, p) in enumerate(zip(gold, second, strict=True))]
    found = student.compare("macro_f1", gold, first, second, labels=LABELS, seed=1)

    def macro(rows: Any, said: list[str | None]) -> float:
        return float(
            f1_score(
                [gold[i] for i in rows],
                [said[i] or "(none)" for i in rows],
                labels=LABELS,
                average="macro",
            )
        )

    random = np.random.default_rng(8)
    values = []
    for _ in range(120):
        rows = random.integers(0, 200, size=200)
        values.append(macro(rows, first) - macro(rows, second))
    assert found["difference"] == pytest.approx(
        macro(range(200), first) - macro(range(200), second)
    )
    assert found["low"] == pytest.approx(np.quantile(values, 0.025), abs=0.04)
    assert found["high"] == pytest.approx(np.quantile(values, 0.975), abs=0.04)


def test_pairing_sees_what_two_single_intervals_do_not() -> None:
    # 30 rows of 400 tell them apart, all in favour of one; alone each is 4 points uncertain.
    gold = ["yes"] * 400
    first = ["yes"] * 330 + ["no"] * 70
    second = ["yes"] * 300 + ["no"] * 100
    found = student.compare("accuracy", gold, first, second, labels=["yes", "no"])
    assert found["difference"] == pytest.approx(0.075)
    assert 0.04 < found["low"] < found["high"] < 0.11
    assert found["p"] < 0.01
    assert found["mcnemar"] == {"first_only": 30, "second_only": 0, "p": pytest.approx(2 / 2**30)}
    same = student.compare("accuracy", gold, first, first, labels=["yes", "no"])
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


def test_p_is_about_uniform_where_there_is_no_difference() -> None:
    random = np.random.default_rng(9)
    ps = []
    for seed in range(60):
        tables = [mean_of((random.random(150) < 0.7).astype(float)) for _ in range(2)]
        ps.append(difference(*tables, resamples=200, seed=seed)["p"])
    assert 0.3 < np.mean(ps) < 0.7
    assert np.mean(np.array(ps) < 0.1) < 0.25


def test_mcnemar_is_the_exact_sign_test() -> None:
    first = [True] * 9 + [False] * 2 + [True] * 20
    second = [False] * 9 + [True] * 2 + [True] * 20
    found = student.mcnemar(first, second)
    assert (found["first_only"], found["second_only"]) == (9, 2)
    assert found["p"] == pytest.approx(binomtest(2, 11).pvalue)
    assert student.mcnemar([True], [True])["p"] == 1.0


def test_bad_comparisons_are_named() -> None:
    with pytest.raises(student.InputError, match="1 gold answers but 2 predictions"):
        student.compare("accuracy", ["a"], ["a"], ["a", "b"])
    with pytest.raises(student.InputError, match="metric 'ece' needs label_probs"):
        student.compare("ece", ["a"], ["a"], ["a"])
    with pytest.raises(student.InputError, match="metric 'f1' is not known; allowed: accuracy"):
        student.evaluate(["a"], ["a"], metrics=["f1"])
    with pytest.raises(student.InputError, match="2 probabilities for 3 choices"):
        student.evaluate(
            ["mixed"], ["mixed"], labels=LABELS, metrics=["ece"], label_probs=[[0.5, 0.5]]
        )


def test_a_threshold_trades_coverage_for_accuracy() -> None:
    sure = [0.9, 0.9, 0.8, 0.7, None, 0.4]
    right = [True, True, True, False, True, False]
    table = student.coverage_table(sure, right, thresholds=[0.0, 0.8, 0.95])  # type: ignore[arg-type]
    assert table == [
        {"threshold": 0.0, "rows": 5, "coverage": 5 / 6, "accuracy": 0.6},
        {"threshold": 0.8, "rows": 3, "coverage": 0.5, "accuracy": 1.0},
        {"threshold": 0.95, "rows": 0, "coverage": 0.0, "accuracy": None},
    ]
    chosen = student.choose_threshold(sure, right, accuracy=0.75, least_rows=2)  # type: ignore[arg-type]
    assert chosen == {"threshold": 0.7, "rows": 4, "coverage": 4 / 6, "accuracy": 0.75}
    # Rows of equal confidence are answered together or not at all.
    tied = student.choose_threshold(
        [0.9, 0.9, 0.9], [True, True, False], accuracy=0.9, least_rows=1
    )
    assert tied is None
    assert student.choose_threshold([0.9] * 5, [True] * 5, accuracy=0.9) is None  # too few rows
