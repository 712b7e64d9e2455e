"""A published model from the internet becomes one of the models."""

import bpy
from bpy.props import BoolProperty, EnumProperty

from ..engine.checkpoints.catalogue import CATALOGUE, published
from ..engine.errors import DownloadError
from . import models, polls, session
from .job import JobOperator

OFFLINE = "Allow online access in the preferences (System) first"


class TRIPLANE_OT_model_download(JobOperator, bpy.types.Operator):
    """Download this model from the page of those who made it, check it, and add it to the models"""

    bl_idname = "triplane.model_download"
    bl_label = "Download Model"

    job = "download_model"
    title = "Downloading the model"
    place = "models"

    key: EnumProperty(
        name="Model",
        description="Which model",
        items=[(p.key, p.title, p.licence) for p in CATALOGUE if p.address],
        options={"SKIP_SAVE"},
    )
    accept: BoolProperty(
        name="I have read the licence and accept it",
        description="Without this nothing is downloaded",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context):
        if not bpy.app.online_access:
            cls.poll_message_set(OFFLINE)
            return False
        return polls.idle(cls)

    def invoke(self, context, event):
        if self.accept or bpy.app.background or context.window is None:
            return super().invoke(context, event)
        self._asking = True
        return context.window_manager.invoke_props_dialog(
            self, width=460, title="Download Model", confirm_text="Download"
        )

    def draw(self, context):
        wanted, layout = published(self.key), self.layout
        column = layout.column(align=True)
        for label, value in (
            ("Model", wanted.title),
            ("Licence", wanted.licence),
            ("Size", f"{wanted.bytes / 1e9:.2f} GB; twice that while it is being added"),
            ("From", wanted.address.partition("/resolve/")[0].removeprefix("https://")),
            ("SHA-256", f"{wanted.sha256[:32]}..."),
        ):
            row = column.split(factor=0.18)
            row.label(text=label)
            row.label(text=value)
        layout.operator("wm.url_open", text="Read the Licence", icon="URL").url = wanted.page
        layout.prop(self, "accept")

    def execute(self, context):
        if not getattr(self, "_asking", False):
            return super().execute(context)
        if not self.accept:
            self.report({"WARNING"}, "Nothing was downloaded: the licence was not accepted")
            return {"CANCELLED"}
        # Another operator, for one that has asked cannot stay modal.
        bpy.ops.triplane.model_download("INVOKE_DEFAULT", key=self.key, accept=True)
        return {"FINISHED"}

    def setup(self, context):
        if not bpy.app.online_access:
            raise DownloadError("Blender is offline by your preferences.", f"{OFFLINE}.")
        self.title = f"Downloading {published(self.key).title}"
        return {"key": self.key, "accept": self.accept, "models": models.folder()}

    def finish(self, context, prepared):
        session.redraw()
        self.report({"INFO"}, f"{prepared['meta']['name']} is one of the models now")
