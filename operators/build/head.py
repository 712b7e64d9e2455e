"""A reconstruction's result to a head in the .blend: all of it, or nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from ...engine import cameras
from . import camera as camera_builder
from . import field as field_store
from . import images, mesh, png, quads
from .whole import whole

RECORD = "triplane_record"  # on a head's object; what makes it a head
SEQUENCE = "triplane_sequence"  # on a plane that shows pictures of heads, see sequence.py
KEPT = (  # of the meta
    "kind preset seed model recipe metres_per_unit licence noncommercial warnings timings figures"
    " versions"
).split()
APART = 0.35  # metres between heads that stand side by side


@dataclass
class Prepared:
    """What `build` needs, with all slow work done: arrays in the head's space, images encoded.

    vertices, faces, uvs, texture_png: of the surface with hair, or where there is none of the quads
    themselves. quads: the mesh of quads, if there is one; beside: it stands beside the surface.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    texture_png: bytes
    photo_png: bytes  # empty for the job 'extract', like the next two
    field: bytes
    camera: cameras.Camera | None
    field_to_object: np.ndarray
    record: dict
    quads: quads.Quads | None = None
    beside: bool = False


def prepare(meta: dict, arrays: dict[str, np.ndarray], field_to_object=None) -> Prepared:
    """Check a job's result and encode its images. Touches no Blender data: run it in a thread.

    meta, arrays: those of the jobs 'reconstruct' and 'extract' (see engine/jobs).
    field_to_object: [4, 4], where the result's meta does not say it (field_to_world).
    Raises KeyError or ValueError when the result is not what the job promises.
    """
    if field_to_object is None:
        field_to_object = meta["field_to_world"]
    matrix = np.array(field_to_object, float).reshape(4, 4)
    made = quads.prepare(meta, arrays, matrix)
    if "vertices" in arrays or made is None:
        vertices = arrays["vertices"] @ matrix[:3, :3].T + matrix[:3, 3]
        mesh.check(vertices, arrays["faces"], arrays["uvs"])
        vertices, faces, uvs = vertices.astype(np.float32), arrays["faces"], arrays["uvs"]
        texture = png.encode(arrays["texture"])
    else:
        vertices, faces, uvs, texture = made.vertices, made.faces, made.uvs, made.texture_png
    return Prepared(
        name=str(meta.get("name") or "head"),
        vertices=vertices,
        faces=faces,
        uvs=uvs,
        texture_png=texture,
        quads=made,
        beside=made is not None and "vertices" in arrays,
        photo_png=png.encode(arrays["photo"]) if "photo" in arrays else b"",
        field=arrays["field"].tobytes() if "field" in arrays else b"",
        camera=cameras.from_json(meta["camera"]) if "camera" in meta else None,
        field_to_object=matrix,
        record={key: meta[key] for key in KEPT if key in meta},
    )


def build(
    context: bpy.types.Context,
    prepared: Prepared,
    parameters: dict,
    keep: str = "PACKED",
    into: bpy.types.Collection | None = None,
) -> bpy.types.Object:
    """A new collection with the head, its photo camera and its field; returns the head's object,
    selected and standing beside others.

    parameters: the job's, kept on the head as a record. keep: where the field goes: 'PACKED' in the
    .blend, 'BESIDE' it in a file (where it has been saved), '' nowhere. into: one of many heads:
    put it in this collection, at the origin, without a camera, and leave the selection.
    Everything is made before anything is linked to the scene; on an error all of it is removed.
    """
    with whole():
        head = _make(prepared, parameters)
        if keep == "BESIDE" and bpy.data.filepath:
            field_store.keep_beside(head, prepared.name, prepared.field)
        elif keep:
            field_store.pack(head, prepared.name, prepared.field)
        parts = parts_of(prepared, head)
        if into is not None:
            for made in (head, *parts):
                into.objects.link(made)
            return head
        collection = bpy.data.collections.new(prepared.name)
        versions = prepared.record.get("versions", {})
        collection["triplane_version"] = str(versions.get("triplane", ""))
        for made in (head, *parts, _camera(prepared, head)):
            collection.objects.link(made)
        width = float(np.ptp(prepared.vertices[:, 0]))
        width = max(width, 2 * APART if prepared.beside else 0.0)
        head.location.x = free_place(context.scene, width)
        context.scene.collection.children.link(collection)
    select(context, head)
    return head


def rebuild(context: bpy.types.Context, head: bpy.types.Object, prepared: Prepared) -> None:
    """Give `head` a newly extracted mesh, material and texture; the rest of it stays."""
    with whole():
        data, parts = mesh_of(prepared), parts_of(prepared, head)
    quads.remove_parts(head, parts)
    for collection in head.users_collection:
        for made in parts:
            collection.objects.link(made)
    old, head.data = head.data, data
    materials = [m for m in old.materials if m is not None]
    textures = [n.image for m in materials for n in _image_nodes(m)]
    bpy.data.batch_remove([old] if not old.users else [])
    bpy.data.batch_remove([m for m in materials if not m.users])
    bpy.data.batch_remove([i for i in set(textures) if i is not None and not i.users])
    select(context, head)


def active(context: bpy.types.Context) -> bpy.types.Object | None:
    """The head that the artist works on: the active object, its parent, or the scene's only one."""
    candidate = context.active_object
    while candidate is not None:
        if RECORD in candidate:
            return candidate
        candidate = candidate.parent
    heads = [o for o in context.scene.objects if RECORD in o]
    return heads[0] if len(heads) == 1 else None


def photo_camera(head: bpy.types.Object) -> bpy.types.Object | None:
    """The camera of the head's photo, unless the artist has deleted it."""
    for child in head.children:
        if child.type == "CAMERA" and "triplane_resolution" in child:
            return child
    return None


def record(head: bpy.types.Object) -> dict:
    """What was recorded when the head was made: preset, seed, parameters, timings, figures."""
    try:
        return json.loads(head[RECORD])
    except (KeyError, TypeError, ValueError):
        return {}


def note(head: bpy.types.Object, parameters: dict) -> None:
    """Record parameters that the head has been made anew with."""
    kept = record(head)
    kept["parameters"] = (kept.get("parameters") or {}) | parameters
    head[RECORD] = json.dumps(kept)


def quality(record: dict) -> tuple[float | None, list[str]]:
    """The engine's score of a reconstruction, 0..1, and its warnings, from what was recorded; None
    and nothing where there is none."""
    found = (record.get("figures") or {}).get("quality") or {}
    score = found.get("score")
    known = isinstance(score, (int, float))
    return (float(score) if known else None), [str(x) for x in found.get("warnings") or ()]


def recipe(head: bpy.types.Object) -> dict:
    """How a head was made that came from seeds: the engine's recipe with "model" and "sha256".
    {} for any other object."""
    found = record(head).get("recipe")
    return found if isinstance(found, dict) else {}


def only_seed(recipe: dict) -> int | None:
    """The seed of a recipe that is nothing but one seed, unedited; None if it is more."""
    heads = recipe.get("heads") or [None]
    plain = len(heads) == 1 and recipe.get("mix_seed", -1) < 0 and not recipe.get("edits")
    return heads[0] if plain and isinstance(heads[0], int) else None


def field_to_world(head: bpy.types.Object) -> np.ndarray:
    """[4, 4] from field space to the world, where the head stands now."""
    own = np.array(head["triplane_field_to_object"], float).reshape(4, 4)
    return np.array(head.matrix_world) @ own


def select(context: bpy.types.Context, head: bpy.types.Object) -> None:
    """Make `head` the only selected and the active object."""
    layer = context.view_layer
    current = layer.objects.active
    if current is not None and current.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
    for other in layer.objects:
        if other.select_get():
            other.select_set(False)
    if head.name in layer.objects:
        head.select_set(True)
        layer.objects.active = head


def _make(prepared: Prepared, parameters: dict) -> bpy.types.Object:
    head = bpy.data.objects.new(prepared.name, mesh_of(prepared))
    head["triplane_field_to_object"] = [float(x) for x in prepared.field_to_object.ravel()]
    head["triplane_camera"] = json.dumps(prepared.camera.to_json())
    head["triplane_metres_per_unit"] = float(prepared.record.get("metres_per_unit", 1.0))
    # Custom properties hold 31 bits; the record has the seed as it is.
    head["triplane_seed"] = min(int(prepared.record.get("seed", 0)), 2**31 - 1)
    head[RECORD] = json.dumps(prepared.record | {"parameters": parameters})
    return head


def _camera(prepared: Prepared, head: bpy.types.Object) -> bpy.types.Object:
    name = prepared.name
    photo = images.packed(f"{name} photo", prepared.photo_png, f"{name} photo.png")
    camera = camera_builder.build_camera(
        f"{name} camera", prepared.camera, prepared.field_to_object, photo
    )
    camera.parent = head  # so that the view stays right when the artist moves the head
    camera.matrix_parent_inverse = Matrix()
    return camera


def parts_of(prepared: Prepared, head: bpy.types.Object) -> list[bpy.types.Object]:
    """New eyes, and quads where they stand beside the surface; not yet in a collection."""
    if prepared.quads is None:
        return []
    if prepared.beside:
        return quads.build_beside(prepared.name, prepared.quads, head, APART)
    return quads.build_eyes(prepared.name, prepared.quads, head)


def mesh_of(prepared: Prepared) -> bpy.types.Mesh:
    """The mesh with its material and packed texture."""
    if prepared.quads is not None and not prepared.beside:
        return quads.build_data(prepared.name, prepared.quads)
    data = mesh.build_mesh(prepared.name, prepared.vertices, prepared.faces, prepared.uvs)
    texture = images.packed(
        f"{prepared.name} texture", prepared.texture_png, f"{prepared.name} texture.png"
    )
    data.materials.append(mesh.build_material(prepared.name, texture))
    return data


def _image_nodes(material: bpy.types.Material) -> list:
    tree = material.node_tree
    return [n for n in tree.nodes if n.bl_idname == "ShaderNodeTexImage"] if tree else []


def is_object(made: bpy.types.Object) -> bool:
    """Whether it is a thing from a picture, and no head."""
    return record(made).get("kind") == "object"


def free_place(scene: bpy.types.Scene, width: float = 0.0) -> float:
    """x of the first place along the x axis where nothing of ours stands. width: of what shall
    stand there, metres; heads need not give it."""
    taken = []
    for made in scene.objects:
        if RECORD in made or SEQUENCE in made or made.get(quads.PART) == "quads":
            wide = [w for w in (width, made.dimensions.x) if w > APART]
            room = max(APART, 0.55 * (width + made.dimensions.x)) if wide else APART
            taken.append((made.matrix_world.translation.x, room))
    x = 0.0
    while any(abs(x - other) < room - 0.01 for other, room in taken):
        x += APART
    return x
