"""The parameters of objects made from pictures, as Blender properties: the operator's and the
panel's.

A test checks them against the job's own definitions (engine/jobs/object.py). No
`from __future__ import annotations` here: Blender reads the annotations as objects.
"""

import bpy
from bpy.props import EnumProperty, FloatProperty, PointerProperty, StringProperty

from . import models, parameters

MASKS = (
    ("NONE", "None", "The picture's own transparency, or else found by its colours"),
    ("FILE", "File", "A picture that is white, or opaque, where the object is"),
    ("IMAGE", "Image", "An image of this .blend, painted white where the object is"),
    ("MASK", "Mask", "A mask of Blender's mask editor, drawn over the same picture"),
)


def usable():
    """The models for objects."""
    return [m for m in models.listed() if m.makes_objects and not m.broken]


def chosen_model(name):
    """The model that this name stands for ('' for the first), or None."""
    if name:
        found = models.find(name)
        return found if found is not None and found.makes_objects else None
    known = usable()
    return next((m for m in known if m.name == models.default()), known[0] if known else None)


def _names(self, context, typed):
    return [m.name for m in usable()]


class Parameters:
    """Mix-in with what the making of an object can be told."""

    mask: StringProperty(
        name="Mask",
        description=(
            "Where the object is: the name of a mask of the mask editor or of an image of this "
            "file, or the path of a picture; empty: found by itself"
        ),
        options={"SKIP_SAVE"},
    )
    model: StringProperty(
        name="Model",
        description="The model's name; empty: the first one for objects",
        search=_names,
        options={"SKIP_SAVE"},
    )
    size: FloatProperty(
        name="Size",
        description="How large the object is along its longest side",
        subtype="DISTANCE",
        default=0.3,
        min=0.001,
        max=1000.0,
        soft_min=0.01,
        soft_max=10.0,
        options={"SKIP_SAVE"},
    )
    faces: parameters.Parameters.__annotations__["faces"]
    texture_size: parameters.Parameters.__annotations__["texture_size"]

    def job_parameters(self, photo, mask):
        """The parameters of the job 'object' for these pictures' paths."""
        return {
            "photo": photo,
            "mask": mask,
            "model": self.model,
            "models": models.folder(),
            "size": float(f"{self.size:.6g}"),  # Blender's numbers have 32 bits
            "faces": self.faces,
            "texture_size": self.texture_size,
        }


NAMES = ("model", "size", "faces", "texture_size")


def _changed(self, context):
    from . import session

    session.forget_failure()


class TRIPLANE_PG_objects(Parameters, bpy.types.PropertyGroup):
    """What the panel shows. Kept on the window manager: never part of the artist's file."""

    photo: StringProperty(
        name="Picture",
        description="A picture of one thing, all of it to be seen",
        subtype="FILE_PATH",
        update=_changed,
    )
    mask_from: EnumProperty(
        name="Mask", description="Where the object is in the picture", items=MASKS
    )
    mask: StringProperty(
        name="Mask File",
        description="A picture that is white, or opaque, where the object is",
        subtype="FILE_PATH",
        update=_changed,
    )
    mask_image: StringProperty(name="Image", description="An image, painted white on the object")
    mask_mask: StringProperty(name="Mask", description="A mask drawn round the object")

    def chosen_mask(self):
        """The operator's `mask` for what the panel says."""
        given = {"FILE": self.mask, "IMAGE": self.mask_image, "MASK": self.mask_mask}
        return given.get(self.mask_from, "")


def settings(context):
    """The panel's settings."""
    return context.window_manager.triplane_objects


def register():
    bpy.utils.register_class(TRIPLANE_PG_objects)
    bpy.types.WindowManager.triplane_objects = PointerProperty(type=TRIPLANE_PG_objects)


def unregister():
    del bpy.types.WindowManager.triplane_objects
    bpy.utils.unregister_class(TRIPLANE_PG_objects)
