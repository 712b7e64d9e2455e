"""Sliders back to the head as it was made."""

import bpy
from bpy.props import StringProperty

from . import edit_live, edits, polls
from .build import head


class TRIPLANE_OT_edit_reset(bpy.types.Operator):
    """Set this slider, or all, to zero: the head as it was made"""

    bl_idname = "triplane.edit_reset"
    bl_label = "Reset"

    direction: StringProperty(
        name="Direction", description="Which one; empty: all", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        return polls.has_head(cls, context) and polls.editable(cls, context)

    def execute(self, context):
        made = head.active(context)
        amounts = edits.amounts(made)
        left = {n: a for n, a in amounts.items() if self.direction and n != self.direction}
        if left != amounts:
            edits.put(made, left)
            edit_live.on_change(context, made)
        return {"FINISHED"}
