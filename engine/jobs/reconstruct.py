"""The job `reconstruct`: one photo -> textured head mesh, camera, field."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .mesh import QUADS, SURFACE

INSTANT = "instant"  # one pass of networks, see engine/inversion/instant.py
PRESETS = (INSTANT, "fast", "balanced", "best")
METHODS = ("auto", "encoder", "w+", "pti", "pose", "hfgi3d", "spi", "triplanenet", "warpgan")
PARAMS = (
    Param("photo", str, "", "Photo of a head: any picture file that Pillow reads"),
    Param(
        "preset",
        str,
        "balanced",
        "How much work: instant (one pass of a network), fast, balanced, best",
        choices=PRESETS,
    ),
    Param(
        "method",
        str,
        "auto",
        "How colours are found: auto is best; the others are the literature's ways, to compare",
        choices=METHODS,
    ),
    Param(
        "model",
        str,
        "built-in",
        "Model that makes the head: built-in, or the name or file of an EG3D model of faces",
    ),
    Param("models", str, "", "Folder of the models; empty: the user's"),
    Param(
        "face_index",
        int,
        0,
        "Which face, when there are several: 0 is the largest",
        minimum=0,
        maximum=99,
    ),
    Param(
        "points",
        float,
        [],
        "Eyes, nose tip and mouth corners in the photo (image left before "
        "right, x then y), instead of the detector's; empty: detect",
        unit="px",
        size=10,
    ),
    *SURFACE,
    *QUADS,
    Param(
        "refine_steps",
        int,
        -1,
        "Steps of tuning to the photo; -1: the preset's",
        minimum=-1,
        maximum=5000,
    ),
    Param(
        "seed",
        int,
        0,
        "Seed of every random draw: equal seeds give equal heads",
        minimum=0,
        maximum=2**31 - 1,
    ),
)
PHOTO_LIMIT = 4096  # px, longer side of the photo handed back


def run(params: dict[str, Any], context: Context) -> Result:
    """Runs every stage; see DESIGN for what the result holds."""
    if params["model"] in ("", "built-in"):
        from engine.jobs.stages import reconstruct_photo

        return reconstruct_photo(params, context)
    from engine.jobs.eg3d_stages import reconstruct_with_model

    return reconstruct_with_model(params, context)


JOB = Job(
    "reconstruct",
    "Make a textured head mesh, its camera and its field from one photo.",
    PARAMS,
    run,
)
