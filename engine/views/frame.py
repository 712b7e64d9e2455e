"""One view of a field as people use it: straight colours, depth, normals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.cameras import Camera
from engine.fields.base import Field, Render
from engine.render.rays import camera_rays

COVERED = 0.01  # alpha from which on a pixel has a depth and a normal
# Where neighbours differ by as much, a pixel shows more than its centre does.
STEP_ALPHA = 0.15
STEP_DEPTH = 1 / 60  # of the field's box
# Four places in a pixel, from its centre, no two in one row or column (a rotated grid).
PLACES = ((-0.375, -0.125), (0.125, -0.375), (-0.125, 0.375), (0.375, 0.125))
EXTENT_NODES = 64  # along the box, to find where the head is
PROBE = 1 / 256  # of the box: how far apart the points are whose values give a normal
# Corners of a tetrahedron: four values give a gradient.
CORNERS = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


@dataclass(frozen=True)
class Frame:
    """A view, float32, row 0 = top.

    colour: [H, W, 3], display sRGB 0..1, straight (not premultiplied); alpha: [H, W], 0..1; depth:
    [H, W] along the camera's z in the camera's units, inf where nothing is; normals: [H, W, 3],
    unit, out of the head, in field axes, zero where nothing is, or None.
    """

    colour: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    normals: np.ndarray | None = None

    @property
    def rgba(self) -> np.ndarray:
        """uint8 [H, W, 4], straight alpha."""
        both = np.concatenate([self.colour, self.alpha[..., None]], -1)
        return (both * 255 + 0.5).astype(np.uint8)


@torch.no_grad()
def look(
    field: Field,
    camera: Camera,
    with_normals: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Frame:
    """The view of a camera, its outlines smoothed: there four rays a pixel are taken.
    with_normals: also the normals: those of the field's own values at the depths seen, so they are
    as fine as the field whatever the picture's size."""
    seen = _smoothed(field, camera, check)
    alpha = seen.alpha.clamp(0, 1)
    straight = seen.image / alpha[..., None].clamp_min(1e-4)
    straight = straight.clamp(0, 1) * (alpha[..., None] > 1e-4)
    covered = alpha > COVERED
    depth = torch.where(covered, seen.depth.float(), torch.inf)
    normals = None
    if with_normals:
        check()
        normals = torch.zeros_like(straight)
        which = covered.flatten().nonzero()[:, 0]
        normals.view(-1, 3)[which] = _normals(field, camera, seen.depth.flatten(), which)
    arrays = (straight, alpha, depth, normals)
    return Frame(*(None if a is None else a.float().cpu().numpy() for a in arrays))


def _smoothed(field: Field, camera: Camera, check: Callable[[], None]) -> Render:
    """The field's render with more rays through the pixels on outlines."""
    seen = field.render(camera, check)
    box = float((field.bounds[1] - field.bounds[0]).amax())
    depth = torch.where(seen.alpha > COVERED, seen.depth, seen.depth.amax())
    edges = _jumps(seen.alpha) > STEP_ALPHA
    edges |= (_jumps(depth) > STEP_DEPTH * box) & (seen.alpha > COVERED)
    if not edges.any():
        return seen
    image, alpha, near = (torch.zeros_like(t) for t in (seen.image, seen.alpha, seen.depth))
    for right, down in PLACES:
        # The picture moved by part of a pixel the other way.
        k = camera.intrinsics.copy()
        k[0, 2] -= right / camera.width
        k[1, 2] -= down / camera.height
        part = field.render(replace(camera, intrinsics=k), check, edges)
        image += part.image / len(PLACES)
        alpha += part.alpha / len(PLACES)
        near += part.depth * part.alpha / len(PLACES)
    # A depth between two things would be nobody's: the centre's, if it has one.
    near = torch.where(seen.alpha > COVERED, seen.depth, near / alpha.clamp_min(1e-6))
    image = torch.where(edges[..., None], image, seen.image)
    return Render(
        image, torch.where(edges, near, seen.depth), torch.where(edges, alpha, seen.alpha)
    )


def _jumps(values: torch.Tensor) -> torch.Tensor:
    """How much each pixel differs at most from the one to the right, left, above, below, [H, W]."""
    out = torch.zeros_like(values)
    for jump, first, second in (
        (values.diff(dim=0).abs(), out[1:], out[:-1]),
        (values.diff(dim=1).abs(), out[:, 1:], out[:, :-1]),
    ):
        for side in (first, second):
            torch.maximum(side, jump, out=side)
    return out


def _normals(
    field: Field, camera: Camera, depth: torch.Tensor, which: torch.Tensor
) -> torch.Tensor:
    """Unit normals [M, 3] of the pixels with these indices [M]."""
    origins, directions = camera_rays(camera, depth.device)
    origins = origins if origins.ndim == 1 else origins[which]
    axis = torch.as_tensor(camera.world2cam[2, :3]).to(directions)
    directions = directions[which]
    points = origins + directions * (depth[which] / (directions @ axis))[:, None]
    reach = float((field.bounds[1] - field.bounds[0]).amax()) * PROBE / 2
    gradient = torch.zeros_like(points)
    for corner in CORNERS:
        offset = points.new_tensor(corner)
        gradient += field.value(points + reach * offset)[:, None] * offset
    # Values rise towards the inside.
    return -torch.nn.functional.normalize(gradient, dim=1)


@torch.no_grad()
def extent(field: Field) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where the head is, as the low and the high corner of a box in field units, to about a
    sixty-fourth of the field's box; that box itself where nothing is found."""
    low, high = field.bounds.cpu().tolist()
    axes = [torch.linspace(a, b, EXTENT_NODES) for a, b in zip(low, high)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(field.bounds)
    inside = (field.value(grid.reshape(-1, 3)) > field.level).reshape((EXTENT_NODES,) * 3).cpu()
    if not inside.any():
        return tuple(low), tuple(high)
    at = inside.nonzero()
    ends = [[float(axes[i][j]) for i, j in enumerate(row)] for row in (at.amin(0), at.amax(0))]
    return tuple(ends[0]), tuple(ends[1])
