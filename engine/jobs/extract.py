"""The job `extract`: a saved field, and its photo if there is one -> a new textured mesh."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .mesh import PHOTO, QUADS, SURFACE

PARAMS = (
    Param("field", str, "", "Field file (.safetensors)"),
    *PHOTO,
    *SURFACE,
    *QUADS,
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Extracts, cleans, unwraps and bakes."""
    from engine.jobs.stages import extract_field

    return extract_field(params, context)


JOB = Job("extract", "Make a textured mesh from a saved field.", PARAMS, run)
