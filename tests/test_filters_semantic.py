"""Semantic duplicates: the embedding proposes, the words decide."""

from __future__ import annotations

import numpy as np
import pytest
from filters_frames import at_cosines, frame, kept, lines, run

from filters import ExactDuplicate, FilterError, SemanticDuplicate


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The battery lasts all day.", "The battery lasts the whole day."),
        ("In low light this camera takes great pictures.", "This camera takes great photos in low light."),
        ("I can recommend this phone to anybody.", "I would recommend this phone to anyone."),
        ("It did not work with 2 of my disks.", "It didn't work with 2 of my disks."),
    ],
)  # fmt: skip
def test_close_texts_that_say_the_same_are_duplicates(first: str, second: str) -> None:
    result = run(frame([first, second]), SemanticDuplicate(), embeddings=at_cosines(0.97))
    assert result.counts["dropped"] == {"semantic_duplicate": 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The battery lasts all day.", "The battery does not last all day."),
        ("I would recommend it.", "I wouldn't recommend it."),
        ("The battery lasts 2 days.", "The battery lasts 20 days."),
        ("The battery lasts two days.", "The battery lasts three days."),
        ("The software is reliable.", "The software is unreliable."),
        ("The manual is useful.", "The manual is useless."),
        ("Superb value.", "Money well spent!"),
    ],
)
def test_close_texts_whose_words_disagree_both_stay(first: str, second: str) -> None:
    result = run(frame([first, second]), SemanticDuplicate(), embeddings=at_cosines(0.97))
    assert result.counts["kept"] == 2
    assert result.frame["score_semantic_duplicate"].tolist() == [0.0, 0.0]
    (line,) = result.decisions.to_dict("records")
    assert line["verdict"] == "keep"
    assert line["score"] == pytest.approx(0.97)


def test_a_negation_with_another_label_is_no_conflict_but_how_it_should_be() -> None:
    texts = ["The battery lasts all day.", "The battery does not last all day."]
    rows = frame(texts, label=["positive", "negative"])
    result = run(rows, SemanticDuplicate(), embeddings=at_cosines(0.99))
    assert result.counts["conflicts"] == 0
    assert len(lines(result, "keep")) == 1


def test_different_labels_are_a_conflict() -> None:
    texts = ["The zoom is fine for me.", "The zoom is just fine for me."]
    rows = frame(texts, label=["positive", "negative"])
    result = run(rows, SemanticDuplicate(), embeddings=at_cosines(0.99))
    assert result.counts == {"rows": 2, "kept": 2, "dropped": {}, "conflicts": 1}
    free = run(rows, SemanticDuplicate(same_label=False), embeddings=at_cosines(0.99))
    assert free.counts["kept"] == 1


def test_the_threshold_and_the_floor() -> None:
    texts = ["The zoom is fine.", "This zoom is fine.", "Its zoom is fine.", "A zoom is fine."]
    vectors = at_cosines(0.96, 0.93, 0.85)
    result = run(frame(texts), SemanticDuplicate(), embeddings=vectors)
    assert kept(result) == {"r1", "r2", "r3"} or kept(result) == {"r0", "r2", "r3"}
    assert len(result.decisions) == 2, "0.96 drops, 0.93 is above the floor of 0.9, 0.85 is not"
    assert len(lines(result, "drop")) == 1
    loose = run(frame(texts), SemanticDuplicate(threshold=0.8), embeddings=vectors)
    assert kept(loose) == {"r1"} or loose.counts["kept"] <= 2


def test_overlap_can_be_moved() -> None:
    texts = ["Superb value indeed.", "Money well spent indeed!"]
    strict = run(frame(texts), SemanticDuplicate(), embeddings=at_cosines(0.97))
    assert strict.counts["kept"] == 2
    loose = run(frame(texts), SemanticDuplicate(overlap=0.3), embeddings=at_cosines(0.97))
    assert loose.counts["kept"] == 1


def test_vectors_need_not_be_normalised_and_may_be_zero() -> None:
    texts = ["The strap is fine.", "This strap is fine.", "Nothing.", "Nothing at all."]
    vectors = np.array([[2.0, 0.0], [40.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    result = run(frame(texts), SemanticDuplicate(), embeddings=vectors)
    assert result.counts["kept"] == 3


def test_hundreds_of_alike_rows_leave_one() -> None:
    draw = np.random.default_rng(0)
    vectors = np.ones((300, 8)) + draw.normal(size=(300, 8)) * 0.01
    names = ["".join(draw.choice(list("abcdefgh"), 7)) for _ in range(300)]
    rows = frame([f"A fine lens from {name}." for name in names])
    result = run(rows, SemanticDuplicate(), embeddings=vectors)
    assert result.counts["kept"] == 1
    assert "299 rows were dropped as duplicates" in result.warnings[0]


def test_equal_texts_share_a_line_each_not_a_line_per_pair() -> None:
    rows = frame(["A fine lens."] * 50)
    result = run(rows, SemanticDuplicate(), embeddings=np.ones((50, 4)))
    assert len(result.decisions) == 49
    assert result.counts["kept"] == 1


def test_what_exact_dropped_is_scored_but_no_twin() -> None:
    rows = frame(["A fine lens.", "A fine lens!", "This lens is fine."])
    result = run(rows, ExactDuplicate(), SemanticDuplicate(), embeddings=at_cosines(1.0, 0.96))
    assert result.counts["dropped"] == {"exact_duplicate": 1, "semantic_duplicate": 1}
    assert (result.frame["score_semantic_duplicate"] > 0.9).sum() == 2


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (None, "embeddings is None"),
        (np.ones((3, 4)), "there are 3 for 2 rows"),
        (np.ones(2), r"the shape is \(2,\)"),
        (np.array([[1.0, 0.0], [np.nan, 1.0]]), "number 1 holds NaN"),
        ([["a", "b"], ["c", "d"]], "must be numbers"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(embeddings: object, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        run(frame(["One row.", "Two rows."]), SemanticDuplicate(), embeddings=embeddings)
