"""The sidebar's tab: a photo in, a head out."""

import os

import bpy

from ..operators import parameters, preflight, session
from ..operators.build import field, head
from . import text


class _Sidebar:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Triplane"


class TRIPLANE_PT_reconstruct(_Sidebar, bpy.types.Panel):
    bl_label = "Head from a Photo"

    def draw(self, context):
        layout, running, missing = self.layout, session.running(), preflight.missing()
        if running is not None:
            _draw_running(context, layout, running)
        elif missing is not None:
            _draw_missing(context, layout, missing)
        else:
            self._draw_ready(context, layout)

    def _draw_ready(self, context, layout):
        chosen = parameters.settings(context)
        path = bpy.path.abspath(chosen.photo) if chosen.photo else ""
        if not path:
            text.wrapped(
                context, layout, "A portrait of one person, seen from the front, works best."
            )
            row = layout.row()
            row.scale_y = 1.6
            row.operator("triplane.pick_photo", icon="IMAGE_DATA")
            _draw_failure(context, layout)
            return
        if os.path.isfile(path):
            layout.template_icon(session.thumbnails.photo(path), scale=10)
        row = layout.row(align=True)
        row.label(text=os.path.basename(path), icon="IMAGE_DATA")
        row.operator("triplane.pick_photo", text="", icon="FILEBROWSER")
        layout.row().prop(chosen, "preset", expand=True)
        row = layout.row()
        row.scale_y = 1.6
        row.operator("triplane.reconstruct_head", icon="USER")
        _draw_failure(context, layout)


class TRIPLANE_PT_advanced(_Sidebar, bpy.types.Panel):
    bl_label = "Advanced"
    bl_parent_id = "TRIPLANE_PT_reconstruct"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return session.running() is None and preflight.missing() is None

    def draw(self, context):
        layout, chosen = self.layout, parameters.settings(context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(chosen, "faces")
        layout.prop(chosen, "texture_size")
        layout.prop(chosen, "refine_steps")
        layout.prop(chosen, "seed")
        layout.prop(chosen, "face_index")
        layout.prop(chosen, "points_by_hand", text="Points by Hand")
        if chosen.points_by_hand:
            layout.operator("triplane.place_points", text="Click Them in the Photo")
            column = layout.column(align=True)
            for number, name in enumerate(parameters.POINTS):
                row = column.row(align=True)
                row.prop(chosen, "points", index=2 * number, text=name)
                row.prop(chosen, "points", index=2 * number + 1, text="")


class TRIPLANE_PT_head(_Sidebar, bpy.types.Panel):
    bl_label = "Head"

    @classmethod
    def poll(cls, context):
        return head.active(context) is not None

    def draw_header_preset(self, context):
        self.layout.label(text=head.active(context).name)

    def draw(self, context):
        layout, made = self.layout, head.active(context)
        column = layout.column(align=True)
        column.scale_y = 0.85
        for label, value in _figures(made):
            row = column.row()
            row.label(text=label)
            right = row.row()
            right.alignment = "RIGHT"
            right.label(text=value)
        column = layout.column(align=True)
        column.operator("triplane.view_photo", icon="CAMERA_DATA")
        column.operator("triplane.render_field", icon="RENDER_STILL")
        column = layout.column(align=True)
        column.operator("triplane.extract_mesh", icon="MESH_DATA")
        column.operator("triplane.save_field", icon="FILE_TICK")


def _figures(made):
    """(label, value) of what is worth knowing about a head."""
    record = head.record(made)
    figures = record.get("figures") or {}
    if made.type == "MESH":
        yield "Faces", f"{len(made.data.polygons):,}"
    if record.get("preset"):
        yield "Quality", str(record["preset"]).capitalize()
    psnr, iou = figures.get("photo_psnr_db"), figures.get("silhouette_iou")
    if isinstance(psnr, (int, float)):
        yield "Likeness to the photo", f"{psnr:.1f} dB"
    if isinstance(iou, (int, float)):
        yield "Outline agrees", f"{iou:.0%}"
    seconds = sum(v for v in (record.get("timings") or {}).values() if isinstance(v, (int, float)))
    if seconds:
        yield "Made in", text.duration(seconds)
    size = field.size(made)
    yield "Field", f"{size / 1e6:.1f} MB" if size else "missing"


def _draw_running(context, layout, running):
    icon = session.thumbnails.preview()
    if not icon and os.path.isfile(running.photo):
        icon = session.thumbnails.photo(running.photo)  # so that the button below keeps its place
    if icon:
        layout.template_icon(icon, scale=10)
    layout.label(text=running.title, icon="TIME")
    layout.progress(factor=running.fraction, type="BAR", text=f"{running.fraction:.0%}")
    row = layout.row()
    row.label(text=running.step[:1].upper() + running.step[1:])
    if running.seconds_left is not None:
        right = row.row()
        right.alignment = "RIGHT"
        right.label(text=f"{text.duration(running.seconds_left)} left")
    row = layout.row()
    row.scale_y = 1.3
    row.operator("triplane.cancel", icon="X")


def _draw_missing(context, layout, missing):
    text.wrapped(context, layout, missing.sentence, "ERROR")
    if missing.operator:
        row = layout.row()
        row.scale_y = 1.6
        row.operator(missing.operator, text=missing.label, icon=missing.icon)


def _draw_failure(context, layout):
    """The last job's failure, and one button that mends it."""
    failure = session.failure
    if failure is None:
        return
    box = layout.box()
    text.wrapped(context, box, failure.sentence, "ERROR", indent=16)
    if failure.remedy:
        text.wrapped(context, box, failure.remedy, "BLANK1", indent=16)
    if failure.kind == "no-face":
        box.operator("triplane.place_points", icon="RESTRICT_SELECT_OFF")
    elif failure.kind == "photo":
        box.operator("triplane.pick_photo", text="Pick Another Photo...", icon="IMAGE_DATA")
    elif failure.kind in {"engine-setup", "memory"}:
        box.operator("triplane.open_preferences", icon="PREFERENCES")
    elif failure.kind in {"worker", "internal"} and os.path.isfile(session.log_path()):
        text.log_button(box, session.log_path())


CLASSES = (TRIPLANE_PT_reconstruct, TRIPLANE_PT_advanced, TRIPLANE_PT_head)


def register():
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister():
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
