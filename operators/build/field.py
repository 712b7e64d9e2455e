"""The radiance field of a head, kept in the .blend or beside it."""

from __future__ import annotations

import os

import bpy

from . import images

FIELD = "triplane_field"  # on the head's object: the image data-block that holds the packed file
BESIDE = "triplane_field_path"  # on the head's object: the file beside the .blend


def pack(head: bpy.types.Object, name: str, data: bytes) -> bpy.types.Image:
    """Keep `data` (a field's .safetensors) in the .blend, owned by `head`.

    An image data-block is Blender's one container that Python can fill with the bytes of any file
    and that survives saving, moving, appending and undo. A leading dot hides it from the menus
    that offer images. Blender's own File > External Data > Unpack turns it into a file.
    """
    image = packed(name, data)
    head[FIELD] = image
    return image


def packed(name: str, data: bytes) -> bpy.types.Image:
    """`data` in the .blend as pack() keeps it, owned by nobody yet."""
    return images.packed(f".{name} field", data, f"{name} field.safetensors")


def keep_beside(head: bpy.types.Object, name: str, data: bytes) -> str:
    """Write `data` beside the saved .blend and note its relative path on `head`.

    Never overwrites a file. Raises OSError when the folder cannot be written.
    """
    folder = os.path.dirname(bpy.data.filepath)
    stem, number = bpy.path.clean_name(name), 1
    path = os.path.join(folder, f"{stem}.field.safetensors")
    while os.path.exists(path):
        number += 1
        path = os.path.join(folder, f"{stem}-{number}.field.safetensors")
    write_whole(path, data)
    head[BESIDE] = bpy.path.relpath(path)
    return path


def read(head: bpy.types.Object, packed: str = FIELD, beside: str = BESIDE) -> bytes:
    """The bytes of the head's field file. Raises FileNotFoundError with an artist's sentence.
    packed, beside: the properties that hold it."""
    image = head.get(packed)
    if image is not None and image.packed_file is not None:
        return image.packed_file.data
    path = head.get(beside) or (image.filepath_raw if image is not None else "")
    path = bpy.path.abspath(path, library=head.library) if path else ""
    if not path or not os.path.isfile(path):
        raise FileNotFoundError(f"The field of {head.name} is neither in this file nor beside it.")
    with open(path, "rb") as file:
        return file.read()


def size(head: bpy.types.Object) -> int:
    """Bytes of the field file; 0 when it is missing. Cheap enough for a panel."""
    image = head.get(FIELD)
    if image is not None and image.packed_file is not None:
        return image.packed_file.size
    path = head.get(BESIDE)
    path = bpy.path.abspath(path, library=head.library) if path else ""
    return os.path.getsize(path) if path and os.path.isfile(path) else 0


def write_whole(path: str, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = f"{path}.part{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise
