"""The scores that need a model, which the recipe asks for and the filters read as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.judging import judge_rows
from curate.kept_tables import kept_table
from curate.out_of_fold import Train, student_probabilities
from curate.perplexities import perplexities
from curate.recipe_scores import COLUMNS, PerplexitySection
from curate.references import files_mark
from curate.run_folder import fingerprint

if TYPE_CHECKING:
    import pandas as pd

    from curate.recipe import Recipe

OnProgress = Callable[[str, Mapping[str, Any]], None]


def add_scores(
    rows: pd.DataFrame,
    recipe: Recipe,
    *,
    base: Path,
    store: Path,
    train: Train,
    on_progress: OnProgress,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give training rows the columns of the section ``scores``. Gold is not looked at.

    Args:
        rows: Training rows with labels.
        recipe: The recipe.
        base: The recipe's folder.
        store: Folder of the exchanges and of what is cached.
        train: Trains a student, as :func:`curate.stages.train_student` does.
        on_progress: Receives the events of the models.

    Returns:
        The rows, and what the run report says of each column.

    Raises:
        CurateError: If a model cannot be had or nothing was scored.
        labelers.TeacherError: If the judge cannot be asked.
    """
    import pandas as pd

    section = recipe.scores
    if section is None:
        return rows, {}
    rows, blind = rows.copy(), rows.drop(columns=["gold"])
    where: dict[str, Any] = {"base": base, "store": store, "on_progress": on_progress}
    info: dict[str, Any] = {}
    found: list[Any]
    if section.out_of_fold is not None:
        name = COLUMNS["out_of_fold"]
        found, info[name] = student_probabilities(
            blind, recipe, section.out_of_fold, train=train, **where
        )
        rows[name] = pd.Series(found, index=rows.index, dtype=object)
    if section.judge is not None:
        name = COLUMNS["judge"]
        found, info[name] = judge_rows(blind, recipe, section.judge, **where)
        rows[name] = pd.Series(found, index=rows.index, dtype="float64")
    if section.perplexity is not None:
        name = COLUMNS["perplexity"]
        found, info[name] = _perplexity(blind, section.perplexity, **where)
        rows[name] = pd.Series(found, index=rows.index, dtype="float64")
    return rows, info


def _perplexity(
    rows: pd.DataFrame,
    section: PerplexitySection,
    *,
    base: Path,
    store: Path,
    on_progress: OnProgress,
) -> tuple[list[float | None], dict[str, Any]]:
    """Perplexities of the rows' texts, kept in the store under what they depend on."""
    import pandas as pd

    texts = [
        "\n\n".join(text for text in parts if isinstance(text, str) and text)
        for parts in zip(*(rows[name] for name in section.fields), strict=True)
    ]
    local = base / Path(section.model).expanduser()
    mark = fingerprint(
        1, section.model_dump(mode="json"), files_mark(section.model, "student", base), texts
    )

    def make() -> pd.DataFrame:
        found = perplexities(
            texts,
            str(local) if local.exists() else section.model,
            max_tokens=section.max_tokens,
            on_progress=lambda event: on_progress("perplexity", event),
        )
        return pd.DataFrame({"perplexity": pd.Series(found, dtype="float64")})

    values = kept_table(store / "scores", f"perplexity-{mark}.parquet", make)["perplexity"]
    scores = [None if value != value else float(value) for value in values]
    given = sorted(value for value in scores if value is not None)
    return scores, {
        "model": section.model,
        "rows": len(given),
        "median": round(given[len(given) // 2], 3) if given else None,
    }


def unsettled(info: Mapping[str, Any]) -> bool:
    """Whether the judge left rows out that a busy server, or a spent budget, may answer another time."""
    judged = info.get("scores", {}).get(COLUMNS["judge"], {})
    return bool({"server", "budget"} & judged.get("errors", {}).keys() or judged.get("unfinished"))
