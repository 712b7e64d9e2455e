"""The job `download_model`: a published model from the internet -> one of the user's models.

The only thing in Triplane that opens a connection, and only when the user asks for it. Whether
Blender may go online is asked by the operator; the command line asks for nothing but the licence.
"""

from __future__ import annotations

from typing import Any

from ..checkpoints.catalogue import CATALOGUE
from .base import Context, Job, Param, Result

PARAMS = (
    Param(
        "key",
        str,
        CATALOGUE[0].key,
        "Which model",
        choices=tuple(p.key for p in CATALOGUE if p.address),
    ),
    Param("accept", bool, False, "Whether its licence has been read and accepted"),
    Param("models", str, "", "Folder of the models; empty: the user's own"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Result's meta: name, path, bytes, licence, noncommercial, sha256 of what was fetched."""
    from engine.checkpoints.fetch import fetch_model

    made, sha256 = fetch_model(
        params["key"], params["accept"], params["models"], context.progress, context.check
    )
    return context.result(
        {
            "name": made.name,
            "path": str(made.path),
            "bytes": made.bytes,
            "licence": made.licence,
            "noncommercial": made.noncommercial,
            "sha256": sha256,
        }
    )


JOB = Job("download_model", "Download a published model and add it to the models.", PARAMS, run)
