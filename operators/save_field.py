"""The field as a file of its own."""

import os

import bpy
from bpy.props import StringProperty

from . import polls
from .build import field, head


class TRIPLANE_OT_save_field(bpy.types.Operator):
    """Save the active head's radiance field as a .safetensors file"""

    bl_idname = "triplane.save_field"
    bl_label = "Save Field As..."

    filepath: StringProperty(name="File", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(default="*.safetensors", options={"HIDDEN"})

    @classmethod
    def poll(cls, context):
        return polls.has_head(cls, context)

    def invoke(self, context, event):
        name = bpy.path.clean_name(head.active(context).name)
        folder = os.path.dirname(bpy.data.filepath)
        self.filepath = os.path.join(folder, f"{name}.field.safetensors")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        path = bpy.path.abspath(self.filepath)
        if not path.lower().endswith(".safetensors"):
            path += ".safetensors"
        try:
            data = field.read(head.active(context))
            field.write_whole(path, data)
        except OSError as error:
            reason = error.strerror or str(error)
            self.report({"ERROR"}, f"The field could not be saved to {path}: {reason}.")
            return {"CANCELLED"}
        self.report({"INFO"}, f"Saved {path} ({len(data) / 1e6:.1f} MB)")
        return {"FINISHED"}
