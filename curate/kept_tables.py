"""Tables in the store that are computed once for what they depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run_folder import RunError, RunFolder

if TYPE_CHECKING:
    import pandas as pd


def kept_table(folder: Path, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table of this name; it is made, and written whole or not at all, where it is not there.

    Args:
        folder: Folder inside the store.
        name: The file's name, which holds a hash of everything that the table depends on.
        make: Computes it.

    Raises:
        RunError: If the folder cannot be written to, or the file is damaged.
    """
    kept = RunFolder(folder)
    if (folder / name).exists():
        return kept.read_table(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        raise RunError(
            f"the folder {folder} cannot be written to ({error.strerror or error}): name another with --store"
        ) from error
    table = make()
    kept.write_table(name, table)
    return table
