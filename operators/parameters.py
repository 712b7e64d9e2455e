"""The reconstruction's parameters as Blender properties: the operator's and the panel's.

A test checks them against the job's own definitions (engine/jobs/reconstruct.py). No
`from __future__ import annotations` here: Blender reads the annotations as objects.
"""

import os

import bpy
from bpy.props import (
    BoolProperty,
    EnumProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from ..engine.errors import PhotoError
from . import models

POINTS = ("Right eye", "Left eye", "Nose tip", "Mouth, right", "Mouth, left")
PRESETS = (
    ("instant", "Instant", "One pass of a network, nothing fitted: a head in a few seconds"),
    ("fast", "Fast", "A first look: the encoder's guess, not fitted to the photo"),
    ("balanced", "Balanced", "Fitted to the photo: the default"),
    ("best", "Best", "Fitted longer: for the final head"),
)

METHODS = (
    ("auto", "Automatic", "What turned out best"),
    ("encoder", "Encoder", "What the networks say at a glance"),
    ("w+", "W+ (SG2)", "The style code fitted to the photo"),
    ("pti", "PTI", "The generator tuned to the photo around its style code"),
    ("pose", "Pose-Optimised", "The camera refined by the photo's colours, then tuned"),
    ("hfgi3d", "HFGI3D-like", "Tuned to the photo and to how it looks warped to the sides"),
    ("spi", "SPI-like", "Tuned to the photo and to its mirror image"),
    ("triplanenet", "TriPlaneNet-like", "Planes corrected by what the photo differs in"),
    ("warpgan", "WarpGAN", "The photo warped round the head, what it does not show inpainted"),
)

TOPOLOGIES = (
    ("SURFACE", "Surface", "The head with its hair, in triangles"),
    (
        "QUAD",
        "Quads",
        "A clean mesh of quads with UVs, eyes and shape keys; without hair, of which it keeps the "
        "scalp's colour",
    ),
    ("BOTH", "Both", "The mesh of quads beside the surface"),
)
DENSITIES = (
    ("LOW", "Low", "3,288 quads: a cage to subdivide"),
    ("MEDIUM", "Medium", "13,152 quads"),
    ("HIGH", "High", "52,608 quads"),
)


def head_models():
    """The models that make heads of photos, the built-in one first."""
    return [m for m in models.listed() if not (m.makes_objects or m.broken)]


def _head_models(self, context, typed):
    return [m.name for m in head_models()]


class Quads:
    """Mix-in: which mesh."""

    topology: EnumProperty(
        name="Mesh",
        description="What the head is made of",
        items=TOPOLOGIES,
        default="SURFACE",
        options={"SKIP_SAVE"},
    )
    density: EnumProperty(
        name="Quads",
        description="How fine a mesh of quads is",
        items=DENSITIES,
        default="MEDIUM",
        options={"SKIP_SAVE"},
    )

    def quad_parameters(self):
        """These parameters, as jobs want them."""
        return {"topology": self.topology, "density": self.density}


class Parameters(Quads):
    """Mix-in with what a reconstruction can be told."""

    preset: EnumProperty(
        name="Quality",
        description="How much work to put into the likeness",
        items=PRESETS,
        default="balanced",
        options={"SKIP_SAVE"},
    )
    method: EnumProperty(
        name="Method",
        description="How the head's colours are found",
        items=METHODS,
        default="auto",
        options={"SKIP_SAVE"},
    )
    model: StringProperty(
        name="Model",
        description="Model that makes the head: built-in, or the name of an EG3D model of faces",
        default=models.BUILT_IN,
        search=_head_models,
        options={"SKIP_SAVE"},
    )
    face_index: IntProperty(
        name="Face",
        description="Which face of the photo, by size: 0 is the largest",
        default=0,
        min=0,
        max=99,
        options={"SKIP_SAVE"},
    )
    points: FloatVectorProperty(
        name="Points",
        description=(
            "Right eye, left eye, nose tip, right and left corner of the mouth, as x and y in "
            "pixels of the photo from its top left; all zero: found by themselves"
        ),
        size=10,
        default=(0.0,) * 10,
        options={"SKIP_SAVE"},
    )
    faces: IntProperty(
        name="Faces",
        description="Number of triangles that the mesh is reduced to",
        default=40000,
        min=1000,
        max=500000,
        soft_min=5000,
        soft_max=100000,
        step=1000,
        options={"SKIP_SAVE"},
    )
    texture_size: IntProperty(
        name="Texture",
        description="Width and height of the baked texture",
        subtype="PIXEL",
        default=2048,
        min=256,
        max=8192,
        options={"SKIP_SAVE"},
    )
    seed: IntProperty(
        name="Seed",
        description="Of all random numbers: the same seed gives the same head",
        default=0,
        min=0,
        options={"SKIP_SAVE"},
    )
    refine_steps: IntProperty(
        name="Refine Steps",
        description="Steps that fit the head to the photo; -1: as many as the quality says",
        default=-1,
        min=-1,
        max=5000,
        soft_max=1000,
        options={"SKIP_SAVE"},
    )

    def job_parameters(self, photo):
        """The parameters of the job 'reconstruct' for this photo's path."""
        points = [float(x) for x in self.points]
        return {
            "photo": photo,
            "preset": self.preset,
            "method": self.method,
            "model": self.model,
            "models": models.folder(),
            "face_index": self.face_index,
            "points": points if any(points) else [],
            "faces": self.faces,
            "texture_size": self.texture_size,
            **self.quad_parameters(),
            "seed": self.seed,
            "refine_steps": self.refine_steps,
        }


QUADS = tuple(Quads.__annotations__)
NAMES = (*Parameters.__annotations__, *QUADS)


def _photo_changed(self, context):
    from . import session

    session.forget_failure()
    self.property_unset("points")
    self.property_unset("face_index")
    self.points_by_hand = False


class TRIPLANE_PG_settings(Parameters, bpy.types.PropertyGroup):
    """What the sidebar shows. Kept on the window manager: never part of the artist's file."""

    photo: StringProperty(
        name="Photo",
        description="The photo to make a head of",
        subtype="FILE_PATH",
        update=_photo_changed,
    )
    points_by_hand: BoolProperty(
        name="Place Points by Hand",
        description="Say where the face is, where it is not found by itself",
    )

    def job_parameters(self, photo):
        result = super().job_parameters(photo)
        if not self.points_by_hand:
            result["points"] = []
        return result


def settings(context):
    """The sidebar's settings."""
    return context.window_manager.triplane


def fill(operator, chosen, names):
    """Give `operator` what its call has left open of these properties, from `chosen` settings."""
    for name in names:
        if not operator.properties.is_property_set(name):
            setattr(operator, name, getattr(chosen, name))


def take_photo(operator, context, names):
    """For an operator called from a button, with no photo of its own: the sidebar's photo, its
    points where they were placed by hand, and these properties where the call leaves them open."""
    chosen = settings(context)
    if operator.filepath:
        return
    operator.filepath = chosen.photo
    if chosen.points_by_hand:
        operator.points = chosen.points
    fill(operator, chosen, names)


def photo_path(filepath):
    """The whole path of a photo. Raises PhotoError where none has been chosen."""
    photo = bpy.path.abspath(filepath) if filepath else ""
    if not photo:
        raise PhotoError("No photo has been chosen.", "Pick one first.")
    return os.path.abspath(photo)


def register():
    bpy.utils.register_class(TRIPLANE_PG_settings)
    bpy.types.WindowManager.triplane = PointerProperty(type=TRIPLANE_PG_settings)


def unregister():
    del bpy.types.WindowManager.triplane
    bpy.utils.unregister_class(TRIPLANE_PG_settings)
