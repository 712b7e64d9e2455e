"""Memory that this process has freed: kept for the next tensors, or given back.

glibc maps every large block afresh and unmaps it when it is freed, so that a network's activations
are page faults over and over: half of the time of a 512 x 512 picture. Kept blocks cost nothing but
what they are: memory of a process that works, given back when it rests. Elsewhere than on Linux
with glibc both functions do nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 1 << 30  # bytes: blocks up to this size, and as much unused at the heap's end


def keep_freed() -> None:
    """Have freed memory stay with this process."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = _glibc().mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Give what is free to the system."""
    with contextlib.suppress(OSError, AttributeError):
        _glibc().malloc_trim(0)


def _glibc() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise OSError
    return ctypes.CDLL("libc.so.6")
