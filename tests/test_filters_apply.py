"""Running filters over rows: verdicts, evidence, and what cannot be worked with."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from filters_frames import frame, kept, lines, run

import filters
from filters import Confidence, ExactDuplicate, FilterError, NearDuplicate, Rebalance

TEXTS = ["The zoom is great.", "the zoom is great", "It broke on day two.", "Fine.", "A good buy."]


def labelled() -> pd.DataFrame:
    return frame(
        TEXTS,
        label=["positive", "positive", "negative", None, "positive"],
        confidence=[0.9, 0.8, 0.5, None, 0.7],
        source=["web", "web", "shop", "web", "web"],
        price=[1, 2, 3, 4, 5],
    )


def test_the_first_filter_that_drops_a_row_gives_its_reason() -> None:
    result = run(labelled(), ExactDuplicate(), Confidence(minimum=0.85))
    assert result.frame["keep"].tolist() == [True, False, False, False, False]
    assert result.frame["reason"].fillna("").tolist() == [
        "",
        "exact_duplicate",
        "confidence",
        "unlabelled",
        "confidence",
    ]
    swapped = run(labelled(), Confidence(minimum=0.85), ExactDuplicate())
    assert swapped.frame["reason"][1] == "confidence"
    assert swapped.frame["score_exact_duplicate"][1] == 1.0, "scored although dropped before"


def test_rows_come_back_unchanged_in_their_order_with_the_new_columns_behind() -> None:
    rows = labelled().set_index(pd.Index([7, 3, 9, 1, 4]))
    before = rows.copy()
    result = run(rows, ExactDuplicate(), Confidence(), clusters=[0, 0, 1, 1, 0])
    pd.testing.assert_frame_equal(rows, before)
    pd.testing.assert_frame_equal(result.frame[list(rows.columns)], before)
    assert list(result.frame.columns[len(rows.columns) :]) == [
        "cluster",
        "keep",
        "reason",
        "related_id",
        "score_exact_duplicate",
        "score_confidence",
        "weight",
        "copies",
    ]
    assert result.frame["weight"].tolist() == [1.0] * 5
    assert result.frame["copies"].tolist() == [1] * 5
    assert list(result.kept["id"]) == ["r0", "r4"]


def test_the_decisions_say_why() -> None:
    result = run(labelled(), ExactDuplicate(), Confidence(minimum=0.75))
    found = result.decisions.astype(object).where(result.decisions.notna(), None)
    assert found.to_dict("split")["data"] == [
        ["r3", "unlabelled", None, None, None, "drop"],
        ["r1", "exact_duplicate", 1.0, 1.0, "r0", "drop"],
        ["r2", "confidence", 0.5, 0.75, None, "drop"],
        ["r4", "confidence", 0.7, 0.75, None, "drop"],
    ]
    assert list(found.columns) == ["id", "filter", "score", "threshold", "related_id", "verdict"]


def test_counts_funnel_and_balance() -> None:
    result = run(labelled(), ExactDuplicate(), Confidence(minimum=0.6))
    assert result.counts == {
        "rows": 5,
        "kept": 2,
        "dropped": {"exact_duplicate": 1, "confidence": 1, "unlabelled": 1},
        "conflicts": 0,
    }
    assert [(step["stage"], step["rows"]) for step in result.funnel] == [
        ("rows", 5),
        ("labelled", 4),
        ("after exact_duplicate", 3),
        ("after confidence", 2),
        ("training set", 2),
    ]
    assert result.balance["label"] == {
        "before": {"negative": 1, "positive": 3},
        "after": {"negative": 0, "positive": 2},
        "effective": {"negative": 0.0, "positive": 2.0},
    }


def test_a_label_or_source_that_is_wiped_out_sounds_an_alarm() -> None:
    result = run(labelled(), Confidence(minimum=0.6))
    assert [warning.split(":")[0] for warning in result.warnings] == [
        "label 'negative' is wiped out",
        "source 'shop' is wiped out",
    ]
    empty = run(labelled(), Confidence(minimum=1.0))
    assert empty.warnings[0].startswith("no row is left of 5")


def test_an_error_makes_a_row_unlabelled_even_beside_a_label() -> None:
    rows = frame(["One.", "Two."], label=["yes", "no"], error=[None, "refused"])
    assert run(rows).frame["reason"].fillna("").tolist() == ["", "unlabelled"]
    assert run(rows.drop(columns=["label"])).counts["kept"] == 2, "no labels, nothing to miss"


def test_running_again_replaces_the_columns_of_the_first_run() -> None:
    once = run(labelled(), ExactDuplicate(), Confidence(minimum=0.85))
    again = run(once.frame, Confidence(minimum=0.0))
    assert again.counts["kept"] == 4
    assert "score_exact_duplicate" not in again.frame.columns


def test_a_dataset_comes_back_as_one_with_its_columns_untouched() -> None:
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "input": datasets.Value("string"),
            "choices": datasets.List(datasets.Value("string")),
            "label": datasets.Value("string"),
        }
    )
    rows: dict[str, Any] = {
        "id": ["a", "b", "c"],
        "input": ["Yes or no?", "yes or no", "Which?"],
        "choices": [["yes", "no"], ["yes", "no"], None],
        "label": ["yes", "yes", "no"],
    }
    given = datasets.Dataset.from_dict(rows, features=features)
    result = filters.apply(given, [ExactDuplicate()], clusters=[0, 0, 1])
    assert result.dataset.select_columns(list(rows)).features == features
    assert result.dataset.select_columns(list(rows)).to_dict() == given.to_dict()
    assert result.dataset["keep"][:] == [True, False, True]
    assert result.dataset["reason"][:] == [None, "exact_duplicate", None]
    assert result.dataset.features["reason"] == datasets.Value("string")
    again = filters.apply(result.dataset, [NearDuplicate()], clusters=[1, 1, 1])
    assert again.dataset["cluster"][:] == [1, 1, 1]
    assert "score_exact_duplicate" not in again.dataset.column_names
    assert run(labelled(), ExactDuplicate()).dataset["keep"][:] == [True, False, True, False, True]


def test_nothing_dropped_still_gives_a_column_of_text() -> None:
    result = run(frame(["One.", "Two."]), ExactDuplicate())
    assert result.dataset.features["reason"].dtype.endswith("string")
    assert result.decisions["related_id"].dtype == result.frame["reason"].dtype


def test_progress_names_the_filter() -> None:
    seen: list[dict[str, Any]] = []
    run(frame(TEXTS), NearDuplicate(), on_progress=lambda event: seen.append(dict(event)))
    assert seen[-1] == {"stage": "near_duplicate", "done": 5, "total": 5}


def every_filter() -> list[Any]:
    return [
        ExactDuplicate(),
        NearDuplicate(),
        filters.SemanticDuplicate(),
        Confidence(),
        Rebalance(),
    ]


def test_an_empty_set() -> None:
    rows = labelled().iloc[:0]
    clusters = np.empty(0, dtype=int)
    result = run(rows, *every_filter(), embeddings=np.empty((0, 0)), clusters=clusters)
    assert result.counts == {"rows": 0, "kept": 0, "dropped": {}, "conflicts": 0}
    assert result.warnings == []
    assert "score_rebalance" in result.frame.columns
    assert len(result.decisions) == 0
    assert len(result.dataset) == 0


def test_one_row() -> None:
    rows = labelled().iloc[:1]
    result = run(rows, *every_filter(), embeddings=np.ones((1, 4)), clusters=[0])
    assert kept(result) == {"r0"}
    assert result.warnings == []


def test_all_rows_equal() -> None:
    rows = frame(["Same text."] * 40, label=["yes"] * 40, confidence=[0.9] * 40)
    result = run(rows, *every_filter(), embeddings=np.ones((40, 4)), clusters=[0] * 40)
    assert kept(result) == {"r0"}
    assert "39 rows were dropped as duplicates of 'r0'" in result.warnings[0]


def test_only_unlabelled_rows() -> None:
    rows = frame(["Same text.", "Same text."], label=[None, None], confidence=[None, 0.9])
    result = run(rows, *every_filter(), embeddings=np.ones((2, 4)), clusters=[0, 0])
    assert result.counts["dropped"] == {"unlabelled": 2}
    assert result.counts["conflicts"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "row 'r1': input is null"),
        (float("nan"), "row 'r1': input is null"),
        (12, r"row 'r1': input is 12 \(int\); it must be text"),
        (["a"], r"row 'r1': input is \['a'\] \(list\)"),
        ("broken \ud83d text", "row 'r1': input holds half of a surrogate pair"),
    ],
)
def test_a_row_without_a_proper_text_is_named(text: object, message: str) -> None:
    rows = pd.DataFrame({"id": ["r0", "r1"], "input": pd.Series(["Fine.", text], dtype=object)})
    with pytest.raises(FilterError, match=message):
        run(rows)


@pytest.mark.parametrize(
    ("rows", "chosen", "arguments", "message"),
    [
        (pd.DataFrame({"input": ["One."]}), [], {}, "no column 'id'; the columns are input"),
        (pd.DataFrame({"id": [1], "input": ["One."]}), [], {}, "row number 0 is 1; it must be a s"),
        (pd.DataFrame({"id": ["a", "a"]}), [], {}, "the id 'a' occurs more than once"),
        (frame(["One."]), ["near_duplicate"], {}, "'near_duplicate' is not a filter"),
        (frame(["One."]), [NearDuplicate], {}, "is not a filter"),
        (frame(["One."]), [Confidence(), Confidence()], {}, "two filters 'confidence'"),
        (frame(["One."]), [Confidence()], {}, "confidence: there is no column 'confidence'"),
        (frame(["One."]), [ExactDuplicate(fields=["title"])], {}, "no column 'title'"),
        (frame(["One."]), [], {"clusters": [0, 1]}, "one whole number for each of the 1 rows"),
        (frame(["One."]), [], {"clusters": [0.5]}, "type float64; it must be one whole number"),
        ([{"id": "a"}], [], {}, "the dataset is a list; it must be a pandas DataFrame"),
        (datasets.DatasetDict(), [], {}, "of a DatasetDict pass one split"),
    ],
)
def test_what_cannot_be_worked_with_is_refused(
    rows: Any, chosen: list[Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        filters.apply(rows, chosen, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("exact_duplicate", {"fields": []}, r"fields is \[\]; it must be a list of different col"),
        ("exact_duplicate", {"fields": [1]}, r"fields is \[1\]"),
        ("exact_duplicate", {"same_label": "no"}, "same_label is 'no'; it must be true or false"),
        ("near_duplicate", {"threshold": 1.2}, "threshold is 1.2; it must be a number above 0 an"),
        ("near_duplicate", {"threshold": 0}, "threshold is 0; .* above 0 and at most 1"),
        ("near_duplicate", {"threshold": True}, "threshold is True"),
        ("near_duplicate", {"threshold": "high"}, "threshold is 'high'"),
        ("near_duplicate", {"threshold": float("nan")}, "threshold is nan"),
        ("near_duplicate", {"floor": 0.9}, "floor is 0.9; .* at most 0.7; leave it out"),
        ("near_duplicate", {"shingle": []}, r"shingle is \[\]; .* write \[1, 2\]"),
        ("near_duplicate", {"shingle": [0]}, "shingle is 0; it must be a whole number at least 1"),
        ("near_duplicate", {"shingle": "3"}, "shingle is '3'"),
        ("near_duplicate", {"permutations": 5}, "permutations is 5"),
        ("semantic_duplicate", {"overlap": 2}, "overlap is 2"),
        ("confidence", {"minimum": 60}, "minimum is 60; it must be a number at most 1; 0.6"),
        ("confidence", {"on_missing": "ask"}, "on_missing is 'ask'; it must be one of 'keep', 'd"),
        ("rebalance", {"method": "cut"}, "method is 'cut'; it must be one of 'cap', 'weight', 'o"),
        ("rebalance", {"label_ratio": 0.5}, "label_ratio is 0.5; it must be a number at least 1"),
        ("rebalance", {"maximum_copies": 1.5}, "maximum_copies is 1.5; it must be a whole number"),
        ("rebalance", {"by": ["label", "label"]}, "by is .* different column names"),
    ],
)
def test_arguments_are_checked_when_a_filter_is_made(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        filters.FILTERS[name](**arguments)


def test_recipe_names_are_the_reasons() -> None:
    assert {name: kind().reason for name, kind in filters.FILTERS.items()} == {
        name: name for name in filters.FILTERS
    }


def test_a_filter_of_ones_own_is_an_object_with_a_reason_and_a_judge() -> None:
    class TooShort:
        reason = "too_short"

        def judge(self, rows: filters.Rows) -> filters.Judgement:
            scores = rows.frame["input"].str.len().to_numpy(dtype=float)
            dropped = rows.alive & (scores < 8)
            where = np.flatnonzero(dropped)
            return filters.Judgement(
                scores=scores,
                dropped=dropped,
                threshold=8.0,
                matches=filters.Matches(
                    row=where,
                    related=np.full(len(where), -1),
                    score=scores[where],
                    verdict=np.full(len(where), "drop", dtype=object),
                ),
            )

    result = run(labelled(), TooShort(), ExactDuplicate())
    assert result.counts["dropped"] == {"exact_duplicate": 1, "unlabelled": 1}
    result = run(frame(["Fine.", "A good buy."]), TooShort())
    assert lines(result, "drop")[0][0] == "r0"
    assert result.frame["score_too_short"].tolist() == [5.0, 11.0]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import filters, sys; print(*{'torch', 'transformers', 'sklearn', 'polars', 'datasets', "
        "'sentence_transformers', 'pandas', 'curate', 'labelers', 'student'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_there() -> None:
    for name in filters.__all__:
        assert getattr(filters, name).__class__
    with pytest.raises(AttributeError, match="no attribute 'nearest'"):
        _ = filters.nearest
