"""Cameras around a head, as objects of the scene."""

from __future__ import annotations

import os
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector

from ...engine import cameras
from ...engine.errors import ParameterError
from ...engine.views import rigs, scenes
from .whole import whole

RIG = "triplane_rig"  # on a rig's collection: which kind it is
UNMOVED = np.eye(4)  # to the world, for cameras that are given in it


def around(head: bpy.types.Object, scene: bpy.types.Scene) -> tuple[rigs.Stage, np.ndarray]:
    """What a rig's cameras look at, and [4, 4] from the stage's space to the world.

    The stage has the field's axes as the head now stands, but metres for units, so that a stretched
    head fits into its views too. Its shape is that of the scene's renders.
    """
    turn = np.eye(4)
    turn[:3, :3] = head.matrix_world.to_quaternion().to_matrix()
    turn[:3, 3] = head.matrix_world.translation
    stage_to_world = turn @ cameras.FIELD_TO_BLENDER
    corners = np.array([[*(head.matrix_world @ Vector(c)), 1.0] for c in head.bound_box])
    inside = (corners @ np.linalg.inv(stage_to_world).T)[:, :3]
    render = scene.render
    across = render.resolution_x * render.pixel_aspect_x
    down = render.resolution_y * render.pixel_aspect_y
    # Only their ratio matters: Blender's cameras have no pixels of their own.
    side = 4096 / max(across, down)
    stage = rigs.Stage(
        tuple(inside.min(0).tolist()),
        tuple(inside.max(0).tolist()),
        max(1, round(across * side)),
        max(1, round(down * side)),
    )
    return stage, stage_to_world


def read(path: str) -> list[cameras.Camera]:
    """The cameras of a transforms.json or a folder of COLMAP's text files, in the scene's space.
    Raises ParameterError."""
    if os.path.basename(path) in ("cameras.txt", "images.txt"):
        path = os.path.dirname(path)
    try:
        if os.path.isdir(path):
            found = scenes.from_colmap(Path(path), UNMOVED)
        else:
            found = scenes.from_transforms(Path(path), UNMOVED)
    except OSError as error:
        raise ParameterError(f"The cameras cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ParameterError(f"The cameras cannot be read: {error}".rstrip(".") + ".") from error
    if not found:
        raise ParameterError("There are no cameras in the file.")
    return found


def build(
    context: bpy.types.Context,
    name: str,
    kind: str,
    found: list[cameras.Camera],
    to_world: np.ndarray,
) -> list[bpy.types.Object]:
    """The cameras as objects in one new collection of the scene, in their order.

    to_world: [4, 4] similarity from the cameras' space to the world. On an error nothing is left.
    """
    with whole():
        collection = bpy.data.collections.new(name)
        collection[RIG] = kind
        made = []
        for camera in found:
            made.append(_object(camera, to_world))
            collection.objects.link(made[-1])
        context.scene.collection.children.link(collection)
    return made


def _object(camera: cameras.Camera, to_world: np.ndarray) -> bpy.types.Object:
    numbers = cameras.to_blender(camera, to_world)
    data = bpy.data.cameras.new(camera.name)
    data.type = numbers["type"]
    for key in ("sensor_fit", "sensor_width", "shift_x", "shift_y"):
        setattr(data, key, numbers[key])
    if camera.orthographic:
        data.ortho_scale = numbers["ortho_scale"]
    else:
        data.lens = numbers["lens"]
    data.clip_start, data.clip_end = 0.01, 100.0  # metres: a lens may come close to skin
    data.display_size = 0.05  # many of them stand about
    made = bpy.data.objects.new(camera.name, data)
    made.matrix_world = Matrix(numbers["matrix_world"].tolist())
    made["triplane_resolution"] = [numbers["resolution_x"], numbers["resolution_y"]]
    return made


def bind(scene: bpy.types.Scene, made: list[bpy.types.Object], start: int) -> None:
    """A marker a camera, one frame each from `start` on; the scene's range becomes these frames.
    Markers that change the camera at one of them go."""
    last = start + len(made) - 1
    for marker in list(scene.timeline_markers):
        if marker.camera is not None and start <= marker.frame <= last:
            scene.timeline_markers.remove(marker)
    for frame, camera in enumerate(made, start):
        scene.timeline_markers.new(camera.name, frame=frame).camera = camera
    scene.frame_start, scene.frame_end = start, last


def take_resolution(scene: bpy.types.Scene, camera: cameras.Camera) -> None:
    """Have the scene render as many pixels, of the same shape, as a camera's picture has."""
    numbers = cameras.to_blender(camera, UNMOVED)
    for name in ("resolution_x", "resolution_y", "pixel_aspect_x", "pixel_aspect_y"):
        setattr(scene.render, name, numbers[name])
    scene.render.resolution_percentage = 100
