"""The one engine of this Blender session, and what is known of the job that runs on it."""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass, field

import bpy

from ..engine.client import EngineClient, EngineSettings, JobFailed
from ..engine.errors import TriplaneError
from .build.images import Thumbnails

PACKAGE = __package__.rpartition(".")[0]
thumbnails = Thumbnails()
failure: TriplaneError | None = None  # of the last job, for its panel; None when it went well
failure_place = ""  # which panel that is
engine_facts = ""  # what "Check Engine" has found
_client: EngineClient | None = None
_running: Running | None = None


@dataclass
class Running:
    """The job that an operator waits for in the user interface."""

    job: str
    title: str
    photo: str = ""  # shown until the first preview comes
    place: str = "photo"  # the panel that shows it: also "seed", "gallery", "blend", "models"
    step: str = "Starting the engine"
    fraction: float = 0.0
    seconds_left: float | None = None
    state: str = "starting"  # then "working", "cancelling", "importing"
    started: float = field(default_factory=time.monotonic)
    longest_tick: float = 0.0  # seconds that our timer held Blender at most, the import apart


def preferences(context: bpy.types.Context | None = None):
    """The extension's preferences."""
    return (context or bpy.context).preferences.addons[PACKAGE].preferences


def client() -> EngineClient:
    """The engine's client, with the preferences of this moment. Starts no process."""
    global _client
    settings = engine_settings()
    if _client is None:
        _client = EngineClient(settings)
    else:
        _client.configure(settings)
    return _client


def engine_settings() -> EngineSettings:
    """The preferences in the client's words."""
    chosen = preferences()
    python = interpreter()
    environment = []
    if chosen.memory_limit:
        environment.append(("TRIPLANE_MEMORY_LIMIT_MB", str(round(chosen.memory_limit * 1024))))
    return EngineSettings(
        python=python,
        engine_root=extension_folder(),
        log_path=os.path.join(files_folder(), "engine.log"),
        extra_paths=() if chosen.python else own_paths(),
        env=tuple(environment),
        idle_seconds=chosen.idle_minutes * 60 if chosen.idle_minutes else math.inf,
    )


def interpreter() -> str:
    """The Python that runs the engine: the one of the preferences, or Blender's own."""
    chosen = preferences().python
    return bpy.path.abspath(chosen) if chosen else sys.executable


def extension_folder() -> str:
    """The folder that holds engine/."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def own_paths() -> tuple[str, ...]:
    """Where Blender has put the wheels of extensions: only its own Python can load them."""
    root = os.path.normcase(bpy.utils.user_resource("EXTENSIONS"))
    return tuple(p for p in sys.path if root and os.path.normcase(p).startswith(root))


def files_folder() -> str:
    """Where the log goes. Nothing is made here before the engine writes."""
    chosen = preferences().folder
    if chosen:
        return bpy.path.abspath(chosen)
    try:
        return bpy.utils.extension_path_user(PACKAGE)
    except ValueError:  # run from a checkout, not as an extension
        return os.path.join(bpy.app.tempdir, "triplane")


def models_folder() -> str:
    """Where the models are; it may not exist. '' for the engine's own choice."""
    chosen = preferences().models_folder
    if chosen:
        return bpy.path.abspath(chosen)
    try:
        return bpy.utils.extension_path_user(PACKAGE, path="models")
    except ValueError:  # run from a checkout, not as an extension
        return ""


def log_path() -> str:
    """The engine's log file; it may not exist yet."""
    return os.path.join(files_folder(), "engine.log")


def submit(job: str, parameters: dict) -> str:
    """Queue a job with the preferences' device and precision; returns its id at once."""
    chosen = preferences()
    return client().submit(job, parameters, device=chosen.device, precision=chosen.precision)


def run_blocking(job: str, parameters: dict, on_event=None) -> dict:
    """Run a job to its end; returns the result event. Raises JobFailed."""
    chosen = preferences()
    return client().run_blocking(
        job, parameters, on_event=on_event, device=chosen.device, precision=chosen.precision
    )


def running() -> Running | None:
    """The job that runs in the user interface, or None."""
    return _running


def begin(job: str, title: str, photo: str = "", place: str = "photo") -> Running:
    """Note that an operator now waits for `job`."""
    global _running, failure
    _running, failure = Running(job, title, photo, place), None
    return _running


def end(error: TriplaneError | None = None, place: str = "photo") -> None:
    """Note that the operator no longer waits; `error` is shown in the panel `place`."""
    global _running, failure, failure_place
    _running, failure, failure_place = None, error, place
    thumbnails.drop_preview()
    redraw()


def fail(error: TriplaneError, place: str) -> None:
    """Note what has failed without an operator: shown in the panel `place`."""
    global failure, failure_place
    failure, failure_place = error, place
    redraw()


def forget_failure() -> None:
    """Clear the last failure from the panel."""
    global failure
    failure = None


def poll(job: str) -> list[dict]:
    """New events of a job; never blocks."""
    return _client.poll(job) if _client is not None else []


def cancel(job: str) -> None:
    """Ask for a job to be cancelled; its failed event follows within 2 s."""
    if _client is not None:
        _client.cancel(job)


def forget(job: str) -> None:
    """Drop a job that nobody waits for any more."""
    if _client is not None:
        _client.forget(job)


def redraw() -> None:
    """Have our panels drawn anew."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "PREFERENCES"}:
                for region in area.regions:
                    if region.type in {"UI", "WINDOW"} and area.type != "VIEW_3D":
                        region.tag_redraw()
                    elif region.type == "UI":
                        region.tag_redraw()


def close() -> None:
    """End the worker and free everything; part of unregister()."""
    global _client, _running, failure
    if _client is not None:
        _client.close()
    _client, _running, failure = None, None, None
    thumbnails.free()


__all__ = ["JobFailed", "Running"]
