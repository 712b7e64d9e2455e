"""A model goes."""

import bpy
from bpy.props import StringProperty

from ..engine.checkpoints import registry
from ..engine.errors import TriplaneError
from . import models, session


class TRIPLANE_OT_model_remove(bpy.types.Operator):
    """Delete a model's file. Heads made with it stay; this cannot be undone"""

    bl_idname = "triplane.model_remove"
    bl_label = "Delete Model"

    name: StringProperty(name="Model", description="The model's name", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        if session.running() is not None:
            cls.poll_message_set("A job is still running: it may need the model")
            return False
        return True

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(
            self, event, title=f"Delete {self.name}?", message="The file will be gone for good."
        )

    def execute(self, context):
        try:
            registry.remove(models.folder(), self.name)
        except TriplaneError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.redraw()
        self.report({"INFO"}, f"Deleted {self.name}")
        return {"FINISHED"}
