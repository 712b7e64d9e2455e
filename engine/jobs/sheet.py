"""The job `sheet`: views of one or more heads in one picture."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .sample import MODEL

PARAMS = (
    Param("heads", str, "", "Field files and seeds, with commas: a row of views each"),
    *MODEL,
    Param("psi", float, 0.7, "Truncation of heads made from seeds", "", -2.0, 2.0),
    Param(
        "cameras",
        str,
        "turnaround",
        "Views: turnaround (front, three-quarter, profile, back three-quarter, back), character"
        " (eight round the head), a rig such as circle:12 or circle:8:15, or a list of cameras, as"
        " the job views takes them",
    ),
    Param(
        "directions",
        str,
        "",
        "Semantic directions of the built-in model, with commas, or all: a row each of the one head"
        " given, from less to more of it, through the first camera",
    ),
    Param("size", int, 512, "Side of a picture", "px", 16, 4096),
    Param(
        "orthographic",
        bool,
        True,
        "Whether cameras look along parallel lines; eyes are equally high in all pictures anyway",
    ),
    Param("margin", int, 16, "Between the pictures and round them", "px", 0, 1024),
    Param("columns", int, 0, "Pictures in a row; 0: all of a head's, up to six", "", 0, 64),
    Param("labels", bool, False, "Whether each picture has its view's name under it"),
    Param("background", str, "", "Colour behind, such as #d4d5d6; empty: transparent"),
    Param("folder", str, "", "Folder for the sheet; empty: it comes with the result only"),
    Param("name", str, "sheet", "The files' name: NAME.png and NAME.json"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """An item a picture: {"index", "head", "view"} and a small picture of it. Array sheet uint8
    [H, W, 4], straight alpha; meta tiles: [{head, view, row, column, x, y, width, height, camera}],
    what NAME.json holds as well. Cameras are in each head's own field units."""
    from engine.jobs.sheet_stages import make_sheet

    return make_sheet(params, context)


JOB = Job("sheet", "Put views of heads side by side in one picture.", PARAMS, run, folder="folder")
