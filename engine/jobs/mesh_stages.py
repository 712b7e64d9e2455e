"""The mesh of a field's surface, for the jobs that make one. Imports torch: only from inside a
job's run."""

from __future__ import annotations

from typing import Any

from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.jobs import quad_stages
from engine.jobs.base import Context
from engine.surface import bake as baking
from engine.surface import cleanup, isosurface, unwrap
from engine.surface.mesh import Mesh
from engine.surface.quad import QuadHead

GRID = 176  # voxels along the box: the head field's own grid, so that no facets arise
TRIPLANE_GRID = 256  # the same for tri-planes, which have no grid of their own


def meshes(
    field: Field,
    views: quad_stages.Views,
    params: dict[str, Any],
    context: Context,
    start: float,
) -> tuple[Mesh | None, QuadHead | None]:
    """The meshes that are wanted, one at least; `start` is the fraction of the job done before."""
    end = 0.95
    middle = {"SURFACE": end, "QUAD": start, "BOTH": (start + end) / 2}[params["topology"]]
    mesh = None
    if middle > start:
        part = (middle - start) / 4
        at = start, start + 0.6 * part, start + 1.2 * part
        mesh = unwrapped(field, params, context, at)
        context.progress(start + 2.2 * part, "baking the texture")
        mesh = textured(mesh, field, views(mesh), params, context)
    return mesh, quad_stages.make(field, views, params, context, middle, end)


def unwrapped(
    field: Field, params: dict[str, Any], context: Context, at: tuple[float, float, float]
) -> Mesh:
    """The field's iso-surface, its largest part, with UVs; `at`: the fractions of the job at which
    each of the three steps begins. Raises ReconstructionError where there is no solid."""
    context.progress(at[0], "extracting the surface")
    voxels = GRID if isinstance(field, HeadField) else TRIPLANE_GRID
    mesh = isosurface.extract(field, voxels, context.check)
    context.progress(at[1], "cleaning the mesh")
    mesh = cleanup.clean(mesh, params["faces"], check=context.check)
    context.progress(at[2], "unwrapping")
    return unwrap.unwrap(mesh, params["texture_size"], context.check)


def textured(
    mesh: Mesh,
    field: Field,
    views: list[baking.PhotoView],
    params: dict[str, Any],
    context: Context,
) -> Mesh:
    """The mesh with a texture of these views, and of the field where they show nothing."""
    size = params["texture_size"]
    return mesh.with_texture(baking.bake(mesh, field, views, size, context.check))
