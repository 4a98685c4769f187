"""What an ablation may be asked for; whatever cannot be is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curate.exceptions import CurateError

if TYPE_CHECKING:
    from curate.recipe import StudentSection

#: Parts of the training rows that are tried where none are named.
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)


def check_options(
    fractions: Sequence[float], seeds: Sequence[int] | None, same: str, validation: float, jobs: int
) -> None:
    """Refuse what cannot be, before anything is read."""
    if (
        not fractions
        or not all(0 < f <= 1 for f in fractions)
        or len(set(fractions)) < len(fractions)
    ):
        raise CurateError(
            f"fractions are {', '.join(f'{f:g}' for f in fractions) or 'none'}: give different parts of the "
            "training rows, above 0 and at most 1, such as 0.25, 0.5 and 1"
        )
    if seeds is not None and (
        not seeds or len(set(seeds)) < len(seeds) or not all(0 <= s < 2**32 for s in seeds)
    ):
        raise CurateError(
            f"seeds are {', '.join(map(str, seeds)) or 'none'}: give different whole numbers, 0 or more"
        )
    if same not in ("epochs", "steps"):
        raise CurateError(f"same is {same!r}: epochs and steps are known")
    if not 0 < validation < 1:
        raise CurateError(f"validation is {validation:g}: give a part of the rows, such as 0.2")
    if jobs < 1:
        raise CurateError(f"jobs is {jobs}: give 1 or more")


def check_early_stopping(section: StudentSection) -> None:
    """Refuse early stopping without rows of the student's own to stop by."""
    if section.early_stopping is not None and section.validation_fraction == 0:
        raise CurateError(
            f"student.early_stopping is {section.early_stopping}, and students may not see the validation "
            "rows, which judge them: --set student.validation_fraction=0.1 carves some out of their own rows"
        )


def refuse_beside_vary(
    fractions: Sequence[float], objectives: Sequence[str], students: Sequence[str], same: str
) -> None:
    """Refuse options of the curves where single changes are tried."""
    if objectives or students or same != "epochs" or tuple(fractions) != FRACTIONS:
        raise CurateError(
            "--fractions, --objective, --student and --same do not go with --vary, which trains on all "
            "rows: use --set student.objective=..., or --vary student.objective=..."
        )


def refuse_without_vary(**options: object) -> None:
    """Refuse options of single changes where none is named."""
    given = [name for name, value in options.items() if value]
    if given:
        raise CurateError(
            f"{given[0]} belongs to experiments: name what to change with --vary, such as "
            "--vary student.alpha=0.3,0.5"
        )
