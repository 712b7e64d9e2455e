"""A model becomes the one that is used where none is named."""

import bpy
from bpy.props import StringProperty

from ..engine.checkpoints import registry
from . import models


class TRIPLANE_OT_model_default(bpy.types.Operator):
    """Use this model where none is named"""

    bl_idname = "triplane.model_default"
    bl_label = "Make Default"

    name: StringProperty(name="Model", description="The model's name", options={"SKIP_SAVE"})

    def execute(self, context):
        return models.change(self, "", registry.set_default, self.name)
