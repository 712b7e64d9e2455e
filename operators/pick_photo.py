"""Choose the photo."""

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from . import parameters


class TRIPLANE_OT_pick_photo(bpy.types.Operator):
    """Choose the photo of a face"""

    bl_idname = "triplane.pick_photo"
    bl_label = "Pick Photo..."

    filepath: StringProperty(name="Photo", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_image: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    # Blender's file browser takes its layout from this: the numbers are its own.
    display_type: EnumProperty(
        items=(("DEFAULT", "Default", "", 0), ("THUMBNAIL", "Thumbnails", "", 3)),
        default="THUMBNAIL",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    def invoke(self, context, event):
        current = parameters.settings(context).photo
        if current:
            self.filepath = current
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        parameters.settings(context).photo = self.filepath
        return {"FINISHED"}
