"""The run folder: one file a stage, each written under a temporary name and renamed.

A stage is identified by a fingerprint of everything it depends on. A stage whose fingerprint and
output are as they were is not run again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from curate.exceptions import CurateError

if TYPE_CHECKING:
    import pandas as pd

_STAGES = "stages.json"


class RunError(CurateError):
    """A run folder that cannot be used."""


class RunFolder:
    """A run's files, and which stages are done.

    Args:
        path: The folder; made when the first file is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @contextmanager
    def locked(self) -> Iterator[RunFolder]:
        """Hold the folder for this process.

        Raises:
            RunError: If another process holds it, or it cannot be written to.
        """
        with _storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(str(self.path / ".lock"))
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise RunError(
                    f"the run folder {self.path} is in use by another process: wait for it, or name another "
                    "folder with --output"
                ) from None
        try:
            yield self
        finally:
            lock.release()

    def stages(self) -> dict[str, dict[str, Any]]:
        """What is recorded of the stages that are done."""
        try:
            stages: dict[str, dict[str, Any]] = json.loads((self.path / _STAGES).read_text("utf-8"))
            for record in stages.values():
                _ = record["fingerprint"], record["info"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.path / _STAGES} cannot be read ({error}): delete it, and the stages run again "
                "(the teacher's answers are in the store and are not paid again)"
            ) from error
        return stages

    def done(self, stage: str, fingerprint: str, output: str) -> dict[str, Any] | None:
        """What is recorded of ``stage`` if it need not run again, else None."""
        record = self.stages().get(stage)
        if record and record["fingerprint"] == fingerprint and (self.path / output).exists():
            info: dict[str, Any] = record["info"]
            return info
        return None

    def record(self, stage: str, fingerprint: str, info: Mapping[str, Any]) -> None:
        """Record that ``stage`` is done."""
        stages = self.stages() | {stage: {"fingerprint": fingerprint, "info": dict(info)}}
        self.write_text(_STAGES, json.dumps(stages, indent=1, ensure_ascii=False))

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file whole or not at all."""
        return self._write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_table(self, name: str, frame: pd.DataFrame) -> Path:
        """Write a Parquet file whole or not at all."""
        return self._write(name, lambda path: frame.to_parquet(path, index=False))

    def read_table(self, name: str) -> pd.DataFrame:
        """Read one of the run's Parquet files.

        Raises:
            RunError: If it is not there, or damaged.
        """
        import pandas as pd

        path = self.path / name
        try:
            frame = pd.read_parquet(path)
        except FileNotFoundError as error:
            raise RunError(
                f"{path} is not there: the stage that writes it has not been run; `curate run` does all"
            ) from error
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"{path} cannot be read ({reason}): delete it, and the stage that writes it runs again"
            ) from error
        if "gold" in frame.columns and frame["gold"].dtype == object:
            # Several references come back as arrays, which can be neither compared nor written as JSON.
            golds = [list(v) if hasattr(v, "tolist") else v for v in frame["gold"]]
            frame["gold"] = pd.Series(golds, dtype=object, index=frame.index)
        return frame

    def _write(self, name: str, write: Any) -> Path:
        path = self.path / name
        temporary = path.with_name(f".{name}.{os.getpid()}.part")
        with _storage_errors(self.path):
            try:
                write(temporary)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return path

    def remove(self, name: str) -> None:
        """Remove a file or folder of the run, if it is there."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def fingerprint(*parts: Any) -> str:
    """Hash of JSON-like values, in order."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def table_hash(frame: pd.DataFrame) -> str:
    """Hash of a table's rows and column names, whatever file it came from."""
    try:
        content = frame.to_json(orient="split", index=False, double_precision=15).encode()
    except (UnicodeError, OverflowError):
        content = _as_arrow(frame)  # images and other bytes, which JSON cannot carry
    return hashlib.sha256(content).hexdigest()[:32]


def _as_arrow(frame: pd.DataFrame) -> bytes:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata(None))
    content: bytes = sink.getvalue().to_pybytes()
    return content


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(
                f"the disk that holds {folder} is full: make room and run the same command again; finished "
                "stages are kept"
            ) from error
        raise RunError(
            f"the run folder {folder} cannot be written to ({error.strerror or error}): name another with "
            "--output"
        ) from error
