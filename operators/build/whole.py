"""All of a result in the .blend, or nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy

_KINDS = ("collections", "objects", "meshes", "materials", "images", "cameras")


@contextmanager
def whole() -> Iterator[None]:
    """If what runs inside raises, every data-block that it has made is removed."""
    before = {kind: {i.session_uid for i in getattr(bpy.data, kind)} for kind in _KINDS}
    try:
        yield
    except BaseException:
        for kind in _KINDS:
            new = [i for i in getattr(bpy.data, kind) if i.session_uid not in before[kind]]
            bpy.data.batch_remove(new)
        raise
