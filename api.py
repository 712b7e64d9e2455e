"""Triplane for scripts, with return values. In the interface as in the background:

    from bl_ext.user_default.triplane import api

    head = api.sample(seed=7)
    head.export("head.glb")
    head.remove()

Every call waits until it is done and raises `api.Error`, with a sentence, if it cannot be. One
process, started by the first call, does all the work; `api.close()` or Blender's end ends it.
Whatever is not said here is as in the operators of the same names (bpy.ops.triplane).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import bpy
import numpy as np

from .engine.errors import TriplaneError
from .engine.views import rigs
from .operators import newhead, session, viewing
from .operators.build import edited, exported, removed
from .operators.build import head as heads

__all__ = [
    "Error",
    "Head",
    "close",
    "edit_head",
    "heads_of_scene",
    "load",
    "reconstruct",
    "reconstruct_object",
    "sample",
]


class Error(RuntimeError):
    """What was asked for cannot be done; the message says why, and what helps."""


class Head:
    """A head of the scene: `object` is Blender's, with mesh, texture, camera and field."""

    def __init__(self, made: bpy.types.Object) -> None:
        """made: an object that Triplane has made. Raises Error for any other."""
        if heads.RECORD not in made:
            raise Error(f"{made.name} is no head that Triplane has made.")
        self.object = made

    def __repr__(self) -> str:
        try:
            return f"<Head {self.object.name!r}>"
        except ReferenceError:
            return "<Head, removed>"

    @property
    def name(self) -> str:
        return self.object.name

    @property
    def record(self) -> dict[str, Any]:
        """How it was made: model, recipe or preset, parameters, figures, timings, versions."""
        return heads.record(self.object)

    @property
    def camera(self) -> bpy.types.Object | None:
        """The camera of its photo, or of its front view; None if it was deleted."""
        return heads.photo_camera(self.object)

    def mesh(self, **params: Any) -> bpy.types.Mesh:
        """Its mesh; with parameters (faces, texture_size, topology, density) first made anew from
        the field."""
        if params:
            self._call("extract_mesh", **params)
        return self.object.data

    def rig(self, rig: str = "CIRCLE", **params: Any) -> list[bpy.types.Object]:
        """New cameras around it, and markers that show one a frame. rig: 'CIRCLE', 'SPHERE',
        'SHEET' or 'FILE'; params: count, pitch, lowest, highest, orthographic, filepath, markers.
        The names of the cameras are those of the views."""
        before = {o.session_uid for o in bpy.data.objects}
        self._call("camera_rig", rig=rig, **params)
        return [o for o in bpy.context.selected_objects if o.session_uid not in before]

    def views(
        self,
        cameras: bpy.types.Object | Iterable[bpy.types.Object] | None = None,
        frames: int | tuple[int, int] | None = None,
        folder: str | os.PathLike[str] = "",
        **params: Any,
    ) -> list[str]:
        """Pictures of its field: their paths, camera by camera, frame by frame.

        cameras: one or more; None for the scene's. frames: one, or the first and the last; None for
        the present one. folder: of several cameras each has a folder of its own in it; '' for
        'views' beside the .blend. params: size, format ('png', 'png16', 'exr'), background, plane,
        compositor. What is there already is not made again.
        """
        if cameras is None:
            cameras = [bpy.context.scene.camera]
        chosen = [cameras] if isinstance(cameras, bpy.types.Object) else list(cameras)
        if None in chosen or not chosen:
            raise Error("There is no camera.")
        first, last = _range(frames)
        paths = []
        for camera in chosen:
            into = viewing.folder(os.fspath(folder))
            if len(chosen) > 1 or not folder:
                into = os.path.join(into, viewing.file_name(camera.name))
            given = {"camera": camera.name, "frame_start": first, "frame_end": last}
            self._call("bake_views", frames="RANGE", folder=into, **given, **params)
            ending = "exr" if params.get("format") == "exr" else "png"
            stem = os.path.join(into, viewing.file_name(self.name))
            paths += [f"{stem}_{frame:04d}.{ending}" for frame in range(first, last + 1)]
        return paths

    def sheet(self, path: str | os.PathLike[str], **params: Any) -> str:
        """Its views side by side in a .png, with a .json of the same name; returns the path.
        params: template ('turnaround', 'character'), size, captions, perspective, transparent,
        colour, seeds."""
        path = _path(path, (".png",))
        before = {image.session_uid for image in bpy.data.images}
        folder, name = os.path.split(path)
        self._call("view_sheet", folder=folder, name=os.path.splitext(name)[0], **params)
        # A script has the file: without this each sheet would stay in memory as an image as well.
        bpy.data.batch_remove([i for i in bpy.data.images if i.session_uid not in before])
        return path

    def dataset(self, folder: str | os.PathLike[str], **params: Any) -> str:
        """A data set for training; returns the path of its transforms.json. params: views, size,
        points, lowest, highest."""
        folder = os.path.abspath(os.fspath(folder))
        self._call("export_dataset", folder=folder, **params)
        return os.path.join(folder, "transforms.json")

    def edit(self, **amounts: float) -> None:
        """Change it along semantic directions (age=1, smile=0.5, nose_width=-1), counted from the
        head as it was made: what is not named is as it was then, and edit() takes all edits back.
        Mesh, texture and field are replaced."""
        text = ", ".join(f"{name}={float(value)!r}" for name, value in amounts.items())
        self._call("edit_head", edits=text or "none")

    @property
    def edits(self) -> str:
        """The edits that it has, such as 'age=1, smile=0.5'."""
        return edited.applied(self.object)

    def export(self, path: str | os.PathLike[str]) -> str:
        """Its mesh with the texture as .glb, .gltf, .obj, .ply, .usdz, .usdc, .usda or .fbx;
        returns the path."""
        path = _path(path, tuple(f".{ending}" for ending in exported.ENDINGS))
        self._call("export_head", filepath=path)
        return path

    def save_field(self, path: str | os.PathLike[str]) -> str:
        """Its radiance field as a .safetensors file, which `load` reads; returns the path."""
        path = _path(path, (".safetensors",))
        self._call("save_field", filepath=path)
        return path

    def remove(self) -> None:
        """Take it out of the .blend with all that came with it, and that nothing else uses."""
        removed.remove(self.object)

    def _call(self, name: str, /, **params: Any) -> None:
        heads.select(bpy.context, self.object)
        if bpy.context.view_layer.objects.active != self.object:
            raise Error(f"{self.name} is not in the scene's view layer.")
        _operator(name, **params)


def reconstruct(photo: str | os.PathLike[str], **params: Any) -> Head:
    """A head from a photo. params: preset ('instant', 'fast', 'balanced', 'best'), face_index,
    points, topology ('SURFACE', 'QUAD', 'BOTH'), density of quads ('LOW', 'MEDIUM', 'HIGH'), faces,
    texture_size, seed, refine_steps, method, model (the name of an EG3D model of faces)."""
    return _made("reconstruct_head", filepath=os.path.abspath(os.fspath(photo)), **params)


def reconstruct_object(photo: str | os.PathLike[str], **params: Any) -> Head:
    """A thing from a picture: it has all that a head has. params: mask (a path, or the name of an
    image or a mask), model, size (metres), faces, texture_size."""
    return _made("reconstruct_object", filepath=os.path.abspath(os.fspath(photo)), **params)


def sample(seed: int = 0, **params: Any) -> Head:
    """A head that nobody has. params: model, psi, mix_seed, mix_from, mix_to, heads (a text such as
    '3, 9') with at and space, topology, density, faces, texture_size, name, and the rest of
    sample_head's."""
    return _made("sample_head", seed=seed, **params)


def load(
    path: str | os.PathLike[str],
    faces: int = 40000,
    texture_size: int = 2048,
    name: str = "",
    topology: str = "SURFACE",
    density: str = "MEDIUM",
) -> Head:
    """A head from a file with its radiance field, such as `save_field` writes."""
    path = os.path.abspath(os.fspath(path))
    name = name or os.path.basename(path).partition(".")[0]
    sizes = {"faces": faces, "texture_size": texture_size}
    sizes |= {"topology": topology, "density": density}
    try:
        result = session.run_blocking("extract", {"field": path, **sizes})
        arrays = result["arrays"]
        points = arrays["vertices" if "vertices" in arrays else "quad_vertices"]
        front = rigs.Stage(tuple(points.min(0)), tuple(points.max(0))).camera(0.0, 0.0, "front")
        camera = front.to_json()
        shown = {"field": path, "camera": json.dumps(camera)}
        picture = session.run_blocking("render", shown)
        with open(path, "rb") as file:
            field = np.frombuffer(file.read(), np.uint8)
        arrays = result["arrays"] | {"photo": picture["arrays"]["image"], "field": field}
        meta = result["meta"] | {"name": name, "camera": camera}
        return Head(newhead.build(bpy.context, heads.prepare(meta, arrays), sizes))
    except TriplaneError as error:
        raise Error(f"{error.sentence} {error.remedy}".strip()) from error
    except OSError as error:
        raise Error(f"{path} cannot be read: {error.strerror or error}.") from error


def edit_head(head: Head | bpy.types.Object, **amounts: float) -> Head:
    """Change a head along semantic directions: edit_head(head, age=1, smile=0.5). See Head.edit."""
    head = head if isinstance(head, Head) else Head(head)
    head.edit(**amounts)
    return head


def heads_of_scene() -> list[Head]:
    """All heads of the scene, by name."""
    found = (o for o in bpy.context.scene.objects if heads.RECORD in o)
    return [Head(o) for o in sorted(found, key=lambda o: o.name)]


def close() -> None:
    """End the process that does the work. The next call starts a new one."""
    session.close()


def _made(name: str, /, **params: Any) -> Head:
    _operator(name, **params)
    return Head(bpy.context.view_layer.objects.active)


def _operator(name: str, /, **params: Any) -> None:
    """Call an operator of ours, waiting for it."""
    try:
        done = getattr(bpy.ops.triplane, name)("EXEC_DEFAULT", **params)
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or [""]
        raise Error(lines[0].removeprefix("Error: ").strip()) from error
    if "FINISHED" not in done:
        raise Error("It was cancelled.")


def _range(frames: int | Sequence[int] | None) -> tuple[int, int]:
    if frames is None:
        frames = bpy.context.scene.frame_current
    if isinstance(frames, int):
        return frames, frames
    return frames[0], frames[-1]


def _path(path: str | os.PathLike[str], endings: tuple[str, ...]) -> str:
    """Absolute, with one of these endings. Raises Error; makes the folder if it is missing."""
    path = os.path.abspath(os.fspath(path))
    if os.path.splitext(path)[1].lower() not in endings:
        raise Error(f"{os.path.basename(path)} does not end in {' or '.join(endings)}.")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path
