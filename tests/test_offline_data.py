"""The rated snippets: labels, the split by review, and what is left out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from curate.assets import AssetError, data_names, load_data
from curate.offline_data import (
    SNIPPETS,
    normalise,
    read_snippets,
    split_of,
    unpack_snippets,
)

TEST_REVIEWS = [str(number) for number in range(60) if split_of(str(number)) == "test"]
TRAIN_REVIEWS = [str(number) for number in range(60) if split_of(str(number)) == "train"]
PRODUCTS = SNIPPETS["vader-products"].file


def read(folder: Path, *lines: str, name: str = "vader-products") -> pd.DataFrame:
    (folder / SNIPPETS[name.removesuffix("-clear")].file).write_text(
        "\r\n".join(lines), encoding="utf-8", newline=""
    )
    return read_snippets(name, folder)


def test_ratings_become_labels_and_ids_become_reviews(tmp_path: Path) -> None:
    a = TRAIN_REVIEWS[0]
    rows = read(
        tmp_path,
        f"{a}_1\t2.5\tI love it &amp; so does my caf\u00e9.",
        f"{a}_2\t-1.05\tThe strap &amp;#38; the lid broke.",
        f"{a}_3\t1.0\tIt is a strap.",
        f"{a}_4\t-1.0\tIt could be longer.",
    )
    assert list(rows.columns) == ["id", "text", "rating", "sentiment", "review_id", "split"]
    assert list(rows["id"]) == [f"{a}_{number}" for number in (1, 2, 3, 4)]
    assert list(rows["text"][:2]) == ["I love it & so does my café.", "The strap & the lid broke."]
    assert list(rows["rating"]) == [2.5, -1.05, 1.0, -1.0]
    assert list(rows["sentiment"][:2]) == ["positive", "negative"]
    assert list(rows["sentiment"].isna()) == [False, False, True, True]
    assert set(rows["review_id"]) == {a}


def test_an_unclear_snippet_of_a_test_review_is_in_neither_split(tmp_path: Path) -> None:
    train, test = TRAIN_REVIEWS[0], TEST_REVIEWS[0]
    lines = [f"{train}_1\t0.2\tIt has a strap.", f"{test}_1\t0.3\tIt has a lid."]
    lines += [f"{test}_2\t3\tThe lid is great."]
    rows = read(tmp_path, *lines)
    assert list(zip(rows["id"], rows["split"], strict=True)) == [
        (f"{train}_1", "train"),
        (f"{test}_2", "test"),
    ]
    clear = read(tmp_path, *lines, name="vader-products-clear")
    assert list(clear["id"]) == [f"{test}_2"]


def test_test_texts_are_unique_and_do_not_come_back_in_train(tmp_path: Path) -> None:
    train, test = TRAIN_REVIEWS[0], TEST_REVIEWS[0]
    rows = read(
        tmp_path,
        f"{train}_1\t3\tgreat   camera",
        f"{train}_2\t3\tGreat cameras!",
        f"{train}_3\t3\tgreat cameras",
        f"{test}_1\t3\tGreat camera!",
        f"{test}_2\t2\tGREAT camera...",
    )
    assert list(rows["id"]) == [f"{train}_2", f"{train}_3", f"{test}_1"]


def test_texts_without_a_letter_or_digit_are_dropped(tmp_path: Path) -> None:
    a = TRAIN_REVIEWS[0]
    rows = read(tmp_path, f"{a}_1\t2\t!", f"{a}_2\t2\t ", f"{a}_3\t2\t10/10")
    assert list(rows["text"]) == ["10/10"]


def test_data_without_reviews_splits_by_row(tmp_path: Path) -> None:
    rows = read(tmp_path, f"{TRAIN_REVIEWS[0]}\t2\tA gem.", name="vader-movies")
    assert list(rows["review_id"]) == list(rows["id"])


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=rf"{PRODUCTS}, line 2: not an id, a rating and a text"):
        read(tmp_path, "1_1\t2\tfine", "1_2\tlots\tbad")


def test_texts_are_compared_without_case_punctuation_and_extra_space() -> None:
    assert normalise("  It's GREAT,\tI_think! ") == "its great ithink"
    assert normalise("don't buy") != normalise("do buy")


def test_about_a_quarter_of_the_reviews_are_test() -> None:
    drawn = [split_of(str(number)) for number in range(4000)]
    assert 0.23 < drawn.count("test") / 4000 < 0.27
    assert [split_of(name) for name in ("1", "2", "309")] == ["train", "train", "train"]


def test_only_the_named_files_leave_the_archive(tmp_path: Path) -> None:
    def pack(entries: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in entries.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    texts = {f"in/{snippets.file}": b"1_1\t2\tfine\n" for snippets in SNIPPETS.values()}
    inner = pack({**texts, "in/../../escape.txt": b"outside"})
    source = tmp_path / "source.tar.gz"
    source.write_bytes(pack({"top/inner.tar.gz": inner, "top/setup.py": b"raise SystemExit"}))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    seen: list[tuple[int, int]] = []
    unpack_snippets(
        [source],
        folder,
        lambda phase, file, done, total: seen.append((done, total)),
        member="top/inner.tar.gz",
        inner_folder="in",
    )
    assert sorted(p.name for p in tmp_path.rglob("*.txt")) == sorted(
        snippets.file for snippets in SNIPPETS.values()
    )
    assert seen[-1] == (44, 44)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("vader-products", {"positive": 1131, "negative": 686, "": 951}, (354, 211)),
        ("vader-products-clear", {"positive": 1131, "negative": 686}, (354, 211)),
        ("vader-movies", {"positive": 3363, "negative": 3335, "": 1163}, (1176, 1149)),
        ("vader-editorials", {"positive": 352, "negative": 642, "": 2658}, (156, 265)),
        ("vader-tweets", {"positive": 1261, "negative": 543, "": 1194}, (458, 202)),
    ],
)
def test_the_real_data_has_the_documented_rows(
    name: str, train: dict[str, int], test: tuple[int, int]
) -> None:
    rows = load_data(name)
    split = {name: rows[rows["split"] == name] for name in ("train", "test")}
    found = split["train"]["sentiment"].fillna("").value_counts().to_dict()
    assert found == train
    assert split["test"]["sentiment"].value_counts().to_dict() == {
        "positive": test[0],
        "negative": test[1],
    }
    assert rows["id"].is_unique
    assert rows["rating"].between(-4, 4).all()
    assert not set(split["train"]["review_id"]) & set(split["test"]["review_id"])
    tested = split["test"]["text"].map(normalise)
    assert tested.is_unique
    assert not split["train"]["text"].map(normalise).isin(set(tested)).any()
    assert not rows["text"].str.contains(r"&(?:\w+|#\d+);|Ã|\r").any()


def test_every_set_of_snippets_has_a_name_with_and_without_the_unclear_ones() -> None:
    assert "vader-products" in data_names()
    assert "vader-movies-clear" in data_names()
    assert len(data_names()) == 8
