"""What happens while a head's sliders move: small pictures from the engine over the 3D view, and at
rest the operator that refines.

All of it runs on the main thread and never waits: the sliders' update notes what is wanted, a timer
asks the engine for the newest of it, one picture at a time, and draws what has come.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field

import bpy

from ..engine.errors import TriplaneError
from . import edits, models, session, sliders
from .build import edited, head, viewport
from .build import field as field_store
from .job import unexpected

TICK = 0.02  # seconds between looks at the engine
REST = 0.4  # seconds without a change, after which the head is refined,
PICTURES = 1.5  # or as long as so many pictures take, where that is longer,
REST_AT_MOST = 2.0  # but not longer than this
SIZE = 128  # pixels a side of a picture while sliders move,
STILL = 256  # and of the one at rest
AGAIN = 1  # times that a picture is asked for anew when the engine's process has died


@dataclass
class _Live:
    """name: of the head whose sliders move. changed: when they last did. job: the engine's, of the
    picture that is under way; asked, shown: (edits, view, size) of it and of the one to be seen.
    since: when it was asked for; rest: how long sliders stand still before the head is refined.
    """

    name: str = ""
    changed: float = 0.0
    dirty: bool = False  # sliders have moved since the last refinement began
    job: str = ""
    asked: tuple = ()
    shown: tuple = ()
    place: viewport.Place | None = None
    since: float = 0.0
    rest: float = 0.0
    failures: int = 0
    resting: bool = False  # the operator is at work for these sliders
    superseded: bool = False  # its job was cancelled for newer values
    pictures: deque[float] = field(default_factory=lambda: deque(maxlen=500))  # when each came


_live = _Live()
_overlay = viewport.Overlay()
_files: dict[tuple, str] = {}  # paths of unedited fields, by edited.base_stamp
_folder = ""


def state() -> _Live:
    """What is going on, for panels and tests."""
    return _live


def on_change(context, made) -> None:
    """A slider of `made` has a new value. (The sliders' update.)"""
    if bpy.app.background or not made.is_editable or head.RECORD not in made:
        return
    if edits.refusal(made):
        return
    if _live.name != made.name:
        _leave()
        _live.name = made.name
    _live.changed, _live.dirty = time.monotonic(), True
    running = session.running()
    if _live.resting and running is not None and running.place == "edit":
        # What is being refined is no longer wanted.
        if running.state in {"starting", "working"}:
            _live.superseded = True
            running.state, running.step = "cancelling", "Taking the new values"
            session.cancel(running.job)
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=0.0)


def field_file(made) -> str:
    """The path of a temporary file with a head's unedited field, kept for the next call. Raises
    TriplaneError."""
    global _folder
    stamp = edited.base_stamp(made)
    path = _files.get(stamp, "")
    if path and os.path.isfile(path):
        return path
    try:
        data = edited.base_bytes(made)
        _drop_files()  # one is enough: they are large
        _folder = tempfile.mkdtemp(prefix="triplane-edit-", dir=bpy.app.tempdir or None)
        path = os.path.join(_folder, "field.safetensors")
        field_store.write_whole(path, data)
    except OSError as error:
        raise TriplaneError(str(error)) from error
    _files[stamp] = path
    return path


def begun(name: str) -> None:
    """The operator has begun to refine the head `name`."""
    if _live.name != name:
        _leave()
        _live.name = name
    _live.resting, _live.dirty, _live.superseded = True, False, False


def ended(made, refined: bool) -> None:
    """The operator has ended; made: its head, or None where that is gone. Unless the head was
    refined or newer values are wanted, the sliders go back to what the head is."""
    superseded, _live.resting, _live.superseded = _live.superseded, False, False
    if superseded and made is not None:
        _live.dirty = True
        return
    if made is not None and not refined:
        edits.settle(made)
    if not (refined and _live.dirty):
        _leave()


def stop() -> None:
    """Forget all that has been begun: another file is opened, or something is undone."""
    running = session.running()
    if _live.resting and running is not None and running.place == "edit":
        session.cancel(running.job)
    _leave()


def close() -> None:
    """stop(), and remove the files; part of unregister()."""
    _leave()
    _drop_files()
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)


def _leave() -> None:
    global _live
    if _live.job:
        session.forget(_live.job)
    _overlay.hide()
    _live = _Live()


def _drop_files() -> None:
    global _folder
    if _folder:
        shutil.rmtree(_folder, ignore_errors=True)
    _folder = ""
    _files.clear()


def _tick() -> float | None:
    """The timer: seconds until the next look, None for no more."""
    try:
        return _advance()
    except ReferenceError:  # the file was changed beneath us
        _leave()
    except TriplaneError as error:
        _give_up(error)
    except Exception as error:
        _give_up(unexpected(error))
    return None


def _advance() -> float | None:
    made = bpy.data.objects.get(_live.name) if _live.name else None
    if made is None:
        _leave()
        return None
    _take_events(made)
    running = session.running()
    if running is not None:  # the engine does one thing at a time
        return 0.1
    if not _live.dirty:
        if not _live.job:
            _leave()
            return None
        return TICK
    text = edits.wanted(made)
    rested = time.monotonic() - _live.changed >= max(REST, _live.rest)
    if not _live.job:
        if text == edited.applied(made) and rested:
            _leave()  # back to where it was
            return None
        if _ask(made, text, STILL if rested else SIZE):
            return TICK
    automatic = sliders.settings(bpy.context).automatic
    if rested and not _live.job and automatic and not edits.animated(made):
        _refine(made)
        return 0.1
    return 0.1 if rested else TICK


def _ask(made, text: str, size: int) -> bool:
    """Ask the engine for the picture that is wanted now; False if that is the one to be seen."""
    found = viewport.find(None, made)
    if found is None:
        return False
    _, _, region, view = found
    wanted = (text, viewport.key(region, view), size)
    if wanted == _live.shown:
        return False
    where = viewport.place(region, view, made, size)
    _live.job = session.submit(
        "edit_preview",
        {
            "field": field_file(made),
            "edits": text,
            "camera": json.dumps(where.camera.to_json()) if where.camera is not None else "",
            "size": size,
            "models": models.folder(),
        },
    )
    _live.asked, _live.place, _live.since = wanted, where, time.monotonic()
    if not _live.shown:
        session.redraw()  # the panel says that the head is being opened
    return True


def _take_events(made) -> None:
    for event in session.poll(_live.job) if _live.job else ():
        if event["event"] == "result":
            if not _live.shown:
                session.redraw()
            _live.job, _live.failures, _live.shown = "", 0, _live.asked
            _live.pictures.append(time.monotonic())
            _live.rest = min(PICTURES * (time.monotonic() - _live.since), REST_AT_MOST)
            _overlay.show(event["arrays"]["image"], _live.place)
        elif event["event"] == "failed":
            _live.job = ""
            _live.failures += 1
            if event["kind"] != "worker" or _live.failures > AGAIN:
                error = TriplaneError(event["sentence"], event["remedy"])
                error.kind = event["kind"]
                raise error


def _give_up(error: TriplaneError) -> None:
    """The picture cannot be had: say why, and have the sliders say what the head is."""
    made = bpy.data.objects.get(_live.name)
    _leave()
    if made is not None:
        edits.settle(made)
    session.fail(error, "edit")


def _refine(made) -> None:
    """Start the operator, as its button would."""
    found = viewport.find(None, made)
    if found is None:
        _live.dirty = False
        return
    window, area, region, _ = found
    with bpy.context.temp_override(window=window, area=area, region=region):
        if bpy.ops.triplane.edit_head.poll():
            bpy.ops.triplane.edit_head("INVOKE_DEFAULT", head=made.name)
        else:
            _live.dirty = False  # it says itself why not


@bpy.app.handlers.persistent
def _triplane_before_load(*_) -> None:
    stop()
    _drop_files()
    edited.forget()


@bpy.app.handlers.persistent
def _triplane_settle(*_) -> None:
    """After opening, undo and redo: sliders say what the heads are."""
    stop()
    for made in bpy.data.objects:
        if head.RECORD in made and made.library is None:
            edits.settle(made)


_HANDLERS = (
    ("load_pre", _triplane_before_load),
    ("load_post", _triplane_settle),
    ("undo_post", _triplane_settle),
    ("redo_post", _triplane_settle),
)


def register():
    for kind, handler in _HANDLERS:
        getattr(bpy.app.handlers, kind).append(handler)
    sliders.listen(on_change)


def unregister():
    close()
    for kind, handler in _HANDLERS:
        installed = getattr(bpy.app.handlers, kind)
        if handler in installed:
            installed.remove(handler)
