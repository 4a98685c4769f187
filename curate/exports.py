"""The curated training set of a run, written in the form that others read, with a dataset card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from curate.dataset_card import dataset_card
from curate.exceptions import CurateError
from curate.export_formats import Answer, Written, write_chat, write_jsonl, write_parquet
from curate.export_rows import CuratedSet, read_set
from curate.hub import check_name, push
from curate.paper_layout import Dataset, write_paper

if TYPE_CHECKING:
    from curate.pipeline import Run

Format = Literal["parquet", "jsonl", "chat", "paper"]
Columns = Literal["slim", "all"]

#: What an export says of itself; readers of data files pass over hidden files.
_MARK = ".curate-export.json"
_CARD = "README.md"


@dataclass(frozen=True)
class SetExport:
    """A training set that was written.

    Attributes:
        folder: Where it lies.
        card: Its dataset card.
        rows: Rows by split, repeats counted where rows are repeated.
        warnings: What does not go over into the form, in sentences; the card has them too.
        url: Where it was uploaded, or None.
    """

    folder: Path
    card: Path
    rows: Mapping[str, int]
    warnings: Sequence[str]
    url: str | None = None


def export_set(
    run: Run | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: Format = "parquet",
    columns: Columns = "slim",
    answer: Answer = "label",
    dataset: Dataset | None = None,
    recipe: str | os.PathLike[str] | None = None,
    push_to_hub: str | None = None,
    private: bool = True,
    force: bool = False,
) -> SetExport:
    """Write the curated training set of a run, its validation and test rows, and a dataset card.

    The folder is written under a temporary name and renamed. An export that is there already is
    replaced, unless something in it was changed since, such as a licence filled in.

    Args:
        run: A run, or its folder; the filters must have run.
        output: The folder to write; by default ``export/<format>`` in the run folder.
        format: ``parquet``; ``jsonl``; ``chat``, one conversation to a line; or ``paper``, the files that
            the code of Distilling step-by-step reads.
        columns: Of ``parquet`` and ``jsonl``: ``slim``, what training needs, or ``all``.
        answer: Of ``chat``: whether the assistant gives the ``label``, or the ``rationale`` before it.
        dataset: Of ``paper``: which of its loaders is to read the files; None for one of your own.
        recipe: The recipe of a run that was filtered but not evaluated.
        push_to_hub: ``owner/name`` of a dataset on the Hugging Face Hub to upload to as well.
        private: Whether that is seen by its owner alone.
        force: Replace an export that was changed since, and what the Hub holds by that name.

    Raises:
        CurateError: For a folder or an option that cannot be worked with; what to do is said.
    """
    _check(format, columns, answer, dataset, push_to_hub)
    folder = Path(run if isinstance(run, str | os.PathLike) else run.folder)
    target = Path(output) if output is not None else folder / "export" / format
    curated = read_set(folder, None if recipe is None else Path(recipe))
    with _storage(target):
        check_target(target, force=force)
        place = target.resolve()  # what a link leads to is replaced, not the link
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            written = _write(part, curated, format, columns, answer, dataset)
            (part / _CARD).write_text(dataset_card(curated, written, format), encoding="utf-8")
            _mark(part, str(curated.facts["name"]), format)
            _put_in_place(part, place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    card = target / _CARD
    url = None
    if push_to_hub is not None:
        url = push(written.tables, card, push_to_hub, private=private, force=force)
    return SetExport(target, card, dict(written.rows), tuple(written.warnings), url)


def _check(
    form: str, columns: str, answer: str, dataset: str | None, push_to_hub: str | None
) -> None:
    """Refuse what is unknown, and what the form would not heed."""
    for name, value, allowed in (
        ("format", form, get_args(Format)), ("columns", columns, get_args(Columns)),
        ("answer", answer, get_args(Answer)), ("dataset", dataset, (None, *get_args(Dataset))),
    ):  # fmt: skip
        if value not in allowed:
            words = ", ".join(str(each) for each in allowed if each is not None)
            raise CurateError(f"{name} is {value!r}: known are {words}")
    if columns != "slim" and form not in ("parquet", "jsonl"):
        raise CurateError(
            f"--columns {columns} goes with the formats parquet and jsonl, not with {form}"
        )
    if answer != "label" and form != "chat":
        raise CurateError(f"--answer {answer} goes with the format chat, not with {form}")
    if dataset is not None and form != "paper":
        raise CurateError(f"--dataset {dataset} goes with the format paper, not with {form}")
    if push_to_hub is not None:
        check_name(push_to_hub)
        if form == "paper":
            raise CurateError(
                "--push-to-hub uploads tables, and the format paper is none: use --format parquet, jsonl or "
                "chat"
            )


def _write(
    part: Path, curated: CuratedSet, form: str, columns: str, answer: Answer, dataset: str | None
) -> Written:
    if form == "paper":
        return write_paper(part, curated, dataset)
    if form == "chat":
        return write_chat(part, curated, answer)
    return (write_jsonl if form == "jsonl" else write_parquet)(part, curated, columns)


def check_target(target: Path, *, force: bool) -> None:
    """See that a folder may be written: it is not there, empty, or a former export as it was.

    Raises:
        CurateError: If it holds what no export wrote or, without ``force``, what was changed since.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise CurateError(f"{target} is a file: name a folder with --output")
    there = {
        path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()
    } - {_MARK}
    mark = target / _MARK
    if not mark.exists():
        if there:
            raise CurateError(
                f"{target} holds {min(there, key=_shown_first)} and was written by no export: name another "
                "folder with --output"
            )
        return
    try:
        files: dict[str, str] = json.loads(mark.read_text(encoding="utf-8"))["files"]
    except (ValueError, LookupError, TypeError):
        files = {}
    foreign = sorted(there - set(files))
    if foreign:
        raise CurateError(
            f"{target} holds {foreign[0]}, which no export wrote: name another folder with --output, or "
            "move it away"
        )
    changed = [name for name in sorted(there) if _hash(target / name) != files[name]]
    if changed and not force:
        raise CurateError(
            f"{target / changed[0]} was changed since it was exported: name another folder with --output, "
            "or replace it with --force"
        )


def _shown_first(name: str) -> tuple[bool, str]:
    return name.startswith("."), name  # hidden files come last


def _mark(part: Path, name: str, form: str) -> None:
    files = {
        path.relative_to(part).as_posix(): _hash(path)
        for path in sorted(part.rglob("*"))
        if path.is_file()
    }
    content = {"run": name, "format": form, "files": files}
    (part / _MARK).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(part: Path, target: Path) -> None:
    """Rename the finished folder; a former one is moved aside first and then removed."""
    former = target.with_name(f".{target.name}.{os.getpid()}.former")
    if target.exists():
        os.replace(target, former)
    try:
        os.replace(part, target)
    except OSError:
        if former.exists():
            os.replace(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def _storage(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CurateError(
            f"{target} cannot be written ({error.strerror or error}): make room, or name another folder with "
            "--output"
        ) from error
