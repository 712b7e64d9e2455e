"""Where the engine computes: device, precision, threads, and how much memory it may use."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from engine.errors import ParameterError

DEVICES = ("auto", "cuda", "mps", "xpu", "cpu")
PRECISIONS = ("auto", "float32", "bfloat16")
WORKING_SET = 64 << 20  # bytes of intermediates at a time: the fastest of 4 to 256 MiB on a CPU


@dataclass(frozen=True)
class Compute:
    """What a job computes on.

    device: the torch device; dtype: of networks' matrix products and convolutions (torch.float32
    or torch.bfloat16; weights, planes and geometry stay float32).
    """

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager:
        """The context in which networks run at this precision."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)


def full_precision(like: torch.Tensor) -> AbstractContextManager:
    """The context in which geometry (rays, coordinates, compositing) stays float32 although the
    caller may have autocast on for the networks; on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)


@dataclass(frozen=True)
class MemoryLimit:
    """What a memory limit really does.

    limit: bytes, 0 for none; enforced: whether an allocation beyond it fails (so the job fails
    with a plain error) rather than merely being avoided; note: one sentence for the artist.
    """

    limit: int
    enforced: bool
    note: str


_limit = MemoryLimit(0, False, "No memory limit is set.")


def _available(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    if kind == "xpu":
        return torch.xpu.is_available()
    return kind == "cpu"


def choose_device(wanted: str = "auto") -> torch.device:
    """The device for one of DEVICES; 'auto' takes the first of CUDA, MPS, XPU, CPU that is there.

    Raises ParameterError for an unknown name or a device that this machine, or the installed
    PyTorch, does not have.
    """
    if wanted not in DEVICES:
        raise ParameterError(f"The device must be one of {', '.join(DEVICES)}, not {wanted}.")
    if wanted == "auto":
        wanted = next(kind for kind in DEVICES[1:] if _available(kind))
    if not _available(wanted):
        raise ParameterError(
            f"The device {wanted.upper()} is not available to the engine's PyTorch.",
            "Choose Auto or CPU in the preferences, or an engine interpreter whose PyTorch has it.",
        )
    return torch.device(wanted)


def choose_precision(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """torch.float32 or torch.bfloat16 for one of PRECISIONS.

    'auto' takes bfloat16 where the hardware multiplies it faster than float32: CUDA from compute
    capability 8, XPU, and processors with AMX or AVX-512 BF16. Raises ParameterError for an
    unknown name.
    """
    if wanted not in PRECISIONS:
        raise ParameterError(f"The precision must be one of {', '.join(PRECISIONS)}, not {wanted}.")
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device)[0] >= 8
    elif device.type == "cpu":
        fast = _fast_bfloat16_cpu()
    else:
        fast = device.type == "xpu"
    return torch.bfloat16 if fast else torch.float32


def _fast_bfloat16_cpu() -> bool:
    """Whether this processor has bfloat16 matrix instructions. torch's query is recent and its
    result's keys depend on the processor, so anything missing counts as no."""
    query = getattr(torch.cpu, "get_capabilities", None)
    found = query() if query else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def choose(
    device: str = "auto", precision: str = "auto", threads: int = 0, memory_limit_mb: int = 0
) -> Compute:
    """Set up this process and say what it computes on.

    device: one of DEVICES; precision: one of PRECISIONS; threads: processor threads, 0 for the
    cores this process may use; memory_limit_mb: see set_memory_limit (0 for none).
    Raises ParameterError for anything unknown, unavailable or negative.
    """
    chosen = choose_device(device)
    compute = Compute(chosen, choose_precision(chosen, precision))
    set_threads(threads)
    set_memory_limit(chosen, memory_limit_mb)
    return compute


def set_threads(threads: int = 0) -> int:
    """Use that many processor threads, 0 for as many as this process may use; returns how many.
    Raises ParameterError for a negative number."""
    if threads < 0:
        raise ParameterError("The number of threads must not be negative.")
    if threads == 0:
        can = getattr(os, "sched_getaffinity", None)  # not on Windows and macOS
        threads = len(can(0)) if can else os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads


def set_memory_limit(device: torch.device, megabytes: int = 0) -> MemoryLimit:
    """Limit what this process may use, in MiB; 0 takes the limit away.

    What this does depends on the device, and the result says so. CUDA: torch's allocator refuses
    to go beyond it (the driver's own few hundred MiB come on top). CPU on Linux: the kernel
    refuses private memory beyond it (RLIMIT_DATA; mapped files such as libraries and weights do
    not count). Elsewhere nothing can be refused: the engine only works in chunks that respect it.
    Everywhere chunks are made smaller (see chunk_items). Raises ParameterError if negative.
    """
    global _limit
    if megabytes < 0:
        raise ParameterError("The memory limit must not be negative.")
    limit = megabytes << 20
    enforced = False
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        fraction = min(limit / total, 1.0) if limit else 1.0
        torch.cuda.set_per_process_memory_fraction(fraction, device)
        enforced = bool(limit)
    elif device.type == "cpu" and sys.platform.startswith("linux"):
        enforced = _limit_data_segment(limit) and bool(limit)
    if not limit:
        note = "No memory limit is set."
    elif enforced:
        note = f"A job that needs more than {megabytes} MiB fails with an out-of-memory error."
    else:
        note = f"The engine works in chunks to stay near {megabytes} MiB; nothing enforces it here."
    _limit = MemoryLimit(limit, enforced, note)
    return _limit


def _limit_data_segment(limit: int) -> bool:
    """Set the soft RLIMIT_DATA (the hard limit stays, so that it can be taken back)."""
    import resource  # Unix only

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = limit or hard
    if hard != resource.RLIM_INFINITY and soft > hard:
        soft = hard
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    except (ValueError, OSError):
        return False
    return True


def memory_limit() -> MemoryLimit:
    """The limit now set."""
    return _limit


def chunk_items(bytes_per_item: int) -> int:
    """How many items of that many bytes of intermediates to work on at a time: a working set of
    64 MiB, or an eighth of the memory limit where that is less; at least 1."""
    budget = min(WORKING_SET, _limit.limit // 8) if _limit.limit else WORKING_SET
    return max(1, budget // max(1, bytes_per_item))
