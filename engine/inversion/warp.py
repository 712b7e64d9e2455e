"""A photo carried to other cameras by a field's depth, and what of it may be believed there.

The photo's depth map is a height field of triangles. Drawn into another camera with a z-buffer it
says for every pixel there which place of the photo lies under it; the photo itself is then read
bilinearly, so pictures may be finer than depth maps and gradients flow into them. This is the
forward warp of warping-guided inversion (WarpGAN, arXiv 2511.08178, section 3.2; HFGI3D, Xie et al.
2023, section 3.2). Nothing here knows a field's kind: depth maps and alpha are what
`Field.render` gives.

Depths are along the camera's z, in the field's units. Sizes of a pixel are taken at its depth, so
every limit below holds at any resolution and in any units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import Camera
from engine.surface.rasterize import rasterize

GRAZING = 0.1, 0.5  # cosines of the angle of view: below, a photo says nothing; above, all
TORN = 9.0  # depth steps between neighbour pixels, in pixels' widths: a tear, not a slope
NEAR = 0.012  # of the view's width: how far behind the field's own surface a warp may lie
ERODE, SOFTEN = 0.012, 0.016  # of the picture's side: what visibility loses at its edges
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass
class Flow:
    """Where one camera's pixels come from in another's picture.

    at: [h, w, 2] places in the source picture, x right and y down in -1..1, as F.grid_sample takes
    them; weight: [h, w] in 0..1, how far to believe them, 0 where nothing comes; depth: [h, w] of
    what lies there along this camera's z (0 where nothing does).
    """

    at: Tensor
    weight: Tensor
    depth: Tensor

    def carry(self, picture: Tensor) -> Tensor:
        """A picture [H, W, C] of the source, of any size -> [h, w, C]; black where nothing comes.
        Gradients flow into the picture."""
        planes = picture.permute(2, 0, 1)[None]
        got = F.grid_sample(
            planes, self.at[None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return got[0].permute(1, 2, 0) * (self.depth > 0)[..., None]


@dataclass
class Warped:
    """A picture [h, w, C] seen by another camera than its own, with the weight [h, w] in 0..1 and
    the depth [h, w] (0 where nothing came) of what it shows there."""

    picture: Tensor
    weight: Tensor
    depth: Tensor


def pixel_size(depth: Tensor, camera: Camera) -> Tensor:
    """Width [h, w] of a pixel at its depth [h, w], in field units; a camera of any size, the depth
    map's counts."""
    size = 1 / (float(camera.intrinsics[0, 0]) * depth.shape[1])
    return torch.full_like(depth, size) if camera.orthographic else depth * size


def points_of(depth: Tensor, camera: Camera) -> Tensor:
    """Points [h, w, 3] of the field's space at a depth map [h, w] of a camera of any size."""
    h, w = depth.shape
    k, turn = camera.intrinsics, depth.new_tensor(camera.cam2world)
    u = ((torch.arange(w).to(depth) + 0.5) / w - k[0, 2]) / k[0, 0]
    v = ((torch.arange(h).to(depth) + 0.5) / h - k[1, 2]) / k[1, 1]
    along = torch.ones_like(depth) if camera.orthographic else depth
    local = torch.stack([u * along, v[:, None] * along, depth], -1)
    return local @ turn[:3, :3].T + turn[:3, 3]


def facing(depth: Tensor, alpha: Tensor, camera: Camera) -> Tensor:
    """How squarely a camera of any size sees its depth map [h, w] with alpha [h, w]: 1 .. 0 for
    grazing views (see GRAZING) and beside tears, [h, w]."""
    slope = _steepest(depth, alpha > 0.5, camera)[None, None]
    slope = F.avg_pool2d(F.pad(slope, (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
    cosine = (1 + slope.square()).rsqrt()
    t = ((cosine - GRAZING[0]) / (GRAZING[1] - GRAZING[0])).clamp(0, 1)
    return t * t * (3 - 2 * t) * (alpha > 0.5)


def _steepest(depth: Tensor, solid: Tensor, camera: Camera) -> Tensor:
    """Tangent of the angle between the surface's normal and the view [h, w], by differences to the
    four neighbours; a step to where nothing is counts as a tear."""
    total = torch.zeros_like(depth)
    size = pixel_size(depth, camera).clamp_min(1e-9)
    for axis in (0, 1):
        n = depth.shape[axis]
        step = depth.narrow(axis, 1, n - 1) - depth.narrow(axis, 0, n - 1)
        both = solid.narrow(axis, 1, n - 1) & solid.narrow(axis, 0, n - 1)
        step = torch.where(both, step.abs(), 2 * TORN * size.narrow(axis, 0, n - 1))
        pad = (0, 0, 1, 1) if axis == 0 else (1, 1, 0, 0)
        padded = F.pad(step[None, None], pad, mode="replicate")[0, 0]
        larger = torch.maximum(padded.narrow(axis, 0, n), padded.narrow(axis, 1, n))
        total = total + (larger / size).square()
    return total.sqrt()


def forward_flow(depth: Tensor, weight: Tensor, source: Camera, target: Camera) -> Flow:
    """Where the pixels of `target` (its width by height) come from in the picture of `source`.

    depth [h, w] and weight [h, w] in 0..1 may be of any size; where one is 0 nothing is carried;
    surface that the source sees at a slant is carried without cracks, and torn where its depth
    jumps (see TORN).
    """
    h, w = depth.shape
    points = points_of(depth.where(depth > 0, depth.amax()), source).reshape(-1, 3)
    corner = torch.arange(h * w).reshape(h, w)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    quads = torch.stack([a, b, c, d], -1).reshape(-1, 4)
    there = depth.flatten()[quads]
    step = there.amax(1) - there.amin(1)
    size = pixel_size(depth, source).flatten()[quads[:, 0]]
    known = (weight * (depth > 0)).flatten()[quads].amin(1) > 0
    quads = quads[known & (step < 2 * TORN * size)]
    vertices = points.double().numpy()
    faces = torch.cat([quads[:, [0, 2, 1]], quads[:, [1, 2, 3]]]).numpy()
    faces = faces[_same_side(vertices, faces, target)]
    drawn = rasterize(vertices, faces, target)
    y, x = np.divmod(faces, w)
    rows = [(x + 0.5) / w * 2 - 1, (y + 0.5) / h * 2 - 1, weight.numpy().ravel()[faces]]
    got = torch.from_numpy(drawn.interpolate(np.stack(rows, -1)))
    met = drawn.face >= 0
    far = torch.from_numpy(np.where(met, drawn.depth, 0).astype(np.float32))
    return Flow(got[..., :2], got[..., 2].clamp(0, 1) * torch.from_numpy(met), far)


def _same_side(vertices: np.ndarray, faces: np.ndarray, target: Camera) -> np.ndarray:
    """Which faces [F, 3] of a depth map's triangles the target sees from the source's side [F]:
    the others are the inside of a surface whose outside it cannot see."""
    xy = target.project(vertices)[0][faces]
    (ax, ay), (bx, by) = (xy[:, 1] - xy[:, 0]).T, (xy[:, 2] - xy[:, 0]).T
    return ax * by - ay * bx < 0


def backward_flow(depth: Tensor, camera: Camera, other_depth: Tensor, other: Camera) -> Flow:
    """Where a camera's pixels, whose depth [h, w] is known, lie in the picture of another camera,
    whose depth map [H, W] says what it sees itself (0 where nothing is, in both).

    weight is 1 where both see the same surface, fading to 0 at NEAR; pixels of depth 0 have none.
    """
    points = points_of(depth, camera).reshape(-1, 3)
    w2c = points.new_tensor(other.world2cam)
    local = points @ w2c[:3, :3].T + w2c[:3, 3]
    z = local[:, 2]
    divisor = torch.ones_like(z) if other.orthographic else z.clamp_min(1e-9)
    k = other.intrinsics
    at = torch.stack(
        [k[0, 0] * local[:, 0] / divisor + k[0, 2], k[1, 1] * local[:, 1] / divisor + k[1, 2]], 1
    )
    at = (2 * at - 1).view(*depth.shape, 2)
    z = z.view_as(depth)
    seen = (depth > 0) & (z > 0) & (at.abs() < 1).all(-1)
    return Flow(at, agreement(z, other_depth, other, at) * seen, depth * seen)


def agreement(depth: Tensor, other: Tensor, camera: Camera, at: Tensor | None = None) -> Tensor:
    """1 where a depth [h, w] lies on a camera's depth map `other` [H, W], 0 from NEAR of the view's
    width on [h, w]; at: its places [h, w, 2] there in -1..1, pixel by pixel without. What the map
    itself spans from pixel to pixel, on slopes, counts for nothing."""
    size = pixel_size(other, camera)
    high = F.max_pool2d(other[None, None], 3, 1, 1)[0, 0]
    low = -F.max_pool2d(-other[None, None], 3, 1, 1)[0, 0]
    maps = torch.stack([other, torch.minimum(high - low, TORN * size), size])[None]
    if at is not None:
        maps = F.grid_sample(maps, at[None], mode="nearest", align_corners=False)
    other, span, size = maps[0]
    away = ((depth - other).abs() - span).clamp_min(0)
    width = size * high.shape[1]
    return (2 - 2 * away / (NEAR * width).clamp_min(1e-9)).clamp(0, 1) * (other > 0)


def forward_warp(
    picture: Tensor, depth: Tensor, weight: Tensor, source: Camera, target: Camera
) -> Warped:
    """The picture [H, W, C] (0..1) of `source`, whose depth [h, w] is known, as `target` sees it.

    weight [h, w] in 0..1: how far each pixel may be believed (the matte, times facing()). Depth and
    weight share a size, the picture may be larger; the result has the target's.
    """
    flow = forward_flow(depth, weight, source, target)
    return Warped(flow.carry(picture), flow.weight, flow.depth)


def visibility(
    warped: Warped | Flow,
    target_depth: Tensor,
    target_alpha: Tensor,
    target: Camera,
    erode: float = ERODE,
    soften: float = SOFTEN,
) -> Tensor:
    """How far each pixel of a warped picture shows what the target sees [h, w] in 0..1.

    A z-test against the field's own depth [h, w] and alpha [h, w] there drops what the field hides
    (the photo knows nothing of hair that stands in between) and what flew off at a tear; the edge
    is eroded and softened by shares of the picture's side, inwards only.
    """
    same = (warped.depth > 0) * agreement(warped.depth, target_depth, target)
    sure = (warped.weight * same * target_alpha.clamp(0, 1))[None, None]
    side = max(sure.shape[-2:])
    r = max(1, round(erode * side))
    solid = (sure > 0.05).float()
    # A pixel that was lost alone is a crack of the z-test, not an edge.
    closed = -F.max_pool2d(-F.max_pool2d(solid, 3, 1, 1), 3, 1, 1)
    solid = torch.maximum(solid, closed)
    inner = -F.max_pool2d(-F.pad(solid, (r,) * 4), 2 * r + 1, 1)
    k = max(1, round(soften * side))
    for _ in range(2):  # two boxes: a tent, which ends where the eroded edge did not reach
        inner = F.avg_pool2d(inner, 2 * k + 1, 1, k, count_include_pad=False)
    return (sure * inner * solid)[0, 0]


def mirrored(picture: Tensor, camera: Camera) -> tuple[Tensor, Camera]:
    """A picture [H, W, C] (or a map [H, W]) and its camera reflected at the head's plane x = 0: how
    a head with equal halves looks from the mirrored place."""
    k = camera.intrinsics.copy()
    k[0, 2] = 1 - k[0, 2]
    moved = MIRROR @ camera.cam2world @ MIRROR  # the head's plane, and the picture's own
    return picture.flip(1), replace(camera, cam2world=moved, intrinsics=k)


def rewarp(
    picture: Tensor,
    depth: Tensor,
    camera: Camera,
    source_depth: Tensor,
    source: Camera,
) -> Warped:
    """A picture [H, W, C] that `camera` sees carried back to the source view: what cycle losses
    compare with the photo (WarpGAN, section 3.3).

    depth [h, w], source_depth [h', w']: what the two see, 0 where nothing is; the result has the
    latter's size. weight: 1 where both see the same surface and `camera` sees it squarely (see
    facing()). Gradients flow into the picture.
    """
    flow = backward_flow(source_depth, source, depth, camera)
    square = facing(depth, (depth > 0).to(depth), camera)
    weight = flow.weight * flow.carry(square[..., None])[..., 0]
    return Warped(flow.carry(picture), weight, flow.depth)
