"""A model gets another name."""

import bpy
from bpy.props import StringProperty

from ..engine.checkpoints import registry
from ..engine.errors import TriplaneError
from . import models, session


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
        if session.running() is not None:
            cls.poll_message_set("A job is still running: it may need the model")
            return False
        return True

    def invoke(self, context, event):
        self.to = self.name
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context):
        try:
            registry.rename(models.folder(), self.name, self.to)
        except TriplaneError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.redraw()
        self.report({"INFO"}, f"{self.name} is called {self.to} now")
        return {"FINISHED"}
