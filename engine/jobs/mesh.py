"""Which mesh a job makes, and from what: parameters that several jobs with a mesh take."""

from __future__ import annotations

from .base import Param

TOPOLOGIES = ("SURFACE", "QUAD", "BOTH")
DENSITIES = ("LOW", "MEDIUM", "HIGH")
SURFACE = (
    Param(
        "faces", int, 40000, "Number of triangles of the mesh, about", minimum=1000, maximum=500_000
    ),
    Param("texture_size", int, 2048, "Side of the texture", unit="px", minimum=256, maximum=8192),
)
QUADS = (
    Param(
        "topology",
        str,
        "SURFACE",
        "The field's surface with hair, in triangles; a clean mesh of quads with eyes and shape "
        "keys, without hair; or both",
        choices=TOPOLOGIES,
    ),
    Param(
        "density",
        str,
        "MEDIUM",
        "How fine the mesh of quads is: 3,288 quads, 4 or 16 times as many",
        choices=DENSITIES,
    ),
)
PHOTO = (
    Param("photo", str, "", "Photo to take visible skin from; empty: the field's colours only"),
    Param(
        "camera",
        str,
        "",
        "Camera of that photo as JSON: cam2world (16), intrinsics (9), width, height",
    ),
)
