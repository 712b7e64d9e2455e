"""What a head keeps when its mesh is replaced: materials, weights, shape keys; of a mesh with the
same faces all that an artist has put on it."""

from __future__ import annotations

import bpy
import numpy as np
from mathutils.kdtree import KDTree


def same_faces(old: bpy.types.Mesh, new: bpy.types.Mesh) -> bool:
    """Whether two meshes have the same corners in the same order, as quads of one density have."""
    sizes = [(len(m.vertices), len(m.polygons), len(m.loops)) for m in (old, new)]
    return sizes[0] == sizes[1] and bool((_corners(old) == _corners(new)).all())


def move(made: bpy.types.Object, new: bpy.types.Mesh) -> None:
    """Move the points of a head's mesh, and of its shape keys, to those of `new`, which goes. Shape
    keys that only the old mesh has move along with its base; all else stays as it is."""
    if made.data.users > 1:  # another object's as well
        made.data = made.data.copy()
    old = made.data
    after = _points(new.vertices)
    shift, theirs = after - _points(old.vertices), _keys(new)
    for name, key in _keys(old).items():
        points = _points(theirs[name].data) if name in theirs else _points(key.data) + shift
        key.data.foreach_set("co", points.ravel())
    old.vertices.foreach_set("co", after.ravel())
    own = [m for m in new.materials if m is not None]
    _show(old, _texture(new), _texture(old))
    bpy.data.meshes.remove(new)
    _tidy(own)


def over(made: bpy.types.Object, new: bpy.types.Mesh) -> list[str]:
    """Make `new` a head's mesh, with materials, vertex groups and shape keys of the old one: points
    take weights and displacements of the nearest old point. Returns what is lost all the same, in
    an artist's words. The old mesh goes if nothing else uses it."""
    old, lost = made.data, _lost(made.data)
    names = [g.name for g in made.vertex_groups]
    theirs, texture = [m for m in old.materials if m is not None], _texture(old)
    own = [m for m in new.materials if m is not None]
    made.data = new
    if theirs:
        shown = _texture(new)
        new.materials.clear()
        for material in old.materials:
            new.materials.append(material)
        if not _show(new, shown, texture, old if not old.users else None):
            lost.append("the new texture: the material does not show the head's")
    values = {name: key.value for name, key in _keys(old).items()}
    missing = [n for n in values if n not in _keys(new) and n != old.shape_keys.reference_key.name]
    if names or missing:
        near = _nearest(old, new)
        _copy_weights(made, names, old, near)
        _copy_keys(made, missing, old, near)
    for name, key in _keys(new).items():
        key.value = values.get(name, 0.0)
    if not old.users:
        bpy.data.meshes.remove(old)
    _tidy(own)
    return lost


def image_nodes(material: bpy.types.Material) -> list[bpy.types.Node]:
    """A material's nodes that show an image."""
    tree = material.node_tree
    return [n for n in tree.nodes if n.bl_idname == "ShaderNodeTexImage"] if tree else []


def _lost(data: bpy.types.Mesh) -> list[str]:
    out = []
    if len(data.uv_layers) > 1:
        out.append("further UV maps")
    if len(data.color_attributes):
        out.append("colour attributes")
    if len([m for m in data.materials if m is not None]) > 1:
        out.append("which faces have which material")
    return out


def _texture(data: bpy.types.Mesh) -> bpy.types.Image | None:
    """The texture that we have baked, among the images that a mesh's materials show."""
    for material in data.materials:
        for node in image_nodes(material) if material is not None else ():
            image = node.image
            if image is not None and image.filepath_raw.endswith("_texture.png"):
                return image
    return None


def _show(
    data: bpy.types.Mesh,
    new: bpy.types.Image | None,
    old: bpy.types.Image | None,
    leaving: bpy.types.Mesh | None = None,
) -> bool:
    """Have a mesh's materials show `new` where they show `old`; whether any does. A material that
    others use too is copied, so that theirs stays; `leaving` does not count."""
    found = False
    ours = [*data.materials, *(leaving.materials if leaving is not None else ())]
    for slot, material in enumerate(data.materials):
        if material is None or old is None or material.library is not None:
            continue
        if not any(node.image == old for node in image_nodes(material)):
            continue
        if material.users - material.use_fake_user > ours.count(material):
            material = data.materials[slot] = material.copy()
        for node in image_nodes(material):
            if node.image == old:
                node.image, found = new, True
    return found


def _nearest(old: bpy.types.Mesh, new: bpy.types.Mesh) -> np.ndarray:
    """int [V]: for every point of `new` the nearest of `old`."""
    tree = KDTree(len(old.vertices))
    for index, point in enumerate(_points(old.vertices)):
        tree.insert(point, index)
    tree.balance()
    return np.array([tree.find(point)[1] for point in _points(new.vertices)])


def _copy_weights(made, names, old, near) -> None:
    groups = [made.vertex_groups.get(name) or made.vertex_groups.new(name=name) for name in names]
    weights = [[(g.group, g.weight) for g in v.groups] for v in old.vertices] if names else []
    for index, source in enumerate(near if names else ()):
        for group, weight in weights[source]:
            groups[group].add([index], weight, "REPLACE")


def _copy_keys(made, names, old, near) -> None:
    if names and made.data.shape_keys is None:
        made.shape_key_add(name=old.shape_keys.reference_key.name, from_mix=False)
    at = _points(made.data.vertices)
    for name in names:
        key = _keys(old)[name]
        moved = _points(key.data) - _points(old.shape_keys.reference_key.data)
        block = made.shape_key_add(name=name, from_mix=False)
        block.slider_min, block.slider_max = key.slider_min, key.slider_max
        block.data.foreach_set("co", (at + moved[near]).ravel())


def _keys(data: bpy.types.Mesh) -> dict[str, bpy.types.ShapeKey]:
    return {k.name: k for k in data.shape_keys.key_blocks} if data.shape_keys else {}


def _points(items) -> np.ndarray:
    """float32 [N, 3] of vertices or a shape key's points."""
    out = np.empty(3 * len(items), np.float32)
    items.foreach_get("co", out)
    return out.reshape(-1, 3)


def _corners(data: bpy.types.Mesh) -> np.ndarray:
    out = np.empty(len(data.loops), np.int32)
    data.loops.foreach_get("vertex_index", out)
    return out


def _tidy(materials: list[bpy.types.Material]) -> None:
    """Remove those of our new materials that nothing uses, and their images."""
    for material in materials:
        if not material.users:
            shown = {n.image for n in image_nodes(material) if n.image is not None}
            bpy.data.materials.remove(material)
            bpy.data.batch_remove([i for i in shown if not i.users])


__all__ = ["image_nodes", "move", "over", "same_faces"]
