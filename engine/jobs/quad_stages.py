"""The mesh of quads, for the jobs that make one. Imports torch: only from inside a job's run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.jobs.base import Context
from engine.surface import bake as baking
from engine.surface import quad, quad_bake
from engine.surface.mesh import Mesh

Views = Callable[[Mesh], list[baking.PhotoView]]


def check(field: Field, params: dict[str, Any]) -> None:
    """Raises WeightsError where quads are wanted that the field cannot give: before any work."""
    if params["topology"] != "SURFACE":
        quad.coefficients(field)


def make(
    field: Field,
    views: Views,
    params: dict[str, Any],
    context: Context,
    start: float,
    end: float,
) -> quad.QuadHead | None:
    """The head in quads, textured, if it is wanted; from `start` to `end` of the job's progress."""
    if params["topology"] == "SURFACE":
        return None
    assert isinstance(field, HeadField)  # quad.coefficients has refused any other
    context.progress(start, "laying out the quads")
    head = quad.shape(field, params["density"], context.check)
    context.progress(start + 0.2 * (end - start), "baking the quads' texture")
    return quad_bake.bake(
        head, field, views(head.triangles()), params["texture_size"], context.check
    )


def arrays(head: quad.QuadHead | None) -> dict[str, np.ndarray]:
    """quad_vertices float32 [V, 3] in field space, quad_faces int32 [F, 4], quad_uvs float32
    [F, 4, 2], quad_texture; quad_shapes float32 [K, V, 3]: displacements of the shape keys;
    eye_vertices float32 [2, E, 3]: left, right; eye_faces, eye_uvs, eye_texture for both."""
    if head is None:
        return {}
    return {
        "quad_vertices": head.vertices,
        "quad_faces": head.quads.astype(np.int32),
        "quad_uvs": head.uvs.astype(np.float32),
        "quad_texture": head.texture,
        "quad_shapes": head.shapes,
        "eye_vertices": np.stack([eye.vertices for eye in head.eyes]),
        "eye_faces": head.eyes[0].quads,
        "eye_uvs": head.eyes[0].uvs,
        "eye_texture": head.eye_texture,
    }


def meta(head: quad.QuadHead | None, field: Field) -> dict[str, Any]:
    """What the result says of the quads: names of the shape keys in the arrays' order, centre and
    radius of the eyeballs (left, right; metres), distance to the field's own skin."""
    if head is None:
        return {}
    assert isinstance(field, HeadField)
    return {
        "quad": {
            "faces": len(head.quads),
            "shapes": list(head.names),
            "eyes": [[*eye.centre.tolist(), eye.radius] for eye in head.eyes],
            "skin_distance_mm": round(quad.skin_distance(head, field) * 1000, 3),
        }
    }


def lowest(field: Field) -> float:
    """y of the lowest point of a head's surface, in field units."""
    assert isinstance(field, HeadField)
    return quad.lowest(field)
