"""An edited head in the .blend: mesh, texture and field replaced, its unedited field kept as the
base that every edit starts from."""

from __future__ import annotations

import json
import struct

import bpy

from . import carry, field, head, quads
from .whole import whole

BASE = "triplane_base_field"  # on an edited head's object: the image with its unedited field,
BASE_BESIDE = "triplane_base_field_path"  # or that field's file beside the .blend
EDITS = "triplane_edits"  # on an edited head's object: the edits that its mesh and field have
_HEADER_AT_MOST = 1 << 24  # bytes
_origins: dict[tuple, dict] = {}  # by base_stamp


def applied(made: bpy.types.Object) -> str:
    """The edits that a head has, as the job takes them ('age=1, smile=0.5'); '' for none."""
    text = made.get(EDITS)
    return text if isinstance(text, str) else ""


def base_bytes(made: bpy.types.Object) -> bytes:
    """The bytes of a head's unedited field. Raises FileNotFoundError, see field.read."""
    if BASE in made or BASE_BESIDE in made:
        return field.read(made, BASE, BASE_BESIDE)
    return field.read(made)


def base_stamp(made: bpy.types.Object) -> tuple:
    """What tells a head's unedited field from every other; reads nothing."""
    image = made.get(BASE) or (None if BASE_BESIDE in made else made.get(field.FIELD))
    if image is not None:
        return "image", image.session_uid, image.packed_file.size if image.packed_file else 0
    path = made.get(BASE_BESIDE) or made.get(field.BESIDE) or ""
    return "file", bpy.path.abspath(path, library=made.library) if path else "", 0


def origin(made: bpy.types.Object) -> dict:
    """The recipe that a head's unedited field holds with its latent code, with "model"; {} if it
    holds no code, or is not there. Read once a field: a panel may ask."""
    stamp = base_stamp(made)
    if stamp not in _origins:
        try:
            _origins[stamp] = _origin(base_bytes(made))
        except OSError:
            return {}  # the file may come back
    return _origins[stamp]


def forget() -> None:
    """Read fields anew: another file has been opened."""
    _origins.clear()


def _origin(data: bytes) -> dict:
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if not 2 <= length <= min(_HEADER_AT_MOST, len(data) - 8):
            return {}
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        found = json.loads(metadata["field"])["origin"]
    except (struct.error, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def replace(made: bpy.types.Object, prepared: head.Prepared, edits: str) -> list[str]:
    """Give a head the mesh, the texture and the field of an edit. Its unedited field becomes the
    base; for no edits ('') the base becomes its field again.

    The object stays, with its photo's camera, modifiers, constraints and animation; so do its
    materials, which show the new texture. Quads keep their mesh: its points move. Returns what a
    new mesh could not keep, in an artist's words. What is made is made before anything is replaced.
    """
    with whole():
        data, parts = head.mesh_of(prepared), head.parts_of(prepared, made)
        image = field.packed(made.name, prepared.field) if edits else None
    lost, old, name = [], made.data, made.data.name
    old_images = {n.image for m in old.materials if m for n in carry.image_nodes(m)}
    if carry.same_faces(old, data):
        carry.move(made, data)
    else:
        lost = carry.over(made, data)
    names = [o.name for o in quads.parts(made) if o not in parts]
    quads.remove_parts(made, parts)
    for collection in made.users_collection:
        for part in parts:
            collection.objects.link(part)
    if len(names) == len(parts):
        for part, known in zip(parts, names, strict=True):
            part.name = known
    made.data.name = name
    _take_field(made, image)
    gone = [i for i in old_images if i is not None and i.users - i.use_fake_user <= 0]
    bpy.data.batch_remove(gone)
    if edits:
        made[EDITS] = edits
    elif EDITS in made:
        del made[EDITS]
    made.data.update()
    return lost


def _take_field(made: bpy.types.Object, image: bpy.types.Image | None) -> None:
    """Make `image` the head's field, or the base again without one."""
    old = made.get(field.FIELD)
    if image is not None:
        if BASE not in made and BASE_BESIDE not in made:
            if old is not None:
                made[BASE] = old
            if field.BESIDE in made:
                made[BASE_BESIDE] = made[field.BESIDE]
                del made[field.BESIDE]
            old = None
        made[field.FIELD] = image
    elif BASE in made or BASE_BESIDE in made:
        if BASE in made:
            made[field.FIELD] = made[BASE]
            del made[BASE]
        else:
            del made[field.FIELD]
            made[field.BESIDE] = made[BASE_BESIDE]
            del made[BASE_BESIDE]
    else:
        old = None  # it was not edited before either
    if old is not None and not old.users:
        bpy.data.batch_remove([old])


__all__ = ["BASE", "EDITS", "applied", "base_bytes", "base_stamp", "origin", "replace"]
