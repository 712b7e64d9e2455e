"""The engine's process: jobs come in on standard input, events go out on standard output.

Two threads: the main one runs one job after the other; a reader takes in messages meanwhile, so
that a cancellation arrives during a job and the end of Blender (standard input closes) ends this
process within two seconds, whatever the job does.

Messages in, by their "do": "job" {job, name, params, device, precision}, "cancel" {job},
"release". Messages out, by their "event": "ready", then for each job "accepted", "progress",
"preview", "item", and at last "result" or "failed"; their fields are listed at the methods that
send them.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import queue
import shutil
import sys
import threading
import time
from typing import Any, BinaryIO

import numpy as np

from . import jobs
from .errors import Cancelled
from .failures import describe
from .jobs.base import Context
from .wire import PROTOCOL, WireError, read_message, write_message

LOG_LIMIT = 2 << 20  # bytes; a longer log becomes "<name>.1" before the next job
_GRACE = 1.2  # seconds that a job has to clean up when Blender is gone
_PROGRESS_INTERVAL = 0.05  # seconds between two reports of the same step
_PREVIEW_INTERVAL = 0.1
_NICENESS = 5  # below Blender: its viewport goes first


def main(log_path: str | None = None) -> int:
    """Serve until standard input closes. Prints, warnings and tracebacks go to `log_path`
    (standard error without one)."""
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # a library that asks a question shall not eat messages
    sink = take_stdout(log_path)
    faulthandler.enable()
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    Worker(source, sink, log_path).serve()
    sys.stderr.flush()
    os._exit(0)  # past the destructors of GPU libraries, which may hang


def take_stdout(log_path: str | None = None) -> BinaryIO:
    """Standard output as an unbuffered stream of our own.

    File descriptor 1 then leads to `log_path` (appended to) or, without one, to standard error,
    so that nothing that prints, C libraries included, can write between our messages.
    """
    sys.stdout.flush()
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    if log_path:
        _rotate(log_path)
        log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 2)
        os.close(log)
    os.dup2(2, 1)
    # New objects: the old ones remember whether what they led to could seek, for one.
    sys.stdout, sys.stderr = (
        open(fd, "w", 1, "utf-8", "backslashreplace", closefd=False) for fd in (1, 2)
    )
    return sink


class Worker:
    """Runs the jobs that `source` asks for, one at a time, and reports to `sink`."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, log_path: str | None = None) -> None:
        self._source = source
        self._sink = sink
        self._log_path = log_path
        self._write_lock = threading.Lock()
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._parent_gone = False

    def serve(self) -> None:
        """Work until `source` ends or `sink` is closed."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            self._send(
                "ready",
                protocol=PROTOCOL,
                python=platform.python_version(),
                executable=sys.executable,
                process=os.getpid(),
            )
            while (message := self._inbox.get()) is not None:
                if message["do"] == "job":
                    self._run(message)
                elif message["do"] == "release":
                    jobs.release_memory()
        except WireError as error:
            _log(f"Nobody listens any more: {error}")

    def is_cancelled(self, job_id: str) -> bool:
        """Whether the job was cancelled, or Blender is gone."""
        return self._parent_gone or job_id in self._cancelled

    def _read(self) -> None:
        try:
            while (message := read_message(self._source)) is not None:
                header = message[0]
                if header.get("do") == "cancel":
                    self._cancelled.add(str(header.get("job")))
                elif header.get("do") in ("job", "release"):
                    self._inbox.put(header)
                else:
                    raise WireError(f"unknown message {header}")
        except WireError as error:
            _log(f"Unreadable message: {error}")
        self._parent_gone = True
        self._inbox.put(None)
        time.sleep(_GRACE)
        os._exit(1)

    def _run(self, message: dict[str, Any]) -> None:
        """Run one job; its last event is a result {meta, timings, arrays} or failed {kind,
        sentence, remedy, traceback}."""
        if self._log_path:
            _rotate(self._log_path)
        job_id, started = str(message.get("job")), time.monotonic()
        _log(f"Job {job_id}: {message.get('name')} {message.get('params')}")
        try:
            job = jobs.load(str(message.get("name")))
            params = job.checked(message.get("params") or {})
            self._send("accepted", job_id, name=job.name)
            report = _Report(self, job_id)
            context = Context(
                report.progress,
                report.preview,
                lambda: self.is_cancelled(job_id),
                device=str(message.get("device", "auto")),
                precision=str(message.get("precision", "auto")),
                on_item=report.item,
            )
            context.check()
            result = job.run(params, context)
            context.check()
            context.finish()
            timings = dict(context.timings)
            self._send("result", job_id, result.arrays, meta=result.meta, timings=timings)
            outcome = "done"
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: Blender must hear
            failure = describe(error)
            outcome = failure["kind"]
            if not isinstance(error, Cancelled):
                _log(failure["traceback"])
            self._send("failed", job_id, **failure)
            del error
        self._cancelled.discard(job_id)
        _log(f"Job {job_id}: {outcome} after {time.monotonic() - started:.1f} s")

    def _send(
        self,
        event: str,
        job_id: str | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        **fields: Any,
    ) -> None:
        header = {"event": event, **({"job": job_id} if job_id else {}), **fields}
        with self._write_lock:
            write_message(self._sink, header, arrays)


class _Report:
    """A running job's reports, thinned out, with the time left estimated where none is given."""

    def __init__(self, worker: Worker, job_id: str) -> None:
        self._worker = worker
        self._job_id = job_id
        self._started = time.monotonic()
        self._last_progress = self._last_preview = -1.0
        self._step = ""

    def progress(self, fraction: float, step: str, seconds_left: float | None = None) -> None:
        """Send progress {fraction 0..1, step, seconds_left or None}."""
        now = time.monotonic()
        same = step == self._step and fraction < 1
        if same and now - self._last_progress < _PROGRESS_INTERVAL:
            return
        self._last_progress, self._step = now, step
        if seconds_left is None:
            seconds_left = estimate_seconds_left(fraction, now - self._started)
        self._worker._send(
            "progress", self._job_id, fraction=fraction, step=step, seconds_left=seconds_left
        )

    def preview(self, image: np.ndarray) -> None:
        """Send preview {arrays: image uint8 [H, W, 3], row 0 = top}."""
        image = _picture(image, "a preview")
        now = time.monotonic()
        if now - self._last_preview >= _PREVIEW_INTERVAL:
            self._last_preview = now
            self._worker._send("preview", self._job_id, {"image": image})

    def item(self, meta: dict[str, Any], image: np.ndarray) -> None:
        """Send item {meta, arrays: image uint8 [H, W, 3], row 0 = top}: every one, at once."""
        image = _picture(image, "an item's picture")
        self._worker._send("item", self._job_id, {"image": image}, meta=dict(meta))


def _picture(image: np.ndarray, what: str) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{what} is uint8 [H, W, 3], not {image.dtype} {image.shape}")
    return image


def estimate_seconds_left(fraction: float, elapsed: float) -> float | None:
    """Seconds until fraction 1 at the pace so far; None while that would be a guess."""
    if elapsed < 1.0 or fraction < 0.03:
        return None
    return elapsed * (1.0 - fraction) / fraction


def _rotate(path: str) -> None:
    """Keep the log below LOG_LIMIT: copy, then empty it. (Renaming would leave this process and
    the file descriptors of others writing to the old one, and fails on Windows.)"""
    try:
        if os.path.getsize(path) > LOG_LIMIT:
            shutil.copyfile(path, f"{path}.1")
            os.truncate(path, 0)
    except OSError:
        return  # no log yet, or none possible: not worth failing a job


def _log(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)
