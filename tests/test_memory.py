"""Freed memory stays while the engine works, and goes when it rests."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from engine import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

import numpy as np
if sys.argv[1] == "keep":
    memory.keep_freed()
block = np.ones(200 << 20, np.uint8)
small = bytes(1000)  # something behind the block
del block
kept = resident()
memory.give_back()
print(kept, resident())
"""


def measured(mode: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], check=True, capture_output=True, text=True
    )
    kept, left = done.stdout.split()
    return int(kept), int(left)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of Linux's C library")
def test_freed_memory_is_kept_and_given_back():
    kept, left = measured("keep")
    assert kept > 200 and left < kept - 150
    assert measured("plain")[0] < kept - 150
