"""Choosing where to compute."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from engine import device
from engine.errors import ParameterError

pytestmark = pytest.mark.usefixtures("restored_process")


def test_cpu_is_always_there():
    assert device.choose_device("cpu").type == "cpu"
    assert device.choose_device("auto").type in ("cuda", "mps", "xpu", "cpu")
    with pytest.raises(ParameterError, match="abacus"):
        device.choose_device("abacus")


def test_absent_devices_are_named(monkeypatch):
    monkeypatch.setattr(device, "_available", lambda kind: kind == "cpu")
    assert device.choose_device("auto").type == "cpu"
    with pytest.raises(ParameterError, match="CUDA is not available"):
        device.choose_device("cuda")


def test_precision():
    cpu = torch.device("cpu")
    assert device.choose_precision(cpu, "float32") is torch.float32
    assert device.choose_precision(cpu, "bfloat16") is torch.bfloat16
    assert device.choose_precision(cpu, "auto") in (torch.float32, torch.bfloat16)
    with pytest.raises(ParameterError, match="float8"):
        device.choose_precision(cpu, "float8")


def test_autocast_follows_the_precision():
    a = torch.randn(4, 4)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with device.choose("cpu", name, threads=1).autocast():
            assert (a @ a).dtype == dtype
            with device.full_precision(a):
                assert (a @ a).dtype == torch.float32


def test_threads():
    assert device.set_threads(1) == 1 == torch.get_num_threads()
    assert device.set_threads(0) >= 1
    with pytest.raises(ParameterError):
        device.set_threads(-1)


def test_a_memory_limit_makes_chunks_smaller():
    free = device.chunk_items(1000)
    limit = device.set_memory_limit(torch.device("cpu"), 100_000)
    assert limit.limit == 100_000 << 20 and device.memory_limit() == limit
    assert device.chunk_items(1000) == free
    assert device.chunk_items(1 << 40) == 1
    monkey = device.MemoryLimit(64 << 20, False, "")
    device._limit = monkey
    assert device.chunk_items(1000) == (8 << 20) // 1000
    with pytest.raises(ParameterError):
        device.set_memory_limit(torch.device("cpu"), -1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="enforced by Linux only")
def test_the_limit_is_what_it_says_on_linux():
    """In a process of its own: a job beyond the limit fails, the process goes on."""
    code = """
import torch
from engine import device
limit = device.set_memory_limit(torch.device("cpu"), 1024)
assert limit.enforced and "1024 MiB" in limit.note
torch.zeros(16 << 20)
try:
    torch.zeros(600 << 20)
except RuntimeError:
    device.set_memory_limit(torch.device("cpu"), 0)
    torch.empty(600 << 20)
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "refused", done.stderr
