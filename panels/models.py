"""The list of models in the preferences."""

from ..engine.checkpoints.catalogue import CATALOGUE
from ..operators import models
from . import status, text


def draw(context, layout, preferences):
    """The models, what can be done with each, and where they are."""
    column = layout.column()
    column.use_property_split = False
    column.label(text="Models")
    box = column.box()
    rows, chosen = box.column(align=True), models.default()
    for model in models.listed():
        _draw_model(rows, model, model.name == chosen)
    for model in models.listed():
        trouble = model.broken or models.checked.get(models.stamp(model.path))
        if trouble:
            text.wrapped(context, box, f"{model.name}: {trouble}", "ERROR")
    if status.runs_in("models"):
        status.draw_running(context, box, picture=False)
    else:
        row = column.row()
        row.operator("triplane.model_add", icon="ADD")
        status.draw_failure(context, column, "models")
        _draw_published(column)
    own = column.column()
    own.use_property_split = True
    own.prop(preferences, "models_folder", placeholder="The extension's own")


def _draw_published(column):
    """Models for objects that others have published, and are not here yet."""
    sources = {model.name for model in models.listed()}
    missing = [p for p in CATALOGUE if p.key not in sources]
    if not missing:
        return
    column.label(text="Published Models for Objects")
    rows = column.box().column(align=True)
    for item in missing:
        row = rows.row(align=True)
        row.label(text=item.title)
        facts = row.row()
        facts.alignment = "RIGHT"
        facts.label(text=f"{item.bytes / 1e6:.0f} MB")
        if item.noncommercial:
            facts.label(text="Not for commercial use", icon="ERROR")
        else:
            facts.label(text=item.licence)
        tools = row.row(align=True)
        if item.address:
            tools.operator("triplane.model_download", text="", icon="IMPORT").key = item.key
        tools.operator("wm.url_open", text="", icon="URL").url = item.page


def _draw_model(layout, model, is_default):
    row = layout.row(align=True)
    picked = "RADIOBUT_ON" if is_default else "RADIOBUT_OFF"
    if model.makes_objects:
        row.label(text="", icon="MESH_MONKEY")
    else:
        row.operator("triplane.model_default", text="", icon=picked, emboss=False).name = model.name
    name = row.row()
    name.alert = bool(model.broken)
    name.label(text=model.name)
    facts = row.row()
    facts.alignment = "RIGHT"
    if model.resolution:
        facts.label(text=f"{model.resolution} px")
    facts.label(text=f"{model.bytes / 1e6:.0f} MB")
    if model.noncommercial:
        facts.label(text="Not for commercial use", icon="ERROR")
    elif model.licence:
        facts.label(text=model.licence[:24])
    tools = row.row(align=True)
    found = models.checked.get(models.stamp(model.path))
    checked = "CHECKMARK" if found == "" else "ERROR" if found else "FILE_REFRESH"
    tools.operator("triplane.model_verify", text="", icon=checked).name = model.name
    own = tools.row(align=True)
    own.enabled = not model.built_in
    own.operator("triplane.model_rename", text="", icon="GREASEPENCIL").name = model.name
    own.operator("triplane.model_remove", text="", icon="TRASH").name = model.name
