"""The job `interpolate`: pictures along a path through two or more heads."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .sample import LATENT, MODEL, SPACE

PARAMS = (
    Param("heads", str, "", "Two or more seeds and saved heads (.safetensors), with commas"),
    *MODEL,
    Param(
        "steps",
        int,
        5,
        "Pictures from one head to the next, both included",
        minimum=2,
        maximum=1000,
    ),
    SPACE,
    *LATENT,
    Param(
        "view_yaw",
        float,
        0.0,
        "Camera of the pictures: to the subject's left",
        "degrees",
        -180.0,
        180.0,
    ),
    Param("view_pitch", float, 0.0, "Camera of the pictures: above", "degrees", -90.0, 90.0),
    Param(
        "orbit",
        float,
        0.0,
        "How far the camera turns to the subject's left from the first picture to the last",
        "degrees",
        -3600.0,
        3600.0,
    ),
    Param("size", int, 0, "Side of a picture; 0: the model's own", "px", 0, 4096),
    Param("folder", str, "", "Folder for the pictures; empty: they come with the result"),
    Param("name", str, "heads", "Start of the pictures' file names"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """An item a picture: {"frame", "path", "at"} and a thumbnail."""
    from engine.jobs.sampling_stages import interpolate_heads

    return interpolate_heads(params, context)


JOB = Job("interpolate", "Turn one head into another, picture by picture.", PARAMS, run)
