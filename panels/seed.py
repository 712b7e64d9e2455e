"""The sidebar's panels for heads from seeds: one, a gallery of many, a whole crowd."""

import bpy

from ..operators import models, preflight, sampling, session, shelf
from . import sidebar, status

CELL = 78  # pixels across a picture of the gallery, at least


class TRIPLANE_MT_model(bpy.types.Menu):
    bl_label = "Model"

    def draw(self, context):
        layout = self.layout
        for model in models.listed():
            if model.makes_objects:
                continue
            row = layout.row()
            row.enabled = not model.broken
            row.operator("triplane.pick_model", text=model.name).name = model.name
        layout.separator()
        label = f"Default Model ({models.default()})"
        layout.operator("triplane.pick_model", text=label).name = ""
        layout.operator("triplane.open_preferences", text="Manage Models...", icon="PREFERENCES")


class TRIPLANE_PT_seed(status.Sidebar, bpy.types.Panel):
    bl_label = "New Head from Seed"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, chosen, missing = self.layout, sampling.settings(context), preflight.missing()
        if missing is not None:
            status.draw_missing(context, layout, missing)
            return
        if status.runs_in("seed"):
            status.draw_running(context, layout)
            return
        column = layout.column()
        draw_model(column, chosen)
        row = column.row(align=True)
        row.prop(chosen, "seed")
        row.operator("triplane.random_seed", text="", icon="FILE_REFRESH")
        column.prop(chosen, "psi", slider=True)
        row = layout.row()
        row.scale_y = 1.6
        row.operator("triplane.sample_head", icon="USER")
        status.draw_failure(context, layout, "seed")


class _Part(status.Sidebar):
    bl_parent_id = "TRIPLANE_PT_seed"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return preflight.missing() is None


class TRIPLANE_PT_seed_advanced(_Part, bpy.types.Panel):
    bl_label = "Advanced"

    def draw(self, context):
        layout, chosen = self.layout, sampling.settings(context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.enabled = not status.runs_in("seed")
        sidebar.draw_mesh(layout, chosen)
        layout.prop(chosen, "cutoff")
        column = layout.column(align=True)
        column.prop(chosen, "yaw", text="Made for Yaw")
        column.prop(chosen, "pitch", text="Pitch")


class TRIPLANE_PT_mixing(_Part, bpy.types.Panel):
    bl_label = "Style Mixing"

    def draw_header(self, context):
        self.layout.prop(sampling.settings(context), "mix", text="")

    def draw(self, context):
        layout, chosen = self.layout, sampling.settings(context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.enabled = chosen.mix and not status.runs_in("seed")
        layout.prop(chosen, "mix_seed")
        column = layout.column(align=True)
        column.prop(chosen, "mix_from")
        column.prop(chosen, "mix_to", text="To")


class TRIPLANE_PT_gallery(_Part, bpy.types.Panel):
    bl_label = "Gallery"
    bl_options = set()

    def draw(self, context):
        layout, chosen = self.layout, sampling.settings(context)
        wanted, first, runs = shelf.key(chosen), chosen.first, status.runs_in("gallery")
        page = range(first, min(first + shelf.PAGE, sampling.LAST_SEED + 1))
        missing = shelf.missing(wanted, first, len(page))
        if runs:
            status.draw_running(context, layout, picture=False)
        elif missing:
            row = layout.row()
            row.scale_y = 1.3
            label = f"Show Seeds {first} to {page[-1]}" if len(missing) == len(page) else "Go On"
            row.operator("triplane.gallery", text=label, icon="IMGDISPLAY").first = first
        if runs or len(missing) < len(page):
            width = context.region.width / context.preferences.system.ui_scale
            columns = min(max(2, int((width - 30) / CELL)), 4)
            scale = (width - 30) / columns / 22  # in Blender's units of 20 pixels, with a margin
            grid = layout.grid_flow(
                row_major=True, columns=columns, even_columns=True, even_rows=True, align=True
            )
            for seed in page:
                cell = grid.column(align=True)
                icon = shelf.icon(wanted, seed) or session.thumbnails.blank()
                cell.template_icon(icon, scale=scale)
                make = cell.operator(
                    "triplane.sample_head", text=str(seed), depress=seed == chosen.seed
                )
                make.seed, make.mix_seed = seed, -1  # as in the picture: nothing mixed in
        row = layout.row(align=True)
        self._turn(row, "TRIA_LEFT", max(0, first - shelf.PAGE), first > 0)
        row.prop(chosen, "first", text="From")
        self._turn(row, "TRIA_RIGHT", first + shelf.PAGE, True)
        status.draw_failure(context, layout, "gallery")

    def _turn(self, layout, icon, first, enabled):
        part = layout.row(align=True)
        part.enabled = enabled and first <= sampling.LAST_SEED
        part.operator("triplane.gallery", text="", icon=icon).first = first


class TRIPLANE_PT_crowd(_Part, bpy.types.Panel):
    bl_label = "Many Heads"

    def draw(self, context):
        layout, chosen = self.layout, sampling.settings(context)
        if status.runs_in("scene"):
            status.draw_running(context, layout)
            return
        layout.row().prop(chosen, "layout", expand=True)
        column = layout.column(align=True)
        column.prop(chosen, "count")
        column.prop(chosen, "spacing")
        layout.prop(chosen, "keep_fields")
        layout.operator("triplane.random_scene", icon="COMMUNITY")
        status.draw_failure(context, layout, "scene")


def draw_model(layout, chosen):
    """A row that says which model is used, and lets choose another."""
    used = chosen.model or models.default()
    known = models.find(used)
    icon = "ERROR" if known is None or known.broken else "NONE"
    row = layout.row()
    row.label(text="Model")
    row.menu("TRIPLANE_MT_model", text=used, icon=icon)


CLASSES = (
    TRIPLANE_MT_model,
    TRIPLANE_PT_seed,
    TRIPLANE_PT_gallery,
    TRIPLANE_PT_mixing,
    TRIPLANE_PT_crowd,
    TRIPLANE_PT_seed_advanced,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
