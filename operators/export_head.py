"""The head as a file for other programs, by Blender's own exporters."""

import os
import shutil
import tempfile

import bpy
from bpy.props import EnumProperty, StringProperty

from ..engine.errors import OutputError, TriplaneError
from . import polls, viewing
from .build import exported, head


class TRIPLANE_OT_export_head(bpy.types.Operator):
    """Save the active head's mesh, with its texture and at its size in the scene"""

    bl_idname = "triplane.export_head"
    bl_label = "Export Head"

    filepath: StringProperty(name="File", subtype="FILE_PATH", options={"SKIP_SAVE"})
    kind: EnumProperty(
        name="Format",
        description="What to write; where the file's ending is one of these, that one",
        items=[(kind, *texts) for kind, texts in viewing.KINDS.items()],
        default="glb",
        options={"SKIP_SAVE"},
    )
    filter_glob: StringProperty(
        default=";".join(f"*.{kind}" for kind in exported.ENDINGS), options={"HIDDEN"}
    )

    @classmethod
    def poll(cls, context):
        return polls.has_head(cls, context) and polls.in_object_mode(cls, context)

    def invoke(self, context, event):
        name = viewing.file_name(head.active(context).name)
        self.filepath = os.path.join(os.path.dirname(bpy.data.filepath), f"{name}.{self.kind}")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        path = os.path.abspath(bpy.path.abspath(self.filepath)) if self.filepath else ""
        try:
            if not path:
                raise OutputError("There is no file to write to.", "Name one.")
            if os.path.splitext(path)[1].lower().lstrip(".") not in exported.ENDINGS:
                path += f".{self.kind}"
            files = self._export(context, path)
        except TriplaneError as error:
            self.report({"ERROR"}, f"{error.sentence} {error.remedy}".strip())
            return {"CANCELLED"}
        size = sum(os.path.getsize(file) for file in files)
        self.report({"INFO"}, f"Saved {path} ({size / 1e6:.1f} MB)")
        return {"FINISHED"}

    def _export(self, context, path):
        """Write the file and what belongs to it, whole or not at all; returns the paths."""
        folder, name = os.path.split(path)
        apart = ""
        try:
            # In the same folder, so that finished files only need a new name.
            apart = tempfile.mkdtemp(prefix=".triplane-", dir=folder)
            exported.write(context, head.active(context), os.path.join(apart, name))
            return exported.move(apart, folder)
        except OSError as error:
            raise OutputError(
                f"{name} could not be saved: {error.strerror or error}.",
                "Choose a folder that can be written to.",
            ) from error
        except RuntimeError as error:  # Blender's exporters
            reason = str(error).removeprefix("Error: ").strip().rstrip(".")
            raise OutputError(f"{name} could not be saved: {reason}.") from error
        finally:
            if apart:
                shutil.rmtree(apart, ignore_errors=True)
