"""The worker as a child process, seen from Blender: start, talk, kill, and what its death means.

Standard library and numpy only. The child sees nothing of the environment that could change what
it imports (Python's isolated mode), has no console window on Windows, and dies as a whole process
group elsewhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .wire import PROTOCOL, WireError, read_message, write_message

# Run by `python -c`: arguments are the log, the folder that holds engine/, and extra folders.
# The extra ones go last, as Blender does it: its own numpy wins over a wheel's.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[2]); sys.path += sys.argv[3:]; "
    "from engine.worker import main; sys.exit(main(sys.argv[1]))"
)
_DROPPED = ("PYTHON", "__PYVENV_LAUNCHER__")  # prefixes of variables that redirect a Python
# Read by libraries when torch loads them; whoever sets them otherwise is left alone.
ENVIRONMENT = {
    # Threads that wait for work sleep instead of spinning. Blender's viewport needs the cores,
    # and where other programs compute too, torch is several times faster this way.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors in huge pages where the system offers them (Linux): without, half of the time of
    # a 512 x 512 picture goes into the page faults of fresh memory.
    "THP_MEM_ALLOC_ENABLE": "1",
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
}
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "accepted": {"name": str},
    "progress": {"fraction": (float, int), "step": str},
    "preview": {},
    "item": {"meta": dict},
    "result": {"meta": dict, "timings": dict},
    "failed": {"kind": str, "sentence": str, "remedy": str, "traceback": str},
}
_PREFERENCES = "Choose another interpreter in Triplane's preferences"


@dataclass(frozen=True)
class EngineSettings:
    """How to run the engine.

    python: the interpreter's path. engine_root: the folder that contains engine/.
    log_path: where the worker's prints go; its folder is made.
    extra_paths: folders added to the worker's sys.path (an extension's wheels); only for the
        Python that they were made for.
    env: environment variables to set, over Blender's own.
    idle_seconds: after so long without a job the process ends; math.inf keeps it.
    """

    python: str
    engine_root: str
    log_path: str
    extra_paths: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    idle_seconds: float = 300.0


class Process:
    """One worker. `ready`, `ended` change under `changed`, which is notified then."""

    def __init__(
        self,
        settings: EngineSettings,
        on_message: Callable[[Process, dict[str, Any], dict[str, np.ndarray]], None],
        changed: threading.Condition,
    ) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.ready = False
        self.ended = False
        self._on_message = on_message
        self._changed = changed
        self._popen: subprocess.Popen | None = None
        self._reader: threading.Thread | None = None
        self._trouble = ""  # why it could not start, or what was wrong with what it said
        self._log_start = 0

    def start(self) -> None:
        """Start the child and the thread that reads from it. On failure `ended` is set."""
        s = self.settings
        try:
            log_path = Path(s.log_path)
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with open(log_path, "ab") as log:
                self._log_start = log.tell()
                self._popen = subprocess.Popen(
                    [s.python, "-I", "-X", "utf8", "-c", _BOOT]
                    + [str(log_path), s.engine_root, *s.extra_paths],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=child_environment(s, os.environ),
                    bufsize=0,
                    **_platform_options(),
                )
        except (OSError, ValueError) as error:
            self._end(str(error))
            return
        self._reader = threading.Thread(target=self._read, name="triplane-reader", daemon=True)
        self._reader.start()

    def send(self, message: dict[str, Any]) -> None:
        """Write a message. Raises WireError if the child is gone, and TypeError or ValueError for
        what cannot travel."""
        if self._popen is None:
            raise WireError("there is no process")
        write_message(self._popen.stdin, message)

    def kill(self) -> tuple[str, str, str]:
        """End the child for certain, and return (kind, sentence, remedy) of its death."""
        if self._popen is None:
            return self.startup_words(self._trouble)
        by_itself = self.ended
        code = self._wait(0.3) if by_itself else None
        if code is None:
            self._kill_group()
            code = self._wait(5.0)
        if self._reader is not None:
            self._reader.join(1.0)
        for pipe in (self._popen.stdin, self._popen.stdout):
            pipe.close()
        if not self.ready:
            return self.startup_words(self._trouble or self._last_log_line() or f"code {code}")
        see_log = f"The next job starts it again. Details are in {self.settings.log_path}."
        if self._trouble:
            return "worker", "The engine sent something that cannot be read.", see_log
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if code == -9:  # nobody but the kernel, short of memory, uses it
            see_log = (
                f"If memory ran out, close other programs or choose a faster preset. {see_log}"
            )
        return "worker", f"The engine stopped unexpectedly ({how}).", see_log

    def startup_words(self, trouble: str) -> tuple[str, str, str]:
        """(kind, sentence, remedy) for a child that never became ready."""
        return (
            "engine-setup",
            f"The engine's Python ({self.settings.python}) did not start: {trouble.rstrip('.')}.",
            f"{_PREFERENCES}; details are in {self.settings.log_path}.",
        )

    def _read(self) -> None:
        trouble = ""
        try:
            while (message := read_message(self._popen.stdout)) is not None:
                header, arrays = message
                if header.get("event") == "ready" and header.get("protocol") == PROTOCOL:
                    with self._changed:
                        self.ready = True
                        self._changed.notify_all()
                else:
                    _check(header, arrays)
                    self._on_message(self, header, arrays)
        except WireError as error:
            trouble = str(error)
        self._end(trouble)

    def _end(self, trouble: str) -> None:
        with self._changed:
            self._trouble = trouble
            self.ended = True
            self._changed.notify_all()

    def _wait(self, seconds: float) -> int | None:
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _kill_group(self) -> None:
        try:
            if os.name == "posix":
                # Before it is reaped, so that the number cannot belong to someone else.
                os.killpg(self._popen.pid, signal.SIGKILL)
            else:
                self._popen.kill()
        except (ProcessLookupError, PermissionError):
            return  # it ended just now

    def _last_log_line(self) -> str:
        try:
            with open(self.settings.log_path, "rb") as log:
                log.seek(self._log_start)
                lines = log.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip()[:300] if lines else ""


def child_environment(settings: EngineSettings, environ: Any) -> dict[str, str]:
    """The worker's environment variables: `environ` without what redirects a Python, with our
    defaults where nothing is set, then the settings'."""
    env = {k: v for k, v in environ.items() if not k.upper().startswith(_DROPPED)}
    return {**ENVIRONMENT, **env, **dict(settings.env)}


def _platform_options() -> dict[str, Any]:
    if os.name == "nt":
        return {
            "creationflags": subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS
        }
    return {"start_new_session": True}  # a group of its own; a terminal's Ctrl-C is ours alone


def _check(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raise WireError unless the header is an event with the fields that its readers use."""
    fields = _FIELDS.get(str(header.get("event")))
    if fields is None or any(not isinstance(header.get(k), t) for k, t in fields.items()):
        raise WireError(f"not an event: {str(header)[:200]}")
    if header["event"] in ("preview", "item"):
        image = arrays.get("image")
        if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise WireError(f"{header['event']} without an image")
