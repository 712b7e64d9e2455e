"""A model goes."""

import bpy
from bpy.props import StringProperty

from ..engine.checkpoints import registry
from . import models, polls


class TRIPLANE_OT_model_remove(bpy.types.Operator):
    """Delete a model's file. Heads made with it stay; this cannot be undone"""

    bl_idname = "triplane.model_remove"
    bl_label = "Delete Model"

    name: StringProperty(name="Model", description="The model's name", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        return polls.idle(cls, "A job is still running: it may need the model")

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(
            self, event, title=f"Delete {self.name}?", message="The file will be gone for good."
        )

    def execute(self, context):
        return models.change(self, f"Deleted {self.name}", registry.remove, self.name)
