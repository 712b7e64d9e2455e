"""What the scene's cameras see of a head, frame by frame, in the engine's words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import bpy
import numpy as np

from ...engine import cameras
from ...engine.errors import ParameterError
from . import head as heads


def through(
    context: bpy.types.Context,
    head: bpy.types.Object,
    choose: Callable[[bpy.types.Scene], list[bpy.types.Object]],
    frames: Iterable[int],
    size: int,
) -> list[tuple[int, bpy.types.Object, cameras.Camera, np.ndarray]]:
    """(frame, camera object, the engine's camera in the head's field space, field to world) for
    every frame and every camera that `choose` gives at it, with all animation evaluated.

    size: longest side of the pictures in pixels, 0 for the scene's own size. The scene's frame is
    as before afterwards. Raises ParameterError for a camera that the engine does not have.
    """
    found = []
    for frame in visited(context, list(frames)):
        depsgraph = context.evaluated_depsgraph_get()
        width, height = resolution(context.scene)
        scale = size / max(width, height) if size else 1.0
        world = heads.field_to_world(head.evaluated_get(depsgraph))
        for camera in choose(context.scene):
            seen = _camera(camera, depsgraph, context.scene, world)
            # The same frame on fewer or more pixels, not the view of another resolution.
            seen = seen.resized(max(1, round(width * scale)), max(1, round(height * scale)))
            found.append((frame, camera, seen, world))
    return found


def resolution(scene: bpy.types.Scene) -> tuple[int, int]:
    """Pixels of the scene's renders."""
    render = scene.render
    share = render.resolution_percentage
    return (
        max(1, render.resolution_x * share // 100),
        max(1, render.resolution_y * share // 100),
    )


def numbers(
    camera: bpy.types.Object, depsgraph: bpy.types.Depsgraph, scene: bpy.types.Scene
) -> dict:
    """What engine.cameras.from_blender wants to know of a camera, as it is at this frame."""
    now = camera.evaluated_get(depsgraph)
    data, (width, height) = now.data, resolution(scene)
    names = "type sensor_fit sensor_width sensor_height lens ortho_scale shift_x shift_y"
    return {name: getattr(data, name) for name in names.split()} | {
        "matrix_world": np.array(now.matrix_world),
        "clip_start": data.clip_start,
        "clip_end": data.clip_end,
        "resolution_x": width,
        "resolution_y": height,
        "pixel_aspect_x": scene.render.pixel_aspect_x,
        "pixel_aspect_y": scene.render.pixel_aspect_y,
    }


def _camera(camera, depsgraph, scene, world) -> cameras.Camera:
    try:
        return cameras.from_blender(numbers(camera, depsgraph, scene), world, camera.name)
    except ValueError as error:
        raise ParameterError(
            f"{camera.name} is a panoramic camera.", "Use a perspective or an orthographic one."
        ) from error
    except np.linalg.LinAlgError as error:
        raise ParameterError("The head is scaled to nothing.", "Give it a size.") from error


@contextmanager
def _kept_frame(scene: bpy.types.Scene) -> Iterator[None]:
    frame, part, camera = scene.frame_current, scene.frame_subframe, scene.camera
    try:
        yield
    finally:
        if (scene.frame_current, scene.frame_subframe) != (frame, part):
            scene.frame_set(frame, subframe=part)
            scene.camera = camera  # markers may have changed it


def visited(context: bpy.types.Context, frames: list[int]) -> Iterator[int]:
    """The frames, the scene standing at each of them; then as before."""
    scene = context.scene
    with _kept_frame(scene):
        for frame in frames:
            if scene.frame_current != frame or scene.frame_subframe:
                scene.frame_set(frame)
            else:
                context.view_layer.update()
            yield frame
