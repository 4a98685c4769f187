"""Which precision is taken where: bf16 if the processor computes in it, and never fp16."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import student
from student import devices
from student.devices import (
    autocast,
    resolve_device,
    resolve_precision,
    return_freed_memory,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_that_only_emulates_bf16_computes_in_fp32(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    def is_bf16_supported(*, including_emulation: bool) -> bool:
        return has or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    expected = "bf16" if has else "fp32"
    assert resolve_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("asked", ["fp16", "float16", "half"])
def test_fp16_is_refused_everywhere(asked: str) -> None:
    for place in (CPU, torch.device("cuda")):
        with pytest.raises(student.InputError, match=rf"precision='{asked}'.*T5 overflows"):
            resolve_precision(asked, place)


def test_a_forward_pass_is_in_the_precision_asked_for() -> None:
    layer: Any = torch.nn.Linear(2, 2)
    with autocast("bf16", CPU):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(student.InputError, match="torch sees no CUDA device; use device='auto'"):
        resolve_device("cuda:1")


@pytest.mark.parametrize(("memory", "given_back"), [(10_000_000_000, 0), (7_000_000_000, 1)])
def test_freed_memory_is_given_back_where_a_quarter_of_it_is_held(
    monkeypatch: pytest.MonkeyPatch, memory: int, given_back: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(devices, "_LIBC", SimpleNamespace(malloc_trim=calls.append))
    monkeypatch.setattr(devices, "_MEMORY", memory)
    monkeypatch.setattr(devices, "_memory_held", lambda: 2_000_000_000)
    return_freed_memory(CPU)
    assert len(calls) == given_back


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own account of memory")
def test_the_memory_that_is_held_is_counted_in_bytes() -> None:
    before = devices._memory_held()
    block = bytearray(b"x" * 200_000_000)
    assert 150_000_000 < devices._memory_held() - before < 400_000_000
    assert len(block) < devices._memory() < 2**50
