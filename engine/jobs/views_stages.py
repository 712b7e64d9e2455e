"""What the jobs views, sheet and dataset share and do. Imports torch: only from inside a run."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine import cameras, jobs
from engine.cameras import FIELD_TO_BLENDER, Camera
from engine.errors import OutputError, ParameterError
from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.fields.io import load_field, read_file
from engine.jobs import result_stages, stages
from engine.jobs.base import Context, Result
from engine.views import rigs, scenes
from engine.views.frame import extent
from engine.views.sequence import Style, View, bake

THUMBNAIL = 64
MOST_VIEWS = 100_000
# The field of the last of these jobs, by its contents: several cameras are a job each.
_last: dict[str, Field] = {}
jobs.at_release(_last.clear)


@dataclass(frozen=True)
class Subject:
    """A field, what tells its contents apart, and where it stands: field space to the scene's."""

    field: Field
    identity: str
    field_to_world: np.ndarray


def open_subject(params: dict[str, Any], context: Context) -> Subject:
    """The field of the params `field` and `field_to_world`, where it is computed. Raises
    WeightsError and ParameterError."""
    data = read_file(params["field"])
    identity = hashlib.sha256(data).hexdigest()
    field = _last.get(identity) or load_field(data)
    compute = stages.choose_compute(context, large=not isinstance(field, HeadField))
    _last.clear()
    _last[identity] = field
    if params["field_to_world"]:
        world = np.array(params["field_to_world"], float).reshape(4, 4)
        if abs(np.linalg.det(world)) < 1e-12:
            raise ParameterError("field_to_world cannot be inverted.")
    else:
        scale = field.metres_per_unit
        world = FIELD_TO_BLENDER @ np.diag([scale, scale, scale, 1.0])
    return Subject(field.to(compute.device), identity, world)


def read_views(
    params: dict[str, Any],
    field: Field,
    field_to_world: np.ndarray,
    box: np.ndarray | None = None,
    level: float | None = None,
) -> list[View]:
    """What the params `cameras`, `size` and `orthographic` name, in field space.

    field_to_world: [4, 4], to the scene's space, in which files of other programs are. box: [2, 3],
    what a rig shows, in field units, by default the head; level: see rigs.Stage. Raises
    ParameterError.
    """
    text = params["cameras"].strip()
    try:
        if text[:1] in ("[", "{"):
            found = _listed(json.loads(text))
        elif re.fullmatch(r"(circle|sphere|character|turnaround)(:[-\d.:]*)?", text):
            low, high = extent(field) if box is None else box
            side, flat = params["size"], params["orthographic"]
            stage = rigs.Stage(tuple(low), tuple(high), side, side, orthographic=flat, level=level)
            found = _numbered(rigs.from_words(text, stage))
        else:
            found = _from_file(Path(text), field_to_world)
    except OSError as error:
        raise ParameterError(f"The cameras' file cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError(
            f"The cameras cannot be read: {error}".rstrip(".") + ".",
            "Give a rig such as circle:48, a list of cameras, or a file that holds one.",
        ) from error
    if not 1 <= len(found) <= MOST_VIEWS:
        raise ParameterError(f"There must be 1 to {MOST_VIEWS} cameras.")
    if len({view.frame for view in found}) < len(found):
        raise ParameterError("Two cameras have the same frame number.")
    for view in found:
        if not (0 < view.camera.width <= 16384 and 0 < view.camera.height <= 16384):
            raise ParameterError("The cameras' pictures must have 1 to 16384 pixels a side.")
    return found


def bake_views(params: dict[str, Any], context: Context) -> Result:
    """The job `views`."""
    name = check_name(params["name"])
    context.progress(0.0, "loading the field")
    subject = open_subject(params, context)
    views = read_views(params, subject.field, subject.field_to_world)
    folder = make_folder(params["folder"])
    world = tuple(float(x) for x in subject.field_to_world.ravel())
    # Only an .exr depends on where the head stands.
    style = (
        Style("exr", params["normals"], world)
        if params["format"] == "exr"
        else Style(params["format"])
    )
    edited = None
    if any(view.edits for view in views):
        edited = _editor(params, context)
    frames = write_views(subject, views, folder, name, style, context, edited=edited)
    meta = {
        "name": name,
        "folder": str(folder),
        "frames": frames,
        "made": sum(frame["made"] for frame in frames),
        "versions": result_stages.versions(),
    }
    return context.result(meta)


def write_views(
    subject: Subject,
    views: list[View],
    folder: Path,
    name: str,
    style: Style,
    context: Context,
    share: float = 1.0,
    inside: str = "",
    edited: Callable[[str], Field] | None = None,
) -> list[dict[str, Any]]:
    """Bake views, reporting progress (up to `share`) and an item a picture made: [{frame, path,
    made}]. inside, edited: see bake()."""
    frames, made, started = [], 0, time.monotonic()
    step, left = "rendering the views", None
    context.progress(0.02 * share, step)
    given = subject.field, subject.identity, views, folder, name, style, context.check, inside
    baked = bake(*given, edited)
    for written in baked:
        facts = {"frame": written.frame, "path": str(written.path), "made": bool(written.shown)}
        frames.append(facts)
        if written.shown is not None:
            made += 1
            left = (time.monotonic() - started) / made * (len(views) - len(frames))
            seen = thumbnail(written.shown.rgba)
            context.item({**facts, "index": written.index}, seen)
        else:
            started = time.monotonic() if not made else started
        context.progress((0.02 + 0.98 * len(frames) / len(views)) * share, step, left)
    return frames


def _editor(params: dict[str, Any], context: Context) -> Callable[[str], Field]:
    """The field of a text of edits, of the head in the params; the last one is kept."""
    from engine.editing.open import open_head
    from engine.sampling.edits import parse_edits

    compute = stages.choose_compute(context, large=True)
    editor, _ = open_head(params["field"], "", params["models"], compute)

    @lru_cache(maxsize=1)
    def edited(text: str) -> Field:
        return editor.edited(parse_edits(text), check=context.check).field

    return edited


def thumbnail(rgba: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """uint8 [h, w, 3] of uint8 [H, W, 4], on dark grey, the longer side `side` pixels long."""
    image = Image.fromarray(rgba)
    image.thumbnail((side, side))
    plain = Image.new("RGBA", image.size, (*result_stages.BACKDROP, 255))
    return np.asarray(Image.alpha_composite(plain, image).convert("RGB"))


def check_name(name: str) -> str:
    """A name that files may start with. Raises ParameterError."""
    if not re.fullmatch(r"\w[\w .-]{0,100}", name):
        raise ParameterError(
            "The name must start with a letter or a digit and hold letters, digits, blanks, dots,"
            " hyphens and underscores only."
        )
    return name


def make_folder(text: str) -> Path:
    """The folder, made if it is missing. Raises ParameterError and OutputError."""
    if not text:
        raise ParameterError("There is no folder for the pictures.", "Name one.")
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder.name} cannot be made: {error.strerror}.",
            "Choose a folder that can be written to.",
        ) from error
    return folder


def _from_file(path: Path, field_to_world: np.ndarray) -> list[View]:
    if path.is_dir():
        return _numbered(scenes.from_colmap(path, field_to_world))
    facts = json.loads(path.read_text("utf-8"))
    if isinstance(facts, dict) and "frames" in facts:
        return _numbered(scenes.from_transforms(path, field_to_world))
    return _listed(facts)


def _listed(facts: Any) -> list[View]:
    """A camera, or a list of cameras or of {"frame", "camera"}, which may have a "field_to_world"
    of their own where the head moves, and "edits" where it changes; frames count from 1."""
    if isinstance(facts, dict):
        facts = facts.get("cameras", [facts])
    out = []
    for number, item in enumerate(facts, 1):
        if not isinstance(item, dict):
            raise ValueError("a camera is no JSON object")
        camera = cameras.from_json(item.get("camera", item))
        frame = item.get("frame", number)
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise ValueError("a frame is no whole number")
        changes = item.get("edits", "")
        if not isinstance(changes, str):
            raise ValueError("edits are no text")
        out.append(View(camera, frame, _own_place(item), changes))
    return out


def _own_place(item: dict[str, Any]) -> tuple[float, ...] | None:
    if "field_to_world" not in item:
        return None
    world = np.array(item["field_to_world"], float)
    if world.shape != (16,) or abs(np.linalg.det(world.reshape(4, 4))) < 1e-12:
        raise ValueError("a field_to_world is no invertible matrix of 16 numbers")
    return tuple(world.tolist())


def _numbered(found: list[Camera]) -> list[View]:
    return [View(camera, number) for number, camera in enumerate(found, 1)]
