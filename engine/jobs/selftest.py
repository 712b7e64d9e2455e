"""A job that proves the engine works, and misbehaves on request so that tests can watch it."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from typing import Any

import numpy as np

from ..errors import ReconstructionError
from .base import Context, Job, Param, Result

PARAMS = (
    Param("seconds", float, 0.2, "how long it pretends to work", "s", 0.0, 600.0),
    Param("steps", int, 4, "number of named steps", minimum=1, maximum=1000),
    Param("torch", bool, False, "import torch and report its version and devices"),
    Param("size", int, 8, "side of the preview and of the resulting image", "pixels", 1, 8192),
    Param("allocate", int, 0, "memory to touch", "MiB", 0, 1 << 30),
    Param("items", int, 0, "parts of the result handed out at every step", "", 0, 1000),
    Param("note", str, "", "text handed back in the result"),
    Param(
        "misbehave",
        str,
        "none",
        "what to do wrong at the middle step",
        choices=("none", "crash", "exit", "deaf", "raise", "error", "import", "print", "garbage"),
    ),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Report steps and previews, then facts about this Python. See `misbehave` for the rest."""
    steps, size = params["steps"], params["size"]
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), -1)
    block = np.ones(params["allocate"] << 20, np.uint8)
    for step in range(steps):
        context.progress(step / steps, f"step {step + 1}")
        context.preview(image)
        for item in range(params["items"]):
            context.item({"step": step, "item": item}, image)
        if step == steps // 2:
            _misbehave(params["misbehave"], params["seconds"])
        _work(params["seconds"] / steps, context)
    meta = {
        "executable": sys.executable,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "process": os.getpid(),
        "allocated": int(block.nbytes),
        "note": params["note"],
        "torch": None,
        "devices": ["cpu"],
    }
    if params["torch"]:
        meta |= _torch_facts()
    return Result(meta, {"image": image})


def _work(seconds: float, context: Context) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        context.check()
        time.sleep(min(left, 0.05))


def _misbehave(how: str, seconds: float) -> None:
    if how == "crash":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    elif how == "exit":
        os._exit(3)
    elif how == "deaf":  # never looks whether it is cancelled
        time.sleep(seconds)
    elif how == "raise":
        raise ReconstructionError("The selftest failed, as it was told to.", "Tell it otherwise.")
    elif how == "error":
        raise ZeroDivisionError("as it was told to")
    elif how == "import":
        import a_package_that_nobody_has  # noqa: F401
    elif how == "print":
        print("noise on standard output")
        os.write(1, b"noise on file descriptor 1\n")
    elif how == "garbage":  # as a library would that writes to the wire itself
        for descriptor in range(3, 32):
            try:
                os.write(descriptor, b"garbage instead of a message")
            except OSError:
                continue


def _torch_facts() -> dict[str, Any]:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        devices.append("xpu")
    return {"torch": torch.__version__, "devices": devices}


JOB = Job("selftest", "Check that the engine works in this Python.", PARAMS, run)
