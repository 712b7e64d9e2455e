"""The sidebar's panel for what cameras see of a head: rigs, image sequences, sheets, data sets."""

import bpy

from ..operators import preflight, viewing
from ..operators.build import head
from . import status


class TRIPLANE_PT_views(status.Sidebar, bpy.types.Panel):
    bl_label = "Views"
    bl_order = 2  # below the head that they are of
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return head.active(context) is not None and preflight.missing() is None

    def draw(self, context):
        layout, chosen = self.layout, viewing.settings(context)
        if status.runs_in("views"):
            status.draw_running(context, layout)
            return
        layout.row().prop(chosen, "which", expand=True)
        if chosen.which == "SCENE":
            layout.prop(context.scene, "camera", text="")
        else:
            count = sum(o.type == "CAMERA" for o in context.selected_objects)
            text = f"{count} cameras are selected" if count != 1 else "One camera is selected"
            layout.label(text=text, icon="OUTLINER_OB_CAMERA")
        layout.row().prop(chosen, "frames", expand=True)
        if chosen.frames == "RANGE":
            row = layout.row(align=True)
            row.prop(chosen, "frame_start")
            row.prop(chosen, "frame_end")
        split = layout.split(factor=0.6, align=True)
        split.prop(chosen, "size")
        split.prop(chosen, "format", text="")
        row = layout.row()
        row.scale_y = 1.6
        row.operator("triplane.bake_views", icon="RENDER_ANIMATION")
        status.draw_failure(context, layout, "views")


class _Part(status.Sidebar):
    bl_parent_id = "TRIPLANE_PT_views"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return not status.runs_in("views")


class TRIPLANE_PT_views_shown(_Part, bpy.types.Panel):
    bl_label = "Where They Show"

    def draw(self, context):
        layout, chosen = self.layout, viewing.settings(context)
        column = layout.column(align=True)
        column.prop(chosen, "background")
        column.prop(chosen, "plane")
        column.prop(chosen, "compositor")
        layout.prop(chosen, "folder", placeholder="//views")


class TRIPLANE_PT_rig(_Part, bpy.types.Panel):
    bl_label = "Cameras Around the Head"

    def draw(self, context):
        layout, chosen = self.layout, viewing.settings(context)
        layout.prop(chosen, "rig", text="")
        column = layout.column(align=True)
        if chosen.rig in {"CIRCLE", "SPHERE"}:
            column.prop(chosen, "count")
        if chosen.rig == "CIRCLE":
            column.prop(chosen, "pitch")
        elif chosen.rig == "SPHERE":
            column.prop(chosen, "lowest")
            column.prop(chosen, "highest")
        if chosen.rig == "FILE":
            column.prop(chosen, "filepath", text="")
        else:
            layout.prop(chosen, "orthographic")
        layout.prop(chosen, "markers", text="Markers in the Timeline")
        layout.operator("triplane.camera_rig", icon="OUTLINER_OB_CAMERA")


class TRIPLANE_PT_sheet(_Part, bpy.types.Panel):
    bl_label = "Sheet and Data Set"

    def draw(self, context):
        layout, chosen = self.layout, viewing.settings(context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.prop(chosen, "template")
        column.prop(chosen, "seeds", placeholder="3, 9")
        column.prop(chosen, "captions")
        column.prop(chosen, "perspective")
        column.prop(chosen, "transparent")
        if not chosen.transparent:
            column.prop(chosen, "colour")
        layout.operator("triplane.view_sheet", icon="IMGDISPLAY")
        layout.separator()
        column = layout.column()
        column.prop(chosen, "chosen")
        if not chosen.chosen:
            column.prop(chosen, "views")
        column.prop(chosen, "points")
        layout.operator("triplane.export_dataset", icon="EXPORT")


class TRIPLANE_PT_export(_Part, bpy.types.Panel):
    bl_label = "Export the Head"

    def draw(self, context):
        layout = self.layout
        grid = layout.grid_flow(row_major=True, columns=3, even_columns=True, align=True)
        for kind, (label, _) in viewing.KINDS.items():
            grid.operator("triplane.export_head", text=label).kind = kind


CLASSES = (
    TRIPLANE_PT_views,
    TRIPLANE_PT_views_shown,
    TRIPLANE_PT_rig,
    TRIPLANE_PT_sheet,
    TRIPLANE_PT_export,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
