"""The sidebar's tab: a photo in, a head out."""

import os

import bpy

from ..operators import parameters, preflight, session
from ..operators.build import field, head
from . import status, text


class TRIPLANE_PT_reconstruct(status.Sidebar, bpy.types.Panel):
    bl_label = "Head from a Photo"

    def draw(self, context):
        layout, missing = self.layout, preflight.missing()
        if status.runs_in("photo"):
            status.draw_running(context, layout)
        elif missing is not None:
            status.draw_missing(context, layout, missing)
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
            status.draw_failure(context, layout, "photo")
            return
        if os.path.isfile(path):
            layout.template_icon(session.thumbnails.photo(path), scale=10)
        row = layout.row(align=True)
        row.label(text=os.path.basename(path), icon="IMAGE_DATA")
        row.operator("triplane.pick_photo", text="", icon="FILEBROWSER")
        layout.row().prop(chosen, "preset", expand=True)
        _draw_model(layout, chosen)
        row = layout.row()
        row.scale_y = 1.6
        row.operator("triplane.reconstruct_head", icon="USER")
        status.draw_failure(context, layout, "photo")


def _draw_model(layout, chosen):
    """The model, where there is a choice."""
    known = [m.name for m in parameters.head_models()]
    if len(known) > 1 or chosen.model not in known:
        row = layout.row()
        row.alert = chosen.model not in known
        row.prop(chosen, "model", placeholder="built-in")


class TRIPLANE_PT_advanced(status.Sidebar, bpy.types.Panel):
    bl_label = "Advanced"
    bl_parent_id = "TRIPLANE_PT_reconstruct"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return not status.runs_in("photo") and preflight.missing() is None

    def draw(self, context):
        layout, chosen = self.layout, parameters.settings(context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        draw_mesh(layout, chosen)
        layout.prop(chosen, "method")
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
        layout.operator("triplane.compare_methods", icon="IMGDISPLAY")


def draw_mesh(layout, chosen):
    """Which mesh, and how fine."""
    layout.row().prop(chosen, "topology", expand=True)
    if chosen.topology != "QUAD":
        layout.prop(chosen, "faces")
    if chosen.topology != "SURFACE":
        layout.prop(chosen, "density")
    layout.prop(chosen, "texture_size")


class _Made(status.Sidebar):
    bl_order = 1  # below the panels that make heads and objects

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
        for sentence in head.quality(head.record(made))[1]:
            text.wrapped(context, layout, sentence, "ERROR")
        column = layout.column(align=True)
        recipe = head.recipe(made)
        if recipe:
            column.operator("triplane.take_settings", icon="EYEDROPPER")
            column = layout.column(align=True)
        label = "View Through Front Camera" if recipe else "View Through Photo Camera"
        column.operator("triplane.view_photo", text=label, icon="CAMERA_DATA")
        column.operator("triplane.render_field", icon="RENDER_STILL")
        column = layout.column(align=True)
        column.operator("triplane.extract_mesh", icon="MESH_DATA")
        column.operator("triplane.save_field", icon="FILE_TICK")


class TRIPLANE_PT_head(_Made, bpy.types.Panel):
    bl_label = "Head"

    @classmethod
    def poll(cls, context):
        made = head.active(context)
        return made is not None and not head.is_object(made)


class TRIPLANE_PT_made_object(_Made, bpy.types.Panel):
    bl_label = "Object"

    @classmethod
    def poll(cls, context):
        made = head.active(context)
        return made is not None and head.is_object(made)


def _figures(made):
    """(label, value) of what is worth knowing about a head."""
    record, recipe = head.record(made), head.recipe(made)
    figures = record.get("figures") or {}
    if recipe:
        yield from _origin(recipe)
    elif record.get("model"):
        yield "Model", str(record["model"])
    if made.type == "MESH":
        yield "Faces", f"{len(made.data.polygons):,}"
    if record.get("preset"):
        yield "Quality", str(record["preset"]).capitalize()
    psnr, iou = figures.get("photo_psnr_db"), figures.get("silhouette_iou")
    if isinstance(psnr, (int, float)) and not recipe:
        yield "Likeness to the photo", f"{psnr:.1f} dB"
    if isinstance(iou, (int, float)):
        yield "Outline agrees", f"{iou:.0%}"
    score = head.quality(record)[0]
    if score is not None:
        yield "Trust in the result", f"{score:.0%}"
    seconds = sum(v for v in (record.get("timings") or {}).values() if isinstance(v, (int, float)))
    if seconds:
        yield "Made in", text.duration(seconds)
    size = field.size(made)
    yield "Field", f"{size / 1e6:.1f} MB" if size else "missing"


def _origin(recipe):
    """(label, value) of how a head was made that came from seeds."""
    heads = [str(h).removesuffix(".safetensors") for h in recipe.get("heads") or ()]
    if len(heads) > 1:
        first = min(int(recipe["at"]), len(heads) - 2)
        yield "Between", f"{heads[first]} and {heads[first + 1]}, {recipe['at'] - first:.0%}"
    elif heads:
        yield "Seed", heads[0]
    if recipe.get("mix_seed", -1) >= 0:
        last = recipe["mix_to"] if recipe["mix_to"] >= 0 else "last"
        yield "Mixed with", f"{recipe['mix_seed']}, rows {recipe['mix_from']} to {last}"
    yield "Model", str(recipe.get("model", ""))
    yield "Truncation", f"{recipe.get('psi', 1.0):.2f}"


CLASSES = (TRIPLANE_PT_reconstruct, TRIPLANE_PT_advanced, TRIPLANE_PT_head, TRIPLANE_PT_made_object)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
