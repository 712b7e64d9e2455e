"""A head taken out of the .blend, with all that came with it."""

from __future__ import annotations

import bpy

from . import edited, field, quads
from . import head as heads


def remove(head: bpy.types.Object) -> None:
    """Remove a head, its photo's camera, mesh, materials, images and field, and its collections if
    they are empty then; what anything else uses stays, as do the artist's own children of it."""
    quads.remove_parts(head)
    camera, data = heads.photo_camera(head), head.data
    materials = [m for m in data.materials if m is not None]
    images = {n.image for m in materials for n in _nodes(m) if n.image is not None}
    images |= {head[name] for name in (field.FIELD, edited.BASE) if head.get(name) is not None}
    blocks: list[bpy.types.ID] = [data, *materials]
    if camera is not None:
        images |= {b.image for b in camera.data.background_images if b.image is not None}
        blocks.append(camera.data)
    collections = [c for c in head.users_collection if c in bpy.data.collections.values()]
    bpy.data.batch_remove([head] + ([camera] if camera is not None else []))
    for block in [*blocks, *images]:  # users before what they use
        if block.users - block.use_fake_user <= 0:
            bpy.data.batch_remove([block])
    empty = [c for c in collections if not c.objects and not c.children]
    bpy.data.batch_remove(empty)


def _nodes(material: bpy.types.Material) -> list[bpy.types.Node]:
    tree = material.node_tree
    return [n for n in tree.nodes if n.bl_idname == "ShaderNodeTexImage"] if tree else []
