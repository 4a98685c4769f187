"""Labels that models doubt: who is suspected, in what order, and when nobody is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import filters
from curate.suspects import MOST_ROWS, HeardLabelNoise, add_suspects, listening

THINGS = ("kettle", "strap", "lamp", "radio", "tent", "camera", "phone", "bag", "watch", "clock")
WRONG = ("p3", "n4")


def rows() -> pd.DataFrame:
    """Twenty sentences of praise and twenty complaints; two carry the other's label."""
    listed = []
    for i in range(20):
        thing, again = THINGS[i % 10], " again" if i >= 10 else ""
        listed.append((f"p{i}", f"I love this wonderful {thing}{again}.", "good"))
        listed.append((f"n{i}", f"I hate this terrible {thing}{again}.", "bad"))
    frame = pd.DataFrame(listed, columns=["id", "input", "label"])
    turned = frame["label"].map({"good": "bad", "bad": "good"})
    frame["label"] = frame["label"].where(~frame["id"].isin(WRONG), turned)
    return frame


def vectors(frame: pd.DataFrame) -> Any:
    """Embeddings by which praise and complaint can be told apart."""
    praise = frame["input"].str.contains("love").to_numpy(dtype=float)
    length = frame["input"].str.len().to_numpy(dtype=float) / 100
    found = np.column_stack([praise, 1 - praise, length])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def judged(frame: pd.DataFrame, chosen: list[Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    heard = listening(chosen)
    done = filters.apply(frame, heard, embeddings=vectors(frame)).frame
    told = add_suspects(done, heard, embeddings=vectors(frame))
    return done, told


def ranked(frame: pd.DataFrame) -> list[str]:
    listed = frame[frame["suspect_rank"].notna()].sort_values("suspect_rank")
    return [str(one) for one in listed["id"]]


def test_the_filters_own_opinion_is_written_beside_its_verdicts() -> None:
    frame, told = judged(rows(), [filters.LabelNoise()])
    assert set(ranked(frame)) == set(WRONG)
    assert told == {"by": "label_noise", "judged": 40, "rows": 2, "dropped": 2, "note": None}
    first = frame.set_index("id").loc["p3"]
    assert (first["label"], first["suspect_opinion"]) == ("bad", "good")
    assert first["suspect_opinion_probability"] > 0.5 > first["suspect_label_probability"]
    assert first["reason"] == "label_noise"
    # The same numbers as the public function gives for the same rows.
    listed = filters.suspect_labels(rows(), embeddings=vectors(rows())).set_index("id")
    assert first["suspect_opinion_probability"] == pytest.approx(
        listed.loc["p3", "opinion_probability"]
    )


def test_listening_changes_neither_verdicts_nor_the_policy() -> None:
    chosen = [filters.ExactDuplicate(), filters.LabelNoise(share=0.1, folds=4)]
    heard = listening(chosen)
    assert heard[0] is chosen[0]
    assert isinstance(heard[1], HeardLabelNoise)
    assert filters.policy_hash(heard) == filters.policy_hash(chosen)
    plain = filters.apply(rows(), chosen, embeddings=vectors(rows())).frame
    other = filters.apply(rows(), heard, embeddings=vectors(rows())).frame
    pd.testing.assert_frame_equal(plain, other)


def test_without_the_filter_an_opinion_is_formed_and_nothing_dropped() -> None:
    frame, told = judged(rows(), [filters.ExactDuplicate()])
    assert told["by"] == "report"
    assert set(ranked(frame)) == set(WRONG)
    assert frame["keep"].all()


def test_what_an_earlier_filter_or_a_person_settled_is_not_suspected() -> None:
    frame = rows()
    frame["confidence"] = np.where(frame["id"] == "p3", 0.2, 0.9)
    frame["review"] = np.where(frame["id"] == "n4", "accept", None)
    done, told = judged(frame, [filters.Confidence(minimum=0.5), filters.LabelNoise()])
    assert ranked(done) == []
    assert told["judged"] == 39
    assert done.set_index("id").loc["p3", "reason"] == "confidence"
    assert pd.isna(done.set_index("id").loc["p3", "suspect_opinion"])


def test_models_that_cannot_tell_labels_apart_suspect_nobody() -> None:
    frame = rows()
    frame["label"] = ["good", "bad", "bad", "good"] * 10
    done, told = judged(frame, [filters.LabelNoise()])
    assert ranked(done) == []
    assert "no better than by their frequency" in str(told["note"])


@pytest.mark.parametrize("size", [0, 1])
def test_no_row_and_one_row(size: int) -> None:
    frame = rows().head(size)
    done, told = judged(frame, [filters.LabelNoise()])
    assert len(done) == size
    assert (told["rows"], told["judged"]) == (0, 0)


def test_nobody_is_asked_without_embeddings_or_about_too_many_rows() -> None:
    frame = filters.apply(rows(), []).frame
    assert add_suspects(frame, [])["by"] is None
    assert frame["suspect_rank"].isna().all()
    many = pd.concat([rows()] * (MOST_ROWS // 40 + 1), ignore_index=True)
    many["id"] = [f"r{i}" for i in range(len(many))]
    many = filters.apply(many, []).frame
    assert add_suspects(many, [], embeddings=vectors(many))["by"] is None
    named = many.head(400).assign(label=[f"topic {i}" for i in range(400)])
    named = filters.apply(named, []).frame
    assert add_suspects(named, [], embeddings=vectors(named))["by"] is None
    unlabelled = named.drop(columns=["label"])
    assert add_suspects(unlabelled, [], embeddings=vectors(unlabelled))["by"] is None


def test_columns_survive_a_parquet_file(tmp_path: Any) -> None:
    frame, _ = judged(rows(), [filters.LabelNoise()])
    frame.to_parquet(tmp_path / "curated.parquet")
    back = pd.read_parquet(tmp_path / "curated.parquet")
    assert ranked(back) == ranked(frame)
    assert back["suspect_rank"].max() == 2
