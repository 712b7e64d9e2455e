"""The way to the extension's preferences."""

import bpy

from . import session


class TRIPLANE_OT_open_preferences(bpy.types.Operator):
    """Open Triplane's preferences"""

    bl_idname = "triplane.open_preferences"
    bl_label = "Open Preferences"

    def execute(self, context):
        session.forget_failure()
        return bpy.ops.preferences.addon_show(module=session.PACKAGE)
