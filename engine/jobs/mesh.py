"""Which mesh a job makes: parameters that every job with a mesh takes."""

from __future__ import annotations

from .base import Param

TOPOLOGIES = ("SURFACE", "QUAD", "BOTH")
DENSITIES = ("LOW", "MEDIUM", "HIGH")
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
