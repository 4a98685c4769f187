"""Exact and near duplicates."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from filters_frames import frame, kept, lines, run

import filters
from filters import ExactDuplicate, NearDuplicate
from filters.shingles import hash_texts, shingle
from filters.words import hash_words, split_words

HASHES = [13323430773277850117, 4183277962062241016]
SET_KEYS = [15542075494374310881, 7942056814470262405]
SNIPPET = (
    "the zoom on this little camera is far better than i had expected for its price"  # 16 words
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Great phone!", "great   phone"),
        ("Great phone", "Ｇｒｅａｔ ｐｈｏｎｅ"),
        ("I don't like it.", "I don’t like it"),
        ("It works -- mostly.", "It works, mostly!"),
        ("GREAT PHONE\n", "\tgreat phone"),
        ("Cafe\u0301 is open", "CAFÉ is open"),
        ("I love it ❤\ufe0f", "I love it ❤"),
        ("", "   "),
        ("مرحبا، كيف حالك؟", "مرحبا كيف حالك"),
    ],
)
def test_texts_that_differ_in_form_only_are_exact_duplicates(first: str, second: str) -> None:
    result = run(frame([first, second]), ExactDuplicate())
    assert result.counts["dropped"] == {"exact_duplicate": 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 5 - 3?", "What is 5 + 3?"),
        ("What is 5 - 3?", "What is 5 * 3?"),
        ("It weighs 1.5 kilograms.", "It weighs 15 kilograms."),
        ("It is -5 degrees.", "It is 5 degrees."),
        ("Great 😀", "Great 😡"),
        ("!!!", "???"),
        ("The strap broke.", "The strap brake."),
        ("电池很好", "电池不好"),
    ],
)
def test_signs_numbers_and_emoji_tell_texts_apart(first: str, second: str) -> None:
    result = run(frame([first, second]), ExactDuplicate())
    assert result.counts["kept"] == 2


def test_the_row_most_worth_keeping_stays() -> None:
    text = "The battery lasts all day."
    by_confidence = frame([text] * 3, confidence=[0.7, 0.9, None])
    assert kept(run(by_confidence, ExactDuplicate())) == {"r1"}
    by_rationale = frame([text] * 3, rationale=[None, "  ", "Long life is praise."])
    assert kept(run(by_rationale, ExactDuplicate())) == {"r2"}
    by_length = frame([text, text + "!!", text])
    assert kept(run(by_length, ExactDuplicate())) == {"r1"}
    by_id = frame([text] * 3).iloc[::-1]
    assert kept(run(by_id, ExactDuplicate())) == {"r0"}


def test_equal_texts_with_different_labels_are_a_conflict_and_both_stay() -> None:
    rows = frame(
        ["It does what it says."] * 3,
        label=["positive", "negative", "positive"],
        confidence=[0.9, 0.8, 0.7],
    )
    result = run(rows, ExactDuplicate())
    assert kept(result) == {"r0", "r1"}
    assert lines(result, "conflict") == [("r1", "r0")]
    assert lines(result, "drop") == [("r2", "r0")]
    assert result.counts["conflicts"] == 1
    assert "1 pair of like texts with different labels" in result.warnings[-1]
    alike = run(rows, ExactDuplicate(same_label=False))
    assert kept(alike) == {"r0"}
    assert alike.counts["conflicts"] == 0


def test_other_fields_count_when_named() -> None:
    rationales = ["It is praised.", "It broke at once.", "it is praised", None, ""]
    rows = frame(["Is it good?"] * 5, rationale=rationales)
    for kind in (ExactDuplicate, NearDuplicate):
        result = run(rows, kind(fields=["input", "rationale"]))
        assert kept(result) == {"r0", "r1", "r3"}


def test_scores_of_exact_duplicates_are_one_or_zero() -> None:
    result = run(frame(["A fine lens.", "a fine lens", "A poor lens."]), ExactDuplicate())
    assert result.frame["score_exact_duplicate"].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("other", "score"),
    [
        (SNIPPET.replace("camera", "player"), 28 / 34),  # one word inside: 15 + 13 of 16 + 15 stay
        (SNIPPET.replace("price", "money"), 29 / 33),  # the last word
        (SNIPPET.replace("far better", "far far better"), 31 / 32),  # a word doubled
        (" ".join(reversed(SNIPPET.split())), 16 / 46),  # the same words in another order
    ],
)
def test_near_scores_of_a_sixteen_word_snippet(other: str, score: float) -> None:
    assert len(SNIPPET.split()) == 16
    result = run(frame([SNIPPET, other]), NearDuplicate(threshold=0.2, floor=0.2))
    assert max(result.frame["score_near_duplicate"]) == pytest.approx(score)


def test_the_default_threshold_forgives_one_word_in_sixteen_but_not_one_in_eight() -> None:
    long = [SNIPPET, SNIPPET.replace("camera", "player")]
    assert run(frame(long), NearDuplicate()).counts["kept"] == 1
    short = ["the strap broke on the very second day", "the strap broke on the very first day"]
    assert run(frame(short), NearDuplicate()).counts["kept"] == 2


def test_a_flipped_word_with_its_label_is_a_conflict() -> None:
    texts = [SNIPPET, SNIPPET.replace("better", "worse")]
    rows = frame(texts, label=["positive", "negative"])
    result = run(rows, NearDuplicate())
    assert kept(result) == {"r0", "r1"}
    assert result.frame["score_near_duplicate"].tolist() == [0.0, 0.0]
    (line,) = result.decisions.to_dict("records")
    assert line["verdict"] == "conflict"
    assert line["score"] == pytest.approx(28 / 34)
    assert line["threshold"] == 0.7


def test_chains_are_not_followed() -> None:
    # Each is close to its neighbour; the first and the last are not close to each other.
    one = SNIPPET
    two = one.replace("camera", "player")
    three = two.replace("price", "money").replace("zoom", "sound")
    rows = frame([one, two, three], confidence=[0.9, 0.8, 0.7])
    result = run(rows, NearDuplicate(threshold=0.7))
    scores = dict(zip(rows["id"], result.frame["score_near_duplicate"], strict=True))
    assert kept(result) == {"r0", "r2"}
    assert scores["r1"] >= 0.7 > scores["r2"]
    assert lines(result, "drop") == [("r1", "r0")]
    best_between = run(rows.assign(confidence=[0.7, 0.9, 0.8]), NearDuplicate(threshold=0.7))
    assert kept(best_between) == {"r1"}


def test_rows_already_dropped_are_no_twins_but_get_a_score() -> None:
    rows = frame(
        [SNIPPET, SNIPPET.replace("camera", "player")],
        label=[None, "positive"],
        confidence=[0.9, 0.8],
    )
    result = run(rows, NearDuplicate())
    assert kept(result) == {"r1"}
    assert result.frame["score_near_duplicate"].tolist() == pytest.approx([28 / 34, 0.0])
    assert lines(result, "keep") == [("r0", "r1")]


@pytest.mark.parametrize("lengths", [[3], [1], [2, 5]])
def test_texts_shorter_than_the_shingle(lengths: list[int]) -> None:
    rows = frame(["Good", "good!", "Bad", "Very good", "very good", "", "???"])
    result = run(rows, NearDuplicate(shingle=lengths))
    assert result.counts["kept"] == 5
    assert {frozenset(pair) for pair in lines(result, "drop")} == {
        frozenset({"r0", "r1"}),
        frozenset({"r3", "r4"}),
    }


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    text = "这款手机的电池可以用一整天而且充电也非常快"
    result = run(frame([text, text.replace("快", "慢"), "屏幕很差"]), NearDuplicate())
    assert result.counts["kept"] == 2


def jaccard(one: str, other: str) -> float:
    def cut(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {(word,) for word in words} | set(itertools.pairwise(words))

    return len(cut(one) & cut(other)) / len(cut(one) | cut(other))


def random_edits(count: int) -> list[str]:
    draw = random.Random(7)
    words = [f"{draw.choice('bdfgklmnprst')}{vowel}{end}" for vowel in "aeiou" for end in "lmnrst"]
    texts = []
    for _ in range(count):
        text = [draw.choice(words) for _ in range(draw.randrange(6, 24))]
        texts.append(" ".join(text))
        for _ in range(draw.randrange(3)):
            text[draw.randrange(len(text))] = draw.choice(words)
            texts.append(" ".join(text))
    return list(dict.fromkeys(texts))


def test_every_pair_that_brute_force_finds_is_found_with_its_exact_score() -> None:
    texts = random_edits(150)
    rows = frame(texts)
    result = run(rows, NearDuplicate(threshold=0.7, floor=0.7))
    found = {
        frozenset((line.id, line.related_id)): line.score for line in result.decisions.itertuples()
    }
    truth = {
        frozenset((f"r{i}", f"r{j}")): jaccard(texts[i], texts[j])
        for i, j in itertools.combinations(range(len(texts)), 2)
        if jaccard(texts[i], texts[j]) >= 0.7
    }
    assert len(truth) > 50
    assert found == pytest.approx(truth)


def test_a_threshold_can_be_moved_with_the_decisions_alone() -> None:
    rows = frame([*random_edits(150), *random_edits(20)])
    rows["confidence"] = [1 - number / 1000 for number in range(len(rows))]  # so r0 counts most
    high = run(rows, NearDuplicate(threshold=0.9, floor=0.7))
    assert set(high.decisions["threshold"]) == {0.9}
    staying = set(rows["id"])
    twins = high.decisions[high.decisions["score"] >= 0.75].groupby("id")["related_id"]
    related = {row: set(found) for row, found in twins}
    for row in rows["id"]:
        if related.get(row, set()) & staying:
            staying.discard(row)
    low = run(rows, NearDuplicate(threshold=0.75))
    assert kept(low) == staying
    assert len(staying) < high.counts["kept"]


def test_a_template_with_hundreds_of_rows_leaves_one_and_sounds_an_alarm() -> None:
    texts = [f"{SNIPPET} and item number {number} came in a box" for number in range(400)]
    result = run(frame(texts), NearDuplicate())
    assert result.counts["kept"] == 1
    assert result.warnings == [
        "near_duplicate: 399 rows were dropped as duplicates of 'r100'; if that is too many, the "
        "texts share a template: compare another field or raise the threshold"
    ]


def test_a_template_with_two_labels_leaves_one_of_each_in_conflict() -> None:
    texts = [f"{SNIPPET} and item number {number} came in a box" for number in range(300)]
    rows = frame(texts, label=["positive", "negative", "negative"] * 100)
    result = run(rows, NearDuplicate())
    assert kept(result) == {"r100", "r102"}
    assert result.counts["conflicts"] == 1


def test_a_crowd_of_alike_texts_is_still_judged_pair_by_pair() -> None:
    # All share half their words, so every band is crowded; only planted pairs are duplicates.
    draw = random.Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz"
    base = SNIPPET.split()
    texts = [
        " ".join([*base, *("".join(draw.choices(letters, k=6)) for _ in range(8))])
        for _ in range(300)
    ]
    texts += [text + " indeed" for text in texts[:40]]
    rows = frame(texts)
    first = run(rows, NearDuplicate(threshold=0.9))
    assert first.counts["dropped"] == {"near_duplicate": 40}
    assert run(first.kept, NearDuplicate(threshold=0.9)).counts["dropped"] == {}


def test_a_text_of_a_megabyte_is_nothing_special() -> None:
    draw = random.Random(0)
    long = " ".join(f"word{draw.randrange(5000)}" for _ in range(120_000))
    assert len(long) > 1_000_000
    result = run(frame([long, long + " end", "short"]), ExactDuplicate(), NearDuplicate())
    assert result.counts["dropped"] == {"near_duplicate": 1}


def test_plain_texts_are_cut_byte_by_byte_as_all_others_are_cut() -> None:
    draw = random.Random(0)
    letters = "abZ09 '`-*/^.,:!?$+_\n\t("
    texts = ["".join(draw.choices(letters, k=draw.randrange(14))) for _ in range(20_000)]
    texts += [text + draw.choice("é电😀İß²½") for text in texts[:2_000]]
    hashes, counts = hash_words(pl.Series(texts))
    words = split_words(texts)
    assert counts.tolist() == words.list.len().to_list()
    by_word = dict(zip(words.explode().to_list(), hashes.tolist(), strict=True))
    assert [by_word[word] for word in words.explode().to_list()] == hashes.tolist()
    assert len(set(by_word.values())) == len(by_word) > 1_000


def test_hashes_are_the_same_on_every_machine_and_in_every_version() -> None:
    texts = ["The battery lasts all day.", "电池很好 -5"]
    assert hash_texts(texts).tolist() == HASHES
    assert shingle([texts], (1, 2)).keys.tolist() == SET_KEYS


def test_a_text_next_to_much_longer_ones_has_the_same_shingles() -> None:
    draw = random.Random(1)
    words = [f"w{number}" for number in range(50)]
    texts = [" ".join(draw.choices(words, k=k)) for k in (1, 2, 20, 70, 140, 300, 3, 5_000, 40)]
    together = shingle([texts], (1, 2))
    for place, text in enumerate(texts):
        alone = shingle([[text]], (1, 2))
        found, _ = together.take(np.array([place]))
        cut = text.split()
        assert found.tolist() == alone.hashes.tolist()
        assert len(found) == len(set(cut)) + len(set(itertools.pairwise(cut)))


def test_pairs_are_found_among_thousands_of_rows_of_one_template() -> None:
    draw = random.Random(5)
    letters = "bdfgklmnprst"
    name = lambda: "".join(draw.choices(letters, k=7))  # noqa: E731
    base = [
        f"We bought the {name()} {name()} camera for our kitchen and {name()} {name()} from the "
        f"workshop says that its battery should be replaced after {draw.randrange(9_999)} hours"
        for _ in range(4_000)
    ]
    edited = [text.replace("kitchen", "cellar") for text in base[:400]]
    rows = frame([*base, *edited])
    result = run(rows, NearDuplicate())
    assert result.counts["dropped"] == {"near_duplicate": 400}
    pairs = {frozenset(pair) for pair in lines(result, "drop")}
    assert pairs == {frozenset({f"r{n}", f"r{4_000 + n}"}) for n in range(400)}


def test_votes_decide_between_rows_of_equal_confidence() -> None:
    text = "The battery lasts all day."
    rows = frame([text] * 3, confidence=[0.9, 0.9, 0.8], agreement=[0.6, 1.0, 1.0])
    assert kept(run(rows, ExactDuplicate())) == {"r1"}


def test_conflicts_stand_side_by_side_and_can_be_read_back_as_a_review(tmp_path: Path) -> None:
    rows = frame(
        [SNIPPET, SNIPPET.replace("better", "worse"), "Nothing like it.", SNIPPET + "!"],
        label=["positive", "negative", "positive", "negative"],
        confidence=[0.9, 0.8, 0.7, 0.6],
    )
    result = run(rows, ExactDuplicate(), NearDuplicate())
    table = filters.conflicts(result)
    assert table[["pair", "id", "related_id", "label"]].values.tolist() == [
        [1, "r3", "r0", "negative"],
        [1, "r0", "r3", "positive"],
        [2, "r1", "r0", "negative"],
        [2, "r0", "r1", "positive"],
    ]
    assert table["input"].tolist()[2] == SNIPPET.replace("better", "worse")
    assert table["score"].tolist() == pytest.approx([1, 1, 28 / 34, 28 / 34])
    table.loc[table["id"] == "r3", "verdict"] = "drop"
    table.to_csv(tmp_path / "review.csv", index=False)
    assert filters.read_review(tmp_path / "review.csv").values.tolist()[0][:2] == ["r3", "drop"]


def test_without_conflicts_the_table_of_conflicts_is_empty() -> None:
    table = filters.conflicts(run(frame(["One.", "Two."]), NearDuplicate()))
    assert len(table) == 0
    assert {"pair", "id", "input", "related_id", "score", "verdict"} <= set(table.columns)


@pytest.mark.parametrize("texts", [[], ["Alone."], ["Same."] * 5])
def test_no_row_one_row_and_equal_rows(texts: list[str]) -> None:
    result = run(frame(texts, label=["good"] * len(texts)), ExactDuplicate(), NearDuplicate())
    assert result.counts["kept"] == min(len(texts), 1)
    assert result.counts["conflicts"] == 0


@pytest.mark.parametrize("kind", [object, "string", pd.StringDtype("pyarrow", na_value=np.nan)])
def test_nulls_are_refused_in_the_input_and_read_as_empty_elsewhere(kind: Any) -> None:
    rows = frame(["A fine lens.", "A fine lens."]).astype({"input": kind})
    rows["note"] = pd.Series([None, ""], dtype=kind)
    for filter_ in (ExactDuplicate, NearDuplicate):
        assert run(rows, filter_(fields=["input", "note"])).counts["kept"] == 1
    rows.loc[1, "input"] = None
    with pytest.raises(filters.FilterError, match="row 'r1': input is null"):
        run(rows, NearDuplicate())


def test_emoji_and_right_to_left_texts_are_compared_by_their_words() -> None:
    arabic = "البطارية تدوم طوال اليوم وهذا الهاتف خفيف جدا وسريع في كل شيء أحتاجه هنا الآن"
    emoji = " ".join("😀😡🎉🚀🐍🍎🏠🚗⚽🎵📷💡🔑🌍🌙") + " great"
    texts = [arabic, arabic + "!", emoji, emoji.replace("🐍", "🐎"), emoji[::-1]]
    result = run(frame(texts), ExactDuplicate(), NearDuplicate())
    assert kept(result) == {"r1", "r2", "r4"}
