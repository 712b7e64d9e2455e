"""Pictures from one head to another."""

import os
import tempfile

import bpy
from bpy.props import IntProperty, StringProperty

from . import sampling
from .build import sequence, views
from .headlist import HeadPath
from .job import JobOperator


class TRIPLANE_OT_interpolate(
    HeadPath,
    sampling.Path,
    sampling.Latent,
    sampling.View,
    JobOperator,
    bpy.types.Operator,
):
    """Turn one head into another, picture by picture, as an image sequence in the scene"""

    bl_idname = "triplane.interpolate"
    bl_label = "Make Pictures"
    bl_options = {"UNDO"}

    job = "interpolate"
    place = "blend"

    folder: StringProperty(
        name="Folder",
        description=(
            "Where the pictures go, files of the same names are replaced; empty: a new folder "
            "beside the .blend, or among the temporary files where it has not been saved yet"
        ),
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )
    name: StringProperty(
        name="Name",
        description="Name of the plane, the folder and the pictures; empty: from the heads",
        options={"SKIP_SAVE"},
    )
    start: IntProperty(
        name="Start",
        description="Frame of the scene that shows the first picture",
        default=1,
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        self.fill_path(context, sampling.View.__annotations__)
        return super().invoke(context, event)

    def setup(self, context):
        self.take_path(context)
        self._name = self.name or self.whole_name()
        self._made_folder = ""
        folder = bpy.path.abspath(self.folder) if self.folder else self._new_folder()
        return self.head_parameters() | {
            "steps": self.steps,
            "view_yaw": self.view_yaw,
            "view_pitch": self.view_pitch,
            "orbit": self.orbit,
            "size": self.size,
            "folder": folder,
            "name": self._name,
        }

    def finish(self, context, prepared):
        meta = prepared["meta"]
        frames = [frame["path"] for frame in meta["frames"]]
        facts = {"model": meta["model"], "recipe": meta["recipe"], "versions": meta["versions"]}
        plane = sequence.build(context, self._name, frames, self.start, facts)
        self._made_folder = ""  # from now on it is the artist's
        views.frame(context, [plane])
        last = self.start + len(frames) - 1
        text = f"{len(frames)} pictures, frames {self.start} to {last}, in"
        where = os.path.dirname(frames[0])
        if bpy.data.filepath or self.folder:
            self.report({"INFO"}, f"{text} {os.path.basename(where)}")
        else:
            self.report({"WARNING"}, f"{text} {where}: temporary, as the .blend is not saved yet")

    def cleanup(self):
        super().cleanup()
        if getattr(self, "_made_folder", ""):
            import shutil

            shutil.rmtree(self._made_folder, ignore_errors=True)

    def _new_folder(self):
        beside = os.path.dirname(bpy.data.filepath) or tempfile.gettempdir()
        self._made_folder = sequence.unused(beside, self._name)
        return self._made_folder
