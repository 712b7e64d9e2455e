"""A file of weights becomes one of the models."""

import os

import bpy
from bpy.props import EnumProperty, FloatProperty, StringProperty

from ..engine.errors import WeightsError
from . import models, session
from .job import JobOperator

LIKE = (
    ("auto", "Automatic", "By the size of its pictures"),
    ("ffhq", "FFHQ Faces", "Heads of people"),
    ("cats", "AFHQ Cats", "Heads of cats"),
    ("cars", "ShapeNet Cars", "Cars"),
)


class TRIPLANE_OT_model_add(JobOperator, bpy.types.Operator):
    """Read an EG3D checkpoint, without running anything that is in it, and keep it as a model"""

    bl_idname = "triplane.model_add"
    bl_label = "Add Model..."

    job = "import_model"
    title = "Adding the model"
    place = "models"

    filepath: StringProperty(
        name="File",
        description="EG3D's training pickle, or a file with its generator's weights",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    filter_glob: StringProperty(
        default="*.pkl;*.safetensors;*.pt;*.pth;*.ckpt", options={"HIDDEN", "SKIP_SAVE"}
    )
    name: StringProperty(
        name="Name",
        description="What the model shall be called; empty: as its file",
        options={"SKIP_SAVE"},
    )
    like: EnumProperty(
        name="Cameras of",
        description="Only for files without settings: the published model whose cameras it shares",
        items=LIKE,
        default="auto",
        options={"SKIP_SAVE"},
    )
    metres: FloatProperty(
        name="Metres",
        description="How large one unit of the model's space is; 0: guessed",
        default=0.0,
        min=0.0,
        max=1000.0,
        options={"SKIP_SAVE"},
    )
    licence: StringProperty(
        name="Licence",
        description="The model's licence; empty: what is known of files of its kind",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        self._browsing = not self.filepath and context.window is not None
        if not self._browsing:
            return super().invoke(context, event)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        if not getattr(self, "_browsing", False):
            return super().execute(context)
        # From the file browser: another operator, for one that has browsed cannot stay modal.
        names = ("filepath", "name", "like", "metres", "licence")
        bpy.ops.triplane.model_add("INVOKE_DEFAULT", **{n: getattr(self, n) for n in names})
        return {"FINISHED"}

    def setup(self, context):
        path = bpy.path.abspath(self.filepath) if self.filepath else ""
        if not os.path.isfile(path):
            shown = os.path.basename(path) or "No file"
            raise WeightsError(f"{shown} is not a file with a model.", "Choose another one.")
        self.title = f"Adding {os.path.basename(path)}"
        return {
            "file": path,
            "name": self.name,
            "like": self.like,
            "metres": self.metres,
            "licence": self.licence,
            "models": models.folder(),
        }

    def finish(self, context, prepared):
        name = prepared["meta"]["name"]
        session.redraw()
        self.report({"INFO"}, f"{name} is one of the models now")
