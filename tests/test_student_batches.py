"""Formatting, tokenising, counting what is cut, and batches of similar length."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from tiny_student import review_rows, tiny_tokenizer

from student.batches import Formatting, bucketed_batches, collate, encode
from student.errors import InputError
from student.examples import Example, read_examples, shared_labels, split_validation


def test_prefixes_tell_the_two_tasks_apart() -> None:
    tokenizer = tiny_tokenizer()
    row = Example(input="A dull lamp.", target="negative", rationale="It is dull.")
    encoded = encode([row], tokenizer, Formatting(label_prefix="[label] "), rationales=True)
    assert encoded.label_inputs[0] == tokenizer("[label] A dull lamp.").input_ids
    assert encoded.rationale_inputs[0] == tokenizer("[rationale] A dull lamp.").input_ids
    assert encoded.label_targets[0] == tokenizer("negative").input_ids
    assert encoded.rationale_targets[0] == tokenizer("It is dull.").input_ids
    bare = encode([row], tokenizer, Formatting(), rationales=False)
    assert bare.label_inputs[0] == tokenizer("A dull lamp.").input_ids
    assert bare.rationale_targets == [None]


def test_what_is_cut_is_counted_and_still_ends_in_the_end_token() -> None:
    tokenizer = tiny_tokenizer()
    long, short = "The strap broke on day two. " * 20, "A dull lamp."
    rows = [
        Example(input=long, target="negative", rationale="It broke. " * 30),
        Example(input=short, target="mixed feelings", rationale="Dull."),
    ]
    formatting = Formatting(max_input_tokens=40, max_label_tokens=8, max_rationale_tokens=20)
    encoded = encode(rows, tokenizer, formatting, rationales=True)
    assert encoded.truncated == {"inputs": 1, "labels": 1, "rationales": 1}
    assert len(encoded.label_inputs[0]) == 40
    assert encoded.label_inputs[0][-1] == tokenizer.eos_token_id
    assert len(encoded.label_targets[1]) == 8
    assert encoded.label_targets[1][-1] == tokenizer.eos_token_id
    assert encoded.label_inputs[1] == tokenizer(short).input_ids


def test_collate_puts_label_rows_first_and_masks_by_length() -> None:
    tokenizer = tiny_tokenizer()
    rows = [
        Example(input="A dull lamp.", target="negative", weight=2.0),
        Example(input="I love it.", target="positive", rationale="Love.", weight=0.5),
    ]
    encoded = encode(rows, tokenizer, Formatting(label_prefix="[label] "), rationales=True)
    batch = collate(encoded, [0, 1], pad_token_id=0)
    lengths = [len(encoded.label_inputs[0]), len(encoded.label_inputs[1])]
    lengths.append(len(encoded.rationale_inputs[1] or []))
    assert batch.attention_mask.sum(dim=1).tolist() == lengths
    assert batch.input_ids.shape == (3, max(lengths))
    assert batch.label_targets.shape[0] == 2
    assert batch.rationale_targets.shape[0] == 1
    assert batch.label_weights.tolist() == [2.0, 0.5]
    assert batch.rationale_weights.tolist() == [0.5]
    assert torch.equal(batch.input_ids == 0, batch.attention_mask == 0)


def test_buckets_hold_every_row_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 200, size=1003).tolist()
    batches = bucketed_batches(lengths, 16, seed=0, epoch=1)
    assert sorted(place for batch in batches for place in batch) == list(range(1003))
    assert {len(batch) for batch in batches} <= {15, 16}
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)  # in random order it is about 1.8
    assert batches == bucketed_batches(lengths, 16, seed=0, epoch=1)
    assert batches != bucketed_batches(lengths, 16, seed=0, epoch=2)
    assert batches != bucketed_batches(lengths, 16, seed=1, epoch=1)
    widths = [max(lengths[i] for i in batch) for batch in batches]
    assert widths != sorted(widths)  # batches come in random order


def test_copies_repeat_a_row_and_weights_pass_through() -> None:
    rows = [
        {"input": "A dull lamp.", "label": "negative", "copies": 3, "weight": 0.5},
        {"input": "I love it.", "label": "positive", "copies": 0},
        {"input": "It is easy.", "label": "positive", "weight": 0.0},
        {"input": "It works.", "label": "positive"},
    ]
    examples, left_out = read_examples(rows)
    assert left_out == {"weight or copies zero": 2}
    encoded = encode(examples, tiny_tokenizer(), Formatting(), rationales=False)
    assert encoded.order == [0, 0, 0, 1]
    assert encoded.weights == [0.5, 1.0]
    assert len(encoded.lengths()) == 4


@pytest.mark.parametrize("kind", ["pandas", "datasets", "polars", "dicts"])
def test_any_table_reads_alike(kind: str) -> None:
    rows = review_rows()
    frame = pd.DataFrame(rows)
    data = {
        "pandas": frame,
        "datasets": datasets.Dataset.from_pandas(frame),
        "polars": pl.DataFrame(rows),
        "dicts": rows,
    }[kind]
    examples, left_out = read_examples(data)
    assert left_out == {}
    assert [e.input for e in examples] == [row["input"] for row in rows]
    assert examples[0].choices == ("positive", "negative")
    assert [e.rationale is None for e in examples] == [False, False, False, True] * 2


def test_test_rows_dropped_rows_and_rows_without_a_label_are_never_trained_on() -> None:
    rows = [
        {"input": "A dull lamp.", "label": "negative", "split": "train", "keep": True},
        {"input": "I love it.", "label": "positive", "split": "test", "keep": None},
        {"input": "It is easy.", "label": "positive", "split": "train", "keep": False},
        {"input": "It works.", "label": None, "split": "train", "keep": True},
        {"input": "It broke.", "label": "negative", "split": "validation", "keep": None},
    ]
    examples, left_out = read_examples(pd.DataFrame(rows))
    assert left_out == {"test split": 1, "not kept": 1, "no label": 1}
    training, validation = split_validation(examples, 0.0, seed=0)
    assert [e.input for e in training] == ["A dull lamp."]
    assert [e.input for e in validation] == ["It broke."]


def test_validation_is_carved_by_group_and_equal_texts_stay_together() -> None:
    rows = [
        Example(input=f"text {i}", target="positive", group=f"review {i // 5}") for i in range(100)
    ]
    rows += [Example(input="the same text", target="positive") for _ in range(20)]
    training, validation = split_validation(rows, 0.2, seed=3)
    assert 18 <= len(validation) <= 30
    assert len(training) + len(validation) == 120
    assert not {e.group or e.input for e in training} & {e.group or e.input for e in validation}
    assert split_validation(rows, 0.2, seed=3) == (training, validation)
    assert split_validation(rows, 0.2, seed=4) != (training, validation)
    with pytest.raises(InputError, match="cannot be carved out of 20 rows in 1 groups"):
        split_validation(rows[100:], 0.2, seed=3)
    # One text in several groups is on one side, and with it all rows of those groups.
    texts = ("It broke.", "It shines.", "It leaks.", "It lasts.")
    rows = [Example(input=texts[i % 4], target="bad", group=f"buyer {i}") for i in range(80)]
    training, validation = split_validation(rows, 0.25, seed=0)
    assert len(validation) == 20
    assert not {e.input for e in training} & {e.input for e in validation}


def test_a_split_or_keep_that_could_be_misread_is_refused() -> None:
    row = {"input": "It broke.", "label": "bad"}
    with pytest.raises(InputError, match=r"row 1: split is 'Test'; it must be 'train'"):
        read_examples([row, {**row, "split": "Test"}])
    with pytest.raises(InputError, match=r"row 0: keep is the text 'False'"):
        read_examples([{**row, "keep": "False"}])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"weight": "much"}, "row 0: weight is 'much'; it must be a number, 0 or more"),
        ({"weight": -1.0}, "row 0: weight is -1.0; it must be a number, 0 or more"),
        ({"copies": "x"}, "row 0: copies is 'x'; it must be a number, 0 or more"),
        ({"copies": 1.5}, "row 0: copies is 1.5; it must be a whole number"),
        ({"choices": "positive"}, "row 0: choices is the text 'positive'; it must be a list"),
        ({"label": ["positive", 3], "input": 7}, "row 0: input is 7; it must be a text"),
        ({"label": [3]}, "row 0: label is 3; it must be a text"),
        ({"label": []}, r"row 0: label is \[\]; it must be a text"),
    ],
)
def test_a_cell_of_another_kind_is_named(cell: dict[str, Any], message: str) -> None:
    row = {"input": "The strap broke on day two.", "label": "negative"}
    with pytest.raises(InputError, match=message):
        read_examples([{**row, **cell}])


def test_the_first_of_several_references_is_learned() -> None:
    row = {"input": "What is the capital of the Netherlands?", "gold": ["Amsterdam", "A'dam"]}
    examples, _ = read_examples([row], target="gold")
    assert examples[0].target == "Amsterdam"


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        ([], "label", "the training data has no rows"),
        ([{"text": "a", "label": "b"}], "label", "no column 'input'; it has text, label"),
        ([{"input": "a", "gold": "b"}], "label", "no column 'label'"),
        ([{"input": "a", "label": None}] * 3, "label", "all 3 rows .* target='gold'"),
        ([{"input": "a", "gold": float("nan")}], "gold", "all 1 rows .* target='label'"),
        ([{"input": None, "label": "b"}], "label", "row 0: input is None"),
        ([{"input": "a", "label": 3}], "label", "row 0: label is 3"),
        ([{"input": "a", "label": "b", "weight": -1.0}], "label", "row 0: weight is -1.0"),
        ([{"input": "a", "label": "b", "keep": False}], "label", "no training row is left of 1"),
        ("reviews.csv", "label", "data is a str"),
        ([{"input": "a", "label": "b"}], "teacher", "target='teacher' is not known"),
    ],
)
def test_bad_data_is_named(rows: object, target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_examples(rows, target=target)


def test_a_label_outside_its_choices_is_named() -> None:
    good = Example(input="A lamp.", target="yes", choices=("yes", "no"))
    bad = Example(input="A dull lamp.", target="perhaps", choices=("yes", "no"))
    assert shared_labels([good], None) == ["yes", "no"]
    assert shared_labels([good], ["no", "yes"]) == ["no", "yes"]
    assert shared_labels([Example(input="a", target="free text")], None) is None
    with pytest.raises(InputError, match=r"'perhaps' of the row 'A dull lamp.' is not among"):
        shared_labels([good, bad], None)
