"""Views of heads side by side, in one picture."""

import json
import os

import bpy
from bpy.props import StringProperty

from . import headlist, models, viewing
from .build import head, linked
from .fieldjob import FieldOperator


class TRIPLANE_OT_view_sheet(
    headlist.HeadList,
    viewing.Size,
    viewing.Sheet,
    viewing.Folder,
    FieldOperator,
    bpy.types.Operator,
):
    """Put views of the selected heads, or of the active one, side by side in a picture, all at the
    same scale and with their eyes equally high"""

    bl_idname = "triplane.view_sheet"
    bl_label = "Make Sheet"
    bl_options = {"UNDO"}

    job = "sheet"
    title = "Making the sheet"
    place = "views"

    name: StringProperty(
        name="Name",
        description="Name of the files; empty: from the head",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the panel says."""
        viewing.fill(self, context, viewing.Size, viewing.Sheet, viewing.Folder)
        return super().invoke(context, event)

    def setup(self, context):
        made = [o for o in context.selected_objects if head.RECORD in o]
        made = sorted(made, key=lambda o: o.name) or [head.active(context)]
        self._title = self.name or f"{made[0].name} sheet"
        paths = []
        for one in made:
            name = viewing.file_name(one.name)
            used = any(os.path.basename(p) == f"{name}.safetensors" for p in paths)
            paths.append(self.write_field(one, f"{name}_{len(paths)}" if used else name))
        if self.seeds.strip():
            self.take_heads(context, self.seeds)
            paths += json.loads(self.heads_text)
        colour = "#" + "".join(f"{round(c * 255):02x}" for c in self.colour)
        return {
            "heads": json.dumps(paths),
            "models": models.folder(),
            "cameras": self.template,
            "size": max(16, self.size or 512),
            "orthographic": not self.perspective,
            "labels": self.captions,
            "background": "" if self.transparent else colour,
            "folder": viewing.folder(self.folder),
            "name": self.name or viewing.file_name(self._title),
        }

    def prepare(self, result):
        return result["meta"]

    def finish(self, context, prepared):
        image = linked.picture(prepared["path"], self._title)
        linked.show(context, image)
        count = len(prepared["tiles"])
        where = prepared["path"] + viewing.warning(self.folder)
        self.report({"INFO"}, f"{count} views in {where}")
