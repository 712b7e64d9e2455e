"""Sliders back to the head as it was made."""

import bpy

from . import edit_live, edits, polls
from .build import head


class TRIPLANE_OT_edit_reset(polls.OfSliders, bpy.types.Operator):
    """Set this slider, or all, to zero: the head as it was made"""

    bl_idname = "triplane.edit_reset"
    bl_label = "Reset"

    def execute(self, context):
        made = head.active(context)
        amounts = edits.amounts(made)
        left = {n: a for n, a in amounts.items() if self.direction and n != self.direction}
        if left != amounts:
            edits.put(made, left)
            edit_live.on_change(context, made)
        return {"FINISHED"}
