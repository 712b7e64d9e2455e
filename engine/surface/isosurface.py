"""The iso-surface of a field.

Kinds of fields that know a fast way to a whole grid give it (tri-planes: fields/gridded.py). Any
other is evaluated on a coarse grid, then at full resolution only in the blocks that the surface
passes through: those whose corners differ in sign, and every further block that the surface, once
seen at full resolution, leads into. Evaluating is what costs; the rest is filled by interpolation,
where no sign can change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import mcubes
import numpy as np
import torch

from engine.errors import ReconstructionError
from engine.surface.mesh import Mesh, volume

if TYPE_CHECKING:
    from engine.fields.base import Field

BLOCK = 4  # fine voxels along a coarse cell
CHUNK = 1 << 17  # points a call to the field


def _evaluate(field: Field, points: np.ndarray, check: Callable[[], None]) -> np.ndarray:
    device = field.bounds.device
    out = np.empty(len(points), np.float32)
    with torch.no_grad():
        for i in range(0, len(points), CHUNK):
            check()
            part = torch.from_numpy(points[i : i + CHUNK]).to(device)
            out[i : i + CHUNK] = field.value(part).float().cpu().numpy()
    # What is not a number is not matter.
    return np.nan_to_num(out - np.float32(field.level), nan=-1.0, posinf=1e6, neginf=-1e6)


def _node_blocks(mask: np.ndarray) -> np.ndarray:
    """Nodes [4n + 1 ...] that belong to the closed blocks marked in mask [n ...]."""
    for axis in range(3):
        m = np.moveaxis(mask, axis, 0)
        nodes = np.concatenate([np.repeat(m, BLOCK, axis=0), np.zeros_like(m[:1])])
        nodes[BLOCK::BLOCK] |= m
        mask = np.moveaxis(nodes, 0, axis)
    return mask


def _crossed(inside: np.ndarray) -> np.ndarray:
    """Blocks [n ...] whose closed set of nodes in inside [4n + 1 ...] holds both signs."""
    both = []
    for reduce in (np.logical_and, np.logical_or):
        m = inside
        for axis in range(3):
            m = np.moveaxis(m, axis, 0)
            body = reduce.reduce(m[:-1].reshape(-1, BLOCK, *m.shape[1:]), axis=1)
            m = np.moveaxis(reduce(body, m[BLOCK::BLOCK]), 0, axis)
        both.append(m)
    return both[1] & ~both[0]


def grid_values(
    field: Field, resolution: int, check: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray, float]:
    """value - level on a grid over the field's bounds, exact in every block near the surface.

    Returns float32 [4a + 1, 4b + 1, 4c + 1] (axes x, y, z), the first node [3] and the spacing.
    """
    low, high = field.bounds.detach().cpu().numpy().astype(np.float64)
    blocks = max(resolution // BLOCK, 4)
    step = float((high - low).max()) / (blocks * BLOCK)
    n = np.maximum(np.ceil((high - low) / (step * BLOCK) - 1e-6).astype(int), 1)
    given = field.grid(torch.from_numpy(low), step, [int(k) * BLOCK for k in n], check)
    if given is not None:
        return given.cpu().numpy(), low, step
    return _followed(field, low, step, n, check), low, step


def _followed(
    field: Field, low: np.ndarray, step: float, n: np.ndarray, check: Callable[[], None]
) -> np.ndarray:
    """The values of `n` blocks along each axis, from a coarse grid along the surface."""
    axes = [low[i] + np.arange(n[i] + 1) * step * BLOCK for i in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    coarse = _evaluate(field, points, check).reshape(n + 1)
    grid = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None, None],
        size=tuple(int(k) for k in n * BLOCK + 1),
        mode="trilinear",
        align_corners=True,
    )[0, 0].numpy()

    shape = grid.shape
    flat = grid.reshape(-1)
    known = np.zeros(shape, bool)
    known[::BLOCK, ::BLOCK, ::BLOCK] = True
    active = np.zeros(tuple(n), bool)
    while True:
        check()
        new = _crossed(grid > 0) & ~active
        if not new.any():
            return grid
        active |= new
        nodes = _node_blocks(new) & ~known
        known |= nodes
        index = np.flatnonzero(nodes)
        ijk = np.stack(np.unravel_index(index, shape), 1)
        flat[index] = _evaluate(field, (low + ijk * step).astype(np.float32), check)


def _closed(grid: np.ndarray) -> np.ndarray:
    """The grid within a border on the other side of the surface, its own outer layer mirrored: the
    cap lies flat, half a voxel outside."""
    grid = np.pad(grid, 1, mode="edge")
    for axis in range(3):
        for side in (0, -1):
            layer = np.moveaxis(grid, axis, 0)[side]
            np.copyto(layer, -np.abs(layer))
    return grid


def _keep_off_nodes(grid: np.ndarray, check: Callable[[], None]) -> None:
    """Move values close to zero away from it, in place, or vertices would fall together on nodes
    and faces have no area. Slice by slice: these grids are the largest arrays of all."""
    steps = []
    for before, after in zip(grid[:-1], grid[1:]):
        crossing = (after > 0) != (before > 0)
        steps.append(np.abs(after[crossing] - before[crossing]))
    near = np.float32(0.01 * np.median(np.concatenate(steps)))
    for layer in grid:
        check()
        close = np.abs(layer) < near
        layer[close] = np.where(layer[close] > 0, near, -near)


def extract(field: Field, resolution: int = 256, check: Callable[[], None] = lambda: None) -> Mesh:
    """The surface value(points) == level inside the field's bounds, closed where it leaves them.

    resolution: voxels along the longest side of the bounds (rounded down to a multiple of 4).
    check: called often; raises to cancel.
    Returns every component, cavities included, wound counter-clockwise from outside; vertices in
    field units. Raises ReconstructionError when the field holds no surface.
    """
    grid, low, step = grid_values(field, resolution, check)
    if not (grid > 0).any():
        raise ReconstructionError(
            "The reconstruction has no surface.", "Try another photo or the preset 'best'."
        )
    check()
    grid = _closed(grid)
    _keep_off_nodes(grid, check)
    vertices, faces = mcubes.marching_cubes(grid, 0.0)
    check()
    vertices = (low + (vertices - 1.0) * step).astype(np.float32)
    faces = np.asarray(faces, np.int32)
    if volume(vertices, faces) < 0:
        faces = faces[:, ::-1].copy()
    return Mesh(vertices, faces)
