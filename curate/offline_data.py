"""The built-in data: snippets of text, each rated by about twenty people from -4 to 4.

They are the material behind VADER (Hutto and Gilbert, 2014, "VADER: A Parsimonious Rule-based Model for
Sentiment Analysis of Social Media Text"), carried under the MIT license by that project's source archive.
The archive is only read: nothing in it is run.
"""

from __future__ import annotations

import hashlib
import html
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.package_index import AssetError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SNIPPETS", "Snippets", "data_names", "read_snippets", "split_of", "unpack_snippets"]

TEST_SHARE = 0.25
CLEAR_RATING = 1.0  # beyond this in either direction a snippet counts as positive or negative
ONLY_CLEAR = "-clear"
COLUMNS = ("id", "text", "rating", "sentiment", "review_id", "split")


@dataclass(frozen=True, kw_only=True)
class Snippets:
    """One file of rated snippets; `grouped`: ids read ``<review>_<sentence>``."""

    file: str
    grouped: bool


SNIPPETS = {
    "vader-products": Snippets(file="amazonReviewSnippets_GroundTruth.txt", grouped=True),
    "vader-movies": Snippets(file="movieReviewSnippets_GroundTruth.txt", grouped=False),
    "vader-editorials": Snippets(file="nytEditorialSnippets_GroundTruth.txt", grouped=True),
    "vader-tweets": Snippets(file="tweets_GroundTruth.txt", grouped=False),
}


def data_names() -> tuple[str, ...]:
    """Return the names of the built-in data sets."""
    return tuple(name + ending for name in SNIPPETS for ending in ("", ONLY_CLEAR))


def unpack_snippets(
    archives: Sequence[Path],
    folder: Path,
    report: Callable[[str, str, int, int], None],
    *,
    member: str,
    inner_folder: str,
) -> None:
    """Copy the files of `SNIPPETS` out of the archive `member` inside the source archive."""
    (source_archive,) = archives
    with (
        tarfile.open(source_archive) as outer,
        _member(outer, member) as packed,
        tarfile.open(fileobj=packed) as inner,
    ):
        names = [snippets.file for snippets in SNIPPETS.values()]
        total = sum(inner.getmember(f"{inner_folder}/{name}").size for name in names)
        done = 0
        for name in names:
            with _member(inner, f"{inner_folder}/{name}") as source:
                done += (folder / name).write_bytes(source.read())
            report("unpack", name, done, total)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    source = archive.extractfile(name)  # reads; a link or a folder gives None
    if source is None:
        raise AssetError(f"{name} in the archive of rated snippets is not a plain file.")
    return source


def split_of(review_id: str) -> str:
    """Return ``"test"`` for about a quarter of all review ids, else ``"train"``; a stable hash."""
    drawn = int.from_bytes(hashlib.sha256(review_id.encode()).digest()[:8], "big") / 2**64
    return "test" if drawn < TEST_SHARE else "train"


def normalise(text: str) -> str:
    """Return the form in which texts are compared: casefolded, no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w\s]|_", "", text.casefold()).split())


def read_snippets(name: str, folder: Path) -> pd.DataFrame:
    """Read one built-in data set from the folder that `unpack_snippets` filled.

    Columns: ``id``, ``text`` (HTML entities unescaped), ``rating`` (-4 to 4, a mean), ``sentiment``
    ("positive" above 1, "negative" below -1, missing between), ``review_id`` (the id itself where the
    data has none) and ``split``. A review is in one split as a whole, about a quarter of them in test.
    Test holds clear ratings only: a snippet rated between -1 and 1 stays in train without a sentiment,
    and is left out of test reviews. Texts of punctuation only are dropped; so are train texts that
    equal a test text after `normalise`, and repeats within test, the first staying. Names that end in
    ``-clear`` leave the unclear train rows out, too.

    Raises:
        AssetError: an unknown name, or a file with a line that is not id, rating and text.
    """
    import pandas as pd

    base = name.removesuffix(ONLY_CLEAR)
    if base not in SNIPPETS:
        raise AssetError(
            f"There is no built-in data {name!r}; there are: {', '.join(data_names())}."
        )
    rows = _read_rows(folder / SNIPPETS[base].file, grouped=SNIPPETS[base].grouped)
    if name.endswith(ONLY_CLEAR):
        rows = [row for row in rows if row["sentiment"] is not None]
    test = [row for row in rows if row["split"] == "test" and row["sentiment"] is not None]
    first: dict[str, str] = {}
    for row in test:
        first.setdefault(normalise(row["text"]), row["id"])
    kept = set(first.values())
    kept |= {
        row["id"] for row in rows if row["split"] == "train" and normalise(row["text"]) not in first
    }
    return pd.DataFrame([row for row in rows if row["id"] in kept], columns=list(COLUMNS))


def _read_rows(path: Path, *, grouped: bool) -> list[dict[str, Any]]:
    """Read id, rating and text, separated by tabs, and add what follows from them."""
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                identifier, rating, text = line.rstrip("\n").split("\t", 2)
                value = float(rating)
            except ValueError:
                raise AssetError(
                    f"{path}, line {number}: not an id, a rating and a text separated by tabs."
                ) from None
            text = html.unescape(html.unescape(text)).strip()  # some were escaped twice
            review = identifier.split("_")[0] if grouped else identifier
            if normalise(text):
                rows.append(
                    {
                        "id": identifier,
                        "text": text,
                        "rating": value,
                        "sentiment": _sentiment(value),
                        "review_id": review,
                        "split": split_of(review),
                    }
                )
    return rows


def _sentiment(rating: float) -> str | None:
    if abs(rating) <= CLEAR_RATING:
        return None
    return "positive" if rating > 0 else "negative"
