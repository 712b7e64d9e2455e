"""The sidebar's panel for objects: a picture in, a mesh out."""

import os

import bpy

from ..operators import objects, preflight, session
from . import status, text


class TRIPLANE_PT_object(status.Sidebar, bpy.types.Panel):
    bl_label = "Object from Picture"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, missing = self.layout, preflight.missing()
        if status.runs_in("object"):
            status.draw_running(context, layout)
        elif missing is not None:
            status.draw_missing(context, layout, missing)
        elif not objects.usable():
            text.wrapped(
                context, layout, "A model for objects is needed: TripoSR or OpenLRM.", "INFO"
            )
            row = layout.row()
            row.scale_y = 1.6
            row.operator("triplane.open_preferences", text="Add a Model", icon="PREFERENCES")
        else:
            self._draw_ready(context, layout)

    def _draw_ready(self, context, layout):
        chosen = objects.settings(context)
        path = bpy.path.abspath(chosen.photo) if chosen.photo else ""
        if os.path.isfile(path):
            layout.template_icon(session.thumbnails.photo(path), scale=8)
        layout.prop(chosen, "photo", text="", placeholder="Picture of one thing")
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(chosen, "mask_from")
        if chosen.mask_from == "FILE":
            column.prop(chosen, "mask", text="File")
        elif chosen.mask_from == "IMAGE":
            column.prop_search(chosen, "mask_image", bpy.data, "images", text="Image")
        elif chosen.mask_from == "MASK":
            column.prop_search(chosen, "mask_mask", bpy.data, "masks", text="Mask")
        self._draw_model(context, column, chosen)
        column.prop(chosen, "size")
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(chosen, "faces")
        column.prop(chosen, "texture_size")
        row = layout.row()
        row.scale_y = 1.6
        row.enabled = bool(path)
        row.operator("triplane.reconstruct_object", icon="MESH_MONKEY")
        status.draw_failure(context, layout, "object")

    def _draw_model(self, context, column, chosen):
        """The model, and what it may be used for."""
        used = objects.chosen_model(chosen.model)
        first = objects.chosen_model("")
        column.prop(chosen, "model", placeholder=first.name)
        if used is None:
            column.label(text="There is no such model for objects", icon="ERROR")
        elif used.noncommercial:
            words = used.licence or "see its page"
            text.wrapped(context, column, f"Not for commercial use: {words}", "ERROR")
        elif used.licence:
            row = column.split(factor=0.4)
            left = row.row()
            left.alignment = "RIGHT"
            left.label(text="Licence")
            row.label(text=used.licence)


CLASSES = (TRIPLANE_PT_object,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
