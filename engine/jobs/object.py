"""The job `object`: one picture of any thing -> textured mesh, camera, field, by a feed-forward
model."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .mesh import SURFACE

HEADS = "heads"  # the extension's own small model, see engine/inversion/instant.py
PARAMS = (
    Param("photo", str, "", "Picture of one thing: any picture file that Pillow reads"),
    Param(
        "mask",
        str,
        "",
        "Picture that is white, or opaque, where the thing is; empty: the photo's own alpha where"
        " it has any, else found by its colours",
    ),
    Param(
        "model",
        str,
        "",
        "Model: its name or a model file; heads: the extension's own small one, for heads; "
        "empty: the first one for objects",
    ),
    Param("models", str, "", "Folder of the models; empty: the user's"),
    Param("size", float, 0.3, "Largest dimension of the thing", "m", 0.001, 1000.0),
    *SURFACE,
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Cuts the thing out, makes its field, extracts, cleans, unwraps, bakes."""
    from engine.jobs.object_stages import reconstruct_object

    return reconstruct_object(params, context)


JOB = Job("object", "Make a textured mesh and a field of any thing from one picture.", PARAMS, run)
