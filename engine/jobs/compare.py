"""The job `compare`: one photo, inverted in several ways, on one sheet."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .reconstruct import PARAMS as RECONSTRUCTION

TAKEN = ("photo", "model", "models", "face_index", "points", "refine_steps", "seed")
PRESETS = ("fast", "balanced", "best")
PARAMS = (
    *(param for param in RECONSTRUCTION if param.name in TAKEN),
    Param("methods", str, "all", "Ways to invert the photo, with commas, or all"),
    Param("preset", str, "balanced", "How much work each method does", choices=PRESETS),
    Param("size", int, 256, "Side of a picture on the sheet", "px", 64, 1024),
    Param("folder", str, "", "Folder for the sheet; empty: it comes with the result only"),
    Param("name", str, "compare", "The files' name: NAME.png and NAME.json"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """An item a method: {"index", "method", "seconds", "psnr_db", "quality"} and its row. Array
    sheet uint8 [H, W, 3]; meta methods: those facts, in order. A method that fails with a sentence
    for the artist is left out, and the sentence stands in its facts as "failed"."""
    from engine.jobs.compare_stages import compare_methods

    return compare_methods(params, context)


JOB = Job(
    "compare",
    "Invert one photo in several ways and put what they make of it on one sheet.",
    PARAMS,
    run,
    folder="folder",
)
