"""Blender's side of the engine: starts the worker, sends jobs, hands back events.

Standard library and numpy only, and nothing here makes the caller wait: a manager thread starts,
feeds and ends the process, a reader thread takes in what it says, and poll() only looks at what
has arrived. The exceptions are run_blocking() and close().

Every job submitted ends with exactly one event "result" or "failed", whatever happens to the
process; the list of events and their fields is at `EngineClient.poll`.
"""

from __future__ import annotations

import atexit
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .errors import TriplaneError
from .process import EngineSettings, Process
from .wire import WireError

CANCEL_GRACE = 1.2  # seconds that a job has to stop by itself before its process is killed
STARTUP_LIMIT = 60.0  # seconds; the worker needs 0.2 s, on a cold disk with a virus scanner 10 s

Event = dict[str, Any]

__all__ = ["EngineClient", "EngineSettings", "JobFailed"]


class JobFailed(TriplaneError):
    """A job's failure as an exception, with the fields of its event."""

    def __init__(self, event: Event) -> None:
        super().__init__(event["sentence"], event["remedy"])
        self.kind = event["kind"]
        self.traceback = event["traceback"]


@dataclass
class _Job:
    id: str
    request: dict[str, Any]
    events: deque[Event] = field(default_factory=deque)
    ahead: int = 0  # jobs before this one, as last told
    accepted: bool = False
    resent: bool = False  # to a second process, as the first died before it took the job
    cancelled: bool = False
    kill_at: float = math.inf  # set when the worker has been asked to cancel
    forgotten: bool = False


class EngineClient:
    """One worker process and the queue of jobs for it. Thread-safe; make one per Blender."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        # All below is guarded by _changed; only the manager thread sets _process.
        self._process: Process | None = None
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._current: _Job | None = None
        self._idle_since = time.monotonic()
        self._release_wanted = False
        self._closed = False
        self._manager: threading.Thread | None = None
        self._numbers = itertools.count(1)

    # What Blender calls

    def configure(self, settings: EngineSettings) -> None:
        """Take other settings: from the next job on, in a new process if they differ."""
        with self._changed:
            self._settings = settings
            self._changed.notify_all()

    def submit(
        self,
        job: str,
        params: dict[str, Any] | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> str:
        """Queue a job and return its id at once. Trouble comes as a "failed" event, never here.

        job, params: as in the catalogue (engine.jobs); missing parameters take their defaults.
        device: auto, cpu, cuda, mps, xpu. precision: auto, float32, bfloat16.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("this engine client is closed")
            new = _Job(f"job-{next(self._numbers)}", {})
            new.request = {
                "do": "job",
                "job": new.id,
                "name": job,
                "params": dict(params or {}),
                "device": device,
                "precision": precision,
            }
            self._jobs[new.id] = new
            self._waiting.append(new)
            self._tell_places()
            if self._manager is None:
                self._manager = threading.Thread(
                    target=self._manage, name="triplane-engine", daemon=True
                )
                self._manager.start()
                atexit.register(self.close)
            self._changed.notify_all()
            return new.id

    def poll(self, job_id: str) -> list[Event]:
        """The job's new events, in order; [] if there are none or the job is not known.

        Every event is a dict with "event" and "job":
          queued    ahead: number of jobs before it; again when that changes
          starting  the worker process is being started
          accepted  name: the parameters are valid and the job runs
          progress  fraction 0..1, step: str, seconds_left: float or None
          preview   image: uint8 [H, W, 3], row 0 = top (only the newest is kept)
          item      meta: dict, image: uint8 [H, W, 3]: a finished part of the result; all are
                    kept, in order, also those of a job that then fails or is cancelled
          result    meta: dict, arrays: {name: array}, timings: {step: seconds}
          failed    kind, sentence, remedy, traceback: str. Kinds: "cancelled", those of
                    engine.errors, "memory", "engine-setup" (the interpreter or its packages),
                    "worker" (the process died), "internal" (a bug)
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return []
            events = list(job.events)
            job.events.clear()
            if events and events[-1]["event"] in ("result", "failed"):
                del self._jobs[job_id]
            return events

    def cancel(self, job_id: str) -> None:
        """Stop a job; its "failed" event of kind "cancelled" follows within 2 s."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._fail(job, "cancelled", "Cancelled.")
                self._tell_places()
            self._changed.notify_all()

    def forget(self, job_id: str) -> None:
        """Stop a job if it still runs, and drop its events: for a caller that goes away."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return
            job.forgotten = True
            job.events.clear()
            self.cancel(job_id)
            if job is not self._current:
                self._jobs.pop(job_id, None)

    def release(self) -> None:
        """Have the worker empty its caches (graphics memory) when no job runs."""
        with self._changed:
            self._release_wanted = True
            self._changed.notify_all()

    @property
    def state(self) -> str:
        """ "stopped", "starting", "idle" or "running"."""
        with self._changed:
            if self._current:
                return "running"
            if self._process is None:
                return "starting" if self._waiting else "stopped"
            return "idle" if self._process.ready else "starting"

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for their turn."""
        with self._changed:
            return len(self._waiting)

    def run_blocking(
        self,
        job: str,
        params: dict[str, Any] | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> Event:
        """Run a job to its end and return its "result" event; for scripts and background mode.

        on_event is called with every event, in this thread. Raises JobFailed. If anything
        interrupts the wait (Ctrl-C, an error in on_event), the job is cancelled first.
        """
        job_id = self.submit(job, params, device=device, precision=precision)
        try:
            while True:
                with self._changed:
                    # A limit, because a wait without one cannot be interrupted on Windows.
                    self._changed.wait_for(lambda: self._jobs[job_id].events, timeout=0.25)
                for event in self.poll(job_id):
                    if on_event is not None:
                        on_event(event)
                    if event["event"] == "result":
                        return event
                    if event["event"] == "failed":
                        raise JobFailed(event)
        finally:
            self.forget(job_id)
            with self._changed:
                self._changed.wait_for(lambda: not self._is_running(job_id), timeout=2.5)

    def close(self) -> None:
        """End the process and the threads; unfinished jobs fail as cancelled. Takes some ms."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            manager = self._manager
        if manager is not None:
            manager.join(5.0)
            atexit.unregister(self.close)

    # The manager thread

    def _manage(self) -> None:
        while True:
            with self._changed:
                while True:
                    action, timeout = self._next_action(time.monotonic())
                    if action is not None:
                        break
                    self._changed.wait(timeout)
                closing = self._closed
            action()  # outside the lock: it may take a while, and Blender must not wait
            if closing:
                return

    def _next_action(self, now: float) -> tuple[Callable[[], None] | None, float | None]:
        """What to do now, or None and for how long to wait (None: until something changes)."""
        process, job = self._process, self._current
        if self._closed:
            return self._shut_down, None
        if process is not None and process.ended:
            return partial(self._bury, process), None
        if job is not None:
            if job.cancelled and job.kill_at == math.inf:
                job.kill_at = now + CANCEL_GRACE
                return partial(self._send, process, {"do": "cancel", "job": job.id}), None
            if now >= job.kill_at:
                return partial(self._bury, process), None
            return None, None if job.kill_at == math.inf else job.kill_at - now
        if process is not None and process.settings != self._settings:
            return partial(self._bury, process), None
        if process is None:
            return (self._start if self._waiting else None), None
        if not process.ready:
            limit = process.started + STARTUP_LIMIT
            if now >= limit:
                return partial(self._bury, process, process.startup_words("took too long")), None
            return None, limit - now
        if self._waiting:
            self._current = job = self._waiting.popleft()
            self._tell_places()
            return partial(self._send, process, job.request), None
        if self._release_wanted:
            self._release_wanted = False
            return partial(self._send, process, {"do": "release"}), None
        left = self._idle_since + self._settings.idle_seconds - now
        if left <= 0:
            return partial(self._bury, process), None
        return None, left if left < threading.TIMEOUT_MAX else None

    def _start(self) -> None:
        with self._changed:
            settings = self._settings
            if self._waiting:
                self._tell(self._waiting[0], "starting")
        process = Process(settings, self._on_message, self._changed)
        with self._changed:
            self._process = process
        process.start()

    def _send(self, process: Process, message: dict[str, Any]) -> None:
        try:
            process.send(message)
        except WireError:  # it has died; the reader may not have seen it yet
            with self._changed:
                process.ended = True
        except (TypeError, ValueError) as error:  # the job's parameters; our own words are fine
            with self._changed:
                job, self._current = self._current, None
                self._fail(job, "parameter", f"The parameters cannot be sent: {error}.")
                self._changed.notify_all()

    def _bury(self, process: Process, words: tuple[str, str, str] | None = None) -> None:
        """Kill the process if it lives. The job it had, or the one it was started for and never
        got, fails with `words` or with what its death tells."""
        blamed = words is not None or (process.ended and not process.ready)
        death = process.kill()
        with self._changed:
            self._process = None
            self._idle_since = time.monotonic()
            job, self._current = self._current, None
            if job is None and blamed and self._waiting:
                job = self._waiting.popleft()
            elif job and not (job.accepted or job.resent or job.cancelled):
                # The process had died while idle, and nobody had noticed yet.
                job.resent = True
                self._waiting.appendleft(job)
                job = None
            if job is not None:
                self._fail(job, *(words or death))
            self._tell_places()
            self._changed.notify_all()

    def _shut_down(self) -> None:
        if self._process is not None:
            self._process.kill()
        with self._changed:
            self._process = None
            for job in (self._current, *self._waiting):
                if job is not None:
                    job.cancelled = True
                    self._fail(job, "cancelled", "Cancelled.")
            self._current = None
            self._waiting.clear()
            self._changed.notify_all()

    # Events

    def _on_message(self, process: Process, event: Event, arrays: dict[str, np.ndarray]) -> None:
        """Called by the reader thread, for every event but "ready"."""
        with self._changed:
            job = self._current
            if process is not self._process or job is None or event.get("job") != job.id:
                return  # of a job that is over
            name = event.get("event")
            if name == "accepted":
                job.accepted = True
            elif name == "result":
                event["arrays"] = arrays
            elif name in ("preview", "item"):
                event["image"] = arrays.get("image")
            if name in ("result", "failed"):
                self._current = None
                self._idle_since = time.monotonic()
                if job.cancelled:
                    self._fail(job, "cancelled", "Cancelled.")
                else:
                    self._append(job, event)
            else:
                self._append(job, event)
            self._changed.notify_all()

    def _append(self, job: _Job, event: Event) -> None:
        if event["event"] == "preview":
            job.events = deque(e for e in job.events if e["event"] != "preview")
        if not job.forgotten:
            job.events.append(event)
        elif event["event"] in ("result", "failed"):
            self._jobs.pop(job.id, None)

    def _tell(self, job: _Job, event: str, **fields: Any) -> None:
        self._append(job, {"event": event, "job": job.id, **fields})

    def _fail(self, job: _Job, kind: str, sentence: str, remedy: str = "") -> None:
        if job.cancelled:
            kind, sentence, remedy = "cancelled", "Cancelled.", ""
        self._tell(job, "failed", kind=kind, sentence=sentence, remedy=remedy, traceback="")

    def _tell_places(self) -> None:
        for place, job in enumerate(self._waiting, start=1 if self._current else 0):
            if place != job.ahead:
                job.ahead = place
                self._tell(job, "queued", ahead=place)

    def _is_running(self, job_id: str) -> bool:
        return self._current is not None and self._current.id == job_id
