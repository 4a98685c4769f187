"""What filters need of the data and of files, seen to before the teacher is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
from curate.exceptions import CurateError
from curate.generation import load_pool
from curate.recipe_filters import filters_of, ready
from curate.tables import SourceError

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

#: Columns that labeling adds, and that filters may name.
_LATER = (
    "label", "rationale", "label_probs", "label_source", "off_label_mass", "confidence",
    "finish_reason", "teacher", "prompt_key", "prompt_tokens", "completion_tokens", "cost_usd", "votes",
    "agreement", "rationales",
)  # fmt: skip


def check_filters(recipe: Recipe, examples: pd.DataFrame, base: Path) -> None:
    """See that the columns, sets and files which filters name are there, before anything is paid.

    Args:
        recipe: The recipe.
        examples: The rows as they were read.
        base: The recipe's folder.

    Raises:
        CurateError: Naming the filter and what it lacks.
        SourceError: If a set that rows are to be held against cannot be read.
    """
    computed = recipe.scores.columns() if recipe.scores is not None else []
    for name in computed:
        if name in examples.columns:
            raise CurateError(
                f"scores would write the column {name!r}, which the data has already: add it to data.ignore, "
                "rename it, or leave that part of scores out"
            )
    there = {*examples.columns, *_LATER, *computed} - {"gold"}
    if recipe.embedder is not None:
        there.add("cluster")
    _check_language_model(recipe, base, there - set(computed))
    others = load_references(recipe, base)
    sets = [*_splits(examples), *others]
    before: list[Any] = []
    for i, chosen in enumerate(
        ready(filters_of(recipe), base=base, cache=base, on_progress=_quiet)
    ):
        where = f"filters.{i} ({chosen.reason})"
        fitted = _fitted(chosen, where)
        for name in (*_columns(chosen), *_unjudged(fitted, before)):
            if name not in there:
                raise CurateError(f"{where} names the column {name!r}, which {_why(name, there)}")
        for name in getattr(chosen, "against", ()):
            if name not in sets:
                raise CurateError(
                    f"{where} is to hold rows against {name!r}, and there is no such set: there are "
                    f"{', '.join(sets) or 'none'}; name others under data.references"
                )
        before.append(chosen)
        with_numbers(examples, [chosen])


def _check_language_model(recipe: Recipe, base: Path, there: set[str]) -> None:
    section = recipe.scores.perplexity if recipe.scores is not None else None
    if section is None:
        return
    named = section.model
    if re.match(r"[./~]|.*/.*/", named) and not (base / Path(named).expanduser()).exists():
        raise CurateError(
            f"scores.perplexity.model names {named!r}, and {base / Path(named).expanduser()} is not there: "
            "give the folder or the Hub id of a causal language model"
        )
    for name in section.fields:
        if name not in there:
            raise CurateError(
                f"scores.perplexity.fields names the column {name!r}, which {_why(name, there)}"
            )


def with_numbers(rows: pd.DataFrame, chosen: Sequence[Any]) -> pd.DataFrame:
    """The rows with numbers where filters read a column of numbers: in a CSV file all is text.

    Args:
        rows: The rows.
        chosen: Filters.

    Raises:
        CurateError: If a row holds something else there.
    """
    import pandas as pd

    for each in chosen:
        name = _number_column(each)
        if name is None or name not in rows.columns:
            continue
        texts = rows[name].map(lambda v: v.strip() or None if isinstance(v, str) else v)
        found = pd.to_numeric(texts, errors="coerce")
        if (strange := found.isna() & texts.notna()).any():
            place = int(strange.to_numpy().argmax())
            raise CurateError(
                f"{each.reason} reads numbers from the column {name!r}, and the row "
                f"{rows['id'].iloc[place]!r} holds {texts.iloc[place]!r}: write a number, or leave it empty"
            )
        rows = rows.assign(**{name: found.astype("float64")})
    return rows


def _number_column(chosen: Any) -> str | None:
    """The column of numbers that a filter reads, if it reads one that the data brings."""
    if isinstance(chosen, filters.Judge):
        return chosen.column
    if isinstance(chosen, filters.Perplexity) and chosen.model is None:
        return chosen.column
    return None


def _quiet(stage: str, event: Any) -> None:
    """Tell nobody."""


def _columns(chosen: Any) -> Iterator[str]:
    """The columns that a filter names."""
    yield from getattr(chosen, "fields", ())
    if isinstance(chosen, filters.Rebalance):
        yield from chosen.by
    if isinstance(chosen, filters.LabelNoise) and chosen.probabilities is not None:
        yield chosen.probabilities
    if (name := _number_column(chosen)) is not None:
        yield name


def _why(name: str, there: set[str]) -> str:
    if name == "gold":
        return f"filters never see; there will be {', '.join(sorted(there))}"
    computed = {
        "student_probs": "scores: {out_of_fold: {}}",
        "judge": "scores: {judge: {}}",
        "perplexity": "scores: {perplexity: {model: …}}",
    }
    listed = f"there will be {', '.join(sorted(there))}"
    if name not in computed:
        return f"the data lacks; {listed}"
    return f"the data lacks: add `{computed[name]}` to the recipe to have it computed; {listed}"


def _fitted(chosen: Any, where: str) -> tuple[str, ...]:
    """The scores that a fitted file of an ensemble combines."""
    if not isinstance(chosen, filters.Ensemble) or chosen.fitted is None:
        return ()
    try:
        return filters.FittedScore.load(chosen.fitted).scores
    except filters.FilterError as error:
        raise CurateError(f"{where}: {error}") from error


def _unjudged(scores: tuple[str, ...], before: list[Any]) -> Iterator[str]:
    """Scores of a fitted file that no filter before gives, so that they have to be columns."""
    given = {f"score_{each.reason}" for each in before}
    yield from (name for name in scores if name not in given)


def _splits(frame: pd.DataFrame) -> list[str]:
    return [split for split in ("test", "validation") if (frame["split"] == split).any()]


def reference_sets(labeled: pd.DataFrame, recipe: Recipe, base: Path) -> dict[str, pd.DataFrame]:
    """The sets that training rows are held against, by name: ids and inputs, no gold.

    They are the other splits, and what `data.references` names.

    Args:
        labeled: All rows, of all splits.
        recipe: The recipe.
        base: The recipe's folder.

    Raises:
        SourceError: If a set cannot be read.
    """
    splits = {
        split: labeled.loc[labeled["split"] == split, ["id", "input"]].reset_index(drop=True)
        for split in _splits(labeled)
    }
    return splits | load_references(recipe, base)


def load_references(recipe: Recipe, base: Path) -> dict[str, pd.DataFrame]:
    """The sets of `data.references`, read with the recipe's template.

    Raises:
        SourceError: For the first thing that does not fit.
    """
    found = {}
    for name, source in recipe.data.references.items():
        rows = load_pool(source, recipe.data, recipe.task.task(), folder=base)[["id", "input"]]
        if (twice := rows["id"].duplicated()).any():
            raise SourceError(
                f"data.references.{name}: the id {rows.loc[twice, 'id'].iloc[0]!r} stands in {source} twice: "
                "give each row an id of its own, or leave the column out with data.ignore"
            )
        found[name] = rows
    return found
