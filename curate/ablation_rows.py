"""Which rows an ablation trains on and which it is judged by: validation carved once, nested subsets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.exceptions import CurateError
from curate.generation import GENERATED
from curate.gold import first_gold
from curate.splits import normalised, with_twins

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

#: With fewer validation rows nothing can be told from anything.
LEAST_VALIDATION = 20


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The rows that every cell of an ablation shares.

    Attributes:
        training: Kept train rows with a label to learn, none of them alike or of one group with a
            validation row.
        validation: Rows that cells are judged by, with a column ``reference``.
        held: Ids that are trained on in no cell: the validation rows, and what belongs to them.
        reference: ``gold`` where people judged the validation rows, else ``label``: then a score is
            agreement with the teacher.
        labelled: How many train rows the teacher was asked about per training row, at least 1.
    """

    training: pd.DataFrame
    validation: pd.DataFrame
    held: frozenset[str]
    reference: str
    labelled: float


def lay_ground(curated: pd.DataFrame, recipe: Recipe, *, share: float) -> Ground:
    """Part the rows that cells are judged by from those that they may learn.

    Where the data has validation rows they are used; else whole units are drawn from the train rows by
    hash until they hold about ``share`` of the rows. A unit is a group or a row, joined with its
    near-twins, so that no validation row has a near-copy in training. Rows that the filters dropped can be
    drawn, too: a student meets such rows. Rows that the teacher wrote cannot.

    Args:
        curated: The run's ``curated.parquet``.
        recipe: The recipe; its seed draws.
        share: Part of the train rows, above 0 and below 1.

    Raises:
        CurateError: If fewer than 20 rows are left to judge by, or none to train on.
    """
    train = curated[curated["split"] == "train"].reset_index(drop=True)
    given = curated[curated["split"] == "validation"]
    pool = given if len(given) else train[train["source"] != GENERATED]
    reference = "gold" if int(pool["gold"].notna().sum()) >= LEAST_VALIDATION else "label"
    if len(given):
        alike = train["input"].map(normalised).isin(set(given["input"].map(normalised)))
        alike |= train["group"].isin(set(given["group"].dropna()))
        validation, held = given, {*given["id"], *train.loc[alike, "id"]}
    else:
        units = with_twins(train, train["group"].where(train["group"].notna(), train["id"]))
        drawn = _draw(
            units, train[reference].notna() & (train["source"] != GENERATED), share, recipe
        )
        inside = units.isin(drawn)
        held = set(train.loc[inside, "id"])
        validation = train[inside & (train["source"] != GENERATED)]
    validation = validation[validation[reference].notna()].reset_index(drop=True)
    validation = validation.assign(reference=validation[reference])
    training = trainable(train, recipe, held)
    if len(validation) < LEAST_VALIDATION:
        raise CurateError(
            f"{len(validation)} of {len(train)} train rows can be set aside to judge by, and at least "
            f"{LEAST_VALIDATION} with a reference are needed: label more rows, or raise --validation "
            f"(now {share:g})"
        )
    if not len(training):
        raise CurateError(
            f"no training row is left beside {len(validation)} validation rows: lower --validation (now "
            f"{share:g}), or loosen the filters"
        )
    asked = int((train["source"] != GENERATED).sum()) - len(held & set(train["id"]))
    return Ground(
        training=training,
        validation=validation,
        held=frozenset(held),
        reference=reference,
        labelled=max(1.0, asked / len(training)),
    )


def trainable(
    curated: pd.DataFrame, recipe: Recipe, held: frozenset[str] | set[str]
) -> pd.DataFrame:
    """Kept train rows with a target, outside what is held."""
    target = curated["gold" if recipe.student.target == "gold" else "label"]
    fit = curated["keep"].astype(bool) & (curated["split"] == "train") & target.notna()
    return curated[fit & ~curated["id"].isin(list(held))].reset_index(drop=True)


def _draw(units: pd.Series, judged: pd.Series, share: float, recipe: Recipe) -> set[str]:
    """Units in the order of their hashes, of those with a row to judge by, until there are enough."""
    sizes = units[units.isin(units[judged])].value_counts()
    wanted, count, drawn = share * len(units), 0, set()
    for unit in sorted(sizes.index, key=lambda unit: _place(str(unit), recipe.seed, "validation")):
        if count + sizes[unit] / 2 <= wanted:  # never more than half a unit too many
            drawn.add(unit)
            count += int(sizes[unit])
    return drawn


def _place(unit: str, seed: int, what: str) -> float:
    """A number in 0..1 that depends on nothing but the unit, the seed and what is drawn."""
    return int.from_bytes(hashlib.sha256(f"{what}\0{seed}\0{unit}".encode()).digest()[:8]) / 2**64


def strata(rows: pd.DataFrame, recipe: Recipe) -> tuple[list[str], str]:
    """What subsets are balanced by, a value per row, and its name.

    The label where the task has one label set; else, for free text and choices of each row's own, the
    embedding cluster; else nothing, "".
    """
    if recipe.task.labels is not None:
        name = "gold" if recipe.student.target == "gold" else "label"
    elif "cluster" in rows.columns and rows["cluster"].notna().all():
        name = "cluster"
    else:
        return [""] * len(rows), ""
    if name == "cluster":
        return [str(value) for value in rows[name]], name
    return [str(first_gold(value)) for value in rows[name]], name


def nested_subsets(
    rows: pd.DataFrame, fractions: Sequence[float], by: Sequence[str], *, seed: int
) -> dict[float, pd.DataFrame]:
    """A subset for each fraction; each holds all smaller ones, whole groups, and the strata's shares.

    Within each stratum the units (a group, or a row of none) are put in the order of their hashes, and
    each unit is placed at the part of its stratum that lies before its middle; the subset is what is
    placed first. So any beginning of the order holds each stratum in proportion, to one unit. A group is of
    the stratum that most of its rows are of.

    Args:
        rows: Training rows with ``id`` and ``group``.
        fractions: Parts of them, above 0 and at most 1.
        by: The stratum of each row.
        seed: Draws the order.

    Raises:
        CurateError: If two fractions give the same rows.
    """
    import pandas as pd

    units = rows["group"].where(rows["group"].notna(), rows["id"]).astype(str)
    frame = pd.DataFrame({"unit": units.to_numpy(), "stratum": list(by)})
    counts = frame.groupby(["unit", "stratum"]).size().reset_index(name="rows")
    counts = counts.sort_values(["rows", "stratum"], ascending=[False, True], kind="stable")
    found = counts.drop_duplicates("unit").set_index("unit")[["stratum"]]
    found["rows"] = frame.groupby("unit").size()
    found["hash"] = [_place(str(unit), seed, "subset") for unit in found.index]
    found = found.sort_values("hash")
    total = found.groupby("stratum")["rows"].transform("sum")
    before = found.groupby("stratum")["rows"].cumsum() - found["rows"] / 2
    # The hash breaks ties of strata of one size, so that no stratum is always the first.
    found = found.assign(place=before / total).sort_values(["place", "hash"])
    ends = found["rows"].cumsum().to_numpy()
    subsets: dict[float, pd.DataFrame] = {}
    taken: dict[int, float] = {}
    for fraction in sorted(fractions):
        wanted = fraction * len(rows)
        number = int(abs(ends - wanted).argmin()) + 1
        if number in taken:
            raise CurateError(
                f"the fractions {taken[number]:g} and {fraction:g} of {len(rows)} training rows in "
                f"{len(found)} units give the same {ends[number - 1]} rows: leave one out"
            )
        taken[number] = fraction
        chosen = set(found.index[:number])
        subsets[fraction] = rows[units.isin(chosen)].reset_index(drop=True)
    return subsets
