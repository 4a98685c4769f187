"""Rules: what each drops, with its own reason, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from filters_frames import frame, kept, run

import filters
from filters import (
    Agreement,
    Echo,
    Entropy,
    FilterError,
    Judge,
    Language,
    Margin,
    Perplexity,
    PersonalData,
    Refusal,
    Repetition,
    Residue,
    TooLong,
    TooShort,
    Truncated,
    UnknownLabel,
)
from filters.personal_data import count_personal_data


def dropped(result: filters.Result, reason: str) -> set[str]:
    """Rows a filter dropped, after a look at whether its evidence gives the same verdict."""
    lines = result.decisions[result.decisions["filter"] == reason]
    assert set(lines["id"]) == set(result.frame.loc[result.frame["reason"] == reason, "id"])
    below = filters.FILTERS[reason].drops == "below"
    for line in lines.to_dict("records"):
        assert line["score"] < line["threshold"] if below else line["score"] > line["threshold"]
    left = result.frame.loc[result.frame["keep"], f"score_{reason}"].to_numpy(dtype=float)
    if len(lines):
        threshold = lines["threshold"].iloc[0]
        assert not (left < threshold if below else left > threshold).any()
    return set(lines["id"])


def test_short_and_long_texts_are_dropped_by_their_words() -> None:
    rows = frame(["Bad.", "The strap broke on day two.", "very " * 30 + "good", "电池很好用"])
    found = run(rows, TooShort(minimum=3), TooLong(maximum=20))
    assert dropped(found, "too_short") == {"r0"}
    assert dropped(found, "too_long") == {"r2"}
    assert found.frame["score_too_short"].tolist() == [1, 6, 31, 5]


def test_a_missing_rationale_is_neither_short_nor_an_echo() -> None:
    rows = frame(["The strap broke on day two."] * 2, rationale=[None, "Yes."])
    found = run(rows, TooShort(minimum=2, fields=["rationale"]), Echo())
    assert dropped(found, "too_short") == {"r1"}
    assert np.isnan(found.frame["score_echo"].iloc[0])


def test_rows_in_another_language_are_dropped() -> None:
    rows = frame(
        [
            "The battery lasts all day and the screen is bright.",
            "Die Batterie hält den ganzen Tag und der Bildschirm ist hell.",
            "La batterie tient toute la journée et l'écran est lumineux.",
            "La batería dura todo el día y la pantalla es muy brillante.",
            "Батарея держится весь день.",
            "Superb!",
            "12345 !!!",
            "Where would he put it?\n(a) la casa\n(b) desk\n(e) shelf",
        ]
    )
    found = run(rows, Language())
    assert dropped(found, "language") == {"r1", "r2", "r3", "r4"}
    assert np.isnan(found.frame["score_language"].iloc[6])
    assert kept(run(rows.iloc[[1, 4]], Language(language="de"))) == {"r1"}
    assert kept(run(rows.iloc[[1, 4]], Language(language="ru"))) == {"r4"}


@pytest.mark.parametrize(
    "said",
    [
        "As an AI language model, I have no opinion.",
        "I'm sorry, but I can't help with that request.",
        "I cannot answer this question.",
        "Sorry, I can not assist with this.",
        "I don't have access to the picture.",
    ],
)
def test_refusals_are_dropped(said: str) -> None:
    rows = frame(["Is it good?"], rationale=[said], label=["yes"])
    assert dropped(run(rows, Refusal()), "refusal") == {"r0"}


@pytest.mark.parametrize(
    "said",
    [
        "The buyer writes: I cannot recommend this phone.",
        "I can't find a fault with it, so it is praise.",
        "He was sorry that the strap broke, and could not help it.",
        "The aide helped an air hostess, as an aisle seat was free.",
    ],
)
def test_what_only_sounds_like_a_refusal_stays(said: str) -> None:
    rows = frame(["I cannot answer the phone."], rationale=[said], label=["no"])
    assert kept(run(rows, Refusal())) == {"r0"}


def test_answers_cut_off_are_dropped() -> None:
    whole = "A part that breaks at once is a complaint."
    rows = frame(
        [f"Snippet {number}." for number in range(8)],
        rationale=[whole] * 5 + ["A part that breaks at", whole, None],
        finish_reason=["stop"] * 6 + ["length", None],
    )
    assert dropped(run(rows, Truncated()), "truncated") == {"r5", "r6"}
    assert dropped(run(rows, Truncated(maximum=0.5)), "truncated") == {"r6"}


def test_a_teacher_that_writes_no_full_stops_is_not_cut_off() -> None:
    rows = frame(["One.", "Two."], rationale=["it breaks at once", "a fine sound"])
    assert kept(run(rows, Truncated())) == {"r0", "r1"}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("input", "Review: {{ text }}"),
        ("input", "[INST] Is it good? [/INST]"),
        ("rationale", "It is praise.<|im_end|>"),
        ("rationale", "It is praise. So the answer is (b)."),
        ("rationale", "It is praise.\nQ: Is this one good?"),
        ("label", "positive</s>"),
    ],
)
def test_template_residue_is_dropped(field: str, text: str) -> None:
    values: dict[str, Any] = {"input": "Fine sound.", "rationale": "Praise.", "label": "positive"}
    values[field] = text
    rows = frame([values.pop("input")], **{key: [value] for key, value in values.items()})
    assert dropped(run(rows, Residue()), "residue") == {"r0"}


def test_an_input_may_list_its_choices_and_hold_a_question() -> None:
    rows = frame(["Q: Where is it?\nAnswer Choices:\n(a) desk\n(b) bank {of England}"])
    assert kept(run(rows, Residue())) == {"r0"}
    assert kept(run(rows, Residue(patterns=[r"\bbank\b"]))) == set()


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("Write to kim.lee+shop@example.co.uk today.", 1),
        ("Call +49 30 1234567 or (555) 123-4567.", 2),
        ("Pay to DE89 3704 0044 0532 0130 00.", 1),
        ("Pay to DE00 3704 0044 0532 0130 00.", 0),
        ("Card 4111 1111 1111 1111.", 1),
        ("Card 4111 1111 1111 1112.", 0),
        ("Bought 2010-2015, model 1234567890, for $1,234.56 @ home.", 0),
        ("version 1.2.3.4 of a@b", 0),
    ],
)
def test_personal_data_is_counted(text: str, findings: int) -> None:
    assert count_personal_data(text) == findings
    found = run(frame([text]), PersonalData())
    assert dropped(found, "personal_data") == ({"r0"} if findings else set())


def test_kinds_of_personal_data_are_chosen() -> None:
    rows = frame(["Write to kim@example.org.", "Call +49 30 1234567."])
    assert kept(run(rows, PersonalData(kinds=["phone"]))) == {"r0"}


def test_a_rationale_that_repeats_the_prompt_is_an_echo() -> None:
    asked = "Where would a person put a clean towel after washing it at home?"
    rows = frame(
        [asked] * 3,
        rationale=[
            "Where would a person put a clean towel after washing it at home",
            "Clean towels are kept dry, and a linen cupboard is dry.",
            "Decide which of the places fits best.",
        ],
    )
    found = run(rows, Echo())
    assert dropped(found, "echo") == {"r0"}
    assert found.frame["score_echo"].iloc[0] == 1
    told = Echo(instruction="Decide which of the places fits best and say why.")
    assert dropped(run(rows, told), "echo") == {"r0", "r2"}


def test_loops_are_dropped_and_refrains_stay() -> None:
    rows = frame(
        [
            "The answer is the one that is " * 12,
            "It is a place where people sit. Of the choices, only a bench is a place where people sit.",
            "ha ha ha ha ha",
        ]
    )
    assert dropped(run(rows, Repetition()), "repetition") == {"r0"}


def test_labels_outside_the_set_are_dropped() -> None:
    rows = frame(
        ["One.", "Two.", "Three."],
        label=["bank", "Bank ", "river"],
        choices=[["bank", "desk"], ["bank", "desk"], ["bank", "desk"]],
    )
    assert dropped(run(rows, UnknownLabel()), "unknown_label") == {"r1", "r2"}
    assert dropped(run(rows, UnknownLabel(maximum=0.5)), "unknown_label") == {"r2"}
    found = run(rows, UnknownLabel(labels=["river"]))
    assert kept(found) == {"r2"}


def test_without_choices_the_set_has_to_be_named() -> None:
    rows = frame(["One."], label=["bank"])
    with pytest.raises(FilterError, match="no row has choices and labels is"):
        run(rows, UnknownLabel())


def test_margin_entropy_and_agreement() -> None:
    rows = frame(
        ["One.", "Two.", "Three.", "Four."],
        label_probs=[[0.9, 0.1], [0.55, 0.45], [2.0, 2.0], None],
        agreement=[1.0, 0.4, 0.6, None],
    )
    found = run(rows, Margin(), Entropy(), Agreement())
    assert found.frame["score_margin"].round(6).tolist()[:3] == [0.8, 0.1, 0.0]
    assert found.frame["score_entropy"].iloc[2] == 1
    assert found.frame["score_entropy"].iloc[0] == pytest.approx(0.4690, abs=1e-4)
    assert dropped(run(rows, Margin()), "margin") == {"r1", "r2"}
    assert dropped(run(rows, Entropy()), "entropy") == {"r1", "r2"}
    assert dropped(run(rows, Agreement()), "agreement") == {"r1"}
    assert kept(run(rows, Margin(on_missing="drop"))) == {"r0"}


def test_five_choices_have_the_entropy_of_two() -> None:
    rows = frame(["One.", "Two."], label_probs=[[0.2] * 5, [0.5, 0.5]])
    assert run(rows, Entropy()).frame["score_entropy"].tolist() == pytest.approx([1, 1])


def test_a_teacher_without_probabilities_is_said_to_have_none() -> None:
    found = run(frame(["One."], label_probs=[None]), Margin())
    assert kept(found) == {"r0"}
    assert "margin: no row has label_probs" in found.warnings[0]


@pytest.mark.parametrize("value", [[-0.1, 1.1], ["a"], [0.0, 0.0], [np.nan, 1.0], "0.5", 0.5])
def test_what_is_no_distribution_is_an_error(value: Any) -> None:
    with pytest.raises(FilterError, match=r"row 'r0': label_probs is .* a list of probabilities"):
        run(frame(["One."], label_probs=[value]), Entropy())


def test_a_judge_decides_and_has_to_stay_in_its_range() -> None:
    rows = frame(["One.", "Two.", "Three."], judge=[0.9, 0.2, None])
    assert dropped(run(rows, Judge()), "judge") == {"r1"}
    assert kept(run(rows, Judge(on_missing="drop"))) == {"r0"}
    with pytest.raises(FilterError, match="judge is 7; a verdict is a number from 0 to 1"):
        run(frame(["One."], judge=[7]), Judge())


def test_perplexity_comes_from_a_column_or_a_callable() -> None:
    rows = frame(["Fine sound.", "qzx qzx jjv"], perplexity=[40.0, 9000.0])
    assert dropped(run(rows, Perplexity()), "perplexity") == {"r1"}

    def model(texts: list[str]) -> list[float]:
        return [5000.0 if "Fine" in text else 2.0 for text in texts]

    assert dropped(run(rows, Perplexity(model=model)), "perplexity") == {"r0"}
    with pytest.raises(FilterError, match=r"gave .* numbers for 2 texts"):
        run(rows, Perplexity(model=lambda texts: [1.0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TooShort(minimum=0), "minimum is 0; it must be a whole number at least 1"),
        (lambda: TooLong(fields=["gold"]), "fields names 'gold', which filters never see"),
        (lambda: Language(language="xx"), "language is 'xx'; it must be one of 'en'"),
        (lambda: Refusal(patterns=["("]), r"patterns holds '\(', which is no regular expression"),
        (lambda: Residue(maximum=-1), "maximum is -1"),
        (lambda: PersonalData(kinds=["name"]), "kinds names 'name'; the kinds are email"),
        (lambda: Echo(run=0), "run is 0"),
        (lambda: Truncated(maximum=1), "maximum is 1"),
        (lambda: Repetition(maximum=2), "maximum is 2"),
        (lambda: Judge(column="gold"), "column is 'gold'"),
        (lambda: Perplexity(maximum=1), "maximum is 1; it must be a number above 1"),
        (lambda: Entropy(on_missing="guess"), "on_missing is 'guess'"),
    ],
)
def test_arguments_are_checked_at_once(make: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        make()


ALL = (
    *(TooShort(), TooLong(), Language(), Refusal(), Truncated(), Residue(), Echo()),
    *(Repetition(), PersonalData()),
)


@pytest.mark.parametrize(
    "texts", [[], ["Fine."], ["Fine."] * 4, ["", "   ", "🙂🙂", "مرحبا بالعالم", "x " * 200_000]]
)
def test_odd_sets_are_judged_all_the_same(texts: list[str]) -> None:
    rows = frame(texts, rationale=texts, label=texts)
    rows["label"] = rows["label"].astype(object)
    found = run(rows, *ALL)
    assert len(found.frame) == len(texts)
    for each in ALL:
        dropped(found, each.reason)


def test_the_order_of_rows_changes_nothing() -> None:
    rows = frame(["Bad.", "The strap broke.", "Schreib an kim@example.org, es ist gut und schön."])
    rows["rationale"] = ["I cannot answer this.", "Bad.<|im_end|>", None]
    one = run(rows, *ALL).frame.set_index("id")
    two = run(rows.iloc[::-1].reset_index(drop=True), *ALL).frame.set_index("id").loc[one.index]
    assert one.equals(two)
