"""A head through Blender's own exporters: one file format, one call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import bpy
import numpy as np

from . import field, quads

ENDINGS = ("glb", "gltf", "obj", "ply", "usdz", "usdc", "usda", "usd", "fbx")


def write(context: bpy.types.Context, head: bpy.types.Object, path: str) -> None:
    """Write the head's mesh alone, with its texture, into a folder that holds nothing else; with
    its eyes and shape keys if it is of quads, but for .ply, which holds one plain mesh. Of a head
    with quads beside it the quads, if one of their objects is active.

    The ending says what: see ENDINGS. Lengths are the scene's, metres; nothing of the scene is
    changed. Raises RuntimeError (from the exporter) and OSError.
    """
    ending = os.path.splitext(path)[1].lower().lstrip(".")
    head, eyes = quads.exported_with(head, context.view_layer.objects.active)
    shown = [head] if ending == "ply" else [head, *eyes]
    with _alone(context, shown), ExitStack() as stack:
        for made in shown[:2]:  # both eyes have one texture
            stack.enter_context(_texture_found(made, path, ending, " eye" if made != head else ""))
        if ending in ("glb", "gltf"):
            kind = "GLB" if ending == "glb" else "GLTF_SEPARATE"
            bpy.ops.export_scene.gltf(
                filepath=path,
                export_format=kind,
                use_selection=True,
                # Blender writes no shape keys of what it applies modifiers to.
                export_apply=head.data.shape_keys is None,
                export_cameras=False,
                export_animations=False,
            )
        elif ending == "obj":
            bpy.ops.wm.obj_export(
                filepath=path,
                export_selected_objects=True,
                path_mode="STRIP",
                export_triangulated_mesh=head.data.shape_keys is None,
            )
        elif ending == "ply":
            with _coloured(head):
                bpy.ops.wm.ply_export(
                    filepath=path,
                    export_selected_objects=True,
                    export_uv=True,
                    export_normals=True,
                    export_colors="SRGB",
                    forward_axis="Y",
                    up_axis="Z",
                )
        elif ending == "fbx":
            bpy.ops.export_scene.fbx(
                filepath=path,
                use_selection=True,
                object_types={"MESH"},
                path_mode="COPY",
                embed_textures=True,
                bake_anim=False,
                apply_scale_options="FBX_SCALE_ALL",
            )
        else:
            bpy.ops.wm.usd_export(
                filepath=path,
                selected_objects_only=True,
                export_animation=False,
                export_materials=True,
                export_custom_properties=False,
                relative_paths=True,
            )


def move(source: str, target: str) -> list[str]:
    """Give all files below `source` their places below `target`; the largest of them last."""
    found = []
    for folder, _, names in os.walk(source):
        found += [os.path.join(folder, name) for name in names]
    moved = []
    for path in sorted(found, key=os.path.getsize):
        final = os.path.join(target, os.path.relpath(path, source))
        os.makedirs(os.path.dirname(final), exist_ok=True)
        os.replace(path, final)
        moved.append(final)
    return moved


@contextmanager
def _alone(context: bpy.types.Context, shown: list[bpy.types.Object]) -> Iterator[None]:
    """Only the head's objects are selected, and visible so that exporters take them."""
    layer = context.view_layer
    selected = [o for o in layer.objects if o.select_get()]
    active, hidden = layer.objects.active, [o.hide_get() for o in shown]
    for other in selected:
        other.select_set(False)
    for made in shown:
        made.hide_set(False)
        made.select_set(True)
    layer.objects.active = shown[0]
    try:
        yield
    finally:
        for made, was in zip(shown, hidden, strict=True):
            made.select_set(False)
            made.hide_set(was)
        for other in selected:
            other.select_set(True)
        layer.objects.active = active


@contextmanager
def _texture_found(
    head: bpy.types.Object, path: str, ending: str, more: str = ""
) -> Iterator[None]:
    """What exporters want of a packed texture: a file beside that they can copy, and (USD's) that
    its path ends in the image's own name: the file's with `more`."""
    image = _texture(head)
    if image is None or ending in ("glb", "gltf", "ply") or image.packed_file is None:
        yield
        return
    before = image.name, image.filepath_raw
    image.name = os.path.splitext(os.path.basename(path))[0] + more
    beside = os.path.join(os.path.dirname(path), f"{image.name}.png")
    image.filepath_raw = beside
    if ending in ("obj", "fbx"):
        field.write_whole(beside, image.packed_file.data)
    try:
        yield
    finally:
        image.name, image.filepath_raw = before
        if ending == "fbx":  # it is inside
            os.remove(beside)


def _texture(head: bpy.types.Object) -> bpy.types.Image | None:
    for material in head.data.materials:
        tree = material.node_tree if material is not None else None
        for node in tree.nodes if tree else ():
            if node.bl_idname == "ShaderNodeTexImage" and node.image is not None:
                return node.image
    return None


@contextmanager
def _coloured(head: bpy.types.Object) -> Iterator[None]:
    """The mesh has its texture's colours in its vertices, the mean of their corners'."""
    original, image = head.data, _texture(head)
    if image is None or not original.uv_layers:
        yield
        return
    data = original.copy()
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    pixels = pixels.reshape(height, width, 4)  # row 0 at the bottom, as v runs
    count = len(data.loops)
    uv, corner = np.empty(2 * count, np.float32), np.empty(count, np.int32)
    data.uv_layers.active.uv.foreach_get("vector", uv)
    data.loops.foreach_get("vertex_index", corner)
    x, y = (uv.reshape(-1, 2) * (width, height)).astype(int).clip(0, (width - 1, height - 1)).T
    colours = np.zeros((len(data.vertices), 4))
    np.add.at(colours, corner, pixels[y, x])
    colours /= np.maximum(np.bincount(corner, minlength=len(colours)), 1)[:, None]
    colours[:, 3] = 1.0
    layer = data.color_attributes.new("Color", "BYTE_COLOR", "POINT")
    # Eight bits hold display colours; they are given and taken as such.
    layer.data.foreach_set("color_srgb", colours.astype(np.float32).ravel())
    data.color_attributes.active_color = layer
    head.data = data
    try:
        yield
    finally:
        head.data = original
        bpy.data.meshes.remove(data)
