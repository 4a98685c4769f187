"""The models that a recipe names: where they lie, and whether they are what they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curate.recipe_teachers import LlamaCppSection

if TYPE_CHECKING:
    from curate.recipe import Recipe

Kind = Literal["teacher", "student", "embedder"]


def resolve_model(
    reference: str,
    kind: Kind,
    base: Path,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> str:
    """A model's local path or Hub id; a relative path starts at the recipe's folder.

    Raises:
        curate.assets.AssetError: If it is neither, or cannot be fetched.
    """
    from curate import assets

    local = _local(reference, kind, base)
    return str(local) if local else assets.resolve(reference, kind, on_progress=on_progress)


def _local(reference: str, kind: Kind, base: Path) -> Path | None:
    from curate import assets
    from curate.offline_assets import ALIASES

    # A built-in name goes before a path of the same name, as everywhere; ./name is the path.
    if reference in (*assets.built_in_names(kind), *ALIASES):
        return None
    path = base / Path(reference).expanduser()
    return path if path.exists() else None


def check_models(recipe: Recipe, base: Path) -> None:
    """See that each model is there or can be fetched by its name, before anything is paid for.

    Nothing is fetched here.

    Raises:
        curate.assets.AssetError: If a name is no built-in one, no path and no Hub id.
    """
    from curate import assets

    named: list[tuple[str | None, Kind]] = [
        (recipe.student.model, "student"),
        (white_box_teacher(recipe), "student"),
        (recipe.embedder, "embedder"),
        *((encoder, "embedder") for encoder in encoders_of(recipe)),
    ]
    writer = recipe.generate.teacher if recipe.generate else None
    judge = recipe.scores.judge.teacher if recipe.scores and recipe.scores.judge else None
    for teacher in (*recipe.teacher.asked(), *(each for each in (writer, judge) if each)):
        if isinstance(teacher, LlamaCppSection):
            named.append((teacher.model, "teacher"))
    for reference, kind in named:
        built_in = reference in assets.built_in_names(kind)
        if reference is not None and not built_in and not reference.startswith("hf:"):
            resolve_model(reference, kind, base)


def check_students(
    recipes: Iterable[Recipe],
    base: Path,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """See that what is to be trained can be loaded, before the teacher is asked: this loads torch.

    Of a model that lies here or on the Hub, config and tokenizer are read; a built-in one is fetched now
    instead of later. A white-box teacher must have the student's tokens.

    Raises:
        curate.assets.AssetError: If a built-in model cannot be fetched.
        student.CheckpointError, student.InputError: If one cannot be loaded, or the two do not go together.
    """
    from student.checkpoints import read_checkpoint
    from student.white_box import check_same_tokenizer

    seen = set()
    for recipe in recipes:
        model, teacher = recipe.student.model, white_box_teacher(recipe)
        if (what := (model, teacher, recipe.student.label_prefix)) in seen:
            continue
        seen.add(what)
        config, tokenizer = read_checkpoint(resolve_model(model, "student", base, on_progress))
        if teacher is not None:
            folder = _here(resolve_model(teacher, "student", base, on_progress))
            _check_prefix(recipe, folder)
            texts = [recipe.task.instruction, *(recipe.task.labels or ())]
            check_same_tokenizer(*read_checkpoint(folder), config, tokenizer, texts)


def _here(model: str) -> str:
    """The snapshot that a folder of the Hub's cache stands for; anything else as it is."""
    from student.loading import find_folder

    return str(find_folder(model)) if Path(model).is_dir() else model


def _check_prefix(recipe: Recipe, teacher: str) -> None:
    """See that student and teacher read the same input; of a Hub id it is seen when it is fetched."""
    from student.white_box import WhiteBox
    from student.white_box_training import teachers_prefix

    if Path(teacher).is_dir():
        teachers_prefix(WhiteBox(teacher=teacher), recipe.student.label_prefix)


def white_box_teacher(recipe: Recipe) -> str | None:
    """The larger T5 that the student learns from, where its objective has one."""
    section = recipe.student
    if section.objective != "white_box" or section.white_box is None:
        return None
    return section.white_box.teacher


def encoders_of(recipe: Recipe) -> list[str]:
    """The models that filters name as their encoder, as the recipe has them."""
    named = [arguments.get("encoder") for _, arguments in recipe.filters]
    return [each for each in dict.fromkeys(named) if isinstance(each, str)]


def files_mark(reference: str | None, kind: Kind, base: Path) -> list[tuple[str, int, int]] | None:
    """Names, sizes and times of a local model's files: other weights under an old name are new.

    None for a built-in name or a Hub id.
    """
    path = None if reference is None else _local(reference, kind, base)
    if path is None:
        return None
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
