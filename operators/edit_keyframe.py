"""A keyframe of a slider: baked views show the head of each frame."""

import bpy

from . import directions, polls, sliders
from .build import head


class TRIPLANE_OT_edit_keyframe(polls.OfSliders, bpy.types.Operator):
    """Insert a keyframe of this slider at the present frame. Baked views then show the head of each
    frame"""

    bl_idname = "triplane.edit_keyframe"
    bl_label = "Insert Keyframe"
    bl_options = {"UNDO"}

    def execute(self, context):
        made = head.active(context)
        sliders.prepare(made)
        wanted = directions.key(self.direction)
        chosen = [d for d in sliders.known(made) if wanted in ("", directions.key(d.name))]
        if not chosen:
            self.report({"ERROR"}, f"There is no direction '{self.direction}'.")
            return {"CANCELLED"}
        for one in chosen:
            made.keyframe_insert(sliders.slider(made, one)[2], group="Edit Head")
        return {"FINISHED"}
