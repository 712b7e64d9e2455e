"""The catalogue of jobs: one module each, with a top-level JOB.

Reading the catalogue imports no torch: a job's module defines its parameters at the top and
imports what it computes with inside its run function.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any

from .. import memory
from ..errors import ParameterError
from .base import Job, Param

_NAMES = (
    "reconstruct",
    "compare",
    "object",
    "sample",
    "gallery",
    "interpolate",
    "edit",
    "edit_preview",
    "extract",
    "render",
    "views",
    "sheet",
    "dataset",
    "find_directions",
    "import_model",
    "download_model",
    "selftest",
)
_at_release: list[Callable[[], object]] = []


def names() -> tuple[str, ...]:
    """The jobs' names, in the order in which to show them."""
    return _NAMES


def load(name: str) -> Job:
    """The job of that name; raises ParameterError if there is none."""
    if name not in _NAMES:
        raise ParameterError(f"There is no job named {name}.", f"Jobs are {', '.join(_NAMES)}.")
    return importlib.import_module(f".{name}", __name__).JOB


def describe(job: Job) -> dict[str, Any]:
    """A job and its parameters in JSON's types."""
    return {"name": job.name, "help": job.help, "params": [_describe_param(p) for p in job.params]}


def at_release(function: Callable[[], object]) -> None:
    """Have `function` called when memory is wanted back: clear a cache of networks in it."""
    _at_release.append(function)


def release_memory() -> None:
    """Empty the caches of jobs, and torch's if it is loaded."""
    for function in _at_release:
        function()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    memory.give_back()


def _describe_param(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "type": param.type.__name__,
        "default": param.default,
        "help": param.help,
        "unit": param.unit,
        "minimum": param.minimum,
        "maximum": param.maximum,
        "choices": list(param.choices),
        "size": param.size,
    }
