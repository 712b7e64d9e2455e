"""Ten heads, each from a random seed, along a path, all looking the way they go.

    python crowd_on_path.py [--heads 10] [--seed 1] [--out crowd.blend]
    blender --background --python crowd_on_path.py -- --out crowd.blend

Writes a .blend, and a picture of it beside.
"""

from __future__ import annotations

import argparse
import os
import random
import sys

import bpy
from mathutils import Vector

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from start import api, arguments

POINTS = ((-1.2, 0.4), (-0.5, -0.5), (0.4, 0.5), (1.2, -0.3))  # of the path on the floor, metres


def path() -> bpy.types.Object:
    """A smooth curve through the points."""
    data = bpy.data.curves.new("path", "CURVE")
    data.dimensions = "3D"
    spline = data.splines.new("BEZIER")
    spline.bezier_points.add(len(POINTS) - 1)
    for point, (x, y) in zip(spline.bezier_points, POINTS, strict=True):
        point.co = (x, y, 0.0)
        point.handle_left_type = point.handle_right_type = "AUTO"
    made = bpy.data.objects.new("path", data)
    bpy.context.scene.collection.objects.link(made)
    return made


def along(curve: bpy.types.Object, count: int) -> list[tuple[Vector, Vector]]:
    """`count` places at equal distances, each with the direction of the path there."""
    bpy.context.view_layer.update()
    mesh = curve.to_mesh()
    points = [vertex.co.copy() for vertex in mesh.vertices]
    curve.to_mesh_clear()
    parts = [(b - a).length for a, b in zip(points, points[1:])]
    found = []
    for number in range(count):
        left = sum(parts) * number / max(count - 1, 1)
        index = 0
        while index < len(parts) - 1 and left > parts[index]:
            left -= parts[index]
            index += 1
        way = points[index + 1] - points[index]
        found.append((points[index] + way * min(left / parts[index], 1.0), way.normalized()))
    return found


def studio() -> None:
    """A camera that sees the whole path, a light from above, and a grey world."""
    scene = bpy.context.scene
    made = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(made)
    made.location, made.data.lens = (0.4, -3.6, 1.7), 48
    aim = Vector((0.0, 0.0, 0.12)) - made.location
    made.rotation_euler = aim.to_track_quat("-Z", "Y").to_euler()
    scene.camera = made
    light = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    scene.collection.objects.link(light)
    light.data.energy = 3.0
    light.rotation_euler = (0.7, 0.2, 0.3)
    scene.world = bpy.data.worlds.new("world")
    scene.world.color = (0.2, 0.2, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the seeds")
    parser.add_argument("--faces", type=int, default=12000, help="a head")
    parser.add_argument("--texture", type=int, default=1024, help="pixels")
    parser.add_argument("--out", default="crowd.blend")
    given = parser.parse_args(arguments())
    chance = random.Random(given.seed)
    for place, way in along(path(), given.heads):
        head = api.sample(
            seed=chance.randrange(1_000_000), faces=given.faces, texture_size=given.texture
        )
        head.object.location = place
        # A head that is not turned looks along -y.
        head.object.rotation_euler.z = way.to_track_quat("-Y", "Z").to_euler().z
    studio()
    render = bpy.context.scene.render
    render.engine, render.resolution_x, render.resolution_y = "CYCLES", 960, 540
    cycles = bpy.context.scene.cycles
    cycles.samples, cycles.use_denoising = 48, False  # not every Blender can denoise
    render.filepath = os.path.splitext(os.path.abspath(given.out))[0] + ".png"
    bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath(given.out))
    bpy.ops.render.render(write_still=True)


main()
