"""The parameters of views, rigs, sheets and data sets as Blender properties: the operators' and the
panels'.

No `from __future__ import annotations` here: Blender reads the annotations as objects.
"""

import os
import re

import bpy
from bpy.props import (
    BoolProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import parameters

FORMATS = (
    ("png", "PNG", "8 bits a channel, with transparency"),
    ("png16", "PNG, 16 Bits", "16 bits a channel, with transparency"),
    ("exr", "OpenEXR", "Several layers: colour with transparency, depth, normals"),
)
RIGS = (
    ("CIRCLE", "Circle", "Around the head at one height: a turntable"),
    ("SPHERE", "Sphere", "All around, spread evenly"),
    ("SHEET", "Character Sheet", "Front, profiles, back and what lies between: eight cameras"),
    ("FILE", "File", "From a transforms.json, or a folder with COLMAP's text files"),
)
KINDS = {  # of files for a whole head: ending, name, description
    "glb": ("GLB", "glTF in one file: for game engines, the web, most programs"),
    "obj": ("OBJ", "With .mtl and the texture beside it"),
    "ply": ("PLY", "With colours in its vertices: PLY has no textures"),
    "usdz": ("USD", "Universal Scene Description in one file, with the texture"),
    "fbx": ("FBX", "With the texture inside: for film and game programs"),
}


class Size:
    """Mix-in: how large pictures are."""

    size: IntProperty(
        name="Size",
        description=(
            "Longest side of the pictures; 0: as large as the scene renders, or 512 where pictures "
            "are not the scene's"
        ),
        subtype="PIXEL",
        default=512,
        min=0,
        max=4096,
        options={"SKIP_SAVE"},
    )


class Format:
    """Mix-in: what files pictures are written to."""

    format: EnumProperty(
        name="Format",
        description="What files the pictures are written to",
        items=FORMATS,
        default="png",
        options={"SKIP_SAVE"},
    )


class Through:
    """Mix-in: through which cameras, and when."""

    which: EnumProperty(
        name="Cameras",
        description="Through which cameras",
        items=(
            (
                "SCENE",
                "Scene Camera",
                "As the scene renders: markers of the timeline may change it",
            ),
            ("SELECTED", "Selected Cameras", "Through each selected camera"),
        ),
        default="SCENE",
        options={"SKIP_SAVE"},
    )
    camera: StringProperty(
        name="Camera",
        description="Name of the one camera to use instead",
        options={"SKIP_SAVE"},
    )
    frames: EnumProperty(
        name="Frames",
        description="Which frames of the scene",
        items=(
            ("CURRENT", "This Frame", "The scene's present frame"),
            ("SCENE", "Scene Range", "From the scene's first to its last frame"),
            ("RANGE", "Range", "From one frame to another"),
        ),
        default="SCENE",
        options={"SKIP_SAVE"},
    )
    frame_start: IntProperty(
        name="From",
        description="First frame, where the frames are a range",
        default=1,
        min=0,
        max=1048574,
        options={"SKIP_SAVE"},
    )
    frame_end: IntProperty(
        name="To",
        description="Last frame, where the frames are a range",
        default=1,
        min=0,
        max=1048574,
        options={"SKIP_SAVE"},
    )


class Linking:
    """Mix-in: where a camera shows what was baked through it."""

    background: BoolProperty(
        name="Background",
        description="Show the pictures as the camera's background images",
        default=True,
        options={"SKIP_SAVE"},
    )
    plane: BoolProperty(
        name="Image Plane",
        description="Show the pictures on a plane that fills the camera's view where the head is",
        options={"SKIP_SAVE"},
    )
    compositor: BoolProperty(
        name="Compositor",
        description="Add an image node with the pictures to the scene's compositing nodes",
        options={"SKIP_SAVE"},
    )


class Rig:
    """Mix-in: a set of cameras around a head."""

    rig: EnumProperty(
        name="Rig",
        description="Where the cameras stand",
        items=RIGS,
        default="CIRCLE",
        options={"SKIP_SAVE"},
    )
    count: IntProperty(
        name="Cameras",
        description="How many cameras, on a circle or a sphere",
        default=24,
        min=1,
        max=10000,
        soft_max=200,
        options={"SKIP_SAVE"},
    )
    pitch: FloatProperty(
        name="Pitch",
        description="Degrees above the head's middle at which the circle lies",
        default=0.0,
        min=-89.0,
        max=89.0,
        options={"SKIP_SAVE"},
    )
    lowest: FloatProperty(
        name="Lowest",
        description="Pitch in degrees of the sphere's lowest cameras",
        default=-90.0,
        min=-90.0,
        max=89.0,
        options={"SKIP_SAVE"},
    )
    highest: FloatProperty(
        name="Highest",
        description="Pitch in degrees of the sphere's highest cameras",
        default=90.0,
        min=-89.0,
        max=90.0,
        options={"SKIP_SAVE"},
    )
    orthographic: BoolProperty(
        name="Orthographic",
        description="Cameras without perspective",
        options={"SKIP_SAVE"},
    )
    filepath: StringProperty(
        name="File",
        description="A transforms.json, or a folder with cameras.txt and images.txt of COLMAP",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    markers: BoolProperty(
        name="Markers",
        description=(
            "One frame a camera: bind them to markers of the timeline, in place of others that "
            "change the camera there, and set the scene's frame range to them"
        ),
        default=True,
        options={"SKIP_SAVE"},
    )


class Folder:
    """Mix-in: where pictures go."""

    folder: StringProperty(
        name="Folder",
        description=(
            "Where the pictures go; empty: beside the .blend, or among the temporary files where "
            "it has not been saved yet"
        ),
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )


class Sheet:
    """Mix-in: what a sheet of views is like."""

    template: EnumProperty(
        name="Views",
        description="Which views of a head stand side by side",
        items=(
            ("turnaround", "Turnaround", "Front, three-quarter, profile, three-quarter, back"),
            ("character", "Eight Around", "All around, an eighth of a turn each"),
        ),
        default="turnaround",
        options={"SKIP_SAVE"},
    )
    seeds: StringProperty(
        name="Seeds",
        description="Add a row for each of these seeds, made by the default model: 3, 9, 12-15",
        options={"SKIP_SAVE"},
    )
    captions: BoolProperty(
        name="Captions",
        description="Write under each view what it is",
        options={"SKIP_SAVE"},
    )
    perspective: BoolProperty(
        name="Perspective",
        description="Views as through a lens, instead of along parallel lines",
        options={"SKIP_SAVE"},
    )
    transparent: BoolProperty(
        name="Transparent",
        description="Nothing behind the heads, instead of a plain colour",
        default=True,
        options={"SKIP_SAVE"},
    )
    colour: FloatVectorProperty(
        name="Colour",
        description="The colour behind the heads, where it is not transparent",
        subtype="COLOR_GAMMA",
        size=3,
        default=(0.83, 0.835, 0.84),
        min=0.0,
        max=1.0,
        options={"SKIP_SAVE"},
    )


class Dataset:
    """Mix-in: which views a data set has."""

    chosen: BoolProperty(
        name="Selected Cameras",
        description="Through the selected cameras, at this frame, instead of evenly all around",
        options={"SKIP_SAVE"},
    )
    views: IntProperty(
        name="Views",
        description="How many cameras, evenly all around but for the ground and the crown",
        default=100,
        min=1,
        max=10000,
        options={"SKIP_SAVE"},
    )
    points: IntProperty(
        name="Points",
        description="Points of the surface, with normals and colours, to begin a training from",
        default=20000,
        min=0,
        max=1000000,
        options={"SKIP_SAVE"},
    )


class TRIPLANE_PG_views(
    Size,
    Format,
    Through,
    Linking,
    Rig,
    Sheet,
    Dataset,
    Folder,
    bpy.types.PropertyGroup,
):
    """What the panel shows. Kept on the window manager: never part of the artist's file."""


def settings(context):
    """The panel's settings."""
    return context.window_manager.triplane_views


def fill(operator, context, *parts):
    """Give `operator` what its call has left open of these mix-ins, as the panel says."""
    names = [name for part in parts for name in part.__annotations__]
    parameters.fill(operator, settings(context), names)


def file_name(name):
    """What a file may be called after a data-block, and the engine's jobs take. Other names give
    other files, but for signs that file systems do not like."""
    clean = re.sub(r"[^\w .-]", "_", name).strip(" .") or "_"
    return clean if re.match(r"\w", clean) else f"_{clean}"


def folder(given):
    """Where pictures go: the given folder, or 'views' beside the .blend, or a temporary one."""
    if given:
        return os.path.normpath(bpy.path.abspath(given))
    return os.path.join(os.path.dirname(bpy.data.filepath) or bpy.app.tempdir, "views")


def warning(given):
    """What to say of that folder after a job, if anything."""
    lost = not given and not bpy.data.filepath
    return ": temporary, as the .blend has not been saved" if lost else ""


def register():
    bpy.utils.register_class(TRIPLANE_PG_views)
    bpy.types.WindowManager.triplane_views = PointerProperty(type=TRIPLANE_PG_views)


def unregister():
    del bpy.types.WindowManager.triplane_views
    bpy.utils.unregister_class(TRIPLANE_PG_views)
