"""The job `render`: a saved field through a camera -> an image with alpha and depth."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result

PARAMS = (
    Param("field", str, "", "Field file (.safetensors)"),
    Param("camera", str, "", "Camera as JSON: cam2world (16), intrinsics (9), width, height"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Renders one view."""
    from engine.jobs.stages import render_field

    return render_field(params, context)


JOB = Job("render", "Render a saved field through a camera.", PARAMS, run)
