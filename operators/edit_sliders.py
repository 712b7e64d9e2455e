"""Sliders for the directions of a model that the user has added."""

import bpy

from . import polls, sliders
from .build import head


class TRIPLANE_OT_edit_sliders(bpy.types.Operator):
    """Give the active head a slider for every direction that its model knows"""

    bl_idname = "triplane.edit_sliders"
    bl_label = "Show Sliders"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context):
        return polls.has_head(cls, context) and polls.editable(cls, context)

    def execute(self, context):
        sliders.prepare(head.active(context))
        return {"FINISHED"}
