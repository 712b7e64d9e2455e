"""The parameters of heads made from seeds, as Blender properties: the operators' and the panels'.

A test checks them against the jobs' own definitions (engine/jobs/sample.py and its kin). No
`from __future__ import annotations` here: Blender reads the annotations as objects.
"""

import bpy
from bpy.props import (
    BoolProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import models, parameters
from .build.head import APART

LAST_SEED = 2**31 - 1  # of Blender's integers; the engine takes twice as many
SPACES = (
    ("w", "Straight", "Straight between the heads' codes: the steadiest change"),
    ("z", "Arc", "An arc between the seeds' random numbers: every step is as likely a head"),
)
LAYOUTS = (
    ("GRID", "Grid", "Rows of equal length"),
    ("LINE", "Line", "Side by side"),
    ("CIRCLE", "Circle", "Around the middle, all looking outwards"),
)


def seed(name, description, least=0, default=0):
    """A seed's property."""
    return IntProperty(
        name=name,
        description=description,
        default=default,
        min=least,
        max=LAST_SEED,
        options={"SKIP_SAVE"},
    )


class Latent:
    """Mix-in: which model, and how a seed becomes a head."""

    model: StringProperty(
        name="Model",
        description="The model's name; empty: the default model of the preferences",
        options={"SKIP_SAVE"},
    )
    psi: FloatProperty(
        name="Truncation",
        description="How far from the average head: 1 is as the model was trained, 0 the average",
        default=0.7,
        min=-2.0,
        max=2.0,
        soft_min=0.0,
        soft_max=1.0,
        options={"SKIP_SAVE"},
    )
    cutoff: IntProperty(
        name="Truncated Rows",
        description="How many rows of the code are truncated, from the coarsest on; -1: all",
        default=-1,
        min=-1,
        max=64,
        options={"SKIP_SAVE"},
    )
    yaw: FloatProperty(
        name="Yaw",
        description="Degrees to the subject's left of the camera that the head is made for",
        default=0.0,
        min=-180.0,
        max=180.0,
        soft_min=-40.0,
        soft_max=40.0,
        options={"SKIP_SAVE"},
    )
    pitch: FloatProperty(
        name="Pitch",
        description="Degrees above, of the camera that the head is made for",
        default=0.0,
        min=-90.0,
        max=90.0,
        soft_min=-30.0,
        soft_max=30.0,
        options={"SKIP_SAVE"},
    )

    def latent(self):
        """These parameters, as jobs want them."""
        return {
            "model": self.model,
            "models": models.folder(),
            "psi": round(self.psi, 6),  # Blender's numbers have 32 bits: 0.7 is 0.69999999
            "cutoff": self.cutoff,
            "yaw": round(self.yaw, 5),
            "pitch": round(self.pitch, 5),
        }


class Mixing:
    """Mix-in: rows of another seed's code in the head's."""

    mix_seed: seed("Second Seed", "Seed whose rows replace some of the head's; -1: none", -1, -1)
    mix_from: IntProperty(
        name="From Row",
        description="First row to replace: low ones are shape, high ones colours",
        default=0,
        min=0,
        max=63,
        options={"SKIP_SAVE"},
    )
    mix_to: IntProperty(
        name="To Row",
        description="Last row to replace; -1: the last there is",
        default=-1,
        min=-1,
        max=63,
        options={"SKIP_SAVE"},
    )


class Mesh:
    """Mix-in: size of mesh and texture, as for a head from a photo."""

    faces: parameters.Parameters.__annotations__["faces"]
    texture_size: parameters.Parameters.__annotations__["texture_size"]

    def mesh_parameters(self):
        """These parameters, as jobs want them and heads keep them."""
        return {"faces": self.faces, "texture_size": self.texture_size}


class Path:
    """Mix-in: heads to blend, and how."""

    heads: StringProperty(
        name="Heads",
        description=(
            "Seeds, names of heads in the scene that were made from seeds, or files of fields, "
            "with commas: 3, 9"
        ),
        options={"SKIP_SAVE"},
    )
    space: EnumProperty(
        name="Way",
        description="How to get from one head to the next",
        items=SPACES,
        default="w",
        options={"SKIP_SAVE"},
    )
    steps: IntProperty(
        name="Steps",
        description="Steps from one head to the next, both of them counted",
        default=5,
        min=2,
        max=1000,
        soft_max=30,
        options={"SKIP_SAVE"},
    )


class View:
    """Mix-in: the camera of a sequence of pictures."""

    view_yaw: FloatProperty(
        name="View Yaw",
        description="Degrees to the subject's left of the camera that takes the pictures",
        default=0.0,
        min=-180.0,
        max=180.0,
        options={"SKIP_SAVE"},
    )
    view_pitch: FloatProperty(
        name="View Pitch",
        description="Degrees above, of the camera that takes the pictures",
        default=0.0,
        min=-90.0,
        max=90.0,
        options={"SKIP_SAVE"},
    )
    orbit: FloatProperty(
        name="Orbit",
        description="Degrees that the camera turns from the first picture to the last",
        default=0.0,
        min=-3600.0,
        max=3600.0,
        soft_min=-90.0,
        soft_max=90.0,
        options={"SKIP_SAVE"},
    )
    size: IntProperty(
        name="Size",
        description="Width and height of a picture; 0: as the model makes them",
        subtype="PIXEL",
        default=0,
        min=0,
        max=4096,
        options={"SKIP_SAVE"},
    )


class Held:
    """Mix-in: timing of meshes that are seen one after the other."""

    hold: IntProperty(
        name="Frames a Mesh",
        description="How many frames each mesh is to be seen",
        default=5,
        min=1,
        max=1000,
        options={"SKIP_SAVE"},
    )


class Kept:
    """Mix-in: for operators that make many heads."""

    keep_fields: BoolProperty(
        name="Keep Fields",
        description=(
            "Keep each head's radiance field (about 25 MB a head), to extract it anew, to render "
            "the field, or to blend it with others"
        ),
        default=True,
        options={"SKIP_SAVE"},
    )


class Crowd:
    """Mix-in: how many heads, and where they stand."""

    count: IntProperty(
        name="Heads",
        description="How many heads",
        default=6,
        min=1,
        max=1000,
        soft_max=50,
        options={"SKIP_SAVE"},
    )
    layout: EnumProperty(
        name="Layout",
        description="Where the heads stand",
        items=LAYOUTS,
        default="GRID",
        options={"SKIP_SAVE"},
    )
    spacing: FloatProperty(
        name="Spacing",
        description="Distance between neighbours",
        subtype="DISTANCE",
        default=APART,
        min=0.0,
        max=1000.0,
        soft_max=5.0,
        options={"SKIP_SAVE"},
    )


class TRIPLANE_PG_sampling(
    Latent,
    Mixing,
    Mesh,
    parameters.Quads,
    Path,
    View,
    Held,
    Kept,
    Crowd,
    bpy.types.PropertyGroup,
):
    """What the panels show. Kept on the window manager: never part of the artist's file."""

    seed: seed("Seed", "Which head: every number is another one, and always the same")
    mix: BoolProperty(
        name="Style Mixing", description="Take some rows of the code from a second seed"
    )
    mix_seed: seed("Second Seed", "Seed whose rows replace some of the head's")
    selected: BoolProperty(
        name="Selected Heads",
        description="Blend the selected heads, in the order of their names, before the seeds",
    )
    result: EnumProperty(
        name="Result",
        items=(
            ("PICTURES", "Pictures", "An image sequence on a plane and behind a camera"),
            ("MESHES", "Meshes", "One head after the other, by keyframes of their visibility"),
        ),
    )
    first: seed("First Seed", "The first seed of the gallery")


NAMES = tuple(Latent.__annotations__)
MESH = (*Mesh.__annotations__, *Kept.__annotations__)


def settings(context):
    """The panels' settings."""
    return context.window_manager.triplane_sampling


def fill(operator, context, names):
    """Give `operator` what its call has left open, as the panels say."""
    parameters.fill(operator, settings(context), names)


def register():
    bpy.utils.register_class(TRIPLANE_PG_sampling)
    bpy.types.WindowManager.triplane_sampling = PointerProperty(type=TRIPLANE_PG_sampling)


def unregister():
    del bpy.types.WindowManager.triplane_sampling
    bpy.utils.unregister_class(TRIPLANE_PG_sampling)
