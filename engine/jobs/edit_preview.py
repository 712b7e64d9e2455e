"""The job `edit_preview`: a saved head and changes of it -> one small picture, quickly.

The worker keeps the opened head between calls, so that a slider can be dragged.
"""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .edit import HEAD

PARAMS = (
    *HEAD,
    Param(
        "camera",
        str,
        "",
        "Camera as JSON: cam2world (16), intrinsics (9), width, height; empty: from the front",
    ),
    Param("size", int, 128, "Longer side of the picture", unit="px", minimum=16, maximum=1024),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Renders one view of the changed head."""
    from engine.jobs.edit_stages import preview_edit

    return preview_edit(params, context)


JOB = Job("edit_preview", "Show a change of a head in a small picture.", PARAMS, run)
