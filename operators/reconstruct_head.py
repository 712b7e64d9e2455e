"""A photo becomes a head."""

import os

import bpy
from bpy.props import StringProperty

from . import parameters
from .job import JobOperator
from .newhead import NewHead


class TRIPLANE_OT_reconstruct_head(NewHead, JobOperator, parameters.Parameters, bpy.types.Operator):
    """Make a textured head, with its photo's camera and its radiance field, from the photo"""

    bl_idname = "triplane.reconstruct_head"
    bl_label = "Reconstruct Head"
    # Not REGISTER: its "adjust last operation" would reconstruct anew at every change.
    bl_options = {"UNDO"}

    job = "reconstruct"
    title = "Reconstructing"

    filepath: StringProperty(
        name="Photo",
        description="The photo to make a head of",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says."""
        names = [name for name in parameters.NAMES if name != "points"]
        parameters.take_photo(self, context, names)
        return super().invoke(context, event)

    def setup(self, context):
        photo = parameters.photo_path(self.filepath)
        self.title = f"Reconstructing {os.path.basename(photo)}"
        self._parameters = self.job_parameters(photo)
        return self._parameters

    def kept(self):
        return {name: value for name, value in self._parameters.items() if name != "models"}
