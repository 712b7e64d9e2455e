"""How well objects are cut out of photos: renders of known outline, intersection over union.

    .venv/bin/python benchmarks/cutout.py --out /tmp/cutout [--count 5] [--write]

Needs the module bpy. Renders things in five kinds of places with Blender's Cycles (light, shadows
and noise as a camera sees them; the outline from a second render of the thing alone), cuts each
out as the job does, and prints one row a place. Pictures and a sheet stay in the folder;
--write puts the table into cutout.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PLACES = {
    "studio": "a curved plain backdrop, soft shadows",
    "wall": "a plain wall above a floor of another colour",
    "table": "a wooden table before a wall, hard light",
    "cloth": "a patterned backdrop",
    "clutter": "a room full of coloured boxes and balls",
}
SIZE = 288


def render(folder: Path, place: str, seed: int) -> tuple[Path, Path]:
    """A picture and its outline, as paths; made once."""
    import bpy

    photo, truth = folder / f"{place}-{seed}.png", folder / f"{place}-{seed}-truth.png"
    if photo.exists() and truth.exists():
        return photo, truth
    rng = np.random.default_rng([seed, sorted(PLACES).index(place)])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device = "CYCLES", "CPU"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.max_bounces = 24, False, 2
    scene.render.resolution_x = SIZE
    scene.render.resolution_y = int(SIZE * rng.choice([0.75, 1, 1.25]))
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.view_settings.view_transform = "Standard"
    thing = _thing(rng)
    others = _place(place, rng)
    lamp = bpy.data.lights.new("sun", "AREA")
    lamp.size, lamp.energy = (0.4, 260) if place == "table" else (4, 330)
    light = bpy.data.objects.new("sun", lamp)
    light.location = (rng.uniform(-3, 3), -3, 4.5)
    light.rotation_euler = _towards(light.location, (0, 0, 0.4))
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.75, 0.8, 0.9, 1)
    scene.world.node_tree.nodes["Background"].inputs[1].default_value = 0.35
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    yaw, pitch, far = rng.uniform(-0.4, 0.4), rng.uniform(0.08, 0.35), rng.uniform(4.2, 5.6)
    camera.location = (
        far * math.sin(yaw) * math.cos(pitch),
        -far * math.cos(yaw) * math.cos(pitch),
        0.6 + far * math.sin(pitch),
    )
    camera.rotation_euler = _towards(camera.location, (rng.uniform(-0.2, 0.2), 0, 0.6))
    for item in (light, camera):
        scene.collection.objects.link(item)
    scene.camera = camera
    scene.render.filepath = str(photo)
    bpy.ops.render.render(write_still=True)
    for item in others:
        item.hide_render = True
    scene.render.film_transparent, scene.cycles.samples = True, 8
    scene.render.filepath = str(truth)
    bpy.ops.render.render(write_still=True)
    assert thing.name in scene.objects
    return photo, truth


def _towards(position, target):
    from mathutils import Vector

    return (Vector(target) - Vector(position)).to_track_quat("-Z", "Y").to_euler()


def _thing(rng):
    """One thing that stands on z = 0, about 1.2 high, with a material of two colours."""
    import bpy

    kind = int(rng.integers(6))
    if kind == 0:
        bpy.ops.mesh.primitive_monkey_add(size=1.1)
    elif kind == 1:
        bpy.ops.mesh.primitive_torus_add(major_radius=0.42, minor_radius=0.17)
        bpy.context.object.rotation_euler = (math.pi / 2, 0.2, rng.uniform(-0.6, 0.6))
    elif kind == 2:
        bpy.ops.mesh.primitive_cone_add(vertices=6, radius1=0.5, radius2=0.2, depth=1.1)
    elif kind == 3:
        bpy.ops.mesh.primitive_cube_add(size=0.85)
        bpy.context.object.rotation_euler[2] = rng.uniform(0, 1.5)
    elif kind == 4:
        bpy.ops.mesh.primitive_uv_sphere_add(radius=0.55, segments=48, ring_count=24)
    else:
        bpy.ops.mesh.primitive_cylinder_add(radius=0.32, depth=1.2, vertices=48)
    thing = bpy.context.object
    thing.rotation_euler[2] += rng.uniform(-0.7, 0.7)
    bpy.context.view_layer.update()
    low = min((thing.matrix_world @ v.co).z for v in thing.data.vertices)
    thing.location.z -= low
    colours = rng.uniform(0.02, 0.9, (2, 3))
    thing.data.materials.append(_material(colours, rng.uniform(2, 6), rng.uniform(0.25, 0.8)))
    return thing


def _material(colours, scale=0.0, rough=0.8, pattern="ShaderNodeTexNoise"):
    """Plain, or with a pattern of two colours."""
    import bpy

    made = bpy.data.materials.new("material")
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    shader = nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = rough
    shader.inputs["Base Color"].default_value = (*colours[0], 1)
    if scale:
        texture, mix = nodes.new(pattern), nodes.new("ShaderNodeValToRGB")
        texture.inputs["Scale"].default_value = scale
        mix.color_ramp.elements[0].position, mix.color_ramp.elements[1].position = 0.42, 0.58
        for element, colour in zip(mix.color_ramp.elements, colours):
            element.color = (*colour, 1)
        links.new(texture.outputs[0], mix.inputs[0])
        links.new(mix.outputs[0], shader.inputs["Base Color"])
    return made


def _place(place: str, rng) -> list:
    """What stands round the thing."""
    import bpy

    grey = rng.uniform(0.25, 0.8)
    plain = _material([np.clip(grey + rng.uniform(-0.08, 0.08, 3), 0, 1)])
    made = []

    def plane(location, rotation, material, size=14.0):
        bpy.ops.mesh.primitive_plane_add(size=size, location=location, rotation=rotation)
        bpy.context.object.data.materials.append(material)
        made.append(bpy.context.object)

    upright = (math.pi / 2, 0, 0)
    if place == "studio":
        points = [(y, 0.0) for y in (-9, 1.0)]
        points += [(1 + 2 * math.sin(a), 2 - 2 * math.cos(a)) for a in np.linspace(0.1, 1.57, 12)]
        points.append((3.0, 9.0))
        verts = [(x, y, z) for y, z in points for x in (-9, 9)]
        faces = [(2 * i, 2 * i + 1, 2 * i + 3, 2 * i + 2) for i in range(len(points) - 1)]
        data = bpy.data.meshes.new("backdrop")
        data.from_pydata(verts, [], faces)
        data.shade_smooth()
        data.materials.append(plain)
        made.append(bpy.data.objects.new("backdrop", data))
        bpy.context.scene.collection.objects.link(made[0])
        return made
    if place == "table":
        wood = [(0.35, 0.18, 0.08), (0.25, 0.12, 0.05)]
        floor = _material(wood, 7.0, 0.6, "ShaderNodeTexWave")
    elif place == "cloth":
        floor = _material(rng.uniform(0.1, 0.8, (2, 3)), 5.0, 0.9, "ShaderNodeTexVoronoi")
        plain = floor
    else:
        floor = _material([rng.uniform(0.1, 0.6, 3)])
    plane((0, 0, 0), (0, 0, 0), floor)
    plane((0, 2.2, 0), upright, plain)
    if place == "clutter":
        for _ in range(26):
            size = rng.uniform(0.3, 0.9)
            spot = (rng.uniform(-3, 3), rng.uniform(0.9, 2.0), rng.uniform(0, 2.6))
            add = (bpy.ops.mesh.primitive_cube_add, bpy.ops.mesh.primitive_ico_sphere_add)
            add[int(rng.integers(2))](location=spot, scale=(size / 2,) * 3)
            bpy.context.object.data.materials.append(_material(rng.uniform(0, 0.9, (2, 3)), 3.0))
            made.append(bpy.context.object)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    from engine.cutout.find import find_object
    from engine.errors import PhotoError

    lines = ["| place | IoU, median | least | alpha error, mean | refused |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    tiles = []
    for place, meaning in PLACES.items():
        ious, errors, refused = [], [], 0
        for seed in range(args.count):
            photo, truth = render(args.out, place, seed)
            rgb = np.asarray(Image.open(photo).convert("RGB"))
            known = np.asarray(Image.open(truth).getchannel("A")).astype(np.float32) / 255
            try:
                alpha = find_object(rgb).alpha
            except PhotoError as error:
                print(place, seed, error.sentence)
                refused += 1
                alpha = np.zeros_like(known)
            else:
                both, either = (alpha > 0.5) & (known > 0.5), (alpha > 0.5) | (known > 0.5)
                ious.append(both.sum() / either.sum())
                errors.append(np.abs(alpha - known).mean())
                print(place, seed, f"{ious[-1]:.3f}", flush=True)
            cut = rgb * alpha[..., None] + np.array([255, 0, 255]) * (1 - alpha[..., None])
            pair = np.concatenate([rgb, cut.astype(np.uint8)], 1)
            tiles.append(Image.fromarray(pair).resize((320, 160)))
        if not ious:
            lines.append(f"| {place}: {meaning} | - | - | - | {refused} of {args.count} |")
            continue
        lines.append(
            f"| {place}: {meaning} | {np.median(ious):.3f} | {min(ious):.3f} | "
            f"{np.mean(errors):.4f} | {refused} of {args.count} |"
        )
    sheet = Image.new("RGB", (320 * args.count, 160 * len(PLACES)))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % args.count * 320, index // args.count * 160))
    sheet.save(args.out / "sheet.png")
    print("\n".join(lines))
    if args.write:
        command = f".venv/bin/python benchmarks/cutout.py --out DIR --count {args.count} --write"
        text = (
            "# Objects cut out of photos\n\nRenders of things in places, cut out by"
            " `engine/cutout/find.py` without any help, against\nthe known outline. Made by"
            f" `{command}`.\nThe method's numbers were chosen with"
            " pictures of this kind in view.\n\n"
        )
        Path(__file__).with_suffix(".md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
