"""Any exception as a failure that an artist can read: kind, sentence, remedy, traceback."""

from __future__ import annotations

import errno
import sys
import traceback
from types import TracebackType

from .errors import TriplaneError

_SETUP_REMEDY = (
    "Install it into that Python (for example: python -m pip install {package}), or choose another "
    "interpreter in Triplane's preferences."
)
_MEMORY_REMEDY = (
    "Close other programs, choose a faster preset or a smaller texture, or set the device to CPU."
)


def describe(error: BaseException) -> dict[str, str]:
    """{"kind", "sentence", "remedy", "traceback"} of an exception.

    Expected failures (TriplaneError) speak for themselves. Of the others, a package that cannot
    be imported is "engine-setup", memory "memory", a full or read-only disk "output"; the rest
    are bugs: "internal".
    """
    kind, sentence, remedy = _words(error)
    return {
        "kind": kind,
        "sentence": sentence,
        "remedy": remedy,
        "traceback": "".join(traceback.format_exception(error)),
    }


def _words(error: BaseException) -> tuple[str, str, str]:
    if isinstance(error, TriplaneError):
        return error.kind, error.sentence, error.remedy
    package = _unimportable_package(error)
    if package:
        absent = isinstance(error, ModuleNotFoundError) and _top(error.name) == package
        problem = f"has no {package}" if absent else f"cannot load {package} ({_line(error)})"
        sentence = f"The engine's Python ({sys.executable}) {problem}."
        return "engine-setup", sentence, _SETUP_REMEDY.format(package=package)
    if _is_out_of_memory(error):
        where = "graphics card's memory" if "CUDA" in str(error) else "memory"
        return "memory", f"The {where} is not enough for this job.", _MEMORY_REMEDY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "output", "The disk is full.", "Free some space, or choose another folder."
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        path = error.filename or "a file"
        return "output", f"No permission to use {path}.", "Choose a folder that you may write to."
    return (
        "internal",
        f"The engine made an error: {_line(error)}.",
        "Please report it, with the engine's log.",
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:300].rstrip(".")


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _unimportable_package(error: BaseException) -> str:
    """The package, not ours, whose import raised `error`; "" if it came from elsewhere.

    Not only ImportError counts: a torch of another CUDA or numpy version raises OSError or
    RuntimeError from its modules' top level.
    """
    if isinstance(error, ImportError) and _top(error.name) not in ("", "engine"):
        return _top(error.name)
    for frame in _frames(error.__traceback__):
        package = _top(frame.f_globals.get("__name__"))
        at_top_level = frame.f_code.co_name == "<module>"
        if at_top_level and package not in ("engine", "__main__", "importlib"):
            return package
    return ""


def _frames(tb: TracebackType | None):
    while tb is not None:
        yield tb.tb_frame
        tb = tb.tb_next


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError and the CPU allocator's RuntimeError, without importing torch.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    )
