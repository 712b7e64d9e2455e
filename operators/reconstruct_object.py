"""A picture of any thing becomes a mesh."""

import contextlib
import os
import tempfile

import bpy
from bpy.props import StringProperty

from ..engine.errors import PhotoError
from . import objects, parameters
from .build import masks, png
from .job import JobOperator
from .newhead import NewHead


class TRIPLANE_OT_reconstruct_object(NewHead, JobOperator, objects.Parameters, bpy.types.Operator):
    """Make a textured mesh, with its picture's camera and its radiance field, of the one thing
    that a picture shows"""

    bl_idname = "triplane.reconstruct_object"
    bl_label = "Reconstruct Object"
    bl_options = {"UNDO"}

    job = "object"
    title = "Reconstructing"
    place = "object"

    filepath: StringProperty(
        name="Picture",
        description="The picture to make an object of",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context):
        if not super().poll(context):
            return False
        if not objects.usable():
            cls.poll_message_set(
                "Add a model for objects, TripoSR or OpenLRM, in the preferences first"
            )
            return False
        return True

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says."""
        chosen = objects.settings(context)
        if not self.filepath:
            self.filepath = chosen.photo
            if not self.properties.is_property_set("mask"):
                self.mask = chosen.chosen_mask()
            parameters.fill(self, chosen, objects.NAMES)
        return super().invoke(context, event)

    def setup(self, context):
        self._files = []
        photo = bpy.path.abspath(self.filepath) if self.filepath else ""
        if not photo:
            raise PhotoError("No picture has been chosen.", "Choose one first.")
        photo = os.path.abspath(photo)
        self.title = f"Reconstructing {os.path.basename(photo)}"
        self._parameters = self.job_parameters(photo, self._mask(photo))
        return self._parameters

    def kept(self):
        return self._parameters | ({"mask": self.mask} if self.mask else {})

    def finish(self, context, prepared):
        super().finish(context, prepared)
        for warning in prepared.record.get("warnings", ()):
            self.report({"WARNING"}, warning)

    def cleanup(self):
        for path in getattr(self, "_files", ()):
            with contextlib.suppress(OSError):
                os.remove(path)

    def _mask(self, photo):
        """The mask as a picture file's path; '' for none. Raises PhotoError."""
        name = self.mask
        if not name:
            return ""
        try:
            if name in bpy.data.masks:
                width, height = _size(photo)
                return self._written(masks.mask_pixels(bpy.data.masks[name], width, height))
            if name in bpy.data.images:
                return self._written(masks.image_pixels(bpy.data.images[name]))
        except ValueError as error:
            raise PhotoError(f"The mask {name} is empty.", "Draw round the object.") from error
        path = os.path.abspath(bpy.path.abspath(name))
        if not os.path.isfile(path):
            raise PhotoError(
                f"{name} is no mask, no image of this file and no picture on disk.",
                "Choose another mask, or none.",
            )
        return path

    def _written(self, pixels):
        handle, path = tempfile.mkstemp(prefix="triplane-mask-", suffix=".png")
        self._files.append(path)
        with os.fdopen(handle, "wb") as file:
            file.write(png.encode(pixels))
        return path


def _size(photo):
    """(width, height) of a picture file, as Blender shows it. Raises PhotoError."""
    import imbuf

    try:
        picture = imbuf.load(photo)
    except (OSError, ValueError) as error:
        raise PhotoError(f"{os.path.basename(photo)} cannot be opened.") from error
    size = tuple(picture.size)
    picture.free()
    return size
