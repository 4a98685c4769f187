"""Which rows are trained on and which are tested on, and that none is both."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

import filters
from curate.recipe import DataSection
from curate.tables import SourceError

if TYPE_CHECKING:
    import pandas as pd


def split_rows(
    frame: pd.DataFrame, data: DataSection, seed: int, *, keep_twins_together: bool = False
) -> list[str]:
    """The split of each row: as the data's own column says, else at random by groups or twins.

    Args:
        frame: The rows.
        data: The recipe's section.
        seed: For the draw.
        keep_twins_together: Whether near-twins belong on one side, too; see :func:`with_twins`.

    Raises:
        SourceError: If the column holds another word than train, test and validation.
    """
    if frame["split"].notna().all():
        unknown = sorted(set(frame["split"]) - {"train", "test", "validation"})
        if unknown:
            raise SourceError(
                f"the column 'split' holds {unknown[0]!r}: train, test and validation are allowed"
            )
        return [str(value) for value in frame["split"]]
    units = frame["group"].where(frame["group"].notna(), frame["id"])
    # By hash, so that a row stays on its side when others are added; twins count as one unit.
    first = dict(
        zip(reversed([normalised(t) for t in frame["input"]]), reversed(list(units)), strict=True)
    )
    if frame["group"].isna().all():
        units = frame["input"].map(lambda text: first[normalised(text)])
    if keep_twins_together:
        units = with_twins(frame, units)
    return ["test" if _share(unit, seed) < data.test_fraction else "train" for unit in units]


def with_twins(frame: pd.DataFrame, units: pd.Series) -> pd.Series:
    """The units of a random split, joined where rows of two are near-twins.

    Near-twins are inputs whose words and pairs of words have a Jaccard similarity of at least 0.8
    (:func:`filters.group_twins`). A joined unit has the first of its units' names in alphabetical
    order, so that a row stays on its side as long as no new row joins its unit to another.

    Args:
        frame: The rows.
        units: A unit per row; rows of one unit go to one side.
    """
    import pandas as pd

    groups = filters.group_twins(frame["input"].tolist(), groups=units.tolist())
    names = pd.Series([str(unit) for unit in units]).groupby(groups).transform("min")
    return pd.Series(names.to_numpy(), index=frame.index)


def _share(unit: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{unit}".encode()).digest()[:8]) / 2**64


def normalised(text: str) -> str:
    """Text as it is compared for being the same: compatibility forms, case and spacing folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def refuse_overlap(frame: pd.DataFrame, data: DataSection) -> pd.DataFrame:
    """Refuse, or drop on request, train rows whose text or group is also in test.

    Raises:
        SourceError: If there are such rows, or no train or no test rows.
    """
    test = frame["split"] == "test"
    for split in ("train", "test"):
        if not (frame["split"] == split).any():
            raise SourceError(
                f"there are no {split} rows among {len(frame)}: name data.test, change "
                "data.test_fraction, or check the column 'split'"
            )
    texts = frame["input"].map(normalised)
    same_text = ~test & texts.isin(set(texts[test]))
    same_group = (
        ~test & frame["group"].notna() & frame["group"].isin(set(frame.loc[test, "group"].dropna()))
    )
    overlap = same_text | same_group
    if not overlap.any():
        return frame
    if data.overlap == "drop":
        return frame[~overlap]
    first = frame[overlap].iloc[0]
    what = "text" if same_text[overlap].iloc[0] else f"group {first['group']!r}"
    raise SourceError(
        f"{int(overlap.sum())} train rows are also in test, first {first['id']!r} (same {what}: "
        f"{first['input'][:60]!r}): a student tested on what it was trained on proves nothing. Remove them, "
        "or set data.overlap to drop"
    )


def limit_rows(frame: pd.DataFrame, data: DataSection) -> pd.DataFrame:
    """At most so many rows of each split, drawn by hash: a larger limit keeps the smaller's rows.

    The draw does not depend on the recipe's seed: runs that differ in it share their teacher's answers.
    """
    keep = frame["id"] == frame["id"]
    for split, limit in (("train", data.limit), ("test", data.test_limit)):
        members = frame.index[frame["split"] == split]
        if limit is not None and len(members) > limit:
            order = sorted(members, key=lambda i: _share(str(frame["id"][i]), 1))
            keep[order[limit:]] = False
    return frame[keep].reset_index(drop=True)
