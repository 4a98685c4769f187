"""The four data sets of *Distilling step-by-step* (Hsieh et al., 2023), read from the Hub by a short name.

Each is laid out anew: options as a list, answers as texts, in the columns that the ready recipes under
``recipes/`` read. A file with these columns takes a set's place, so recorded outputs of a teacher can be
given by path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAPER_DATA", "PaperData", "read_paper_data"]

_NLI = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, kw_only=True)
class PaperData:
    """A Hub data set: its splits by our names, and how a table of it is laid out anew."""

    repository: str
    splits: Mapping[str, str]
    layout: Callable[[pd.DataFrame], pd.DataFrame]
    revision: str | None = None


def _quiz(table: pd.DataFrame) -> pd.DataFrame:
    """``choices`` holds the letters and the texts beside each other, ``answerKey`` a letter."""
    import pandas as pd

    options = [
        dict(zip(cell["label"], cell["text"], strict=True)) for cell in table["choices"].tolist()
    ]
    return pd.DataFrame(
        {
            "id": table["id"],
            "question": table["question"],
            "choices": [[*each.values()] for each in options],
            "answer": [
                each.get(key) for each, key in zip(options, table["answerKey"], strict=True)
            ],
        }
    )


def _sums(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "id": table["ID"],
            "input": table["Body"].str.strip() + "\n" + table["Question"].str.strip(),
            "equation": table["Equation"],
        }
    )


def _pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of sentences; labels are numbers or, once the library has read them, names."""
    import pandas as pd

    laid_out = {
        "premise": table["premise"],
        "hypothesis": table["hypothesis"],
        "relation": [_NLI[int(v)] if str(v) in "012" else v for v in table["label"].tolist()],
    }
    if "uid" in table.columns:
        laid_out = {"id": table["uid"], **laid_out}
    return pd.DataFrame(laid_out)


def _anli(number: int) -> PaperData:
    splits = {"train": "train", "validation": "dev", "test": "test"}
    return PaperData(
        repository="facebook/anli",
        splits={ours: f"{theirs}_r{number}" for ours, theirs in splits.items()},
        layout=_pairs,
    )


PAPER_DATA = {
    # Its own test rows have no answers: the paper tests on the validation rows, and so do we.
    "cqa": PaperData(
        repository="tau/commonsense_qa",
        splits={"train": "train", "test": "validation"},
        layout=_quiz,
    ),
    "svamp": PaperData(
        repository="ChilleD/SVAMP", splits={"train": "train", "test": "test"}, layout=_sums
    ),
    "anli-r1": _anli(1),
    "anli-r2": _anli(2),
    "anli-r3": _anli(3),
    # The data set itself is a script, which the library no longer runs; this branch holds its tables.
    "esnli": PaperData(
        repository="esnli/esnli",
        splits={"train": "train", "validation": "validation", "test": "test"},
        layout=_pairs,
        revision="refs/convert/parquet",
    ),
}


def read_paper_data(name: str, split: str, load: Callable[..., Any]) -> pd.DataFrame:
    """Read one split of a set in `PAPER_DATA`.

    Args:
        name: The set's short name.
        split: One of the set's ``splits``.
        load: Reads a Hub data set: takes repository, split and revision, and returns a table.

    Raises:
        KeyError: For a split that the set does not have.
    """
    data = PAPER_DATA[name]
    return data.layout(load(data.repository, split=data.splits[split], revision=data.revision))
