"""Rows that are in the test set too: found in part, wrapped and recased, and named with their twin."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filters_frames import at_cosines, frame, kept, run

import filters
from filters import Contamination, FilterError, SemanticContamination

TEST = "The zoom on this little camera is far better than I had expected for its price."
OTHER = "My daughter pitched this tent alone on her first try and it stood through the rain."


def test_a_copy_a_wrapped_copy_and_a_cut_copy_are_dropped_and_the_test_row_is_named() -> None:
    rows = frame(
        [
            TEST.upper().replace(".", "!!"),
            f"I read this today: {TEST} What do you say?",
            "The zoom on this little camera is far better than I had expected.",
            OTHER,
        ]
    )
    test = pd.DataFrame(
        {"id": ["t1", "t2"], "input": ["The strap broke.", TEST], "gold": ["a", "b"]}
    )
    result = run(rows, Contamination(), references={"test": test})
    assert kept(result) == {"r3"}
    assert result.frame["score_contamination"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert result.frame["related_id"].tolist()[:3] == ["t2", "t2", "t2"]
    assert result.decisions["related_set"].tolist() == ["test"] * 3
    assert result.counts["dropped"] == {"contamination": 3}


def test_the_score_is_shared_runs_over_those_of_the_text_that_has_fewer() -> None:
    # 16 words have 9 runs of 8. The 8th word changes 8 of the first text's; the last word one.
    words = TEST.split()
    ends = [*words[:-1], "money"]
    middle = [*words[:7], "quite", *words[8:]]
    result = run(
        frame([" ".join(ends), " ".join(middle)]), Contamination(), references={"test": [TEST]}
    )
    assert result.frame["score_contamination"].tolist() == [8 / 9, 1 / 9]
    assert result.frame["keep"].tolist() == [False, True]


def test_texts_of_fewer_words_than_a_run_match_only_as_a_whole() -> None:
    rows = frame(["it works", "It works, I suppose.", "Yes! It works."])
    result = run(rows, Contamination(), references={"test": ["It works!", f"It works, {TEST}"]})
    assert kept(result) == {"r1", "r2"}


def test_a_phrase_in_many_of_the_other_texts_is_a_template_and_does_not_count() -> None:
    ask = "Please read the following question with care and then choose the one best answer."
    nouns = [f"{a}{b}" for a, b in itertools.product("bdfgk", "aeiou")]
    test = [f"{ask} Where would a {noun} keep seven {noun}s?" for noun in nouns]
    rows = frame([f"{ask} Who was the first to walk on it?", test[3], ask])
    result = run(rows, Contamination(), references={"test": test})
    assert kept(result) == {"r0", "r2"}
    few = run(rows, Contamination(), references={"test": test[:2]})
    assert "r0" not in kept(few), "in two texts it is no template yet"


def test_only_the_sets_that_are_named_count_and_each_is_named_in_the_evidence() -> None:
    sets = {"test": [TEST], "validation": [OTHER]}
    rows = frame([TEST, OTHER])
    both = run(rows, Contamination(), references=sets)
    assert both.decisions["related_set"].tolist() == ["test", "validation"]
    assert kept(run(rows, Contamination(against=["validation"]), references=sets)) == {"r0"}
    with pytest.raises(
        FilterError, match=r"against names 'tset'; the sets are 'test', 'validation'"
    ):
        run(rows, Contamination(against=["tset"]), references=sets)


def test_labels_do_not_matter_and_gold_of_the_other_set_is_never_read() -> None:
    class Sealed:
        def __str__(self) -> str:
            raise AssertionError("gold was read")

    test = pd.DataFrame({"id": ["t"], "input": [TEST], "gold": [Sealed()]})
    result = run(frame([TEST], label=["bad"]), Contamination(), references={"test": test})
    assert kept(result) == set()


def test_the_order_of_both_sets_does_not_matter() -> None:
    rows = frame([TEST, OTHER, "It works.", f"{OTHER} Truly."])
    test = pd.DataFrame({"id": ["b", "a", "c"], "input": [OTHER, TEST, OTHER]})
    one = run(rows, Contamination(), references={"test": test})
    two = run(rows.iloc[::-1], Contamination(), references={"test": test.iloc[::-1]})
    pd.testing.assert_frame_equal(one.frame, two.frame.sort_index())
    pd.testing.assert_frame_equal(one.decisions, two.decisions)
    assert one.decisions["related_id"].tolist() == ["a", "b", "b"], "of equal texts the first by id"


def test_matches_below_the_threshold_are_recorded_down_to_the_floor() -> None:
    half = " ".join([*TEST.split()[:10], *OTHER.split()[:6]])
    strict = Contamination(containment=0.9, floor=0.3)
    result = run(frame([half]), strict, references={"test": [TEST]})
    line = result.decisions.iloc[0]
    assert (line["verdict"], line["score"], line["threshold"]) == ("keep", 3 / 9, 0.9)
    bare = run(frame([half]), Contamination(containment=0.9), references={"test": [TEST]})
    assert len(bare.decisions) == 0
    assert bare.frame["score_contamination"][0] == 3 / 9, "scores are exact all the same"


def test_semantic_contamination_needs_nearness_and_the_same_words() -> None:
    texts = ["The battery lasts all day long.", "The battery never lasts all day.", "A good tent."]
    vectors = at_cosines(0.98, 0.97, 0.2)
    result = run(
        frame(texts),
        SemanticContamination(),
        embeddings=vectors[1:],
        references={"test": ["The battery lasts all day."]},
        reference_embeddings={"test": vectors[:1]},
    )
    assert kept(result) == {"r1", "r2"}, "a negation is no leak"
    assert result.frame["score_semantic_contamination"].round(2).tolist() == [0.98, 0.0, 0.0]
    assert result.decisions["verdict"].tolist() == ["drop", "keep"]


NO_TEXTS: dict[str, Any] = {"references": {"test": []}}


@pytest.mark.parametrize(
    ("texts", "given"), [([], {"references": {"test": [TEST]}}), ([TEST], NO_TEXTS), ([], NO_TEXTS)]
)
def test_empty_sets_leave_everything_be(texts: list[str], given: dict[str, Any]) -> None:
    result = run(frame(texts), Contamination(), **given)
    assert len(kept(result)) == len(texts)
    vectors = np.ones((len(texts), 2))
    others = {"test": np.ones((len(given["references"]["test"]), 2))}
    result = run(
        frame(texts),
        SemanticContamination(),
        embeddings=vectors,
        reference_embeddings=others,
        **given,
    )
    assert len(kept(result)) == len(texts)


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ({}, {}, "there is no set to compare with; pass for example references="),
        ({}, {"references": {"test": [None]}}, r"references\['test'\]: row '0': input is null"),
        ({}, {"references": {"test": "The strap."}}, "is a text; it must be a frame or a list"),
        (
            {},
            {"references": {"test": pd.DataFrame({"id": ["a", "a"], "input": ["A.", "B."]})}},
            r"references\['test'\]: .*'a' occurs more than once",
        ),
        ({}, {"references": {"a": []}, "reference_embeddings": {"b": []}}, "names 'b', which"),
        ({"containment": 1.5}, {}, "containment is 1.5; it must be a number above 0 and at most 1"),
        ({"ngram": 0}, {}, "ngram is 0; it must be a whole number at least 1"),
        ({"floor": 0.7}, {}, "floor is 0.7; it must be a number above 0 and at most 0.5"),
        ({"against": ["test", "test"]}, {}, "against is .* different names of sets"),
    ],
)
def test_what_cannot_be_worked_with(
    arguments: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        run(frame([TEST]), Contamination(**arguments), **given)


def test_semantic_contamination_says_which_vectors_are_missing() -> None:
    rows, sets = frame([TEST]), {"test": [TEST]}
    with pytest.raises(FilterError, match="embeddings is None; it needs one vector per row"):
        run(rows, SemanticContamination(), references=sets)
    with pytest.raises(FilterError, match="the set 'test' has no embeddings"):
        run(rows, SemanticContamination(), references=sets, embeddings=[[1.0, 0.0]])
    with pytest.raises(FilterError, match="3 dimensions and the rows' have 2"):
        run(
            rows,
            SemanticContamination(),
            references=sets,
            embeddings=[[1.0, 0.0]],
            reference_embeddings={"test": [[1.0, 0.0, 0.0]]},
        )


def test_twins_share_a_group_along_chains_and_so_do_rows_of_one_group() -> None:
    words = [f"{a}{b}n" for a, b in itertools.product("bdfgklm", "aeiou")][:30]
    step = [*words[:3], "changed", *words[4:]]
    chain = [words, step, [*step[:20], "again", *step[21:]]]
    texts = [" ".join(one) for one in chain] + ["The strap broke.", "the strap broke", "It works."]
    assert filters.group_twins(texts).tolist() == [0, 0, 0, 1, 1, 2]
    assert filters.group_twins(texts, groups=list("abcdde")).tolist() == [0, 0, 0, 1, 1, 2]
    assert filters.group_twins(texts, groups=list("abcdea")).tolist() == [0, 0, 0, 1, 1, 0]
    assert filters.group_twins([]).tolist() == []
