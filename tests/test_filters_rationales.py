"""Rationales: do they lead to the label, in the teacher's own words, and do their sums hold?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from filters_frames import frame, kept, run

from filters import Arithmetic, Copied, FilterError, OtherChoice, Restatement, Unsupported
from filters.arithmetic import count_findings, evaluate
from filters.rationales import find_names, mask_names

PLACES = ["train", "train station", "bus stop", "bridge", "bank"]


@pytest.mark.parametrize(
    ("said", "label", "score"),
    [
        ("Of the choices, only a train station has platforms.", "train station", 0.0),
        ("Of the choices, only a train station has platforms.", "train", 1.0),
        ("Of the choices, only bridges cross a river.", "bridge", 0.0),
        ("A bridge crosses a river, but people wait at a bus stop.", "bus stop", 0.0),
        ("People wait at a bus stop, but only a bridge crosses a river.", "bus stop", 0.5),
        ("Only the BANK lends money.", "bridge", 1.0),
        ("It has platforms.", "train station", np.nan),
        (None, "bank", np.nan),
    ],
)
def test_the_choice_that_a_rationale_names(said: Any, label: str, score: float) -> None:
    rows = frame(["Where?"], rationale=[said], label=[label], choices=[PLACES])
    found = run(rows, OtherChoice())
    assert found.frame["score_other_choice"].tolist() == pytest.approx([score], nan_ok=True)
    assert len(found.kept) == (score != 1.0)
    assert len(run(rows, OtherChoice(maximum=0)).kept) == (not score > 0)


def test_labels_may_be_named_instead_of_choices() -> None:
    rows = frame(["Fine."], rationale=["This is positive."], label=["negative"])
    assert len(run(rows, OtherChoice()).kept) == 1
    assert len(run(rows, OtherChoice(labels=["positive", "negative"])).kept) == 0


def test_names_are_found_whole_and_masked_whole() -> None:
    text = "A train station is no train, and buses do not stop at bus stops."
    assert find_names([text], [PLACES]) == [["train station", "train", "bus stop"]]
    assert mask_names([text], [PLACES]) == ["a is no and buses do not stop at"]
    assert find_names(["nothing", ""], [["thing"], []]) == [[], []]


def reviews(slips: set[int]) -> Any:
    parts = ["strap", "lens", "zoom", "sound", "case", "screen", "button", "battery"]
    lines = []
    for number, part in enumerate(parts * 6):
        good = number % 2 == 0
        why = "A buyer who loves a part is happy" if good else "A part that breaks is a complaint"
        label = "positive" if good != (number in slips) else "negative"
        lines.append((f"The {part}.", f"{why}: the {part} is {label}.", label))
    texts, rationales, labels = zip(*lines, strict=True)
    return frame(list(texts), rationale=list(rationales), label=list(labels))


def test_a_rationale_that_leads_elsewhere_is_dropped_though_it_names_the_label() -> None:
    found = run(reviews({5, 16}), Unsupported())
    assert set(found.frame.loc[~found.frame["keep"], "id"]) == {"r5", "r16"}
    for line in found.decisions.to_dict("records"):
        assert line["score"] < line["threshold"]


def test_rows_without_a_rationale_are_not_judged() -> None:
    rows = reviews({5})
    rows["rationale"] = rows["rationale"].astype(object)
    rows.loc[[0, 1], "rationale"] = [None, "  "]
    found = run(rows, Unsupported())
    assert found.frame["score_unsupported"].isna().tolist()[:3] == [True, True, False]
    assert kept(found) == set(rows["id"]) - {"r5"}
    none = run(rows.assign(rationale=None), Unsupported())
    assert len(none.kept) == len(rows)
    assert none.warnings


def test_choices_of_the_rows_own_need_an_encoder() -> None:
    rows = frame(
        [f"Where is {number}?" for number in range(12)],
        rationale=["It is kept there."] * 12,
        label=[f"a{number}" for number in range(12)],
        choices=[[f"a{number}", f"b{number}"] for number in range(12)],
    )
    found = run(rows, Unsupported())
    assert len(found.kept) == 12
    assert "name an encoder" in found.warnings[0]


class Letters:
    name = "letters"

    def __call__(self, texts: list[str]) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        grams = HashingVectorizer(analyzer="char", ngram_range=(3, 3), n_features=4096)
        return grams.transform(texts).toarray()


def test_rationale_and_choice_are_compared_by_embeddings() -> None:
    kinds = ["swim", "climb", "paint", "count", "sleep", "shout", "drill", "knit"] * 3
    # The rationale speaks of the right choice without its whole name; the last label is wrong.
    rows = frame(
        ["What does one do?"] * 24,
        rationale=[f"One who is {kind}ming does {kind}ms." for kind in kinds],
        choices=[[f"{kind}ing {n}", f"resting {n}"] for n, kind in enumerate(kinds)],
        label=[f"{kind}ing {n}" for n, kind in enumerate(kinds[:-1])] + ["resting 23"],
    )
    found = run(rows, Unsupported(encoder=Letters()))
    assert kept(found) == set(rows["id"]) - {"r23"}


def test_a_rationale_with_nothing_new_is_a_restatement() -> None:
    rows = frame(
        ["Where would a person put a clean towel?"] * 3,
        label=["cupboard"] * 3,
        rationale=[
            "A person would put a clean towel in the cupboard.",
            "Clean towels are kept dry, and shelves behind a door are dry.",
            None,
        ],
    )
    found = run(rows, Restatement())
    assert kept(found) == {"r1", "r2"}
    assert found.frame["score_restatement"].iloc[0] == 1
    assert np.isnan(found.frame["score_restatement"].iloc[2])


def test_a_rationale_copied_from_a_demonstration_is_dropped() -> None:
    shown = "The answer must be a place where fountain pens write, which is paper."
    rows = frame(
        ["One?", "Two?"],
        rationale=[
            "The answer must be a place where fountain pens write, which is paper only.",
            "The answer must be a place where people keep towels.",
        ],
    )
    found = run(rows, Copied(demonstrations=["A part that breaks is a complaint.", shown]))
    assert kept(found) == {"r1"}
    nothing = run(rows, Copied())
    assert len(nothing.kept) == 2
    assert "no demonstrations to compare with" in nothing.warnings[0]


@pytest.mark.parametrize(
    ("label", "said", "shown", "findings"),
    [
        ("(84 / 2)", "So 84 / 2 = 42 points.", "84 points in 2 rounds", 0),
        ("(84 / 2)", "So 84 / 2 = 44 points.", "84 points in 2 rounds", 2),
        ("(84 + 2)", "So 84 / 2 = 42 points.", "84 points in 2 rounds", 1),
        ("(73 - 4)", "51 + 22 = 73. 73 - 4 = 69.", "51, 22 more, 4 less", 1),
        ("1,200 * 2", "1,200 * 2 is $2,400.", "$1,200 twice, 2 times", 0),
        ("10 / 3", "10 / 3 = 3.33.", "10 for 3", 0),
        ("10 / 3", "10 / 3 = 3.", "10 for 3", 0),
        ("42", "So he has 42.", "40 and 2", 0),
        ("-5", "It is 5 below zero.", "5 degrees", 1),
        ("7", "", "", 0),
    ],
)
def test_sums_are_checked(label: str, said: str, shown: str, findings: int) -> None:
    assert count_findings(label, said, shown) == findings
    rows = frame([shown or "Text."], rationale=[said], label=[label])
    assert len(run(rows, Arithmetic()).kept) == (findings == 0)


def test_labels_that_are_no_arithmetic_are_left_alone() -> None:
    rows = frame(["5 + 5"], rationale=["2 + 2 = 5"], label=["bank"])
    found = run(rows, Arithmetic())
    assert len(found.kept) == 1
    assert "no label is a number or an expression" in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("( 84.0 / 2.0 )", 42.0),
        ("2 × (3 + 4)", 14.0),
        ("-3 - -4", 1.0),
        ("007 + 1", 8.0),
        ("0.5 * 4", 2.0),
        ("1 / 0", None),
        ("2 ** 3", None),
        ("9" * 150 + " * " + "9" * 40, None),
        ("__import__('os')", None),
        ("(" * 90 + "1" + ")" * 90, 1.0),
        ("3 apples", None),
        ("", None),
        ("1e9", None),
        ("(3", None),
    ],
)
def test_expressions_are_evaluated_and_never_executed(text: str, value: float | None) -> None:
    found = evaluate(text)
    if text.startswith("9"):
        assert found is None or found > 0
    else:
        assert found == value


@pytest.mark.parametrize("texts", [[], ["Fine."], ["Fine."] * 3, ["", "🙂", "مرحبا", "x " * 9_999]])
def test_odd_sets_are_judged_all_the_same(texts: list[str]) -> None:
    chosen = (Unsupported(), OtherChoice(), Restatement(), Copied(demonstrations=["x y"]))
    rows = frame(texts, rationale=texts, label=texts, choices=[["Fine.", "🙂"]] * len(texts))
    rows["label"] = rows["label"].astype(object)
    assert len(run(rows, *chosen, Arithmetic()).frame) == len(texts)


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(FilterError, match="maximum is 1; it must be"):
        OtherChoice(maximum=1)
    with pytest.raises(FilterError, match="demonstrations is 5; it must be a list of texts"):
        Copied(demonstrations=5)  # type: ignore[arg-type]
    with pytest.raises(FilterError, match=r"maximum is 0\.5; it must be a whole number"):
        Arithmetic(maximum=0.5)  # type: ignore[arg-type]
