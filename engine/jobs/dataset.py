"""The job `dataset`: views of a head as data for training radiance fields and splats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .base import Context, Job, Param, Result
from .views import CAMERAS, TO_WORLD

PARAMS = (
    Param("field", str, "", "Field file (.safetensors)"),
    replace(CAMERAS[0], default="sphere:100:-30:60"),
    CAMERAS[1],
    Param("points", int, 20000, "Points of the surface in points3d.ply", "", 0, 1_000_000),
    TO_WORLD,
    Param("folder", str, "", "Folder for the data set"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Into the folder go

    images/view_0001.png ...: 8 bits, straight alpha;
    masks/view_0001.png ...: 255 where the head covers half of a pixel or more, else 0;
    depth/view_0001.png ...: 16 bits, depth along the camera's z in tenths of a millimetre if the
        scene's unit is a metre (in general 1e-4 scene units), 0 where nothing is;
    transforms.json: for nerfstudio and instant-ngp;
    sparse/0/cameras.txt, images.txt, points3D.txt: for COLMAP and what reads its models;
    points3d.ply: points of the surface with normals and colours.

    All in the scene's space, see field_to_world. The list of files is written last; pictures that
    are there already, made from the same, are not made again. Items and meta frames: as the job
    views has them.
    """
    from engine.jobs.dataset_stages import make_dataset

    return make_dataset(params, context)


JOB = Job(
    "dataset", "Render a data set for training from a saved field.", PARAMS, run, folder="folder"
)
