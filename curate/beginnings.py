"""The commented recipe that a newcomer begins with."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import resources
from pathlib import Path

from curate.exceptions import CurateError


def init(path: str | os.PathLike[str] = "recipe.yaml", *, force: bool = False) -> Path:
    """Write a commented recipe that runs as it is, with no key, GPU or model hub.

    Args:
        path: Where to write it.
        force: Whether a file that is there may be replaced.

    Raises:
        CurateError: If the file is there and ``force`` is not set, or it cannot be written.
    """
    target = Path(path)
    if target.exists() and not force:
        raise CurateError(
            f"{target} is there already: name another file, or replace it with --force"
        )
    text = resources.files("curate").joinpath("recipe_template.yaml").read_text("utf-8")
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise CurateError(f"{target} cannot be written: {error.strerror or error}") from error
    return target
