"""A head's mesh of quads: with shape keys, and eyes that are objects of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from . import images, mesh, png

PART = "triplane_part"  # on objects that belong to a head: 'quads' (beside it), 'eye'


@dataclass
class Quads:
    """What is built, in the object's space: vertices float32 [V, 3], faces [F, 4], uvs [F, 4, 2],
    shapes: displacements float32 [K, V, 3] of the shape keys `names`; eyes float32 [2, E, 3] round
    their centres [2, 3]."""

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    texture_png: bytes
    names: list[str]
    shapes: np.ndarray
    centres: np.ndarray
    eyes: np.ndarray
    eye_faces: np.ndarray
    eye_uvs: np.ndarray
    eye_png: bytes


def prepare(meta: dict, arrays: dict[str, np.ndarray], matrix: np.ndarray) -> Quads | None:
    """Of a job's result (see engine/jobs/quad_stages.py), None if it has no quads. matrix: [4, 4],
    field space to the object's. Touches no Blender data. Raises KeyError or ValueError."""
    if "quad_vertices" not in arrays:
        return None
    turn = matrix[:3, :3]
    centres = np.array(meta["quad"]["eyes"], float)[:, :3]
    made = Quads(
        vertices=(arrays["quad_vertices"] @ turn.T + matrix[:3, 3]).astype(np.float32),
        faces=arrays["quad_faces"],
        uvs=arrays["quad_uvs"],
        texture_png=png.encode(arrays["quad_texture"]),
        names=[str(name) for name in meta["quad"]["shapes"]],
        shapes=(arrays["quad_shapes"] @ turn.T).astype(np.float32),
        centres=centres @ turn.T + matrix[:3, 3],
        eyes=((arrays["eye_vertices"] - centres[:, None]) @ turn.T).astype(np.float32),
        eye_faces=arrays["eye_faces"],
        eye_uvs=arrays["eye_uvs"],
        eye_png=png.encode(arrays["eye_texture"]),
    )
    mesh.check(made.vertices, made.faces, made.uvs)
    for eye in made.eyes:
        mesh.check(eye, made.eye_faces, made.eye_uvs)
    if made.shapes.shape != (len(made.names), *made.vertices.shape) or made.eyes.shape[0] != 2:
        raise ValueError("the shape keys or the eyes do not fit the mesh")
    return made


def build_data(name: str, quads: Quads) -> bpy.types.Mesh:
    """The mesh with material and packed texture, and the shape keys at 0."""
    data = mesh.build_mesh(name, quads.vertices, quads.faces, quads.uvs)
    texture = images.packed(f"{name} texture", quads.texture_png, f"{name} texture.png")
    data.materials.append(mesh.build_material(name, texture))
    owner = bpy.data.objects.new(name, data)  # shape keys are added through an object
    owner.shape_key_add(name="Basis", from_mix=False)
    for key, moved in zip(quads.names, quads.shapes, strict=True):
        block = owner.shape_key_add(name=key, from_mix=False)
        block.data.foreach_set("co", (quads.vertices + moved).ravel())
        block.value = 0.0
    bpy.data.objects.remove(owner)
    return data


def build_eyes(name: str, quads: Quads, head: bpy.types.Object) -> list[bpy.types.Object]:
    """The left and the right eye, children of `head`, their origins in the eyeballs' centres; not
    yet in a collection."""
    texture = images.packed(f"{name} eye", quads.eye_png, f"{name} eye.png")
    material = mesh.build_material(f"{name} eye", texture)
    shader = next(n for n in material.node_tree.nodes if n.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Roughness"].default_value = 0.1  # wet
    shader.inputs["Specular IOR Level"].default_value = 0.5
    made = []
    for side, vertices, centre in zip(("left", "right"), quads.eyes, quads.centres, strict=True):
        data = mesh.build_mesh(f"{name} eye {side}", vertices, quads.eye_faces, quads.eye_uvs)
        data.materials.append(material)
        eye = bpy.data.objects.new(f"{name} eye {side}", data)
        eye[PART] = "eye"
        eye.parent = head
        eye.matrix_parent_inverse = Matrix()
        eye.location = centre
        made.append(eye)
    return made


def build_beside(
    name: str, quads: Quads, head: bpy.types.Object, apart: float
) -> list[bpy.types.Object]:
    """The mesh of quads as an object of its own, `apart` metres beside `head`, whose child it is,
    and its eyes; not yet in a collection."""
    made = bpy.data.objects.new(f"{name} quads", build_data(f"{name} quads", quads))
    made[PART] = "quads"
    made.parent = head
    made.matrix_parent_inverse = Matrix()
    made.location.x = apart
    return [made, *build_eyes(f"{name} quads", quads, made)]


def parts(head: bpy.types.Object) -> list[bpy.types.Object]:
    """Eyes and quads that belong to a head, as far as they are still there."""
    found = [o for o in head.children if PART in o]
    return found + [eye for o in found for eye in o.children if PART in eye]


def remove_parts(head: bpy.types.Object, keep: Sequence[bpy.types.Object] = ()) -> None:
    """Remove a head's eyes and the quads beside it, but those of `keep`, with all that nothing else
    uses."""
    old = [o for o in parts(head) if o not in keep]
    blocks = [o.data for o in old if o.type == "MESH"]
    materials = {m for data in blocks for m in data.materials if m is not None}
    pictures = {
        n.image
        for m in materials
        if m.node_tree is not None
        for n in m.node_tree.nodes
        if n.bl_idname == "ShaderNodeTexImage" and n.image is not None
    }
    bpy.data.batch_remove(old)
    for block in [*blocks, *materials, *pictures]:
        if block.users - block.use_fake_user <= 0:
            bpy.data.batch_remove([block])


def exported_with(head: bpy.types.Object, active: bpy.types.Object | None):
    """What to export for a head: the object itself, or the quads beside it where the artist works
    on those; and the eyes that belong to it."""
    while active is not None and active != head:
        if active.get(PART) == "quads" and active.parent == head:
            head = active
            break
        active = active.parent
    return head, [o for o in head.children if o.get(PART) == "eye"]
