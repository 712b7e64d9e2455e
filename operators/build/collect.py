"""Many objects that come one after another: an artist may undo, delete or rename in between, so
they are held by their names."""

from __future__ import annotations

from collections.abc import Iterable

import bpy

from . import head


class Collection:
    """A collection of the scene, made when it is first asked for, and again if it is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._made = ""

    def get(self, context: bpy.types.Context) -> bpy.types.Collection:
        """The collection, in the scene."""
        found = bpy.data.collections.get(self._made) if self._made else None
        if found is None:
            found = bpy.data.collections.new(self._name)
            self._made = found.name
            context.scene.collection.children.link(found)
        return found


def still_there(context: bpy.types.Context, names: Iterable[str]) -> list[bpy.types.Object]:
    """The objects of these names that are (still) in the scene."""
    found = (context.scene.objects.get(name) for name in names)
    return [o for o in found if o is not None]


def select(context: bpy.types.Context, made: list[bpy.types.Object]) -> None:
    """Select just these objects; the first of them becomes the active one."""
    for number, one in enumerate(made):
        if number == 0:
            head.select(context, one)
        elif one.name in context.view_layer.objects:
            one.select_set(True)
