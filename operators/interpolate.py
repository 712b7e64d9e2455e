"""Pictures from one head to another."""

import os
import tempfile

import bpy
from bpy.props import IntProperty, StringProperty

from ..engine.errors import ParameterError
from . import headlist, sampling, session
from .build import sequence, views
from .headlist import HeadList
from .job import JobOperator


class TRIPLANE_OT_interpolate(
    HeadList,
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

    @classmethod
    def poll(cls, context):
        if session.running() is not None:
            cls.poll_message_set("Another job is still running")
            return False
        return True

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says; from this frame on."""
        if not self.heads:
            self.heads = headlist.of_panel(context, sampling.settings(context))
        names = (*sampling.NAMES, *sampling.Path.__annotations__, *sampling.View.__annotations__)
        sampling.fill(self, context, names)
        if not self.properties.is_property_set("start"):
            self.start = context.scene.frame_current
        return super().invoke(context, event)

    def setup(self, context):
        self.take_heads(context, self.heads, self.space)
        if len(self.labels) < 2:
            raise ParameterError("Two heads at least are needed.", "Give two seeds, such as 3, 9.")
        self._name = self.name or self.whole_name()
        self.title = f"From {self.whole_name()}"
        self._made_folder = ""
        folder = bpy.path.abspath(self.folder) if self.folder else self._new_folder()
        self._parameters = self.latent() | {
            "heads": self.heads_text,
            "steps": self.steps,
            "space": self.space,
            "view_yaw": self.view_yaw,
            "view_pitch": self.view_pitch,
            "orbit": self.orbit,
            "size": self.size,
            "folder": folder,
            "name": self._name,
        }
        if self.model_used:
            self._parameters["model"] = self.model_used
        return self._parameters

    def item(self, context, event):
        session.thumbnails.show(event["image"])

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
