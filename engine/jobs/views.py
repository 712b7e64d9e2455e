"""The job `views`: a saved field through many cameras -> a sequence of pictures in a folder."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result

FORMATS = ("png", "png16", "exr")
# Through which cameras: the same in every job that renders views.
CAMERAS = (
    Param(
        "cameras",
        str,
        "",
        "Cameras: a rig (circle:48, circle:48:15 for 15 degrees above, sphere:100,"
        " sphere:100:-30:60 for a band of pitches, character, turnaround), a JSON list of cameras"
        " or of {frame, camera, field_to_world}, a .json file with one, a transforms.json or a"
        " folder of COLMAP text",
    ),
    Param("size", int, 512, "Side of a rig's pictures", "px", 16, 8192),
    Param("orthographic", bool, False, "Whether a rig's cameras look along parallel lines"),
)
TO_WORLD = Param(
    "field_to_world",
    float,
    (),
    "Field space to the scene, row-major: for depth and normals in scene units and axes, and for"
    " cameras from transforms.json and COLMAP; empty: metres, z up, the head looking along -y",
    size=16,
)
PARAMS = (
    Param("field", str, "", "Field file (.safetensors)"),
    *CAMERAS,
    Param("folder", str, "", "Folder for the pictures"),
    Param("name", str, "view", "Start of the pictures' file names"),
    Param(
        "format",
        str,
        "png",
        "png: 8 bits, png16: 16 bits, both with straight alpha; exr: multilayer OpenEXR with"
        " colour, alpha and depth",
        choices=FORMATS,
    ),
    Param("normals", bool, True, "Whether OpenEXR files hold normals"),
    TO_WORLD,
    Param("models", str, "", "Folder of the models, for cameras with edits; empty: the user's"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """An item a picture that is made: {"frame", "index", "path"} and a small picture of it; meta
    frames: [{"frame", "path", "made"}] in the cameras' order, made false for those that were there
    already, made from the same."""
    from engine.jobs.views_stages import bake_views

    return bake_views(params, context)


JOB = Job("views", "Render a saved field through many cameras.", PARAMS, run, folder="folder")
