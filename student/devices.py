"""Where to compute and in which precision: never fp16, which overflows in T5."""

from __future__ import annotations

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from student.errors import InputError

__all__ = ["autocast", "resolve_device", "resolve_precision", "return_freed_memory"]


def resolve_device(device: str) -> torch.device:
    """Turn `"auto"` into CUDA where there is one, else CPU; take any other torch device name.

    Raises `InputError` for a name torch does not know, or a CUDA device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"device={device!r} is not a device; allowed: 'auto', 'cpu', 'cuda', 'cuda:0', …"
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r}, but torch sees no CUDA device; use device='auto'")
    return chosen


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn `"auto"` into `"bf16"` where the processor computes in it, else `"fp32"`.

    On a CPU that means AVX512-BF16 or AMX instructions; without them bf16 works but is slower
    than fp32. fp16 is refused: T5's activations leave its range and the loss becomes NaN.
    """
    if precision in ("fp32", "bf16"):
        return precision
    if precision != "auto":
        raise InputError(
            f"precision={precision!r} is not known; allowed: 'auto', 'fp32', 'bf16' "
            "(fp16 is left out on purpose: T5 overflows in it)"
        )
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        # torch has no public name for these two questions, so a torch without them means fp32.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes):
            return "bf16"
    return "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs: weights stay fp32 either way."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def return_freed_memory(device: torch.device) -> None:
    """Give freed memory back to the system where this process holds more than a quarter of all there is.

    For the CPU, on Linux with glibc. Batches differ in length, so that glibc's heap fills with holes
    of all sizes and hardly one is used again: training flan-t5-small with rationales needs 3.5 GB
    in a step, and holds 7 GB after eight. Giving it back after each step would cost an eighth
    of the time, as every page has to be cleared anew.
    """
    if device.type == "cpu" and _LIBC is not None and _memory_held() > _MEMORY / 4:
        _LIBC.malloc_trim(0)


def _memory_held() -> int:
    """Return the bytes of memory that this process has now (its resident set)."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:  # a sandbox without /proc
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _memory() -> int:
    """Return the bytes of memory that there are: the machine's, or fewer where a container has a limit."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such limit: no file, or "max"
        return found


def _libc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "malloc_trim") else None
    except OSError:  # macOS, Windows
        return None


_LIBC = _libc()
_MEMORY = _memory() if _LIBC is not None else 0
