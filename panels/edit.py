"""The sidebar's panel for a head's sliders."""

import bpy

from ..operators import directions, edit_live, edits, models, preflight, session, sliders
from ..operators.build import edited, head
from . import status, text


class TRIPLANE_PT_edit(status.Sidebar, bpy.types.Panel):
    bl_label = "Edit Head"
    bl_order = 1  # below the panels that make heads, beside the head's own

    @classmethod
    def poll(cls, context):
        made = head.active(context)
        return made is not None and not head.is_object(made) and preflight.missing() is None

    def draw_header_preset(self, context):
        self.layout.label(text=head.active(context).name)

    def draw(self, context):
        layout, made = self.layout, head.active(context)
        reason = edits.refusal(made)
        if reason:
            text.wrapped(context, layout, f"{reason}.", "INFO")
            if status.runs_in("edit"):
                status.draw_running(context, layout, picture=False)
            elif models.find(sliders.model(made)) is not None and sliders.model(made):
                layout.operator("triplane.find_directions", icon="VIEWZOOM")
            status.draw_failure(context, layout, "edit")
            return
        running = session.running()
        column = layout.column()
        column.enabled = running is None or running.place == "edit"
        known = sliders.known(made)
        if not all(sliders.shown_as(made, one) for one in known):
            layout.operator("triplane.edit_sliders", icon="ADD")
        for title, inside in directions.grouped(known):
            _draw_group(context, column, made, title, inside)
        _draw_state(context, layout, made)
        status.draw_failure(context, layout, "edit")


def _draw_group(context, layout, made, title, inside):
    """A heading and its sliders: each with the button that resets it, and that of its keyframe."""
    column = layout.column(align=True)
    if title:
        column.label(text=title)
    for one in inside:
        shown = sliders.shown_as(made, one)
        if not shown:
            continue
        owner, name, path = sliders.slider(made, one)
        row = column.row(align=True)
        label, animated = directions.label(one.name), edits.animated(made, path)
        if animated:  # Blender's own slider: coloured, and the keys for keyframes work on it
            row.prop(owner, name, text=label, slider=True)
        else:
            row.prop(sliders.settings(context), shown, text=label, slider=True)
        if getattr(owner, name):
            row.operator("triplane.edit_reset", text="", icon="X").direction = one.name
        else:
            row.label(text="", icon="BLANK1")
        if sliders.model(made) != models.BUILT_IN:
            rename = row.operator("triplane.name_direction", text="", icon="GREASEPENCIL")
            rename.direction = one.name
        if animated:
            row.prop_decorator(owner, name)
        else:
            key = row.operator("triplane.edit_keyframe", text="", icon="DECORATE", emboss=False)
            key.direction = one.name


def _draw_state(context, layout, made):
    """Whether mesh and field are what the sliders say, and the buttons that make them so."""
    wanted, applied = edits.wanted(made), edited.applied(made)
    if status.runs_in("edit"):
        status.draw_running(context, layout, picture=False)
        return
    live = edit_live.state()
    if live.name == made.name and live.job and not live.shown:
        layout.label(text="Opening the head for its preview...", icon="TIME")
    if edits.animated(made):
        text.wrapped(
            context,
            layout,
            "Sliders have keyframes: Bake Views makes a picture of every frame, Apply the mesh of "
            "this one.",
            "INFO",
        )
    elif wanted != applied:
        layout.label(text="Mesh and field are of before", icon="ERROR")
    elif applied:
        layout.label(text="Mesh and field are as the sliders say", icon="CHECKMARK")
    row = layout.row(align=True)
    row.scale_y = 1.3
    apply = row.row(align=True)
    apply.enabled = wanted != applied
    apply.operator("triplane.edit_head", text="Apply", icon="CHECKMARK")
    reset = row.row(align=True)
    reset.enabled = bool(wanted or applied)
    reset.operator("triplane.edit_reset", text="Reset All", icon="LOOP_BACK").direction = ""
    layout.prop(sliders.settings(context), "automatic")
    stale = edits.stale_views(made)
    if stale:
        names = ", ".join(stale[:3]) + (" ..." if len(stale) > 3 else "")
        text.wrapped(context, layout, f"Views of before this edit: {names}", "INFO")


CLASSES = (TRIPLANE_PT_edit,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
