"""Cameras between the engine's convention and Blender's; the mathematics is engine/cameras.py's."""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix

from ...engine import cameras


def build_camera(
    name: str, camera: cameras.Camera, field_to_world: np.ndarray, photo: bpy.types.Image
) -> bpy.types.Object:
    """The photo's camera, its intrinsics exact, with the photo behind the scene.

    field_to_world: [4, 4] similarity from field space to the space of the camera's parent.
    """
    numbers = cameras.to_blender(camera, field_to_world)
    data = bpy.data.cameras.new(name)
    data.sensor_fit = "HORIZONTAL"
    data.sensor_width = numbers["sensor_width"]
    data.lens = numbers["lens"]
    data.shift_x, data.shift_y = numbers["shift_x"], numbers["shift_y"]
    data.clip_start, data.clip_end = 0.01, 100.0  # metres: a lens may come close to skin
    data.display_size = 0.08
    data.show_background_images = True
    background = data.background_images.new()
    background.image = photo
    background.alpha = 1.0
    background.frame_method = "FIT"
    background.display_depth = "BACK"
    result = bpy.data.objects.new(name, data)
    result.matrix_basis = Matrix(numbers["matrix_world"].tolist())
    result["triplane_resolution"] = [numbers["resolution_x"], numbers["resolution_y"]]
    return result


def from_blender(
    camera: bpy.types.Object,
    depsgraph: bpy.types.Depsgraph,
    width: int,
    height: int,
    aspect: tuple[float, float],
    field_to_world: np.ndarray,
) -> cameras.Camera:
    """The engine's camera, in field space, that sees what Blender's sees.

    width, height: pixels; aspect: Blender's pixel aspect (x, y). Perspective cameras only.
    """
    projection = np.array(
        camera.calc_matrix_camera(
            depsgraph, x=width, y=height, scale_x=aspect[0], scale_y=aspect[1]
        )
    )
    intrinsics = np.array(
        [
            [projection[0, 0] / 2, 0, 0.5 - projection[0, 2] / 2],
            [0, projection[1, 1] / 2, 0.5 + projection[1, 2] / 2],
            [0, 0, 1],
        ]
    )
    world = np.array(camera.matrix_world.normalized())
    pose = np.linalg.inv(np.asarray(field_to_world, float)) @ world
    pose = pose @ cameras.OPENCV_TO_BLENDER_CAMERA
    pose[:3, :3] /= np.cbrt(np.linalg.det(pose[:3, :3]))
    return cameras.Camera(pose, intrinsics, width, height, camera.name)
