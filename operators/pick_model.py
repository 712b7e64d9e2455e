"""Choose the model that the panels use."""

import bpy
from bpy.props import StringProperty

from . import sampling, session


class TRIPLANE_OT_pick_model(bpy.types.Operator):
    """Make heads with this model"""

    bl_idname = "triplane.pick_model"
    bl_label = "Pick Model"

    name: StringProperty(
        name="Model",
        description="The model's name; empty: the default model of the preferences",
        options={"SKIP_SAVE"},
    )

    def execute(self, context):
        sampling.settings(context).model = self.name
        session.forget_failure()
        session.redraw()
        return {"FINISHED"}
