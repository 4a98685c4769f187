"""Suspected wrong labels: planted errors are found, clean rows stay, and nobody sees gold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, run

import filters
from filters import FilterError, LabelNoise, Unsupported, suspect_labels
from filters.choice_pairs import list_pairs, rival_features, rival_share
from filters.confident_learning import (
    class_thresholds,
    confident_joint,
    deal_folds,
    label_quality,
    out_of_fold,
    suspects,
)

PARTS = [
    *("strap", "lens", "zoom", "sound", "case", "screen"),
    *("button", "battery", "cable", "stand", "dial", "grip"),
]
PRAISE, BLAME = ("great", "superb", "lovely", "fine"), ("awful", "broken", "poor", "weak")


def reviews(*slips: int) -> pd.DataFrame:
    """96 snippets, half of them good, with wrong labels at the places of `slips`."""
    texts = [
        f"The {part} is {word}." for words in (PRAISE, BLAME) for part in PARTS for word in words
    ]
    labels = ["good"] * 48 + ["bad"] * 48
    for place in slips:
        labels[place] = "bad" if labels[place] == "good" else "good"
    return frame(texts, label=labels)


class Words:
    """An encoder that knows words only."""

    name = "words"

    def __call__(self, texts: list[str]) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        hashed = HashingVectorizer(n_features=2048, alternate_sign=False, norm="l2")
        return hashed.transform(texts).toarray()


def test_slips_in_a_clean_set_are_found_and_nothing_else() -> None:
    rows = reviews(3, 40, 70)
    found = run(rows, LabelNoise())
    assert {"r3", "r40", "r70"} == set(
        found.frame.loc[found.frame["reason"] == "label_noise", "id"]
    )
    assert found.counts["kept"] == 93


def test_embeddings_are_used_where_there_are_any() -> None:
    rows = reviews(3, 40, 70)
    vectors = np.zeros((96, 2))
    vectors[:48, 0], vectors[48:, 1] = 1, 1
    # To these vectors the texts say nothing: what differs from them is suspect.
    flat = rows.assign(input="The same.")
    found = run(flat, LabelNoise(), embeddings=vectors)
    assert kept(found) == set(rows["id"]) - {"r3", "r40", "r70"}


def test_the_opinion_names_the_label_to_put_instead() -> None:
    listed = suspect_labels(reviews(3, 70))
    assert set(listed["id"][:2]) == {"r3", "r70"}
    by_id = listed.set_index("id")
    assert by_id.loc["r3", ["label", "opinion"]].tolist() == ["bad", "good"]
    assert by_id.loc["r70", ["label", "opinion"]].tolist() == ["good", "bad"]
    assert len(listed) == 96
    assert listed["score"].is_monotonic_increasing


def test_share_and_minimum_say_how_many_go() -> None:
    rows = reviews(3, 40, 70)
    tenth = run(rows, LabelNoise(share=0.1))
    assert tenth.counts["dropped"]["label_noise"] == 9
    threshold = tenth.decisions["threshold"].iloc[0]
    assert kept(run(rows, LabelNoise(minimum=threshold))) == kept(tenth)
    scores = tenth.frame["score_label_noise"]
    assert (scores[tenth.frame["keep"]] >= threshold).all()
    assert (scores[~tenth.frame["keep"]] < threshold).all()
    assert kept(run(rows, LabelNoise(share=0.0))) == set(rows["id"])


def test_gold_is_not_read() -> None:
    rows = reviews(3, 40, 70)
    told = rows.assign(gold=["good"] * 48 + ["bad"] * 48)
    lied = rows.assign(gold=["bad"] * 96)
    assert (
        run(told, LabelNoise())
        .frame["score_label_noise"]
        .equals(run(lied, LabelNoise()).frame["score_label_noise"])
    )
    with pytest.raises(FilterError, match="a column of probabilities other than 'gold'"):
        LabelNoise(probabilities="gold")


def test_the_order_of_rows_changes_no_digit() -> None:
    rows = reviews(3, 40, 70)
    mixed = rows.sample(frac=1, random_state=1).reset_index(drop=True)
    one = run(rows, LabelNoise()).frame.set_index("id")["score_label_noise"]
    two = run(mixed, LabelNoise()).frame.set_index("id")["score_label_noise"]
    assert one.equals(two.loc[one.index])


def test_rows_of_a_group_are_never_judged_by_one_another() -> None:
    # Each text stands twice with the same wrong label. Apart, each would vouch for the other.
    texts = [f"The {part} is {word}." for part in PARTS for word in (*PRAISE, *BLAME)]
    labels = ["good" if text.split()[-1][:-1] in PRAISE else "bad" for text in texts]
    rows = frame([*texts, *texts], label=[*labels, *labels], group=[*range(96), *range(96)])
    folds = deal_folds([str(group) for group in rows["group"]], 5, 0)
    assert (folds[:96] == folds[96:]).all()
    assert set(np.bincount(folds)) == {38, 40}


def test_a_label_with_few_rows_is_left_alone() -> None:
    rows = reviews()
    rows.loc[[0, 1], "label"] = "undecided"
    found = run(rows, LabelNoise())
    assert {"r0", "r1"} <= kept(found)
    assert np.isnan(found.frame["score_label_noise"].iloc[0])
    assert "1 of 3 labels have fewer than 5 rows" in found.warnings[0]


@pytest.mark.parametrize("labels", [[], ["good"], ["good"] * 20, ["good", "bad"], [None, None]])
def test_sets_from_which_nothing_can_be_learnt_stay_whole(labels: list[Any]) -> None:
    rows = frame([f"The {number}th one." for number in range(len(labels))], label=labels)
    rows["label"] = rows["label"].astype(object)
    found = run(rows, LabelNoise())
    assert len(found.kept) == sum(label is not None for label in labels)


def test_free_text_labels_are_not_judged() -> None:
    rows = frame([f"Text {n}." for n in range(30)], label=[f"answer {n}" for n in range(30)])
    found = run(rows, LabelNoise())
    assert len(found.kept) == 30
    assert "leave the filter out for free text" in found.warnings[0]


def test_labels_that_no_model_can_predict_are_not_suspected() -> None:
    rng = np.random.default_rng(0)
    rows = frame(
        [f"The {PARTS[n % 12]} number {n}." for n in range(200)],
        label=rng.choice(["good", "bad"], 200).tolist(),
    )
    found = run(rows, LabelNoise())
    assert len(found.kept) == 200
    assert "labels are predicted no better than by their frequency" in found.warnings[0]
    # What is asked for outright is done all the same; rows of one score stay together.
    assert 150 <= len(run(rows, LabelNoise(share=0.25)).kept) < 160


def test_labels_are_needed() -> None:
    with pytest.raises(FilterError, match="label_noise: there is no column 'label'"):
        run(frame(["One."]), LabelNoise())


# ------------------------------------------------------------------------- the formulas


P = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])
Y = np.array([0, 0, 0, 1, 1, 1])


def test_thresholds_and_joint_are_those_of_the_paper() -> None:
    assert class_thresholds(P, Y) == pytest.approx([2 / 3, 0.65])
    # Rows 3 and 5 reach no threshold and are not counted.
    assert confident_joint(P, Y).tolist() == [[2, 1], [0, 1]]
    assert suspects(P, Y, class_thresholds(P, Y)).tolist() == [False, False, True] + [False] * 3


def test_label_quality_by_each_formula() -> None:
    thresholds = class_thresholds(P, Y)
    assert label_quality(P, Y, "self_confidence", thresholds) == pytest.approx(
        [0.9, 0.8, 0.3, 0.6, 0.8, 0.55]
    )
    assert label_quality(P, Y, "margin", thresholds)[2] == pytest.approx((0.3 - 0.7 + 1) / 2)
    shifted = P[2] - thresholds + thresholds.max()
    assert label_quality(P, Y, "adjusted", thresholds)[2] == pytest.approx(
        shifted[0] / shifted.sum()
    )


def test_a_class_that_the_model_is_never_sure_of_is_not_suspect_as_a_whole() -> None:
    p = np.array([[0.9, 0.1]] * 50 + [[0.6, 0.4]] * 10)
    y = np.array([0] * 50 + [1] * 10)
    thresholds = class_thresholds(p, y)
    adjusted = label_quality(p, y, "adjusted", thresholds)
    assert (label_quality(p, y, "self_confidence", thresholds)[50:] < 0.5).all()
    assert (adjusted[50:] > 0.5).all()
    assert not suspects(p, y, thresholds).any()


def test_no_row_is_judged_by_a_model_fitted_to_it() -> None:
    # Features that identify each row: any model that saw a row would know its label.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    folds = deal_folds([str(n) for n in range(200)], 5, 0)
    found = out_of_fold(np.eye(200), labels, 2, folds, np.ones(200, dtype=bool))
    own = found[np.arange(200), labels]
    assert abs(own.mean() - 0.5) < 0.05


@pytest.mark.parametrize("kind", ["symmetric", "class-dependent"])
@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_planted_noise_is_found_better_than_by_chance(kind: str, rate: float) -> None:
    rows = pd.concat([reviews()] * 3, ignore_index=True)
    rows["id"] = [f"r{number}" for number in range(len(rows))]
    rates = np.where(rows["label"] == "good", 1.6, 0.4) if kind != "symmetric" else 1.0
    flip = np.random.default_rng(1).random(len(rows)) < rate * rates
    other = rows["label"].map({"good": "bad", "bad": "good"})
    noisy = rows.assign(label=np.where(flip, other, rows["label"]))
    dropped = ~run(noisy, LabelNoise()).frame["keep"].to_numpy()
    assert (dropped & flip).sum() / flip.sum() > 0.6
    assert (dropped & flip).sum() / dropped.sum() > 0.75


# ------------------------------------------------------------------ choices of the row's own


def quiz(families: int = 40) -> tuple[pd.DataFrame, list[str]]:
    """Three questions around the same three options, each with two choices of its own."""
    rng = np.random.default_rng(0)
    lines, right = [], []
    for family in range(families):
        shared = [f"place {family} {letter}" for letter in "abc"]
        for number, answer in enumerate(shared):
            own = [f"other {family} {number} {letter}" for letter in "xy"]
            choices = [str(one) for one in rng.permutation([*shared, *own])]
            lines.append((f"q{family}-{number}", f"Which fits {family} {number}?", choices, answer))
            right.append(answer)
    return pd.DataFrame(lines, columns=["id", "input", "choices", "label"]), right


def with_slips(rows: pd.DataFrame, share: float) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    wrong = rng.random(len(rows)) < share
    labels = [
        str(rng.choice([one for one in choices if one != label])) if slip else label
        for choices, label, slip in zip(rows["choices"], rows["label"], wrong, strict=True)
    ]
    return rows.assign(label=labels), wrong


def test_rivals_show_which_labels_are_wrong() -> None:
    rows, wrong = with_slips(quiz()[0], 0.25)
    found = run(rows, LabelNoise())
    dropped = ~found.frame["keep"].to_numpy()
    assert (dropped & wrong).sum() / wrong.sum() > 0.6
    assert wrong[~dropped].mean() < 0.12 < wrong.mean()
    assert found.decisions["threshold"].dropna().unique() == pytest.approx([1 / 3])


def test_a_rows_own_label_is_no_evidence_for_it() -> None:
    rows, _ = with_slips(quiz()[0], 0.25)
    choices, labels = rows["choices"].tolist(), rows["label"].tolist()
    pairs = list_pairs(choices, labels)
    everybody = np.ones(len(rows), dtype=bool)
    changed = [*labels[:7], next(c for c in choices[7] if c != labels[7]), *labels[8:]]
    own = pairs.row == 7
    before = rival_features(pairs, everybody)[own]
    after = rival_features(list_pairs(choices, changed), everybody)[own]
    assert np.array_equal(before, after)


def test_features_count_rivals_as_said() -> None:
    choices = [["bank", "desk", "river", "car"], ["bank", "desk", "river", "sea"], ["bank", "sun"]]
    pairs = list_pairs(choices, ["bank", "desk", "bank"])
    found = rival_features(pairs, np.ones(3, dtype=bool))
    desk = found[(pairs.row == 0) & (pairs.choice == pairs.names.index("desk"))][0]
    # One rival shares three choices, offers this one and has it as its label.
    assert desk[:4] == pytest.approx([np.log(2), 1, 1, 1])
    bank = found[(pairs.row == 0) & (pairs.choice == pairs.names.index("bank"))][0]
    assert bank[:4] == pytest.approx([np.log(2), 1, 0, 0])
    # Another shares one choice only, and has taken it.
    assert bank[8:12] == pytest.approx([np.log(2), 1, 1, 1])
    assert bank[12] == pytest.approx(np.log(1.5 / 4.5))
    car = found[(pairs.row == 0) & (pairs.choice == pairs.names.index("car"))][0]
    assert car[13] == 1
    assert rival_share(pairs) == pytest.approx(2 / 3)


def test_a_choice_that_everybody_offers_makes_no_rivals() -> None:
    choices = [["yes", "no", f"thing {number}"] for number in range(300)]
    pairs = list_pairs(choices, ["yes"] * 300)
    assert rival_share(pairs) == 0


def test_without_rivals_and_encoder_nothing_is_judged() -> None:
    rows = frame(
        [f"Question {number}?" for number in range(20)],
        choices=[[f"a{number}", f"b{number}"] for number in range(20)],
        label=[f"a{number}" for number in range(20)],
    )
    found = run(rows, LabelNoise())
    assert len(found.kept) == 20
    assert "fewer than half of the rows share two choices" in found.warnings[0]
    with pytest.raises(FilterError, match="evidence is 'text' and encoder is None"):
        run(rows, LabelNoise(evidence="text"))


def test_text_compares_question_and_choice() -> None:
    animals = [
        *("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"),
        *("ibis", "jay", "kite", "lark", "mole", "newt", "owl", "pig"),
    ]
    # Sixteen questions that hold their answer's word; the last label is wrong.
    choices = [[one, f"rock {one[::-1]}"] for one in animals]
    rows = frame(
        [f"What {one} sings at night?\n(a) {one}\n(b) rock" for one in animals],
        choices=choices,
        label=[*animals[:-1], choices[-1][1]],
    )
    found = run(rows, LabelNoise(encoder=Words()))
    assert kept(found) == set(rows["id"]) - {"r15"}


def test_probabilities_of_another_model_are_used_as_they_are() -> None:
    rows = frame(
        ["One?", "Two?", "Three?"],
        choices=[["a", "b"], ["c", "d", "d"], ["e", "f"]],
        label=["a", "d", "e"],
        student=[[0.9, 0.1], [0.8, 0.1, 0.1], None],
    )
    found = run(rows, LabelNoise(probabilities="student", minimum=0.45))
    assert kept(found) == {"r0", "r2"}
    # p is .9 and .2, chance 1/2 (a choice that is listed twice counts once).
    assert found.frame["score_label_noise"].tolist()[:2] == pytest.approx([0.9 / 1.4, 0.2 / 0.7])
    with pytest.raises(FilterError, match="student holds 2 probabilities and there are 3"):
        run(rows.assign(student=[[0.5, 0.5]] * 3), LabelNoise(probabilities="student"))


def test_probabilities_for_one_label_set_follow_each_rows_choices() -> None:
    rows = frame(
        [f"Text {number}." for number in range(4)],
        choices=[["yes", "no"], ["no", "yes"], ["yes", "no"], ["yes", "no"]],
        label=["yes", "yes", "no", "no"],
        student=[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]],
    )
    listed = suspect_labels(
        rows, noise=LabelNoise(probabilities="student", score="self_confidence")
    )
    assert dict(zip(listed["id"], listed["probability"], strict=True)) == pytest.approx(
        {"r0": 0.9, "r1": 0.8, "r2": 0.7, "r3": 0.1}
    )
    assert listed["opinion"].iloc[0] == "yes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minimum": 0.3, "share": 0.2}, "minimum is 0.3 and share is 0.2"),
        ({"share": 1}, "share is 1; it must be"),
        ({"folds": 1}, "folds is 1; it must be a whole number at least 2"),
        ({"score": "magic"}, "score is 'magic'; it must be one of"),
        ({"evidence": "gossip"}, "evidence is 'gossip'"),
    ],
)
def test_arguments_are_checked_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        LabelNoise(**arguments)
    if "score" not in arguments and "evidence" not in arguments:
        with pytest.raises(FilterError, match=message):
            Unsupported(**arguments)


def test_dropped_rows_are_scored_and_teach_nothing() -> None:
    rows = reviews(3)
    confidence = [0.9] * 96
    confidence[3] = 0.1
    found = run(rows.assign(confidence=confidence), filters.Confidence(minimum=0.5), LabelNoise())
    assert found.frame.loc[3, "reason"] == "confidence"
    assert found.frame.loc[3, "score_label_noise"] < 0.5
    assert found.counts["kept"] == 95
