"""The job `import_model`: a file with EG3D's weights -> one of the user's models.

A job because it takes seconds and torch; the command line has `model add` for it.
"""

from __future__ import annotations

from typing import Any

from ..checkpoints.registry import LIKE
from .base import Context, Job, Param, Result

PARAMS = (
    Param("file", str, "", "EG3D's training pickle, or a file with its generator's weights"),
    Param("name", str, "", "Name of the model; empty: after the file"),
    Param(
        "like",
        str,
        "auto",
        "Whose cameras a file without settings shares; auto: by the pictures' size",
        choices=("auto", *LIKE),
    ),
    Param("metres", float, 0.0, "Size of a field unit; 0: guessed", "m", 0.0, 1000.0),
    Param("licence", str, "", "The model's licence; empty: what is known of the file's kind"),
    Param("models", str, "", "Folder of the models; empty: the user's own"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Result's meta: name, path, bytes, resolution, system, licence, noncommercial."""
    from engine.checkpoints.add import add_model

    made = add_model(
        params["file"],
        params["name"],
        params["models"],
        like="" if params["like"] == "auto" else params["like"],
        metres=params["metres"] or None,
        licence=params["licence"],
        progress=context.progress,
        check=context.check,
    )
    return context.result(
        {
            "name": made.name,
            "path": str(made.path),
            "bytes": made.bytes,
            "resolution": made.resolution,
            "system": made.system,
            "licence": made.licence,
            "noncommercial": made.noncommercial,
        }
    )


JOB = Job("import_model", "Add a file with EG3D's weights to the models.", PARAMS, run)
