"""Directions of a model that the user has added: found, and given names."""

import bpy
from bpy.props import IntProperty, StringProperty

from ..engine.errors import ParameterError
from . import directions, edits, models, polls, session, sliders
from .build import head
from .job import JobOperator


class _Directions(JobOperator):
    job = "find_directions"
    place = "edit"

    @classmethod
    def poll(cls, context):
        return super().poll(context) and polls.has_head(cls, context)

    def asked(self, context):
        """The model, as the job wants it."""
        self._name = head.active(context).name
        return {"model": sliders.model(head.active(context)), "models": models.folder()}


class TRIPLANE_OT_find_directions(_Directions, bpy.types.Operator):
    """Find what the heads of this head's model differ in most: a slider each, which can be named"""

    bl_idname = "triplane.find_directions"
    bl_label = "Find Directions"

    title = "Finding directions"

    count: IntProperty(
        name="Directions", description="How many", default=10, min=1, max=directions.MOST
    )

    def setup(self, context):
        return self.asked(context) | {"count": self.count}

    def finish(self, context, prepared):
        made = bpy.data.objects.get(self._name)
        if made is not None:
            sliders.prepare(made)
        session.redraw()
        self.report({"INFO"}, f"{len(prepared['meta']['names'])} directions")


class TRIPLANE_OT_name_direction(_Directions, bpy.types.Operator):
    """Give a direction a name that says what it does"""

    bl_idname = "triplane.name_direction"
    bl_label = "Name Direction"

    title = "Naming a direction"

    direction: StringProperty(name="Direction", options={"SKIP_SAVE", "HIDDEN"})
    name: StringProperty(name="Name", description="What it does, such as smile")

    def invoke(self, context, event):
        self.name = self.direction
        return context.window_manager.invoke_props_dialog(self)

    def draw(self, context):
        self.layout.prop(self, "name")

    def setup(self, context):
        asked = self.asked(context)
        names = [d.name for d in sliders.known(head.active(context))]
        if self.direction not in names:
            raise ParameterError(f"There is no direction '{self.direction}'.")
        self._model, self._number = asked["model"], names.index(self.direction)
        return asked | {"count": 0, "number": self._number + 1, "name": self.name}

    def finish(self, context, prepared):
        name = prepared["meta"]["names"][self._number]
        for made in bpy.data.objects:
            if head.RECORD in made and made.library is None:
                edits.rename(made, self._model, self.direction, name)
        session.redraw()
