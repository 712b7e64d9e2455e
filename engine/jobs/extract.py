"""The job `extract`: a saved field, and its photo if there is one -> a new textured mesh."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .mesh import QUADS

PARAMS = (
    Param("field", str, "", "Field file (.safetensors)"),
    Param("photo", str, "", "Photo to take visible skin from; empty: the field's colours only"),
    Param(
        "camera",
        str,
        "",
        "Camera of that photo as JSON: cam2world (16), intrinsics (9), width, height",
    ),
    Param(
        "faces", int, 40000, "Number of triangles of the mesh, about", minimum=1000, maximum=500_000
    ),
    Param("texture_size", int, 2048, "Side of the texture", unit="px", minimum=256, maximum=8192),
    *QUADS,
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Extracts, cleans, unwraps and bakes."""
    from engine.jobs.stages import extract_field

    return extract_field(params, context)


JOB = Job("extract", "Make a textured mesh from a saved field.", PARAMS, run)
