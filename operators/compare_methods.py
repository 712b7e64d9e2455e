"""One photo, inverted in several ways, on one sheet."""

import os

import bpy
from bpy.props import EnumProperty, IntProperty, StringProperty

from . import models, parameters, viewing
from .build import linked
from .job import JobOperator

_TAKEN = parameters.Parameters.__annotations__
_PRESETS = [item for item in parameters.PRESETS if item[0] != "instant"]  # which fits nothing
_FILLED = ("preset", "model", "face_index", "refine_steps", "seed")  # as the sidebar says


class TRIPLANE_OT_compare_methods(JobOperator, viewing.Folder, bpy.types.Operator):
    """Make the photo's head in several ways and put on one sheet, for each: the view of the photo's
    camera, where it differs from the photo, views from the sides and from behind, the time that it
    took and how far to trust it"""

    bl_idname = "triplane.compare_methods"
    bl_label = "Compare Methods"
    bl_options = {"UNDO"}

    job = "compare"

    filepath: StringProperty(
        name="Photo",
        description="The photo to make heads of",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    methods: StringProperty(
        name="Methods",
        description="Ways to invert the photo, with commas, such as encoder, pti; or all",
        default="all",
        options={"SKIP_SAVE"},
    )
    preset: EnumProperty(
        name="Quality",
        description="How much work each method does",
        items=_PRESETS,
        default="balanced",
        options={"SKIP_SAVE"},
    )
    model: _TAKEN["model"]
    face_index: _TAKEN["face_index"]
    points: _TAKEN["points"]
    refine_steps: _TAKEN["refine_steps"]
    seed: _TAKEN["seed"]
    size: IntProperty(
        name="Size",
        description="Side of a picture on the sheet",
        subtype="PIXEL",
        default=256,
        min=64,
        max=1024,
        options={"SKIP_SAVE"},
    )
    name: StringProperty(
        name="Name",
        description="Name of the files; empty: from the photo",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says."""
        quick = parameters.settings(context).preset == "instant"
        parameters.take_photo(self, context, _FILLED[1:] if quick else _FILLED)
        return super().invoke(context, event)

    def setup(self, context):
        photo = parameters.photo_path(self.filepath)
        stem = os.path.splitext(os.path.basename(photo))[0]
        self.title = f"Comparing methods on {os.path.basename(photo)}"
        self._title = self.name or f"{stem} compared"
        points = [float(x) for x in self.points]
        return {
            "photo": photo,
            "methods": self.methods,
            "models": models.folder(),
            "points": points if any(points) else [],
            **{name: getattr(self, name) for name in _FILLED},
            "size": self.size,
            "folder": viewing.folder(self.folder),
            "name": viewing.file_name(self._title),
        }

    def prepare(self, result):
        return result["meta"]

    def finish(self, context, prepared):
        image = linked.picture(prepared["path"], self._title)
        linked.show(context, image)
        made = [facts for facts in prepared["methods"] if "failed" not in facts]
        where = prepared["path"] + viewing.warning(self.folder)
        self.report({"INFO"}, f"{len(made)} methods in {where}")
        for facts in prepared["methods"]:
            if "failed" in facts:
                self.report({"WARNING"}, f"{facts['method']}: {facts['failed']}")
