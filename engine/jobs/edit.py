"""The job `edit`: a saved head and changes of it -> the changed head's mesh, texture and field."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .mesh import PHOTO, QUADS, SURFACE

HEAD = (
    Param("field", str, "", "Field file (.safetensors) of the unedited head"),
    Param(
        "edits",
        str,
        "",
        "Changes of that head along the model's directions, such as age=1, smile=0.5 (names and"
        " units: engine/weights/directions.md); what is not named stays",
    ),
    Param("model", str, "", "Model: its name or file; empty: the one that the head was made with"),
    Param("models", str, "", "Folder of the models; empty: the user's"),
)
PARAMS = (
    *HEAD,
    *PHOTO,
    *SURFACE,
    *QUADS,
    Param("name", str, "", "Name of the head; empty: the file's"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Changes the field, extracts the mesh, bakes the texture."""
    from engine.jobs.edit_stages import edit_head

    return edit_head(params, context)


JOB = Job("edit", "Change a head along semantic directions: age, smile, hair.", PARAMS, run)
