"""The sidebar's panel for what lies between heads: pictures, or meshes by keyframes."""

import bpy

from ..operators import headlist, preflight, sampling
from . import seed, status


class TRIPLANE_PT_blend(status.Sidebar, bpy.types.Panel):
    bl_label = "Between Heads"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return preflight.missing() is None

    def draw(self, context):
        layout, chosen = self.layout, sampling.settings(context)
        if status.runs_in("blend"):
            status.draw_running(context, layout)
            return
        names = headlist.selected(context)
        column = layout.column()
        row = column.row()
        row.enabled = bool(names)
        count = f"{len(names)} Selected Heads" if len(names) != 1 else "1 Selected Head"
        row.prop(chosen, "selected", text=count)
        split = column.split(factor=0.35)
        split.label(text="Seeds")
        split.prop(chosen, "heads", text="", placeholder="3, 9")
        if not (chosen.selected and names):
            seed.draw_model(column, chosen)  # else it is the selected heads' own
        column.prop(chosen, "steps", slider=True)
        layout.row().prop(chosen, "result", expand=True)
        total = len(names) * chosen.selected + headlist.count(chosen.heads)
        number = (total - 1) * (chosen.steps - 1) + 1 if total > 1 else 0
        row = layout.row()
        row.scale_y = 1.6
        row.enabled = number > 0
        if chosen.result == "PICTURES":
            label = f"Make {number} Pictures" if number else "Make Pictures"
            row.operator("triplane.interpolate", text=label, icon="RENDER_ANIMATION")
        else:
            label = f"Make {number} Meshes" if number else "Make Meshes"
            row.operator("triplane.keyframe_heads", text=label, icon="KEYFRAME")
        if not number:
            layout.label(text="Select or type two heads at least", icon="INFO")
        status.draw_failure(context, layout, "blend")


class TRIPLANE_PT_blend_advanced(status.Sidebar, bpy.types.Panel):
    bl_label = "Advanced"
    bl_parent_id = "TRIPLANE_PT_blend"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, chosen = self.layout, sampling.settings(context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.enabled = not status.runs_in("blend")
        layout.row().prop(chosen, "space", expand=True)
        layout.prop(chosen, "psi", slider=True)
        if chosen.result == "PICTURES":
            layout.prop(chosen, "size")
            column = layout.column(align=True)
            column.prop(chosen, "view_yaw")
            column.prop(chosen, "view_pitch", text="Pitch")
            column.prop(chosen, "orbit")
        else:
            layout.prop(chosen, "hold")
            layout.prop(chosen, "faces")
            layout.prop(chosen, "texture_size")
            layout.prop(chosen, "keep_fields")


CLASSES = (TRIPLANE_PT_blend, TRIPLANE_PT_blend_advanced)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
