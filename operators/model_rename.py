"""A model gets another name."""

import bpy
from bpy.props import StringProperty

from ..engine.checkpoints import registry
from . import models, polls


class TRIPLANE_OT_model_rename(bpy.types.Operator):
    """Give a model another name"""

    bl_idname = "triplane.model_rename"
    bl_label = "Rename Model"

    name: StringProperty(
        name="Model", description="The model's present name", options={"HIDDEN", "SKIP_SAVE"}
    )
    to: StringProperty(
        name="Name", description="The model's name from now on", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        return polls.idle(cls, "A job is still running: it may need the model")

    def invoke(self, context, event):
        self.to = self.name
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context):
        done = f"{self.name} is called {self.to} now"
        return models.change(self, done, registry.rename, self.name, self.to)
