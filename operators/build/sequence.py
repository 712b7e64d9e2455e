"""Pictures from the engine as an image sequence in the .blend."""

from __future__ import annotations

import json
import math
import os

import bpy

from . import head
from .whole import whole

SIDE = 0.4  # metres of the plane: about as much as the pictures show of a head's surroundings


def build(
    context: bpy.types.Context, name: str, frames: list[str], start: int, facts: dict
) -> bpy.types.Object:
    """A plane that shows the pictures, and a camera that sees just it with the pictures behind.

    frames: the pictures' paths, numbered from 1 without gaps; the first is seen at the scene's
    frame `start`. facts: JSON-able, kept on the plane.
    Returns the plane, selected; on an error nothing is left.
    """
    with whole():
        collection = bpy.data.collections.new(name)
        image = bpy.data.images.load(_short(frames[0]))
        image.name = name
        resolution = list(image.size)
        image.source = "SEQUENCE"
        plane = bpy.data.objects.new(name, _plane(name, image, len(frames), start))
        plane[head.SEQUENCE] = json.dumps({"frames": len(frames), "start": start, **facts})
        plane.location.x = head.free_place(context.scene)
        collection.objects.link(plane)
        camera = _camera(name, plane, image, len(frames), start)
        camera["triplane_resolution"] = resolution
        collection.objects.link(camera)
        context.scene.collection.children.link(collection)
    head.select(context, plane)
    return plane


def _short(path: str) -> str:
    """Relative to the .blend where it can be, so that both may be moved together."""
    if bpy.data.filepath:
        try:
            return bpy.path.relpath(path)
        except ValueError:  # another drive of Windows
            return path
    return path


def _timed(user: bpy.types.ImageUser, count: int, start: int) -> None:
    user.frame_duration, user.frame_start = count, start
    user.frame_offset = 0  # the files are numbered from 1
    user.use_auto_refresh = True


def _plane(name: str, image: bpy.types.Image, count: int, start: int) -> bpy.types.Mesh:
    half = SIDE / 2
    corners = [(-half, 0, 0), (half, 0, 0), (half, 0, SIDE), (-half, 0, SIDE)]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
    layer = mesh.uv_layers.new(name="UVMap", do_init=False)
    layer.uv.foreach_set("vector", (0, 0, 1, 0, 1, 1, 0, 1))
    material = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0):  # later versions always have nodes, and warn when told so
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    picture = nodes.new("ShaderNodeTexImage")
    picture.image = image
    picture.extension = "EXTEND"
    _timed(picture.image_user, count, start)
    emission = nodes.new("ShaderNodeEmission")  # the pictures have their own light in them
    output = nodes.new("ShaderNodeOutputMaterial")
    picture.location, emission.location, output.location = (-320, 0), (0, 0), (200, 0)
    links.new(picture.outputs["Color"], emission.inputs["Color"])
    links.new(emission.outputs["Emission"], output.inputs["Surface"])
    nodes.active = picture  # what solid shading shows in its texture mode
    mesh.materials.append(material)
    return mesh


def _camera(
    name: str, plane: bpy.types.Object, image: bpy.types.Image, count: int, start: int
) -> bpy.types.Object:
    data = bpy.data.cameras.new(f"{name} camera")
    data.sensor_fit = "HORIZONTAL"
    data.display_size = 0.08
    data.show_background_images = True
    background = data.background_images.new()
    background.image = image
    background.alpha = 1.0
    background.frame_method = "FIT"
    background.display_depth = "BACK"
    _timed(background.image_user, count, start)
    camera = bpy.data.objects.new(f"{name} camera", data)
    camera.parent = plane
    camera.location = (0, -SIDE * data.lens / data.sensor_width, SIDE / 2)
    camera.rotation_euler = (math.pi / 2, 0, 0)
    return camera


def unused(folder: str, name: str) -> str:
    """A path in `folder` that does not exist yet: `name`, or `name` with a number."""
    stem, number = bpy.path.clean_name(name), 1
    path = os.path.join(folder, stem)
    while os.path.lexists(path):
        number += 1
        path = os.path.join(folder, f"{stem}-{number}")
    return path
