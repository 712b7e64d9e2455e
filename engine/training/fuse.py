"""Signed distance of a triangle soup by looking at it from all around.

The material is not watertight (open mouth bag, eye holes, hair cards), so inside and outside are
decided by visibility: a voxel is outside if some orthographic depth map sees past it. Rays whose
first hit is the back of a one-sided face have entered through an opening and decide nothing.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree


@numba.njit(cache=True, fastmath=True)
def _depth_map(px, py, pz, triangles, two_sided, depth, hit_back):  # pragma: no cover
    """Nearest depth per pixel (smaller is nearer) and whether that hit was a back face."""
    size = depth.shape[0]
    depth[:] = 1e9
    hit_back[:] = 0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, x1, y1, x2, y2 = px[a], py[a], px[b], py[b], px[c], py[c]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        xa = max(0, int(math.ceil(min(x0, x1, x2) - 0.5)))
        xb = min(size - 1, int(math.floor(max(x0, x1, x2) - 0.5)))
        ya = max(0, int(math.ceil(min(y0, y1, y2) - 0.5)))
        yb = min(size - 1, int(math.floor(max(y0, y1, y2) - 0.5)))
        back = 1 if (area < 0 and not two_sided[t]) else 0
        for y in range(ya, yb + 1):
            for x in range(xa, xb + 1):
                w1 = ((x + 0.5 - x0) * (y2 - y0) - (x2 - x0) * (y + 0.5 - y0)) / area
                w2 = ((x1 - x0) * (y + 0.5 - y0) - (x + 0.5 - x0) * (y1 - y0)) / area
                w0 = 1 - w1 - w2
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    z = w0 * pz[a] + w1 * pz[b] + w2 * pz[c]
                    if z < depth[y, x]:
                        depth[y, x] = z
                        hit_back[y, x] = back


def directions(count: int, lowest: float = -50.0) -> np.ndarray:
    """Unit vectors spread over the sphere, those steeper than `lowest` degrees below left out."""
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * i / count), math.pi * (1 + 5**0.5) * i
    d = np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], 1)
    return d[d[:, 1] > math.sin(math.radians(lowest))]


def grid_points(bounds: np.ndarray, resolution: int) -> np.ndarray:
    """Node positions [R, R, R, 3] (z, y, x order), corners at the corners of `bounds` [2, 3]."""
    ax = [np.linspace(bounds[0, i], bounds[1, i], resolution) for i in range(3)]
    z, y, x = np.meshgrid(ax[2], ax[1], ax[0], indexing="ij")
    return np.stack([x, y, z], -1).astype(np.float32)


def signed_distance(
    vertices: np.ndarray,
    triangles: np.ndarray,
    bounds: np.ndarray,
    resolution: int,
    two_sided: np.ndarray | None = None,
    views: int = 200,
    image: int = 640,
    spacing: float = 0.0006,
    closing: int = 0,
) -> np.ndarray:
    """Distance [R, R, R] (z, y, x) in metres, positive outside.

    vertices [V, 3] metres; triangles [F, 3], counter-clockwise from outside; two_sided [F] bool
    marks faces without an inside (hair cards); spacing of the surface samples in metres; closing:
    rounds of morphological closing of the inside, for masses made of cards.
    """
    rng = np.random.default_rng(0)
    if two_sided is None:
        two_sided = np.zeros(len(triangles), bool)
    tri = vertices[triangles]
    cross = np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
    area = np.linalg.norm(cross, axis=1) / 2
    count = rng.poisson(area / spacing**2)
    owner = np.repeat(np.arange(len(triangles)), count)
    uv = rng.random((len(owner), 2))
    uv = np.where(uv.sum(1, keepdims=True) > 1, 1 - uv, uv)
    at = tri[owner]
    samples = at[:, 0] + uv[:, :1] * (at[:, 1] - at[:, 0]) + uv[:, 1:] * (at[:, 2] - at[:, 0])
    normals = (cross / np.maximum(2 * area, 1e-12)[:, None])[owner]

    voxels = grid_points(bounds, resolution).reshape(-1, 3)
    inside = np.ones(len(voxels), bool)
    visible = np.zeros(len(samples), bool)
    half = 1.75 * float(np.abs(bounds).max())
    depth = np.empty((image, image), np.float32)
    back = np.empty((image, image), np.uint8)
    for d in directions(views):
        up = np.array([0.0, 1.0, 0.0]) if abs(d[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
        x = np.cross(up, d)
        x /= np.linalg.norm(x)
        # x right, y up, d towards the viewer: counter-clockwise faces have positive area.
        axes = np.stack([x * image / (2 * half), np.cross(d, x) * image / (2 * half), -d], 1)
        v = (vertices @ axes).astype(np.float32)
        _depth_map(
            v[:, 0] + image / 2, v[:, 1] + image / 2, v[:, 2], triangles, two_sided, depth, back
        )
        depth[back > 0] = -1e9
        live = np.nonzero(inside)[0]
        q = voxels[live] @ axes.astype(np.float32)
        i = np.clip((q[:, :2] + image / 2).astype(int), 0, image - 1)
        inside[live] = q[:, 2] >= depth[i[:, 1], i[:, 0]] - 0.0004
        q = samples @ axes
        i = np.clip((q[:, :2] + image / 2).astype(int), 0, image - 1)
        seen = (q[:, 2] <= depth[i[:, 1], i[:, 0]] + 0.0015) & (
            two_sided[owner] | (normals @ d > 0.1)
        )
        visible |= seen
    inside = inside.reshape((resolution,) * 3)
    if closing:
        inside |= ndimage.binary_closing(np.pad(inside, closing), iterations=closing)[
            (slice(closing, -closing),) * 3
        ]
    step = float((bounds[1] - bounds[0])[0]) / (resolution - 1)
    out = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    out = (np.sign(out) * (np.abs(out) - 0.5) * step).astype(np.float32)
    band = np.abs(out) < 3.5 * step
    points, normal = samples[visible], normals[visible]
    distance, nearest = cKDTree(points).query(voxels[band.ravel()], workers=-1)
    towards = ((voxels[band.ravel()] - points[nearest]) * normal[nearest]).sum(1)
    side = np.where(inside[band], -1.0, 1.0)
    # Very near a one-sided face its normal knows better than the carved voxels.
    near = (distance < 0.9 * step) & ~two_sided[owner[visible][nearest]]
    side = np.where(near & (np.abs(towards) > 0.3 * distance), np.sign(towards), side)
    out[band] = side * distance
    return ndimage.gaussian_filter(out, 0.6)
